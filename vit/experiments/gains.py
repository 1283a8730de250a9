"""What a transfer study found so far: each row's accuracy and probes at each target, and what it gains over scratch."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from vit.analysis.statistics import MIN_SEEDS, Interval, holm, mean_interval, sign_flip
from vit.experiments import advice, records
from vit.experiments.records import Kind, Row, paired
from vit.experiments.starts import LONG, SCRATCH
from vit.experiments.trials import Tuning, tuning

PROBES = ("kNN", "ridge", "logistic")


def _allowed(row: Row, study: Row) -> dict[str, list[Any]]:
    seeds = study["seeds"] if row.get("kind") == "run" else [*study["seeds"], row.get("seed")]
    return {"seed": seeds, "precision": [study["precision"]]}


TRANSFER = Kind(
    name="transfer",
    version=1,
    needed=("arms", "seeds", "host", "methods", "refused", "sets", "labels", "amount", "pretrain_amount", "trials"),
    allowed=_allowed,
    accuracy={"pretrain": "", "tune": "val_acc", "run": "acc"},
)


@dataclass(frozen=True)
class Result:
    """One row at one target: test accuracy after finetuning and probes of what it starts from, by seed.

    Intervals are None below two seeds; minutes are medians over the runs of the study's commonest machine, those of
    pretraining None for a fresh net.
    """

    entry: Row
    accuracies: dict[int, float]
    interval: Interval | None
    probes: dict[str, Interval | None]
    minutes: float | None
    pretrain_minutes: float | None
    failed: int
    missing: int

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies.values()) if self.accuracies else None


@dataclass(frozen=True)
class Gain:
    """Accuracy of a row less that of ``over`` at one target, seed by seed; p of the sign-flip test, and Holm's."""

    target: str
    row: str
    over: str
    by_seed: tuple[float, ...]
    interval: Interval
    p: float
    adjusted: float


@dataclass(frozen=True)
class Gains:
    """All that the report says, as data. ``done`` are the finished runs, ``failures`` those that failed to the end."""

    study: Row
    results: tuple[Result, ...]
    gains: tuple[Gain, ...]
    tuning: tuple[Tuning, ...]
    done: tuple[Row, ...]
    failures: tuple[Row, ...]
    torn: bool

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(result.entry["target"] for result in self.results))

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(result.entry["row"] for result in self.results))

    @property
    def machine(self) -> Any:
        return records.machine(self.done)

    @property
    def missing(self) -> int:
        return sum(result.missing for result in self.results)

    def at(self, row: str, target: str) -> Result | None:
        """None where the row takes no part."""
        here = (result for result in self.results if (result.entry["row"], result.entry["target"]) == (row, target))
        return next(here, None)


def gains(folder: Path) -> Gains:
    """Read ``study.json`` and ``runs.jsonl`` of a study, complete or not.

    Raises:
        ValueError: no transfer study of this version, an unreadable line that is not the last, or foreign runs.
    """
    study, final, torn = records.read(folder, TRANSFER)
    done = [row for row in final if row["status"] == "done"]
    entries = [arm for arm in study["arms"] if "target" in arm]
    where = records.machine(done)
    results = tuple(_result(entry, final, study, where) for entry in entries)
    return Gains(
        study=study,
        results=results,
        gains=_gains(results),
        tuning=tuple(tuning(entry["name"], done, study) for entry in entries),
        done=tuple(done),
        failures=tuple(row for row in final if row["status"] != "done"),
        torn=torn,
    )


def _result(entry: Row, final: list[Row], study: Row, where: Any) -> Result:
    runs = [row for row in final if (row.get("kind"), row.get("arm")) == ("run", entry["name"])]
    done = sorted((row for row in runs if row["status"] == "done"), key=lambda row: row["seed"])
    pretrained = [row for row in final if (row.get("kind"), row.get("arm")) == ("pretrain", entry["origin"])]
    probes = {name: [row["probe"][name] for row in done if row.get("probe")] for name in PROBES}
    return Result(
        entry=entry,
        accuracies={row["seed"]: float(row["acc"]) for row in done},
        interval=_interval([row["acc"] for row in done]),
        probes={name: _interval(values) for name, values in probes.items()},
        minutes=records.minutes(done, where),
        pretrain_minutes=records.minutes(pretrained, where),
        failed=len(runs) - len(done),
        missing=len(study["seeds"]) - len(runs),
    )


