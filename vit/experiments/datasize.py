"""``vit study data-size``: which architecture should I train on my data, and would more data change the answer?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, report
from vit.experiments.grid import Cell, Study
from vit.experiments.job import Job, Machine, describe, say_failed
from vit.experiments.live import Live
from vit.experiments.options import Options, parse
from vit.experiments.plan import DataSize, plan
from vit.experiments.runner import Runner


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = options_of(args)
    settings = options.settings
    machine = Machine.prepared(settings.workers)
    with quiet():
        planned = plan(settings, options.configs, options.options)
    folder = Path(settings.out or f"runs/data-size-{planned.study.data['name']}")
    before = ledger.begun(folder)
    if before and not settings.tune_size:  # the default, the middle size, would move while a study grows
        tuned_at = before.get("tune_size", planned.study.tune_size)
        planned = planned._replace(study=replace(planned.study, tune_size=tuned_at))
    study = planned.study
    if settings.dry_run:
        left = ledger.left(folder, study.to_dict(), _cells(study))
        torch.set_num_threads(machine.threads)
        print(estimate.table(planned, left, machine.workers, machine.device))
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        describe(folder, planned)
        runner = Runner(study, folder, options.options, {})
        job = Job(runner, book, machine, settings.retry_failed)
        with Live(job.left(_cells(study)), machine.workers, lambda cell: study.steps(cell)[0]) as live:
            failed = job.do(study.pretraining(), live) + job.do(study.tuning(), live)
            chosen = {arm.name: job.chosen(study.tuning(), "arm", arm.name) for arm in study.arms}
            failed += replace(job, runner=replace(runner, chosen=chosen)).do(study.runs(), live)
        report.say(folder, settings.size)
    return say_failed(failed, folder)


def options_of(args: Sequence[str]) -> Options[DataSize]:
    """The command line taken apart.

    Raises:
        ValueError: one line for what cannot be; a number of epochs left to presets, which count steps, among it.
    """
    options, said = parse(args, DataSize), {argument.partition("=")[0] for argument in args}
    if options.settings.budget == "epochs" and "--budget" in said and "--amount" not in said:
        amount = options.settings.amount
        raise ValueError(f"--budget epochs expects --amount, a number of epochs: the {amount} of the preset are steps")
    return options


def _cells(study: Study) -> list[Cell]:
    return [*study.pretraining(), *study.tuning(), *study.runs()]
