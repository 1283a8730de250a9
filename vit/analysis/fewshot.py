"""How well classifiers fitted to frozen features do, from a few pictures of each class up to all there are."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int

from vit.analysis.probing import linear_probe, nearest_neighbours, standardised
from vit.analysis.statistics import Interval, mean_interval, wilson

PENALTIES = tuple(10.0**power for power in range(-3, 7))
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(gallery (n d), labels (n,), queries (m d)) -> classes (m,)."""


class Row(NamedTuple):
    """Accuracy of one classifier from so many shots of each class (None: all there are), of each draw."""

    method: str
    shots: int | None
    values: tuple[float, ...]
    interval: Interval


def drawn(labels: Int[np.ndarray, " n"], shots: int, seed: int, draw: int) -> Int[np.ndarray, " k"]:
    """Positions of ``shots`` samples of each class, ascending. Those of fewer shots of a draw lie inside.

    Raises:
        ValueError: a class has not as many.
    """
    rng = np.random.default_rng((seed, draw))
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < shots:
            raise ValueError(f"{shots} shots of each class: expected as many of class {label}, got {len(members)}")
        chosen.append(members[:shots])
    return np.sort(np.concatenate(chosen))


def ridge(
    gallery: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], queries: Float[np.ndarray, "m d"]
) -> Int[np.ndarray, " m"]:
    """Classes by least squares on targets of -1 and 1, the penalty by leaving one out; on the gallery alone."""
    from sklearn.linear_model import RidgeClassifierCV

    return cast(np.ndarray, RidgeClassifierCV(PENALTIES).fit(gallery, labels).predict(queries))


METHODS: dict[str, Fit] = {"kNN": nearest_neighbours, "ridge": ridge, "logistic": linear_probe}


def probed(
    train: tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]],
    test: tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]],
    shots: Sequence[int],
    draws: int,
    seed: int,
) -> list[Row]:
    """Every method from every number of shots, and from all.

    Features are standardised by all training pictures, whose labels that takes none of. The interval of a number of
    shots is the t interval over draws, that of all the Wilson interval of one accuracy (95 %).

    Args:
        train: features and labels that classifiers are fitted to.
        test: those they are judged on.
        shots: samples of each class.
        draws: of each number of shots, at least 2.
        seed: of the draws.

    Raises:
        ValueError: fewer than 2 draws, a class with too few samples, or one class only.
    """
    if draws < 2:
        raise ValueError(f"an interval takes at least 2 draws, got {draws}")
    if len(np.unique(train[1])) < 2:
        raise ValueError("a probe tells classes apart: expected at least 2 in the training pictures")
    (gallery, labels), (queries, truth) = train, test
    gallery, queries = standardised(gallery, queries)
    places = {count: [drawn(labels, count, seed, draw) for draw in range(draws)] for count in shots}
    rows = []
    for method, fit in METHODS.items():
        for count, chosen in places.items():
            values = tuple(float((fit(gallery[at], labels[at], queries) == truth).mean()) for at in chosen)
            rows.append(Row(method, count, values, mean_interval(values)))
        right = int((fit(gallery, labels, queries) == truth).sum())
        accuracy = right / len(truth)
        rows.append(Row(method, None, (accuracy,), Interval(accuracy, *wilson(right, len(truth)))))
    return rows
