"""A layout's mask in the forms that mechanisms compute with."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vit.checks import require_as_many
from vit.tokens import Layout


def sdpa_mask(q: Tensor, k: Tensor, layout: Layout) -> tuple[Bool[Tensor, "p 1 #n m"] | None, bool]:
    """The mask in the cheapest form a fused kernel takes: a flag, one row of keys, or the dense matrix."""
    mask = layout.mask
    if mask is not None and mask.causal and mask.keys is None and mask.pairs is None and mask.prefix is None:
        require_as_many(q, k)
        return None, True
    return allowed_pairs(q, k, layout), False


def allowed_pairs(q: Tensor, k: Tensor, layout: Layout) -> Bool[Tensor, "p 1 #n m"] | None:
    """True where a query may see a key, one row where that is the same for all queries; None where all see all.

    Raises:
        ValueError: the mask is of pairs, but queries and keys are not as many.
    """
    mask = layout.mask
    if mask is None:
        return None
    if mask.causal or mask.pairs is not None:
        require_as_many(q, k)
        return mask.allowed(k.shape[2], q.device)[:, None]
    if mask.keys is None:
        return None
    return mask.keys[:, None, None, :]


def biased_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n e"],
    bias: Float[Tensor, "p h n n"],
    layout: Layout,
    dropout: float,
) -> Float[Tensor, "b h n e"]:
    """softmax(q k^T / sqrt(d) + bias) v. The bias is 4-D: torch's CPU kernels take no other."""
    allowed = allowed_pairs(q, k, layout)
    bias = bias.to(q.dtype)
    if allowed is not None:
        bias = bias.masked_fill(~allowed, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, bias, dropout)
