"""Additive attention in the order it is computed."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vit.analysis.plots.canvas import BLUE, INK, QUIET, new_figure, plain_axes


def additive_steps(hidden: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> Figure:
    """Three rows over the tokens: the hidden layer (tokens channels), its scores, their softmax with the level 1 / n.

    Raises:
        ValueError: numbers of tokens that differ.
    """
    layer, score, weight = (np.asarray(part, dtype=np.float64) for part in (hidden, scores, weights))
    if not len(layer) == len(score) == len(weight):
        raise ValueError(
            f"expected as many scores and weights as tokens, got {len(score)} and {len(weight)} for {len(layer)} tokens"
        )
    figure = new_figure(8.0, 4.6)
    first, second, third = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    plain_axes(first, "1  hidden: tanh(W q + U k)").grid(False)
    drawn = first.imshow(layer.T, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    first.set_ylabel("channel", color=INK, fontsize=9)
    bar = figure.colorbar(drawn, ax=first, aspect=12, ticks=[-1, 0, 1])
    bar.ax.tick_params(labelsize=8)
    tokens = np.arange(len(score))
    plain_axes(second, "2  scores: w . hidden").bar(tokens, score, color=BLUE, width=0.8)
    plain_axes(third, "3  weights: softmax of the scores").bar(tokens, weight, color=BLUE, width=0.8)
    third.axhline(1 / len(weight), color=QUIET, linestyle="--", linewidth=1)
    third.set_xlabel("token", color=INK, fontsize=9)
    return figure
