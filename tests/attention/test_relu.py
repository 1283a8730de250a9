import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import MechanismFactory, Relu, ReluSum
from vit.tokens import Grid, Layout, Mask

KEYS = torch.tensor([[True] * 6 + [False], [True, False, True, True, False, True, True]])


def qkv(n: int = N, width: int = D) -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, n, width), random(B, H, n, width), random(B, H, n, E)


@pytest.mark.parametrize("mask", [None, Mask(keys=KEYS), Mask(keys=KEYS, causal=True)], ids=["", "keys", "causal"])
@pytest.mark.parametrize("mechanism", [Relu, ReluSum])
def test_equals_a_loop_over_queries(mechanism: MechanismFactory, mask: Mask | None) -> None:
    q, k, v = qkv()
    allowed = torch.ones(B, N, N).bool() if mask is None else mask.allowed(N, q.device).expand(B, -1, -1)
    ours = mechanism(H, D, Grid(1, N))(q, k, v, Layout(Grid(1, N), mask))
    for b in range(B):
        for h in range(H):
            for i in range(N):
                seen = [j for j in range(N) if allowed[b, i, j]]
                weights = {j: max(float(q[b, h, i] @ k[b, h, j]) / math.sqrt(D), 0.0) for j in seen}
                total = len(seen) if mechanism is Relu else sum(weights.values()) or 1.0
                wanted = torch.stack([weights[j] / total * v[b, h, j] for j in seen]).sum(dim=0)
                assert_close(ours[b, h, i], wanted)


def spread(n: int) -> float:
    q, k, v = qkv(n, 16)
    return Relu(H, 16, Grid(1, n))(q, k, v, row(n)).std().item()


def test_one_over_n_keeps_the_output_from_growing_with_the_picture() -> None:
    """As softmax's it falls with the square root of the tokens; the bare sum would grow with it."""
    assert spread(49) / spread(784) == pytest.approx(4, rel=0.2)
    assert spread(784) * 784 / (spread(49) * 49) == pytest.approx(4, rel=0.2)


def test_shares_sum_to_one_or_to_nothing() -> None:
    q, k, _ = qkv()
    q[0, 0, 0] = -k[0, 0].sum(dim=0) * 0
    k[0, 1] = -q[0, 1, 2]  # no key pleases query 2
    one, each = (
        mechanism(H, D, Grid(1, N))(q, k, torch.eye(N).double().expand(B, H, N, N), row())
        for mechanism in (ReluSum, Relu)
    )
    sums = one.sum(dim=-1)
    assert one.min() >= 0
    assert sums[0, 0, 0] == sums[0, 1, 2] == 0
    assert_close(sums[1], torch.ones_like(sums[1]))
    assert not torch.allclose(each.sum(dim=-1), sums)


def test_a_query_that_no_key_pleases_has_finite_gradients() -> None:
    q, k, v = (part.requires_grad_() for part in qkv())
    with torch.no_grad():
        k.copy_(-q[:, :, :1])
    out = ReluSum(H, D, Grid(1, N))(q, k, v, row())
    out.pow(2).sum().backward()
    assert out[:, :, 0].count_nonzero() == 0
    assert all(part.grad.isfinite().all() for part in (q, k, v))
