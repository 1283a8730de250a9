import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, redrawn, row
from vit.attention import Additive
from vit.tokens import Grid, Layout, Mask

KEYS = torch.tensor([[True] * 6 + [False], [True, False, True, True, False, True, True]])
A = 13


def qkv(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, n, D).requires_grad_(), random(B, H, n, D).requires_grad_(), random(B, H, n, E).requires_grad_()


@pytest.mark.parametrize("mask", [None, Mask(keys=KEYS), Mask(keys=KEYS, causal=True)], ids=["", "keys", "causal"])
def test_equals_a_loop_over_heads_and_pairs(mask: Mask | None) -> None:
    mechanism, (q, k, v) = redrawn(Additive(H, D, Grid(1, N), hidden_dim=A, chunk=3)), qkv()
    allowed = torch.ones(1, N, N).bool() if mask is None else mask.allowed(N, q.device)
    scores = torch.empty(B, H, N, N, dtype=torch.float64)
    for h in range(H):
        for i in range(N):
            for j in range(N):
                hidden = (q[:, h, i] @ mechanism.query[h] + k[:, h, j] @ mechanism.key[h]).tanh()
                scores[:, h, i, j] = hidden @ mechanism.score[h]
    wanted = scores.masked_fill(~allowed[:, None], -math.inf).softmax(dim=-1) @ v
    assert_close(mechanism(q, k, v, Layout(Grid(1, N), mask)), wanted)


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_chunks_change_nothing(chunk: int) -> None:
    whole = redrawn(Additive(H, D, Grid(1, N), A, chunk=N))
    parts, layout = qkv(), Layout(Grid(1, N), Mask(keys=KEYS, causal=True))
    ours = Additive(H, D, Grid(1, N), A, chunk).double()
    ours.load_state_dict(whole.state_dict())
    out, wanted = ours(*parts, layout), whole(*parts, layout)
    assert_close(out, wanted)
    direction = torch.randn_like(out)
    gradients = torch.autograd.grad(wanted, (*parts, *whole.parameters()), direction)
    assert_close(torch.autograd.grad(out, (*parts, *ours.parameters()), direction), gradients)


def test_never_holds_the_network_of_all_pairs() -> None:
    """Neither at once nor kept for the backward pass."""
    n, kept, largest = 97, {}, []
    mechanism, parts = Additive(H, D, Grid(1, n), A, chunk=8).double(), qkv(n)

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest.extend([out.numel()] if isinstance(out, Tensor) else [])
            return out

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Watch():
        mechanism(*parts, row(n)).sum().backward()
    assert max(largest) <= B * H * n * max(8 * A, n)
    assert sum(kept.values()) < B * H * n * n * A / 5


def test_a_query_gets_its_answer_whatever_the_others_ask() -> None:
    mechanism, (q, k, v) = redrawn(Additive(H, D, Grid(1, N), A, chunk=2)), qkv()
    other = torch.cat((q[:, :, :1], random(B, H, N - 1, D)), dim=2)
    assert_close(mechanism(other, k, v, row())[:, :, 0], mechanism(q, k, v, row())[:, :, 0])


def test_says_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"^chunk must be at least 1, got 0$"):
        Additive(H, D, Grid(1, N), chunk=0)
    with pytest.raises(ValueError, match=r"^hidden_dim must be at least 1, got 0$"):
        Additive(H, D, Grid(1, N), hidden_dim=0)
