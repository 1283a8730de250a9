"""What a data-size study found so far: its records as numbers with intervals. `advice` puts them into words."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from vit.analysis.scaling import Crossing, PowerLaw, crossing, fit_power_law
from vit.analysis.statistics import MIN_SEEDS, Interval, holm, mean_interval, sign_flip
from vit.experiments import records
from vit.experiments.records import Kind, Row, paired
from vit.experiments.trials import Tuning, tuning


def _allowed(row: Row, study: Row) -> dict[str, list[Any]]:
    if row.get("kind") != "run":
        return {}
    other = study.get("compare_precision")
    sizes = [study["tune_size"]] if other and row.get("precision") == other else study["sizes"]
    return {"seed": study["seeds"], "precision": [study["precision"], other], "size": sizes}


DATA_SIZE = Kind(
    name="data-size",
    version=1,
    needed=("arms", "sizes", "seeds", "budget", "amount", "match", "precision", "tune_size", "trials", "data"),
    allowed=_allowed,
    accuracy={"pretrain": "", "run": "acc", "tune": "val_acc"},
)
Grid = defaultdict[tuple[str, int], dict[int, float]]
"""Test accuracies by (arm, size) and seed."""


@dataclass(frozen=True)
class Cell:
    """The runs of one arm at one size. ``accuracies`` by seed, in 0..1; the interval is the mean's, from two seeds.

    Images/s and minutes are medians over the runs of one machine, the one that most runs of the study were made on.
    """

    arm: str
    size: int
    accuracies: dict[int, float]
    interval: Interval | None
    images_per_s: float | None
    minutes: float | None
    failed: int
    missing: int

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies.values()) if self.accuracies else None


@dataclass(frozen=True)
class Difference:
    """Accuracy of ``first`` less that of ``second`` at one size, seed by seed; p of the sign-flip test, and Holm's."""

    first: str
    second: str
    size: int
    by_seed: tuple[float, ...]
    interval: Interval
    p: float
    adjusted: float


@dataclass(frozen=True)
class Pair:
    """Where ``first`` overtakes ``second``, from the seeds that both ran at all ``sizes``."""

    first: str
    second: str
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    crossing: Crossing


@dataclass(frozen=True)
class Precision:
    """What ``compare_precision`` changes at one size: paired accuracy, and images/s as a factor on one machine."""

    arm: str
    size: int
    seeds: int
    difference: Interval | None
    speed: float | None
    missing: int


@dataclass(frozen=True)
class Findings:
    """All that the report says, as data. ``done`` are the finished runs, ``failures`` those that failed to the end."""

    study: Row
    cells: tuple[Cell, ...]
    fits: dict[str, PowerLaw | None]
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    precisions: tuple[Precision, ...]
    tuning: tuple[Tuning, ...]
    done: tuple[Row, ...]
    failures: tuple[Row, ...]
    torn: bool

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(arm["name"] for arm in self.study["arms"])

    @property
    def machine(self) -> Any:
        return records.machine(self.done)

    @property
    def missing(self) -> int:
        """Runs of the grid without a row yet, those in another precision among them."""
        return sum(row.missing for row in (*self.cells, *self.precisions))

    def pretraining_minutes(self, arm: str) -> float | None:
        """Median of what an arm's runs cost before they begin."""
        rows = [row for row in self.done if (row["kind"], row["arm"]) == ("pretrain", arm)]
        return records.minutes(rows, self.machine)

    def cell(self, arm: str, size: int) -> Cell:
        return next(cell for cell in self.cells if (cell.arm, cell.size) == (arm, size))


def findings(folder: Path) -> Findings:
    """Read ``study.json`` and ``runs.jsonl`` of a study, complete or not.

    Raises:
        ValueError: no data-size study of this version, an unreadable line that is not the last, or foreign runs.
    """
    study, final, torn = records.read(folder, DATA_SIZE)
    study |= {"sizes": sorted(study["sizes"])}
    done = [row for row in final if row["status"] == "done"]
    grid, where = _by_cell(done, study["precision"]), records.machine(done)
    names = [arm["name"] for arm in study["arms"]]
    return Findings(
        study=study,
        cells=tuple(_cell(name, size, final, study, where) for name in names for size in study["sizes"]),
        fits={name: _fit(grid, name, study["sizes"]) for name in names},
        differences=_differences(grid, study),
        pairs=tuple(_pair(grid, first, second, study) for first, second in combinations(names, 2)),
        precisions=_precisions(grid, final, study) if study.get("compare_precision") else (),
        tuning=tuple(tuning(name, done, study) for name in names),
        done=tuple(done),
        failures=tuple(row for row in final if row["status"] != "done"),
        torn=torn,
    )


