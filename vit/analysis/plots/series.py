"""Lines over one axis."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from vit.analysis.plots.canvas import INK, QUIET, new_figure, plain_axes, printable
from vit.analysis.plots.scaling import COLOURS, MARKERS


def lines(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    over: Sequence[float],
    label: str,
    level: float | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """A panel for each title, in it a line for each name.

    Args:
        panels: values by name by title, each as long as ``over``.
        over: the horizontal axis.
        label: of the horizontal axis.
        level: accuracy by chance, drawn in every panel, whose vertical axes then go from 0 to 1.
        log_x: whether the horizontal axis is logarithmic, to the base of 2.
        log_y: whether the vertical axis is logarithmic.

    Raises:
        ValueError: nothing to draw, or values of another length than ``over``.
    """
    lengths = {len(values) for named in panels.values() for values in named.values()}
    if lengths != {len(over)}:
        raise ValueError(f"expected panels whose lines have {len(over)} values each, got lengths {sorted(lengths)}")
    figure = new_figure(4.6 * len(panels), 3.3)
    for axes, (title, named) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        plain_axes(axes, title)
        for place, (name, values) in enumerate(named.items()):
            style = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "markersize": 4}
            axes.plot(over, values, linewidth=1.5, label=printable(name, 40), **style)
        if level is not None:
            axes.axhline(level, color=QUIET, linestyle="--", linewidth=1, label="chance")
            axes.set_ylim(0, 1.05)
        if log_x:
            axes.set_xscale("log", base=2)
        axes.set_xticks(over, [f"{value:,g}" for value in over])
        if log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.minorticks_off()
        axes.set_xlabel(label, color=INK, fontsize=9)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure
