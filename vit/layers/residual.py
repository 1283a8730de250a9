"""The residual connection, with layer scale and stochastic depth: the one place that adds a branch to its input."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.checks import require_below_one


@final
class DropPath(nn.Module):
    """Drop a sample's whole branch in training, scaling the kept ones up.  Huang et al. 2016 (stochastic depth).

    Raises:
        ValueError: ``rate`` outside [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = require_below_one(rate, "drop_path")

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * torch.empty(len(x), 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep).div_(keep)


@final
class LayerScale(nn.Module):
    """Multiply each channel by a learned factor.  Touvron et al. 2021 (CaiT), eq. 4."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return x * self.gamma


@final
class Residual(nn.Module):
    """x + drop_path(layer_scale(branch)).

    Args:
        dim: channels.
        drop_path: probability of dropping the branch of a sample in training.
        layer_scale: initial factor of the branch's channels, None for no factors.
    """

    def __init__(self, dim: int, drop_path: float = 0.0, layer_scale: float | None = None) -> None:
        super().__init__()
        self.scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n c"], branch: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return x + self.drop_path(self.scale(branch))
