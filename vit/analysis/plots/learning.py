"""Learning curves of a run, from its ``metrics.csv``."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vit.analysis.plots.canvas import BLUE, GREEN, INK, ORANGE, new_figure, plain_axes

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
PANELS = {
    "Loss": ("train/loss_step", "train/loss", "val/loss"),
    "Accuracy": ("train/acc", "val/acc"),
    "Probes": ("probe/knn", "probe/linear"),
    "Learning rate": ("lr",),
}
COLOURS = {"train": ORANGE, "val": BLUE, "lr": GREEN, "knn": BLUE, "linear": ORANGE}
MANY = 60
"""Points from which a curve is drawn without a dot for each."""


def curves(path: str | Path) -> Figure:
    """Loss, accuracy, probes and learning rate over epochs, from the ``metrics.csv`` that a run writes.

    Reads ``epoch``, ``step`` and the columns in `PANELS`; empty cells and absent columns are left out. Without any
    validation the x axis counts steps.

    Raises:
        ValueError: the file has no rows, or none of these columns.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps_per_epoch = _steps_per_epoch(rows)
    names = list(rows[0]) if rows else []
    series = {name: points for name in names if len((points := _series(rows, name, steps_per_epoch or 1.0))[0])}
    panels = {
        title: found for title, names in PANELS.items() if (found := {n: series[n] for n in names if n in series})
    }
    if not panels:
        raise ValueError(
            f"{path}: expected rows with train/loss, val/loss, val/acc or lr, got columns {names or 'none'}"
        )
    unit = "epoch" if steps_per_epoch else "step"
    figure = new_figure(4.4 * len(panels), 3.4)
    row = figure.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for axes, (title, found) in zip(row, panels.items(), strict=True):
        _draw_panel(plain_axes(axes, title), found)
        axes.set_xlabel(unit, color=INK, fontsize=9)
        if "val/acc" in found:
            _mark_best(axes, *found["val/acc"], unit)
    return figure


def _steps_per_epoch(rows: list[dict[str, str]]) -> float | None:
    """From the last validated row, which closes its epoch: exact also when an earlier epoch was cut short."""
    closing = [row for row in rows if row.get("val/loss") and row.get("epoch") and row.get("step")]
    return (float(closing[-1]["step"]) + 1) / (float(closing[-1]["epoch"]) + 1) if closing else None


def _series(rows: list[dict[str, str]], name: str, steps_per_epoch: float) -> Series:
    points = sorted((int(row["step"]), float(row[name])) for row in rows if row.get(name) and row.get("step"))
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return (steps + 1) / steps_per_epoch, values


def _draw_panel(axes: Axes, found: dict[str, Series]) -> None:
    for name, (x, y) in found.items():
        split = name.removeprefix("probe/").split("/")[0]
        if name == "train/loss_step" and "train/loss" in found:
            axes.plot(x, y, color=COLOURS[split], alpha=0.3, linewidth=0.8)
            continue
        dots = "o" if len(x) == 1 or (len(x) <= MANY and split != "lr") else None
        axes.plot(x, y, color=COLOURS[split], linewidth=1.8, marker=dots, markersize=3, label=split)
    if "lr" not in found:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)


def _mark_best(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], unit: str) -> None:
    if not np.isfinite(y).any():
        return
    best = int(np.nanargmax(y))
    axes.plot(x[best], y[best], "o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
    note = f"best {100 * y[best]:.1f} % at {unit} {x[best]:.0f}"
    axes.annotate(note, (1, 0.04), xycoords="axes fraction", ha="right", fontsize=9, color=INK)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
