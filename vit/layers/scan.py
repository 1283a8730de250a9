"""The order in which a mixer that reads a sequence gets the patches of a grid."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vit.checks import refuse_causal, refuse_pairs, require_tokens
from vit.layers.attend import MixerFactory
from vit.tokens import Grid, Layout, Mask


class Order(ABC):
    """A way through a grid."""

    @abstractmethod
    def place(self, raster: Int[Tensor, "p n"], grid: Grid) -> Int[Tensor, "p n"]:
        """Where in the scan each patch comes, given its raster position."""


@final
class Raster(Order):
    """Row after row, each from the left."""

    def place(self, raster: Int[Tensor, "p n"], grid: Grid) -> Int[Tensor, "p n"]:
        return raster


@final
class Reverse(Order):
    """Row after row from the last patch to the first.  Sutskever et al. 2014, section 3.3, of sentences."""

    def place(self, raster: Int[Tensor, "p n"], grid: Grid) -> Int[Tensor, "p n"]:
        return grid.patches - 1 - raster


@final
class Snake(Order):
    """Row after row, every other one from the right, so that each patch borders on the one before."""

    def place(self, raster: Int[Tensor, "p n"], grid: Grid) -> Int[Tensor, "p n"]:
        row, column = raster // grid.width, raster % grid.width
        return row * grid.width + torch.where(row % 2 == 1, grid.width - 1 - column, column)


@final
class Columns(Order):
    """Column after column, each from the top."""

    def place(self, raster: Int[Tensor, "p n"], grid: Grid) -> Int[Tensor, "p n"]:
        return raster % grid.width * grid.height + raster // grid.width


OrderFactory = Callable[[], Order]


@final
class Scan(nn.Module):
    """Hand the patches to ``mixer`` in another order, as one row, and put what it gives back in place.

    Prefix tokens stay in front.

    Args:
        dim: channels.
        grid: sizes the mixer's parameters, as one row of as many patches.
        mixer: what reads the sequence.
        order: the way through the grid.

    Raises:
        ValueError: when called: a causal mask, which speaks of another order, a mask of pairs, or other than the
            layout's tokens; and what ``mixer`` refuses.
    """

    def __init__(self, dim: int, grid: Grid, mixer: MixerFactory, order: OrderFactory = Raster) -> None:
        super().__init__()
        self.mixer = mixer(dim, _one_row(grid))
        self.order = order()

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        refuse_pairs(self, layout)
        refuse_causal(self, layout, "changes which token comes before which")
        grid, batch = layout.grid, x.shape[0]
        raster = torch.arange(grid.patches, device=x.device)[None] if layout.index is None else layout.index
        place = self.order.place(raster, grid)
        front = torch.arange(grid.num_prefix, device=x.device).expand(batch, -1)
        order = torch.cat((front, grid.num_prefix + place.argsort(dim=1).expand(batch, -1)), dim=1)
        keys = layout.keys
        mask = None if keys is None else Mask(keys=keys.expand(batch, -1).gather(1, order))
        index = None if layout.index is None else place.sort(dim=1).values
        inner = replace(layout, grid=_one_row(grid), mask=mask, index=index)
        return reordered(self.mixer(reordered(x, order), inner), order.argsort(dim=1))


def reordered(x: Float[Tensor, "b n c"], order: Int[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
    """The tokens ``order`` names, in that order; ``order.argsort(dim=1)`` puts them back."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


def padding_last(keys: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """The tokens that are no padding in their order, then those that are."""
    return (~keys).long().argsort(dim=1, stable=True)


def _one_row(grid: Grid) -> Grid:
    return Grid(1, grid.patches, grid.prefix)
