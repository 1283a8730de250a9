"""Transformer blocks around any mixer and any MLP."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.attend import MixerFactory, SelfAttention
from vit.layers.conv import ConvModule
from vit.layers.mlp import Mlp, MlpFactory
from vit.layers.norm import LayerNorm, NormFactory
from vit.layers.residual import Residual
from vit.tokens import Grid, Layout

BlockFactory = Callable[[int, Grid, float], nn.Module]
"""(dim, grid, drop_path) -> a block, called ``(tokens (b n c), layout) -> (b n c)``."""


@final
class Block(nn.Module):
    """Pre-norm: x + mixer(norm x), then x + mlp(norm x).  Vaswani et al. 2017 with the norm of Baevski & Auli 2019.

    Args:
        dim: channels.
        grid: sizes the mixer's parameters.
        drop_path: stochastic depth rate of this block, both branches.
        mixer: what moves information between tokens.
        mlp: what works on each token.
        norm: of both branches.
        layer_scale: initial factor of both branches' channels, None for no factors.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        drop_path: float = 0.0,
        mixer: MixerFactory = SelfAttention,
        mlp: MlpFactory = Mlp,
        norm: NormFactory = LayerNorm,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.mixer = mixer(dim, grid)
        self.residual1 = Residual(dim, drop_path, layer_scale)
        self.norm2 = norm(dim)
        self.mlp = mlp(dim)
        self.residual2 = Residual(dim, drop_path, layer_scale)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        x = self.residual1(x, self.mixer(self.norm1(x), layout))
        return self.residual2(x, self.mlp(self.norm2(x)))


@final
class PostNormBlock(nn.Module):
    """Post-norm: norm(x + mixer(x)), then norm(x + mlp(x)).  Vaswani et al. 2017, 3.1. Arguments as `Block`'s."""

    def __init__(
        self,
        dim: int,
        grid: Grid,
        drop_path: float = 0.0,
        mixer: MixerFactory = SelfAttention,
        mlp: MlpFactory = Mlp,
        norm: NormFactory = LayerNorm,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.mixer = mixer(dim, grid)
        self.residual1 = Residual(dim, drop_path, layer_scale)
        self.norm1 = norm(dim)
        self.mlp = mlp(dim)
        self.residual2 = Residual(dim, drop_path, layer_scale)
        self.norm2 = norm(dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        x = self.norm1(self.residual1(x, self.mixer(x, layout)))
        return self.norm2(self.residual2(x, self.mlp(x)))


@final
class ConformerBlock(nn.Module):
    """x + mlp1 / 2, + mixer, + conv, + mlp2 / 2, each of its own norm, then a norm.  Gulati et al. 2020, eq. 1.

    Prefix tokens pass the convolution untouched (see `ConvModule`): a class token read after the last block has not
    seen that block's convolution, so mean pooling suits a stack of these better.

    Args:
        dim: channels.
        grid: sizes the mixer's and the convolution module's parameters.
        drop_path: stochastic depth rate of this block, all four branches.
        mixer: what moves information between all tokens.
        mlp: what works on each token, built twice; each counts half.
        conv: what moves information between neighbouring patches.
        norm: of all branches and of the output.
        layer_scale: initial factor of all branches' channels, None for no factors.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        drop_path: float = 0.0,
        mixer: MixerFactory = SelfAttention,
        mlp: MlpFactory = Mlp,
        conv: MixerFactory = ConvModule,
        norm: NormFactory = LayerNorm,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.mlp1 = mlp(dim)
        self.residual1 = Residual(dim, drop_path, layer_scale)
        self.norm2 = norm(dim)
        self.mixer = mixer(dim, grid)
        self.residual2 = Residual(dim, drop_path, layer_scale)
        self.norm3 = norm(dim)
        self.conv = conv(dim, grid)
        self.residual3 = Residual(dim, drop_path, layer_scale)
        self.norm4 = norm(dim)
        self.mlp2 = mlp(dim)
        self.residual4 = Residual(dim, drop_path, layer_scale)
        self.norm = norm(dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        x = self.residual1(x, 0.5 * self.mlp1(self.norm1(x)))
        x = self.residual2(x, self.mixer(self.norm2(x), layout))
        x = self.residual3(x, self.conv(self.norm3(x), layout))
        x = self.residual4(x, 0.5 * self.mlp2(self.norm4(x)))
        return self.norm(x)
