import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import B, random
from vit.layers import Columns, Order, Raster, Reverse, Scan, Snake
from vit.tokens import Grid, Layout, Mask

GRID = Grid(3, 4, prefix=("cls",))
ORDERS = {
    Raster: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    Reverse: [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    Snake: [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11],
    Columns: [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
}
"""The raster positions, in the order in which each visits them."""


class Remember(nn.Module):
    """A mixer that keeps what it was given and gives the place of each token in its sequence."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.built = grid

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        self.x, self.layout = x, layout
        return torch.arange(x.shape[1]).double()[None, :, None].expand_as(x)


@pytest.mark.parametrize("order", ORDERS)
def test_tokens_go_in_in_order_and_come_back_in_place(order: type[Order]) -> None:
    scan, x = Scan(5, GRID, Remember, order), random(B, 13, 5)
    out, visited = scan(x, Layout(GRID)), torch.tensor([0, *(1 + raster for raster in ORDERS[order])])
    assert scan.mixer.built == scan.mixer.layout.grid == Grid(1, 12, ("cls",))
    assert_close(scan.mixer.x, x[:, visited])
    assert_close(out[0, visited, 0], torch.arange(13).double())


@pytest.mark.parametrize("order", ORDERS)
def test_masks_and_kept_patches_go_along(order: type[Order]) -> None:
    index, keys = torch.tensor([[9, 2, 6], [0, 11, 5]]), torch.tensor([[True, True, False, True], [True] * 3 + [False]])
    scan, x = Scan(5, GRID, Remember, order), random(B, 4, 5)
    scan(x, Layout(GRID, Mask(keys=keys), index))
    for b in range(B):
        visited = sorted(range(3), key=lambda i, b=b: ORDERS[order].index(int(index[b, i])))
        assert_close(scan.mixer.x[b], x[b, [0, *(1 + i for i in visited)]])
        assert scan.mixer.layout.mask.keys[b].tolist() == keys[b, [0, *(1 + i for i in visited)]].tolist()
        assert scan.mixer.layout.index[b].tolist() == [ORDERS[order].index(int(index[b, i])) for i in visited]


def test_the_list_names_every_order() -> None:
    assert set(Order.__subclasses__()) == set(ORDERS)


def test_a_snake_never_jumps() -> None:
    grid = Grid(5, 13)
    place = Snake().place(torch.arange(65)[None], grid)[0]
    where = Layout(grid).coordinates(torch.device("cpu"))[0][place.argsort()]
    assert_close((where[1:] - where[:-1]).abs().sum(dim=-1), torch.ones(64))


def test_a_causal_mask_speaks_of_another_order() -> None:
    with pytest.raises(ValueError, match=r"^Scan changes which token comes before which: .* causal mask$"):
        Scan(5, GRID, Remember, Snake)(random(B, 13, 5), Layout(GRID, Mask(causal=True)))
