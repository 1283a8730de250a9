"""How each arm of a study was tuned: the same trials for all, and which of them was taken."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from vit.experiments.records import Row


@dataclass(frozen=True)
class Tuning:
    """One arm's trials: validation accuracy of each (None: not done), the chosen one, and its options at an edge."""

    arm: str
    val_accuracies: tuple[float | None, ...]
    chosen: int | None
    edges: tuple[str, ...]


def tuning(arm: str, done: list[Row], study: Row) -> Tuning:
    """The chosen trial is the one that the runs were made with. Several seeds of a trial are averaged.

    Raises:
        ValueError: the runs were made with different settings.
    """
    trials: list[dict[str, float]] = study["trials"]
    values = [
        [row["val_acc"] for row in done if (row["kind"], row["arm"], row.get("trial")) == ("tune", arm, place)]
        for place in range(len(trials))
    ]
    reached = [fmean(found) if found else None for found in values]
    used = [row["options"] for row in done if (row["kind"], row["arm"]) == ("run", arm) and row.get("options")]
    if any(options != used[0] for options in used):
        raise ValueError(f"expected all runs of {arm} with one setting, got {used[0]} and others")
    chosen = trials.index(used[0]) if used and used[0] in trials else None
    edges = () if chosen is None else tuple(_edges(trials, trials[chosen]))
    return Tuning(arm, tuple(reached), chosen, edges)


def _edges(trials: list[dict[str, float]], chosen: dict[str, float]) -> Iterable[str]:
    """Options of which the grid holds more than two values, and the chosen one is the smallest or largest."""
    for name, value in chosen.items():
        values = {trial[name] for trial in trials}
        if len(values) > 2 and value in (min(values), max(values)):
            yield name
