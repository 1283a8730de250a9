"""Error against the number of training pictures: where one arm overtakes another, and what more pictures would bring.

Errors are (seeds, sizes) in 0..1; a row is a seed, the same one in every arm. Both answers invert a t test over seeds, so
no noise model is needed: rows may correlate between sizes, and the noise may fall with size.
"""

from collections.abc import Callable, Sequence
from math import exp, inf, log, sqrt
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from vit.analysis.statistics import MIN_SEEDS, Interval, t_quantile

Errors = Float[np.ndarray, "seeds sizes"]
Sizes = Float[np.ndarray, " sizes"]
Values = Float[np.ndarray, " values"]
Verdict = Literal["overtakes", "falls behind", "ahead throughout", "behind throughout", "undecided"]

EXPONENTS = np.geomspace(0.01, 2, 160)


class Crossing(NamedTuple):
    """Where the order of two arms changes, in pictures; ``low`` None: open at the small end, ``high``: at the large."""

    verdict: Verdict
    low: float | None
    value: float | None
    high: float | None


def crossing(sizes: Sequence[int], first: ArrayLike, second: ArrayLike) -> Crossing:
    """At which size ``first`` overtakes ``second`` (or falls behind it), from errors paired by seed.

    Per-seed differences, second - first, are taken as linear in log n between measured sizes. The interval holds every n
    where the 95 % t interval of their mean holds 0, which covers the one true crossing in 95 % where that line is true.

    A size counts as ahead or behind where that t interval leaves 0 out. With both kinds, "overtakes" needs all behind
    before all ahead, and one of each so clear that sizes of no difference show it in at most 5 % (Bonferroni over the
    sizes, one-sided); the interval runs from the last behind to the first ahead, its value is where the mean crosses 0
    (the middle place, of several), and what happens outside is not claimed. "falls behind" mirrors it. "throughout"
    needs every size. All else is "undecided": the order changes more than once or not clearly, or the arms are equal.
    Then there is no value, but where one order holds up to some size, ``low`` says which, and where one holds from some
    size on, ``high`` does. Fewer than `MIN_SEEDS` seeds decide nothing.

    Raises:
        ValueError: sizes not ascending, or errors that are not (seeds, sizes) in 0..1 and of one shape.
    """
    places = _log_sizes(sizes)
    better, worse = _errors(first, places, "first"), _errors(second, places, "second")
    if better.shape != worse.shape:
        raise ValueError(f"expected errors paired by seed, got {len(better)} seeds of first and {len(worse)} of second")
    if len(better) < MIN_SEEDS:
        return Crossing("undecided", None, None, None)
    differences = worse - better
    order = _order(differences, 0.95)
    if abs(order.sum()) == len(order):
        return Crossing("ahead throughout" if order[0] > 0 else "behind throughout", None, None, None)
    decided = np.flatnonzero(order)
    changes = [(int(i), int(j)) for i, j in zip(decided[:-1], decided[1:], strict=True) if order[i] != order[j]]
    if len(changes) > 1:
        return Crossing("undecided", None, None, None)
    clear = _order(differences, 1 - 2 * 0.05 / len(places))
    if changes and {-1, 1} <= set(clear):
        (before, after), rises = changes[0], bool(order[changes[0][1]] > 0)
        value = _middle_zero(places[before : after + 1], differences.mean(axis=0)[before : after + 1])
        verdict = "overtakes" if rises else "falls behind"
        return Crossing(verdict, _leaves(places, differences, before), value, _leaves(places, differences, after, -1))
    low = _leaves(places, differences, _run(order) - 1) if order[0] else None
    high = _leaves(places, differences, len(order) - _run(order[::-1]), -1) if order[-1] else None
    return Crossing("undecided", low, None, high)


class PowerLaw(NamedTuple):
    """error(n) = a n^-b + c, and what it was fitted to."""

    a: Interval
    b: Interval
    c: Interval
    sizes: tuple[int, ...]
    errors: tuple[tuple[float, ...], ...]  # a row per seed

    def error(self, n: float) -> float:
        """Error with ``n`` training pictures.

        Raises:
            ValueError: ``n`` is beyond half the smallest or twice the largest measured size.
        """
        if not min(self.sizes) / 2 <= n <= 2 * max(self.sizes):
            measured = f"the measured {min(self.sizes)} to {max(self.sizes)}"
            raise ValueError(f"expected a size within a factor of 2 of {measured}, got {n:g}")
        return self.a.value * n**-self.b.value + self.c.value

    def band(self, n: float) -> Interval:
        """95 % interval of the mean error with ``n`` pictures, as `fit_power_law` makes that of c, and its ValueError."""
        value = self.error(n)
        return _Fit.of(np.asarray(self.sizes, dtype=np.float64), np.asarray(self.errors)).level(value, n)


