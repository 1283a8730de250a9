"""A power law through learning curves by least squares, and intervals of its parts by inverted t tests over seeds."""

from collections.abc import Callable
from math import inf, log, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vit.analysis.statistics import Interval, t_quantile

Errors = Float[np.ndarray, "seeds sizes"]
Sizes = Float[np.ndarray, " sizes"]
Values = Float[np.ndarray, " values"]
Rows = Float[np.ndarray, "values sizes"]

EXPONENTS = np.geomspace(0.01, 2, 160)


class Fit(NamedTuple):
    """What a n^-b + c is fitted to."""

    places: Sizes  # log n
    errors: Errors
    means: Sizes
    weights: Sizes  # sum to 1

    @staticmethod
    def of(places: Sizes, errors: Errors) -> "Fit":
        """Weights are 1 / variance, and that a power of n: variances of few seeds each are too rough to weight with."""
        variances = errors.var(axis=0, ddof=1)
        slope = np.polyfit(places, np.log(variances), 1)[0] if variances.min() > 1e-20 else 0.0
        weights = np.exp(-slope * (places - places.mean()))
        return Fit(places, errors, errors.mean(axis=0), weights / weights.sum())

    def best(self) -> tuple[float, float, float] | None:
        """a, b and c of least squares, a and c in closed form for each b; None with b at its limits or a at 0."""
        at = int(self._project(EXPONENTS)[2].argmin())
        if at in (0, len(EXPONENTS) - 1):
            return None
        low, high = EXPONENTS[at - 1], EXPONENTS[at + 1]
        for _ in range(3):
            tried = np.linspace(low, high, 33)
            at = int(self._project(tried)[2].argmin())
            low, high = tried[max(at - 1, 0)], tried[min(at + 1, 32)]
        b = (low + high) / 2
        a, c, _ = self._project(np.array([b]))
        return (float(a[0]), float(b), float(c[0])) if a[0] > 0 else None

    def _project(self, exponents: Values) -> tuple[Values, Values, Values]:
        shape = np.exp(-exponents[:, None] * self.places)
        mean = shape @ self.weights
        centred = shape - mean[:, None]
        free = (centred @ (self.weights * self.means)) / (centred**2 @ self.weights)
        wanted = self.means @ self.weights - free * mean
        c = wanted.clip(0, self.means.min())
        held = ((self.means - c[:, None]) * shape) @ self.weights / (shape**2 @ self.weights)
        a = np.where(c == wanted, free, held).clip(0)
        return a, c, (self.means - a[:, None] * shape - c[:, None]) ** 2 @ self.weights

    def scale(self, value: float) -> Interval:
        """Interval of a."""
        shape, _ = self._shapes(EXPONENTS, inf)
        centred = shape - (shape @ self.weights)[:, None]
        slope, norm = centred @ (self.weights * self.means), centred**2 @ self.weights

        def excess(values: Values) -> Values:
            a = values[:, None]
            shape, bend = self._shapes(_best_exponent(a * (2 * slope - a * norm)), inf)
            return self._excess(shape, bend, np.ones_like(shape), a * shape)

        return _invert(excess, value, value / 1e3, value * 1e3)

    def exponent(self, value: float) -> Interval:
        """Interval of b."""

        def excess(values: Values) -> Values:
            shape, bend = self._shapes(values, inf)
            return self._excess(bend, shape, np.ones_like(shape), np.zeros_like(shape))

        return _invert(excess, value, EXPONENTS[0], EXPONENTS[-1])

    def level(self, value: float, n: float) -> Interval:
        """Interval of the error at ``n``; of c, at infinity."""
        shape, _ = self._shapes(EXPONENTS, n)
        norm = np.sqrt(shape**2 @ self.weights)
        slope, offset = shape @ (self.weights * self.means) / norm, shape @ self.weights / norm

        def excess(values: Values) -> Values:
            shape, bend = self._shapes(_best_exponent(slope - values[:, None] * offset), n)
            ones = np.ones_like(shape)
            return self._excess(ones, shape, bend, values[:, None] * ones)

        return _invert(excess, value, 0.0, float(self.means.min() if n == inf else 1))

    def _shapes(self, exponents: Values, n: float) -> tuple[Rows, Rows]:
        """n_i^-b - n^-b and its derivative by b."""
        b = exponents[:, None]
        powers, there, slope = np.exp(-b * self.places), 0.0, 0.0
        if n < inf:
            there = n**-b
            slope = log(n) * there
        return powers - there, slope - self.places * powers

    def _excess(self, direction: Rows, one: Rows, other: Rows, known: Rows) -> Values:
        """|mean| - t standard errors over seeds, of errors - ``known`` along ``direction`` clear of the two others."""
        root = np.sqrt(self.weights)
        first = _unit(one * root)
        second = _unit(_clear(other * root, first))
        contrast = _clear(_clear(_clear(direction * root, first), second), first) * root
        contrast = contrast / np.abs(contrast).max(axis=1, keepdims=True)
        scores = contrast @ self.errors.T - _dot(contrast, known)  # a row per value, a column per seed
        seeds = len(self.errors)
        return np.abs(scores.mean(axis=1)) - t_quantile(seeds - 1) * scores.std(axis=1, ddof=1) / sqrt(seeds)


def _dot(x: Rows, y: Rows) -> Float[np.ndarray, "values 1"]:
    return (x * y).sum(axis=1, keepdims=True)


def _unit(x: Rows) -> Rows:
    return x / np.sqrt(_dot(x, x))


def _clear(x: Rows, unit: Rows) -> Rows:
    return x - _dot(x, unit) * unit


def _best_exponent(gain: Float[np.ndarray, "values exponents"]) -> Values:
    """The exponent of most gain for each value, on the parabola through the best and its neighbours."""
    at = gain.argmax(axis=1).clip(1, len(EXPONENTS) - 2)
    before, here, after = (gain[np.arange(len(gain)), at + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2 * here + after, -1e-300)
    move = ((before - after) / (2 * bend)).clip(-1, 1)
    return EXPONENTS[at] * (EXPONENTS[1] / EXPONENTS[0]) ** move


def _invert(excess: Callable[[Values], Values], value: float, least: float, most: float) -> Interval:
    """From ``least`` to ``most``, the farthest on either side of ``value`` that are not rejected (excess <= 0)."""
    steps = np.append(0, np.geomspace(1e-4, 1, 48))
    ends = []
    for limit in (least, most):
        tried = value + steps * (limit - value)
        for _ in range(2):  # the second looks between two neighbours of the first
            last = int(np.append(0, np.flatnonzero(excess(tried) <= 0)).max())
            tried = np.linspace(tried[last], tried[min(last + 1, len(tried) - 1)], 33)
        ends.append(float(tried[0]))
    return Interval(value, *ends)
