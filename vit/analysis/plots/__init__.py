"""Figures. Each function returns a matplotlib Figure and leaves no global state; ``figure.savefig(path)`` writes it."""

from vit.analysis.plots.additive import additive_steps
from vit.analysis.plots.depth import distances, heads
from vit.analysis.plots.learning import curves
from vit.analysis.plots.matrix import confusion
from vit.analysis.plots.pictures import overlay, overlays, reconstructions, samples, visible
from vit.analysis.plots.scatter import scatter
from vit.analysis.plots.series import lines
from vit.analysis.plots.sheets import matrices

__all__ = [
    "additive_steps",
    "confusion",
    "curves",
    "distances",
    "heads",
    "lines",
    "matrices",
    "overlay",
    "overlays",
    "reconstructions",
    "samples",
    "scatter",
    "visible",
]
