"""``vit study data-size``: which architecture should I train on my data, and would more data change the answer?"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import yaml

from vit import environment
from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, report
from vit.experiments.grid import TUNE_SEED, Cell, Study, best_trial, steps_of
from vit.experiments.ledger import Ledger
from vit.experiments.live import Live
from vit.experiments.options import parse
from vit.experiments.plan import Plan, plan
from vit.experiments.runner import SHARED, Runner, subset_file
from vit.experiments.workers import Failed, Pool
from vit.files import write_atomically


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = parse(args)
    environment.commit()  # of the code that the workers, forked later, will run
    torch.set_num_threads(1)  # a process that has started a thread pool cannot be forked
    settings = options.settings
    cuda = torch.cuda.is_available()
    workers = settings.workers or (2 if cuda else _cores())
    with quiet():
        planned = plan(*options)
    folder = Path(settings.out or f"runs/data-size-{planned.study.data['name']}")
    before = ledger.begun(folder)
    if before and not settings.tune_size:  # the default, the middle size, would move while a study grows
        tuned_at = before.get("tune_size", planned.study.tune_size)
        planned = planned._replace(study=replace(planned.study, tune_size=tuned_at))
    study = planned.study
    if settings.dry_run:
        if before:
            ledger.continues(before, study.to_dict(), folder)
        book = Ledger(folder, ledger.fingerprint(study.to_dict()))
        left = [cell for cell in (*study.tuning(), *study.runs()) if cell.key not in book]
        torch.set_num_threads(max(1, _cores() // workers))
        print(estimate.table(planned, left, workers, "cuda" if cuda else "cpu"))
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        _describe(folder, planned)
        job = Job(Runner(study, folder, options.options, {}), book, workers, cuda, settings.retry_failed)
        with Live([*job.left(study.tuning()), *job.left(study.runs())], workers, partial(_steps, study)) as live:
            failed = job.do(study.tuning(), live)
            chosen = {arm.name: _chosen(study, book, arm.name) for arm in study.arms}
            failed += replace(job, runner=replace(job.runner, chosen=chosen)).do(study.runs(), live)
        report.say(folder, settings.size)
    if failed:
        print(f"{failed} runs failed, see {folder / 'runs'}; --retry-failed takes them up again")
    return int(failed > 0)


@dataclass(frozen=True)
class Job:
    """Cells to be done, with what it takes to do them."""

    runner: Runner
    book: Ledger
    workers: int
    cuda: bool
    retry_failed: bool

    def left(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those that are not finished yet."""
        return [cell for cell in cells if self._is_open(cell)]

    def do(self, cells: Iterable[Cell], live: Live) -> int:
        """Run what is left of them; how many of all failed, now or before."""
        cells = list(cells)
        pool: Pool[Cell] = Pool(self.runner, self.runner.log, self.workers, max(1, _cores() // self.workers), self.cuda)
        for cell, result in pool.results(self.left(cells), lambda: live.tick(list(pool.running))):
            row = self.runner.failed(cell, result.error) if isinstance(result, Failed) else result
            self.book.append(row)
            live.finished(cell, row)
        return sum(self.book[cell.key]["status"] == "failed" for cell in cells)

    def _is_open(self, cell: Cell) -> bool:
        if cell.key not in self.book:
            return True
        used = cell.kind == "tune" and self.book.has_run(cell.arm)  # another choice would mix two settings in one arm
        return self.retry_failed and self.book[cell.key]["status"] == "failed" and not used


def _describe(folder: Path, planned: Plan) -> None:
    """What the runs share, and which pictures each seed's subsets consist of."""
    study = planned.study
    write_atomically(folder / SHARED, lambda part: part.write_text(yaml.safe_dump(dict(study.fit)), encoding="utf-8"))
    for seed in (*study.seeds, TUNE_SEED):
        order = planned.data(seed).nested_order[: max(*study.sizes, study.tune_size)]
        manifest = {
            "data": study.data["name"],
            "manifest_hash": study.data["manifest_hash"],
            "seed": seed,
            "order": order.tolist(),
        }
        text = json.dumps(manifest)
        write_atomically(subset_file(folder, seed), lambda part, text=text: part.write_text(text, encoding="utf-8"))


def _chosen(study: Study, book: Ledger, arm: str) -> Mapping[str, float]:
    rows = [book[cell.key] for cell in study.tuning() if cell.arm == arm]
    try:
        return best_trial(rows)["options"]
    except ValueError as error:
        raise ValueError(
            f"arm {arm}: {error}, the last with {rows[-1]['error']}; --retry-failed takes them up again"
        ) from error


def _steps(study: Study, cell: Cell) -> int:
    return steps_of(study, cell.size)[0]


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
