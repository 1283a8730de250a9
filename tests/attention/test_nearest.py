import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import NearestNeighbors, Softmax
from vit.tokens import Grid, Layout, Mask


def qkv(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, n, D), random(B, H, n, D), random(B, H, n, E)


def graph(k: Tensor, allowed: Tensor, neighbors: int, prefix: int) -> Tensor:
    """Edges by sorting distances, one token after another."""
    edges = allowed.expand(B, N, N)[:, None].repeat(1, H, 1, 1)
    for b in range(B):
        for h in range(H):
            for i in range(prefix, N):
                seen = [j for j in range(prefix, N) if edges[b, h, i, j]]
                order = sorted(seen, key=lambda j: (j != i, (k[b, h, i] - k[b, h, j]).norm()))
                for j in order[neighbors + 1 :]:
                    edges[b, h, i, j] = False
    return edges


def test_sees_itself_its_nearest_and_the_prefix() -> None:
    keys = torch.tensor([[True] * N, [True, False, True, True, False, True, True]])
    for prefix in ((), ("cls",)):
        grid = Grid(1, N - len(prefix), prefix=prefix)
        for mask in (None, Mask(keys=keys), Mask(causal=True)):
            q, k, v = qkv()
            allowed = torch.ones(1, N, N).bool() if mask is None else mask.allowed(N, q.device)
            edges = graph(k, allowed, 2, len(prefix))
            ours = NearestNeighbors(H, D, grid, neighbors=2)(q, k, v, Layout(grid, mask))
            scores = (q @ k.transpose(-1, -2) * D**-0.5).masked_fill(~edges, -torch.inf)
            rows = edges.any(dim=-1)
            assert_close(ours[rows], (scores.softmax(dim=-1) @ v)[rows])


def test_neighbours_enough_are_full_attention() -> None:
    q, k, v = qkv()
    assert_close(NearestNeighbors(H, D, Grid(1, N), 6)(q, k, v, row()), Softmax(H, D, Grid(1, N))(q, k, v, row()))
    assert_close(NearestNeighbors(H, D, Grid(1, N), 99)(q, k, v, row()), Softmax(H, D, Grid(1, N))(q, k, v, row()))


def test_alone_a_token_returns_its_own_value() -> None:
    q, k, v = qkv()
    assert_close(NearestNeighbors(H, D, Grid(1, N), 0)(q, k, v, row()), v)
