from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import PREFIXES, B, influence, random, redrawn
from vit.layers import Block, DepthwiseConv1d, DepthwiseConv2d, Encoder, NeighbourMean
from vit.tokens import Grid, Layout, Mask

C = 3


def neighbours(grid: Grid, y: int, x: int, rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(token, dy, dx) of the patches around one that lie on the grid."""
    return [
        (grid.num_prefix + (y + dy) * grid.width + x + dx, dy, dx)
        for dy in range(-rows, rows + 1)
        for dx in range(-columns, columns + 1)
        if 0 <= y + dy < grid.height and 0 <= x + dx < grid.width
    ]


@pytest.mark.parametrize("size", [(3, 5), (5, 1), (1, 3)])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_convolution_and_mean_on_the_grid(prefix: tuple[str, ...], size: tuple[int, int]) -> None:
    grid = Grid(4, 7, prefix=prefix)
    conv, mean = redrawn(DepthwiseConv2d(C, Grid(2, 2), size)), NeighbourMean(C, Grid(2, 2), size)
    rows, columns = size[0] // 2, size[1] // 2
    weight, x = conv.depthwise.weight[:, 0], random(B, grid.tokens, C)
    convolved, averaged = torch.zeros_like(x), torch.zeros_like(x)
    for i in range(grid.patches):
        near = neighbours(grid, *divmod(i, grid.width), rows, columns)
        token = grid.num_prefix + i
        convolved[:, token] = sum(weight[:, rows + dy, columns + dx] * x[:, j] for j, dy, dx in near)
        convolved[:, token] += conv.depthwise.bias
        averaged[:, token] = sum(x[:, j] for j, _, _ in near) / len(near) - x[:, token]
    assert_close(conv(x, Layout(grid)), convolved)
    assert_close(mean(x, Layout(grid)), averaged)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_convolution_along_the_sequence(prefix: tuple[str, ...], causal: bool) -> None:
    grid, front = Grid(2, 5, prefix=prefix), len(prefix)
    conv, x = redrawn(DepthwiseConv1d(C, grid, kernel_size=5)), random(B, grid.tokens, C)
    expected = torch.zeros_like(x)
    for i in range(10):
        taps = [t for t in range(-2, 1 if causal else 3) if 0 <= i + t < 10]
        total = sum(conv.depthwise.weight[:, 0, 2 + t] * x[:, front + i + t] for t in taps)
        expected[:, front + i] = total + conv.depthwise.bias
    assert_close(conv(x, Layout(grid, Mask(causal=causal))), expected)


def test_mean_by_hand() -> None:
    """Rows 1 2, 3 8 and, hidden, 100 100."""
    x, grid = torch.tensor([1.0, 2.0, 3.0, 8.0, 100.0, 100.0]).view(1, 6, 1), Grid(3, 2)
    keys = torch.tensor([[True] * 4 + [False] * 2])
    out = NeighbourMean(1, grid)(x, Layout(grid, Mask(keys=keys)))
    assert_close(out[0, :4, 0], torch.tensor([2.5, 1.5, 0.5, -4.5]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("mixer", "reach"),
    [
        (DepthwiseConv2d, 1),
        (partial(DepthwiseConv2d, kernel_size=5), 2),
        (NeighbourMean, 1),
        (partial(DepthwiseConv1d, kernel_size=3), 1),
        (partial(DepthwiseConv1d, kernel_size=5), 2),
    ],
    ids=str,
)
def test_depth_times_half_a_kernel_is_what_a_patch_sees(mixer: type[nn.Module], reach: int, depth: int) -> None:
    encoder = redrawn(Encoder(5, Grid(1, 11), [(partial(Block, mixer=mixer), depth)]))
    sees = influence(lambda x: encoder(x, Layout(Grid(1, 11))), random(1, 11, 5))[0, :, 0]
    near = (torch.arange(11)[:, None] - torch.arange(11)).abs() <= depth * reach
    assert_close(sees > 1e-12, near)


@pytest.mark.parametrize("size", [0, 2, (3, 4), (-1, 3)])
@pytest.mark.parametrize(("mixer", "name"), [(DepthwiseConv2d, "kernel_size"), (NeighbourMean, "pool_size")])
def test_kernels_have_a_middle(mixer: type[nn.Module], name: str, size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be odd and at least 1, got -?\d$"):
        mixer(C, Grid(4, 4), size)


def test_a_kernel_of_a_sequence_has_a_middle() -> None:
    with pytest.raises(ValueError, match=r"^kernel_size must be odd and at least 1, got 4$"):
        DepthwiseConv1d(C, Grid(4, 4), 4)


def tokens(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


def test_convolutions_by_hand() -> None:
    along, around = DepthwiseConv1d(1, Grid(1, 3), 3).double(), DepthwiseConv2d(1, Grid(1, 3), (1, 3)).double()
    with torch.no_grad():
        for conv in (along.depthwise, around.depthwise):
            conv.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view_as(conv.weight))
            conv.bias.fill_(0.5)
    for conv in (along, around):
        assert_close(conv(tokens(1, 2, 3), Layout(Grid(1, 3))), tokens(210.5, 321.5, 32.5))
