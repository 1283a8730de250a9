import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Linear
from vit.attention.linear import LinearState
from vit.tokens import Grid, Layout, Mask

LONG = 197


def by_the_matrix(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2) * allowed
    return weights / weights.sum(dim=-1, keepdim=True) @ v


def test_keys_and_values_first_equals_the_matrix_first() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    assert_close(Linear(H, D, Grid(1, N))(q, k, v, row()), by_the_matrix(q, k, v, torch.ones(N, N)))


@pytest.mark.parametrize("prefix", [None, torch.tensor([0, 70])], ids=["", "prefix"])
def test_causal_order_over_several_chunks_equals_the_masked_matrix(prefix: Tensor | None) -> None:
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    mask = Mask(causal=True, prefix=prefix)
    wanted = by_the_matrix(q, k, v, mask.allowed(LONG, q.device)[:, None])
    assert_close(Linear(H, D, Grid(1, LONG))(q, k, v, Layout(Grid(1, LONG), mask)), wanted)


def test_step_by_step_equals_causal_order_with_a_state_that_does_not_grow() -> None:
    q, k, v = (part.float() for part in (random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)))
    mechanism, state, outs = Linear(H, D, Grid(1, LONG)), None, []
    for t in range(LONG):
        out, state = mechanism.step(q[:, :, t], k[:, :, t], v[:, :, t], state)
        outs.append(out)
        assert state.sums.shape == (B, H, D, E)
        assert state.total.shape == (B, H, D)
    causal = mechanism(q, k, v, Layout(Grid(1, LONG), Mask(causal=True)))
    assert_close(torch.stack(outs, dim=2), causal, rtol=0, atol=3e-6)


def test_the_state_of_bfloat16_tokens_is_float32() -> None:
    parts = (torch.randn(B, H, width, dtype=torch.bfloat16) for width in (D, D, E))
    with torch.autocast("cpu", torch.bfloat16):
        out, state = Linear(H, D, Grid(1, N)).step(*parts)
    assert out.dtype == torch.bfloat16
    assert state.sums.dtype == state.total.dtype == torch.float32


def test_a_state_in_half_precision_is_refused() -> None:
    state = LinearState(torch.zeros(B, H, D, E, dtype=torch.bfloat16), torch.zeros(B, H, D, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"running sum: expected float32, got torch\.bfloat16$"):
        Linear(H, D, Grid(1, N)).step(torch.randn(B, H, D), torch.randn(B, H, D), torch.randn(B, H, E), state)


def test_queries_and_keys_far_below_zero_still_get_an_average() -> None:
    """elu + 1 in float32 is zero there, and 0 / 0 no number."""
    q, k, v = torch.full((1, 1, N, D), -25.0), torch.full((1, 1, N, D), -20.0), torch.randn(1, 1, N, E)
    assert_close(Linear(1, D, Grid(1, N))(q, k, v, row()), v.mean(dim=2, keepdim=True).expand_as(v))


def test_the_matrix_has_no_more_rank_than_a_head_is_wide() -> None:
    n = 31
    weights = Linear(H, D, Grid(1, n))(
        random(1, H, n, D), random(1, H, n, D), torch.eye(n).double().expand(1, H, n, n), row(n)
    )
    assert torch.linalg.matrix_rank(weights).eq(D).all()


def test_a_causal_mask_between_two_sequences_is_refused() -> None:
    parts = random(B, H, 2, D), random(B, H, N, D), random(B, H, N, E)
    with pytest.raises(
        ValueError, match=r"^a causal or pairwise mask needs as many queries as keys; got 2 queries, 7 keys$"
    ):
        Linear(H, D, Grid(1, N))(*parts, Layout(Grid(1, N), Mask(causal=True)))
