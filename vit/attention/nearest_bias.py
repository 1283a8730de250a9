"""A learned bias on a graph in feature space."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention.masks import allowed_pairs, biased_attention
from vit.attention.mechanism import Mechanism
from vit.attention.nearest import nearest_edges
from vit.checks import require_at_least, require_one_sequence
from vit.tokens import Grid, Layout


@final
class NearestBias(Mechanism):
    """softmax(q k^T / sqrt(d) - a (1 - e)) v, e the edges of `NearestNeighbors`, a learned per head: start at first.

    A bias by distance in a graph (Ying et al. 2021, Graphormer, eq. 6) of two distances, neighbour and not, where the
    graph is drawn anew at every call; so it belongs to no place, and any token count will do. Time and memory n^2.

    Args:
        neighbors: nearest tokens, the token itself besides.
        start: how far below edges all others begin; exp(-start) is their weight beside an edge's.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: ``neighbors`` is below 0; when called with queries that are not the layout's tokens.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        neighbors: int = 8,
        start: float = 8.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.neighbors = require_at_least(0, neighbors, "neighbors")
        self.attn_drop = attn_drop
        self.off = nn.Parameter(torch.full((heads,), start))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        edges = nearest_edges(k, allowed_pairs(q, k, layout), self.neighbors, layout.grid.num_prefix)
        bias = -self.off[:, None, None] * ~edges
        return biased_attention(q, k, v, bias, layout, self.attn_drop if self.training else 0.0)
