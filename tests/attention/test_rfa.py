import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import D, E, H, N, random, row
from vit.attention import RFA
from vit.tokens import Grid


def test_approaches_softmax_over_the_cosine_of_queries_and_keys() -> None:
    errors = []
    for features in (16, 256, 4096):
        total = 0.0
        for seed in range(8):
            torch.manual_seed(seed)
            q, k, v = random(1, 1, 41, 16), random(1, 1, 41, 16), random(1, 1, 41, E)
            exact = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)).softmax(dim=-1) @ v
            rough = RFA(1, 16, Grid(1, 41), features=features).double()(q, k, v, row(41))
            total += ((rough - exact).norm() / exact.norm()).item() / 8
        errors.append(total)
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_a_denominator_near_zero_is_held_up() -> None:
    """One feature, opposite angles: the weights sum to -1, and exp(-2) divides the values' sum instead."""
    mechanism = RFA(1, 2, Grid(1, 1), features=1).double()
    mechanism.projection = torch.tensor([[math.pi / 2, 0]]).double()
    q, k, v = torch.tensor([1.0, 0]), torch.tensor([-1.0, 0]), torch.tensor([3.0])
    out = mechanism(*(part.double().view(1, 1, 1, -1) for part in (q, k, v)), row(1))
    assert out.item() == pytest.approx(-3 / math.exp(-2))


def test_length_of_queries_and_keys_does_not_matter() -> None:
    mechanism = RFA(H, D, Grid(1, N)).double()
    q, k, v = random(1, H, N, D), random(1, H, N, D), random(1, H, N, E)
    assert_close(mechanism(9 * q, k / 7, v, row()), mechanism(q, k, v, row()))


def test_features_are_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"^features must be at least 1, got 0$"):
        RFA(H, D, Grid(1, N), features=0)
