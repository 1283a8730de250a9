"""Normalisation over channels. `torch.nn.RMSNorm` serves as it is."""

from collections.abc import Callable
from typing import final

from torch import nn

NormFactory = Callable[[int], nn.Module]


@final
class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm with the epsilon every published ViT uses, so that a bare class is a `NormFactory`."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)
