"""From what a user asks of ``vit study data-size`` to the grid it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from vit.commandline.options import choose_accelerator, default_precision
from vit.data.labels import require_labels
from vit.data.module import Images
from vit.experiments import arms
from vit.experiments.arms import Candidate, Match
from vit.experiments.grid import Budget, Study
from vit.experiments.recipe import (
    OWNED,
    Plan,
    check_size,
    facts,
    leave_to_the_grid,
    net_of,
    parse,
    recipe_hash,
    shape_of,
)

LADDER = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
PER_CLASS = 2  # pictures of the smallest size, at least
OF_THE_GRID = OWNED | {
    "data.train_size": "sizes",
    "model.optimizer.lr": "trials",
    "model.optimizer.weight_decay": "trials",
}


@dataclass(frozen=True)
class DataSize:
    """Compare architectures across data-set sizes: same data, subsets, augmentation, tuning effort and budget.

    Attributes:
        candidates: architectures by name.
        arms: names of those that are compared. All are matched to the first that has no dial.
        sizes: training pictures, each class in its share (default: 100, 300, 1000, ... up to all there are).
        seeds: runs of each arm and size. No claim is made from fewer than 6.
        budget: whether amount counts optimiser steps or epochs.
        amount: length of every run.
        match: make the arms equal in parameters or in compute; none takes them as they are.
        tune_size: training pictures of the tuning runs (default: the middle one of sizes when the study began).
        trials: learning rate and weight decay of each tuning run, the same for every arm.
        precision: of all runs (default: bf16-mixed where the device supports it well, else 32-true).
        compare_precision: repeat the runs at tune_size in this precision.
        fit: configuration all runs share, as in a YAML overlay of vit fit.
        size: how many pictures of your own the recommendation is for (default: the largest of sizes).
        workers: runs at once (default: one per core; 2 on CUDA).
        out: folder of the study; the same command continues there (default: runs/data-size-<data>).
        dry_run: print the grid and an estimate of its time, and stop.
        retry_failed: take failed runs up again.

    Raises:
        ValueError: a number below 1, or trials of other than lr and weight_decay.
    """

    name: ClassVar[str] = "data-size"
    presets: ClassVar[tuple[str, str]] = ("study/cpu", "study/gpu")
    lists: ClassVar[tuple[str, ...]] = ("--arms", "--sizes")

    candidates: dict[str, Candidate]
    trials: list[dict[str, float]]
    amount: int
    arms: list[str] = field(default_factory=lambda: ["vit", "hybrid", "cnn"])
    sizes: list[int] | None = None
    seeds: int = 6
    budget: Budget = "steps"
    match: Match = "parameters"
    tune_size: int | None = None
    precision: str | None = None
    compare_precision: str | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    workers: int | None = None
    out: str | None = None
    dry_run: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        at_least_one = {"seeds": self.seeds, "amount": self.amount, "workers": self.workers, "size": self.size}
        for name, value in at_least_one.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.trials or any(set(trial) != {"lr", "weight_decay"} for trial in self.trials):
            raise ValueError(f"expected trials of lr and weight_decay, got {self.trials}")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "DataSize":
        """From parsed values, candidates not yet built."""
        candidates = {name: Candidate(**candidate["init_args"]) for name, candidate in values.pop("candidates").items()}
        return cls(candidates=candidates, **values)


def plan(settings: DataSize, configs: Sequence[str], options: Sequence[str]) -> Plan:
    """The study that these settings describe.

    Args:
        settings: of the study.
        configs: overlays of ``vit fit`` that all runs share.
        options: of ``vit fit``, as ``--name=value``, that all runs share.

    Raises:
        ValueError: an unknown arm, a size that the data do not have, or an option that the grid sets.
    """
    leave_to_the_grid(OF_THE_GRID, settings.fit, configs, options)
    candidates = arms.select(settings.arms, settings.candidates)
    parsed = {name: parse(arm.configs, settings.fit, configs, options) for name, arm in candidates.items()}
    first = next(iter(parsed.values()))
    data: Images = first.parser.instantiate(first.config).data
    require_labels(data.description, "a study")
    sizes = _sizes(settings.sizes, data)
    tune_size = settings.tune_size or sizes[(len(sizes) - 1) // 2]
    check_size(tune_size, data)
    precision = settings.precision or default_precision(choose_accelerator(first.config.trainer.accelerator))
    if settings.compare_precision and tune_size not in sizes:
        raise ValueError(
            f"--compare_precision repeats the runs at tune_size {tune_size}: expected it among sizes {sizes}"
        )
    builds = {name: partial(net_of, cli) for name, cli in parsed.items()}
    study = Study(
        arms=arms.matched(candidates, builds, shape_of(data), settings.match),
        sizes=sizes,
        seeds=tuple(range(settings.seeds)),
        budget=settings.budget,
        amount=settings.amount,
        match=settings.match,
        precision=precision,
        compare_precision=None if settings.compare_precision == precision else settings.compare_precision,
        tune_size=tune_size,
        trials=tuple(settings.trials),
        fit=settings.fit,
        configs=tuple(configs),
        recipes={name: recipe_hash(cli) for name, cli in parsed.items()}
        | _pretrained(candidates, settings, configs, options),
        data=facts(data),
        batch_size=data.batch_size,
    )
    return Plan(study, parsed)


def _pretrained(
    candidates: Mapping[str, Candidate], settings: DataSize, configs: Sequence[str], options: Sequence[str]
) -> dict[str, str]:
    """Hashes of the pretrainings' whole configurations; a method that refuses the net says so now (ValueError)."""
    found = {}
    for name, candidate in candidates.items():
        if candidate.pretrain:
            cli = parse([*candidate.configs, *candidate.pretrain], settings.fit, configs, options)
            try:
                net_of(cli, {})
            except ValueError as error:
                raise ValueError(f"arm {name}: {error}") from error
            found[f"{name} pretraining"] = recipe_hash(cli)
    return found


def _sizes(asked: Sequence[int] | None, data: Images) -> tuple[int, ...]:
    there = len(data.nested_order)
    if asked is None:  # steps of about three, and all there are
        asked = [size for size in LADDER if PER_CLASS * len(data.classes) <= size <= there]
        asked = [*asked, there] if not asked or there >= 1.5 * asked[-1] else asked
    if not asked:
        raise ValueError("sizes: expected at least one number of training pictures, got none")
    for size in asked:
        check_size(size, data)
    return tuple(sorted(set(asked)))