def _gains(results: Iterable[Result]) -> tuple[Gain, ...]:
    results = list(results)
    found = []
    for over in (SCRATCH, LONG):
        theirs = {result.entry["target"]: result.accuracies for result in results if result.entry["row"] == over}
        for result in results:
            target, row = result.entry["target"], result.entry["row"]
            by_seed = paired(result.accuracies, theirs.get(target, {}))
            if row not in (over, SCRATCH) and len(by_seed) > 1:
                p = sign_flip(by_seed)
                found.append(Gain(target, row, over, by_seed, mean_interval(by_seed), p, p))
    adjusted = holm([gain.p for gain in found])
    return tuple(replace(gain, adjusted=p) for gain, p in zip(found, adjusted, strict=True))


def _interval(values: list[float]) -> Interval | None:
    return mean_interval(values) if len(values) > 1 else None


def sentences(found: Gains) -> list[str]:
    """What may be said, the first sentence being the headline."""
    seeds = min((len(result.accuracies) for result in found.results), default=0)
    if seeds < MIN_SEEDS:
        said = f"No gain is claimed: some rows have {seeds} of the {MIN_SEEDS} seeds that a claim takes."
        return [said, *same_pictures(found.study)]
    labels = found.study["labels"]
    return [
        f"With {labels:,} labels, {seeds} seeds, against the same net from a fresh start, paired:",
        *same_pictures(found.study),
        *(_at(found, target, over) for target in found.targets for over in (SCRATCH, LONG)),
        *(sentence for target in found.targets for sentence in _probes(found, target)),
    ]


def same_pictures(study: Row) -> list[str]:
    """Of each source that is no other data set than a target: other labels of the same pictures."""
    sets, arms = study["sets"], study["arms"]
    sources = dict.fromkeys(arm["source"] for arm in arms if "source" in arm)
    targets = dict.fromkeys(arm["target"] for arm in arms if "target" in arm)
    pairs = [(sets[source], sets[target]) for source in sources for target in targets if source != target]
    return [_same(source, target) for source, target in pairs if _pictures(source) == _pictures(target)]


def _pictures(data: Row) -> str:
    return data.get("coarse_of", data["manifest_hash"])


def _same(source: Row, target: Row) -> str:
    groups = "; ".join(f"{name}: {', '.join(own)}" for name, own in source.get("merged", {}).items())
    return (
        f"{source['name']} is no other data set than {target['name']}: the same {source['train']:,} pictures to train "
        f"on, with labels of {source['classes']} classes in place of {target['classes']} ({groups or 'its own'})."
    )


def _at(found: Gains, target: str, over: str) -> str:
    here = [gain for gain in found.gains if (gain.target, gain.over) == (target, over)]
    words = "with the same finetuning" if over == SCRATCH else "as long as pretraining and finetuning together"
    if not here:
        return f"{target}: {over} is not there to compare with."
    best = max(here, key=lambda gain: gain.interval.value)
    rest = {"ahead": [], "behind": [], "no difference can be told": []}
    for gain in here:
        word = "ahead" if gain.interval.low > 0 else "behind" if gain.interval.high < 0 else "no difference can be told"
        rest[word].append(gain.row)
    verdicts = "; ".join(f"{word}: {', '.join(rows)}" for word, rows in rest.items() if rows)
    return f"{target}, from scratch {words}: {verdicts}. Most: {best.row}, {advice.points(best.interval, sign=True)}."


def _probes(found: Gains, target: str) -> Iterable[str]:
    frozen = [
        (result.entry["row"], result.probes["logistic"])
        for result in found.results
        if result.entry["target"] == target and result.probes["logistic"] and result.entry["row"] != LONG
    ]
    if frozen:
        told = ", ".join(f"{row} {advice.accuracy(value)}" for row, value in frozen)
        yield f"{target}, a linear map of frozen features, before finetuning (scratch: of a fresh net): {told}."
