"""Learning curves over the number of training images: what each arm reaches, where arms cross, what a run costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit.analysis.plots.canvas import INK, QUIET, name_style, new_figure, plain_axes, printable
from vit.analysis.scaling import PowerLaw
from vit.analysis.statistics import mean_interval

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Told apart without red or green. Okabe and Ito 2008."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
REACH = 2
"""How far beyond the largest measured size a fit is drawn, as a factor."""


@dataclass(frozen=True)
class Curve:
    """One arm: ascending ``sizes``, each size's accuracies (0..1, one per seed) and median minutes of a run."""

    name: str
    sizes: Sequence[int]
    accuracies: Sequence[Sequence[float]]
    minutes: Sequence[float]
    fit: PowerLaw | None = None


@dataclass(frozen=True)
class Span:
    """Where one arm overtakes another: an interval of sizes, an open end is None."""

    label: str
    low: float | None
    value: float | None
    high: float | None


def accuracy_by_size(curves: Sequence[Curve], spans: Sequence[Span] = ()) -> Figure:
    """Test accuracy over images on the left, minutes per run on the right, crossings in a strip above.

    A dot is one seed, a line the mean with its 95 % t interval. A power law is dashed between the measured sizes, and
    dotted with its band from there to twice the largest.

    Raises:
        ValueError: no curve, or a curve whose columns differ in length or are empty.
    """
    _check(curves)
    figure = new_figure(9.0, 4.2 + 0.36 * len(spans))
    panels = figure.subplot_mosaic(
        [["strip", "strip side"], ["accuracy", "cost"]] if spans else [["accuracy", "cost"]],
        width_ratios=(2, 1),
        height_ratios=(0.36 * len(spans), 3.6) if spans else (1,),
    )
    accuracy, cost = plain_axes(panels["accuracy"]), plain_axes(panels["cost"], "Minutes per run (median)")
    styles = _styles(curves)
    for curve, style in zip(curves, styles, strict=True):
        _draw_accuracy(accuracy, curve, style)
        cost.plot(curve.sizes, curve.minutes, **style)
    _scale(accuracy, cost, curves)
    if spans:
        panels["strip side"].axis("off")
        panels["strip"].set_title("Test accuracy", loc="left", fontsize=11, color=INK, fontweight="bold")
        _draw_spans(panels["strip"], accuracy, spans)
    else:
        accuracy.set_title("Test accuracy", loc="left", fontsize=11, color=INK, fontweight="bold")
    handles = _handles(accuracy, curves)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 5),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        prop={"size": 9, "family": name_style(tuple(curve.name for curve in curves))["fontfamily"]},
    )
    return figure


def _check(curves: Sequence[Curve]) -> None:
    if not curves:
        raise ValueError("expected at least one arm to draw, got none")
    for curve in curves:
        lengths = len(curve.sizes), len(curve.accuracies), len(curve.minutes)
        if len(set(lengths)) > 1 or not all(lengths) or not all(map(len, curve.accuracies)):
            raise ValueError(f"{curve.name}: expected sizes, accuracies and minutes of one length, got {lengths}")


def _styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    return [
        {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.6,
            "label": printable(curve.name).replace("$", r"\$"),
        }
        for place, curve in enumerate(curves)
    ]


def _draw_accuracy(axes: Axes, curve: Curve, style: dict[str, Any]) -> None:
    colour, largest = style["color"], max(curve.sizes)
    for size, values in zip(curve.sizes, curve.accuracies, strict=True):
        axes.plot([size] * len(values), values, "o", color=colour, markersize=3.5, alpha=0.3, markeredgewidth=0)
    axes.plot(curve.sizes, [float(np.mean(values)) for values in curve.accuracies], **style)
    banded = [(n, mean_interval(v)) for n, v in zip(curve.sizes, curve.accuracies, strict=True) if len(v) > 1]
    if banded:
        sizes, intervals = zip(*banded, strict=True)
        low, high = [i.low for i in intervals], [i.high for i in intervals]
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    if curve.fit is not None:
        inside = np.geomspace(min(curve.fit.sizes), max(curve.fit.sizes), 60)
        axes.plot(inside, [1 - curve.fit.error(n) for n in inside], "--", color=colour, linewidth=1.2, alpha=0.8)
        end = REACH * max(curve.fit.sizes)
        beyond = np.geomspace(largest, end, 12).clip(max=end)
        bands = [curve.fit.band(n) for n in beyond]
        axes.plot(beyond, [1 - band.value for band in bands], ":", color=colour, linewidth=2.2)
        low, high = [1 - band.high for band in bands], [1 - band.low for band in bands]
        axes.fill_between(beyond, low, high, facecolor="none", edgecolor=colour, hatch="////", alpha=0.35, linewidth=0)


