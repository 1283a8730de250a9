"""Figures. Each function returns a matplotlib Figure and leaves no global state; ``figure.savefig(path)`` writes it."""

from vit.analysis.plots.depth import distances
from vit.analysis.plots.learning import curves
from vit.analysis.plots.matrix import confusion
from vit.analysis.plots.pictures import overlay, overlays, reconstructions, samples, visible

__all__ = ["confusion", "curves", "distances", "overlay", "overlays", "reconstructions", "samples", "visible"]
