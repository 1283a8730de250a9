"""A folder of class folders, `root/class/*.png` or `root/{train,val,test}/class/*.png`; or of pictures alone."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

import numpy as np

from vit.data.images import SUFFIXES
from vit.data.listing import Listing, natural, shown, with_test
from vit.data.source import Source

Files = list[tuple[Path, str]]  # picture, class name
UNLABELLED = "unlabelled"
HINT = f"without labels, pretraining takes -c data/{UNLABELLED}"


def scan(root: str | Path) -> Listing:
    """List a data folder; no picture is opened.

    Classes are those of train; val and test are matched to them by name.  Without a folder of its own, test is a fixed
    stratified fifth of train.

    Raises:
        ValueError: no such folder, no or only one class, a class without a picture, a class that train does not have.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(
            f"{root}: expected a folder of class folders, found {'a file' if root.exists() else 'nothing'}"
        )
    ignored: Counter[str] = Counter()
    parts = {name: root / name for name in ("train", "val", "test") if _has_folders(root / name)}
    if parts and "train" not in parts:
        raise ValueError(f"{root}: found {' and '.join(parts)} but no train folder with class folders in it")
    train = _read(parts.get("train", root), ignored)
    classes = tuple(dict.fromkeys(name for _, name in train))
    if len(classes) < 2:
        raise ValueError(
            f"{parts.get('train', root)}: expected at least two class folders, found one: {shown(classes)}; {HINT}"
        )
    splits = {"train": _labelled(train, classes)}
    for name in parts.keys() - {"train"}:
        splits[name] = _labelled(_read(parts[name], ignored), classes)
    return Listing(root, classes, with_test(splits), ignored)


def unlabelled(root: str | Path) -> Listing:
    """List all pictures below a folder, at any depth, as one class to pretrain on; none is opened.

    There is no test split: nothing is held out that nobody can test on.

    Raises:
        ValueError: no such folder, or no picture below it.
    """
    root, ignored = Path(root), Counter[str]()
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder of pictures, found {'a file' if root.exists() else 'nothing'}")
    seen = _visible(root, ignored)
    pictures = _pictures(seen)
    ignored["not a picture"] += len(seen) - len(pictures)
    if not pictures:
        found = f"none among {len(seen):,} files" if seen else "no file"
        raise ValueError(f"{root}: expected pictures in it or below ({', '.join(sorted(SUFFIXES))}), found {found}")
    return Listing(root, (UNLABELLED,), {"train": Source(pictures, np.zeros(len(pictures), dtype=np.int64))}, ignored)


def expand(pictures: Sequence[str]) -> list[Path]:
    """Files, folders (all pictures below them) and glob patterns as one list of files, each once.

    Warns of what lies in a folder and is not taken for a picture.

    Raises:
        ValueError: one of them leads to no picture.
    """
    found: list[Path] = []
    for picture in pictures:
        path = Path(picture)
        files = [path] if path.is_file() else _below(path) if path.is_dir() else _matching(picture)
        if not files:
            raise ValueError(
                f"{picture}: expected a picture, a folder of pictures or a pattern matching some, found none"
            )
        found += files
    return list(dict.fromkeys(found))


def _below(folder: Path) -> list[Path]:
    seen = _visible(folder, Counter())
    if others := Counter(path.suffix.lower() or path.name for path in seen if path.suffix.lower() not in SUFFIXES):
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        warnings.warn(f"{folder}: passed over, being no pictures that vit reads: {kinds}", stacklevel=2)
    return _pictures(seen)


def _visible(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Files below a folder. Hidden is what lies hidden below it, not what leads to it."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    seen = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    ignored["hidden"] += len(found) - len(seen)
    return seen


def _matching(pattern: str) -> list[Path]:
    return _pictures(map(Path, glob(pattern, recursive=True)))


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted((p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file()), key=lambda p: natural(str(p)))


def _entries(folder: Path, ignored: Counter[str]) -> list[os.DirEntry]:
    """Visible entries; hidden ones take in macOS's `._1.png` and `.ipynb_checkpoints`."""
    entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
    visible = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    ignored["hidden"] += len(entries) - len(visible)
    return visible


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in _entries(folder, Counter()))


def _read(folder: Path, ignored: Counter[str]) -> Files:
    """All pictures of the class folders in one folder, class by class in natural order."""
    entries = _entries(folder, ignored)
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        found = f"{len(entries)} files but no folder; {HINT}" if entries else "an empty folder"
        raise ValueError(f"{folder}: expected class folders with pictures in them, found {found}")
    ignored["not a picture"] += len(entries) - len(names)
    return [(path, name) for name in names for path in _read_class(folder / name, ignored)]


def _read_class(folder: Path, ignored: Counter[str]) -> list[Path]:
    pictures, folders = [], []
    for entry in _entries(folder, ignored):
        if entry.is_dir():
            folders.append(entry.name)
        elif Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
            pictures.append(folder / entry.name)
        else:
            ignored["not a picture"] += 1
    ignored["folder"] += len(folders)
    if not pictures:
        found = f"folders: if {shown(folders)} are the classes, --data.root {folder}" if folders else "none"
        raise ValueError(
            f"{folder}: expected pictures in this class folder ({', '.join(sorted(SUFFIXES))}), found {found}"
        )
    return pictures


def _labelled(files: Files, classes: tuple[str, ...]) -> Source:
    number = {name: label for label, name in enumerate(classes)}
    if unknown := {name: path.parent.parent for path, name in files if name not in number}:
        (folder, *_), names = unknown.values(), shown([repr(name) for name in unknown])
        raise ValueError(f"{folder}: has classes that train does not have: {names}; expected {shown(classes)}")
    labels = np.array([number[name] for _, name in files], dtype=np.int64)
    return Source([path for path, _ in files], labels)