def fit_power_law(sizes: Sequence[int], errors: ArrayLike) -> PowerLaw | None:
    """Placeholder."""
    places = _log_sizes(sizes)
    errors = _errors(errors, places, "error")
    if len(places) < 4 or len(errors) < 2:
        return None
    # no decay: the t interval of the seeds' slopes in log n does not lie below zero
    centred = places - places.mean()
    slopes = errors @ centred / (centred @ centred)
    if slopes.mean() + t_quantile(len(errors) - 1) * slopes.std(ddof=1) / sqrt(len(errors)) >= 0:
        return None
    fit = _Fit.of(np.exp(places), errors)
    found = fit.best()
    if found is None:
        return None
    a, b, c = found
    rows = tuple(tuple(map(float, row)) for row in errors)
    return PowerLaw(fit.scale(a), fit.exponent(b), fit.level(c, inf), tuple(map(int, sizes)), rows)


class _Fit(NamedTuple):
    """Errors and the weights of their sizes."""

    places: Sizes  # log n
    errors: Errors
    weights: Sizes

    @staticmethod
    def of(sizes: Sizes, errors: Errors) -> "_Fit":
        """Weights are 1 / variance, the variance a power of n: single ones from few seeds are too rough."""
        places, variances = np.log(sizes), errors.var(axis=0, ddof=1)
        if variances.min() <= 1e-20:
            return _Fit(places, errors, np.ones(len(sizes)))
        slope, level = np.polyfit(places, np.log(variances), 1)
        trend = slope * places + level
        return _Fit(places, errors, np.exp(trend.mean() - trend))

    def best(self) -> tuple[float, float, float] | None:
        """Weighted least squares by variable projection: (a, c) in closed form for each b."""
        means = self.errors.mean(axis=0)
        low, high = EXPONENTS[0], EXPONENTS[-1]
        tried = EXPONENTS
        for _ in range(4):
            a, c, loss = _project(tried, self.places, means, self.weights)
            at = int(loss.argmin())
            best = a[at], tried[at], c[at]
            tried = np.linspace(tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)], 33)
        a, b, c = map(float, best)
        return None if a <= 0 or not low * 1.001 < b < high * 0.999 else (a, b, c)

    def exponent(self, value: float) -> Interval:
        """Interval of b: under b the part of the errors that no a and c explain has mean 0."""

        def excess(values: Values) -> Values:
            shape, bend = _shapes(self.places, values, inf)
            return self._excess(bend, shape, np.ones_like(shape), np.zeros_like(shape))

        return _invert(excess, value, EXPONENTS)

    def level(self, value: float, n: float) -> Interval:
        """Interval of the error at n, or of c at infinity."""
        means, weights = self.errors.mean(axis=0), self.weights
        shape, _ = _shapes(self.places, EXPONENTS, n)
        slope, offset = shape @ (weights * means), shape @ weights
        norm = np.sqrt((shape**2) @ weights)

        def excess(values: Values) -> Values:
            gain = (slope - values[:, None] * offset) / norm  # how much of the squares each b takes away
            b = EXPONENTS[gain.argmax(axis=1)]
            shape, bend = _shapes(self.places, b, n)
            ones = np.ones_like(shape)
            return self._excess(ones, shape, bend, values[:, None] * ones)

        return _invert(excess, value, np.linspace(0, means.max() if n < inf else means.min(), 65))

    def scale(self, value: float) -> Interval:
        """Interval of a."""
        weights, shape = self.weights, _shapes(self.places, EXPONENTS, inf)[0]
        centred = shape - (shape @ weights / weights.sum())[:, None]
        slope, norm = centred @ (weights * self.errors.mean(axis=0)), (centred**2) @ weights

        def excess(values: Values) -> Values:
            a = values[:, None]
            b = EXPONENTS[(a**2 * norm - 2 * a * slope).argmin(axis=1)]
            shape, bend = _shapes(self.places, b, inf)
            return self._excess(shape, bend, np.ones_like(shape), a * shape)

        return _invert(excess, value, value * np.geomspace(1e-3, 1e3, 129))

    def _excess(self, direction: Values, one: Values, other: Values, known: Values) -> Values:
        """|mean| - t standard errors, over seeds, of what ``direction`` sees of the errors but the two others do not."""
        seen = direction
        root = np.sqrt(self.weights)
        first = _unit(one * root)
        second = _unit(other * root - _dot(other * root, first) * first)
        seen = direction * root
        for _ in range(2):
            seen = seen - _dot(seen, first) * first - _dot(seen, second) * second
        contrast = seen * root
        contrast = contrast / np.abs(contrast).max(axis=1, keepdims=True)
        scores = contrast @ self.errors.T - _dot(contrast, known)  # (values, seeds)
        half = t_quantile(len(self.errors) - 1) * scores.std(axis=1, ddof=1) / sqrt(len(self.errors))
        return np.abs(scores.mean(axis=1)) - half