def _by_cell(done: list[Row], precision: str) -> Grid:
    """Test accuracies by (arm, size) and seed."""
    grid: Grid = defaultdict(dict)
    for row in done:
        if row["kind"] == "run" and row["precision"] == precision:
            cell = grid[row["arm"], row["size"]]
            if row["seed"] in cell:
                raise ValueError(f"expected one run of each arm, size and seed, got a second one: {row['key']!r}")
            cell[row["seed"]] = float(row["acc"])
    return grid


def _cell(arm: str, size: int, final: list[Row], study: Row, where: Any) -> Cell:
    here = ("run", arm, size, study["precision"])
    rows = [
        row
        for row in final
        if (row.get("kind"), row.get("arm"), row.get("size"), row.get("precision", study["precision"])) == here
    ]
    done = [row for row in rows if row["status"] == "done"]
    accuracies = {row["seed"]: float(row["acc"]) for row in done}
    return Cell(
        arm=arm,
        size=size,
        accuracies=dict(sorted(accuracies.items())),
        interval=mean_interval(list(accuracies.values())) if len(accuracies) > 1 else None,
        images_per_s=records.typical(done, "train_images_per_s", where),
        minutes=records.minutes(done, where),
        failed=len(rows) - len(done),
        missing=len(study["seeds"]) - len(rows),
    )


def _block(seeds: Mapping[int, set[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and seeds without a hole, from the seeds of each size: sizes with enough, and the seeds of them all."""
    enough = max(min(MIN_SEEDS, max(map(len, seeds.values()))), 1)
    sizes = tuple(size for size, there in seeds.items() if len(there) >= enough)
    common = set.intersection(*(seeds[size] for size in sizes)) if sizes else set()
    return sizes, tuple(sorted(common))


def _errors(grid: Grid, arm: str, sizes: tuple[int, ...], seeds: tuple[int, ...]) -> list[list[float]]:
    return [[1 - grid[arm, size][seed] for size in sizes] for seed in seeds]


def _fit(grid: Grid, arm: str, sizes: list[int]) -> PowerLaw | None:
    measured, seeds = _block({size: set(grid[arm, size]) for size in sizes})
    return fit_power_law(measured, _errors(grid, arm, measured, seeds)) if len(seeds) > 1 else None


def _pair(grid: Grid, first: str, second: str, study: Row) -> Pair:
    sizes, seeds = _block({size: grid[first, size].keys() & grid[second, size].keys() for size in study["sizes"]})
    found = Crossing("undecided", None, None, None)
    if len(seeds) > 1:
        found = crossing(sizes, _errors(grid, first, sizes, seeds), _errors(grid, second, sizes, seeds))
    return Pair(first, second, sizes, seeds, found)


def _differences(grid: Grid, study: Row) -> tuple[Difference, ...]:
    found = []
    for first, second in combinations([arm["name"] for arm in study["arms"]], 2):
        for size in study["sizes"]:
            if len(by_seed := paired(grid[first, size], grid[second, size])) > 1:
                p = sign_flip(by_seed)
                found.append(Difference(first, second, size, by_seed, mean_interval(by_seed), p, adjusted=p))
    adjusted = holm([difference.p for difference in found])
    return tuple(replace(difference, adjusted=p) for difference, p in zip(found, adjusted, strict=True))


def _precisions(grid: Grid, final: list[Row], study: Row) -> tuple[Precision, ...]:
    other, size = study["compare_precision"], study["tune_size"]
    done = [row for row in final if row["status"] == "done"]
    compared = _by_cell(done, other)
    measured = {
        tuple(map(row.get, ("arm", "size", "seed", "precision"))): (row.get("hardware"), row.get("train_images_per_s"))
        for row in done
        if row["kind"] == "run"
    }
    rows = []
    for arm in (arm["name"] for arm in study["arms"]):
        accuracies = compared[arm, size]
        gains = paired(accuracies, grid[arm, size])
        ratios = []
        for seed in accuracies.keys() & grid[arm, size].keys():
            (here, base), (there, changed) = (measured[arm, size, seed, name] for name in (study["precision"], other))
            ratios += [changed / base] if base and changed and here == there else []
        interval = mean_interval(gains) if len(gains) > 1 else None
        run = [row for row in final if (row.get("arm"), row.get("precision"), row.get("kind")) == (arm, other, "run")]
        missing = len(study["seeds"]) - len(run)
        rows.append(Precision(arm, size, len(gains), interval, median(ratios) if ratios else None, missing))
    return tuple(rows)
