"""The report of a data-size study: a page that opens without a network, its figure, and tables for other programs."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from vit.analysis.plots.scaling import Curve, Span, accuracy_by_size
from vit.analysis.statistics import MIN_SEEDS, smallest_p
from vit.commandline.arguments import take
from vit.experiments import advice
from vit.experiments.findings import Difference, Findings, findings
from vit.experiments.tables import tables
from vit.files import write_atomically

PAGE, FIGURE = "report.html", "curves.png"
MATCHED = {
    "parameters": "arms of about the same number of parameters",
    "compute": "arms of about the same compute for a picture",
    "none": "arms as they are, of different sizes",
}


def main(args: list[str]) -> int:
    """``vit study report DIR [--size N]``: write the report and say what it advises.

    Raises:
        ValueError: no study there, or a size that is no number.
    """
    (size,), rest = take(args, "--size")
    if len(rest) != 1 or not (size or "1").isdecimal():
        raise ValueError(f"expected vit study report DIR [--size N], got {' '.join(args)}")
    say(Path(rest[0]), None if size is None else int(size))
    return 0


def say(folder: Path, size: int | None = None) -> None:
    """Write the report, and its advice to the terminal."""
    found = findings(folder)
    path = _write(found, folder, size)
    advised = advice.recommendation(found, size)
    print("\n".join((advised.headline, *advised.sentences, f"The whole report: {path}")))


def write(folder: Path, size: int | None = None) -> Path:
    """Write ``report.html``, ``curves.png`` and the tables (`tables`) into a study's folder; the path of the page.

    Args:
        folder: a study, finished or not: what is missing or failed is counted and listed.
        size: number of images that the recommendation is for; default: the largest measured.

    Raises:
        ValueError: the folder holds no data-size study of this version, or runs of another one.
    """
    return _write(findings(folder), folder, size)


def _write(found: Findings, folder: Path, size: int | None) -> Path:
    picture = _png(figure(found)) if any(cell.accuracies for cell in found.cells) else None
    text = page(found, picture, size)
    if picture is not None:
        write_atomically(folder / FIGURE, lambda part: part.write_bytes(picture))
    for name, table in tables(found).items():
        write_atomically(folder / name, lambda part, table=table: part.write_text(table, encoding="utf-8", newline=""))
    write_atomically(folder / PAGE, lambda part: part.write_text(text, encoding="utf-8"))
    return folder / PAGE


def figure(found: Findings) -> Figure:
    """Accuracy and cost over the sizes that have a finished run, crossings marked.

    Raises:
        ValueError: no run is finished.
    """
    curves = []
    for arm in found.arms:
        cells = [cell for cell in found.cells if cell.arm == arm and cell.accuracies]
        if cells:
            accuracies = [tuple(cell.accuracies.values()) for cell in cells]
            minutes = [float("nan") if cell.minutes is None else cell.minutes for cell in cells]
            curves.append(Curve(arm, [cell.size for cell in cells], accuracies, minutes, found.fits[arm]))
    spans = []
    for pair in found.pairs:
        verdict, low, value, high = pair.crossing
        if verdict in ("overtakes", "falls behind"):
            spans.append(Span(advice.crossing_sentence(pair, found.differences).rstrip("."), low, value, high))
    return accuracy_by_size(curves, spans)


def page(found: Findings, picture: bytes | None, size: int | None = None) -> str:
    """The page as HTML, everything from the records escaped."""
    source = resources.files("vit.experiments").joinpath("page.html.j2").read_text(encoding="utf-8")
    words = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    words.filters |= {"percent": advice.percent, "accuracy": advice.accuracy, "points": _signed, "p": _p}
    return words.from_string(source).render(
        found=found,
        study=found.study,
        recommendation=advice.recommendation(found, size),
        picture=base64.b64encode(picture).decode() if picture else None,
        crossings=[advice.crossing_sentence(pair, found.differences) for pair in found.pairs],
        power=_power(found.differences),
        matched=MATCHED.get(found.study["match"], found.study["match"]),
        missing=[row for row in (*found.cells, *found.precisions) if row.missing],
        setting=_setting(found),
        smallest=found.study["sizes"][0],
        largest=found.study["sizes"][-1],
        min_seeds=MIN_SEEDS,
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _setting(found: Findings) -> dict[str, list[tuple[str, int]]]:
    """Hardware, versions, commits and kinds of command of the finished runs, each with how many had it."""
    hardware = (", ".join(_flat(row.get("hardware") or {})) for row in found.done)
    versions = (", ".join(_flat(row.get("versions") or {})) for row in found.done)
    commits = (str(row.get("commit")) for row in found.done)
    return {
        "Hardware": Counter(hardware).most_common(),
        "Versions": Counter(versions).most_common(),
        "Commit": Counter(commits).most_common(),
    }


def _flat(record: dict[str, Any]) -> Iterable[str]:
    for name, value in record.items():
        if value not in (None, [], ""):
            yield f"{name} {value if isinstance(value, str | int | float) else json.dumps(value)}"


def _power(differences: tuple[Difference, ...]) -> str | None:
    """Said where the test cannot reach 5 % however large the differences: the seeds are too few for so many."""
    if not differences:
        return None
    least = min(smallest_p(len(difference.by_seed)) for difference in differences) * len(differences)
    if least < 0.05:
        return None
    return (
        f"With so few seeds Holm's p over {len(differences)} comparisons cannot fall below {min(least, 1.0):.2g}, "
        "whatever the differences: the intervals carry the claims here."
    )


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _signed(interval: Any) -> str:
    return advice.NOTHING if interval is None else advice.points(interval, sign=True)
