"""A transfer study as data: what is pretrained on which data, and what is finetuned from it on which target."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from vit.experiments.grid import TUNE_SEED, Cell, epoch_of

VERSION = 1


@dataclass(frozen=True)
class Transfer:
    """Pretrain on sources, finetune on a few labels of targets: does a start beat the same net from scratch?

    Attributes:
        host: overlays of vit fit that make the net, the same for every row.
        methods: overlays of vit fit that make a pretraining task of the host, by name; none for learning from labels.
        amount: optimiser steps of finetuning, the same for every row.
        pretrain_amount: optimiser steps of every pretraining.
        trials: learning rate, and other settings of the optimiser, of each finetuning trial; the same for every row.
        targets: what is finetuned and tested on. data/NAME, data/NAME=ROOT, or a folder, CSV or npz file.
        sources: what is pretrained on, likewise. With coarser labels it may hold a target's own pictures.
        rows: scratch; scratch-long, as long as pretraining and finetuning together; METHOD, on the target's own
            pictures; METHOD@SOURCE; METHOD@* on each source.
        labels: training pictures of a target that are finetuned on.
        seeds: runs of each row and target. No claim is made from fewer than 6.
        precision: of all runs (default: bf16-mixed where the device supports it well, else 32-true).
        fit: configuration all runs share, as in a YAML overlay of vit fit.
        pretrain: likewise of pretraining alone.
        workers: runs at once (default: one per core; 2 on CUDA).
        out: folder of the study; the same command continues there (default: runs/transfer-<first target>).
        dry_run: print the grid and an estimate of its time, and stop.
        retry_failed: take failed runs up again.

    Raises:
        ValueError: a number below 1, no target, or trials without lr or of different settings.
    """

    name: ClassVar[str] = "transfer"
    presets: ClassVar[tuple[str, str]] = ("study/transfer_cpu", "study/transfer_gpu")
    lists: ClassVar[tuple[str, ...]] = ("--targets", "--sources", "--rows")

    host: list[str]
    methods: dict[str, list[str]]
    amount: int
    pretrain_amount: int
    trials: list[dict[str, float]]
    targets: list[str] = field(default_factory=lambda: ["data/digits"])
    sources: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=lambda: ["scratch", "scratch-long"])
    labels: int = 600
    seeds: int = 6
    precision: str | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    pretrain: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    out: str | None = None
    dry_run: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for name in ("amount", "pretrain_amount", "labels", "seeds", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.trials or any("lr" not in trial or set(trial) != set(self.trials[0]) for trial in self.trials):
            raise ValueError(f"expected trials of lr, and the same further settings in each, got {self.trials}")
        if not self.targets:
            raise ValueError("--targets: expected at least one data set, got none")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Transfer":
        """From parsed values."""
        return cls(**values)


@dataclass(frozen=True)
class Origin:
    """A pretraining: ``method`` on all training pictures of ``source``, but for those of validation."""

    name: str
    method: str
    source: str
    batch_size: int


@dataclass(frozen=True)
class Entry:
    """A row at one target: what finetuning starts from, None for a fresh net, and how many steps it takes."""

    name: str
    row: str
    target: str
    origin: str | None
    steps: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Stages:
    """Everything that decides the results of a transfer study; two with equal fields give equal results.

    Attributes:
        host: overlays that make the net.
        methods: overlays that make a pretraining task of it.
        origins: what is pretrained, once for each seed, whatever is finetuned from it.
        entries: what is finetuned and tested.
        refused: rows of a target that take no part, and why.
        sets: name, manifest hash, and numbers of pictures of each data set, by name.
        img_size: of all pictures.
        channels: likewise.
        labels: pictures finetuned on.
        seeds: of initialisation, order, subset and validation split; the same for every row.
        amount: steps of finetuning.
        pretrain_amount: steps of pretraining.
        trials: settings of each tuning run; the same for every row.
        precision: of all runs.
        fit: configuration that all runs share.
        pretrain: configuration that pretrainings share.
        configs: overlays that all runs share.
        recipes: hash of each origin's and target's whole configuration, but for where the data lie.
        batch_size: of finetuning.
    """

    host: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]
    origins: tuple[Origin, ...]
    entries: tuple[Entry, ...]
    refused: tuple[Mapping[str, str], ...]
    sets: Mapping[str, Mapping[str, Any]]
    img_size: tuple[int, int]
    channels: int
    labels: int
    seeds: tuple[int, ...]
    amount: int
    pretrain_amount: int
    trials: tuple[Mapping[str, float], ...]
    precision: str
    fit: Mapping[str, Any]
    pretrain: Mapping[str, Any]
    configs: tuple[str, ...]
    recipes: Mapping[str, str]
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        entries, origins = values.pop("entries"), values.pop("origins")
        return {"study": "transfer", "version": VERSION, **values, "arms": [*entries, *origins]}

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def origin(self, name: str) -> Origin:
        return next(origin for origin in self.origins if origin.name == name)

    def first(self) -> Iterator[Cell]:
        """What waits for nothing: the tuning of fresh nets, the longest first, and every pretraining, seed by seed."""
        fresh = [cell for cell in self.tuning() if self.entry(cell.arm).origin is None]
        yield from sorted(fresh, key=lambda cell: -self.steps(cell)[0])
        for seed in (TUNE_SEED, *self.seeds):
            yield from (self.stage_one(origin.name, seed) for origin in self.origins)

    def stage_one(self, origin: str, seed: int) -> Cell:
        """The pretraining of a seed."""
        size = self.sets[self.origin(origin).source]["train"]
        return Cell("pretrain", origin, size, seed, self.precision)

    def tuning(self) -> Iterator[Cell]:
        """The runs that choose each row's learning rate, on validation pictures only."""
        for trial in range(len(self.trials)):
            for entry in self.entries:
                yield Cell("tune", entry.name, self.labels, TUNE_SEED, self.precision, trial)

    def runs(self) -> Iterator[Cell]:
        """The grid, seed by seed: stopped early, it still compares rows fairly."""
        for seed in self.seeds:
            yield from (Cell("run", entry.name, self.labels, seed, self.precision) for entry in self.entries)

    def steps(self, cell: Cell) -> tuple[int, int]:
        """Optimiser steps of a cell, and of one of its epochs."""
        if cell.kind == "pretrain":
            return self.pretrain_amount, epoch_of(cell.size, self.origin(cell.arm).batch_size)
        return self.entry(cell.arm).steps, epoch_of(cell.size, self.batch_size)
