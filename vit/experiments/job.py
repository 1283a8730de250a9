"""Cells of a grid done in workers, whatever a cell is: finished ones skipped, failed ones kept, results only added."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import yaml

from vit import environment
from vit.experiments.grid import TUNE_SEED, Cell, best_trial
from vit.experiments.ledger import Ledger
from vit.experiments.live import Live
from vit.experiments.recipe import Plan
from vit.experiments.runner import SHARED, subset_file, write_subsets
from vit.experiments.workers import Failed, Pool
from vit.files import write_atomically
from vit.tasks.places import told_without_places


class Machine(NamedTuple):
    """What runs are done with: so many at once, on CUDA or on the CPU."""

    workers: int
    cuda: bool

    @classmethod
    def prepared(cls, workers: int | None) -> "Machine":
        """This process made ready to fork ``workers``; None is one for each core, 2 on CUDA."""
        environment.commit()  # of the code that the workers, forked later, will run
        torch.set_num_threads(1)  # a process that has started a thread pool cannot be forked
        cuda = torch.cuda.is_available()
        return cls(workers or (2 if cuda else cores()), cuda)

    @property
    def device(self) -> str:
        return "cuda" if self.cuda else "cpu"

    @property
    def threads(self) -> int:
        """Of each worker: a share of the cores."""
        return max(1, cores() // self.workers)


class Work(Protocol):
    """What is done with each cell, and where its terminal output goes."""

    def __call__(self, cell: Cell) -> dict[str, Any]: ...

    def log(self, cell: Cell) -> Path: ...


@dataclass(frozen=True)
class Job:
    """Cells to be done, with what it takes to do them; ``threads`` in each worker, a share of the cores if None."""

    runner: Work
    book: Ledger
    machine: Machine
    retry_failed: bool
    threads: int | None = None

    def left(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those that are not finished yet."""
        return [cell for cell in cells if self._is_open(cell)]

    def do(self, cells: Iterable[Cell], live: Live) -> int:
        """Run what is left of them; how many of all failed, now or before."""
        cells = list(cells)
        workers, threads = self.machine.workers, self.threads or self.machine.threads
        pool: Pool[Cell] = Pool(self.runner, self.runner.log, workers, threads, self.machine.cuda)
        for cell, result in pool.results(self.left(cells), lambda: live.tick(list(pool.running))):
            row = failed(cell, result.error) if isinstance(result, Failed) else result
            self.book.append(row)
            live.finished(cell, row)
        return sum(self.book[cell.key]["status"] == "failed" for cell in cells)

    def chosen(self, tuning: Iterable[Cell], what: str, name: str) -> Mapping[str, float]:
        """The settings of the best tuning run of an arm.

        Args:
            tuning: cells of all arms, done.
            what: an arm is called.
            name: of the arm.

        Raises:
            ValueError: every one of them failed.
        """
        rows = [self.book[cell.key] for cell in tuning if cell.arm == name]
        try:
            return best_trial(rows)["options"]
        except ValueError as error:
            raise ValueError(
                f"{what} {name}: {error}, the last with {rows[-1]['error']}; --retry-failed takes them up again"
            ) from error

    def _is_open(self, cell: Cell) -> bool:
        if cell.key not in self.book:
            return True
        used = cell.kind == "tune" and self.book.has_run(cell.arm)  # another choice would mix two settings in one arm
        return self.retry_failed and self.book[cell.key]["status"] == "failed" and not used


def failed(cell: Cell, error: str) -> dict[str, Any]:
    """The row of a cell that ended with an error, which tells no place of this machine."""
    told = told_without_places(error)
    return {"key": cell.key, **cell._asdict(), "status": "failed", "error": told, **environment.environment()}


def describe(folder: Path, planned: Plan) -> None:
    """Write what the runs share, and which pictures each seed's subsets consist of."""
    study = planned.study
    write_shared(folder / SHARED, study.fit)
    for seed in (*study.seeds, *([TUNE_SEED] if study.trials else [])):
        count = max(*study.sizes, study.tune_size)
        write_subsets(subset_file(folder, seed), planned.data(seed), seed, count)


def write_shared(path: Path, fit: Mapping[str, Any]) -> None:
    """Configuration that runs share, as an overlay of ``vit fit``."""
    write_atomically(path, lambda part: part.write_text(yaml.safe_dump(dict(fit)), encoding="utf-8"))


def say_failed(number: int, folder: Path) -> int:
    """The exit code, and where to look when cells failed."""
    if number:
        print(f"{number} runs failed, see {folder / 'runs'}; --retry-failed takes them up again")
    return int(number > 0)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