def _scale(accuracy: Axes, cost: Axes, curves: Sequence[Curve]) -> None:
    sizes = sorted({size for curve in curves for size in curve.sizes})
    reach = REACH if any(curve.fit for curve in curves) else 1
    right = sizes[-1] * reach
    margin = max(right / sizes[0], 2) ** 0.04
    for axes in (accuracy, cost):
        axes.set_xscale("log")
        axes.set_xlabel("training images", color=INK, fontsize=9)
        axes.minorticks_off()
    accuracy.set_xlim(sizes[0] / margin, right * margin)
    cost.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    low, high = accuracy.get_ylim()
    accuracy.set_ylim(max(low, 0.0), min(high, 1.0))  # two seeds have an interval far beyond what can be
    accuracy.set_xticks(shown := _apart(sizes, 7), [f"{size:,}" for size in shown])
    cost.set_xticks(shown := _apart(sizes, 3), [f"{size:,}" for size in shown])
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    minutes = [value for curve in curves for value in curve.minutes if value > 0]
    if minutes and max(minutes) > 20 * min(minutes):
        cost.set_yscale("log")
        cost.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        cost.minorticks_off()
    else:
        cost.set_ylim(bottom=0)
    if reach > 1:
        accuracy.axvline(sizes[-1], color=QUIET, linewidth=0.8)
        accuracy.annotate(
            "not measured", (0.995, 0.02), xycoords="axes fraction", ha="right", va="bottom", fontsize=7.5, color=QUIET
        )


def _apart(sizes: Sequence[int], most: int) -> list[int]:
    """Those of the sizes whose labels do not touch: from the largest down, a share of the axis between any two."""
    gap = log(max(sizes[-1] / sizes[0], 2)) / most
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if log(kept[-1] / size) >= gap:
            kept.append(size)
    return kept[::-1]


def _draw_spans(strip: Axes, axes: Axes, spans: Sequence[Span]) -> None:
    """A row for each: the interval as a bar, its best value as a stroke, in words above; shaded in ``axes``."""
    strip.set(xscale="log", xlim=axes.get_xlim(), ylim=(len(spans), 0))
    strip.minorticks_off()
    strip.spines[:].set_visible(False)
    strip.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    left, right = axes.get_xlim()
    for row, span in enumerate(spans):
        low, high = span.low or left, span.high or right
        axes.axvspan(low, high, color=INK, alpha=0.07, linewidth=0)
        strip.plot([low, high], [row + 0.75] * 2, color=INK, linewidth=4, alpha=0.35, solid_capstyle="butt")
        if span.value is not None:
            strip.plot(span.value, row + 0.75, "|", color=INK, markersize=8, markeredgewidth=2)
        early = (low * high) ** 0.5 < (left * right) ** 0.5
        place, side = (low, "left") if early else (high, "right")
        # beside the strip is room: a long label shall not narrow the panel below
        style = {"fontsize": 9, "color": INK, "in_layout": False, **name_style((span.label,))}
        strip.text(place, row + 0.5, printable(span.label, 90), ha=side, va="bottom", **style)


def _handles(axes: Axes, curves: Sequence[Curve]) -> list[Any]:
    """The arms' lines, and a stroke for what the legend has to explain once."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    if any(curve.fit for curve in curves):
        lines += axes.plot([], [], "--", color=QUIET, linewidth=1.2, label="power law")
        lines += axes.plot([], [], ":", color=QUIET, linewidth=2.2, label="its extrapolation, with band")
    return lines
