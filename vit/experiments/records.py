"""The records of a study: ``study.json`` and the append-only ``runs.jsonl``, read and held to each other."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vit.experiments import ledger

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a kind of study writes.

    Attributes:
        name: as ``study.json`` has it.
        version: likewise.
        needed: what else has to be there.
        allowed: the values that a row of a given study may have, by name.
        accuracy: where each kind of row has its accuracy; one without is a timing.
    """

    name: str
    version: int
    needed: tuple[str, ...]
    allowed: Callable[[Row, Row], dict[str, list[Any]]]
    accuracy: Mapping[str, str]


def read(folder: Path, kind: Kind) -> tuple[Row, list[Row], bool]:
    """The study, a row for each run (its last finished one, or else its last), whether a torn last line was left out.

    Raises:
        ValueError: no study of this kind and version, an unreadable line that is not the last, or foreign runs.
    """
    study = _read_study(folder / ledger.STUDY, kind)
    path = folder / ledger.ROWS
    final = _last_words(ledger.read(path))
    for row in final:
        _check(row, study, kind)
    return study, final, path.exists() and not path.read_bytes().endswith(b"\n")


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, ...]:
    """The first's accuracy less the second's, for each seed that both have, in their order."""
    return tuple(first[seed] - second[seed] for seed in sorted(first.keys() & second.keys()))


def machine(done: Iterable[Row]) -> Any:
    """Hardware of most of the finished runs: only times of one machine compare."""
    hardware = [row.get("hardware") for row in done if row["kind"] == "run"]
    return max(hardware, key=hardware.count, default=None)


def typical(rows: Iterable[Row], column: str, where: Any) -> float | None:
    """Median of what the rows of one machine measured, None where there is none."""
    measured = [row[column] for row in rows if row.get("hardware") == where and row.get(column) is not None]
    return median(measured) if measured else None


def minutes(rows: Iterable[Row], where: Any) -> float | None:
    """Likewise, of the whole fits."""
    seconds = typical(rows, "fit_seconds", where)
    return None if seconds is None else seconds / 60


def _read_study(path: Path, kind: Kind) -> Row:
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the description of a {kind.name} study, got {type(error).__name__}"
        ) from None
    found = (study.get("study"), study.get("version")) if isinstance(study, dict) else type(study).__name__
    if found != (kind.name, kind.version):
        raise ValueError(f"{path}: expected study {kind.name!r} of version {kind.version}, got {found}")
    if absent := [name for name in kind.needed if name not in study]:
        raise ValueError(f"{path}: expected {', '.join(kind.needed)}; {', '.join(absent)} is not there")
    return study


def _last_words(rows: list[Row]) -> list[Row]:
    """One row for each key: its last finished one, or else its last."""
    final: dict[str, Row] = {}
    for row in rows:
        if row["status"] == "done" or final.get(row["key"], row)["status"] != "done":
            final[row["key"]] = row
    return list(final.values())


def _check(row: Row, study: Row, kind: Kind) -> None:
    """Raises ValueError where the run belongs to another study."""
    allowed: dict[str, list[Any]] = {"kind": list(kind.accuracy), "arm": [arm["name"] for arm in study["arms"]]}
    allowed |= {"study": [ledger.fingerprint(study)]} if "study" in row else {}
    for name, values in {**allowed, **kind.allowed(row, study)}.items():
        if row.get(name) not in values and (name in row or row["status"] == "done"):
            raise ValueError(f"run {row['key']!r} is not of this study: {name} is {row.get(name)!r}, not in {values}")
    column = kind.accuracy.get(row.get("kind", ""))
    accuracy = row.get(column or "")
    if row["status"] == "done" and column and not (isinstance(accuracy, int | float) and 0 <= accuracy <= 1):
        raise ValueError(f"run {row['key']!r}: expected an accuracy from 0 to 1, got {accuracy!r}")
