"""Points of a plane, coloured by class."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vit.analysis.plots.canvas import INK, name_style, new_figure, plain_axes, printable


def scatter(
    panels: Sequence[tuple[str, ArrayLike]],
    labels: ArrayLike,
    names: Sequence[str],
    vectors: ArrayLike | None = None,
) -> Figure:
    """Panels of the same pictures as points (n 2), each with its title; a colour and a number for each class.

    Args:
        panels: title and points of each.
        labels: (n,) classes.
        names: of the classes.
        vectors: (k 2) of the classes, drawn from the origin of the first panel, the longest as long as points lie far.

    Raises:
        ValueError: no panel, points that are not n pairs, labels without a name, or not a vector for each name.
    """
    if not panels:
        raise ValueError("expected a panel or more, got none")
    labels = np.asarray(labels)
    spread = [(title, np.asarray(points, dtype=np.float64)) for title, points in panels]
    for _, points in spread:
        if points.shape != (len(labels), 2):
            raise ValueError(f"expected points ({len(labels)}, 2), one for each label, got {points.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"expected labels 0 to {len(names) - 1}, got {labels.min()} to {labels.max()}")
    arrows = None if vectors is None else np.asarray(vectors, dtype=np.float64)
    if arrows is not None and arrows.shape != (len(names), 2):
        raise ValueError(f"expected a vector (2,) for each of {len(names)} classes, got {arrows.shape}")
    figure = new_figure(5.2 * len(spread) + 1.4, 4.6)
    handles = []
    colours = matplotlib.colormaps["tab20" if len(names) > 10 else "tab10"]
    for number, (axes, (title, points)) in enumerate(
        zip(figure.subplots(1, len(spread), squeeze=False)[0], spread, strict=True)
    ):
        plain_axes(axes, title).grid(False)
        for label in range(len(names)):
            own, colour = points[labels == label], colours(label % colours.N)
            dots = axes.scatter(*own.T, s=14, color=colour, alpha=0.7, linewidths=0)
            handles = [*handles, dots] if number == 0 else handles
            if number == 0 and arrows is not None:
                tip = arrows[label] * _as_far(arrows, points)
                axes.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8})
                axes.annotate(str(label), 1.1 * tip, color=INK, fontsize=9, ha="center", va="center")
                axes.update_datalim([1.2 * tip])
        axes.autoscale_view()
    style = {"family": name_style(tuple(names))["fontfamily"], "size": 8}
    texts = [f"{label}  {printable(name)}" for label, name in enumerate(names)][:20]
    figure.legend(handles[:20], texts, loc="outside right center", prop=style, frameon=False, markerscale=1.6)
    return figure


def _as_far(vectors: np.ndarray, points: np.ndarray) -> float:
    """The factor that makes the longest vector as long as the farthest tenth of the points lies from the origin."""
    longest = np.linalg.norm(vectors, axis=1).max(initial=0.0)
    return float(np.quantile(np.linalg.norm(points, axis=1), 0.9) / longest) if len(points) and longest else 1.0
