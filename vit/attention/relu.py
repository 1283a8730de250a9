"""Attention without an exponential."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.masks import allowed_pairs
from vit.attention.mechanism import Mechanism
from vit.tokens import Grid, Layout


@final
class Relu(Mechanism):
    """relu(q k^T / sqrt(d)) v / m, m the keys that a query may see.  Wortsman et al. 2023, section 3.

    Weights do not sum to one. Without 1 / m the output would grow with the picture.

    Args:
        attn_drop: probability of dropping an attention weight in training.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.attn_drop = attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        allowed = allowed_pairs(q, k, layout)
        count = k.shape[2] if allowed is None else allowed.sum(dim=-1, keepdim=True).clamp(min=1)
        return F.dropout(_rectified(q, k, allowed) / count, self.attn_drop, self.training) @ v


@final
class ReluSum(Mechanism):
    """relu(q k^T / sqrt(d)), each row over its sum, times v: shares as of `Softmax`, many of them exactly zero.

    A query that no key pleases returns zeros. Shen et al. 2023 compare it with `Relu`.

    Args:
        attn_drop: probability of dropping an attention weight in training.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.attn_drop = attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        weights = _rectified(q, k, allowed_pairs(q, k, layout))
        sums = weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return F.dropout(weights / sums, self.attn_drop, self.training) @ v


def _rectified(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], allowed: Bool[Tensor, "p 1 #n m"] | None
) -> Float[Tensor, "b h n m"]:
    weights = torch.relu(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2))
    return weights if allowed is None else weights.masked_fill(~allowed, 0.0)
