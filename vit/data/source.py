"""From a list of pictures and labels to batches."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from vit.data.images import Preprocessing
from vit.data.order import Request

HELD_BYTES = 2**30  # sets up to this size, decoded, are kept in memory

Level = Literal["none", "light", "medium", "strong"]
Augmentation = Callable[[np.ndarray, int], np.ndarray]  # picture (h w c), key -> picture (h w c)


class Batch(NamedTuple):
    """Pictures, their labels (-1: none), and their positions in the split, which identify them."""

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    index: Int64[Tensor, " b"]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True, eq=False)
class Source:
    """One split as it came: an array (n h w c) or the files, and labels (n,)."""

    pictures: np.ndarray | Sequence[Path]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def fitted(source: Source, preprocessing: Preprocessing, samples: np.ndarray | None = None) -> Source:
    """The source with its pictures decoded to their final size, unless that takes more than `HELD_BYTES`.

    Args:
        source: One split.
        preprocessing: Decides the size.
        samples: Positions that will be asked for, None for all; the others are left undefined, and cost nothing.

    Raises:
        ValueError: a file cannot be read; the message names it.
    """
    shape = (len(source), *preprocessing.img_size, preprocessing.channels)
    if isinstance(source.pictures, np.ndarray) and source.pictures.shape == shape:
        return source
    samples = np.arange(len(source)) if samples is None else samples
    if np.prod((len(samples), *shape[1:]), dtype=np.int64) > HELD_BYTES:
        return source
    pictures = np.empty(shape, dtype=np.uint8)  # memory that is never touched is never taken
    wanted = (source.pictures[position] for position in samples.tolist())
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without holding the interpreter lock
        for position, pixels in zip(samples, pool.map(preprocessing.pixels, wanted), strict=True):
            pictures[position] = pixels
    return Source(pictures, source.labels)


class Batches(Dataset[Batch]):
    """Makes a whole batch from one request: gather, augment, normalise.

    Args:
        source: The split.
        preprocessing: Applied to every picture.
        augment: Applied in between, on the picture at its final size; None for evaluation.
    """

    def __init__(self, source: Source, preprocessing: Preprocessing, augment: Augmentation | None = None) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.augment = augment
        shape = (*preprocessing.img_size, preprocessing.channels)
        self.ready = isinstance(source.pictures, np.ndarray) and source.pictures.shape[1:] == shape

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: Request) -> Batch:
        pixels = self._pixels(request.samples)
        if self.augment is not None:
            pixels = np.stack([self.augment(x, key) for x, key in zip(pixels, request.keys.tolist(), strict=True)])
        return Batch(
            self.preprocessing.normalise(torch.from_numpy(pixels)),
            torch.from_numpy(self.source.labels[request.samples]),
            torch.from_numpy(request.samples),
        )

    def _pixels(self, samples: np.ndarray) -> np.ndarray:
        pictures = self.source.pictures
        if self.ready and isinstance(pictures, np.ndarray):
            return pictures[samples]
        return np.stack([self.preprocessing.pixels(pictures[i]) for i in samples.tolist()])
