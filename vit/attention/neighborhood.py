"""A square around each patch, moved inside at the borders."""

from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from vit.attention.pattern import Pattern, places
from vit.checks import require_odd
from vit.tokens import Grid


@final
class Neighborhood(Pattern):
    """Each patch sees the kernel_size x kernel_size patches nearest to it.  Hassani et al. 2023 (NAT), eq. 2.

    The square is moved inside at the borders, so that every patch has as many keys; a grid narrower than it is seen
    whole along that side. Padding is not a border.

    Args:
        kernel_size: side of the square in patches, odd.

    Raises:
        ValueError: ``kernel_size`` is even or below 1.
    """

    def __init__(self, heads: int, grid: Grid, kernel_size: int = 5) -> None:
        super().__init__()
        self.kernel_size = require_odd(kernel_size, "kernel_size")

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        row, column = places(grid)
        rows, columns = self._along(grid.height), self._along(grid.width)
        return (rows[row][:, row] & columns[column][:, column])[None]

    def _along(self, side: int) -> Bool[Tensor, "side side"]:
        place = torch.arange(side)
        kernel = min(self.kernel_size, side)
        first = (place - kernel // 2).clamp(0, side - kernel)[:, None]
        return (place >= first) & (place < first + kernel)
