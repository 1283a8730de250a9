"""Images to patch tokens, and dropping patch tokens.

Patch embeddings are called ``(images (b c height width), sizes) -> (b n c)``; ``sizes`` (b 2) are the pixel heights and
widths of pictures that lie at the top left of a padded batch, None where nothing is padded.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import require_below_one
from vit.tokens import Layout

Size = tuple[int, int]
Sizes = Int[Tensor, "b 2"]
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


def patch_grids(images: Float[Tensor, "b c height width"], sizes: Sizes, patch_size: Size) -> Sizes:
    """Patches per column and per row of each picture of a padded batch, given their ``sizes`` in pixels.

    Raises:
        ValueError: not one size per picture, one that is not positive or beyond the batch's, or a side that is not
            divisible by the patch's.
    """
    height, width = images.shape[2:]
    if len(sizes) != len(images):
        raise ValueError(f"expected a size for each of the {len(images)} pictures, got {len(sizes)}")
    for rows, columns in sizes.tolist():
        if not (0 < rows <= height and 0 < columns <= width):
            raise ValueError(f"picture {rows}x{columns} does not lie within the batch's {height}x{width} pixels")
        patch_grid(rows, columns, patch_size)
    return sizes // torch.tensor(patch_size, device=sizes.device)


@final
class PatchEmbed(nn.Module):
    """One linear map of each patch's pixels: (b c height width) -> (b n embed_dim).  Dosovitskiy et al. 2021, eq. 1."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: Size) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

    def forward(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> Float[Tensor, "b n {self.proj.out_channels}"]:
        return rearrange(self.proj(images), "b c y x -> b (y x) c")


def resize_patches(weight: Float[Tensor, "d c y x"], patch_size: Size) -> Float[Tensor, "d c p q"]:
    """A patch projection for patches of another size: w' = (B^T)^+ w, with B the bilinear resize of one patch.

    Beyer et al. 2023 (FlexiViT), section 3.4. A larger patch gives the tokens that the smaller one gave of the picture
    before it was enlarged; a smaller one comes as near as it can. The same tensor when nothing changes.
    """
    old = tuple(weight.shape[-2:])
    if old == tuple(patch_size):
        return weight
    pixels = torch.eye(math.prod(old), dtype=torch.float64, device=weight.device)
    basis = rearrange(pixels, "n (y x) -> n 1 y x", y=old[0])
    resize = rearrange(F.interpolate(basis, patch_size, mode="bilinear"), "n 1 y x -> n (y x)")  # B^T
    flat = rearrange(weight.double(), "d c y x -> d c (y x)")
    resized = torch.einsum("dcn,mn->dcm", flat, torch.linalg.pinv(resize))
    return rearrange(resized, "d c (y x) -> d c y x", y=patch_size[0]).to(weight.dtype)


def adapt_channels(weight: Float[Tensor, "d c y x"], in_chans: int) -> Float[Tensor, "d k y x"]:
    """A first convolution for images of another channel count, as timm does: the sum for grey, else repeated in order.

    Scaled by old / new, so that a grey picture in all channels keeps its activations where one count divides the other.
    """
    old = weight.shape[1]
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)
    if old == in_chans:
        return weight
    return weight.repeat(1, math.ceil(in_chans / old), 1, 1)[:, :in_chans] * (old / in_chans)


