"""A graph that is given."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from vit.attention.pattern import Pattern
from vit.tokens import Grid


@final
class Edges(Pattern):
    """Patch i sees patch j where (i, j) is listed, and itself.  Velickovic et al. 2018 (GAT): attention along edges.

    One graph for all pictures; edges that differ from picture to picture are a layout's ``mask.pairs``.

    Args:
        edges: pairs of raster positions. List both (i, j) and (j, i) for a graph without direction.

    Raises:
        ValueError: an edge to a patch that the grid does not have; when called, another grid than it was built for.
    """

    def __init__(self, heads: int, grid: Grid, edges: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.size = (grid.height, grid.width)
        outside = [edge for edge in edges if not all(0 <= patch < grid.patches for patch in edge)]
        if outside:
            raise ValueError(f"expected edges between patches 0 to {grid.patches - 1}, got {tuple(outside[0])}")
        self.edges = [tuple(edge) for edge in edges]

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        if (grid.height, grid.width) != self.size:
            raise ValueError(f"edges were given for a grid of {self.size}, got {(grid.height, grid.width)}")
        allowed = torch.eye(grid.patches, dtype=torch.bool)
        if self.edges:
            allowed[tuple(torch.tensor(self.edges).T)] = True
        return allowed[None]
