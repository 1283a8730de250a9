"""Fingerprints of pictures, by which those of one set are found in another one, wherever both lie."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit.data.ahead import ahead

ENDS = 2**15  # bytes of a large file's beginning and of its end that identify it, where its pixels are compressed
PLAIN = frozenset({".npy", ".bmp", ".tif", ".tiff"})  # may hold pixels as they are: one can change and nothing else


class Prints(NamedTuple):
    """64 bits (n,) of each picture's content; ``kind`` is files or arrays, of which the same picture has others."""

    kind: str
    values: np.ndarray

    @classmethod
    def of_files(cls, contents: Iterable[bytes]) -> "Prints":
        return cls("files", _first_bits(contents))

    @classmethod
    def of_arrays(cls, pictures: np.ndarray) -> "Prints":
        return cls("arrays", _first_bits(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in pictures))

    def among(self, others: "Prints") -> np.ndarray:
        """Positions of those that are among the others."""
        return np.flatnonzero(np.isin(self.values, others.values))


def joined(prints: Sequence[Prints]) -> Prints:
    """Those of several splits, which are of one kind."""
    return Prints(prints[0].kind, np.concatenate([some.values for some in prints]))


def contents(paths: Sequence[Path]) -> list[bytes]:
    """Of each file a SHA-256 of its size and its bytes: all of a small or `PLAIN` one, else the `ENDS`.

    There a change of compressed pixels shows. One that cannot be read, which decoding names, is known by its name and
    the error.
    """
    with ThreadPoolExecutor() as pool:
        return list(ahead(pool, _content, paths))


def _content(path: Path) -> bytes:
    try:
        return _digest(path)
    except OSError as error:
        return hashlib.sha256(f"{type(error).__name__} ".encode() + os.fsencode(path.name)).digest()


def _digest(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        head = file.read(2 * ENDS)
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode())
        if size <= 2 * ENDS:
            digest.update(head)
        elif path.suffix.lower() in PLAIN:
            digest.update(head)
            while part := file.read(2**20):
                digest.update(part)
        else:
            file.seek(-ENDS, os.SEEK_END)
            digest.update(head[:ENDS] + file.read(ENDS))
    return digest.digest()


def _first_bits(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype=np.uint64)
