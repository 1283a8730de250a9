"""A stack of blocks."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.block import BlockFactory
from vit.layers.narrowing import Kept
from vit.layers.recompute import recomputed
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
        grad_checkpointing: whether training keeps only what enters each layer and runs the layer once more for its
            gradient (Chen et al. 2016), the same to the last bit: less memory, one more forward pass in time.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        blocks: Sequence[tuple[BlockFactory, int]],
        drop_path: float = 0.0,
        share_layers: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = grad_checkpointing
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
        dropped: list[tuple[Tensor, Kept]] = []
        for block in self.layers:
            x, layout = self._step(block, x, layout, dropped)
        return _restored(x, dropped)

    def states(
        self, x: Float[Tensor, "b n c"], layout: Layout, layers: int | None = None
    ) -> list[Float[Tensor, "b n c"]]:
        """What each layer leaves, or each of the first ``layers``, every token in its place."""
        dropped: list[tuple[Tensor, Kept]] = []
        states = []
        for block in self.layers[:layers]:
            x, layout = self._step(block, x, layout, dropped)
            states.append(_restored(x, dropped))
        return states

    def _step(
        self, block: nn.Module, x: Tensor, layout: Layout, dropped: list[tuple[Tensor, Kept]]
    ) -> tuple[Tensor, Layout]:
        """One layer; where it lets fewer tokens go on, what came to it and what it kept join ``dropped``."""
        again = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        out: Tensor | Kept = recomputed(block, x, layout) if again else block(x, layout)
        if not isinstance(out, Kept):
            return out, layout
        dropped.append((x, out))
        return out.tokens, out.layout


def _restored(x: Tensor, dropped: Sequence[tuple[Tensor, Kept]]) -> Tensor:
    for before, kept in reversed(dropped):
        x = kept.restored(before, x)
    return x
