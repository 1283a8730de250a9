"""``vit study data-size``: which architecture should I train on my data, and would more data change the answer?"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from vit import environment
from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, report
from vit.experiments.grid import Cell, Study, best_trial
from vit.experiments.job import Job, cores, describe, say_failed
from vit.experiments.ledger import Ledger
from vit.experiments.live import Live
from vit.experiments.options import parse
from vit.experiments.plan import DataSize, plan
from vit.experiments.runner import Runner


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = parse(args, DataSize)
    environment.commit()  # of the code that the workers, forked later, will run
    torch.set_num_threads(1)  # a process that has started a thread pool cannot be forked
    settings = options.settings
    cuda = torch.cuda.is_available()
    workers = settings.workers or (2 if cuda else cores())
    with quiet():
        planned = plan(options.settings, options.configs, options.options)
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
        left = [cell for cell in _cells(study) if cell.key not in book]
        torch.set_num_threads(max(1, cores() // workers))
        print(estimate.table(planned, left, workers, "cuda" if cuda else "cpu"))
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        describe(folder, planned)
        runner = Runner(study, folder, options.options, {})
        job = Job(runner, book, workers, cuda, settings.retry_failed)
        with Live(job.left(_cells(study)), workers, lambda cell: study.steps(cell)[0]) as live:
            failed = job.do(study.pretraining(), live) + job.do(study.tuning(), live)
            chosen = {arm.name: _chosen(study, book, arm.name) for arm in study.arms}
            failed += replace(job, runner=replace(runner, chosen=chosen)).do(study.runs(), live)
        report.say(folder, settings.size)
    return say_failed(failed, folder)


def _chosen(study: Study, book: Ledger, arm: str) -> Mapping[str, float]:
    rows = [book[cell.key] for cell in study.tuning() if cell.arm == arm]
    try:
        return best_trial(rows)["options"]
    except ValueError as error:
        raise ValueError(
            f"arm {arm}: {error}, the last with {rows[-1]['error']}; --retry-failed takes them up again"
        ) from error


def _cells(study: Study) -> list[Cell]:
    return [*study.pretraining(), *study.tuning(), *study.runs()]
