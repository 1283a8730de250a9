import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, random
from vit.attention import EdgeBias, GridGraph, Local, Softmax, Sparse
from vit.tokens import Grid, Layout

GRID = Grid(3, 5, prefix=("cls",))


def qkv() -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, 16, D), random(B, H, 16, D), random(B, H, 16, E)


def test_starts_between_the_graph_and_full_attention() -> None:
    parts, layout = qkv(), Layout(GRID)
    graph, full = Sparse(H, D, GRID, GridGraph)(*parts, layout), Softmax(H, D, GRID)(*parts, layout)
    assert_close(EdgeBias(H, D, GRID, start=1e3).double()(*parts, layout), graph)
    assert_close(EdgeBias(H, D, GRID, start=0.0).double()(*parts, layout), full)
    between = EdgeBias(H, D, GRID).double()(*parts, layout)
    assert 0 < (between - graph).norm() < 0.1 * (full - graph).norm()


def test_equals_the_explicit_formula_and_learns_off_the_edges_too() -> None:
    mechanism, (q, k, v) = EdgeBias(H, D, GRID, Local, start=2.0).double(), qkv()
    with torch.no_grad():
        mechanism.bias += random(H, 16, 16)
    wanted = (q @ k.transpose(-1, -2) * D**-0.5 + mechanism.bias).softmax(dim=-1) @ v
    ours = mechanism(q, k, v, Layout(GRID))
    assert_close(ours, wanted)
    ours.pow(2).sum().backward()
    assert mechanism.bias.grad.abs().min() > 0


@pytest.mark.parametrize(
    "layout", [Layout(Grid(5, 3, ("cls",))), Layout(GRID, index=torch.arange(15).expand(B, 15))], ids=["grid", "subset"]
)
def test_refuses_what_it_has_no_bias_for(layout: Layout) -> None:
    with pytest.raises(ValueError, match=r"^EdgeBias learned a bias for all tokens of Grid\(height=3, width=5"):
        EdgeBias(H, D, GRID).double()(*qkv(), layout)
