"""A graph in feature space."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.masks import allowed_pairs
from vit.attention.mechanism import Mechanism
from vit.checks import require_at_least, require_one_sequence
from vit.tokens import Grid, Layout


@final
class NearestNeighbors(Mechanism):
    """softmax(q k^T / sqrt(d)) v over the tokens whose keys are nearest to one's own.  Han et al. 2022 (ViG), 3.1.

    Each head has a graph of its own, drawn anew at every call and without a gradient; time and memory n^2 to find it.
    Distances are Euclidean, in float32 or better. A token is always its own neighbour if it may be seen; prefix tokens
    are global, seen by all and seeing all. Where a mask hides tokens the next ones take their place.

    Args:
        neighbors: nearest tokens, the token itself besides.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: ``neighbors`` is below 0; when called with queries that are not the layout's tokens.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, neighbors: int = 8, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.neighbors = require_at_least(0, neighbors, "neighbors")
        self.attn_drop = attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        edges = nearest_edges(k, allowed_pairs(q, k, layout), self.neighbors, layout.grid.num_prefix)
        return F.scaled_dot_product_attention(q, k, v, edges, self.attn_drop if self.training else 0.0)


@torch.no_grad()
def nearest_edges(
    k: Float[Tensor, "b h n d"], allowed: Bool[Tensor, "p 1 #n n"] | None, neighbors: int, prefix: int
) -> Bool[Tensor, "b h n n"]:
    """True where a token is one of the ``neighbors`` whose keys are nearest, itself, or one of the prefix."""
    distance = _distances(k)
    distance.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    distance[..., :prefix] = torch.inf  # they are seen anyway and take no one's place
    if allowed is not None:
        distance = distance.masked_fill(~allowed, torch.inf)
    nearest = distance.topk(min(neighbors + 1, k.shape[2]), dim=-1, largest=False).indices
    edges = torch.zeros_like(distance, dtype=torch.bool).scatter_(-1, nearest, True)
    edges[..., :prefix], edges[..., :prefix, :] = True, True
    return edges if allowed is None else edges & allowed


def _distances(k: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n n"]:
    """Squared, less what is the same for a whole row."""
    with torch.autocast(k.device.type, enabled=False):
        k = k.to(torch.promote_types(k.dtype, torch.float32))
        return k.square().sum(dim=-1)[:, :, None] - 2 * k @ k.transpose(-1, -2)
