"""Augmentation levels on albumentations (2.0.8, frozen), keyed per sample.  The only file that imports it."""

import os
import random

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else importing it asks the network for a newer release

import albumentations as A
import cv2
import numpy as np
from jaxtyping import UInt8

from vit.data.source import Level

cv2.setNumThreads(0)  # pictures are small: threads cost more than they give, and do not survive a fork

Steps = list[A.BasicTransform | A.BaseCompose]


def transforms(level: Level, img_size: tuple[int, int], channels: int, flip: bool) -> Steps:
    """The steps of a level, to print and to compose.

    Args:
        level: `none`; `light`: shifts up to an eighth of the side, and mirroring; `medium`: besides, small rotations
            and scalings, and an erased patch; `strong`: all of it larger, and one change of tone or colour.
        img_size: Height and width.
        channels: Any number; changes of colour need 3, equalising 1 or 3.
        flip: Whether a mirrored picture keeps its label.
    """
    if level == "none":
        return []
    height, width = img_size
    mirror = [A.HorizontalFlip(p=0.5)] if flip else []
    shift = [A.Pad((max(1, width // 8), max(1, height // 8)), p=1), A.RandomCrop(height, width, p=1)]
    if level == "light":
        return [*mirror, *shift]
    if level == "medium":
        warp = A.Affine(scale=(0.9, 1.1), rotate=(-15, 15), p=0.5)
        return [*mirror, warp, *shift, A.Erasing((0.02, 0.2), fill="random_uniform", p=0.25)]
    warp = A.Affine(scale=(0.8, 1.2), rotate=(-20, 20), shear=(-10, 10), p=0.8)
    tone = A.OneOf(_tones(channels), p=0.8)
    return [*mirror, warp, *shift, tone, A.Erasing((0.02, 0.33), fill="random_uniform", p=0.5)]


def _tones(channels: int) -> Steps:
    equalize = [A.Equalize(p=1)] if channels in (1, 3) else []
    any_number: Steps = [
        A.RandomBrightnessContrast(0.4, 0.4, p=1),
        A.RandomGamma((50, 200), p=1),
        A.AutoContrast(p=1),
        *equalize,
        A.Posterize((3, 6), p=1),
        A.Solarize((0.5, 1.0), p=1),
        A.Sharpen(p=1),
    ]
    colour = [A.ColorJitter(0.3, 0.3, 0.5, 0.1, p=1), A.ToGray(p=1)]
    return [*any_number, *colour] if channels == 3 else any_number


class Augment:
    """A level, made deterministic: the same picture and key give the same result, in every process and order."""

    def __init__(self, level: Level, img_size: tuple[int, int], channels: int, flip: bool) -> None:
        self.compose = A.Compose(transforms(level, img_size, channels, flip), is_check_shapes=False)

    def __call__(self, pixels: UInt8[np.ndarray, "h w c"], key: int) -> UInt8[np.ndarray, "h w c"]:
        # Not `set_random_seed(key)`: that seeds every step alike, so a picture is mirrored exactly when it is erased.
        self.compose.set_random_state(np.random.default_rng(key), random.Random(key))
        return self.compose(image=pixels)["image"]

    def both(
        self, pixels: UInt8[np.ndarray, "h w c"], mask: UInt8[np.ndarray, "h w"], key: int
    ) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"]]:
        """The same for a picture, moved along with its mask, in which what comes in from beyond the border is 0."""
        self.compose.set_random_state(np.random.default_rng(key), random.Random(key))
        result = self.compose(image=pixels, mask=mask)
        return result["image"], result["mask"]
