"""The records of a data-size study: ``study.json`` and the append-only ``runs.jsonl``, read and held to each other."""

import json
from pathlib import Path
from typing import Any

from vit.experiments import ledger

STUDY, VERSION = "data-size", 1
NEEDED = ("arms", "sizes", "seeds", "budget", "amount", "match", "precision", "tune_size", "trials", "data")
Row = dict[str, Any]


def read(folder: Path) -> tuple[Row, list[Row], bool]:
    """The study, a row for each run (its last finished one, or else its last), whether a torn last line was left out.

    Raises:
        ValueError: no data-size study of this version, an unreadable line that is not the last, or foreign runs.
    """
    study = _read_study(folder / ledger.STUDY)
    path = folder / ledger.ROWS
    final = _last_words(ledger.read(path))
    for row in final:
        _check(row, study)
    return study, final, path.exists() and not path.read_bytes().endswith(b"\n")


def _read_study(path: Path) -> Row:
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the description of a {STUDY} study, got {type(error).__name__}") from None
    kind = (study.get("study"), study.get("version")) if isinstance(study, dict) else type(study).__name__
    if kind != (STUDY, VERSION):
        raise ValueError(f"{path}: expected study {STUDY!r} of version {VERSION}, got {kind}")
    if absent := [name for name in NEEDED if name not in study]:
        raise ValueError(f"{path}: expected {', '.join(NEEDED)}; {', '.join(absent)} is not there")
    return study | {"sizes": sorted(study["sizes"])}


def _last_words(rows: list[Row]) -> list[Row]:
    """One row for each key: its last finished one, or else its last."""
    final: dict[str, Row] = {}
    for row in rows:
        if row["status"] == "done" or final.get(row["key"], row)["status"] != "done":
            final[row["key"]] = row
    return list(final.values())


def _check(row: Row, study: Row) -> None:
    """Raises ValueError where the run belongs to another study."""
    allowed: dict[str, list[Any]] = {"kind": ["run", "tune"], "arm": [arm["name"] for arm in study["arms"]]}
    allowed |= {"study": [ledger.fingerprint(study)]} if "study" in row else {}
    if row.get("kind") == "run":
        other = study.get("compare_precision")
        allowed |= {"seed": study["seeds"], "precision": [study["precision"], other]}
        allowed |= {"size": [study["tune_size"]] if other and row.get("precision") == other else study["sizes"]}
    for name, values in allowed.items():
        if row.get(name) not in values and (name in row or row["status"] == "done"):
            raise ValueError(f"run {row['key']!r} is not of this study: {name} is {row.get(name)!r}, not in {values}")
    accuracy = row.get("acc" if row.get("kind") == "run" else "val_acc")
    if row["status"] == "done" and not (isinstance(accuracy, int | float) and 0 <= accuracy <= 1):
        raise ValueError(f"run {row['key']!r}: expected an accuracy from 0 to 1, got {accuracy!r}")
