"""Scores from a small network of query and key."""

from typing import final

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vit.attention.masks import allowed_pairs
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import masked_softmax
from vit.checks import require_at_least
from vit.tokens import Grid, Layout


@final
class Additive(Mechanism):
    """softmax(w tanh(W_q q + W_k k)) v, learned per head.  Bahdanau et al. 2015, eq. 6 and A.1.2.

    Time n^2 hidden_dim in tanh alone. Queries go in chunks, and the backward pass computes each chunk again, so that
    memory is chunk n hidden_dim and never n^2 hidden_dim.

    Args:
        hidden_dim: width of the network, head_dim when None.
        chunk: queries at a time.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: ``hidden_dim`` or ``chunk`` is below 1.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        hidden_dim: int | None = None,
        chunk: int = 64,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = require_at_least(1, head_dim if hidden_dim is None else hidden_dim, "hidden_dim")
        self.chunk = require_at_least(1, chunk, "chunk")
        self.attn_drop = attn_drop
        self.query = nn.Parameter(torch.randn(heads, head_dim, hidden) * head_dim**-0.5)
        self.key = nn.Parameter(torch.randn(heads, head_dim, hidden) * head_dim**-0.5)
        self.score = nn.Parameter(torch.randn(heads, hidden) * hidden**-0.5)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        allowed = allowed_pairs(q, k, layout)
        q = einsum(q, self.query, "b h n d, h d a -> b h n a")
        k = einsum(k, self.key, "b h m d, h d a -> b h m a")
        rows = None if allowed is None else allowed.expand(-1, -1, q.shape[2], -1).split(self.chunk, dim=2)
        parts, mixed = q.split(self.chunk, dim=2), []
        again = len(parts) > 1 and torch.is_grad_enabled()
        for number, part in enumerate(parts):
            arguments = (part, k, v, None if rows is None else rows[number])
            mixed.append(checkpoint(self._mix, *arguments, use_reentrant=False) if again else self._mix(*arguments))
        return torch.cat(mixed, dim=2)

    def _mix(
        self,
        q: Float[Tensor, "b h c a"],
        k: Float[Tensor, "b h m a"],
        v: Float[Tensor, "b h m e"],
        allowed: Bool[Tensor, "p 1 c m"] | None,
    ) -> Float[Tensor, "b h c e"]:
        hidden = torch.tanh(rearrange(q, "b h c a -> b h c 1 a") + rearrange(k, "b h m a -> b h 1 m a"))
        scores = einsum(hidden, self.score, "b h c m a, h a -> b h c m")
        return F.dropout(masked_softmax(scores, allowed), self.attn_drop, self.training) @ v
