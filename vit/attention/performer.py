"""Softmax attention by positive random features."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vit.attention.kernels import kernel_attention
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_pairs, require_at_least
from vit.tokens import Grid, Layout


@final
class Performer(Mechanism):
    """phi(q_i) . phi(k_j) as weights, phi(x) = exp(W x - |x|^2 / 2) / sqrt(m).  Choromanski et al. 2021 (FAVOR+).

    With queries and keys scaled by d^-1/4 the mean over W is exp(q . k / sqrt(d)). The rows of W (m d) are orthogonal
    in groups of d and as long as Gaussian rows; one W for all heads, in the state dict. Time n m d, memory n m. The
    exponents of keys are shifted by the largest that the query may see (no padding; in causal order no later key),
    which cancels. The paper's + eps in phi is left out: it would tie every token to the largest key and break causal
    order. The estimate is good for small scores only: its error falls with m while |q| and |k| stay near 1.

    Args:
        features: m.
        redraw: draw W anew after this many calls in training, 0 for never.

    Raises:
        ValueError: ``features`` below 1 or ``redraw`` below 0. When called: a mask of pairs, or a causal mask between
            two sequences.
    """

    projection: Tensor
    calls: Tensor

    def __init__(self, heads: int, head_dim: int, grid: Grid, features: int = 64, redraw: int = 0) -> None:
        super().__init__()
        self.redraw = require_at_least(0, redraw, "redraw")
        self.register_buffer("projection", orthogonal_features(require_at_least(1, features, "features"), head_dim))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_pairs(self, layout, "sums keys before it meets a query")
        if self.training and self.redraw:
            self._count_and_redraw()
        with exact_sums(v):
            wide_q, wide_k, wide_v, projection = widen(q, k, v, self.projection)
            query, key = _exponent(wide_q, projection), _exponent(wide_k, projection)
            least = torch.finfo(key.dtype).min
            if layout.keys is not None:
                key = key.masked_fill(~layout.keys[:, None, :, None], least)
            query = (query - query.detach().amax(dim=-1, keepdim=True)).exp()
            level = key.detach().amax(dim=-1, keepdim=True).clamp(min=least)
            return kernel_attention(query, (key - level).exp(), wide_v, layout, level=level).to(v.dtype)

    @torch.no_grad()
    def _count_and_redraw(self) -> None:
        """By torch.where and not by a branch on the count: one graph under torch.compile. New tensors, not new values
        in the old ones, which a backward pass still to come may need."""
        self.calls = self.calls + 1
        drawn = orthogonal_features(*self.projection.shape, device=self.projection.device).to(self.projection.dtype)
        self.projection = torch.where(self.calls % self.redraw == 0, drawn, self.projection)


def orthogonal_features(features: int, dim: int, device: torch.device | None = None) -> Float[Tensor, "m d"]:
    """Rows orthogonal in groups of ``dim``, each distributed as a row of Gaussians: in direction too, which takes the
    signs of R (Mezzadri 2007), without which the mean of the features is off."""
    groups = torch.randn(math.ceil(features / dim), dim, dim, device=device)
    q, r = torch.linalg.qr(groups)
    directions = (q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]).mT.flatten(0, 1)[:features]
    return directions * torch.randn(features, dim, device=device).norm(dim=1, keepdim=True)


def _exponent(x: Float[Tensor, "b h n d"], projection: Float[Tensor, "m d"]) -> Float[Tensor, "b h n m"]:
    x = x * x.shape[-1] ** -0.25
    return x @ projection.mT - x.square().sum(dim=-1, keepdim=True) / 2
