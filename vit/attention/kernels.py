"""Attention whose weights are products of features: sums over tokens first, linear in their number."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vit.tokens import Layout

_CHUNK = 64


def kernel_attention(
    q: Float[Tensor, "b h n f"],
    k: Float[Tensor, "b h m f"],
    v: Float[Tensor, "b h m e"],
    layout: Layout,
    floor: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """sum_j (q_i . k_j) v_j / sum_j q_i . k_j over the keys that query i may see; zero where it may see none.

    Args:
        q: features of the queries.
        k: features of the keys.
        layout: key padding and causal order are honoured; the caller refuses pairs.
        floor: the least the denominator may be; with 0 it is taken as it is.

    Raises:
        ValueError: a causal mask between two sequences.
    """
    mask = layout.mask
    if mask is not None and mask.keys is not None:
        k = k.masked_fill(~mask.keys[:, None, :, None], 0.0)
    v = F.pad(v, (0, 1), value=1.0)  # its last column sums the weights
    if mask is None or not mask.causal:
        sums = q @ (k.mT @ v)
    elif q.shape[2] != k.shape[2]:
        raise ValueError(f"a causal mask needs as many queries as keys; got {q.shape[2]} queries, {k.shape[2]} keys")
    elif mask.prefix is None:
        sums = _causal_sums(q, k, v)
    else:  # the prefix is seen by all, what follows it in order
        front = torch.arange(k.shape[2], device=k.device) < mask.prefix[:, None]
        front = front[:, None, :, None]
        sums = q @ (k.masked_fill(~front, 0.0).mT @ v) + _causal_sums(q, k.masked_fill(front, 0.0), v)
    total = sums[..., -1:]
    return sums[..., :-1] / (total.clamp(min=floor) if floor else total.masked_fill(total == 0, 1.0))


def _causal_sums(
    q: Float[Tensor, "b h n f"], k: Float[Tensor, "b h n f"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h n e"]:
    """sum_{j <= i} (q_i . k_j) v_j: pair by pair inside a chunk, by the sums k v^T of all chunks before it."""
    n = q.shape[2]
    parts = (F.pad(part, (0, 0, 0, -n % _CHUNK)) for part in (q, k, v))
    q, k, v = (rearrange(part, "b h (t c) f -> b h t c f", c=_CHUNK) for part in parts)
    inside = (q @ k.mT).tril() @ v
    before = F.pad((k.mT @ v).cumsum(dim=2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
    return rearrange(inside + q @ before, "b h t c e -> b h (t c) e")[:, :, :n]
