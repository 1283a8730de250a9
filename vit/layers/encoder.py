"""A stack of blocks."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.block import BlockFactory
from vit.tokens import Grid, Layout


@final
class Encoder(nn.Module):
    """Blocks one after another: (b n c) -> (b n c).

    Args:
        dim: channels.
        grid: sizes the blocks' parameters.
        blocks: (factory, count) in order, so that a stack may begin with one kind and end with another.
        drop_path: stochastic depth rate of the last block; rates rise linearly from 0 (Huang et al. 2016).
    """

    def __init__(
        self, dim: int, grid: Grid, blocks: Sequence[tuple[BlockFactory, int]], drop_path: float = 0.0
    ) -> None:
        super().__init__()
        factories = [factory for factory, count in blocks for _ in range(count)]
        rates = torch.linspace(0, drop_path, len(factories)).tolist()
        built = (factory(dim, grid, rate) for factory, rate in zip(factories, rates, strict=True))
        self.blocks = nn.ModuleList(built)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        for block in self.blocks:
            x = block(x, layout)
        return x
