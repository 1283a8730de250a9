"""Gaussian-kernel attention by random Fourier features."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.kernels import kernel_attention
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_pairs, require_at_least
from vit.tokens import Grid, Layout


@final
class RFA(Mechanism):
    """phi(q_i) . phi(k_j) as weights, phi(x) = [sin W x, cos W x] / sqrt(m), |q| = |k| = 1.  Peng et al. 2021 (RFA).

    The mean over Gaussian W (m d) is exp(q . k - 1). Time n m d, memory n m. Features have both signs, so an estimate
    may be negative, and a denominator near zero: it is not let below exp(-2), the least that a single visible key can
    weigh. W is drawn once, for all heads, and kept in the state dict.

    Args:
        features: m.

    Raises:
        ValueError: ``features`` below 1. When called: a mask of pairs, or a causal mask between two sequences.
    """

    projection: Tensor

    def __init__(self, heads: int, head_dim: int, grid: Grid, features: int = 64) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(require_at_least(1, features, "features"), head_dim))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_pairs(self, layout, "sums keys before it meets a query")
        with exact_sums(v):
            wide_q, wide_k, wide_v, projection = widen(q, k, v, self.projection)
            query, key = _phi(wide_q, projection), _phi(wide_k, projection)
            return kernel_attention(query, key, wide_v, layout, floor=math.exp(-2)).to(v.dtype)


def _phi(x: Float[Tensor, "b h n d"], projection: Float[Tensor, "m d"]) -> Float[Tensor, "b h n f"]:
    angles = F.normalize(x, dim=-1) @ projection.mT
    return torch.cat((angles.sin(), angles.cos()), dim=-1) * len(projection) ** -0.5
