"""The grid as a graph."""

from typing import Literal, final

from jaxtyping import Bool
from torch import Tensor
from typing_extensions import override

from vit.attention.pattern import Pattern, places
from vit.tokens import Grid


@final
class GridGraph(Pattern):
    """Edges to the patches next to a patch, and to itself.  Velickovic et al. 2018 (GAT): attention along edges.

    Args:
        neighbors: 4 for those that share a side, 8 for those that share a corner too.
    """

    def __init__(self, heads: int, grid: Grid, neighbors: Literal[4, 8] = 8) -> None:
        super().__init__()
        self.neighbors = neighbors

    @property
    @override
    def honours_sizes(self) -> bool:
        return True

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        row, column = places(grid)
        down, right = (row[:, None] - row).abs(), (column[:, None] - column).abs()
        return ((down + right <= 1) if self.neighbors == 4 else (down <= 1) & (right <= 1))[None]
