"""The report of a transfer study: a page that opens without a network, its figure, and tables for other programs."""

from pathlib import Path

from matplotlib.figure import Figure

from vit.analysis.plots.transfer import Bar, Target
from vit.analysis.plots.transfer import transfer as draw
from vit.analysis.statistics import MIN_SEEDS, smallest_p
from vit.experiments import frame
from vit.experiments.gains import PROBES, Gains, Result, gains, same_pictures, sentences

PAGE, FIGURE, TEMPLATE = "report.html", "transfer.png", "transfer.html.j2"
SUMMARY = "target row origin steps seeds failed missing accuracy low high minutes pretrain_minutes"


def say(folder: Path) -> None:
    """Write the report, and what may be said to the terminal."""
    found = gains(folder)
    path = _write(found, folder)
    print("\n".join((*sentences(found), f"The whole report: {path}")))


def write(folder: Path) -> Path:
    """Write ``report.html``, ``transfer.png`` and the tables into a study's folder; the path of the page.

    Raises:
        ValueError: the folder holds no transfer study of this version, or runs of another one.
    """
    return _write(gains(folder), folder)


def _write(found: Gains, folder: Path) -> Path:
    picture = frame.png(figure(found)) if any(result.accuracies for result in found.results) else None
    return frame.write(folder, (PAGE, page(found, picture)), (FIGURE, picture), tables(found))


def figure(found: Gains) -> Figure:
    """Accuracy of each row after finetuning, and of a linear map of what it starts from, a panel for each target.

    Raises:
        ValueError: no run is finished.
    """
    panels = []
    for target in found.targets:
        bars = [Bar(row, tuple(there.accuracies.values()), there.interval, there.probes["logistic"])
                for row in found.rows
                if (there := found.at(row, target)) is not None and there.accuracies]  # fmt: skip
        panels.append(Target(target, bars))
    return draw(panels)


def page(found: Gains, picture: bytes | None) -> str:
    """The page as HTML, everything from the records escaped."""
    least = min((smallest_p(len(gain.by_seed)) for gain in found.gains), default=0.0) * len(found.gains)
    values = {
        "found": found,
        "study": found.study,
        "probes": PROBES,
        "sentences": sentences(found),
        "same_pictures": same_pictures(found.study),
        "setting": frame.setting(found.done),
        "machine": frame.machine(found.machine),
        "missing": [result for result in found.results if result.missing],
        "origins": [arm for arm in found.study["arms"] if "method" in arm],
        "least": least if least >= 0.05 else None,
        "min_seeds": MIN_SEEDS,
    }
    return frame.render(TEMPLATE, picture, values)


def tables(found: Gains) -> dict[str, str]:
    """Text of each file by its name; shares, not percent."""
    probes = [f"{name.lower()}{end}" for name in PROBES for end in ("", "_low", "_high")]
    differences = [
        (gain.target, gain.row, gain.over, len(gain.by_seed), *gain.interval, gain.p, gain.adjusted)
        for gain in found.gains
    ]
    header = "target row over seeds difference low high p p_holm"
    return {
        "summary.csv": frame.table([*SUMMARY.split(), *probes], map(_line, found.results)),
        "differences.csv": frame.table(header.split(), differences),
    }


def _line(result: Result) -> frame.Line:
    entry = result.entry
    low, high = (result.interval.low, result.interval.high) if result.interval else (None, None)
    counts = len(result.accuracies), result.failed, result.missing
    own = entry["target"], entry["row"], entry["origin"], entry["steps"], *counts, result.mean, low, high
    probes = [value for name in PROBES for value in result.probes[name] or (None, None, None)]
    return *own, result.minutes, result.pretrain_minutes, *probes
