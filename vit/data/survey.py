"""What a data set consists of and what is wrong with it: every picture is opened once, in full."""

import hashlib
import multiprocessing
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit.data.images import FORMATS, Preprocessing, Range, decode, mapped
from vit.data.listing import name_of
from vit.data.source import Source
from vit.processes import follow_parent

AHEAD, AT_ONCE = 1024, 32  # pictures decoded before the first of them is taken up, and given to a process together
MANY = 2000  # files for which processes are worth starting


class Seen(NamedTuple):
    """One picture and what opening it told.

    ``group`` is "" where the set has none, ``size`` width and height as stored, ``mode`` Pillow's or the type of an
    array, ``file`` and ``pixels`` hashes of the bytes and of the upright picture; where that could not be read,
    ``error`` says why and ``pixels`` is "".
    """

    split: str
    name: str
    label: int
    group: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    file: str = ""
    pixels: str = ""
    error: str = ""


@dataclass(frozen=True)
class Survey:
    """The pictures of a data set, in the order of splits and labels.

    Attributes:
        name: Of the set.
        classes: In the order of the labels.
        splits: Names of the splits that are there.
        seen: Every picture.
        ignored: How many files were passed over, by reason.
    """

    name: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    seen: tuple[Seen, ...]
    ignored: Mapping[str, int]

    @cached_property
    def counts(self) -> dict[str, list[int]]:
        """Pictures of each class, by split; unreadable ones are among them."""
        found = Counter((picture.split, picture.label) for picture in self.seen)
        return {split: [found[split, label] for label in range(len(self.classes))] for split in self.splits}

    @property
    def unreadable(self) -> list[Seen]:
        return [picture for picture in self.seen if picture.error]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Splits and the classes they have no picture of."""
        counts = self.counts.items()
        return [(split, name) for split, some in counts for name, n in zip(self.classes, some, strict=True) if not n]

    @cached_property
    def duplicates(self) -> list[tuple[Seen, ...]]:
        """Pictures with the same pixels, or of equal files that cannot be read, two or more together."""
        found = sorted((picture for picture in self.seen if _content(picture)), key=_content)
        groups = [tuple(group) for _, group in groupby(found, key=_content)]
        return [group for group in groups if len(group) > 1]

    @property
    def divisible(self) -> list[tuple[Seen, ...]]:
        """Duplicates within train, not within a group, where validation is held out: they may lie on both sides."""
        if "val" in self.splits:
            return []
        inside = [tuple(picture for picture in group if picture.split == "train") for group in self.duplicates]
        return [group for group in inside if len({picture.group or picture.name for picture in group}) > 1]

    @property
    def leaks(self) -> list[tuple[Seen, ...]]:
        """Duplicates that lie in several splits: what is tested was trained on."""
        return [group for group in self.duplicates if len({picture.split for picture in group}) > 1]

    @property
    def conflicts(self) -> list[tuple[Seen, ...]]:
        """Duplicates of several classes."""
        return [group for group in self.duplicates if len({picture.label for picture in group}) > 1]

    @property
    def imbalance(self) -> float:
        """Training pictures of the largest class, over those of the smallest."""
        return max(self.counts["train"]) / max(1, min(self.counts["train"]))

    def to_dict(self) -> dict[str, Any]:
        """All of it but the list of sound pictures."""
        sizes = Counter(picture.size for picture in self.seen if not picture.error)
        return {
            "name": self.name,
            "classes": list(self.classes),
            "counts": self.counts,
            "imbalance": self.imbalance,
            "sizes": [[*size, n] for size, n in sizes.most_common()],
            "modes": dict(Counter(picture.mode for picture in self.seen if not picture.error).most_common()),
            "ignored": dict(self.ignored),
            "unreadable": [{"split": p.split, "name": p.name, "error": p.error} for p in self.unreadable],
            "missing": [list(pair) for pair in self.missing],
            "duplicates": [_listed(group) for group in self.duplicates],
            "leaks": [_listed(group) for group in self.leaks],
            "divisible": [_listed(group) for group in self.divisible],
            "conflicts": [_listed(group) for group in self.conflicts],
        }


def workers(splits: Mapping[str, Source]) -> Executor:
    """One for each processor core: processes for many files, since Python's lock lets threads open small ones in turn.

    Processes are forked here, from one that should not have started threads, and end when it does.
    """
    files = sum(len(source) for source in splits.values() if isinstance(source.pictures, list))
    if files < MANY or "fork" not in multiprocessing.get_all_start_methods():
        return ThreadPoolExecutor(os.cpu_count())
    pool = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork"), initializer=_begin)
    pool.submit(os.getpid)  # the first task starts them all
    return pool


def look_at(
    splits: Mapping[str, Source],
    root: Path,
    step: Callable[[], None],
    pool: Executor,
    value_range: Range | None = None,
) -> tuple[Seen, ...]:
    """Open every picture of the splits, several at a time.

    Args:
        splits: Files or arrays by name.
        root: Folder that files are named from.
        step: Called after each picture.
        pool: The `workers` for these splits.
        value_range: See `Preprocessing`.
    """
    seen: list[Seen] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of animations: not wrong, and thousands of lines
        for jobs in _chunks(splits, root):
            look = partial(_look, value_range=value_range)
            for picture in pool.map(look, *zip(*jobs, strict=True), chunksize=AT_ONCE):
                seen.append(picture)
                step()
    return tuple(seen)


def _begin() -> None:
    """In a process of `workers`."""
    follow_parent()
    warnings.simplefilter("ignore", UserWarning)


def _chunks(splits: Mapping[str, Source], root: Path) -> Iterator[list[tuple[Seen, Path | np.ndarray]]]:
    """What is to be looked at, some at a time."""
    for split, source in splits.items():
        pictures, labels = source.pictures, source.labels.tolist()
        assert isinstance(pictures, np.ndarray | list), "what is stored is files or an array"
        groups = [""] * len(source) if source.groups is None else source.groups.tolist()
        for start in range(0, len(source), AHEAD):
            places = range(start, min(start + AHEAD, len(source)))
            names = [name_of(pictures[i], source.row(i), root) for i in places]
            yield [(Seen(split, names[i - start], labels[i], groups[i]), pictures[i]) for i in places]


def _look(seen: Seen, picture: Path | np.ndarray, value_range: Range | None) -> Seen:
    try:
        return _file(seen, picture, value_range) if isinstance(picture, Path) else _row(seen, picture, value_range)
    except (OSError, ValueError) as error:
        return seen._replace(error=" ".join(str(error).removeprefix(f"{picture}: ").split()), file=_of_bytes(picture))


def _of_bytes(picture: Path | np.ndarray) -> str:
    """Of a file's bytes where it has some and can be opened, else ""."""
    try:
        content = picture.read_bytes() if isinstance(picture, Path) else b""
    except OSError:
        return ""
    return hashlib.sha256(content).hexdigest() if content else ""


