"""``vit study mechanisms``: which mixer, readout or position is worth its time and memory, at how many tokens?"""

from pathlib import Path

import torch

from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, tradeoff_report
from vit.experiments.admission import compare
from vit.experiments.comparison import Comparison, Mechanisms
from vit.experiments.job import Job, Machine, describe, say_failed
from vit.experiments.live import Live
from vit.experiments.options import parse
from vit.experiments.recipe import Plan
from vit.experiments.runner import Runner
from vit.experiments.speed import Timer


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = parse(args, Mechanisms)
    settings = options.settings
    machine = Machine.prepared(settings.workers)
    with quiet():
        study, planned = compare(settings, options.configs, options.options)
    folder = Path(settings.out or f"runs/mechanisms-{study.vary}-{study.grid.data['name']}")
    if settings.dry_run:
        _say(study, planned, folder, machine)
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        describe(folder, planned)
        timer = Timer(study, folder, options.options)
        alone = machine._replace(workers=1)
        timings = Job(timer, book, alone, settings.retry_failed, settings.timed_threads)
        with Live(timings.left(study.timings()), 1, lambda _: 1) as live:
            failed = timings.do(study.timings(), live)
        runner = Runner(study.grid, folder, options.options, {arm.name: {} for arm in study.grid.arms})
        runs = Job(runner, book, machine, settings.retry_failed)
        with Live(runs.left(study.runs()), machine.workers, lambda cell: study.grid.steps(cell)[0]) as live:
            failed += runs.do(study.runs(), live)
        tradeoff_report.say(folder)
    return say_failed(failed, folder)


def _say(study: Comparison, planned: Plan, folder: Path, machine: Machine) -> None:
    """The grid, what takes no part, and what is left to do will cost."""
    runs, timings = (ledger.left(folder, study.to_dict(), cells) for cells in (study.runs(), study.timings()))
    torch.set_num_threads(machine.threads)
    print(estimate.table(planned, runs, machine.workers, machine.device))
    print(f"and {len(timings)} timings, one by one")
    for refused in study.refused:
        print(f"{refused.overlay} at {refused.tokens:,} tokens takes no part: {refused.reason}")
