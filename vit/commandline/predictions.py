"""What `vit predict` says of each picture, and the files it goes to."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vit.files import write_atomically
from vit.tasks.answers import Answer, Numbers

FORMATS = (".csv", ".json")
NUMBERS = ("logits", "embedding")


class Predicted(NamedTuple):
    """One picture's likeliest class with its probability, and the likeliest classes, largest first; or an error.

    Where they were asked for, float32 logits (k,), one for each class, and the embedding (d,).
    """

    file: str
    label: str = ""
    probability: float | None = None
    top: Mapping[str, float] = {}
    error: str = ""
    logits: np.ndarray | None = None
    embedding: np.ndarray | None = None


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


def included_of(given: str | None, out: Path | None) -> tuple[Numbers, ...]:
    """The numbers that ``--include`` asks for, one name or several with commas between.

    Raises:
        ValueError: an unknown name, or no ``out`` to write them to.
    """
    names = tuple(name.strip() for name in given.split(",")) if given else ()
    unknown = [name for name in names if name not in get_args(Numbers)]
    if unknown:
        raise ValueError(f"--include expects {' or '.join(get_args(Numbers))}, or both; got {unknown[0]!r}")
    if names and out is None:
        raise ValueError(f"--include {given} expects a file for the numbers: --out predictions.csv, or .json")
    return cast(tuple[Numbers, ...], names)


def predicted(answer: Answer, files: Sequence[str], classes: Sequence[str]) -> dict[int, Predicted]:
    """A batch's predictions, by position among ``files``; their numbers are views of the batch's."""
    logits, embeddings = (None if part is None else part.numpy() for part in (answer.logits, answer.embeddings))
    found = {}
    for row, place in enumerate(cast(list[int], answer.index.tolist())):
        ranked = zip(answer.classes[row].tolist(), answer.probabilities[row].tolist(), strict=True)
        top = {classes[int(k)]: float(value) for k, value in ranked}
        (label, probability), *_ = top.items()
        numbers = [None if part is None else part[row] for part in (logits, embeddings)]
        found[place] = Predicted(files[place], label, probability, top, "", *numbers)
    return found


def write(path: Path, predictions: Sequence[Predicted], classes: Sequence[str]) -> None:
    """All predictions as a table or as JSON, by the file's ending; one at a time, since their numbers may be many.

    Logits and embeddings are there where any prediction has them, in JSON as lists, in the table as the last columns.

    Args:
        path: ends in .json or .csv.
        predictions: in the order of the file.
        classes: in the order of the logits.
    """
    if path.suffix == ".json":
        write_atomically(path, lambda part: _write_json(part, predictions))
    else:
        write_atomically(path, lambda part: _write_csv(part, predictions, classes))


def _write_json(path: Path, predictions: Sequence[Predicted]) -> None:
    unused = [name for name, size in _sizes(predictions).items() if not size]
    with path.open("w", encoding="utf-8") as file:
        for place, prediction in enumerate(predictions):
            entry = prediction._asdict() | {name: _decimals(getattr(prediction, name)) or None for name in NUMBERS}
            for name in unused:
                del entry[name]
            file.write(",\n " if place else "[\n ")
            file.write(json.dumps(entry))
        file.write("\n]\n")


def _write_csv(path: Path, predictions: Sequence[Predicted], classes: Sequence[str]) -> None:
    ranks = range(2, 1 + max(len(prediction.top) for prediction in predictions))
    sizes = _sizes(predictions)
    header = [
        "file",
        "label",
        "probability",
        *(f"{name}_{rank}" for rank in ranks for name in ("label", "probability")),
        "error",
        *(f"logit_{name}" for name in classes if sizes["logits"]),
        *(f"embedding_{place}" for place in range(sizes["embedding"])),
    ]
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:  # names are bytes
        table = csv.writer(file)
        table.writerow(header)
        for prediction in predictions:
            further: list[Any] = [value for pair in list(prediction.top.items())[1:] for value in pair]
            further += [None] * (2 * len(ranks) - len(further))
            row = prediction.file, prediction.label, prediction.probability, *further, prediction.error
            numbers = [*_decimals(prediction.logits), *_decimals(prediction.embedding)]
            table.writerow([*row, *(numbers or [None] * sum(sizes.values()))])


def _sizes(predictions: Sequence[Predicted]) -> dict[str, int]:
    """How many numbers there are of each kind: files that cannot be read have none."""
    return {
        name: max(0 if (row := getattr(prediction, name)) is None else len(row) for prediction in predictions)
        for name in NUMBERS
    }


def _decimals(numbers: np.ndarray | None) -> list[float]:
    """The shortest decimals that are these float32 numbers: half the digits of the same numbers as float64."""
    return [] if numbers is None else numbers.astype(str).astype(float).tolist()


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
        console.print(f"and {len(predictions) - longest} more pictures: the file that --out names has all")
    if broken:
        console.print(f"{len(broken)} of {len(broken) + len(predictions)} pictures cannot be read:")
    for prediction in broken[:longest]:
        console.print(f"  {prediction.error}", markup=False, soft_wrap=True)
