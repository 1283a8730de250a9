"""The confusion matrix, readable from 2 to 100 classes."""

from collections.abc import Sequence
from math import ceil

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vit.analysis.plots.canvas import INK, name_style, new_figure, printable

NO_PICTURES = "#e3e3e3"


def confusion(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Confusion matrix as shares of each true class, with counts up to 20 classes; the largest mistakes in words.

    Args:
        matrix: (k k) counts, row the true class, column the predicted one. A class without pictures has a grey row.
        classes: the k names, any script.

    Raises:
        ValueError: the matrix is not k by k.
    """
    counts, k = np.asarray(matrix, dtype=np.float64), len(classes)
    if counts.shape != (k, k):
        raise ValueError(f"expected a {k} x {k} confusion matrix for {k} classes, got shape {counts.shape}")
    totals = counts.sum(1, keepdims=True)
    shares = np.ma.masked_where(np.broadcast_to(totals == 0, counts.shape), counts / np.maximum(totals, 1))
    names = tuple(printable(name) for name in classes)
    inches = 0.45 if k <= 20 else 0.25  # of a class: room for counts, or else as little as leaves its name readable
    side, margin = float(np.clip(1.5 + inches * k, 3.5, 14)), 0.5 + 0.08 * max(map(len, names), default=0)
    figure = new_figure(side + margin + 1.3, side + margin + 1.0)
    axes = figure.subplots()
    # the square root lifts the small shares, which are the mistakes
    image = axes.imshow(
        shares, cmap=matplotlib.colormaps["Blues"].with_extremes(bad=NO_PICTURES), norm=PowerNorm(0.5, 0, 1)
    )
    colorbar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    colorbar.ax.set_yticklabels(["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=9)
    colorbar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    colorbar.set_label("share of the true class", color=INK, fontsize=9)
    _name_sides(axes, names)
    if k <= 20:
        _write_counts(axes, counts, shares)
    accuracy = f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % of {counts.sum():,.0f} right"
    axes.set_title(accuracy + _worst_mistakes(counts, names), loc="left", fontsize=10, color=INK, **name_style(names))
    return figure


def _name_sides(axes: Axes, names: tuple[str, ...]) -> None:
    every = ceil(len(names) / 100)
    places = range(0, len(names), every)
    size = float(np.clip(110 / len(places) + 4, 5.5, 10))
    style = {"fontsize": size, "color": INK, **name_style(names)}
    upright = sum(map(len, names)) > 30
    axes.set_xticks(places, names[::every], rotation=90 if upright else 0, **style)
    axes.set_yticks(places, names[::every], **style)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: Axes, counts: NDArray[np.float64], shares: np.ma.MaskedArray) -> None:
    size = float(np.clip(130 / len(counts), 6, 11))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.35 else INK
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=size, color=ink)


def _worst_mistakes(counts: NDArray[np.float64], names: tuple[str, ...]) -> str:
    mistakes = counts - np.diag(np.diag(counts))
    worst = [np.unravel_index(place, counts.shape) for place in np.argsort(-mistakes, axis=None, kind="stable")[:3]]
    lines = [f"{names[t]} taken for {names[p]}: {mistakes[t, p]:.0f}" for t, p in worst if mistakes[t, p]]
    return "".join(f"\n{line}" for line in lines)
