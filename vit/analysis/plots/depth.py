"""Numbers per head, by depth: how far attention looks, and others."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from vit.analysis.plots.canvas import BLUE, INK, QUIET, new_figure, plain_axes

Panel = tuple[Sequence[ArrayLike], float | None]
"""Each layer's (heads,) numbers, first layer first, and the level of uniform attention, None for none."""


def distances(layers: Sequence[ArrayLike], uniform: float | None = None) -> Figure:
    """A dot per head and a line through the layers' means.  Dosovitskiy et al. 2021, figure 7 right.

    Args:
        layers: each layer's (heads,) mean attention distances in pixels, first layer first.
        uniform: the distance of attention that looks everywhere alike, drawn as a level for comparison.
    """
    figure = new_figure(5.2, 3.4)
    axes = figure.subplots()
    _draw(axes, "Mean attention distance", layers, uniform)
    axes.set_ylabel("pixels", color=INK, fontsize=9)
    return figure


def heads(panels: Mapping[str, Panel]) -> Figure:
    """A panel for each title, drawn as `distances`.

    Raises:
        ValueError: nothing to draw.
    """
    if not panels:
        raise ValueError("expected at least one panel to draw, got none")
    figure = new_figure(3.6 * len(panels), 3.2)
    for axes, (title, (layers, uniform)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        _draw(axes, title, layers, uniform)
    return figure


def _draw(axes: Axes, title: str, layers: Sequence[ArrayLike], uniform: float | None) -> None:
    plain_axes(axes, title)
    values = [np.asarray(layer, dtype=np.float64) for layer in layers]
    for depth, dots in enumerate(values, start=1):
        axes.plot(np.full(len(dots), depth), dots, "o", color=BLUE, markersize=5, alpha=0.7, markeredgewidth=0)
    depths = range(1, len(values) + 1)
    axes.plot(depths, [np.nanmean(dots) for dots in values], color=BLUE, linewidth=1.5, label="mean over heads")
    if uniform is not None:
        axes.axhline(uniform, color=QUIET, linestyle="--", linewidth=1, label="uniform attention")
    axes.set_xlabel("layer", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
