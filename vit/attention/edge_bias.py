"""A learned bias that starts as a graph."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention.grid_graph import GridGraph
from vit.attention.masks import biased_attention
from vit.attention.mechanism import Mechanism
from vit.attention.pattern import PatternFactory
from vit.checks import require_one_sequence
from vit.tokens import Grid, Layout


@final
class EdgeBias(Mechanism):
    """softmax(q k^T / sqrt(d) + b) v, b learned per head and pair of tokens: 0 on edges at first, -start off them.

    A graph that training may leave, as Ying et al. 2021 (Graphormer), eq. 6, bias scores by the graph. Parameters n^2.

    Args:
        pattern: whose pairs are the edges.
        start: how far below edges all others begin; exp(-start) is their weight beside an edge's.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: when called with a kept subset, another grid, or queries that are not its tokens.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        pattern: PatternFactory = GridGraph,
        start: float = 8.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.attn_drop = grid, attn_drop
        off = ~pattern(heads, grid).allowed(grid).expand(heads, -1, -1)
        self.bias = nn.Parameter(torch.zeros(off.shape).masked_fill(off, -start))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        if layout.index is not None or layout.grid != self.grid:
            part = "" if layout.index is None else "a part of "
            raise ValueError(f"EdgeBias learned a bias for all tokens of {self.grid}, got {part}{layout.grid}")
        require_one_sequence(self, layout, q, k)
        return biased_attention(q, k, v, self.bias[None], layout, self.attn_drop if self.training else 0.0)
