"""What a mechanisms study found so far: accuracy, speed, memory of each arm, and no more order than the seeds allow."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vit.analysis.cost import slope
from vit.analysis.statistics import MIN_SEEDS, Interval, mean_interval
from vit.experiments import records
from vit.experiments.records import Kind, Row, paired


def _allowed(row: Row, study: Row) -> dict[str, list[Any]]:
    seeds = study["seeds"] if row.get("kind") == "run" else [0]
    return {"seed": seeds, "precision": [study["precision"]], "size": [study["train_size"]]}


MECHANISMS = Kind(
    name="mechanisms",
    version=1,
    needed=("arms", "seeds", "vary", "reference", "patch", "embed_dim", "refused", "train_size", "data"),
    allowed=_allowed,
    accuracy={"run": "acc", "time": ""},
)


@dataclass(frozen=True)
class Point:
    """One arm at one number of tokens. ``gain``: accuracy over the reference's, paired by seed; None below two pairs.

    Speed and bytes are None until the arm is timed; ``trained``: accuracy is part of the study, not time alone.
    """

    arm: Row
    trained: bool
    accuracies: dict[int, float]
    interval: Interval | None
    gain: Interval | None
    pairs: int
    timing: Row | None
    failed: int
    missing: int

    @property
    def name(self) -> str:
        """The overlay's, as figures and tables show it."""
        return self.arm["overlay"] + (" (wide)" if self.arm["widened"] else "")

    @property
    def tokens(self) -> int:
        return self.arm["tokens"]

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies.values()) if self.accuracies else None

    def measured(self, name: str) -> Any:
        """A column of the timing, None where there is none."""
        return None if self.timing is None else self.timing.get(name)


@dataclass(frozen=True)
class Growth:
    """How an arm's cost grows with the number of tokens: measured there, and the exponents, None below two sizes."""

    name: str
    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    memory: tuple[int, ...]
    time_slope: float | None
    memory_slope: float | None


@dataclass(frozen=True)
class Tradeoff:
    """All that the report says, as data."""

    study: Row
    points: tuple[Point, ...]
    growths: tuple[Growth, ...]
    done: tuple[Row, ...]
    failures: tuple[Row, ...]
    torn: bool

    @property
    def missing(self) -> int:
        return sum(point.missing for point in self.points)

    @property
    def tokens(self) -> list[int]:
        return sorted({point.tokens for point in self.points})

    def at(self, tokens: int) -> list[Point]:
        return [point for point in self.points if point.tokens == tokens]


def tradeoff(folder: Path) -> Tradeoff:
    """Read ``study.json`` and ``runs.jsonl`` of a study, complete or not.

    Raises:
        ValueError: no mechanisms study of this version, an unreadable line that is not the last, or foreign runs.
    """
    study, final, torn = records.read(folder, MECHANISMS)
    done = [row for row in final if row["status"] == "done"]
    points = tuple(_point(arm, final, study) for arm in study["arms"])
    return Tradeoff(
        study=study,
        points=points,
        growths=tuple(_growths(points)),
        done=tuple(done),
        failures=tuple(row for row in final if row["status"] != "done"),
        torn=torn,
    )


def _point(arm: Row, final: list[Row], study: Row) -> Point:
    rows, beside = ([row for row in final if row.get("arm") == name] for name in (arm["name"], _beside(arm, study)))
    timings, runs = ([row for row in rows if row.get("kind") == kind] for kind in ("time", "run"))
    trained = arm["patch"] in study["patch"]
    accuracies = _accuracies(runs)
    theirs = _accuracies(row for row in beside if row.get("kind") == "run")
    pairs = paired(accuracies, theirs)
    confidence = 1 - 0.05 / max(1, _compared(arm, study))  # together: Bonferroni
    return Point(
        arm=arm,
        trained=trained,
        accuracies=accuracies,
        interval=mean_interval(list(accuracies.values())) if len(accuracies) > 1 else None,
        gain=mean_interval(pairs, confidence) if len(pairs) > 1 and arm["overlay"] != study["reference"] else None,
        pairs=len(pairs),
        timing=_timing(timings, [row for row in beside if row.get("kind") == "time"]),
        failed=sum(row["status"] != "done" for row in rows),
        missing=(len(study["seeds"]) - len(runs) if trained else 0) + (not timings),
    )


