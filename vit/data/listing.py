"""What lies at a place the user names: classes and splits, whatever the layout."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vit.data.source import Source
from vit.data.subset import carve

TEST_FRACTION, TEST_SEED = 0.2, 0  # fixed, so that no run ever trains on what another one tests on


@dataclass(frozen=True, eq=False)
class Listing:
    """Pictures found, none of them opened.

    Attributes:
        root: Folder that files are named from.
        classes: Names in train in natural order ("9" before "10"); a label is a position in it.
        splits: Train, test and, where it came with one, val.
        ignored: How many entries were passed over, by reason: hidden, folder, not a picture.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Source]
    ignored: Counter[str]


def with_test(splits: Mapping[str, Source]) -> dict[str, Source]:
    """The splits, with a fixed stratified fifth of train as test where none came; whole groups where there are some."""
    if "test" in splits:
        return dict(splits)
    train = splits["train"]
    parts = carve(train.labels, TEST_FRACTION, TEST_SEED, train.groups)
    kept, held = (part(train, positions) for positions in parts)
    return {**splits, "train": kept, "test": replace(held, drawn=True)}


def part(source: Source, positions: np.ndarray) -> Source:
    """A source of some of another one's files or rows."""
    pictures = source.pictures
    assert isinstance(pictures, np.ndarray | list), "what is listed is files or an array"
    some = pictures[positions] if isinstance(pictures, np.ndarray) else [pictures[i] for i in positions.tolist()]
    groups = None if source.groups is None else source.groups[positions]
    rows = positions if source.rows is None else source.rows[positions]
    return replace(source, pictures=some, labels=source.labels[positions], groups=groups, rows=rows)


def united(one: Source, other: Source) -> Source:
    """Two parts of a set in one."""
    if isinstance(one.pictures, list) and isinstance(other.pictures, list):
        pictures = [*one.pictures, *other.pictures]
    else:
        assert isinstance(one.pictures, np.ndarray) and isinstance(other.pictures, np.ndarray), "of one kind"
        pictures = np.concatenate((one.pictures, other.pictures))
    groups = None if one.groups is None or other.groups is None else np.concatenate((one.groups, other.groups))
    rows = None if one.rows is None or other.rows is None else np.concatenate((one.rows, other.rows))
    return Source(pictures, np.concatenate((one.labels, other.labels)), groups, rows=rows)


def name_of(picture: Path | np.ndarray, place: int, below: Path) -> str:
    """What reports call a picture: a file's path below a folder, the place of an array."""
    return f"#{place}" if isinstance(picture, np.ndarray) else Path(os.path.relpath(picture, below)).as_posix()


def natural(name: str) -> tuple[list[int | str], str]:
    """Sort key under which 9 comes before 10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def shown(names: Sequence[str], most: int = 12) -> str:
    """Names for a message that stays one line."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
