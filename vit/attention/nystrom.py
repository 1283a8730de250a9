"""Softmax attention from a few landmarks."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vit.attention.blocks import visible
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, masked_softmax, widen
from vit.checks import refuse_causal, refuse_cross, refuse_pairs, require_at_least, require_tokens
from vit.tokens import Grid, Layout


@final
class Nystrom(Mechanism):
    """softmax(q K^T) pinv(softmax(Q K^T)) softmax(Q k^T) v, scores over sqrt(d).  Xiong et al. 2021 (Nystromformer).

    Q and K are the means of m segments of q and k, which divide what is not padding, prefix tokens among it, into runs
    of equal length up to one token; m = n is softmax attention itself. The pseudo-inverse is found by the third-order
    iteration of Razavi et al. 2014. Time n m d, memory n m. The effective matrix has entries of both signs; its rows
    sum to one as far as the iteration has converged. The paper's convolution beside it is left out.

    Args:
        landmarks: m; fewer where there are fewer tokens.
        iterations: of the pseudo-inverse.

    Raises:
        ValueError: ``landmarks`` or ``iterations`` below 1. When called: queries of another sequence, a causal mask, a
            mask of pairs, or other than the layout's tokens.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, landmarks: int = 16, iterations: int = 6) -> None:
        super().__init__()
        self.landmarks = require_at_least(1, landmarks, "landmarks")
        self.iterations = require_at_least(1, iterations, "iterations")

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        require_tokens(self, layout, v.shape[2])
        refuse_causal(self, layout, "averages tokens of whole segments")
        refuse_pairs(self, layout, "averages tokens of whole segments")
        keys = visible(layout, v.device)
        means, real = _segments(keys, min(self.landmarks, v.shape[2]))
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            means = means.to(wide_v.dtype)
            wide_q = wide_q * q.shape[-1] ** -0.5
            landmark_q, landmark_k = means @ wide_q, means @ wide_k
            from_queries = masked_softmax(wide_q @ landmark_k.mT, real[:, None, None])
            to_keys = masked_softmax(landmark_q @ wide_k.mT, keys[:, None, None])
            core = masked_softmax(landmark_q @ landmark_k.mT, real[:, None, None])
            # landmarks that a padded sample lacks take part as an identity that nothing reads
            core = torch.where(
                real[:, None, :, None], core, torch.eye(core.shape[-1], dtype=core.dtype, device=v.device)
            )
            return (from_queries @ (_pseudo_inverse(core, self.iterations) @ (to_keys @ wide_v))).to(v.dtype)


def _segments(keys: Bool[Tensor, "b n"], most: int) -> tuple[Float[Tensor, "b 1 m n"], Bool[Tensor, "b m"]]:
    """The matrix that averages each segment of what is not padding, and which of its rows are segments."""
    rank, count = keys.cumsum(dim=1) - 1, keys.sum(dim=1, keepdim=True)
    segments = count.clamp(max=most)
    mine = (rank * segments).div(count.clamp(min=1), rounding_mode="floor")
    number = torch.arange(most, device=keys.device)
    member = ((mine[:, None] == number[:, None]) & keys[:, None]).float()
    return (member / member.sum(dim=-1, keepdim=True).clamp(min=1))[:, None], number < segments


def _pseudo_inverse(a: Float[Tensor, "b h m m"], iterations: int) -> Float[Tensor, "b h m m"]:
    """Third-order Newton-Schulz; started per matrix, so that samples and heads stay apart."""
    norms = a.sum(dim=-1).amax(dim=-1) * a.sum(dim=-2).amax(dim=-1)
    z, one = a.mT / norms[..., None, None], torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z
