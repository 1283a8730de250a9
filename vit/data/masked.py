"""Batches in which the objects' places come along with the pictures."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vit.data.order import Request
from vit.data.scenes import Scenes
from vit.data.source import Batch, Batches

Pair = tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "h w"]]
PairAugmentation = Callable[[np.ndarray, np.ndarray, int], Pair]


class MaskedBatch(NamedTuple):
    """As `vit.data.source.Batch`, with the class of the object at each pixel: 0 background, 1 + label on an object."""

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    index: Int64[Tensor, " b"]  # pyright: ignore[reportIncompatibleMethodOverride]
    masks: Int64[Tensor, "b h w"]

    @property
    def plain(self) -> Batch:
        """Without the masks."""
        return Batch(self.images, self.labels, self.index)


class MaskedBatches(Dataset[MaskedBatch]):
    """Makes a whole batch from one request, as `Batches` does; a picture and its mask are augmented alike.

    Args:
        plain: The split's pictures and labels, without augmentation.
        scenes: What generated them, all of the split.
        augment: Of picture and mask, at the picture's final size; None for evaluation.

    Raises:
        ValueError: scenes whose class is none of an object, or pictures of another size than they are drawn at.
    """

    def __init__(self, plain: Batches, scenes: Scenes, augment: PairAugmentation | None = None) -> None:
        if scenes.task == "relation":
            raise ValueError(
                "the classes of scenes_relation are of two objects together: expected scenes_shape or scenes_texture"
            )
        if (size := plain.preprocessing.img_size) != scenes.size:
            height, width = scenes.size
            raise ValueError(f"masks are {height}x{width}: expected img_size {height}, got {size[0]}x{size[1]}")
        self.plain, self.scenes, self.augment = plain, scenes, augment

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, request: Request) -> MaskedBatch:
        pixels, labels = self.plain.pixels(request.samples), self.plain.source.labels[request.samples]
        inside = self.scenes.masks(request.samples)
        if self.augment is not None:
            pairs = zip(pixels, inside, request.keys.tolist(), strict=True)
            pixels, inside = (np.stack(part) for part in zip(*(self.augment(*pair) for pair in pairs), strict=True))
        masks = torch.from_numpy(inside.astype(np.int64) * (1 + labels[:, None, None]))
        images = self.plain.preprocessing.normalise(torch.from_numpy(pixels))
        return MaskedBatch(images, torch.from_numpy(labels), torch.from_numpy(request.samples), masks)
