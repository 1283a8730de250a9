"""Learning curves of a run, from the table Lightning's CSV logger writes."""

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vit.analysis.plots.canvas import BLUE, GREEN, INK, ORANGE, new_figure, plain_axes

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
MANY = 60
"""Points from which a curve is drawn as a faint line with its running mean on top."""


def curves(path: str | Path) -> Figure:
    """Loss, accuracy and learning rate over epochs, from the ``metrics.csv`` of Lightning's CSV logger.

    Reads ``epoch``, ``step``, ``train/loss``, ``val/loss``, ``train/acc``, ``val/acc`` and ``lr``; empty cells
    and absent columns are left out. Without any validation the x axis counts steps.

    Raises:
        ValueError: the file has no rows, or none of these columns.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps_per_epoch = _steps_per_epoch(rows)
    series = {name: _series(rows, name, steps_per_epoch or 1.0) for name in rows[0]} if rows else {}
    panels = [
        (title, found)
        for title, names in (
            ("Loss", ("train/loss", "val/loss")),
            ("Accuracy", ("train/acc", "val/acc")),
            ("Learning rate", ("lr",)),
        )
        if (found := {name: series[name] for name in names if name in series and len(series[name][0])})
    ]
    if not panels:
        raise ValueError(
            f"{path}: expected rows with train/loss, val/loss, val/acc or lr; found {list(series) or 'none'}"
        )
    unit = "epoch" if steps_per_epoch else "step"
    figure = new_figure(4.4 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, found) in zip(axes, panels, strict=True):
        _draw_panel(plain_axes(panel, title), found, unit)
        panel.set_xlabel(unit, color=INK, fontsize=9)
    return figure


def _number(cell: str | None) -> float:
    return float(cell) if cell else float("nan")


def _steps_per_epoch(rows: list[dict[str, str]]) -> float | None:
    """From the last validated row, which closes its epoch: exact also when an earlier epoch was cut short."""
    closing = [row for row in rows if row.get("val/loss") and row.get("epoch")]
    return (float(closing[-1]["step"]) + 1) / (float(closing[-1]["epoch"]) + 1) if closing else None


def _series(rows: list[dict[str, str]], name: str, steps_per_epoch: float) -> Series:
    points = sorted((int(row["step"]), _number(row[name])) for row in rows if row.get(name) and row.get("step"))
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return (steps + 1) / steps_per_epoch, values


def _draw_panel(axes: Axes, found: dict[str, Series], unit: str) -> None:
    colours = {"train": ORANGE, "val": BLUE, "lr": GREEN}
    for name, (x, y) in found.items():
        split = name.split("/")[0]
        dots = "o" if len(x) == 1 or (len(x) <= MANY and split != "lr") else None
        if len(x) > MANY and split == "train":
            axes.plot(x, y, color=colours[split], alpha=0.25, linewidth=0.8)
            x, y = _running_mean(x, y)
        axes.plot(x, y, color=colours[split], linewidth=1.8, marker=dots, markersize=3, label=split)
    if "val/acc" in found:
        _mark_best(axes, *found["val/acc"], unit)
    if "lr" not in found:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)


def _running_mean(x: NDArray[np.float64], y: NDArray[np.float64]) -> Series:
    """Mean of each of up to 30 equal stretches, at the mean position."""
    edges = np.linspace(0, len(x), min(MANY // 2, len(x)) + 1).astype(int)
    return (
        np.array([x[a:b].mean() for a, b in pairwise(edges)]),
        np.array([np.nanmean(y[a:b]) if np.isfinite(y[a:b]).any() else np.nan for a, b in pairwise(edges)]),
    )


def _mark_best(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], unit: str) -> None:
    if not np.isfinite(y).any():
        return
    best = int(np.nanargmax(y))
    axes.plot(x[best], y[best], "o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
    note = f"best {100 * y[best]:.1f} % at {unit} {x[best]:.0f}"
    axes.annotate(note, (1, 0.04), xycoords="axes fraction", ha="right", fontsize=9, color=INK)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
