"""What `vit predict` says of each picture, and the files it goes to."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vit.files import write_atomically

FORMATS = (".csv", ".json")


class Predicted(NamedTuple):
    """One picture's likeliest class with its probability, and the likeliest classes, largest first; or an error."""

    file: str
    label: str = ""
    probability: float | None = None
    top: Mapping[str, float] = {}
    error: str = ""


def check_format(out: str) -> Path:
    """The path to write predictions to.

    Raises:
        ValueError: not a .csv or .json file.
    """
    if Path(out).suffix not in FORMATS:
        raise ValueError(f"--out expects a file ending in {' or '.join(FORMATS)}, got {out!r}")
    return Path(out)


def top_k_of(given: str | None, classes: int) -> int:
    """How many classes to list: as given, else 3.

    Raises:
        ValueError: not a number from 1 to ``classes``.
    """
    if given is None:
        return min(3, classes)
    if not given.isdecimal() or not 1 <= int(given) <= classes:
        raise ValueError(f"--top_k expects a number from 1 to {classes}, the model's classes; got {given!r}")
    return int(given)


def write(path: Path, predictions: Sequence[Predicted]) -> None:
    """All predictions as a table or as JSON, by the file's ending."""
    if path.suffix == ".json":
        text = json.dumps([prediction._asdict() for prediction in predictions], indent=2)
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    else:
        write_atomically(path, lambda part: _write_csv(part, predictions))


def _write_csv(path: Path, predictions: Sequence[Predicted]) -> None:
    ranks = range(2, 1 + max(len(prediction.top) for prediction in predictions))
    header = [
        "file",
        "label",
        "probability",
        *(f"{name}_{rank}" for rank in ranks for name in ("label", "probability")),
        "error",
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        for prediction in predictions:
            further: list[Any] = [value for pair in list(prediction.top.items())[1:] for value in pair]
            further += [None] * (2 * len(ranks) - len(further))
            row = prediction.file, prediction.label, prediction.probability
            table.writerow([*row, *further, prediction.error])


def show(predictions: Sequence[Predicted], longest: int = 20) -> None:
    """A table on the terminal, of the first ``longest`` pictures, and of the first as many errors."""
    broken = [prediction for prediction in predictions if prediction.error]
    predictions = [prediction for prediction in predictions if not prediction.error]
    table = Table("picture", "class", "probability", "then", box=None, pad_edge=False)
    for prediction in predictions[:longest]:
        others = "  ".join(f"{label} {probability:.3f}" for label, probability in list(prediction.top.items())[1:])
        sure = f"{prediction.probability:.3f}"
        table.add_row(escape(prediction.file), escape(prediction.label), sure, escape(others))
    console = Console()
    console.print(table)
    if len(predictions) > longest:
        console.print(f"and {len(predictions) - longest} more pictures: --out predictions.csv keeps all")
    if broken:
        console.print(f"{len(broken)} of {len(broken) + len(predictions)} pictures cannot be read:")
    for prediction in broken[:longest]:
        console.print(f"  {prediction.error}", markup=False, soft_wrap=True)
