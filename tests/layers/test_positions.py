import math

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import GRIDS, PREFIXES, B, H, random
from vit.layers import LearnedPositions, NoPositions, Rotary2d, SinCos1d, SinCos2d, resize_positions
from vit.tokens import Grid, Layout

DIM, HEAD_DIM = 44, 20
SIN_COS = [SinCos1d, SinCos2d]


def added(positions: torch.nn.Module, grid: Grid, dim: int = DIM) -> Tensor:
    """(n c): what is added to the patches."""
    x = torch.randn(B, grid.patches, dim)
    out = positions(x, grid) - x
    assert_close(out[0], out[1], rtol=0, atol=1e-5)
    return positions(torch.zeros_like(x), grid)[0]


@pytest.mark.parametrize("kind", SIN_COS)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_sin_cos_rows_are_distinct_and_of_one_length(kind: type, size: tuple[int, int]) -> None:
    grid = Grid(*size)
    rows = added(kind(DIM, grid), grid).double()
    assert_close(rows.norm(dim=1), torch.full((grid.patches,), math.sqrt(DIM / 2)).double(), rtol=0, atol=1e-5)
    distances = torch.cdist(rows, rows) + 9 * torch.eye(grid.patches)
    assert distances.min() > 0.5


@pytest.mark.parametrize("kind", SIN_COS)
def test_sin_cos_similarity_depends_on_the_offset_only(kind: type) -> None:
    grid = Grid(5, 13)
    rows = added(kind(DIM, grid), grid)
    gram, where = rows @ rows.T, Layout(grid).coordinates(torch.device("cpu"))[0]
    if kind is SinCos1d:
        where = torch.arange(grid.patches)[:, None].float()
    offset = (where[:, None] - where[None]).flatten(0, 1)
    _, group = offset.unique(dim=0, return_inverse=True)
    groups = int(group.max()) + 1
    highest = torch.full((groups,), -math.inf).scatter_reduce(0, group, gram.flatten(), "amax")
    lowest = torch.full((groups,), math.inf).scatter_reduce(0, group, gram.flatten(), "amin")
    assert (highest - lowest).max() < 1e-4
    assert highest.max() - highest.min() > 1


