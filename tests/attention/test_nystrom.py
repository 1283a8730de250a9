import pytest
import torch
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Nystrom
from vit.tokens import Grid, Layout, Mask


def test_a_landmark_per_token_is_softmax() -> None:
    q, k, v = 0.5 * random(B, H, N, D), 0.5 * random(B, H, N, D), random(B, H, N, E)
    out = Nystrom(H, D, Grid(1, N), landmarks=N, iterations=40)(q, k, v, row())
    assert_close(out, explicit(q, k, v, None), rtol=0, atol=3e-5)


def test_equals_the_formula_with_an_exact_pseudo_inverse() -> None:
    """Nine tokens in four runs: 3, 2, 2, 2."""
    q, k, v = random(B, H, 9, D), random(B, H, 9, D), random(B, H, 9, E)
    runs = ([0, 1, 2], [3, 4], [5, 6], [7, 8])
    q4, k4 = (torch.stack([x[:, :, run].mean(dim=2) for run in runs], dim=2) for x in (q, k))
    identity = torch.eye(9, dtype=q.dtype).expand(B, H, 9, 9)
    core = torch.linalg.pinv(explicit(q4, k4, identity[..., :4, :4], None))
    wanted = explicit(q, k4, core @ explicit(q4, k, v, None), None)
    assert_close(Nystrom(H, D, Grid(1, 9), landmarks=4, iterations=40)(q, k, v, row(9)), wanted, rtol=1e-3, atol=1e-3)


def test_rows_sum_to_one_once_the_iteration_has_converged_but_entries_are_signed() -> None:
    q, k = random(B, H, 23, D), random(B, H, 23, D)
    weights = Nystrom(H, D, Grid(1, 23), landmarks=5, iterations=40)(
        q, k, torch.eye(23, dtype=q.dtype).expand(B, H, 23, 23), row(23)
    )
    assert_close(weights.sum(dim=-1), torch.ones(B, H, 23, dtype=q.dtype))
    assert weights.min() < 0


def test_padding_at_the_front_takes_no_weight_in_the_means() -> None:
    parts = random(1, H, 9, D), random(1, H, 9, D), random(1, H, 9, E)
    mechanism, keys = Nystrom(H, D, Grid(1, 9), landmarks=3), torch.arange(9)[None] >= 2
    padded = mechanism(*parts, Layout(Grid(1, 9), Mask(keys=keys)))
    assert_close(padded[:, :, 2:], mechanism(*(part[:, :, 2:] for part in parts), row(7)))


@pytest.mark.parametrize("options", [{"landmarks": 0}, {"iterations": 0}])
def test_options_are_at_least_one(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be at least 1, got 0$"):
        Nystrom(H, D, Grid(1, N), **options)
