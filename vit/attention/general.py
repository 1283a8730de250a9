"""Bilinear scores."""

from typing import final

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.attention.masks import sdpa_mask
from vit.attention.mechanism import Mechanism
from vit.tokens import Grid, Layout


@final
class General(Mechanism):
    """softmax(q W k^T) v, W learned per head.  Luong et al. 2015, eq. 8, "general".

    W starts as 1 / sqrt(d), which is `Softmax`.

    Args:
        attn_drop: probability of dropping an attention weight in training.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.attn_drop = attn_drop
        self.weight = nn.Parameter(torch.eye(head_dim).repeat(heads, 1, 1) * head_dim**-0.5)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        mask, causal = sdpa_mask(q, k, layout)
        q = einsum(q, self.weight, "b h n d, h d c -> b h n c")
        dropout = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=1.0)