def test_sin_cos_by_hand() -> None:
    assert_close(
        added(SinCos1d(4, Grid(1, 3)), Grid(1, 3), 4)[2],
        torch.tensor([2.0, 0.02, 0, 0]).sin_() + torch.tensor([0, 0, math.cos(2), math.cos(0.02)]),
    )
    row, column = 1.0, 2.0
    expected = [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    expected += [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    assert_close(added(SinCos2d(8, Grid(2, 3)), Grid(2, 3), 8)[5], torch.tensor(expected))


def test_2d_positions_tell_rows_from_columns() -> None:
    grid = Grid(5, 13)
    table = rearrange(added(SinCos2d(DIM, grid), grid), "(y x) (side c) -> y x side c", y=5, side=2)
    assert_close(table[:, :, 0], table[:, :1, 0].expand(-1, 13, -1))
    assert_close(table[:, :, 1], table[:1, :, 1].expand(5, -1, -1))


@pytest.mark.parametrize("kind", [SinCos1d, SinCos2d, NoPositions])
def test_positions_without_parameters_serve_any_grid(kind: type) -> None:
    big, small = added(kind(DIM, Grid(2, 2)), Grid(5, 13)), added(kind(DIM, Grid(5, 13)), Grid(5, 13))
    assert_close(big, small)
    assert (big.count_nonzero() == 0) == (kind is NoPositions)


def test_learned_positions_are_one_vector_per_patch() -> None:
    grid = Grid(5, 13, prefix=("cls",))
    positions = LearnedPositions(DIM, grid)
    assert positions.embed.shape == (1, 65, DIM)
    assert_close(added(positions, grid), positions.embed[0])


def test_learned_positions_are_resized_for_another_grid() -> None:
    positions = LearnedPositions(DIM, Grid(4, 6))
    expected = resize_positions(positions.embed, Grid(4, 6), Grid(5, 13))
    assert_close(added(positions, Grid(5, 13)), expected[0])
    added(positions, Grid(5, 13)).sum().backward()
    assert positions.embed.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", [LearnedPositions, SinCos1d, SinCos2d, NoPositions])
def test_positions_keep_the_dtype_of_the_tokens(kind: type, dtype: torch.dtype) -> None:
    positions = kind(DIM, Grid(2, 3))
    assert positions(torch.zeros(B, 6, DIM, dtype=dtype), Grid(2, 3)).dtype == dtype
    assert positions(torch.zeros(B, 20, DIM, dtype=dtype), Grid(4, 5)).dtype == dtype


def test_resizing_to_the_same_grid_is_the_identity() -> None:
    embed = random(1, 15, 7)
    assert resize_positions(embed, Grid(3, 5, prefix=("cls",)), Grid(3, 5)) is embed


def test_resizing_keeps_the_values_at_shared_points() -> None:
    embed = random(1, 4 * 6, 7)
    tripled = resize_positions(embed, Grid(4, 6), Grid(12, 18))
    centres = rearrange(tripled, "1 (y x) c -> y x c", y=12)[1::3, 1::3]
    assert_close(centres, rearrange(embed, "1 (y x) c -> y x c", y=4))


@pytest.mark.parametrize("new", [Grid(5, 13), Grid(3, 4), Grid(2, 9)], ids=str)
def test_resizing_keeps_structure(new: Grid) -> None:
    rows, old = random(1, 4, 1, 7).expand(1, 4, 6, 7), Grid(4, 6)
    by_row = rearrange(resize_positions(rows.flatten(1, 2), old, new), "1 (y x) c -> y x c", y=new.height)
    assert_close(by_row, by_row[:, :1].expand_as(by_row))
    by_column = resize_positions(rows.transpose(1, 2).flatten(1, 2), Grid(6, 4), Grid(new.width, new.height))
    assert_close(rearrange(by_column, "1 (y x) c -> x y c", x=new.height), by_row)
    constant = torch.full((1, 24, 7), 0.3)
    assert_close(resize_positions(constant, old, new), torch.full((1, new.patches, 7), 0.3))


def scores(rotary: Rotary2d, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
    return rotary(q, layout) @ rotary(k, layout).transpose(-1, -2)


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_rotary_scores_depend_on_the_offset_only(size: tuple[int, int], prefix: tuple[str, ...]) -> None:
    """One query and one key everywhere: any difference between scores is the positions' doing."""
    grid, front = Grid(*size, prefix=prefix), len(prefix)
    q, k = (random(1, H, 1, HEAD_DIM).expand(1, H, grid.tokens, HEAD_DIM) for _ in range(2))
    between = scores(Rotary2d(HEAD_DIM, grid), q, k, Layout(grid))[0, :, front:, front:]
    table = rearrange(between, "h (y x) (v u) -> h y x v u", y=size[0], v=size[0])
    assert_close(table[:, 1:, 1:, 1:, 1:], table[:, :-1, :-1, :-1, :-1], rtol=0, atol=1e-4)
    assert (table[:, 0, 0, 1, 0] - table[:, 0, 0, 0, 1]).abs().min() > 1e-3
    assert (table[:, 0, 0, 0, 1] - table[:, 0, 1, 0, 0]).abs().min() > 1e-3


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_rotary_keeps_lengths_and_prefix_tokens(prefix: tuple[str, ...]) -> None:
    grid = Grid(5, 13, prefix=prefix)
    x, front = random(B, H, grid.tokens, HEAD_DIM), len(prefix)
    turned = Rotary2d(HEAD_DIM, grid)(x, Layout(grid))
    assert_close(turned[:, :, : front + 1], x[:, :, : front + 1], rtol=0, atol=0)
    assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert (turned - x)[:, :, front + 1 :].abs().amax(dim=-1).min() > 1e-3


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_rotary_of_a_kept_subset_equals_gathering(prefix: tuple[str, ...]) -> None:
    grid, index = Grid(5, 13, prefix=prefix), torch.tensor([[0, 64, 17], [5, 3, 40]])
    x, rotary = random(B, H, grid.tokens, HEAD_DIM), Rotary2d(HEAD_DIM, grid)
    rows = torch.cat((torch.arange(len(prefix)).expand(B, -1), index + len(prefix)), dim=1)
    rows = rows[:, None, :, None].expand(-1, H, -1, HEAD_DIM)
    assert_close(rotary(x.gather(2, rows), Layout(grid).keep(index)), rotary(x, Layout(grid)).gather(2, rows))


def test_rotary_follows_the_grid_of_the_call() -> None:
    x, layout = random(B, H, 65, HEAD_DIM), Layout(Grid(5, 13))
    assert_close(Rotary2d(HEAD_DIM, Grid(2, 2))(x, layout), Rotary2d(HEAD_DIM, Grid(5, 13))(x, layout))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rotary_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(B, H, 6, HEAD_DIM, dtype=dtype)
    assert Rotary2d(HEAD_DIM, Grid(2, 3))(x, Layout(Grid(2, 3))).dtype == dtype


@pytest.mark.parametrize(
    ("kind", "dim", "message"),
    [
        (SinCos2d, 6, "2-D sin-cos positions need channels divisible by 4, got 6"),
        (SinCos1d, 7, "1-D sin-cos positions need an even number of channels, got 7"),
        (Rotary2d, 10, "2-D rotary positions need a head width divisible by 4, got 10"),
    ],
)
def test_refuses_widths_it_cannot_halve(kind: type, dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(dim, Grid(2, 3))
