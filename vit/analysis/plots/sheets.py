"""Sheets of matrices and of maps over the patch grid, each on its own scale."""

from collections.abc import Mapping
from math import ceil

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vit.analysis.plots.canvas import INK, QUIET, name_style, new_figure, printable

SHARES, SIGNED = "Blues", "RdBu_r"
"""Colours of what is never negative, white for nothing, and of what can be, white in the middle."""


def matrices(named: Mapping[str, ArrayLike], columns: int = 6, side: float = 1.6) -> Figure:
    """A sheet of matrices or maps (rows columns), by name; a line break in a name makes a second line.

    White is nothing and the strongest colour the largest absolute value, of each for itself; where any weight is
    negative, blue is below zero and red above. Beneath each stands its largest absolute value.

    Raises:
        ValueError: nothing to draw.
    """
    if not named:
        raise ValueError("expected at least one matrix to draw, got none")
    columns = min(columns, len(named))
    rows = ceil(len(named) / columns)
    deepest = max(name.count("\n") for name in named)
    figure = new_figure((side + 0.15) * columns, (side + 0.5 + 0.15 * deepest) * rows)
    sheet = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in sheet:
        axes.set_axis_off()
    for axes, (name, given) in zip(sheet, named.items(), strict=False):
        matrix = np.asarray(given, dtype=np.float64)
        most = float(np.abs(matrix).max())
        signed = bool((matrix < -1e-6 * most).any())
        axes.set_axis_on()
        axes.imshow(
            matrix,
            cmap=SIGNED if signed else SHARES,
            vmin=-(most or 1.0) if signed else 0.0,
            vmax=most or 1.0,
            interpolation="nearest",
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(QUIET)
        title = "\n".join(printable(line, 28) for line in name.split("\n"))
        axes.set_title(title, fontsize=8, color=INK, **name_style((title,)))
        axes.set_xlabel(f"max {most:.2g}", fontsize=7, color=QUIET, labelpad=2)
    return figure
