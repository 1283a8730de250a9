"""Who sees whom: the one definition that every engine of sparse attention reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vit.tokens import Grid

SIDE = 8
"""Side of the square of patches, 64 of them, that a block of queries is unless a pattern has blocks of its own."""


class Pattern(nn.Module, ABC):
    """Which token may attend to which, on any grid, for each head or for all alike.

    Built as ``Pattern(heads, grid, ...own options)``. A pattern is about patches; prefix tokens follow one rule in all
    of them: they are global, seen by every token and seeing every token.
    """

    @abstractmethod
    def patches(self, grid: Grid) -> Bool[Tensor, "h p p"]:
        """True where patch i sees patch j, prefix left out; one matrix where all heads see the same."""

    @property
    def honours_sizes(self) -> bool:
        """Whether a picture padded to a larger grid sees what it sees alone: no width and no border of it decides."""
        return False

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        """A number for each patch: those of one number see much the same, so their keys are gathered together."""
        row, column = places(grid)
        return row // SIDE * -(-grid.width // SIDE) + column // SIDE

    def allowed(self, grid: Grid) -> Bool[Tensor, "h n n"]:
        """True where token i sees token j, prefix tokens first, on the CPU."""
        return F.pad(self.patches(grid), (grid.num_prefix, 0, grid.num_prefix, 0), value=True)


PatternFactory = Callable[[int, Grid], Pattern]


def places(grid: Grid) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Row and column of each patch."""
    raster = torch.arange(grid.patches)
    return raster // grid.width, raster % grid.width
