"""Edges within regions of the picture."""

from math import inf
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vit.attention.masks import allowed_pairs
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_causal, require_at_least, require_one_sequence
from vit.tokens import Grid, Layout


@final
class Superpixels(Mechanism):
    """softmax(q k^T / sqrt(d)) v over the tokens of one's own superpixel.  Achanta et al. 2012 (SLIC), of keys.

    Superpixels are k-means clusters of what patches look like and where they lie, begun from ``side`` x ``side`` cells
    of the picture. Where the paper has colours there are keys, in which a rotary has its part; a patch is compared with
    every mean, not just those within two cells; no seed is moved off an edge, and no cluster made to be connected. A
    key counts by its distance in units of the spread of the picture's keys, a place by that in sides of a cell. Each
    head has its own clusters, drawn anew at every call and without a gradient, in float32 or better; time and memory
    n^2 + n side^2. Prefix tokens are global, seen by all and seeing all.

    Args:
        side: cells to each side of the picture; a superpixel that loses its last patch stays empty.
        compactness: weight of the place against the key, 0 for none.
        rounds: of k-means, 0 for the cells themselves.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: ``side`` below 1, ``rounds`` below 0, ``compactness`` below 0 or infinite; when called, a causal
            mask, or queries that are not the layout's tokens.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        side: int = 4,
        compactness: float = 1.0,
        rounds: int = 5,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= compactness < inf:
            raise ValueError(f"compactness must be at least 0 and finite, got {compactness}")
        self.side, self.rounds = require_at_least(1, side, "side"), require_at_least(0, rounds, "rounds")
        self.compactness, self.attn_drop = compactness, attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        refuse_causal(self, layout, "cuts the whole picture, later tokens too")
        front, allowed = layout.grid.num_prefix, allowed_pairs(q, k, layout)
        cluster = self.clusters(k[:, :, front:], layout)
        edges = F.pad(cluster[..., :, None] == cluster[..., None, :], (front, 0, front, 0), value=True)
        edges = edges if allowed is None else edges & allowed
        return F.scaled_dot_product_attention(q, k, v, edges, self.attn_drop if self.training else 0.0)

    @torch.no_grad()
    def clusters(self, k: Float[Tensor, "b h n d"], layout: Layout) -> Int[Tensor, "b h n"]:
        """The superpixel of each patch, by the number of the cell it began as, from the keys of patches."""
        present = k.new_ones(1, k.shape[2], dtype=torch.bool) if layout.patch_keys is None else layout.patch_keys
        sizes = k.new_tensor([layout.grid[:2]], dtype=torch.long) if layout.sizes is None else layout.sizes
        cells, places = self._cells(layout.coordinates(k.device).long(), sizes)
        with exact_sums(k):
            (keys,) = widen(k)
            features = self._features(keys, places[:, None], present[:, None, :, None])
            cluster = cells[:, None].expand(k.shape[:3])
            for _ in range(self.rounds):
                cluster = self._nearest(features, cluster, present[:, None, :, None])
        return cluster

    def _cells(
        self, places: Int[Tensor, "#b n 2"], sizes: Int[Tensor, "#b 2"]
    ) -> tuple[Int[Tensor, "#b n"], Float[Tensor, "#b n 2"]]:
        """The cell of each place, and places in sides of a cell."""
        row, column = (places * self.side // sizes[:, None].clamp(min=1)).clamp(max=self.side - 1).unbind(-1)
        width = sizes.prod(dim=-1).clamp(min=1).float().sqrt() / self.side
        return row * self.side + column, places / width[:, None, None]

    def _features(
        self, k: Float[Tensor, "b h n d"], places: Float[Tensor, "#b 1 n 2"], present: Bool[Tensor, "#b 1 n 1"]
    ) -> Float[Tensor, "b h n f"]:
        """Keys and places in one space, where SLIC's distance is Euclidean."""
        count = present.sum(dim=2, keepdim=True).clamp(min=1)
        centred = k - (k * present).sum(dim=2, keepdim=True) / count
        spread = (centred * present).square().sum(dim=(2, 3), keepdim=True) / count
        centred = centred / spread.clamp(min=torch.finfo(k.dtype).tiny).sqrt()
        return torch.cat((centred, self.compactness * places.to(k).expand(*k.shape[:3], 2)), dim=-1)

    def _nearest(
        self, features: Float[Tensor, "b h n f"], cluster: Int[Tensor, "b h n"], present: Bool[Tensor, "#b 1 n 1"]
    ) -> Int[Tensor, "b h n"]:
        """The cluster whose mean is nearest to each patch; padding is no part of a mean."""
        every = torch.arange(self.side**2, device=cluster.device)
        member = ((cluster[..., None, :] == every[:, None]) & present.mT).to(features.dtype)
        count = member.sum(dim=-1)
        mean = member @ features / count[..., None].clamp(min=1)
        distance = mean.square().sum(dim=-1)[:, :, None] - 2 * features @ mean.mT
        return distance.masked_fill(count[:, :, None] == 0, torch.inf).argmin(dim=-1)
