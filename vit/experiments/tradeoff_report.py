"""The report of a mechanisms study: a page that opens without a network, its figure, and tables for other programs."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vit.analysis.plots.tradeoff import Dot, Line, Panel
from vit.analysis.plots.tradeoff import tradeoff as draw
from vit.analysis.statistics import MIN_SEEDS
from vit.experiments import frame
from vit.experiments.tradeoff import Point, Tradeoff, sentences, tradeoff

PAGE, FIGURE, TEMPLATE = "report.html", "tradeoff.png", "tradeoff.html.j2"
SUMMARY = (
    "overlay tokens patch widened seeds failed missing accuracy low high parameters macs train_images_per_s "
    "train_times_as_fast train_low train_high infer_images_per_s infer_times_as_fast infer_low infer_high memory_bytes "
    "memory timed_batch"
)


def say(folder: Path) -> None:
    """Write the report, and what may be said to the terminal."""
    found = tradeoff(folder)
    path = _write(found, folder)
    print("\n".join((*sentences(found), f"The whole report: {path}")))


def write(folder: Path) -> Path:
    """Write ``report.html``, ``tradeoff.png`` and the tables into a study's folder; the path of the page.

    Raises:
        ValueError: the folder holds no mechanisms study of this version, or runs of another one.
    """
    return _write(tradeoff(folder), folder)


def _write(found: Tradeoff, folder: Path) -> Path:
    picture = frame.png(figure(found)) if _drawable(found) else None
    return frame.write(folder, (PAGE, page(found, picture)), (FIGURE, picture), tables(found))


def figure(found: Tradeoff) -> Figure:
    """Accuracy over images/s with memory as area, a panel for each number of tokens; time and memory over tokens.

    Raises:
        ValueError: nothing is both trained and timed, and nothing timed at two numbers of tokens.
    """
    short = _short({point.name for point in found.points})
    panels = [Panel(n, [_dot(point, short) for point in found.at(n) if _is_whole(point)]) for n in found.tokens]
    lines = [Line(short[g.name], g.tokens, g.seconds, g.memory, g.time_slope, g.memory_slope) for g in _shown(found)]
    return draw(panels, lines, 6 * found.study["embed_dim"] if found.study["vary"] == "mixer" else None)


def page(found: Tradeoff, picture: bytes | None) -> str:
    """The page as HTML, everything from the records escaped."""
    timed = [point.timing for point in found.points if point.timing]
    values = {
        "found": found,
        "study": found.study,
        "sentences": sentences(found),
        "setting": frame.setting(found.done),
        "memory": " and ".join(dict.fromkeys(str(row["memory"]) for row in timed)) or "not measured yet",
        "devices": ", ".join(dict.fromkeys(str(row["device"]) for row in timed)) or "none yet",
        "missing": [point for point in found.points if point.missing],
        "min_seeds": MIN_SEEDS,
    }
    return frame.render(TEMPLATE, picture, values)


def tables(found: Tradeoff) -> dict[str, str]:
    """Text of each file by its name; shares, not percent."""
    growths = [(g.name, len(g.tokens), g.tokens[0], g.tokens[-1], g.time_slope, g.memory_slope) for g in found.growths]
    refused = [(r["overlay"], r["tokens"], r["patch"], r["reason"]) for r in found.study["refused"]]
    return {
        "summary.csv": frame.table(SUMMARY.split(), map(_line, found.points)),
        "slopes.csv": frame.table(["overlay", "sizes", "smallest", "largest", "time_slope", "memory_slope"], growths),
        "refused.csv": frame.table(["overlay", "tokens", "patch", "reason"], refused),
    }


def _line(point: Point) -> frame.Line:
    arm, (low, high) = point.arm, (point.interval.low, point.interval.high) if point.interval else (None, None)
    counts = len(point.accuracies), point.failed, point.missing
    speeds: list[Any] = []
    for kind in ("train", "infer"):
        ratio = point.measured(f"{kind}_times_as_fast") or (None, None, None)
        speeds += [point.measured(f"{kind}_images_per_s"), *ratio]
    own = arm["overlay"], arm["tokens"], arm["patch"], arm["widened"], *counts, point.mean, low, high
    memory = [point.measured(name) for name in ("memory_bytes", "memory", "timed_batch")]
    return *own, arm["parameters"], arm["macs"], *speeds, *memory


def _shown(found: Tradeoff) -> list[Any]:
    """Growths of arms as they are: with a wider MLP they are other nets, not another mechanism."""
    widened = {point.name for point in found.points if point.arm["widened"]}
    return [growth for growth in found.growths if growth.name not in widened]


def _is_whole(point: Point) -> bool:
    return bool(point.accuracies) and point.timing is not None


def _drawable(found: Tradeoff) -> bool:
    return any(map(_is_whole, found.points)) or any(len(growth.tokens) > 1 for growth in _shown(found))


def _short(names: set[str]) -> dict[str, str]:
    """Without the folder, where that leaves each its own."""
    short = {name: name.partition("/")[2] for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def _dot(point: Point, short: dict[str, str]) -> Dot:
    speed, memory = point.measured("train_images_per_s"), point.measured("memory_bytes")
    assert point.mean is not None
    return Dot(short[point.name], speed, point.mean, point.interval, memory)
