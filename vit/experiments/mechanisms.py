"""``vit study mechanisms``: which mixer, readout or position is worth its time and memory, at how many tokens?"""

from pathlib import Path

import torch

from vit import environment
from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, tradeoff_report
from vit.experiments.admission import compare
from vit.experiments.comparison import Comparison, Mechanisms
from vit.experiments.grid import Cell
from vit.experiments.job import Job, cores, describe, say_failed
from vit.experiments.ledger import Ledger
from vit.experiments.live import Live
from vit.experiments.options import parse
from vit.experiments.recipe import Plan
from vit.experiments.runner import Runner
from vit.experiments.speed import Timer


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = parse(args, Mechanisms)
    environment.commit()  # of the code that the workers, forked later, will run
    torch.set_num_threads(1)  # a process that has started a thread pool cannot be forked
    settings = options.settings
    cuda = torch.cuda.is_available()
    workers = settings.workers or (2 if cuda else cores())
    with quiet():
        study, planned = compare(options.settings, options.configs, options.options)
    folder = Path(settings.out or f"runs/mechanisms-{study.vary}-{study.grid.data['name']}")
    if settings.dry_run:
        _say(study, planned, folder, workers, cuda)
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        describe(folder, planned)
        timer = Timer(study, folder, options.options)
        timings = Job(timer, book, 1, cuda, settings.retry_failed, settings.timed_threads)  # one by one
        with Live(timings.left(study.timings()), 1, lambda _: 1) as live:
            failed = timings.do(study.timings(), live)
        runner = Runner(study.grid, folder, options.options, {arm.name: {} for arm in study.grid.arms})
        runs = Job(runner, book, workers, cuda, settings.retry_failed)
        with Live(runs.left(study.runs()), workers, lambda cell: study.grid.steps(cell)[0]) as live:
            failed += runs.do(study.runs(), live)
        tradeoff_report.say(folder)
    return say_failed(failed, folder)


def _say(study: Comparison, planned: Plan, folder: Path, workers: int, cuda: bool) -> None:
    """The grid, what takes no part, and what is left to do will cost."""
    if before := ledger.begun(folder):
        ledger.continues(before, study.to_dict(), folder)
    book = Ledger(folder, ledger.fingerprint(study.to_dict()))
    left: list[Cell] = [cell for cell in study.runs() if cell.key not in book]
    torch.set_num_threads(max(1, cores() // workers))
    print(estimate.table(planned, left, workers, "cuda" if cuda else "cpu"))
    timings = sum(cell.key not in book for cell in study.timings())
    print(f"and {timings} timings, one by one")
    for refused in study.refused:
        print(f"{refused.overlay} at {refused.tokens:,} tokens takes no part: {refused.reason}")