def _dot(x: Values, y: Values) -> Values:
    return (x * y).sum(axis=1, keepdims=True)


def _unit(x: Values) -> Values:
    return x / np.sqrt(_dot(x, x))


def _shapes(places: Sizes, exponents: Values, n: float) -> tuple[Values, Values]:
    """n_i^-b - n^-b and its derivative by b, (exponents, sizes)."""
    b = exponents[:, None]
    powers = np.exp(-b * places)
    if n == inf:
        return powers, -places * powers
    there = np.exp(-b * log(n))
    return powers - there, log(n) * there - places * powers


def _project(exponents: Values, places: Sizes, means: Sizes, weights: Sizes) -> tuple[Values, Values, Values]:
    """The best a >= 0 and c in 0..min error for each exponent, and the squares left."""
    shape, weights = np.exp(-exponents[:, None] * (places - places[0])), weights / weights.sum()
    mean, level = shape @ weights, float(means @ weights)
    centred = shape - mean[:, None]
    a = (centred @ (weights * means)) / ((centred**2) @ weights)
    free = level - a * mean
    c = np.clip(free, 0, means.min())
    held = ((means - c[:, None]) * shape) @ weights if False else ((means[None] - c[:, None]) * shape * weights).sum(1)
    a = np.maximum(0, np.where(free == c, a, held / ((shape**2) @ weights)))
    loss = ((means - a[:, None] * shape - c[:, None]) ** 2) @ weights
    return a * np.exp(exponents * places[0]), c, loss


def _invert(excess: Callable[[Values], Values], value: float, grid: Values) -> Interval:
    """The values around ``value`` that are not rejected (excess <= 0), within the grid."""
    kept = excess(grid) <= 0
    if not kept.any():
        return Interval(value, value, value)
    first, last = int(kept.argmax()), len(grid) - 1 - int(kept[::-1].argmax())
    low, high = float(grid[first]), float(grid[last])
    if first > 0:
        fine = np.linspace(grid[first - 1], grid[first], 33)
        low = float(fine[(excess(fine) <= 0).argmax()])
    if last < len(grid) - 1:
        fine = np.linspace(grid[last], grid[last + 1], 33)
        high = float(fine[32 - (excess(fine) <= 0)[::-1].argmax()])
    return Interval(value, min(low, value), max(high, value))


def _run(order: Float[np.ndarray, " sizes"]) -> int:
    """How many sizes from the first on are decided alike."""
    return int(np.argmax(order != order[0])) or len(order)


def _order(differences: Errors, confidence: float) -> Float[np.ndarray, " sizes"]:
    """1 where the t interval of the mean lies above 0, -1 below, 0 where it holds 0."""
    seeds = len(differences)
    means, half = differences.mean(axis=0), t_quantile(seeds - 1, confidence) * differences.std(axis=0, ddof=1)
    return np.sign(means) * (np.abs(means) > half / sqrt(seeds))


def _leaves(places: Sizes, differences: Errors, at: int, step: int = 1) -> float:
    """Towards the next size, the n at which the t interval begins to hold 0; at ``at`` it does not.

    Mean + t standard errors is convex on the way from a negative mean, so it passes 0 once.
    """
    inside, outside = 0.0, 1.0
    here, there = differences[:, at], differences[:, at + step]
    sign = np.sign(here.mean())
    for _ in range(50):
        middle = (inside + outside) / 2
        if _order((here + middle * (there - here))[:, None], 0.95)[0] == sign:
            inside = middle
        else:
            outside = middle
    return exp(places[at] + outside * (places[at + step] - places[at]))


def _middle_zero(places: Sizes, means: Sizes) -> float:
    """Where the line through the means is 0; it has another sign at its end, so it is there an odd number of times."""
    zeros = [
        x + (y - x) * u / (u - v)
        for x, y, u, v in zip(places[:-1], places[1:], means[:-1], means[1:], strict=True)
        if u * v < 0 or u == 0
    ]
    return exp(zeros[len(zeros) // 2])


def _log_sizes(sizes: Sequence[int]) -> Sizes:
    values = np.asarray(sizes, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (values > 0).all() or not (np.diff(values) > 0).all():
        raise ValueError(f"expected ascending sizes above 0, got {list(sizes)}")
    return np.log(values)


def _errors(errors: ArrayLike, places: Sizes, name: str) -> Errors:
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(places) or not len(values):
        raise ValueError(f"expected {name} as (seeds, {len(places)} sizes), got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"expected {name} in 0..1, got {values[~((values >= 0) & (values <= 1))][0]}")
    return values
