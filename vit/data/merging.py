"""Coarser labels: several of a set's own classes under one name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vit.data.listing import shown
from vit.data.source import Source

Merge = Mapping[str, Sequence[str]]
"""Coarse names, and a set's own classes under each."""


def merged(classes: Sequence[str], merge: Merge) -> tuple[tuple[str, ...], np.ndarray]:
    """The coarse classes, in the order in which the set's own reach them, and the coarse label of each own one (k,).

    Raises:
        ValueError: a class of the set that is not named exactly once, an unknown one, or fewer than two coarse ones.
    """
    named = Counter(name for own in merge.values() for name in own)
    problems = {
        "missing": [name for name in classes if name not in named],
        "unknown": [name for name in named if name not in classes],
        "twice": [name for name, times in named.items() if times > 1],
        "without a class": [name for name, own in merge.items() if not own],
    }
    if any(problems.values()):
        told = "; ".join(f"{what}: {shown(names)}" for what, names in problems.items() if names)
        raise ValueError(f"merge_classes names every class of the data exactly once, got {told}")
    if len(merge) < 2:
        raise ValueError(f"merge_classes: expected at least two coarse classes, got {', '.join(merge) or 'none'}")
    coarse = {name: into for into, own in merge.items() for name in own}
    order = tuple(dict.fromkeys(coarse[name] for name in classes))
    return order, np.array([order.index(coarse[name]) for name in classes], dtype=np.int64)


def relabelled(source: Source, classes: Sequence[str], merge: Merge | None) -> Source:
    """With coarse labels, the pictures untouched; as it is where nothing is merged."""
    if merge is None:
        return source
    _, coarse = merged(classes, merge)
    return replace(source, labels=coarse[source.labels])


def is_coarser(classes: Sequence[str], first: Merge | None, second: Merge | None) -> bool:
    """Whether labels merged by ``first`` are less than those by ``second``: they follow from them, but not back."""
    own = np.arange(len(classes))
    ours, theirs = (own if merge is None else merged(classes, merge)[1] for merge in (first, second))
    pairs = set(zip(theirs.tolist(), ours.tolist(), strict=True))
    return len(pairs) == len(set(theirs.tolist())) > len(set(ours.tolist()))