def _accuracies(runs: Iterable[Row]) -> dict[int, float]:
    return dict(sorted((row["seed"], float(row["acc"])) for row in runs if row["status"] == "done"))


def _beside(arm: Row, study: Row) -> str:
    """The reference's arm at the same number of tokens."""
    return next(a["name"] for a in study["arms"] if (a["overlay"], a["patch"]) == (study["reference"], arm["patch"]))


def _timing(mine: list[Row], reference: list[Row]) -> Row | None:
    """Images per second are the reference's, as often as measured in turn with it: a machine's load cancels."""
    own, other = (next((row for row in rows if row["status"] == "done"), None) for rows in (mine, reference))
    if own is None or other is None:
        return own
    columns = {f"{kind}_images_per_s": own[f"{kind}_times_as_fast"] for kind in ("train", "infer")}
    return own | {name: round(other[name] * ratio[0], 2) for name, ratio in columns.items() if ratio}


def _compared(arm: Row, study: Row) -> int:
    """Comparisons with the reference at this number of tokens."""
    return sum(a["patch"] == arm["patch"] for a in study["arms"]) - 1


def _growths(points: tuple[Point, ...]) -> Iterable[Growth]:
    for name in dict.fromkeys(point.name for point in points):
        mine = sorted((p for p in points if p.name == name and p.timing), key=lambda point: point.tokens)
        if not mine:
            continue
        tokens = tuple(point.tokens for point in mine)
        seconds = tuple(1 / point.measured("train_images_per_s") for point in mine)
        memory = tuple(point.measured("memory_bytes") / point.measured("timed_batch") for point in mine)
        several = len(tokens) > 1
        time_slope = slope(tokens, seconds) if several else None
        yield Growth(name, tokens, seconds, memory, time_slope, slope(tokens, memory) if several else None)


def sentences(found: Tradeoff) -> list[str]:
    """What may be said of the arms' accuracies, the first sentence being the headline."""
    trained = [point for point in found.points if point.trained]
    seeds = min((len(point.accuracies) for point in trained), default=0)
    if seeds < MIN_SEEDS:
        said = [f"No order of the arms is claimed: some have {seeds} of the {MIN_SEEDS} seeds that a claim takes."]
    else:
        said = [f"Accuracy against {found.study['reference']}, {seeds} seeds or more, paired:"]
        for tokens in sorted({point.tokens for point in trained}):
            said.append(_against_reference(found, tokens))
    return said + ([_ceiling(found)] if found.study["vary"] == "mixer" else [])


def _against_reference(found: Tradeoff, tokens: int) -> str:
    ours = [point for point in found.at(tokens) if point.gain is not None]
    ahead = [point.name for point in ours if point.gain and point.gain.low > 0]
    behind = [point.name for point in ours if point.gain and point.gain.high < 0]
    level = [point.name for point in ours if point.name not in ahead + behind]
    parts = {"ahead": ahead, "behind": behind, "no difference can be told": level}
    return f"at {tokens:,} tokens " + "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names)


def _ceiling(found: Tradeoff) -> str:
    """How much a mixer could save at most: scores and mixing are 2 N^2 C of a block's 2 N^2 C + 12 N C^2."""
    width = found.study["embed_dim"]
    shares = [
        f"{n / (n + 6 * width):.0%} at {n:,} tokens (at most {1 + n / (6 * width):.2f} times as cheap)"
        for n in found.tokens
    ]
    return (
        f"With N tokens of {width} channels, softmax attention's two products are as many multiply-adds as the rest of "
        f"a block at N = 6C = {6 * width:,}; their share is {', '.join(shares)}."
    )
