"""Files that are never half-written: a part beside the target, flushed to disk, then put in its place in one step.

The part lies in the target's folder, because a move across file systems is a copy, and a copy can be cut short.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write(part)`` fill a part and put it at ``path``. At any moment ``path`` is the old file or the new one."""
    write_part(path, write)
    commit(path)


def write_part(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill the part of ``path`` and flush it to disk; no part is left when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
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


def sha256(path: Path) -> str:
    """Hash of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
