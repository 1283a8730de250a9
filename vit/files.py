"""Files that are never half-written: a part beside the target, flushed to disk, then put in its place in one step.

The part lies in the target's folder, because a move across file systems is a copy, and a copy can be cut short.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SEAL = b"\nsha256:"
SEAL_LENGTH = len(SEAL) + 64


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write(part)`` fill a part and put it at ``path``. At any moment ``path`` is the old file or the new one."""
    write_part(path, write)
    commit(path)


def listed(path: Path) -> list[Any]:
    """The list in a JSON file; empty where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def extend(path: Path, items: Iterable[Any]) -> None:
    """Add to the list in a JSON file; without anything to add, no file is made."""
    if added := list(items):
        text = json.dumps([*listed(path), *added], indent=2)
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_part(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill the part of ``path`` and flush it to disk; no part is left when it raises.

    Raises:
        OSError: the disk is full or read-only, with the path named.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def commit(path: Path) -> None:
    """Put the part of ``path`` in its place and flush the folder's entry."""
    os.replace(part_of(path), path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def part_of(path: Path) -> Path:
    """Where the part of ``path`` is written: hidden, beside it."""
    return path.with_name(f".{path.name}.part")


def keep(path: Path, name: str) -> None:
    """Keep what ``path`` holds now under ``name`` beside it too; a second name for the same bytes where disks allow."""
    if not path.is_file():
        return
    part = part_of(path.with_name(name))
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        shutil.copyfile(path, part)
    os.replace(part, path.with_name(name))
    part.unlink(missing_ok=True)  # of two names for one file, replace leaves both


def sweep(folder: Path) -> None:
    """Remove the parts that a killed process left right in ``folder``."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def require_room(folder: Path, size: int) -> None:
    """Try to write into ``folder``.

    Raises:
        ValueError: it cannot be written to, or its disk has less than ``size`` bytes left.
    """
    probe = folder / "probe"
    try:
        write_atomically(probe, lambda part: part.write_bytes(bytes(4096)))
        probe.unlink()
    except OSError as error:
        raise ValueError(f"nothing can be written in {folder}: {error.__cause__ or error}") from error
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(f"{folder} needs {size / 1e6:.0f} MB for checkpoints, its disk has {free / 1e6:.0f} MB left")


def local(path: str | Path) -> Path:
    """``path``, where it is none to fetch: who downloads a model first knows what is run.

    Raises:
        ValueError: a URL.
    """
    if "://" in str(path):
        raise ValueError(f"expected a local path, got the URL {path}: download it first")
    return Path(path)


def sha256(path: Path) -> str:
    """Hash of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Append the hash of the file's bytes, in the file itself: a hash beside it would be replaced a moment later."""
    digest = sha256(path)
    with path.open("ab") as file:
        file.write(SEAL + digest.encode())


def intact(path: Path) -> bool:
    """Whether a sealed file holds the bytes it was sealed with. A file without a seal passes."""
    left = path.stat().st_size - SEAL_LENGTH
    if left < 0:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(left)
        tail = file.read()
        if not tail.startswith(SEAL):
            return True
        file.seek(0)
        while left > 0:
            block = file.read(min(left, 2**20))
            digest.update(block)
            left -= len(block)
    return tail.removeprefix(SEAL) == digest.hexdigest().encode()
