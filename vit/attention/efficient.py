"""Efficient attention: keys summarise the values first."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, masked_softmax, widen
from vit.checks import refuse_causal, refuse_pairs
from vit.tokens import Grid, Layout


@final
class Efficient(Mechanism):
    """softmax_d(q) (softmax_n(k)^T v).  Shen et al. 2021 (Efficient Attention), softmax normalisation.

    Each of the d key channels is a global average of the values, each query a mixture of these: rows sum to one. Time
    and memory n d^2 / n d. Not equal to softmax attention, whatever its size.

    Raises:
        ValueError: a causal mask or a mask of pairs: the softmax of a key channel spans all tokens.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_causal(self, layout, "normalises key channels over all tokens")
        refuse_pairs(self, layout, "normalises key channels over all tokens")
        keys = layout.keys
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            templates = masked_softmax(wide_k.mT, None if keys is None else keys[:, None, None, :]) @ wide_v
            return (wide_q.softmax(dim=-1) @ templates).to(v.dtype)


@final
class EfficientScaling(Mechanism):
    """q (k^T v) / n, n the tokens that may be seen.  Shen et al. 2021, scaling normalisation.

    The same numbers as dot-product non-local attention (Wang et al. 2018), in linear time and memory. Weights
    are neither positive nor do they sum to one.

    Raises:
        ValueError: a causal mask or a mask of pairs: keys meet the values before they meet a query.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_causal(self, layout, "sums over all tokens at once")
        refuse_pairs(self, layout, "sums over all tokens at once")
        keys = layout.keys
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            if keys is None:
                return (wide_q @ (wide_k.mT @ wide_v / v.shape[2])).to(v.dtype)
            seen = keys[:, None, :, None]
            return (
                wide_q @ (wide_k.masked_fill(~seen, 0.0).mT @ wide_v / seen.sum(dim=2, keepdim=True).clamp(min=1))
            ).to(v.dtype)
