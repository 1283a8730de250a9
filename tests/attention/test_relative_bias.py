import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import B, D, E, H, random, redrawn
from vit.attention import RelativeBias, Softmax
from vit.tokens import Grid, Layout, Mask

GRID = Grid(3, 5, prefix=("cls", "reg"))
N = GRID.tokens


def qkv(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, n, D).requires_grad_(), random(B, H, n, D).requires_grad_(), random(B, H, n, E).requires_grad_()


def test_equals_the_explicit_formula_forward_and_backward() -> None:
    mechanism, parts = redrawn(RelativeBias(H, D, GRID)), qkv()
    places = [None, None, *product(range(3), range(5))]
    bias = torch.zeros(H, N, N, dtype=torch.float64)
    for i, j in product(range(2, N), repeat=2):
        bias[:, i, j] = mechanism.table[:, places[i][0] - places[j][0] + 2, places[i][1] - places[j][1] + 4]
    q, k, v = parts
    wanted = (q @ k.transpose(-1, -2) / math.sqrt(D) + bias).softmax(dim=-1) @ v
    ours = mechanism(*parts, Layout(GRID))
    assert_close(ours, wanted)
    inputs, direction = (*parts, mechanism.table), torch.randn_like(wanted)
    assert_close(torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(wanted, inputs, direction))


def test_starts_as_softmax() -> None:
    parts = qkv()
    for mask in (None, Mask(causal=True)):
        layout = Layout(GRID, mask)
        assert_close(RelativeBias(H, D, GRID).double()(*parts, layout), Softmax(H, D, GRID)(*parts, layout))


def test_a_kept_subset_keeps_its_offsets() -> None:
    mechanism, index = redrawn(RelativeBias(H, D, GRID)), torch.tensor([[0, 3, 7, 14], [2, 5, 6, 9]])
    rows = torch.cat((torch.tensor([[0, 1]] * B), index + 2), dim=1)
    keys = torch.zeros(B, N, dtype=torch.bool).scatter(1, rows, True)
    parts = qkv()
    some = [part.gather(2, rows[:, None, :, None].expand(-1, H, -1, part.shape[-1])) for part in parts]
    wanted = mechanism(*parts, Layout(GRID, Mask(keys=keys))).gather(2, rows[:, None, :, None].expand(-1, H, -1, E))
    assert_close(mechanism(*some, Layout(GRID).keep(index)), wanted)


def test_another_grid_resizes_the_table() -> None:
    """A bias that rises along an offset still does, and stays odd about offset zero."""
    mechanism, larger = redrawn(RelativeBias(H, D, GRID)), Grid(7, 6, prefix=("cls", "reg"))
    with torch.no_grad():
        mechanism.table.copy_(torch.arange(-4.0, 5.0).expand(H, 5, 9))
    zero = torch.zeros(B, H, larger.tokens, D, dtype=torch.float64)
    weights = mechanism(zero, zero, torch.eye(larger.tokens).double().expand(B, H, -1, -1), Layout(larger))
    patches = weights[0, 0, 2:, 2:].log().view(7, 6, 7, 6)
    row = patches[3, 3, 3] - patches[3, 3, 3, 3]
    assert (row.diff() < 0).all()  # from column 0, offset 3, to column 5, offset -2
    assert_close(row[2], -row[4], rtol=0, atol=1e-6)
    assert_close(patches[3, 3], patches[3, 3, 3].expand(7, 6), rtol=0, atol=1e-6)


def test_refuses_two_sequences() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match=r"^RelativeBias needs queries and keys of the same 17 tokens; got 2 queries"):
        RelativeBias(H, D, GRID).double()(q[:, :, :2], k, v, Layout(GRID))


def convolution(kernel: int, table: Tensor) -> tuple[Tensor, Tensor]:
    """One head per place of the kernel attends by ``table``, a linear map of heads after it; and the convolution."""
    grid, channels = Grid(5, 7), 4
    heads = kernel**2
    mechanism = RelativeBias(heads, D, grid).double()
    with torch.no_grad():
        mechanism.table.copy_(table)
    x, weight = random(B, channels, 5, 7), random(E, channels, kernel, kernel)
    nothing = torch.zeros(B, heads, grid.tokens, D, dtype=torch.float64)
    values = x.flatten(2).transpose(1, 2)[:, None].expand(-1, heads, -1, -1)
    mixed = mechanism(nothing, nothing, values, Layout(grid)).unflatten(1, (kernel, kernel))
    ours = torch.einsum("byxnc,ecyx->ben", mixed, weight).unflatten(2, (5, 7))
    return ours, F.conv2d(x, weight, padding=kernel // 2)


def offsets(kernel: int) -> Tensor:
    """(heads, 9, 13) how far each entry of the table is from the head's own offset, squared."""
    down, right = torch.meshgrid(torch.arange(-4, 5), torch.arange(-6, 7), indexing="ij")
    own = product(range(-(kernel // 2), kernel // 2 + 1), repeat=2)
    # the table's offset is query minus key; a kernel's place is key minus query
    return torch.stack([(down + y) ** 2 + (right + x) ** 2 for y, x in own]).double()


@pytest.mark.parametrize("kernel", [3, 5])
def test_heads_that_look_at_one_offset_each_are_a_convolution(kernel: int) -> None:
    """Cordonnier et al. 2020, theorem 1; with nothing to see outside the picture, as zero padding."""
    table = torch.zeros_like(offsets(kernel)).masked_fill(offsets(kernel) > 0, -math.inf)
    ours, wanted = convolution(kernel, table)
    assert_close(ours, wanted)


def test_a_quadratic_encoding_comes_near_a_convolution_inside() -> None:
    """Cordonnier et al. 2020, lemma 2. At the border softmax has to put its weight somewhere inside."""
    inside, border = {}, {}
    for sharpness in (1.0, 5.0, 20.0):
        ours, wanted = convolution(3, -sharpness * offsets(3))
        error = (ours - wanted).abs() / wanted.std()
        inside[sharpness] = error[:, :, 1:-1, 1:-1].max().item()
        border[sharpness] = error.max().item()
    assert inside[1.0] > 0.3 > inside[5.0] > 1e-3 > 1e-5 > inside[20.0]
    assert min(border.values()) > 0.3
