"""Sums that lose digits in half precision, and softmax over what may be seen."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def exact_sums(x: Tensor) -> torch.autocast:
    """Autocast off, for sums in float32 or better of what `widen` gives."""
    return torch.autocast(x.device.type, enabled=False)


def widen(*parts: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float32, or in their own precision where that is better."""
    return tuple(part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts)


def masked_softmax(scores: Float[Tensor, "*n m"], allowed: Bool[Tensor, "*#n m"] | None) -> Float[Tensor, "*n m"]:
    """Softmax over the last axis, where allowed; a row with nothing allowed is zero, with finite gradients."""
    if allowed is None:
        return scores.softmax(dim=-1)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~allowed, lowest).softmax(dim=-1) * allowed
