"""Which samples are held out, and which subset of the rest is used: pure functions of the labels and a seed."""

import json
from pathlib import Path

import numpy as np


def carve(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (kept, held out), both ascending, with every class held out in the same proportion.

    Of a class of two or more at least one sample goes each way; a single one is kept.  Samples of one group stay
    together, so that proportions hold as far as the groups allow.

    Raises:
        ValueError: ``fraction`` outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out must lie between 0 and 1, got {fraction}")
    rng = np.random.default_rng(seed)
    if groups is not None:
        held = _hold_groups(labels, groups, fraction, rng)
        return np.flatnonzero(~held), np.flatnonzero(held)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[members[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _hold_groups(labels: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Which samples are held out (n,): group by group, large ones first, whenever it brings the counts nearer.

    At least one group is, the smallest that can be, where any leaves every class one to train on. Our own, as a
    library's split may change with its release, and with it what a model was tested on.
    """
    names, number = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), label.max() + 1))
    np.add.at(counts, (number, label), 1)
    left, wanted = counts.sum(axis=0), fraction * counts.sum(axis=0)
    order = rng.permutation(len(names))
    held = np.zeros(len(names), dtype=bool)
    largest_first = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    spared = [group for group in largest_first if ((left > counts[group]) | (left == 0)).all()]
    for group in largest_first:
        nearer = np.sum((wanted - counts[group]) ** 2) < np.sum(wanted**2)
        if nearer and ((left > counts[group]) | (left == 0)).all():  # every class stays in what is kept
            held[group] = True
            left, wanted = left - counts[group], wanted - counts[group]
    if spared and not held.any():
        held[spared[-1]] = True
    return held[number]


def nested(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of all positions whose first `size` are a stratified subset, for every `size` at once.

    The smaller subset lies inside the larger one by construction, equally large classes differ by one sample at most,
    and every class takes part as soon as `size` reaches the number of classes; shares of unequal ones are right to
    within about one sample then.
    """
    rng = np.random.default_rng(seed)
    progress = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        progress[members] = np.arange(len(members)) / len(members)
    return np.lexsort((rng.permutation(len(labels)), progress))


def first(order: np.ndarray, size: int | float, classes: int) -> np.ndarray:
    """Of a `nested` order, what a training set of ``size`` takes, ascending: a count, or a share of all (0.1).

    Raises:
        ValueError: not a count or a share, more than there are, or too few for each of the ``classes`` to take part.
    """
    if isinstance(size, bool) or size <= 0 or (isinstance(size, float) and size > 1):
        raise ValueError(f"train_size is a number of pictures or a share of at most 1.0, got {size}")
    count = round(size * len(order)) if isinstance(size, float) else size
    if count > len(order):
        raise ValueError(f"train_size {size} is more than the {len(order)} pictures there are to train on")
    if count < classes:
        raise ValueError(
            f"train_size {size} is {count} pictures: expected at least one of each of the {classes} classes"
        )
    return np.sort(order[:count])


def listed(path: Path, manifest_hash: str, count: int) -> tuple[np.ndarray, int]:
    """The order of positions that a study's subset file holds, and the seed it was drawn with.

    Args:
        path: JSON with ``manifest_hash``, ``seed`` and ``order``.
        manifest_hash: of the data it is wanted for.
        count: pictures there.

    Raises:
        ValueError: no such file, other data, or positions that are not there or come twice.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        order, seed, made_for = np.array(held["order"], dtype=np.int64), held["seed"], held["manifest_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a study's subset file (subsets/seed-0.json), got {error!r}") from error
    if made_for != manifest_hash:
        raise ValueError(
            f"{path} lists pictures of other data: manifest {made_for[:12]}, these are {manifest_hash[:12]}"
        )
    if (
        order.ndim != 1
        or not len(order)
        or len(np.unique(order)) < len(order)
        or not 0 <= order.min() <= order.max() < count
    ):
        raise ValueError(f"{path}: expected positions below {count}, each once")
    return order, seed
