"""How a run was made, kept in its folder, and the line that a recorded result is."""

import json
from pathlib import Path
from typing import Any

from vit.environment import environment
from vit.files import write_atomically

SITTINGS = "fit.json"
_PATHS = ("--data.root", "--run", "--resume", "--load", "--record")


def add_sitting(folder: Path, command: str, seed: int, seconds: float) -> None:
    """Note in the run folder what trained there, and for how long; a resumed run has several such sittings."""
    path = folder / SITTINGS
    sitting = {"command": command, "seed": seed, "seconds": round(seconds, 1), **environment()}
    text = json.dumps([*_sittings(folder), sitting], indent=2)
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def append(path: Path, folder: Path, result: dict[str, Any]) -> None:
    """Append one line of JSON to ``path``: a test's result, and the sittings that trained the model.

    Raises:
        ValueError: the folder does not say how its model was trained.
    """
    if not _sittings(folder):
        raise ValueError(f"{folder} has no {SITTINGS}: expected a finished run of `vit fit`, to record how it was made")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"fit": _sittings(folder), "test": result}) + "\n")


def _sittings(folder: Path) -> list[dict[str, Any]]:
    path = folder / SITTINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def shown(command: str, args: list[str]) -> str:
    """``vit COMMAND ARGS`` without the places on this machine: a record names data by its hash."""
    words, hide = ["vit", command], False
    for argument in args:
        flag, equals, _ = argument.partition("=")
        words.append(f"{flag}=..." if equals and flag in _PATHS else "..." if hide else argument)
        hide = not equals and flag in _PATHS
    return " ".join(words)
