"""Blocks: neighbours, the first and the last, and some at random."""

from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vit.attention.pattern import Pattern
from vit.checks import require_at_least
from vit.tokens import Grid


@final
class BigBird(Pattern):
    """Blocks of patches see their neighbours, the first and last block, and random ones.  Zaheer et al. 2020, figure 1.

    The first and the last block see all. The random blocks are drawn once, none twice and none that is seen anyway,
    and kept in a buffer: training, evaluation and a loaded model see the same.

    Args:
        block_size: patches per block, in raster order.
        window: blocks to either side, the own one besides.
        random: further blocks per block, fewer where no more are left.

    Raises:
        ValueError: ``block_size`` is below 1, ``window`` or ``random`` below 0; when called, another number of patches
            than it was built for.
    """

    drawn: Int[Tensor, "blocks random"]

    def __init__(self, heads: int, grid: Grid, block_size: int = 8, window: int = 1, random: int = 1) -> None:
        super().__init__()
        self.block_size = require_at_least(1, block_size, "block_size")
        self.window = require_at_least(0, window, "window")
        self.count = grid.patches
        self.register_buffer("drawn", self._draw(require_at_least(0, random, "random")))

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        if grid.patches != self.count:
            raise ValueError(f"BigBird drew its random blocks for {self.count} patches, got {grid.patches}")
        seen = self._without_random()
        seen.scatter_(1, self.drawn.cpu(), True)
        return seen.repeat_interleave(self.block_size, 0).repeat_interleave(self.block_size, 1)[
            None, : self.count, : self.count
        ]

    def blocks(self, grid: Grid) -> Int[Tensor, " p"]:
        return torch.arange(grid.patches) // self.block_size

    def _without_random(self) -> Bool[Tensor, "blocks blocks"]:
        block = torch.arange(-(-self.count // self.block_size))
        seen = (block[:, None] - block).abs() <= self.window
        seen[[0, -1]], seen[:, [0, -1]] = True, True
        return seen

    def _draw(self, random: int) -> Int[Tensor, "blocks random"]:
        """Blocks not seen otherwise, in random order; a block's own number, seen anyway, where none is left."""
        seen = self._without_random()
        random = min(random, len(seen))
        order = torch.rand(seen.shape).masked_fill(seen, 2.0).argsort(dim=1)[:, :random]
        own = torch.arange(len(seen))[:, None].expand_as(order)
        return torch.where(seen.gather(1, order), own, order)
