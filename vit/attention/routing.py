"""Softmax attention among tokens of one cluster."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vit.attention.blocks import attend, lay_by_group, take, visible
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_causal, refuse_pairs, require_at_least, require_tokens
from vit.tokens import Grid, Layout


@final
class Routing(Mechanism):
    """softmax(q k^T / sqrt(d)) v over the keys nearest to the centroid nearest to q.  Roy et al. 2021 (Routing).

    Each of c centroids keeps its n / c nearest keys. Each query goes to one centroid and so gets an output, where the
    paper takes a centroid's nearest queries and leaves some without; one cluster is softmax attention. Time n^2 d / c,
    memory n^2 / c. The centroids of each head, on the unit sphere, are running means of the queries and keys of
    training, in the state dict. Prefix tokens are global tokens (see `vit.attention.blocks`); queries of another
    sequence, known by its length, have none.

    Args:
        clusters: c.
        decay: of the running means.

    Raises:
        ValueError: ``clusters`` below 1 or ``decay`` outside [0, 1]. When called: a causal mask (later tokens would
            decide which keys a centroid keeps), a mask of pairs, or other than the layout's tokens.
    """

    centroids: Tensor

    def __init__(self, heads: int, head_dim: int, grid: Grid, clusters: int = 4, decay: float = 0.999) -> None:
        super().__init__()
        require_at_least(1, clusters, "clusters")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        self.decay = decay
        self.register_buffer("centroids", F.normalize(torch.randn(heads, clusters, head_dim), dim=-1))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_tokens(self, layout, v.shape[2])
        refuse_causal(self, layout, "keeps the keys nearest to a centroid, which later tokens may displace")
        refuse_pairs(self, layout, "sees tokens by their cluster")
        front, seen = layout.grid.num_prefix, visible(layout, v.device)
        own, asks = (front, seen) if q.shape[2] == k.shape[2] else (0, seen.new_ones(1, q.shape[2]))
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            ahead = attend(wide_q[:, :, :own], wide_k, wide_v, seen[:, None, None])
            body = self._in_clusters(wide_q[:, :, own:], wide_k, wide_v, asks[:, own:], layout)
            if self.training:
                self._learn(wide_q[:, :, own:], asks[:, own:])
                self._learn(wide_k[:, :, front:], seen[:, front:])
            return torch.cat((ahead, body), dim=2).to(v.dtype)

    def _in_clusters(
        self, q: Tensor, k: Tensor, v: Tensor, asks: Bool[Tensor, "#b n"], layout: Layout
    ) -> Float[Tensor, "b h n e"]:
        cluster, clusters = self._affinity(q).argmax(dim=-1), self.centroids.shape[1]
        slots = lay_by_group(cluster, clusters, -(-q.shape[2] // clusters), asks[:, None])
        query = rearrange(slots.token, "b h (t w) -> b h t w", w=-(-q.shape[2] // clusters))
        kind = F.pad(cluster, (0, 1)).gather(
            -1, query[..., 0]
        )  # of a block: of its first slot, free in empty ones only
        kept = self._kept(k, layout)
        key = kept.gather(2, kind[..., None].expand(-1, -1, -1, kept.shape[-1]))
        parts = ((q, query), (k, key), (v, key))
        q, k, v = (take(part, index.flatten(2)).unflatten(2, index.shape[2:]) for part, index in parts)
        mixed = attend(q, k, v, (key < layout.tokens)[..., None, :])
        return take(mixed.flatten(2, 3), slots.slot)

    def _kept(self, k: Float[Tensor, "b h m d"], layout: Layout) -> Int[Tensor, "b h c w"]:
        """The keys each centroid keeps, by number: the prefix and its share of the nearest; m for none."""
        front, none, seen = layout.grid.num_prefix, layout.tokens, visible(layout, k.device)
        clusters, body = self.centroids.shape[1], seen[:, front:]
        affinity = self._affinity(k[:, :, front:]).mT.masked_fill(~body[:, None, None], -torch.inf)
        nearest = affinity.topk(-(-body.shape[1] // clusters), dim=-1).indices + front
        share = (body.sum(dim=1) + clusters - 1) // clusters
        real = torch.arange(nearest.shape[-1], device=k.device) < share[:, None, None, None]
        first = torch.arange(front, device=k.device).where(seen[:, :front], none)[:, None, None]
        return torch.cat((first.expand(*nearest.shape[:3], -1), nearest.where(real, none)), dim=-1)

    def _affinity(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n c"]:
        return F.normalize(x.detach(), dim=-1) @ self.centroids.to(x.dtype).mT

    @torch.no_grad()
    def _learn(self, x: Float[Tensor, "b h n d"], taken: Bool[Tensor, "#b n"]) -> None:
        """Move each centroid towards the mean of what is nearest to it; a new tensor, others may hold the old one."""
        nearest = self._affinity(x).argmax(dim=-1, keepdim=True)
        member = (nearest == torch.arange(self.centroids.shape[1], device=x.device)) & taken[:, None, :, None]
        total = torch.einsum("b h n c, b h n d -> h c d", member.to(x.dtype), F.normalize(x, dim=-1))
        count = member.sum(dim=(0, 2))[..., None]
        moved = self.decay * self.centroids + (1 - self.decay) * total / count.clamp(min=1)
        moved = F.normalize(moved, dim=-1).to(self.centroids.dtype)
        self.centroids = torch.where(count > 0, moved, self.centroids)
