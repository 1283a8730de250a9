"""Softmax attention over a token's own block and a learned mixture of all blocks."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.attention.blocks import Slots, attend, lay, take, visible
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, masked_softmax, widen
from vit.checks import refuse_causal, refuse_cross, refuse_pairs, refuse_resizing, require_at_least, require_tokens
from vit.tokens import Grid, Layout


@final
class Sinkhorn(Mechanism):
    """softmax(q [S k; k]^T / sqrt(d)) [S v; v], block by block, S mixing blocks.  Tay et al. 2020 (Sparse Sinkhorn).

    S = Sinkhorn((F(means of k) + Gumbel noise) / t), one row and column per block, F linear per head, noise in training
    only. It is doubly stochastic as far as the iterations have converged, its rows exactly. Time n b d, memory n b with
    b the tokens of a block: the grid built for fixes the number of blocks, b follows the sequence. In a sample that
    does not fill its blocks, a mixed token counts as much as the share of S that has tokens at its place. Prefix tokens
    are global tokens (see `vit.attention.blocks`). The iterations run on logarithms in float32.

    Args:
        block_size: tokens of a block on the grid built for; the number of blocks is patches / block_size, rounded up.
        temperature: t; lower needs more iterations.
        iterations: column and row normalisations of S.

    Raises:
        ValueError: ``block_size`` or ``iterations`` below 1, or a temperature not above 0. When called: queries of
            another sequence, a causal mask, a mask of pairs, or other than the layout's tokens. When loaded: another
            number of blocks.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        block_size: int = 16,
        temperature: float = 0.75,
        iterations: int = 20,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature, self.iterations = temperature, require_at_least(1, iterations, "iterations")
        self.blocks = -(-grid.patches // require_at_least(1, block_size, "block_size"))
        self.sort = nn.Parameter(torch.randn(heads, head_dim, self.blocks) * head_dim**-0.5)
        refuse_resizing(self, grid, "sort")

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        require_tokens(self, layout, v.shape[2])
        refuse_causal(self, layout, "mixes whole blocks")
        refuse_pairs(self, layout, "mixes whole blocks")
        front = layout.grid.num_prefix
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            ahead = attend(wide_q[:, :, :front], wide_k, wide_v, visible(layout, v.device)[:, None, None])
            return torch.cat((ahead, self._over_blocks(wide_q, wide_k, wide_v, layout)), dim=2).to(v.dtype)

    def _over_blocks(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Float[Tensor, "b h n e"]:
        """The patches' rows: each sees the prefix, the mixture of all blocks and its own block."""
        front, seen = layout.grid.num_prefix, visible(layout, v.device).expand(v.shape[0], -1)
        slots = self._lay(seen[:, front:])
        token = rearrange(slots.token, "b (t s) -> b 1 t s", t=self.blocks)
        filled, index = token < slots.slot.shape[1], token.expand(-1, q.shape[1], -1, -1)
        q_at, k_at, v_at = (
            take(part[:, :, front:], index.flatten(2)).unflatten(2, index.shape[2:]) for part in (q, k, v)
        )
        mix = self.mixture(k_at, filled)
        share = torch.einsum("b h t u, b h u s -> b h t s", mix, filled.expand_as(index).to(mix.dtype))
        share = share.clamp(min=1e-6)
        k_mix, v_mix = (
            torch.einsum("b h t u, b h u s d -> b h t s d", mix, part) / share[..., None] for part in (k_at, v_at)
        )
        first_k, first_v = (part[:, :, None, :front].expand(-1, -1, self.blocks, -1, -1) for part in (k, v))
        first = seen[:, None, None, :front].expand(-1, -1, self.blocks, -1)
        allowed = torch.cat((first, filled.any(dim=2, keepdim=True).expand_as(filled), filled), dim=-1)
        scores = q_at @ torch.cat((first_k, k_mix, k_at), dim=3).mT * q.shape[-1] ** -0.5
        scores = scores + F.pad(share.log(), (front, share.shape[-1]))[..., None, :]
        weights = masked_softmax(scores, allowed[..., None, :])
        mixed = weights @ torch.cat((first_v, v_mix, v_at), dim=3)
        return take(mixed.flatten(2, 3), slots.slot[:, None].expand(-1, q.shape[1], -1))

    def mixture(self, k: Float[Tensor, "b h t s d"], filled: Bool[Tensor, "b 1 t s"]) -> Float[Tensor, "b h t t"]:
        """S: how much block t takes from each block; those without tokens are left to themselves."""
        mean = k.sum(dim=3) / filled.sum(dim=3).clamp(min=1)[..., None]
        logits = mean @ self.sort.to(k.dtype)
        if self.training:
            logits = logits - torch.empty_like(logits).exponential_().log()
        some = filled.any(dim=3)
        apart = some[..., :, None] != some[..., None, :]
        return sinkhorn((logits / self.temperature).masked_fill(apart, -1e30), self.iterations)

    def _lay(self, seen: Bool[Tensor, "b n"]) -> Slots:
        """Each sample's tokens in order, as many to a block as fill the blocks evenly."""
        most = -(-seen.shape[1] // self.blocks)
        size = ((seen.sum(dim=1, keepdim=True) + self.blocks - 1) // self.blocks).clamp(min=1)
        rank = (seen.cumsum(dim=1) - 1).clamp(min=0)
        slot = torch.div(rank, size, rounding_mode="floor") * most + rank % size
        return lay(slot.where(seen, self.blocks * most), self.blocks * most)


def sinkhorn(logits: Float[Tensor, "*b t t"], iterations: int) -> Float[Tensor, "*b t t"]:
    """exp(logits) with columns and rows normalised in turn, rows last, in log space.  Sinkhorn 1964."""
    for _ in range(iterations):
        logits = logits.log_softmax(dim=-2).log_softmax(dim=-1)
    return logits.exp()
