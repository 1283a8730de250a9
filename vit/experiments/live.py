"""The whole grid while it runs: what is done, what runs now, and when it will end."""

import sys
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vit.experiments.grid import Cell


@final
class Live:
    """One line on a terminal, refreshed by `tick`; one line per finished run elsewhere.

    No thread of its own: this process forks workers.

    Args:
        cells: to be done.
        workers: at a time.
        steps: how long a cell is, against the others of its arm.
    """

    def __init__(self, cells: Sequence[Cell], workers: int, steps: Callable[[Cell], int]) -> None:
        self.left = list(cells)
        self.done, self.total, self.workers, self.steps = 0, len(cells), workers, steps
        self.failed = 0
        self.started: dict[Cell, float] = {}
        self.seconds: dict[str, list[float]] = {}
        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.completed}/{task.total} runs"),
            BarColumn(24),
            TextColumn("{task.fields[text]}"),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self.total, text="")

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tick(self, running: Sequence[Cell]) -> None:
        """Show what runs now."""
        now = time.monotonic()
        for cell in running:
            self.started.setdefault(cell, now)
        names = ", ".join(f"{cell.arm} {cell.size:,}" for cell in running)
        failed = f", {self.failed} failed" if self.failed else ""
        self._bar.update(self._task, text=f"{names}{failed}{self._eta()}")
        self._bar.refresh()

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        """Count a run, and say how it went where nobody watches a bar."""
        self.left.remove(cell)
        seconds = time.monotonic() - self.started.pop(cell, time.monotonic())
        self.done += 1
        if row["status"] == "failed":
            self.failed += 1
            self._bar.console.print(f"{cell.key} failed: {row['error']}", highlight=False, soft_wrap=True)
        else:
            self.seconds.setdefault(cell.arm, []).append(seconds / self.steps(cell))
        self._bar.update(self._task, completed=self.done)
        if self._bar.disable and row["status"] == "done":
            print(f"{self.done}/{self.total} {cell.key}: {_outcome(row)}, {seconds:.0f} s{self._eta()}", flush=True)

    def _eta(self) -> str:
        """From the seconds per step of the runs finished so far, arm by arm; nothing before the first."""
        if not self.seconds:
            return ""
        mean = fmean(value for values in self.seconds.values() for value in values)
        per_arm = {arm: fmean(values) for arm, values in self.seconds.items()}
        now = time.monotonic()
        under_way = sum(now - start for start in self.started.values())
        whole = sum(per_arm.get(cell.arm, mean) * self.steps(cell) for cell in self.left)
        left = max(0.0, whole - under_way) / self.workers
        return f", {left / 60:.0f} min left"


def _outcome(row: dict[str, Any]) -> str:
    """Of a finished cell: what it was run for."""
    if row.get("acc") is not None:
        return f"acc {row['acc']:.4f}"
    return f"val acc {row['val_acc']:.4f}" if "val_acc" in row else f"{row['train_images_per_s']:,.0f} images/s"
