"""Where the rows of a transfer study start, as a user writes them: data sets, and pretraining on one of them."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vit.commandline.overlays import data_options
from vit.data import catalog
from vit.names import did_you_mean

SCRATCH, LONG = "scratch", "scratch-long"
EACH = "*"


class Place(NamedTuple):
    """A data set by its own name, and the options of ``vit fit`` that reach it."""

    name: str
    options: tuple[str, ...]


class Start(NamedTuple):
    """How a row starts, as its table calls it: ``method`` on ``source``, None being the target's own pictures."""

    row: str
    method: str | None
    source: str | None


def places(asked: Sequence[str]) -> dict[str, Place]:
    """Data sets by name: each ``data/NAME``, ``data/NAME=ROOT``, or a folder, table or file of arrays.

    Raises:
        ValueError: nothing there, or two of one name.
    """
    found: dict[str, Place] = {}
    for text in asked:
        place = _place(text)
        if found.setdefault(place.name, place) != place:
            raise ValueError(f"two data sets are called {place.name!r}: expected a name for each, got {text}")
    return found


def starts(rows: Sequence[str], methods: Mapping[str, object], sources: Sequence[str]) -> list[Start]:
    """Rows in their order: ``scratch``, ``scratch-long``, ``METHOD``, ``METHOD@SOURCE``, ``METHOD@*`` on each source.

    Raises:
        ValueError: a row, method or source that is not there, or none.
    """
    found = [start for row in rows for start in _starts(row, methods, sources)]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"expected at least one row and each once, got {', '.join(rows) or 'none'}")
    return found


def _starts(row: str, methods: Mapping[str, object], sources: Sequence[str]) -> list[Start]:
    if row in (SCRATCH, LONG):
        return [Start(row, None, None)]
    method, at, source = row.partition("@")
    if method not in methods:
        known = [SCRATCH, LONG, *methods]
        hint = did_you_mean(method, known)
        raise ValueError(f"unknown row {row!r}: expected {', '.join(known)}, or METHOD@SOURCE{hint}")
    if not at:
        return [Start(row, method, None)]
    if source != EACH and source not in sources:
        raise ValueError(f"row {row!r}: expected one of the --sources {', '.join(sources) or '(none given)'}")
    return [Start(f"{method}@{name}", method, name) for name in (sources if source == EACH else [source])]


def _place(text: str) -> Place:
    options = data_options(text)
    described = catalog.describe(*map(options.get, ("dataset", "root", "img_size", "channels", "merge_classes")))
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    return Place(described.name, tuple(f"--data.{name}={value}" for name, value in values.items()))
