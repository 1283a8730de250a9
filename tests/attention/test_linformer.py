import pytest
import torch
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Linformer
from vit.tokens import Grid, Layout, Mask


def test_with_as_many_rows_as_tokens_and_no_mixing_it_is_softmax() -> None:
    mechanism = Linformer(H, D, Grid(1, N), rank=N).double()
    with torch.no_grad():
        mechanism.mix_k.copy_(torch.eye(N))
        mechanism.mix_v.copy_(torch.eye(N))
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    assert_close(mechanism(q, k, v, row()), explicit(q, k, v, None))


def test_equals_the_formula_with_padding_zeroed_before_the_mixing() -> None:
    mechanism = Linformer(H, D, Grid(1, N), rank=3).double()
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    keys = torch.rand(B, N) < 0.6
    seen = keys[:, None, :, None]
    wanted = explicit(q, mechanism.mix_k @ (k * seen), mechanism.mix_v @ (v * seen), None)
    assert_close(mechanism(q, k, v, Layout(Grid(1, N), Mask(keys=keys))), wanted)


def test_says_the_tokens_it_was_built_for_and_those_that_came() -> None:
    parts = random(B, H, 5, D), random(B, H, 5, D), random(B, H, 5, E)
    with pytest.raises(ValueError, match=r"^Linformer was built for 7 tokens, got 5$"):
        Linformer(H, D, Grid(2, 3, ("cls",))).double()(*parts, row(5))


def test_refuses_a_kept_subset_even_of_all_patches() -> None:
    parts = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    layout = Layout(Grid(1, N), index=torch.arange(N).flip(0).expand(B, N))
    with pytest.raises(
        ValueError, match=r"^Linformer has weights for every patch in order, got a kept subset of 7 of 7$"
    ):
        Linformer(H, D, Grid(1, N)).double()(*parts, layout)


def test_refuses_weights_of_another_resolution() -> None:
    small, big = (torch.nn.Sequential(Linformer(H, D, Grid(side, side), rank=3)) for side in (2, 3))
    with pytest.raises(
        ValueError,
        match=r"^Linformer was built for 9 tokens, where 0\.mix_k is \(3, 9\); got \(3, 4\), learned for others: "
        r"it cannot be resized$",
    ):
        big.load_state_dict(small.state_dict())


def test_rank_is_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"^rank must be at least 1, got 0$"):
        Linformer(H, D, Grid(1, N), rank=0)
