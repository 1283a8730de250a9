"""A band and every stride-th patch."""

from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vit.attention.local import band
from vit.attention.pattern import SIDE, Pattern
from vit.checks import require_at_least
from vit.tokens import Grid


@final
class Strided(Pattern):
    """|i - j| <= width, or i - j a multiple of ``stride``.  Child et al. 2019 (Sparse Transformer), section 4.3.

    With the grid's own width as stride a patch sees its column and its neighbours in the row: any patch reaches any
    other in two steps of enough width. Seen both ways, where the paper looks back only.

    Args:
        width: of the band, to either side.
        stride: None for the width of the grid.

    Raises:
        ValueError: ``width`` is below 0 or ``stride`` below 1.
    """

    def __init__(self, heads: int, grid: Grid, width: int = 4, stride: int | None = None) -> None:
        super().__init__()
        self.width = require_at_least(0, width, "width")
        self.stride = None if stride is None else require_at_least(1, stride, "stride")

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        column = torch.arange(grid.patches, dtype=torch.int32) % (self.stride or grid.width)
        return (band(grid.patches, self.width) | (column[:, None] == column))[None]

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        stride, raster = self.stride or grid.width, torch.arange(grid.patches)
        return raster // stride // SIDE * -(-stride // SIDE) + raster % stride // SIDE
