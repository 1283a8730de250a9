"""The data sets: what is known of each without reading it, and how its pictures are reached."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from vit.data import arrays, folder, known, table
from vit.data.images import Preprocessing, Range
from vit.data.known import ENTRIES, SCENES, TORCHVISION
from vit.data.listing import Listing, name_of, united
from vit.data.merging import Merge, merged
from vit.data.prints import Prints, contents
from vit.data.scenes import VERSION, Scenes
from vit.data.source import Source
from vit.names import did_you_mean

Size = tuple[int, int]
Split = Literal["train", "val", "test"]
DOWNLOADS = "data"  # where torchvision's sets go and are looked for unless a root is given
STREAMS: dict[Split, tuple[int, int]] = {"train": (1, 1_000_000), "val": (2, 5_000), "test": (3, 10_000)}  # seed, count
LAYOUTS = {"folder": folder.scan, "csv": table.scan, "npz": arrays.scan, folder.UNLABELLED: folder.unlabelled}
FILES = ("csv", "npz")  # layouts of a single file
RECOGNISED = ("folder", *FILES)  # by what lies at the root; pictures alone have to be named


@dataclass(frozen=True)
class Description:
    """What a net has to know of a data set: its classes in the order of the labels, channels, and picture size."""

    name: str
    classes: tuple[str, ...]
    channels: int
    img_size: Size


class Identity(NamedTuple):
    """What identifies a set wherever it lies, and each of its pictures.

    Attributes:
        manifest_hash: SHA-256 of its classes, how they are merged, and, split by split, labels, groups and pictures. Of
            a file its path below the root and its `contents`. Of generated pictures the first 256 stand for all, which
            the generator's version and the seeds decide.
        prints: Of the pictures of each split, in their order; none of generated ones.
    """

    manifest_hash: str
    prints: Mapping[str, Prints]


def resolve(dataset: str | None, root: str | None) -> str:
    """The name of a set in `ENTRIES`: as given, or by what lies at its place.

    Raises:
        ValueError: unknown name, a layout without its place, a place for what is not read from one, or one that holds
            several sets.
    """
    name = dataset or (_recognise(Path(root)) if root else "digits")
    if name not in ENTRIES:
        hint = did_you_mean(name, ENTRIES, cutoff=0.5)
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(ENTRIES)}{hint}")
    if name in LAYOUTS and not root:
        raise ValueError(f"data set {name!r} needs its place: --data.root {'FILE' if name in FILES else 'FOLDER'}")
    if name in ("digits", *SCENES) and root:
        raise ValueError(f"data set {name!r} is read from no folder, got root {root}: leave one of the two out")
    return name


def _recognise(root: Path) -> str:
    """A table of pictures comes before the folders it may list, and what is not there is called a folder."""
    if (suffix := root.suffix.lower().lstrip(".")) in FILES:
        return suffix
    if not root.is_dir():
        return "folder"
    if table.find(root) is not None:
        return "csv"
    there = [name for name in TORCHVISION if (root / ENTRIES[name].files).is_dir()]
    if len(there) > 1:
        raise ValueError(f"{root} holds {' and '.join(there)}: --data.dataset names one")
    return there[0] if there else "folder" if arrays.find(root) is None else "npz"


def preprocessing(
    dataset: str | None,
    root: str | None,
    img_size: int | Size | None = None,
    channels: int | None = None,
    value_range: Range | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """How pictures of a set are prepared; reads nothing, so it also works where the set no longer is.

    `img_size` None is the set's own size, 64 for files; `channels` None the set's own number, 3 for files; `mean` and
    `std` None the set's own, ImageNet's for files. Of another number of channels each is like their average.

    Raises:
        ValueError: unknown set, a place that is missing or too much, or what `Preprocessing` refuses.
    """
    name = resolve(dataset, root)
    entry = ENTRIES[name]
    height, width, own = (entry.side, entry.side, len(entry.mean))
    if name == "npz":
        height, width, own = arrays.shape(str(root)) or (height, width, own)
    side = (height, width) if img_size is None else img_size
    channels = own if channels is None else channels
    if std is not None and not (std and all(0 < value < math.inf for value in std)):
        raise ValueError(f"std must be above 0 in each channel, got {list(std)}")
    if mean is not None and not (mean and all(map(math.isfinite, mean))):
        raise ValueError(f"mean must be a finite number for each channel, got {list(mean)}")
    mean, std = each_channel(entry.mean if mean is None else mean, channels), each_channel(std or entry.std, channels)
    size = (side, side) if isinstance(side, int) else (side[0], side[1])
    return Preprocessing(size, channels, mean, std, None if value_range is None else (value_range[0], value_range[1]))


def each_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for each channel: of grey made RGB, RGB made grey, or other bands each is like the average."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def describe(
    dataset: str | None,
    root: str | None,
    img_size: int | Size | None = None,
    channels: int | None = None,
    merge_classes: Merge | None = None,
) -> Description:
    """Describe a set from its name or a listing of its folder: no picture is read, nothing is downloaded.

    Arguments are those of `Images`.

    Raises:
        ValueError: unknown set, a folder that `scan` refuses, or classes that are not all merged.
    """
    name = resolve(dataset, root)
    prepared = preprocessing(dataset, root, img_size, channels)
    label, classes = name, tuple(ENTRIES[name].classes.split(","))
    if name in LAYOUTS:
        place = Path(str(root)).resolve()
        label, classes = place.stem if place.is_file() else place.name, _listing(name, root).classes
    if merge_classes is not None:
        label, (classes, _) = f"{label}-coarse", merged(classes, merge_classes)
    return Description(label, classes, prepared.channels, prepared.img_size)


def load(dataset: str | None, root: str | None, split: Split) -> Source | None:
    """One split as it came; None for a validation split, where the set has none of its own.

    Raises:
        ValueError: the set is not where it should be and cannot be downloaded, or `scan` refuses the folder.
    """
    name = resolve(dataset, root)
    if name in LAYOUTS:
        return _listing(name, root).splits.get(split)
    if name in SCENES:
        drawn = scenes(name, root, split)
        return Source(drawn, drawn.labels)
    if split == "val":
        return None
    return known.digits(split) if name == "digits" else known.torchvision(name, Path(root or DOWNLOADS), split)


def whole(dataset: str | None, root: str | None) -> Source:
    """All pictures of a set whose test split was only drawn: those that would be trained on, then the drawn ones.

    Raises:
        ValueError: the set has splits of its own.
    """
    parts = {split: source for split in get_args(Split) if (source := load(dataset, root, split)) is not None}
    if parts.keys() != {"train", "test"} or not parts["test"].drawn:
        raise ValueError(f"{root} has splits of its own: expected a set without, to take all of it")
    return united(parts["train"], parts["test"])


def scenes(dataset: str | None, root: str | None, split: Split) -> Scenes:
    """What generates a split.

    Raises:
        ValueError: a set that is not generated.
    """
    name = resolve(dataset, root)
    if name not in SCENES:
        raise ValueError(f"masks of objects come with scenes_texture and scenes_shape only, got {name}")
    return Scenes(SCENES[name], *STREAMS[split])


def ignored(dataset: str | None, root: str | None) -> dict[str, int]:
    """How many files at the set's place are no pictures of it, by reason."""
    name = resolve(dataset, root)
    return dict(_listing(name, root).ignored) if name in LAYOUTS else {}


