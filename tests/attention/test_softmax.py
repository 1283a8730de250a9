import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Softmax
from vit.tokens import Grid, Layout, Mask

KEYS = torch.tensor([[True] * 6 + [False], [True, False, True, True, False, True, True]])
PAIRS = torch.tensor([[(3 * i + 5 * j) % 4 != 1 or i == j for j in range(N)] for i in range(N)]).expand(B, N, N)
MASKS = {
    "none": None,
    "empty": Mask(),
    "keys": Mask(keys=KEYS),
    "causal": Mask(causal=True),
    "prefix": Mask(causal=True, prefix=torch.tensor([0, 3])),
    "pairs": Mask(pairs=PAIRS),
    "one for all": Mask(pairs=PAIRS[:1]),
    "all": Mask(keys=KEYS, causal=True, prefix=torch.tensor([2, 5]), pairs=PAIRS),
}


def explicit(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float | None = None) -> Tensor:
    """softmax(q k^T scale) v written out, a row of zeros where nothing may be seen."""
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask.allowed(k.shape[2], q.device)[:, None], -math.inf)
    return scores.softmax(dim=-1).nan_to_num() @ v


def heads(e: int) -> list[Tensor]:
    return [random(B, H, N, width).requires_grad_() for width in (D, D, e)]


@pytest.mark.parametrize("value_dim", [D, E])
@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equals_the_explicit_formula_forward_and_backward(mask: Mask | None, scale: float | None, value_dim: int):
    q, k, v = heads(value_dim)
    ours = Softmax(H, D, Grid(1, N), scale=scale)(q, k, v, Layout(Grid(1, N), mask))
    wanted = explicit(q, k, v, mask, scale)
    assert_close(ours, wanted)
    direction = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), direction), torch.autograd.grad(wanted, (q, k, v), direction), strict=True
    ):
        assert_close(mine, theirs)


def test_equals_a_loop_over_heads_and_tokens() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    out = Softmax(H, D, Grid(1, N))(q, k, v, row())
    for b in range(B):
        for h in range(H):
            for i in range(N):
                weights = [math.exp(float(q[b, h, i] @ k[b, h, j]) / math.sqrt(D)) for j in range(N)]
                mean = sum(w * v[b, h, j] for j, w in enumerate(weights)) / sum(weights)
                assert_close(out[b, h, i], mean)
        one = Softmax(1, D, Grid(1, N))
        single = [
            one(q[b : b + 1, h : h + 1], k[b : b + 1, h : h + 1], v[b : b + 1, h : h + 1], row()) for h in range(H)
        ]
        assert_close(out[b : b + 1], torch.cat(single, dim=1))


def test_by_hand() -> None:
    q, k, v = torch.tensor([2.0, 0.0]), torch.tensor([[1.0, 5.0], [0.0, 7.0]]), torch.tensor([[4.0], [8.0]])
    out = Softmax(1, 2, Grid(1, 2))(q[None, None, None], k[None, None], v[None, None], row(2))
    assert out.item() == pytest.approx((4 * math.exp(math.sqrt(2)) + 8) / (math.exp(math.sqrt(2)) + 1))


def test_more_keys_than_queries() -> None:
    q, k, v = random(B, H, 2, D), random(B, H, N, D), random(B, H, N, E)
    mask = Mask(keys=KEYS)
    out = Softmax(H, D, Grid(1, N))(q, k, v, Layout(Grid(1, N), mask))
    scores = (q @ k.transpose(-1, -2) * D**-0.5).masked_fill(~KEYS[:, None, None], -math.inf)
    assert_close(out, scores.softmax(dim=-1) @ v)


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(pairs=PAIRS)], ids=["causal", "pairs"])
def test_refuses_a_square_mask_between_two_sequences(mask: Mask) -> None:
    q, k, v = random(B, H, 2, D), random(B, H, N, D), random(B, H, N, E)
    with pytest.raises(
        ValueError, match=r"^a causal or pairwise mask needs as many queries as keys; got 2 queries, 7 keys$"
    ):
        Softmax(H, D, Grid(1, N))(q, k, v, Layout(Grid(1, N), mask))


@pytest.mark.parametrize("value_dim", [D, E])
@pytest.mark.parametrize("mask", [Mask(pairs=torch.arange(N)[:, None].expand(1, N, N) != 4)], ids=["row 4 empty"])
def test_an_empty_row_gives_zero_and_finite_gradients(mask: Mask, value_dim: int) -> None:
    q, k, v = heads(value_dim)
    out = Softmax(H, D, Grid(1, N))(q, k, v, Layout(Grid(1, N), mask))
    out.pow(2).sum().backward()
    assert out[:, :, 4].count_nonzero() == q.grad[:, :, 4].count_nonzero() == 0
    assert out[:, :, 3].abs().min() > 0
    assert all(part.grad.isfinite().all() for part in (q, k, v))


def test_large_scores_pick_the_best_key() -> None:
    q, k, v = 1e6 * random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    best = (q @ k.transpose(-1, -2)).argmax(dim=-1)
    assert_close(Softmax(H, D, Grid(1, N))(q, k, v, row()), v.gather(2, best[..., None].expand(-1, -1, -1, E)))


def test_weights_are_dropped_in_training_only_and_keep_their_mean() -> None:
    build = partial(Softmax, H, D, Grid(1, N))
    q, k, v = random(1, H, N, D), random(1, H, N, D), random(1, H, N, E)
    exact, dropping = build()(q, k, v, row()), build(attn_drop=0.4)
    assert_close(dropping.eval()(q, k, v, row()), exact)
    many = dropping.train()(*(part.expand(4000, -1, -1, -1) for part in (q, k, v)), row())
    assert many.std(dim=0).min() > 0.01
    error = (many.mean(dim=0) - exact[0]).abs() / (many.std(dim=0) / math.sqrt(len(many)))
    assert error.max() < 5  # standard errors