@final
class ConvStem(nn.Module):
    """Strided 3x3 convolutions down to the patch grid instead of one big stride.  Xiao et al. 2021.

    Channels double up to ``embed_dim`` while the sides halve; each convolution is followed by BatchNorm and ReLU, and a
    1x1 convolution ends the stem. Looks beyond its patch, so masked pretraining refuses it or masks pixels first.
    A padded picture gets the values it has alone: padding is zeroed before each convolution, as what lies beyond the
    border is, and does not count in the BatchNorms' statistics.

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

    def forward(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> Float[Tensor, "b n {self.proj.out_channels}"]:
        x = self.convolutions(images) if sizes is None else self._within(images, sizes)
        return rearrange(self.proj(x), "b c y x -> b (y x) c")

    def _within(self, images: Float[Tensor, "b c height width"], sizes: Sizes) -> Float[Tensor, "b d y x"]:
        full = torch.tensor(images.shape[2:], device=sizes.device)
        x = images.masked_fill(~_inside(images, sizes), 0.0)
        for convolution, norm, act in zip(*(self.convolutions[start::3] for start in range(3)), strict=True):
            x = convolution(x)
            inside = _inside(x, sizes * torch.tensor(x.shape[2:], device=sizes.device) // full)[:, 0]
            pixels = rearrange(x, "b c y x -> b y x c")
            normed = rearrange(act(norm(rearrange(pixels[inside], "n c -> 1 c n 1"))), "1 c n 1 -> n c")
            pixels = torch.zeros_like(pixels, dtype=normed.dtype).masked_scatter(inside[..., None], normed)
            x = rearrange(pixels, "b y x c -> b c y x")
        return x


def _inside(images: Float[Tensor, "b c height width"], sizes: Sizes) -> Bool[Tensor, "b 1 height width"]:
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    return ((rows[:, None] < sizes[:, :1, None]) & (columns < sizes[:, 1:, None]))[:, None]


@final
class PatchDropout(nn.Module):
    """Keep a random subset of each image's patch tokens in training; prefix tokens stay.  Liu et al. 2022.

    Of a padded image the share is that of its own patches; what else its row keeps is padding.

    Args:
        rate: share of patches dropped, in [0, 1); at least one is kept.

    Raises:
        ValueError: ``rate`` outside [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = require_below_one(rate, "patch_drop")

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> tuple[Float[Tensor, "b m c"], Layout]:
        if not self.training or self.rate == 0.0:
            return tokens, layout
        draws = torch.rand(len(tokens), tokens.shape[1] - layout.grid.num_prefix, device=tokens.device)
        chosen, layout, _ = keep_best(tokens, layout, -draws, 1 - self.rate)
        return chosen, layout


def keep_best(
    tokens: Float[Tensor, "b n c"], layout: Layout, scores: Float[Tensor, "b p"], share: float
) -> tuple[Float[Tensor, "b m c"], Layout, Int[Tensor, "b k"]]:
    """The ``share`` of each image's patch tokens that score highest, at least one, in raster order; and the prefix.

    Of a padded image the share is that of its own patches; what else its row keeps is padding. The index counts among
    the present patches, as in `Layout.keep`.
    """
    kept, keys = [max(1, round(patches * share)) for patches in range(scores.shape[1] + 1)], layout.patch_keys
    if keys is not None:
        scores = scores.masked_fill(~keys, -torch.inf)
    index, rank = scores.topk(kept[-1], dim=1).indices.sort(dim=1)
    chosen, layout = keep_patches(tokens, layout, index)
    if keys is not None:
        own = torch.tensor(kept, device=keys.device)[keys.sum(dim=1, keepdim=True)]
        layout = _without_keys(layout, rank >= own)
    return chosen, layout, index


def keep_patches(
    tokens: Float[Tensor, "b n c"], layout: Layout, index: Int[Tensor, "b k"]
) -> tuple[Float[Tensor, "b m c"], Layout]:
    """The prefix tokens and the patch tokens at ``index``, counted among the present patches, with their layout."""
    prefix, patches = tokens[:, : layout.grid.num_prefix], tokens[:, layout.grid.num_prefix :]
    chosen = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
    return torch.cat((prefix, chosen), dim=1), layout.keep(index)


def _without_keys(layout: Layout, dropped: Bool[Tensor, "b n"]) -> Layout:
    """The layout with further patch tokens that are padding."""
    assert layout.mask is not None and layout.keys is not None
    front = layout.grid.num_prefix
    keys = torch.cat((layout.keys[:, :front], layout.keys[:, front:] & ~dropped), dim=1)
    return replace(layout, mask=replace(layout.mask, keys=keys))
