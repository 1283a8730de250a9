"""Intervals and tests for what experiments measure."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

MIN_SEEDS = 6  # the fewest with which a sign-flip test can fall below 5 %: 2 / 2^6 = 3.1 %
EXACT = 16  # up to here all 2^n signs are tried
DRAWS = 100_000


class Interval(NamedTuple):
    """An estimate and its interval: 95 % unless said."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion.  Wilson 1927.

    Raises:
        ValueError: ``n`` is not positive, or ``successes`` lies outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share, width = successes / n, z * z / n
    centre = (share + width / 2) / (1 + width)
    half = z / (1 + width) * sqrt(share * (1 - share) / n + width / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """How many standard errors a two-sided interval reaches each way, by degrees of freedom.  Student 1908."""
    from scipy.special import stdtrit  # a third of a second

    return float(stdtrit(freedom, (1 + confidence) / 2))


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """t interval of a mean.

    Simulated 95 % intervals at n = 6 and n = 10 hold the mean in 95 % (normal noise, to within 2 %); noise as skewed as
    a gamma of shape 4 (skewness 1) takes off a little.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a ``confidence`` outside (0, 1).
    """
    values = finite_list(values, least=2)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    mean = float(values.mean())
    half = t_quantile(len(values) - 1, confidence) * float(values.std(ddof=1)) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of paired differences having mean 0: the share of sign choices with as large a sum.  Fisher 1935.

    Exact up to 16 differences, beyond from 100,000 seeded draws, the observed signs among them.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    values = finite_list(differences, least=1)
    if len(values) <= EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        draws = np.random.default_rng(0).integers(0, 2, (DRAWS - 1, len(values)), dtype=np.int8)
        sums = np.append(values.sum(), (2 * draws - 1) @ values)
    rounding = 1e-12 * np.abs(values).sum()  # sums that are equal on paper count as equal
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - rounding))


def smallest_p(n: int) -> float:
    """The smallest p that `sign_flip` can reach with ``n`` differences: 2 / 2^n.

    Raises:
        ValueError: ``n`` below 1.
    """
    if n < 1:
        raise ValueError(f"expected at least 1 difference, got {n}")
    return 2.0 ** (1 - n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values, adjusted so that one below 5 % is a 5 % claim over the whole table, in the order given.  Holm 1979.

    Raises:
        ValueError: one is no probability.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values must lie in [0, 1], got {list(p_values)}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def finite_list(values: ArrayLike, least: int) -> Float[np.ndarray, " n"]:
    """As a float64 vector.

    Raises:
        ValueError: not one axis, fewer than ``least``, or one that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < least:
        raise ValueError(f"expected a list of at least {least} values, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite values, got {values[~np.isfinite(values)][0]}")
    return values
