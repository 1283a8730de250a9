"""Figures. Each function returns a matplotlib Figure and leaves no global state; ``figure.savefig(path)`` writes it."""

from vit.analysis.plots.learning import curves
from vit.analysis.plots.matrix import confusion

__all__ = ["confusion", "curves"]
