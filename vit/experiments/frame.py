"""What the pages of all studies share: one file that opens without a network, its figure, where it was measured."""

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from vit.analysis.statistics import Interval
from vit.experiments import advice
from vit.experiments.records import Row
from vit.files import write_atomically

Line = Sequence[Any]


def render(template: str, picture: bytes | None, values: dict[str, Any]) -> str:
    """The page as HTML, everything from the records escaped; ``picture`` becomes part of it."""
    words = Environment(
        loader=PackageLoader("vit.experiments", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words.filters |= {"percent": advice.percent, "accuracy": advice.accuracy, "points": _signed, "p": _p}
    encoded = base64.b64encode(picture).decode() if picture else None
    return words.get_template(template).render(values | {"picture": encoded})


def write(folder: Path, page: tuple[str, str], picture: tuple[str, bytes | None], tables: dict[str, str]) -> Path:
    """Write names and contents into a study's folder, the page last; its path."""
    name, image = picture
    if image is not None:
        write_atomically(folder / name, lambda part: part.write_bytes(image))
    for name, table in tables.items():
        write_atomically(folder / name, lambda part, table=table: part.write_text(table, encoding="utf-8", newline=""))
    name, text = page
    write_atomically(folder / name, lambda part: part.write_text(text, encoding="utf-8"))
    return folder / name


def png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def table(names: Sequence[str], lines: Iterable[Line]) -> str:
    """CSV; nothing between two commas where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for line in lines:
        writer.writerow(line)
    return text.getvalue()


def setting(done: Iterable[Row]) -> dict[str, list[tuple[str, int]]]:
    """Hardware, versions and commits of the finished runs, each with how many had it."""
    done = list(done)
    hardware = (machine(row.get("hardware")) for row in done)
    versions = (", ".join(_flat(row.get("versions") or {})) for row in done)
    commits = (str(row.get("commit")) for row in done)
    return {
        "Hardware": Counter(hardware).most_common(),
        "Versions": Counter(versions).most_common(),
        "Commit": Counter(commits).most_common(),
    }


def machine(hardware: dict[str, Any] | None) -> str:
    """What a row says of where it was measured, in words."""
    return ", ".join(_flat(hardware or {}))


def _flat(record: dict[str, Any]) -> Iterable[str]:
    for name, value in record.items():
        if value not in (None, [], ""):
            yield f"{name} {value if isinstance(value, str | int | float) else json.dumps(value)}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _signed(interval: Interval | None) -> str:
    return advice.NOTHING if interval is None else advice.points(interval, sign=True)
