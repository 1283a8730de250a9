"""A mechanisms study as data: one host model, one part of it exchanged, at several numbers of tokens."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

from vit.experiments.axes import Axis
from vit.experiments.grid import Arm, Budget, Cell, Study

VERSION = 1


@dataclass(frozen=True)
class Mechanisms:
    """Compare mixers, readouts, positions or parts of a block in one host model: accuracy, speed and memory.

    Attributes:
        host: overlays of vit fit that make the model whose part is exchanged.
        references: for each axis, the overlay that leaves the host as it is.
        amount: length of every run.
        vary: which part is exchanged: mixer, readout, position or block.
        arms: packaged overlays, such as attention/linear (default: all there are for the axis).
        patch: patch sides; on the same pictures each is another number of tokens.
        timed_patch: patch sides at which only time and memory are measured, nothing is trained.
        seeds: runs of each arm and patch. No order is claimed from fewer than 6.
        train_size: training pictures (default: all there are).
        budget: whether amount counts optimiser steps or epochs.
        widen: show arms of fewer parameters a second time, their MLP widened to the host's number.
        precision: of all runs (default: bf16-mixed where the device supports it well, else 32-true).
        timed_batch: pictures of a timed step.
        timed_threads: of the CPU, for timings (default: one per core).
        fit: configuration all runs share, as in a YAML overlay of vit fit.
        workers: runs at once (default: one per core; 2 on CUDA). Timings are made one by one.
        out: folder of the study; the same command continues there (default: runs/mechanisms-<vary>-<data>).
        dry_run: print the grid and an estimate of its time, and stop.
        retry_failed: take failed runs up again.

    Raises:
        ValueError: a number below 1, no patch, or no overlay that leaves the host as it is.
    """

    name: ClassVar[str] = "mechanisms"
    presets: ClassVar[tuple[str, str]] = ("study/mechanisms_cpu", "study/mechanisms_gpu")
    lists: ClassVar[tuple[str, ...]] = ("--arms", "--patch", "--timed_patch")

    host: list[str]
    references: dict[str, str]
    amount: int
    vary: Axis = "mixer"
    arms: list[str] | None = None
    patch: list[int] = field(default_factory=lambda: [4])
    timed_patch: list[int] = field(default_factory=list)
    seeds: int = 3
    train_size: int | None = None
    budget: Budget = "steps"
    widen: bool = True
    precision: str | None = None
    timed_batch: int = 32
    timed_threads: int | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    out: str | None = None
    dry_run: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        at_least_one = {
            name: getattr(self, name) for name in ("seeds", "amount", "workers", "timed_batch", "timed_threads")
        }
        for name, value in at_least_one.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.patch or min([*self.patch, *self.timed_patch]) < 1:
            raise ValueError(f"expected at least one --patch, each 1 or more, got {[*self.patch, *self.timed_patch]}")
        if self.vary not in self.references:
            raise ValueError(f"expected the overlay that leaves the host as it is under references: {self.vary}")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Mechanisms":
        """From parsed values."""
        return cls(**values)


class Entry(NamedTuple):
    """What an arm of the grid is: an overlay at one patch size.

    ``widened``: its MLP has been turned until the net has the host's parameters.
    """

    name: str
    overlay: str
    patch: int
    tokens: int
    widened: bool


class Refused(NamedTuple):
    """An overlay that takes no part at one patch size, and why."""

    overlay: str
    patch: int
    tokens: int
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Everything that decides the results of a mechanisms study: a grid of entries, and which of them is the host.

    Attributes:
        grid: one size, no tuning: every arm has the recipe of ``fit``.
        entries: what each arm of the grid is.
        vary: the axis.
        host: overlays of the host.
        reference: overlay that leaves the host as it is.
        patch: trained on.
        timed_patch: only timed.
        timed_batch: pictures of a timed step.
        embed_dim: channels of the host's tokens.
        refused: what takes no part.
    """

    grid: Study
    entries: tuple[Entry, ...]
    vary: Axis
    host: tuple[str, ...]
    reference: str
    patch: tuple[int, ...]
    timed_patch: tuple[int, ...]
    timed_batch: int
    embed_dim: int
    refused: tuple[Refused, ...]

    def to_dict(self) -> dict[str, Any]:
        grid = asdict(self.grid)
        for name in ("sizes", "match", "compare_precision", "tune_size", "trials"):  # of a data-size study
            del grid[name]
        entries = {entry.name: entry._asdict() for entry in self.entries}
        return {
            "study": "mechanisms",
            "version": VERSION,
            **grid,
            "arms": [{**arm.to_dict(), **entries[arm.name]} for arm in self.grid.arms],
            "train_size": self.grid.tune_size,
            "vary": self.vary,
            "host": self.host,
            "reference": self.reference,
            "patch": self.patch,
            "timed_patch": self.timed_patch,
            "timed_batch": self.timed_batch,
            "embed_dim": self.embed_dim,
            "refused": [refused._asdict() for refused in self.refused],
        }

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def host_at(self, patch: int) -> Arm:
        """The reference's arm."""
        name = next(entry.name for entry in self.entries if (entry.overlay, entry.patch) == (self.reference, patch))
        return self.grid.arm(name)

    def runs(self) -> Iterator[Cell]:
        """What is trained, seed by seed."""
        trained = {entry.name for entry in self.entries if entry.patch in self.patch}
        return (cell for cell in self.grid.runs() if cell.arm in trained)

    def timings(self) -> Iterator[Cell]:
        """One of each entry, those that are not trained included."""
        for entry in self.entries:
            yield Cell("time", entry.name, self.grid.tune_size, 0, self.grid.precision)
