"""Attention whose weights are products of features: sums over tokens first, linear in their number."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vit.checks import require_as_many
from vit.tokens import Layout

_CHUNK = 64


def kernel_attention(
    q: Float[Tensor, "b h n f"],
    k: Float[Tensor, "b h m f"],
    v: Float[Tensor, "b h m e"],
    layout: Layout,
    floor: float = 0.0,
    level: Float[Tensor, "b h m 1"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """sum_j (q_i . k_j) v_j / sum_j q_i . k_j over the keys that query i may see; zero where it may see none.

    Args:
        q: features of the queries.
        k: features of the keys.
        layout: key padding and causal order are honoured; the caller refuses pairs.
        floor: the least the denominator may be; with 0 it is taken as it is.
        level: finite l, each key being exp(l_j) k_j, where that would leave the range of floats. Without ``floor``:
            both sums are taken relative to the largest that a query may see.

    Raises:
        ValueError: a causal mask between two sequences.
    """
    mask = layout.mask
    if layout.keys is not None:
        k = k.masked_fill(~layout.keys[:, None, :, None], 0.0)
    v = F.pad(v, (0, 1), value=1.0)  # its last column sums the weights
    if mask is None or not mask.causal:
        sums = q @ (k.mT @ v) if level is None else _sums(q, k, v, level)[0]
    else:
        require_as_many(q, k)
        level = torch.zeros_like(k[..., :1]) if level is None else level
        sums = _in_order(q, k, v, level, mask.prefix)
    total = sums[..., -1:]
    return sums[..., :-1] / (total.clamp(min=floor) if floor else total.masked_fill(total == 0, 1.0))


def _in_order(
    q: Float[Tensor, "b h n f"],
    k: Float[Tensor, "b h n f"],
    v: Float[Tensor, "b h n e"],
    level: Float[Tensor, "b h n 1"],
    prefix: Int[Tensor, " p"] | None,
) -> Float[Tensor, "b h n e"]:
    """The causal sums, each relative to the largest level its query sees; the prefix is seen by all."""
    if prefix is None:
        return _causal_sums(q, k, v, level)[0]
    front = (torch.arange(k.shape[2], device=k.device) < prefix[:, None])[:, None, :, None]
    least = torch.finfo(level.dtype).min
    seen, top = _sums(q, k.masked_fill(~front, 0.0), v, level.masked_fill(~front, least))
    after, now = _causal_sums(q, k.masked_fill(front, 0.0), v, level.masked_fill(front, least))
    both = torch.maximum(top, now)
    return seen * (top - both).exp() + after * (now - both).exp()


def _sums(
    q: Float[Tensor, "b h n f"],
    k: Float[Tensor, "b h m f"],
    v: Float[Tensor, "b h m e"],
    level: Float[Tensor, "b h m 1"],
) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b h 1 1"]]:
    """exp(-top) sum_j exp(l_j) (q_i . k_j) v_j, and top, the largest l."""
    top = level.amax(dim=2, keepdim=True)
    return q @ ((k * (level - top).exp()).mT @ v), top


def _causal_sums(
    q: Float[Tensor, "b h n f"],
    k: Float[Tensor, "b h n f"],
    v: Float[Tensor, "b h n e"],
    level: Float[Tensor, "b h n 1"],
) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b h n 1"]]:
    """exp(-top_i) sum_{j <= i} exp(l_j) (q_i . k_j) v_j, and top_i, the largest l up to i.

    Pair by pair inside a chunk, by the sums k v^T of all chunks before it, each relative to the largest l so far.
    """
    n, least = q.shape[2], torch.finfo(level.dtype).min
    level = F.pad(level, (0, 0, 0, -n % _CHUNK), value=least)
    parts = (*(F.pad(part, (0, 0, 0, -n % _CHUNK)) for part in (q, k, v)), level, level.cummax(dim=2).values)
    q, k, v, level, top = (rearrange(part, "b h (t c) f -> b h t c f", c=_CHUNK) for part in parts)
    ratio = (level.mT - top).clamp(max=0.0).exp()  # of later keys inf otherwise, and nan in the backward pass
    inside = (q @ k.mT * ratio).tril() @ v
    last = top[:, :, :, -1:]
    before = F.pad(last[:, :, :-1], (0, 0, 0, 0, 1, 0), value=least)
    sums, fade = (k * (level - last).exp()).mT @ v, (before - last).exp()
    carried = [torch.zeros_like(sums[:, :, 0])]
    for chunk in range(sums.shape[2] - 1):
        carried.append(carried[-1] * fade[:, :, chunk] + sums[:, :, chunk])
    out = inside + q @ torch.stack(carried, dim=2) * (before - top).exp()
    out, top = (rearrange(part, "b h t c e -> b h (t c) e")[:, :, :n] for part in (out, top))
    return out, top
