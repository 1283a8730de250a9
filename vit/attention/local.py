"""A band along the raster order."""

from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vit.attention.pattern import SIDE, Pattern
from vit.checks import require_at_least
from vit.tokens import Grid


@final
class Local(Pattern):
    """|i - j| <= width in raster order, in steps of ``dilation``.  Beltagy et al. 2020 (Longformer), section 3.1.

    The order knows nothing of rows: the last patch of one is next to the first of the following. For pictures
    `Neighborhood` is the band that does.

    Args:
        width: steps to either side.
        dilation: patches per step; those between are not seen.

    Raises:
        ValueError: ``width`` is below 0 or ``dilation`` below 1.
    """

    def __init__(self, heads: int, grid: Grid, width: int = 4, dilation: int = 1) -> None:
        super().__init__()
        self.width = require_at_least(0, width, "width")
        self.dilation = require_at_least(1, dilation, "dilation")

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        return band(grid.patches, self.width, self.dilation)[None]

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        return torch.arange(grid.patches) // SIDE**2


def band(n: int, width: int, dilation: int = 1) -> Bool[Tensor, "n n"]:
    """True where |i - j| is a multiple of ``dilation``, at most ``width`` times it."""
    raster = torch.arange(n, dtype=torch.int32)
    distance = (raster[:, None] - raster).abs()
    return (distance <= width * dilation) & (distance % dilation == 0)
