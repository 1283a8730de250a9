"""What dividing scores by sqrt(d) does."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Saturation(NamedTuple):
    """Softmax over scores of random queries and keys of one width.

    Attributes:
        width: d.
        spread: standard deviation of the scores.
        largest: the largest weight of a query, mean over queries: 1 is saturated.
        slope: sum of |d weight / d score| over a row, mean over queries: what is left for learning.
    """

    width: int
    spread: float
    largest: float
    slope: float


def saturation(widths: Sequence[int], scaled: bool, keys: int = 64, queries: int = 512) -> list[Saturation]:
    """For entries of variance 1, as after a fresh projection; ``scaled``: divided by sqrt(d)."""
    generator, found = torch.Generator().manual_seed(0), []
    for width in widths:
        q = torch.randn(queries, width, generator=generator, dtype=torch.float64)
        k = torch.randn(keys, width, generator=generator, dtype=torch.float64)
        scores = q @ k.mT * (width**-0.5 if scaled else 1.0)
        weights = scores.softmax(dim=-1)
        # row of |diag(w) - w w^T| sums to 2 w (1 - w)
        slope = (2 * weights * (1 - weights)).sum(dim=-1).mean()
        found.append(Saturation(width, scores.std().item(), weights.amax(dim=-1).mean().item(), slope.item()))
    return found
