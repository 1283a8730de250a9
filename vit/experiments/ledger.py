"""A study's folder: held by one process at a time, results only ever added."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout

from vit.experiments.grid import Cell
from vit.files import write_atomically

STUDY, ROWS, LOCK = "study.json", "runs.jsonl", ".lock"
PATIENCE = 15.0  # seconds: the workers of a study that was killed end within moments, and the lock with them
MAY_GROW = {  # further rows leave the finished ones as they are
    "data-size": ("seeds", "sizes", "compare_precision"),
    "mechanisms": ("seeds", "patch", "timed_patch", "arms", "recipes"),
    "transfer": ("seeds", "arms", "recipes", "sets"),
}
MAY_CHANGE = {"mechanisms": ("refused",), "transfer": ("refused",)}  # what was left out, and why


@final
class Ledger:
    """Rows of finished and failed cells, one JSON object per line, the last of a key being the valid one.

    Args:
        folder: the study's.
        study: fingerprint of the one that every row is of.

    Raises:
        ValueError: a row of another study, or one that cannot be read.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self.folder, self.study = folder, study
        self._rows = {row["key"]: row for row in read(folder / ROWS)}
        for key, row in self._rows.items():
            if row.get("study") != study:
                raise ValueError(f"{folder / ROWS}: run {key!r} is of another study than {folder / STUDY}")

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._rows[key]

    def has_run(self, arm: str) -> bool:
        """Whether a run of this arm is done, tuning apart."""
        return any(
            (row.get("kind"), row.get("arm"), row["status"]) == ("run", arm, "done") for row in self._rows.values()
        )

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, on disk before this returns; what is left of a line cut short by a crash is dropped first."""
        row = {**row, "study": self.study}
        path = self.folder / ROWS
        with path.open("ab+") as file:
            _drop_torn_line(file)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[row["key"]] = row


@contextmanager
def claimed(folder: Path, study: dict[str, Any]) -> Iterator[Ledger]:
    """The ledger of ``study`` in ``folder``, for this process alone until it ends.

    Raises:
        ValueError: another process works there, the folder holds something else, or a study that this one does not
            continue. Nothing is written then.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / STUDY).is_file() or _is_empty(folder))):
        raise ValueError(f"{folder} is not empty and holds no study: --out expects a new folder or one to continue")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(f"another process is running the study in {folder}") from None
    try:
        if (before := begun(folder)) is not None:
            continues(before, study, folder)
        ledger = Ledger(folder, fingerprint(study))
        text = json.dumps(study, indent=2)
        write_atomically(folder / STUDY, lambda part: part.write_text(text, encoding="utf-8"))
        yield ledger
    finally:
        lock.release()
        if made and not (folder / STUDY).is_file():
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def begun(folder: Path) -> dict[str, Any] | None:
    """The study that a folder holds, if any.

    Raises:
        ValueError: ``study.json`` cannot be read.
    """
    path = folder / STUDY
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected the description of a study, got {error}") from error


def left(folder: Path, study: dict[str, Any], cells: Iterable[Cell]) -> list[Cell]:
    """Of ``cells``, those that ``study`` has no row of in ``folder``, where nothing is written.

    Raises:
        ValueError: the folder holds a study that this one does not continue.
    """
    if before := begun(folder):
        continues(before, study, folder)
    book = Ledger(folder, fingerprint(study))
    return [cell for cell in cells if cell.key not in book]


def fingerprint(study: Mapping[str, Any]) -> str:
    """SHA-256 of all that decides a study's results; it stays while the study grows."""
    free = (*_may_grow(study), *MAY_CHANGE.get(str(study.get("study")), ()))
    kept = {name: value for name, value in study.items() if name not in free}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def continues(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Check that ``now`` is the study of ``before``, with no seed and no size less.

    Raises:
        ValueError: the first difference.
    """
    if before.get("version") != now["version"] or before.get("study") != now["study"]:
        raise ValueError(
            f"{folder} holds a {before.get('study')} study of version {before.get('version')}, this is "
            f"{now['study']} {now['version']}: choose another --out"
        )
    now = json.loads(json.dumps(now))  # tuples are lists on disk
    for name, value in now.items():
        if name in MAY_CHANGE.get(now["study"], ()):
            continue
        if not (name in _may_grow(now) and _grows(before.get(name), value)) and before.get(name) != value:
            there, asked = _first_difference(before.get(name), value)
            if name == "recipes":  # hashes say nothing to a reader
                raise ValueError(
                    f"{folder} holds a study whose runs had other options or another configuration: put them back as "
                    "they were, or choose another --out"
                )
            raise ValueError(f"{folder} holds a study with {name} {there}, asked for {asked}: choose another --out")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file; a last line cut short by a crash is left out.

    Raises:
        ValueError: a line in between is no row.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "key": row["key"], "status": row["status"]})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}:{number} is no row of a study: {error}") from error
    return rows


def _is_empty(folder: Path) -> bool:
    """But for the lock of a study that was killed, or that is just beginning."""
    return all(path.name == LOCK for path in folder.iterdir())


def _may_grow(study: Mapping[str, Any]) -> tuple[str, ...]:
    return MAY_GROW.get(str(study.get("study")), ())


def _grows(before: Any, now: Any) -> bool:
    if isinstance(before, dict):
        return before.items() <= now.items()
    return before is None or (isinstance(before, list) and all(value in now for value in before))


def _drop_torn_line(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    if whole < end:
        file.truncate(whole)


def _first_difference(before: Any, now: Any) -> tuple[str, str]:
    """Both values, narrowed to the first entry that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                there, asked = _first_difference(before.get(name), now.get(name))
                return f"{name} {there}", f"{name} {asked}"
    if isinstance(before, list) and isinstance(now, list):
        names = [[value.get("name") for value in side if isinstance(value, dict)] for side in (before, now)]
        if all(names) and set(names[0]) - set(names[1]):
            return ", ".join(map(str, names[0])), ", ".join(map(str, names[1]))
        if all(names):
            now = [value for value in now if value["name"] in names[0]]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for one, other in zip(before, now, strict=True):
            if one != other:
                return _first_difference(one, other)
    return json.dumps(before), json.dumps(now)
