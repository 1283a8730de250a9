"""From a list of pictures and labels to batches."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from vit.data.ahead import ahead
from vit.data.images import Preprocessing
from vit.data.order import Request
from vit.data.scenes import Scenes

HELD_BYTES = 10**9  # splits up to this size, decoded, are kept in memory
GENERATED = 1024  # pictures drawn at a time

Level = Literal["none", "light", "medium", "strong"]
Augmentation = Callable[[np.ndarray, int], np.ndarray]  # picture (h w c), key -> picture (h w c)


class Batch(NamedTuple):
    """Pictures, their labels (-1: none), and their positions in the split, which identify them."""

    images: Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    index: Int64[Tensor, " b"]  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True, eq=False)
class Some:
    """Pictures (k h w c) at some ascending positions (k,) of a split; only of these any can be asked for."""

    pictures: np.ndarray
    positions: np.ndarray

    def __getitem__(self, samples: np.ndarray) -> np.ndarray:
        """Raises IndexError for a position that is not among them."""
        found = np.searchsorted(self.positions, samples)
        missing = self.positions[np.minimum(found, len(self.positions) - 1)] != samples
        if missing.any():
            raise IndexError(f"picture {samples[missing][0]} is not among the {len(self.positions)} that are kept")
        return self.pictures[found]


@dataclass(frozen=True, eq=False)
class Source:
    """One split: an array (n h w c), the files, what generates them, or some that are kept; and labels (n,).

    Pictures of one group, the patient for instance, never lie on both sides of a split. ``drawn`` is a test split that
    did not come as one; ``rows`` (n,) are where pictures of it, or of what is left, lay in the array that came.
    """

    pictures: np.ndarray | Sequence[Path] | Scenes | Some
    labels: np.ndarray
    groups: np.ndarray | None = None
    drawn: bool = False
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, place: int) -> int:
        """Where the picture at a place lay in the array that came, by which its user knows it."""
        return place if self.rows is None else int(self.rows[place])


class Part(NamedTuple):
    """Some samples of a split: their positions in its source."""

    source: Source
    samples: np.ndarray

    @classmethod
    def whole(cls, source: Source) -> "Part":
        return cls(source, np.arange(len(source)))


def fitted(
    source: Source, preprocessing: Preprocessing, samples: np.ndarray | None = None, held_bytes: int = HELD_BYTES
) -> Source:
    """The source with its pictures decoded to their final size, unless that takes more than `held_bytes`.

    Args:
        source: One split.
        preprocessing: Decides the size.
        samples: Positions that will be asked for, None for all.
        held_bytes: The most memory to take.

    Raises:
        ValueError: a file cannot be read; the message names it.
    """
    whole, shape = source.pictures, (*preprocessing.img_size, preprocessing.channels)
    if _is_ready(whole, preprocessing):
        return source
    assert not isinstance(whole, Some), "these are ready"
    positions = np.arange(len(source)) if samples is None else np.unique(samples)
    if np.prod((len(positions), *shape), dtype=np.int64) > held_bytes:
        return source
    pictures = np.empty((len(positions), *shape), dtype=np.uint8)
    if isinstance(whole, Scenes):
        for start in range(0, len(positions), GENERATED):
            place = slice(start, start + GENERATED)
            pictures[place] = _generated(whole, positions[place], preprocessing)
    else:  # Pillow decodes and resizes without holding the interpreter lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = ahead(pool, lambda position: preprocessing.pixels(whole[position]), positions.tolist())
            for row, pixels in enumerate(decoded):
                pictures[row] = pixels
    return replace(source, pictures=pictures if len(positions) == len(source) else Some(pictures, positions))


def readable(source: Source, preprocessing: Preprocessing, samples: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Of ``samples`` those that can be read, and by position what is wrong with the others; each is decoded once.

    A terminal shows how far it is.
    """
    whole = source.pictures
    if isinstance(whole, Scenes | Some) or _is_ready(whole, preprocessing):
        return samples, {}

    def problem(position: int) -> str:
        try:
            preprocessing.pixels(whole[position])
        except ValueError as error:
            return str(error)
        return ""

    console = Console(file=sys.stderr)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = ahead(pool, problem, samples.tolist())
        unseen = not console.is_terminal
        found = track(found, "reading pictures", len(samples), console=console, transient=True, disable=unseen)
        problems = list(found)
    bad = {place: reason for place, reason in zip(samples.tolist(), problems, strict=True) if reason}
    return samples[[not reason for reason in problems]], bad


def _is_ready(pictures: object, preprocessing: Preprocessing) -> bool:
    """Whether they are held as they go into a batch."""
    shape = (*preprocessing.img_size, preprocessing.channels)
    if isinstance(pictures, np.ndarray):
        return pictures.dtype == np.uint8 and pictures.shape[1:] == shape
    return isinstance(pictures, Some)


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
        self.ready = _is_ready(source.pictures, preprocessing)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: Request) -> Batch:
        pixels = self.pixels(request.samples)
        if self.augment is not None:
            pixels = np.stack([self.augment(x, key) for x, key in zip(pixels, request.keys.tolist(), strict=True)])
        return Batch(
            self.preprocessing.normalise(torch.from_numpy(pixels)),
            torch.from_numpy(self.source.labels[request.samples]),
            torch.from_numpy(request.samples),
        )

    def pixels(self, samples: np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        """Pictures by their positions in the source, at their final size and without augmentation."""
        pictures = self.source.pictures
        if self.ready and isinstance(pictures, np.ndarray | Some):
            return pictures[samples]
        if isinstance(pictures, Scenes):
            return _generated(pictures, samples, self.preprocessing)
        assert not isinstance(pictures, Some)
        return np.stack([self.preprocessing.pixels(pictures[i]) for i in samples.tolist()])


def _generated(scenes: Scenes, samples: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Pictures (n h w c) at their final size, drawn together."""
    pictures = scenes.pictures(samples)
    if pictures.shape[1:] == (*preprocessing.img_size, preprocessing.channels):
        return pictures
    return np.stack([preprocessing.pixels(picture) for picture in pictures])
