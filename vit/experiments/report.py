"""The report of a data-size study: a page that opens without a network, its figure, and tables for other programs."""

from pathlib import Path

from matplotlib.figure import Figure

from vit.analysis.plots.scaling import Curve, Span, accuracy_by_size
from vit.analysis.statistics import MIN_SEEDS, smallest_p
from vit.commandline.arguments import take
from vit.experiments import advice, frame, ledger, tradeoff_report, transfer_report
from vit.experiments.findings import Difference, Findings, findings
from vit.experiments.gains import TRANSFER
from vit.experiments.tables import tables
from vit.experiments.tradeoff import MECHANISMS

PAGE, FIGURE, TEMPLATE = "report.html", "curves.png", "page.html.j2"
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
    folder = Path(rest[0])
    others = {MECHANISMS.name: tradeoff_report.say, TRANSFER.name: transfer_report.say}
    if (name := str((ledger.begun(folder) or {}).get("study"))) in others:
        if size is not None:
            raise ValueError(f"{folder} holds a {name} study, all of one size: leave --size out")
        others[name](folder)
    else:
        say(folder, None if size is None else int(size))
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
    picture = frame.png(figure(found)) if any(cell.accuracies for cell in found.cells) else None
    return frame.write(folder, (PAGE, page(found, picture, size)), (FIGURE, picture), tables(found))


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
    values = {
        "found": found,
        "study": found.study,
        "recommendation": advice.recommendation(found, size),
        "crossings": [advice.crossing_sentence(pair, found.differences) for pair in found.pairs],
        "power": _power(found.differences),
        "matched": MATCHED.get(found.study["match"], found.study["match"]),
        "pretraining": {arm: found.pretraining_minutes(arm) for arm in found.arms},
        "missing": [row for row in (*found.cells, *found.precisions) if row.missing],
        "setting": frame.setting(found.done),
        "machine": frame.machine(found.machine),
        "smallest": found.study["sizes"][0],
        "largest": found.study["sizes"][-1],
        "min_seeds": MIN_SEEDS,
    }
    return frame.render(TEMPLATE, picture, values)


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
