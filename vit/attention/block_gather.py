"""A sparse pattern as blocks of queries, each with the keys it needs."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from vit.attention.engine import Engine, Tables
from vit.tokens import Grid, Layout

UNUSED = -1


@final
class BlockGather(Engine):
    """Keys and values gathered per block of queries, then torch's kernels over the blocks; trains on CPU and CUDA.

    Time and memory grow with the pattern: each block computes the union of what its queries see, padded to the widest.
    Queries that see everything, such as prefix tokens, are computed against all keys at once. Takes every mask, at the
    pairs it computes only.

    Raises:
        ValueError: a kept subset of the patches.
    """

    def plan(self, grid: Grid) -> Tables:
        """``rows``: queries that see all. ``queries`` (g q), ``keys`` (h g k): tokens of each block, -1 where unused.
        ``allowed`` (h g q k): who sees whom, None where all do. ``back``: where each token's result will lie."""
        allowed = self.pattern.allowed(grid)
        rows = allowed.all(dim=2).all(dim=0)
        queries = _queries(self.pattern.blocks(grid), rows, grid.num_prefix)
        if not len(queries):
            return {"rows": None, "queries": None, "keys": None, "allowed": None, "back": None}
        keys = _keys(allowed, queries)
        inside = (queries != UNUSED)[:, :, None] & (keys != UNUSED)[:, :, None, :]
        head = torch.arange(len(allowed))[:, None, None, None]
        pairs = allowed[head, queries[:, :, None], keys[:, :, None, :]] & inside
        order = torch.cat((rows.nonzero().flatten(), queries.flatten()))
        back = torch.empty(grid.tokens, dtype=torch.long)
        used = order != UNUSED
        back[order[used]] = used.nonzero().flatten()
        return {
            "rows": rows.nonzero().flatten() if rows.any() else None,
            "queries": queries.clamp(min=0),
            "keys": keys.clamp(min=0),
            "allowed": None if pairs.all() else pairs,
            "back": back,
        }

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h n d"],
        v: Float[Tensor, "b h n e"],
        layout: Layout,
        dropout: float,
    ) -> Float[Tensor, "b h n e"]:
        if layout.index is not None:
            raise ValueError("BlockGather needs all patches, got a kept subset: the engine for that is Dense")
        tables = self.tables(layout.grid, q.device)
        rows, back = tables["rows"], tables["back"]
        if back is None:  # everyone sees everyone
            mask = None if layout.mask is None else layout.mask.allowed(layout.tokens, q.device)[:, None]
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
        parts = [self._blocks(q, k, v, layout, tables, dropout)]
        if rows is not None:
            everyone = torch.arange(layout.tokens, device=q.device)
            mask = None if layout.mask is None else layout.mask.between(rows, everyone)[:, None]
            parts.insert(0, F.scaled_dot_product_attention(q[:, :, rows], k, v, mask, dropout))
        return _take(torch.cat(parts, dim=2), back[None, None])[:, :, 0]

    def _blocks(
        self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, tables: Tables, dropout: float
    ) -> Float[Tensor, "b h gq e"]:
        queries, keys, mask = tables["queries"], tables["keys"], tables["allowed"]
        assert queries is not None
        assert keys is not None
        batch, heads = q.shape[:2]
        mask = None if mask is None else mask[None]
        if layout.mask is not None:
            also = layout.mask.between(queries[None], keys)
            mask = also if mask is None else mask & also
        if mask is not None:
            alike = mask.shape[:2] == (1, 1)
            mask = rearrange(mask if alike else mask.expand(batch, heads, -1, -1, -1), "b h g q k -> (b h) g q k")
        blocks = (_take(x, index) for x, index in ((q, queries[None]), (k, keys), (v, keys)))
        q, k, v = (rearrange(x, "b h g n d -> (b h) g n d") for x in blocks)
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return rearrange(out, "(b h) g q e -> b h (g q) e", b=batch)


def _queries(blocks: Int[Tensor, " p"], rows: Bool[Tensor, " n"], prefix: int) -> Int[Tensor, "g q"]:
    """Tokens of each block but those that see all, padded to the largest block."""
    patches = (~rows[prefix:]).nonzero().flatten()
    if not len(patches):
        return patches.new_empty(0, 0)
    numbers, order = blocks[patches].sort(stable=True)
    counts = numbers.unique_consecutive(return_counts=True)[1].tolist()
    return pad_sequence(list((patches[order] + prefix).split(counts)), batch_first=True, padding_value=UNUSED)


def _keys(allowed: Bool[Tensor, "h n n"], queries: Int[Tensor, "g q"]) -> Int[Tensor, "h g k"]:
    """Tokens that any query of a block sees, in order, padded to the block that sees most."""
    seen = torch.stack([allowed[:, block[block != UNUSED]].any(dim=1) for block in queries], dim=1)
    most = int(seen.sum(dim=2).max())
    first, keys = seen.byte().sort(dim=2, descending=True, stable=True)
    return keys.masked_fill(first == 0, UNUSED)[:, :, :most]


def _take(x: Float[Tensor, "b h n d"], index: Int[Tensor, "hi g k"]) -> Float[Tensor, "b h g k d"]:
    """The tokens at ``index``, of each head or the same of all. As rows of one matrix: the fast way there and back."""
    batch, heads, tokens = x.shape[:3]
    offset = tokens * torch.arange(batch * heads, device=x.device).view(batch, heads, 1, 1)
    return F.embedding(offset + index, rearrange(x, "b h n d -> (b h n) d"))
