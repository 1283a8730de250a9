"""Blocks with a part left out, to see what the part is for."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.attend import MixerFactory, SelfAttention
from vit.layers.mlp import Mlp, MlpFactory
from vit.layers.norm import LayerNorm, NormFactory
from vit.tokens import Grid, Layout


@final
class NoMlp(nn.Module):
    """Zeros in an MLP's place: what is left of a block is its mixer."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return torch.zeros_like(x)


@final
class NoResidualBlock(nn.Module):
    """mlp(norm(mixer(norm x))): a `Block` whose branches are not added to their input. Its arguments are `Block`'s.

    Raises:
        ValueError: ``drop_path`` is not 0: a dropped branch would leave nothing.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        drop_path: float = 0.0,
        mixer: MixerFactory = SelfAttention,
        mlp: MlpFactory = Mlp,
        norm: NormFactory = LayerNorm,
    ) -> None:
        super().__init__()
        if drop_path:
            raise ValueError(f"a block without residuals has no branch to drop: expected drop_path 0, got {drop_path}")
        self.norm1 = norm(dim)
        self.mixer = mixer(dim, grid)
        self.norm2 = norm(dim)
        self.mlp = mlp(dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        return self.mlp(self.norm2(self.mixer(self.norm1(x), layout)))
