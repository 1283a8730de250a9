"""Accuracy of each pretrained start after finetuning, and what its frozen features told before, target by target."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vit.analysis.plots.canvas import INK, QUIET, name_style, new_figure, plain_axes, printable
from vit.analysis.plots.scaling import COLOURS
from vit.analysis.statistics import Interval

TUNED, FROZEN = COLOURS[0], COLOURS[1]


@dataclass(frozen=True)
class Bar:
    """One start: test accuracies (0..1) of its seeds with their mean's interval, and the interval of its probe."""

    name: str
    accuracies: Sequence[float]
    interval: Interval | None
    probe: Interval | None


@dataclass(frozen=True)
class Target:
    """What was finetuned on one data set."""

    name: str
    bars: Sequence[Bar]


def transfer(targets: Sequence[Target]) -> Figure:
    """A panel for each target, a line for each start: seeds as dots, means with 95 % t intervals.

    Raises:
        ValueError: nothing to draw.
    """
    targets = [target for target in targets if target.bars]
    if not targets:
        raise ValueError("expected at least one start to draw, got none")
    names = list(dict.fromkeys(bar.name for target in targets for bar in target.bars))
    figure = new_figure(min(4.0 + 3.2 * len(targets), 16.0), 1.4 + 0.34 * len(names))
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False).ravel()
    for axes, target in zip(panels, targets, strict=True):
        _panel(axes, target, names)
    panels[0].set_yticks(range(len(names)), [printable(name, 40) for name in names], **name_style(tuple(names)))
    panels[0].invert_yaxis()
    handles = [
        Line2D([], [], color=TUNED, marker="o", markersize=5, label="finetuned"),
        Line2D([], [], color=FROZEN, marker="D", markersize=4, label="a linear map of its frozen features"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=8)
    return figure


def _panel(axes: Axes, target: Target, names: Sequence[str]) -> None:
    plain_axes(axes, f"{target.name}: test accuracy")
    for bar in target.bars:
        place = names.index(bar.name)
        axes.plot(bar.accuracies, [place] * len(bar.accuracies), ".", color=TUNED, alpha=0.35, markersize=5)
        if bar.interval is not None:
            axes.plot([bar.interval.low, bar.interval.high], [place] * 2, color=TUNED, linewidth=1.6)
            axes.plot(bar.interval.value, place, "o", color=TUNED, markersize=5)
        if bar.probe is not None:
            below = place + 0.28
            axes.plot([bar.probe.low, bar.probe.high], [below] * 2, color=FROZEN, linewidth=1.2)
            axes.plot(bar.probe.value, below, "D", color=FROZEN, markersize=3.5)
        axes.axhline(place + 0.5, color=QUIET, linewidth=0.3, alpha=0.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
