"""Softmax attention among tokens that hash alike."""

from typing import ClassVar, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vit.attention.blocks import lay_by_group, take, visible
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_cross, refuse_pairs, require_at_least, require_tokens
from vit.tokens import Grid, Layout

_SELF = -5e4
"""Score of a token with itself: taken only by one that sees nothing else."""


@final
class LSH(Mechanism):
    """softmax(q k^T / sqrt(d)) v among tokens of one bucket, k = q / |q|.  Kitaev et al. 2020 (Reformer), section 2.

    The bucket is argmax [q R; -q R], R Gaussian; rounds of other R are joined in proportion to the exponential of their
    logsumexp, so that a token seen in several rounds counts as often. A bucket is cut into chunks of c consecutive
    tokens; a token sees its own chunk and the one before, itself only where there is nothing else. Time n c d a round.
    Chunks are cut inside buckets, where the paper sorts and cuts across them: so no later token decides who sees
    whom, and a padded sample gets what it gets alone. R is seeded, in the state dict, the same in training and
    evaluation. Prefix tokens are global tokens (see `vit.attention.blocks`).

    Args:
        buckets: even number of buckets.
        chunk: c.
        rounds: number of hashes.
        seed: of R.

    Raises:
        ValueError: ``buckets`` odd or below 2, ``chunk`` or ``rounds`` below 1. When called: queries of another
            sequence, a mask of pairs, or other than the layout's tokens.
    """

    inputs: ClassVar[tuple[str, ...]] = ("q", "v")
    directions: Tensor

    def __init__(
        self, heads: int, head_dim: int, grid: Grid, buckets: int = 4, chunk: int = 16, rounds: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        if buckets < 2 or buckets % 2:
            raise ValueError(f"buckets must be even and at least 2, got {buckets}")
        self.buckets, self.chunk = buckets, require_at_least(1, chunk, "chunk")
        shape = require_at_least(1, rounds, "rounds"), head_dim, buckets // 2
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("directions", drawn)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"] | None,
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        require_tokens(self, layout, v.shape[2])
        refuse_pairs(self, layout, "sees tokens by their hash")
        front, number = layout.grid.num_prefix, torch.arange(v.shape[2], device=v.device).view(1, 1, -1)
        with exact_sums(v):
            wide_q, wide_v = widen(q, v)
            wide_k = F.normalize(wide_q, dim=-1)
            seen = visible(layout, v.device)[:, None, None]
            ahead, _ = _attend(wide_q[:, :, :front], wide_k, wide_v, number[..., :front], number, seen, layout)
            return torch.cat((ahead, self._in_buckets(wide_q, wide_k, wide_v, layout)), dim=2).to(v.dtype)

    def bucket(self, q: Float[Tensor, "b h n d"]) -> Int[Tensor, "b h r n"]:
        """The bucket of each query in each round."""
        turned = torch.einsum("b h n d, r d s -> b h r n s", q, self.directions.to(q.dtype))
        return torch.cat((turned, -turned), dim=-1).argmax(dim=-1)

    def _in_buckets(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Float[Tensor, "b h n e"]:
        """The patches' rows: each sees the prefix, its chunk and the chunk before where that is of the same bucket."""
        front, none = layout.grid.num_prefix, v.shape[2]
        seen, bucket = visible(layout, v.device), self.bucket(q[:, :, front:])
        slots = lay_by_group(bucket, self.buckets, self.chunk, seen[:, None, None, front:])
        query = rearrange(slots.token + front, "b h r (t c) -> b h r t c", c=self.chunk)
        kind = F.pad(bucket, (0, 1), value=-1).gather(-1, slots.token[..., :: self.chunk])  # of a chunk: of its first
        before = F.pad(query, (0, 0, 1, -1), value=none)
        before = before.masked_fill((kind != F.pad(kind, (1, -1), value=-1))[..., None], none)
        first = torch.arange(front, device=v.device).where(seen[:, :front], none)[:, None, None, None]
        key = torch.cat((first.expand(*query.shape[:4], -1), before, query), dim=-1)
        parts = [take(part, index.flatten(2)) for part, index in ((q, query), (k, key), (v, key))]
        q, k, v = (part.unflatten(2, i.shape[2:]) for part, i in zip(parts, (query, key, key), strict=True))
        mixed, total = _attend(q, k, v, query, key, (key < none)[..., None, :], layout)
        rounds = take(torch.cat((mixed, total), dim=-1).flatten(3, 4), slots.slot)
        return (rounds[..., -1:].softmax(dim=2) * rounds[..., :-1]).sum(dim=2)


def _attend(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    v: Float[Tensor, "*g m e"],
    query: Int[Tensor, "*#g n"],
    key: Int[Tensor, "*#g m"],
    allowed: Bool[Tensor, "*#g #n m"],
    layout: Layout,
) -> tuple[Float[Tensor, "*g n e"], Float[Tensor, "*g n 1"]]:
    """Mixed values and the logsumexp of their scores; ``query`` and ``key`` are the tokens' numbers."""
    query, key = query[..., :, None], key[..., None, :]
    if layout.mask is not None and layout.mask.causal:
        order = key <= query
        if layout.mask.prefix is not None:
            both_ways = layout.mask.prefix.view(-1, *(1,) * (query.ndim - 1))
            order = order | ((query < both_ways) & (key < both_ways))
        allowed = allowed & order
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(query == key, _SELF)
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return (scores.softmax(dim=-1) * allowed) @ v, scores.logsumexp(dim=-1, keepdim=True)
