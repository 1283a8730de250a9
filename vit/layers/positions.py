"""Positions of patches: added to the tokens (learned, sin-cos) or turned into the queries and keys (rotary).

Added positions are called ``(patches (b n c), grid, sizes) -> (b n c)`` before prefix tokens join, so resizing stays a
plain 2-D zoom (big_vision's rule); ``sizes`` (b 2) as in `Layout`, each picture then gets the positions it has alone.
Prefix tokens carry no position: they are told apart by their own learned vectors.
"""

from collections.abc import Callable
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.layers.patches import Sizes
from vit.tokens import Grid, Layout

PositionFactory = Callable[[int, Grid], nn.Module]


@final
class NoPositions(nn.Module):
    """Nothing added: the tokens are a set, unless attention turns them (`Rotary2d`)."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n c"], grid: Grid, sizes: Sizes | None = None) -> Float[Tensor, "b n c"]:
        return x


@final
class LearnedPositions(nn.Module):
    """One learned vector per patch, resized bicubically for another grid.  Dosovitskiy et al. 2021."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = Grid(grid.height, grid.width)
        self.embed = nn.Parameter(torch.randn(1, grid.patches, dim) * 0.02)

    def forward(self, x: Float[Tensor, "b n c"], grid: Grid, sizes: Sizes | None = None) -> Float[Tensor, "b n c"]:
        if sizes is None:
            return x + resize_positions(self.embed, self.grid, grid).to(x.dtype)
        own, picture = sizes.unique(dim=0, return_inverse=True)
        tables = [self._resized(height, width, grid) for height, width in own.tolist()]
        return x + torch.stack(tables)[picture].to(x.dtype)

    def _resized(self, height: int, width: int, grid: Grid) -> Float[Tensor, "n c"]:
        """Resized to a smaller grid, zero on the padding that fills ``grid``."""
        table = rearrange(resize_positions(self.embed, self.grid, Grid(height, width)), "1 (y x) c -> y x c", y=height)
        return rearrange(F.pad(table, (0, 0, 0, grid.width - width, 0, grid.height - height)), "y x c -> (y x) c")


@final
class SinCos2d(nn.Module):
    """Fixed sines and cosines, half the channels for the row and half for the column.  Chen et al. 2021 (MoCo v3), 4.2.

    Computed for the grid at hand, so another resolution needs no resizing.

    Raises:
        ValueError: ``dim`` is not divisible by 4.
    """

    def __init__(self, dim: int, grid: Grid, temperature: float = 10_000.0) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(f"2-D sin-cos positions need channels divisible by 4, got {dim}")
        self.dim, self.temperature = dim, temperature

    def forward(self, x: Float[Tensor, "b n c"], grid: Grid, sizes: Sizes | None = None) -> Float[Tensor, "b n c"]:
        rows, columns = Layout(grid).coordinates(x.device).unbind(-1)
        halves = (_sin_cos(position, self.dim // 2, self.temperature) for position in (rows, columns))
        return x + torch.cat(tuple(halves), dim=-1).to(x.dtype)


@final
class SinCos1d(nn.Module):
    """Fixed sines and cosines of the raster position, blind to rows.  Vaswani et al. 2017, section 3.5.

    Raises:
        ValueError: ``dim`` is odd.
    """

    def __init__(self, dim: int, grid: Grid, temperature: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"1-D sin-cos positions need an even number of channels, got {dim}")
        self.dim, self.temperature = dim, temperature

    def forward(self, x: Float[Tensor, "b n c"], grid: Grid, sizes: Sizes | None = None) -> Float[Tensor, "b n c"]:
        rows, columns = Layout(grid).coordinates(x.device).unbind(-1)
        raster = rows * (grid.width if sizes is None else sizes[:, 1:]) + columns
        return x + _sin_cos(raster, self.dim, self.temperature).to(x.dtype)


@final
class Rotary2d(nn.Module):
    """Turn query and key pairs by angles of their patch's row and column; scores then depend on offsets only.

    Su et al. 2021 (RoPE), axial in 2-D as Heo et al. 2024, eq. 8. Prefix tokens are not turned. Called
    ``(heads (b h n d), layout) -> (b h n d)`` on queries and keys alike.

    Raises:
        ValueError: ``head_dim`` is not divisible by 4.
    """

    def __init__(self, head_dim: int, grid: Grid, temperature: float = 100.0) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"2-D rotary positions need a head width divisible by 4, got {head_dim}")
        self.head_dim, self.temperature = head_dim, temperature

    def forward(self, x: Float[Tensor, "b h n d"], layout: Layout) -> Float[Tensor, "b h n d"]:
        coordinates = layout.coordinates(x.device)
        frequencies = _frequencies(self.head_dim // 4, self.temperature, x.device)
        angles = rearrange(coordinates[..., None] * frequencies, "b n side f -> b 1 n (side f)")
        prefix, patches = x[:, :, : layout.grid.num_prefix], x[:, :, layout.grid.num_prefix :]
        first, second = patches.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return torch.cat((prefix, turned.to(x.dtype)), dim=2)


RotaryFactory = Callable[[int, Grid], nn.Module]


def resize_positions(embed: Float[Tensor, "1 n c"], old: Grid, new: Grid) -> Float[Tensor, "1 m c"]:
    """Resize learned patch positions to another grid, bicubic and antialiased; the same tensor when nothing changes."""
    if (old.height, old.width) == (new.height, new.width):
        return embed
    image = rearrange(embed, "1 (y x) c -> 1 c y x", y=old.height)
    image = image.to(torch.promote_types(embed.dtype, torch.float32))
    resized = F.interpolate(image, (new.height, new.width), mode="bicubic", antialias=True, align_corners=False)
    return rearrange(resized, "1 c y x -> 1 (y x) c").to(embed.dtype)


def _sin_cos(position: Float[Tensor, "b n"], dim: int, temperature: float) -> Float[Tensor, "b n {dim}"]:
    angles = position[..., None] * _frequencies(dim // 2, temperature, position.device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def _frequencies(count: int, temperature: float, device: torch.device) -> Float[Tensor, " {count}"]:
    return temperature ** (-torch.arange(count, device=device, dtype=torch.float32) / count)
