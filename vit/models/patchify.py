"""Images as rows of patches and back: what pretraining predicts."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vit.layers import Size, patch_grid

EPSILON = 1e-6
"""Added to a patch's variance, as in the published MAE."""


def patchify(images: Float[Tensor, "b c height width"], patch_size: Size) -> Float[Tensor, "b n p"]:
    """Patches in raster order, each as its pixels in raster order, channels last: p = height * width * c.

    Raises:
        ValueError: an image not divisible by the patch.
    """
    height, width = patch_grid(images.shape[2], images.shape[3], patch_size)
    return rearrange(images, "b c (y h) (x w) -> b (y x) (h w c)", y=height, x=width)


def unpatchify(
    patches: Float[Tensor, "b n p"], patch_size: Size, img_size: Size
) -> Float[Tensor, "b c {img_size[0]} {img_size[1]}"]:
    """The images (of height and width ``img_size``) that `patchify` took apart.

    Raises:
        ValueError: an image not divisible by the patch, or another number of patches.
    """
    (rows, columns), (height, width) = patch_grid(*img_size, patch_size), patch_size
    if patches.shape[1] != rows * columns:
        raise ValueError(f"an image of {rows}x{columns} patches has {rows * columns}, got {patches.shape[1]}")
    return rearrange(patches, "b (y x) (h w c) -> b c (y h) (x w)", y=rows, h=height, w=width)


@final
class PatchTarget:
    """What is predicted of images: their patches, standardised each on its own or as they are.

    Args:
        patch_size: (height, width).
        in_chans: channels of the images.
        normalised: less the patch's mean, over its standard deviation (He et al. 2022, MAE, section 3); None for yes,
            but where a patch has one pixel only, of which that would leave nothing.

    Raises:
        ValueError: normalised patches of one number, which are all zero.
    """

    def __init__(self, patch_size: Size, in_chans: int, normalised: bool | None) -> None:
        pixels = patch_size[0] * patch_size[1]
        self.patch_size, self.numbers = patch_size, pixels * in_chans
        self.normalised = pixels > 1 if normalised is None else normalised
        if self.normalised and self.numbers == 1:
            raise ValueError("normalised targets need patches of at least 2 numbers, got 1: set norm_target to false")

    def __call__(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n p"]:
        """In float32 or wider."""
        patches = patchify(images, self.patch_size)
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
        mean, deviation = self._scale(patches)
        return (patches - mean) / deviation

    def pixels(self, prediction: Float[Tensor, "b n p"], images: Float[Tensor, "b c height width"]) -> Tensor:
        """A prediction (b n p) in units of the images, whose true patches lend it their mean and deviation."""
        mean, deviation = self._scale(patchify(images, self.patch_size))
        return prediction * deviation + mean

    def _scale(self, patches: Float[Tensor, "b n p"]) -> tuple[Tensor | float, Tensor | float]:
        if not self.normalised:
            return 0.0, 1.0
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + EPSILON).sqrt()
