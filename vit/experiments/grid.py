"""The grid as data: what is studied, the cells it consists of, and the command line that runs a cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from vit.data.order import Plan

Kind = Literal["pretrain", "tune", "run", "time"]
Budget = Literal["steps", "epochs"]
TUNE_SEED = 1000  # no run of the grid has it: the subset and the split that choose a learning rate are drawn apart
WARMUP = 0.1  # share of a run, equal for every arm


@dataclass(frozen=True)
class Arm:
    """One of the architectures compared.

    Attributes:
        name: as the report shows it.
        configs: overlays of ``vit fit``, in order.
        options: further options of ``vit fit``, by name: those that match the arms to each other.
        parameters: trainable numbers.
        macs: multiply-adds of one picture's forward pass.
        pretrain: overlays that make a pretraining task of it, none for an arm that starts fresh.
        pretrain_amount: steps of pretraining, on all training pictures, labels ignored.
        pretrain_options: further options of pretraining.
    """

    name: str
    configs: tuple[str, ...]
    options: Mapping[str, float]
    parameters: int
    macs: int
    pretrain: tuple[str, ...] = ()
    pretrain_amount: int = 0
    pretrain_options: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Nothing of pretraining where there is none."""
        values = asdict(self)
        return values if self.pretrain else {name: values[name] for name in values if not name.startswith("pretrain")}


class Cell(NamedTuple):
    """One run of the grid, or one timing; ``trial`` counts the settings tried while tuning, None afterwards."""

    kind: Kind
    arm: str
    size: int
    seed: int
    precision: str
    trial: int | None = None

    @property
    def key(self) -> str:
        """Names the cell in records, and its folder: ``run-vit-1000-3-32-true``."""
        return "-".join(str(part) for part in self if part is not None)


@dataclass(frozen=True)
class Study:
    """Everything that decides the results of a data-size study; two with equal fields give equal results.

    Attributes:
        arms: what is compared.
        sizes: training pictures, ascending.
        seeds: of initialisation, order, augmentation, subset and validation split; the same for every arm.
        budget: whether ``amount`` counts optimiser steps or epochs.
        amount: length of every run.
        match: what the arms have in common.
        precision: of all runs.
        compare_precision: repeats the runs at ``tune_size`` in this precision, None for no comparison.
        tune_size: training pictures of the tuning runs.
        trials: learning rate and weight decay of each tuning run; the same for every arm.
        fit: configuration that all runs share, in the form of a YAML overlay.
        configs: overlays that all runs share.
        recipes: hash of each arm's whole configuration, but for where the data lie.
        data: name, manifest hash, and numbers of classes, training and test pictures.
        batch_size: of every run.
    """

    arms: tuple[Arm, ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    budget: Budget
    amount: int
    match: str
    precision: str
    compare_precision: str | None
    tune_size: int
    trials: tuple[Mapping[str, float], ...]
    fit: Mapping[str, Any]
    configs: tuple[str, ...]
    recipes: Mapping[str, str]
    data: Mapping[str, Any]
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        arms = [arm.to_dict() for arm in self.arms]
        return {"study": "data-size", "version": VERSION, **asdict(self), "arms": arms}

    def arm(self, name: str) -> Arm:
        (arm,) = (arm for arm in self.arms if arm.name == name)
        return arm

    def pretraining(self) -> Iterator[Cell]:
        """Of each arm that has one, seed by seed: a pretraining never sees the validation pictures of its seed."""
        for seed in (*([TUNE_SEED] if self.trials else []), *self.seeds):
            yield from (self.stage_one(arm.name, seed) for arm in self.arms if arm.pretrain)

    def stage_one(self, arm: str, seed: int) -> Cell:
        """The pretraining of a seed, whatever is finetuned from it."""
        return Cell("pretrain", arm, self.data["train"], seed, self.precision)

    def steps(self, cell: Cell) -> tuple[int, int]:
        """Optimiser steps of a cell, and of one of its epochs."""
        steps, per_epoch = steps_of(self, cell.size)
        return (self.arm(cell.arm).pretrain_amount if cell.kind == "pretrain" else steps), per_epoch

    def tuning(self) -> Iterator[Cell]:
        """The runs that choose each arm's learning rate and weight decay, on validation pictures only."""
        for trial in range(len(self.trials)):
            for arm in self.arms:
                yield Cell("tune", arm.name, self.tune_size, TUNE_SEED, self.precision, trial)

    def runs(self) -> Iterator[Cell]:
        """The grid, seed by seed: stopped early, it still compares arms fairly."""
        for seed in self.seeds:
            for size in self.sizes:
                for arm in self.arms:
                    yield Cell("run", arm.name, size, seed, self.precision)
            for arm in self.arms if self.compare_precision else ():
                yield Cell("run", arm.name, self.tune_size, seed, str(self.compare_precision))


VERSION = 1


def arguments(study: Study, cell: Cell, chosen: Mapping[str, float]) -> list[str]:
    """Options of ``vit fit`` that make a cell, on top of the overlays of its arm and of the study."""
    return [*of_length(cell, *study.steps(cell)), *settings(chosen), *as_options(study.arm(cell.arm).options)]


def of_length(cell: Cell, steps: int, per_epoch: int) -> list[str]:
    """Options of ``vit fit`` for a run of so many steps.

    Validation is once, at the end. Warm-up is a share of the run, whatever the size.
    """
    return as_options(
        {
            "seed_everything": cell.seed,
            "data.train_size": cell.size,
            "trainer.max_epochs": -1,
            "trainer.max_steps": steps,
            "trainer.check_val_every_n_epoch": "null",
            "trainer.val_check_interval": steps,
            "trainer.precision": cell.precision,
            "model.optimizer.warmup_epochs": WARMUP * steps / per_epoch,
        }
    )


def settings(chosen: Mapping[str, float]) -> list[str]:
    """Options of ``vit fit`` for a trial's settings of the optimiser."""
    return as_options({f"model.optimizer.{name}": value for name, value in chosen.items()})


def as_options(values: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def steps_of(study: Study, size: int) -> tuple[int, int]:
    """Optimiser steps of a run on ``size`` pictures, and of one epoch."""
    per_epoch = epoch_of(size, study.batch_size)
    return (study.amount if study.budget == "steps" else study.amount * per_epoch), per_epoch


def epoch_of(size: int, batch_size: int) -> int:
    """Optimiser steps of an epoch of ``size`` pictures."""
    return Plan(np.arange(size), batch_size).batches()


def best_trial(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of an arm's tuning rows, the one of the highest validation accuracy, the lower loss where several have it.

    Raises:
        ValueError: none was finished.
    """
    done = [row for row in rows if row["status"] == "done"]
    if not done:
        raise ValueError("every tuning run failed")
    return max(done, key=lambda row: (row["val_acc"], -row["val_loss"]))
