import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import NearestBias, NearestNeighbors, Softmax
from vit.attention.nearest import nearest_edges
from vit.tokens import Grid, Layout


def qkv() -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)


def test_starts_between_the_graph_and_full_attention() -> None:
    parts, grid = qkv(), Grid(1, N)
    graph, full = NearestNeighbors(H, D, grid, 2)(*parts, row()), Softmax(H, D, grid)(*parts, row())
    assert_close(NearestBias(H, D, grid, 2, start=1e3).double()(*parts, row()), graph)
    assert_close(NearestBias(H, D, grid, 2, start=0.0).double()(*parts, row()), full)
    between = NearestBias(H, D, grid, 2).double()(*parts, row())
    assert 0 < (between - graph).norm() < 0.1 * (full - graph).norm()


def test_equals_the_explicit_formula_and_each_head_learns_its_own() -> None:
    grid = Grid(1, N - 1, prefix=("cls",))
    mechanism, (q, k, v) = NearestBias(H, D, grid, 2).double(), qkv()
    with torch.no_grad():
        mechanism.off.copy_(torch.arange(H) - 1.0)  # below zero: away from its neighbours
    edges = nearest_edges(k, None, 2, 1)
    scores = q @ k.transpose(-1, -2) * D**-0.5 - mechanism.off[:, None, None] * (~edges).double()
    ours = mechanism(q, k, v, Layout(grid))
    assert_close(ours, scores.softmax(dim=-1) @ v)
    ours.square().sum().backward()
    assert mechanism.off.grad.ne(0).all()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="neighbors must be at least 0, got -1"):
        NearestBias(H, D, Grid(1, N), neighbors=-1)