def _row(seen: Seen, picture: np.ndarray, value_range: Range | None) -> Seen:
    """One of an array of pictures, which is converted as training does."""
    channels = _channels(picture)
    given = (0.0,) * channels, (1.0,) * channels
    Preprocessing((picture.shape[0], picture.shape[1]), channels, *given, value_range).pixels(picture)
    return _array(seen, picture)


def _channels(picture: np.ndarray) -> int:
    return picture.shape[2] if picture.ndim == 3 else 1


def _array(seen: Seen, picture: np.ndarray) -> Seen:
    height, width = picture.shape[:2]
    mode = f"{picture.dtype} ({_channels(picture)} channels)"
    digest = hashlib.sha256(f"{picture.dtype} {picture.shape}".encode() + picture.tobytes()).hexdigest()
    return seen._replace(size=(width, height), mode=mode, file=digest, pixels=digest)


def _file(seen: Seen, path: Path, value_range: Range | None) -> Seen:
    content = path.read_bytes()
    if path.suffix.lower() == ".npy":
        decode(path, _channels(array := mapped(path)), value_range=value_range)
        return _array(seen, array)._replace(file=hashlib.sha256(content).hexdigest())
    (image,) = decode(path, 3, value_range=value_range)
    with Image.open(path, formats=FORMATS) as header:
        size, mode = header.size, f"{header.format} {header.mode}"
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return seen._replace(size=size, mode=mode, file=hashlib.sha256(content).hexdigest(), pixels=digest)


def _content(picture: Seen) -> str:
    return picture.pixels or picture.file


def _listed(group: tuple[Seen, ...]) -> list[str]:
    return [f"{picture.name} ({picture.split})" for picture in group]
