import torch
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, redrawn, row
from vit.attention import General, Softmax
from vit.tokens import Grid, Layout, Mask


def test_equals_the_explicit_formula() -> None:
    mechanism = redrawn(General(H, D, Grid(1, N)))
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    scores = torch.stack([q[:, h] @ mechanism.weight[h] @ k[:, h].transpose(-1, -2) for h in range(H)], dim=1)
    assert_close(mechanism(q, k, v, row()), scores.softmax(dim=-1) @ v)


def test_starts_as_softmax() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    layout = Layout(Grid(1, N), Mask(causal=True))
    assert_close(General(H, D, Grid(1, N)).double()(q, k, v, layout), Softmax(H, D, Grid(1, N))(q, k, v, layout))


def test_every_entry_of_the_map_learns() -> None:
    mechanism = General(H, D, Grid(1, N))
    q, k, v = (torch.randn(B, H, N, D) for _ in range(3))
    mechanism(q, k, v, row()).pow(2).sum().backward()
    assert mechanism.weight.grad.abs().min() > 0
