"""The published sizes, and small ones for small images. configs/model/ spells them out in YAML."""

from functools import partial
from typing import NamedTuple

from vit.layers import Block, SelfAttention, Size
from vit.models.backbone import Backbone
from vit.models.vit import ViT


class Variant(NamedTuple):
    """Width, depth and heads; the MLP is 4 times as wide."""

    embed_dim: int
    depth: int
    num_heads: int
    source: str


VARIANTS = {
    "pico": Variant(48, 4, 2, "ours, for studies on a CPU"),
    "nano": Variant(96, 6, 3, "ours, for 8x8 to 32x32 images on a CPU"),
    "lite": Variant(256, 7, 4, "ViT-Lite-7, Hassani et al. 2021, table 1"),
    "tiny": Variant(192, 12, 3, "Touvron et al. 2021, table 1"),
    "small": Variant(384, 12, 6, "Touvron et al. 2021, table 1"),
    "base": Variant(768, 12, 12, "Dosovitskiy et al. 2021, table 1"),
    "large": Variant(1024, 24, 16, "Dosovitskiy et al. 2021, table 1"),
}


def plain_vit(
    variant: str, img_size: int | Size, in_chans: int, num_classes: int, patch_size: int | None = None
) -> ViT:
    """A plain ViT of a named size with class token and learned positions.

    Raises:
        ValueError: unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    embed_dim, depth, num_heads, _ = VARIANTS[variant]
    block = partial(Block, mixer=partial(SelfAttention, num_heads=num_heads))
    backbone = partial(Backbone, patch_size=patch_size, embed_dim=embed_dim, depth=depth, block=block)
    return ViT(img_size, in_chans, num_classes, backbone)
