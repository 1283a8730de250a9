"""A stack of blocks."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.block import BlockFactory
from vit.layers.narrowing import Kept, NarrowingBlock
from vit.tokens import Grid, Layout


@final
class Encoder(nn.Module):
    """Blocks one after another: (b n c) -> (b n c).

    With ``share_layers`` there is one block per entry of ``blocks``, which is run ``count`` times (Lan et al. 2020,
    ALBERT, section 3.1: all parameters shared); weights, checkpoints and optimisers hold it once.
    After a `NarrowingBlock` the later blocks see the tokens it kept; at the end the others stand again in their places.

    Args:
        dim: channels.
        grid: sizes the blocks' parameters.
        blocks: (factory, count) in order, so that a stack may begin with one kind and end with another.
        drop_path: stochastic depth rate of the last layer; rates rise linearly from 0 (Huang et al. 2016). A shared
            block has one rate, the mean of those of the layers it stands for: as many layers are dropped as without.
        share_layers: whether the layers of one entry are one block.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        blocks: Sequence[tuple[BlockFactory, int]],
        drop_path: float = 0.0,
        share_layers: bool = False,
    ) -> None:
        super().__init__()
        apart = [(factory, 1) for factory, count in blocks for _ in range(count)]
        runs = [(factory, count) for factory, count in blocks if count > 0] if share_layers else apart
        self.times = [count for _, count in runs]
        rates = torch.linspace(0, drop_path, sum(self.times)).split(self.times)
        built = (factory(dim, grid, float(own.mean())) for (factory, _), own in zip(runs, rates, strict=True))
        self.blocks = nn.ModuleList(built)

    @property
    def layers(self) -> list[nn.Module]:
        """The blocks in the order they run, a shared one as often as it does."""
        return [block for block, times in zip(self.blocks, self.times, strict=True) for _ in range(times)]

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        entered: list[tuple[Tensor, Kept]] = []
        for block in self.layers:
            if isinstance(block, NarrowingBlock):
                kept = block.narrow(x, layout)
                entered.append((x, kept))
                x, layout = kept.tokens, kept.layout
            else:
                x = block(x, layout)
        for before, kept in reversed(entered):
            x = kept.restored(before, x)
        return x