def manifest(dataset: str | None, root: str | None, merge_classes: Merge | None = None) -> str:
    """SHA-256 of a set, see `Identity`."""
    return identify(dataset, root, merge_classes).manifest_hash


def identify(dataset: str | None, root: str | None, merge_classes: Merge | None = None) -> Identity:
    """What identifies a set as it came, and with it which classes are merged if any are."""
    found = _identify(dataset, root)
    if merge_classes is None:
        return found
    own, coarse = describe(dataset, root).classes, describe(dataset, root, merge_classes=merge_classes).classes
    groups = [[name, [one for one in own if one in merge_classes[name]]] for name in coarse]
    both = f"{found.manifest_hash} {json.dumps(groups)}"
    return found._replace(manifest_hash=hashlib.sha256(both.encode()).hexdigest())


def _identify(dataset: str | None, root: str | None) -> Identity:
    name = resolve(dataset, root)
    digest = hashlib.sha256(os.fsencode("\n".join(describe(dataset, root).classes)))
    if name in SCENES:
        some = Scenes(SCENES[name], STREAMS["train"][0], 256)
        digest.update(f"{some.task} {VERSION} {STREAMS}".encode())
        digest.update(some.labels.tobytes())
        digest.update(some.pictures(range(256)).tobytes())
        return Identity(digest.hexdigest(), {})
    listing, prints = _listing(name, root) if name in LAYOUTS else None, dict[str, Prints]()
    for split in get_args(Split):
        source = load(dataset, root, split) if listing is None else listing.splits.get(split)
        if source is None:
            continue
        there = source.pictures
        digest.update(f"\n{split} {len(source)}".encode())
        digest.update(source.labels.tobytes())
        if source.groups is not None:
            digest.update("\n".join(source.groups.tolist()).encode())
        if isinstance(there, np.ndarray):
            digest.update(f"{there.dtype} {there.shape}".encode())
            digest.update(np.ascontiguousarray(there).data)
            prints[split] = Prints.of_arrays(there)
            continue
        assert isinstance(there, list) and listing is not None, "files are listed"
        found = contents(there)
        for path, content in zip(there, found, strict=True):
            digest.update(os.fsencode(f"\n{name_of(path, 0, listing.root)} ") + content)  # not always text
        prints[split] = Prints.of_files(found)
    return Identity(digest.hexdigest(), prints)


def _listing(name: str, root: str | None) -> Listing:
    return LAYOUTS[name](str(root))
