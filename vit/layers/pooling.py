"""Tokens to one vector per image: called ``(tokens (b n c), layout) -> (b c)``. Padding never counts."""

from collections.abc import Callable
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit.layers.attend import CrossAttention
from vit.layers.mlp import ActFactory, Mlp
from vit.layers.norm import LayerNorm
from vit.tokens import Grid, Layout, Mask

PoolFactory = Callable[[int, Grid], nn.Module]


@final
class ClassToken(nn.Module):
    """The prefix token named ``token``.  Devlin et al. 2019.

    Raises:
        ValueError: the grid has no such prefix token.
    """

    def __init__(self, dim: int, grid: Grid, token: str = "cls") -> None:
        super().__init__()
        if token not in grid.prefix:
            raise ValueError(f"pooling reads the prefix token {token!r}, but the backbone has {list(grid.prefix)}")
        self.position = grid.prefix.index(token)

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return tokens[:, self.position]


@final
class MeanPool(nn.Module):
    """Mean of the patch tokens."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        patches, keys = _patches(tokens, layout)
        if keys is None:
            return patches.mean(dim=1)
        return (patches * keys[..., None]).sum(dim=1) / keys.sum(dim=1, keepdim=True).clamp(min=1)


@final
class MaxPool(nn.Module):
    """Largest value of the patch tokens, per channel."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        patches, keys = _patches(tokens, layout)
        if keys is not None:
            patches = patches.masked_fill(~keys[..., None], torch.finfo(patches.dtype).min)
        return patches.amax(dim=1)


@final
class MapPool(nn.Module):
    """A learned query attends to the patch tokens, then a residual MLP (MAP).  Zhai et al. 2022, section 3.1.

    Args:
        dim: channels.
        grid: of the tokens.
        num_heads: heads of the attention.
        mlp_ratio: hidden width of the MLP over ``dim``.
        act_layer: activation of the MLP.
    """

    def __init__(
        self, dim: int, grid: Grid, num_heads: int = 3, mlp_ratio: float = 4.0, act_layer: ActFactory = nn.GELU
    ) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.attention = CrossAttention(dim, Grid(grid.height, grid.width), num_heads)
        self.norm = LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio, act_layer=act_layer)

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        patches, keys = _patches(tokens, layout)
        grid = Grid(layout.grid.height, layout.grid.width)
        visible = Layout(grid, None if keys is None else Mask(keys=keys), layout.index, layout.sizes)
        x = self.attention(self.latent.expand(tokens.shape[0], -1, -1), patches, visible)
        x = x + self.mlp(self.norm(x))
        return rearrange(x, "b 1 c -> b c")


def _patches(tokens: Tensor, layout: Layout) -> tuple[Float[Tensor, "b n c"], Bool[Tensor, "b n"] | None]:
    """The patch tokens and, where some are padding, which of them count."""
    return tokens[:, layout.grid.num_prefix :], layout.patch_keys
