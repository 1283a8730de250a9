"""Softmax attention over a few learned mixtures of the keys."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.attention.mechanism import Mechanism
from vit.checks import refuse_causal, refuse_pairs, refuse_resizing, require_at_least, require_own_tokens
from vit.tokens import Grid, Layout


@final
class Linformer(Mechanism):
    """softmax(q (E k)^T / sqrt(d)) (F v), E and F (r n) learned.  Wang et al. 2020 (Linformer), eq. 7.

    Time and memory n r d / n r. E and F are shared by the heads and belong to positions: the number of tokens is fixed
    and no other resolution can take them over. Padded keys and values are zeroed before E and F. The effective matrix
    softmax(.) F is signed and its rows need not sum to one.

    Args:
        rank: r.

    Raises:
        ValueError: ``rank`` below 1. When called: another grid than built for, a kept subset, a causal mask or a mask
            of pairs. When loaded: matrices of another number of tokens.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, rank: int = 32) -> None:
        super().__init__()
        require_at_least(1, rank, "rank")
        self.grid = grid
        self.mix_k = nn.Parameter(torch.randn(rank, grid.tokens) * rank**-0.5)
        self.mix_v = nn.Parameter(torch.randn(rank, grid.tokens) * rank**-0.5)
        refuse_resizing(self, grid, "mix_k", "mix_v")

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_own_tokens(self, layout, self.grid, v)
        refuse_causal(self, layout, "mixes the keys of all positions")
        refuse_pairs(self, layout, "mixes the keys of all positions")
        if layout.keys is not None:
            padding = ~layout.keys[:, None, :, None]
            k, v = k.masked_fill(padding, 0.0), v.masked_fill(padding, 0.0)
        mixed_k, mixed_v = self.mix_k.to(k.dtype) @ k, self.mix_v.to(v.dtype) @ v
        return F.scaled_dot_product_attention(q, mixed_k.to(q.dtype), mixed_v.to(q.dtype)).to(v.dtype)
