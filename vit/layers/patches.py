"""Images to patch tokens, and dropping patch tokens."""

import math
from collections.abc import Callable
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vit.tokens import Layout

Size = tuple[int, int]
PatchEmbedFactory = Callable[[int, int, Size], nn.Module]


def pair(size: int | Size) -> Size:
    """(height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def default_patch_size(img_size: Size) -> Size:
    """The square patch dividing both sides whose side is nearest to an eighth of the shorter one, at most 16.

    8x8 images get patch 1, 28x28 and 32x32 get 4, 64x64 get 8, 224x224 get 16.
    """
    wanted = min(min(img_size) / 8, 16)
    common = math.gcd(*img_size)
    best = min((p for p in range(1, common + 1) if common % p == 0), key=lambda p: (abs(p - wanted), -p))
    return best, best


def patch_grid(height: int, width: int, patch_size: Size) -> Size:
    """Patches per column and per row.

    Raises:
        ValueError: a side is not divisible by the patch's, or the patch's is not positive.
    """
    if min(patch_size) < 1:
        raise ValueError(f"patch sides must be at least 1, got {patch_size[0]}x{patch_size[1]}")
    if height % patch_size[0] or width % patch_size[1]:
        raise ValueError(f"image {height}x{width} is not divisible by patch size {patch_size[0]}x{patch_size[1]}")
    return height // patch_size[0], width // patch_size[1]


@final
class PatchEmbed(nn.Module):
    """One linear map of each patch's pixels: (b c height width) -> (b n embed_dim).  Dosovitskiy et al. 2021, eq. 1."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: Size) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

    def forward(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n {self.proj.out_channels}"]:
        return rearrange(self.proj(images), "b c y x -> b (y x) c")


@final
class ConvStem(nn.Module):
    """Strided 3x3 convolutions down to the patch grid instead of one big stride.  Xiao et al. 2021.

    Channels double up to ``embed_dim`` while the sides halve; each convolution is followed by BatchNorm and ReLU, and a
    1x1 convolution ends the stem. Looks beyond its patch, so masked pretraining refuses it or masks pixels first.

    Raises:
        ValueError: a patch side is not a power of two.
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: Size) -> None:
        super().__init__()
        if any(side < 1 or side & (side - 1) for side in patch_size):
            raise ValueError(f"a conv stem halves the sides: patch sides must be powers of two, got {patch_size}")
        halvings = [side.bit_length() - 1 for side in patch_size]
        steps = max(*halvings, 1)
        widths = [max(embed_dim // 2 ** (steps - 1 - step), 8) for step in range(steps)]
        stages = []
        for step, (width_in, width_out) in enumerate(zip([in_chans, *widths], widths, strict=False)):
            stride = (2 if step < halvings[0] else 1, 2 if step < halvings[1] else 1)
            convolution = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
            stages += [convolution, nn.BatchNorm2d(width_out), nn.ReLU()]
        self.convolutions = nn.Sequential(*stages)
        self.proj = nn.Conv2d(widths[-1], embed_dim, 1)

    def forward(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n {self.proj.out_channels}"]:
        return rearrange(self.proj(self.convolutions(images)), "b c y x -> b (y x) c")


@final
class PatchDropout(nn.Module):
    """Keep a random subset of each image's patch tokens in training; prefix tokens stay.  Liu et al. 2022.

    Args:
        rate: share of patches dropped, in [0, 1); at least one is kept.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"patch_drop must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> tuple[Float[Tensor, "b m c"], Layout]:
        if not self.training or self.rate == 0.0:
            return tokens, layout
        prefix, patches = tokens[:, : layout.grid.num_prefix], tokens[:, layout.grid.num_prefix :]
        kept = max(1, round(patches.shape[1] * (1 - self.rate)))
        index = torch.rand(patches.shape[:2], device=tokens.device).argsort(dim=1)[:, :kept].sort(dim=1).values
        chosen = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
        return torch.cat((prefix, chosen), dim=1), layout.keep(index)
