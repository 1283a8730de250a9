"""Accuracy against speed against memory, a panel for each number of tokens; and how time and memory grow with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox

from vit.analysis.plots.canvas import INK, QUIET, name_style, new_figure, plain_axes, printable
from vit.analysis.plots.scaling import COLOURS, MARKERS
from vit.analysis.statistics import Interval

LARGEST = 900.0  # area of the biggest circle, in points squared
REACHES = [(8, 0)] + [(8, side * 7 * reach) for reach in range(1, 7) for side in (1, -1)]
OFFSETS = [(side * x, y) for x, y in REACHES for side in (1, -1)]  # of a name from its dot, the nearest first


@dataclass(frozen=True)
class Dot:
    """One arm: pictures per second, mean accuracy (0..1) with its interval, and memory as bytes."""

    name: str
    images_per_s: float
    accuracy: float
    interval: Interval | None
    memory: float


@dataclass(frozen=True)
class Panel:
    """The arms at one number of tokens."""

    tokens: int
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Line:
    """One arm's seconds and bytes at ascending numbers of tokens, with the exponents of both, None where not fitted."""

    name: str
    tokens: Sequence[int]
    seconds: Sequence[float]
    memory: Sequence[float]
    time_slope: float | None
    memory_slope: float | None


def tradeoff(panels: Sequence[Panel], lines: Sequence[Line], share_one: float | None = None) -> Figure:
    """Panels of accuracy over speed with areas for memory; below, time and memory over tokens, both logarithmic.

    Args:
        panels: each of its own number of tokens.
        lines: drawn where any has two numbers of tokens.
        share_one: number of tokens at which attention costs as much as the rest of a block, drawn as a line.

    Raises:
        ValueError: nothing to draw.
    """
    panels = [panel for panel in panels if panel.dots]
    lines = lines if any(len(line.tokens) > 1 for line in lines) else []
    if not panels and not lines:
        raise ValueError("expected at least one arm to draw, got none")
    columns = max(1, min(len(panels), 2))
    rows = -(-len(panels) // columns)
    legend = 0.17 * -(-len(lines) // 3)
    figure = new_figure(10.0, 4.4 * rows + (3.4 + legend if lines else 0))
    upper: Any = figure
    lower: Any = figure
    axes: list[Axes] = []
    if panels and lines:
        halves: Any = figure.subfigures(2, 1, height_ratios=(4.4 * rows, 3.4 + legend))
        upper, lower = halves
    if panels:
        axes = upper.subplots(rows, columns, squeeze=False).ravel().tolist()
        largest = max(dot.memory for panel in panels for dot in panel.dots)
        for place, panel in zip(axes, panels, strict=False):
            _scatter(place, panel, largest)
        for place in axes[len(panels) :]:
            place.axis("off")
    if lines:
        growth(lower, lines, share_one)
    figure.draw_without_rendering()  # what names cover is known only now
    for place, panel in zip(axes, panels, strict=False):
        _name(place, panel)
    return figure


def _scatter(axes: Axes, panel: Panel, largest: float) -> None:
    plain_axes(axes, f"{panel.tokens:,} tokens: test accuracy")
    for place, dot in enumerate(panel.dots):
        colour = COLOURS[place % len(COLOURS)]
        area = max(LARGEST * dot.memory / largest, 6.0)
        axes.scatter(dot.images_per_s, dot.accuracy, s=area, color=colour, alpha=0.35, linewidth=0)
        axes.plot(dot.images_per_s, dot.accuracy, ".", color=colour, markersize=4)
        if dot.interval is not None:
            axes.plot(
                [dot.images_per_s] * 2, [dot.interval.low, dot.interval.high], color=colour, linewidth=0.8, alpha=0.6
            )
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.12)
    accuracies = [dot.accuracy for dot in panel.dots]
    room = max(0.02, 0.25 * (max(accuracies) - min(accuracies)))
    axes.set_ylim(max(0.0, min(accuracies) - room), min(1.0, max(accuracies) + room))  # two seeds' intervals reach far
    axes.set_xlabel("images/s of a training step; area: memory", color=INK, fontsize=9)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.minorticks_off()


def _name(axes: Axes, panel: Panel) -> None:
    """Names beside their dots, where they cover neither another name nor another dot, as far as there is room."""
    centres = axes.transData.transform([(dot.images_per_s, dot.accuracy) for dot in panel.dots])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in centres]
    for dot, _ in sorted(zip(panel.dots, centres, strict=True), key=lambda pair: -pair[1][1]):
        for offset in OFFSETS:
            text = _beside(axes, dot, offset)
            text.get_window_extent()  # which moves it to its place
            box = Bbox(Text.get_window_extent(text))  # without its arrow
            if axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and not any(map(box.overlaps, taken)):
                taken.append(box)
                break
            text.remove()
        else:
            _beside(axes, dot, OFFSETS[0])


def _beside(axes: Axes, dot: Dot, offset: tuple[int, int]) -> Annotation:
    return axes.annotate(
        printable(dot.name, 40),
        (dot.images_per_s, dot.accuracy),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="center",
        fontsize=7,
        color=INK,
        arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        **name_style((dot.name,)),
    )


def growth(figure: Any, lines: Sequence[Line], share_one: float | None = None) -> None:
    """Into a figure or a part of one: time and memory over tokens, exponents in the legend. As in `tradeoff`."""
    time, memory = figure.subplots(1, 2)
    plain_axes(time, "Milliseconds per image, forward and backward")
    plain_axes(memory, "MiB per image")
    handles = []
    for place, line in enumerate(lines):
        style = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place // len(COLOURS) % len(MARKERS)],
            "markersize": 4,
            "linewidth": 1.2,
        }
        time.plot(line.tokens, [1e3 * value for value in line.seconds], **style)
        memory.plot(line.tokens, [value / 2**20 for value in line.memory], **style)
        slopes = [f"{value:.2f}" for value in (line.time_slope, line.memory_slope) if value is not None]
        label = printable(line.name, 40) + (f": N^{', N^'.join(slopes)}" if slopes else "")
        handles.append(Line2D([], [], label=label.replace("$", r"\$"), **style))
    for axes in (time, memory):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({tokens for line in lines for tokens in line.tokens})
        axes.set_xticks(ticks, [f"{tokens:,}" for tokens in ticks])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.minorticks_off()
        axes.set_xlabel("tokens N", color=INK, fontsize=9)
        if share_one is not None and ticks[0] <= share_one <= ticks[-1]:
            axes.axvline(share_one, color=QUIET, linewidth=0.8, linestyle="--")
            style = {"fontsize": 7.5, "color": QUIET, "rotation": 90, "va": "bottom", "ha": "right"}
            axes.annotate("N = 6C", (share_one, 0.02), xycoords=("data", "axes fraction"), **style)
    fonts = name_style(tuple(line.name for line in lines))["fontfamily"]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        labelcolor=INK,
        prop={"size": 7.5, "family": fonts},
        title="exponents of time and of memory, least squares on logarithms",
        title_fontsize=8,
    )
