"""What is trained on, validated on and tested on: positions in the splits of a data set, and their pictures."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from vit.data import catalog
from vit.data.images import Preprocessing
from vit.data.listing import name_of, shown
from vit.data.merging import Merge, relabelled
from vit.data.source import Part, Source, fitted, readable
from vit.data.subset import carve, first, listed, nested


@dataclass(frozen=True, eq=False)
class Splits:
    """The parts of a data set, read when they are first asked for.

    The set's own classes decide what is held out and what a subset holds: the same pictures whatever is merged.

    Attributes:
        dataset: Its name, None for what lies at the root.
        root: Its place, None for one that needs none.
        preprocessing: Of all pictures.
        seed: Of the validation split and the subset.
        val_fraction: Share of train held out where the set has no validation pictures of its own.
        train_size: How many pictures to train on, or which share of those there are; None takes all.
        subset: File that lists the pictures to train on, as a study writes it; None orders them by the seed.
        bad_images: Whether a picture that cannot be read is an error or left out; in test it is an error.
        held_bytes: Splits up to this size, decoded, are kept in memory.
        merge_classes: The set's own classes under each coarser one; None leaves them.
        whole: Whether all pictures are tested, of a set whose test split would be drawn.
        skipped: What was wrong with each picture left out so far, which is named from the data's place.
    """

    dataset: str | None
    root: str | None
    preprocessing: Preprocessing
    seed: int
    val_fraction: float
    train_size: int | float | None
    subset: str | None
    bad_images: Literal["fail", "skip"]
    held_bytes: int
    merge_classes: Merge | None = None
    whole: bool = False
    skipped: list[str] = field(default_factory=list)

    @cached_property
    def description(self) -> catalog.Description:
        return catalog.describe(self.dataset, self.root, self.preprocessing.img_size, self.preprocessing.channels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The set's own."""
        return self.description.classes

    def names(self, samples: Iterable[int], split: Literal["train", "test"] = "train") -> list[str]:
        """What reports call some pictures of a split: paths below the data's place, or ``NAME #POSITION``."""
        source = self._carved[0] if split == "train" else self._tested
        told = "" if split == "train" or self.whole else f" {split}"
        return [self._name(source, place, told) for place in samples]

    @cached_property
    def nested_order(self) -> np.ndarray:
        """All positions that could be trained on, in an order whose first n are the subset of `train_size` n.

        Raises:
            ValueError: `subset` lists pictures of other data, or some that are held out.
        """
        source, kept, held = self._carved
        if self.subset is None:
            return kept[nested(source.labels[kept], self.seed)]
        order, seed = listed(
            Path(self.subset), catalog.manifest(self.dataset, self.root, self.merge_classes), len(source)
        )
        if common := len(np.intersect1d(order, held)):
            raise ValueError(
                f"{self.subset} lists {common} pictures that are held out for validation by seed {self.seed} and "
                f"val_fraction {self.val_fraction}: it was made with --seed_everything {seed}"
            )
        return order

    @cached_property
    def fit(self) -> tuple[Part, Part]:
        """Train and validation.

        Raises:
            ValueError: nothing to validate on, no such subset, or pictures that cannot be read.
        """
        source, kept, held = self._carved
        if self.train_size is not None or self.subset is not None:
            size = len(self.nested_order) if self.train_size is None else self.train_size
            kept = first(self.nested_order, size, len(np.unique(source.labels[kept])))
        wanted = source.labels[kept]
        kept, held = self._readable(source, kept), self._readable(source, held)
        if len(lost := np.setdiff1d(wanted, source.labels[kept])):
            raise ValueError(f"no training picture of {self.classes[lost[0]]!r} can be read: {self.skipped[0]}")
        source = self._merged(fitted(source, self.preprocessing, np.concatenate((kept, held)), self.held_bytes))
        own = catalog.load(self.dataset, self.root, "val")
        if own is not None:
            held = self._readable(own, np.arange(len(own)), " val")
        if not len(held):
            raise ValueError(f"no validation picture can be read: {self.skipped[-1]}")
        if own is None:
            return Part(source, kept), Part(source, held)
        own = self._merged(fitted(own, self.preprocessing, held, self.held_bytes))
        return Part(source, kept), Part(own, held)

    @cached_property
    def test(self) -> Part:
        return Part.whole(self._merged(fitted(self._tested, self.preprocessing, held_bytes=self.held_bytes)))

    @cached_property
    def _tested(self) -> Source:
        return catalog.whole(self.dataset, self.root) if self.whole else self._load("test")

    @cached_property
    def _carved(self) -> tuple[Source, np.ndarray, np.ndarray]:
        """Train as it came, the positions to train on, and those held out: none where validation pictures came too."""
        source = self._load("train")
        if catalog.load(self.dataset, self.root, "val") is not None:
            return source, np.arange(len(source)), np.arange(0)
        kept, held = carve(source.labels, self.val_fraction, self.seed, source.groups)
        if not len(held):
            reason = "no class has two pictures to train on"
            if source.groups is not None:
                reason = "no group can be held out and leave every class one to train on; give rows of val"
            raise ValueError(f"nothing to validate on: {reason} (classes: {shown(self.classes)})")
        return source, kept, held

    def _readable(self, source: Source, samples: np.ndarray, split: str = "") -> np.ndarray:
        """Those that can be read, where others are skipped; no other picture takes their place."""
        if self.bad_images == "fail":
            return samples
        left, problems = readable(source, self.preprocessing, samples)
        for place, problem in problems.items():
            warnings.warn(f"left out: {problem}", stacklevel=2)
            reason = problem.removeprefix(f"{source.pictures[place]}: ")  # pyright: ignore
            self.skipped.append(f"{self._name(source, place, split)}: {reason}")
        return left

    def _name(self, source: Source, place: int, split: str = "") -> str:
        pictures = source.pictures
        if not isinstance(pictures, list):
            return f"{self.description.name}{split} #{source.row(place)}"
        root = Path(str(self.root))
        return name_of(pictures[place], place, root if root.is_dir() else root.parent)

    def _merged(self, source: Source) -> Source:
        return relabelled(source, self.classes, self.merge_classes)

    def _load(self, split: catalog.Split) -> Source:
        source = catalog.load(self.dataset, self.root, split)
        if source is None:
            raise ValueError(f"{self.root}: pictures without labels have no {split} split, name labelled ones")
        return source
