"""Scaled dot-product attention."""

from typing import final

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

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
        mask, causal = _mask_for_sdpa(q, k, layout)
        dropout = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=self.scale)


def _mask_for_sdpa(q: Tensor, k: Tensor, layout: Layout) -> tuple[Bool[Tensor, "p 1 #n m"] | None, bool]:
    """The mask in the cheapest form a fused kernel takes: a flag, one row of keys, or the dense matrix."""
    mask, n, m = layout.mask, q.shape[2], k.shape[2]
    if mask is None:
        return None, False
    if n != m and (mask.causal or mask.pairs is not None):
        raise ValueError(f"a causal or pairwise mask needs as many queries as keys; got {n} queries, {m} keys")
    if mask.pairs is None and not mask.causal:
        return (None if mask.keys is None else mask.keys[:, None, None, :]), False
    if mask.causal and mask.keys is None and mask.pairs is None and mask.prefix is None:
        return None, True
    return mask.allowed(n, q.device)[:, None], False
