"""Low-rank updates of linear maps, which merge into plain weights."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@final
class LowRankLinear(nn.Module):
    """W x + b + (alpha / rank) up(down x), with W and b frozen.  Hu et al. 2021 (LoRA), eq. 3.

    ``up`` starts at zero, so that at first nothing changes. The weight and bias are those of the map it takes the place
    of, under their names: `merged` turns a state dict with updates into that of the net without them.

    Args:
        linear: what is updated; its parameters are taken over and frozen.
        rank: of the update.
        alpha: the update counts alpha / rank.

    Raises:
        ValueError: the rank is not in 1..min(in, out).
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        most = min(linear.in_features, linear.out_features)
        if not 1 <= rank <= most:
            raise ValueError(f"rank must be in 1..{most}, the smaller side of the map, got {rank}")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features).to(linear.weight))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank).to(linear.weight))
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(alpha / rank).to(linear.weight))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up) * self.scale


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without low-rank updates: each is added to its weight; the same tensors where none are."""
    plain = dict(state)
    for path in [name.removesuffix("down") for name in state if name.rpartition(".")[2] == "down"]:
        if f"{path}up" in state and f"{path}scale" in state:
            down, up, scale = (plain.pop(f"{path}{part}") for part in ("down", "up", "scale"))
            plain[f"{path}weight"] = plain[f"{path}weight"] + scale * (up @ down)
    return plain
