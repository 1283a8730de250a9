"""How far attention looks, by depth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from vit.analysis.plots.canvas import BLUE, INK, QUIET, new_figure, plain_axes


def distances(layers: Sequence[ArrayLike], uniform: float | None = None) -> Figure:
    """A dot per head and a line through the layers' means.  Dosovitskiy et al. 2021, figure 7 right.

    Args:
        layers: each layer's (heads,) mean attention distances in pixels, first layer first.
        uniform: the distance of attention that looks everywhere alike, drawn as a level for comparison.
    """
    figure = new_figure(5.2, 3.4)
    axes = plain_axes(figure.subplots(), "Mean attention distance")
    heads = [np.asarray(layer, dtype=np.float64) for layer in layers]
    for depth, values in enumerate(heads, start=1):
        axes.plot(np.full(len(values), depth), values, "o", color=BLUE, markersize=5, alpha=0.7, markeredgewidth=0)
    depths = range(1, len(heads) + 1)
    axes.plot(depths, [np.nanmean(values) for values in heads], color=BLUE, linewidth=1.5, label="mean over heads")
    if uniform is not None:
        axes.axhline(uniform, color=QUIET, linestyle="--", linewidth=1, label="uniform attention")
    axes.set_xlabel("layer", color=INK, fontsize=9)
    axes.set_ylabel("pixels", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
