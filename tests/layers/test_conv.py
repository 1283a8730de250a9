import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import PREFIXES, B, influence, random, redrawn, untyped
from vit.layers import ConvModule
from vit.tokens import Grid, Layout, Mask

C = 3
SIZES = [(5, 13), (4, 4), (7, 3)]
KERNELS = [3, (5, 1), (1, 3), (3, 5)]


def module(kernel_size: int | tuple[int, int] = 3) -> ConvModule:
    return redrawn(ConvModule(C, Grid(2, 2), kernel_size))


def reference(conv: ConvModule, x: Tensor, grid: Grid) -> Tensor:
    """One patch and one of its neighbours after the other."""
    weights = dict(conv.named_parameters())
    value, gate = (x @ weights["pointwise1.weight"].T + weights["pointwise1.bias"]).split(C, dim=-1)
    value, kernel = value / (1 + (-gate).exp()), weights["depthwise.weight"]
    rows, columns = kernel.shape[2] // 2, kernel.shape[3] // 2
    out = [torch.zeros_like(x[:, i]) for i in range(grid.num_prefix)]
    for y in range(grid.height):
        for z in range(grid.width):
            total = weights["depthwise.bias"]
            for dy in range(-rows, rows + 1):
                for dz in range(-columns, columns + 1):
                    if 0 <= y + dy < grid.height and 0 <= z + dz < grid.width:
                        token = grid.num_prefix + (y + dy) * grid.width + z + dz
                        total = total + kernel[:, 0, rows + dy, columns + dz] * value[:, token]
            total = total - total.mean(-1, keepdim=True)
            total = total / (total.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
            total = total * weights["norm.weight"] + weights["norm.bias"]
            total = total / (1 + (-total).exp())
            out.append(total @ weights["pointwise2.weight"].T + weights["pointwise2.bias"])
    return torch.stack(out, dim=1)


def near(size: tuple[int, int], rows: int, columns: int) -> Tensor:
    """(n n): patches at most ``rows`` and ``columns`` apart."""
    offsets = Layout(Grid(*size)).coordinates(torch.device("cpu"))[0]
    apart = (offsets[:, None] - offsets).abs()
    return (apart[..., 0] <= rows) & (apart[..., 1] <= columns)


@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equation(size: tuple[int, int], prefix: tuple[str, ...], kernel_size: int | tuple[int, int]) -> None:
    """Values and gradients, on a grid that the constructor did not know."""
    grid, conv = Grid(*size, prefix=prefix), module(kernel_size)
    x, direction = random(B, grid.tokens, C).requires_grad_(), random(B, grid.tokens, C)
    actual, expected = conv(x, Layout(grid)), reference(conv, x, grid)
    assert_close(actual, expected)
    assert_close(
        torch.autograd.grad((actual * direction).sum(), [x, *conv.parameters()]),
        torch.autograd.grad((expected * direction).sum(), [x, *conv.parameters()]),
    )


@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 1), (1, 3)])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_patch_sees_half_a_kernel_each_way_and_no_prefix_token(
    size: tuple[int, int], prefix: tuple[str, ...], kernel_size: tuple[int, int]
) -> None:
    grid, conv, front = Grid(*size, prefix=prefix), module(kernel_size), len(prefix)
    sees = influence(lambda x: conv(x, Layout(grid)), random(1, grid.tokens, C))[0, :, 0] > 0
    assert_close(sees[front:, front:], near(size, kernel_size[0] // 2, kernel_size[1] // 2))
    assert not sees[:front].any() and not sees[:, :front].any()


def test_prefix_tokens_get_exactly_zero() -> None:
    grid = Grid(4, 4, prefix=PREFIXES[-1])
    out = module()(random(B, 21, C), Layout(grid))
    assert_close(out[:, :5], torch.zeros(B, 5, C, dtype=torch.float64), rtol=0, atol=0)
    assert out[:, 5:].abs().min() > 0


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("kernel_size", [3, (5, 3)])
def test_a_padded_picture_gets_the_values_it_has_alone(prefix: tuple[str, ...], kernel_size: int) -> None:
    conv, front = module(kernel_size), len(prefix)
    grid, x = Grid(5, 13, prefix=prefix), random(2, front + 65, C)
    keys = torch.zeros(2, 5, 13, dtype=torch.bool)
    keys[0, :4, :4], keys[1, :3, :7] = True, True
    x[:, front:][~keys.flatten(1)] = torch.nan
    padded = Layout(grid, Mask(keys=torch.cat((torch.ones(2, front, dtype=torch.bool), keys.flatten(1)), dim=1)))
    together = conv(x, padded)
    for sample, size in enumerate([(4, 4), (3, 7)]):
        seen = torch.cat((torch.ones(front, dtype=torch.bool), keys[sample].flatten()))
        alone = conv(x[sample : sample + 1, seen], Layout(Grid(*size, prefix=prefix)))
        assert_close(together[sample : sample + 1, seen], alone)


def test_shifting_the_picture_shifts_the_inside() -> None:
    conv, layout, x = module(), Layout(Grid(7, 9)), random(1, 63, C).unflatten(1, (7, 9))
    out = conv(x.flatten(1, 2), layout).unflatten(1, (7, 9))
    shifted = conv(x.roll((1, 2), (1, 2)).flatten(1, 2), layout).unflatten(1, (7, 9))
    assert_close(shifted[:, 2:6, 3:8], out[:, 1:5, 1:6])
    assert (shifted[:, 1, 2] - out[:, 0, 0]).abs().max() > 1e-3  # a corner has fewer neighbours


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(Grid(4, 4), Mask(causal=True)), "^ConvModule .* it cannot honour a causal mask$"),
        (Layout(Grid(4, 4), Mask(pairs=torch.ones(1, 16, 16).bool())), "it cannot honour a mask of pairs$"),
        (Layout(Grid(8, 5), index=torch.arange(16)[None]), "^ConvModule needs .* got a kept subset of 16 of 40$"),
        (Layout(Grid(5, 3)), "^ConvModule got 16 tokens, the layout has 15$"),
    ],
    ids=["causal", "pairs", "kept", "tokens"],
)
def test_refuses_what_it_cannot_honour(layout: Layout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module()(random(1, 16, C), layout)


@pytest.mark.parametrize("kernel_size", [0, 2, (3, 4), (-1, 3)])
def test_kernels_have_a_middle(kernel_size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^kernel_size must be odd and at least 1, got -?\d$"):
        ConvModule(C, Grid(4, 4), kernel_size)


def test_drops_in_training_only() -> None:
    conv, x = redrawn(ConvModule(C, Grid(5, 13), drop=0.5)), random(B, 65, C)
    layout = Layout(Grid(5, 13))
    kept, full = conv.train()(x, layout), conv.eval()(x, layout)
    assert 0.3 < (kept == 0).double().mean() < 0.7
    assert_close(kept[kept != 0], 2 * full[kept != 0])


def test_compiles_without_graph_breaks() -> None:
    conv, x = module(), random(B, 66, C)
    keys = torch.ones(B, 66, dtype=torch.bool)
    keys[0, 40:] = False
    layout = Layout(Grid(5, 13, prefix=("cls",)), Mask(keys=keys))
    compiled = torch.compile(conv, fullgraph=True, backend="eager")
    with untyped():
        assert_close(compiled(x, layout), conv(x, layout))
