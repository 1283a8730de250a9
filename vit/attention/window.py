"""Square windows of the grid, at rest and shifted."""

from typing import final

from jaxtyping import Bool, Int
from torch import Tensor
from typing_extensions import override

from vit.attention.pattern import Pattern, places
from vit.checks import require_at_least
from vit.tokens import Grid


@final
class Window(Pattern):
    """The grid cut into windows of size x size patches; a patch sees its own window.  Liu et al. 2021 (Swin), 3.2.

    Windows at the right and lower border are smaller where the size does not divide the grid.

    Args:
        size: side of a window in patches.

    Raises:
        ValueError: ``size`` is below 1.
    """

    def __init__(self, heads: int, grid: Grid, size: int = 4) -> None:
        super().__init__()
        self.size = require_at_least(1, size, "size")

    @property
    @override
    def honours_sizes(self) -> bool:
        return True

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        return _same(self.blocks(grid))

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        return _windows(grid, self.size, 0)


@final
class ShiftedWindow(Pattern):
    """`Window` with all borders moved down and right by half a window.  Liu et al. 2021 (Swin), 3.2 and figure 4.

    Swin rolls the grid and masks what met by wrapping around; the same pairs, as smaller windows at all four borders.
    A patch crosses windows only where blocks, or heads, of both kinds take turns.

    Args:
        size: side of a window in patches.

    Raises:
        ValueError: ``size`` is below 2.
    """

    def __init__(self, heads: int, grid: Grid, size: int = 4) -> None:
        super().__init__()
        self.size = require_at_least(2, size, "size")

    @property
    @override
    def honours_sizes(self) -> bool:
        return True

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        return _same(self.blocks(grid))

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        return _windows(grid, self.size, self.size - self.size // 2)


def _windows(grid: Grid, size: int, offset: int) -> Int[Tensor, " p"]:
    """The window of each patch, the first window starting ``offset`` patches before the grid."""
    row, column = places(grid)
    across = (grid.width - 1 + offset) // size + 1
    return (row + offset) // size * across + (column + offset) // size


def _same(window: Int[Tensor, " p"]) -> Bool[Tensor, "1 p p"]:
    return (window[:, None] == window)[None]
