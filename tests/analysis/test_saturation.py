"""Scaling keeps scores, and with them the slope of the softmax, from depending on the width."""

import pytest
import torch

from vit.analysis.saturation import saturation


def test_unscaled_scores_spread_as_the_root_of_the_width_and_scaled_ones_do_not():
    plain, scaled = saturation([16, 256], scaled=False), saturation([16, 256], scaled=True)
    assert [row.width for row in plain] == [16, 256]
    assert [row.spread for row in plain] == pytest.approx([4, 16], rel=0.1)
    assert [row.spread for row in scaled] == pytest.approx([1, 1], rel=0.1)
    assert plain[1].largest > 0.8 > 0.2 > scaled[1].largest
    assert plain[1].slope < 0.4 < 1.5 < scaled[1].slope


def test_the_slope_is_that_of_the_jacobian_and_the_largest_weight_that_of_a_query():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    k = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    rows = [torch.autograd.functional.jacobian(lambda s: s.softmax(0), row).abs().sum() for row in q @ k.mT]
    (found,) = saturation([5], scaled=False, keys=7, queries=3)
    assert found.slope == pytest.approx(sum(rows).item() / 3)
    assert found.largest == pytest.approx(sum(max(row.softmax(0).tolist()) for row in q @ k.mT) / 3)
