"""An npz file in MedMNIST's layout: `train_images`, `train_labels`, the same of val and test, and maybe `classes`."""

import zipfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from vit.data.listing import Listing, shown, with_test
from vit.data.source import Source

SPLITS = ("train", "val", "test")


def scan(root: str | Path) -> Listing:
    """Read the arrays: images (n h w) or (n h w c), whole numbers as labels (n,) or (n, 1).

    A class is named by `classes` at the place of its number, where there is such an array, and by the number elsewhere.
    Without test images, test is a fixed stratified fifth of train.

    Raises:
        ValueError: no such file, array or shape; several labels for a picture; a label that train does not have; names
            that are not those of all labels.
    """
    path = find(Path(root))
    if path is None or not path.is_file():
        raise ValueError(f"{root}: expected an npz file with train_images and train_labels, found none")
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def find(root: Path) -> Path | None:
    """The file itself, or the only npz of a folder without further folders."""
    if not root.is_dir():
        return root
    files = sorted(root.glob("*.npz"))
    return files[0] if len(files) == 1 and not any(path.is_dir() for path in root.iterdir()) else None


def shape(root: str | Path) -> tuple[int, int, int] | None:
    """Height, width and channels of the training images, from the file's head; None where there is no such file."""
    path = find(Path(root))
    try:
        with zipfile.ZipFile(str(path)) as archive, archive.open("train_images.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            (_, height, width, *channels), _, _ = read(file)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None  # `scan` says what is wrong
    return height, width, channels[0] if channels else 1


@lru_cache(maxsize=1)  # a data set is asked for its classes and each of its splits
def _read(path: Path, modified: int, size: int) -> Listing:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files if name.endswith(("_images", "_labels", "classes"))}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as npz of plain arrays: {error}") from error
    if not {"train_images", "train_labels"} <= held.keys():
        raise ValueError(f"{path}: expected train_images and train_labels, found {shown(list(held)) or 'neither'}")
    found = {split: _split(path, split, held) for split in SPLITS if f"{split}_images" in held}
    numbers = np.unique(found["train"].labels)
    if len(numbers) < 2:
        raise ValueError(f"{path}: expected at least two classes in train, found {len(numbers)}")
    splits = {}
    for split, source in found.items():
        if len(unknown := np.setdiff1d(source.labels, numbers)):
            known = shown([str(number) for number in numbers])
            raise ValueError(f"{path}: class {unknown[0]} of {split} is not a training class, expected one of {known}")
        splits[split] = Source(source.pictures, np.searchsorted(numbers, source.labels).astype(np.int64))
    return Listing(path.parent, _names(path, numbers, held.get("classes")), with_test(splits), Counter())


def _names(path: Path, numbers: np.ndarray, given: np.ndarray | None) -> tuple[str, ...]:
    if given is None:
        return tuple(str(number) for number in numbers)
    whole = given.ndim == 1 and given.dtype.kind == "U" and len(np.unique(given)) == len(given) and numbers.min() >= 0
    if not whole or numbers.max() >= len(given):
        raise ValueError(
            f"{path}: expected classes, a name of its own for each label up to {numbers.max()},"
            f" got {given.dtype} {given.shape}"
        )
    return tuple(str(name) for name in given[numbers])


def _split(path: Path, split: str, held: dict[str, np.ndarray]) -> Source:
    images, labels = held[f"{split}_images"], held.get(f"{split}_labels")
    if images.ndim not in (3, 4) or not len(images):
        raise ValueError(f"{path}: expected {split}_images (n h w) or (n h w c), got {images.shape}")
    if labels is None or labels.size != len(images) or len(labels) != len(images) or labels.dtype.kind not in "iu":
        got = "none" if labels is None else f"{labels.dtype} {labels.shape}"
        raise ValueError(f"{path}: expected {split}_labels, a whole number for each of {len(images)} images, got {got}")
    return Source(images if images.ndim == 4 else images[..., None], labels.reshape(-1))
