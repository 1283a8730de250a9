"""Scaled dot-product attention."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.masks import sdpa_mask
from vit.attention.mechanism import Mechanism
from vit.tokens import Grid, Layout


@final
class Softmax(Mechanism):
    """softmax(q k^T / sqrt(d)) v, on torch's fused kernels.  Vaswani et al. 2017, eq. 1.

    Time n^2 d, memory n where a fused kernel serves (n^2 otherwise). A query that may see no key returns zeros.

    Args:
        attn_drop: probability of dropping an attention weight in training.
        scale: factor on the scores, 1 / sqrt(d) when None.
    """

    def __init__(
        self, heads: int, head_dim: int, grid: Grid, attn_drop: float = 0.0, scale: float | None = None
    ) -> None:
        super().__init__()
        self.attn_drop = attn_drop
        self.scale = scale

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        mask, causal = sdpa_mask(q, k, layout)
        dropout = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=self.scale)
