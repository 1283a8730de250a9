from itertools import product

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, random
from vit.attention import GatedPositional, Softmax
from vit.tokens import Grid, Layout, Mask

GRID = Grid(5, 7)
SQUARE = sorted(product((-1, 0, 1), (-1, 0, 1)), key=lambda o: (o[0] ** 2 + o[1] ** 2, o))


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """x (b n c) on GRID, weight (9 c o) in the order of SQUARE; zero padding."""
    kernel = weight.new_zeros(weight.shape[2], weight.shape[1], 3, 3)
    for (dy, dx), tap in zip(SQUARE, weight, strict=True):
        kernel[:, :, dy + 1, dx + 1] = tap.T
    picture = rearrange(x, "b (y x) c -> b c y x", y=GRID.height)
    return rearrange(F.conv2d(picture, kernel, padding=1), "b c y x -> b (y x) c")


def neighbour(dy: int, dx: int) -> Tensor:
    """(1 n n): True where the key lies at this offset from the query."""
    offset = Layout(GRID).coordinates(torch.device("cpu"))
    offset = offset[:, None] - offset[:, :, None]
    return (offset == torch.tensor([dy, dx])).all(dim=-1)


def test_nine_heads_that_see_one_neighbour_each_are_a_convolution_everywhere() -> None:
    x, weight = random(B, GRID.tokens, D), random(9, D, E)
    heads = 0
    for (dy, dx), tap in zip(SQUARE, weight, strict=True):
        q, layout = random(B, 1, GRID.tokens, 3), Layout(GRID, Mask(pairs=neighbour(dy, dx)))
        heads = heads + Softmax(1, 3, GRID)(q, q, x[:, None], layout)[:, 0] @ tap
    assert_close(heads, convolution(x, weight))


def test_nine_heads_start_as_a_convolution_inside_the_picture_as_they_narrow() -> None:
    x, weight = random(B, GRID.tokens, D), random(9, D, E)
    wanted = rearrange(convolution(x, weight), "b (y x) c -> b y x c", y=GRID.height)[:, 1:-1, 1:-1]
    inside, border = [], 0.0
    for locality in (1.0, 5.0, 20.0):
        mechanism = GatedPositional(9, D, GRID, locality=locality, gate=50.0).double()
        q, v = random(B, 9, GRID.tokens, D), x[:, None].expand(-1, 9, -1, -1)
        heads = torch.einsum("b h n d, h d o -> b n o", mechanism(q, q, v, Layout(GRID)), weight)
        heads = rearrange(heads, "b (y x) c -> b y x c", y=GRID.height)
        inside.append((heads[:, 1:-1, 1:-1] - wanted).abs().max().item())
        border = (heads[:, 0] - rearrange(convolution(x, weight), "b (y x) c -> b y x c", y=5)[:, 0]).abs().max().item()
    assert inside[0] > 10 * inside[1] > 100 * inside[2]
    assert inside[2] < 3e-7
    assert border > 0.1  # a softmax has to put its mass inside the picture


def test_gate_mixes_content_and_place() -> None:
    q, k, v = random(B, H, GRID.tokens, D), random(B, H, GRID.tokens, D), random(B, H, GRID.tokens, E)
    build = [GatedPositional(H, D, GRID, gate=gate).double() for gate in (-50.0, 50.0, 0.3)]
    content, place, both = (mechanism(q, k, v, Layout(GRID)) for mechanism in build)
    assert_close(content, explicit(q, k, v, None))
    assert_close(place, build[1](random(*q.shape), random(*k.shape), v, Layout(GRID)))
    share = torch.tensor(0.3).double().sigmoid()
    assert_close(both, (1 - share) * content + share * place)


def test_prefix_tokens_have_no_place() -> None:
    """Their rows are content alone; patches see them by content alone."""
    grid = Grid(2, 3, ("cls", "reg"))
    mechanism = GatedPositional(H, D, grid, gate=0.3).double()
    q, k = random(B, H, 8, D), random(B, H, 8, D)
    eye = torch.eye(8).double().expand(B, H, 8, 8)
    weights, content = mechanism(q, k, eye, Layout(grid)), explicit(q, k, eye, None)
    share = torch.tensor(0.3).double().sigmoid()
    assert_close(weights[:, :, :2], content[:, :, :2])
    assert_close(weights[:, :, 2:, :2], (1 - share) * content[:, :, 2:, :2])
    assert_close(weights.sum(dim=-1), torch.ones(B, H, 8).double())


def test_a_patch_that_may_see_no_patch_follows_content_alone() -> None:
    grid = Grid(2, 3, ("cls",))
    keys = torch.tensor([[True] + [False] * 6] * B)
    q, k, v = random(B, H, 7, D), random(B, H, 7, D), random(B, H, 7, E)
    out = GatedPositional(H, D, grid).double()(q, k, v, Layout(grid, Mask(keys=keys)))
    assert_close(out, v[:, :, :1].expand_as(v))


def test_offsets_are_those_of_the_call_and_of_the_kept_patches() -> None:
    mechanism = GatedPositional(H, D, Grid(2, 2)).double()
    index = torch.tensor([[0, 3, 8, 30], [1, 2, 6, 9]])
    q, k, v = random(B, H, GRID.tokens, D), random(B, H, GRID.tokens, D), random(B, H, GRID.tokens, E)
    keys = torch.zeros(B, GRID.tokens, dtype=torch.bool).scatter(1, index, True)
    everywhere = mechanism(q, k, v, Layout(GRID, Mask(keys=keys)))
    rows = index[:, None, :, None]
    kept = mechanism(*(x.gather(2, rows.expand(-1, H, -1, x.shape[-1])) for x in (q, k, v)), Layout(GRID, index=index))
    assert_close(kept, everywhere.gather(2, rows.expand(-1, H, -1, E)))
