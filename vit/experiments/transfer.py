"""``vit study transfer``: is a pretrained start worth it, from which source, for a target with few labels?"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, transfer_report
from vit.experiments.gains import same_pictures
from vit.experiments.grid import TUNE_SEED, Cell
from vit.experiments.job import Job, Machine, say_failed, write_shared
from vit.experiments.live import Live
from vit.experiments.options import parse
from vit.experiments.recipe import shape_of
from vit.experiments.runner import SHARED, subset_file, write_subsets
from vit.experiments.stages import Stages, Transfer
from vit.experiments.transfer_plan import TransferPlan, plan
from vit.experiments.twostage import PRETRAIN, TwoStage


def main(args: list[str]) -> int:
    """Run or continue a study, and write its report; 1 when runs failed."""
    options = parse(args, Transfer)
    settings = options.settings
    machine = Machine.prepared(settings.workers)
    for name in ("sklearn.linear_model", "sklearn.neighbors"):  # of the probes, imported once for all workers
        import_module(name)
    with quiet():
        planned = plan(settings, options.configs, options.options)
    study = planned.study
    folder = Path(settings.out or f"runs/transfer-{study.entries[0].target}")
    if settings.dry_run:
        _say(planned, folder, machine)
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        _describe(folder, planned)
        shape = f"--data.img_size={list(study.img_size)}", f"--data.channels={study.channels}"
        runner = TwoStage(study, folder, (*options.options, *shape), planned.places, {})
        job = Job(runner, book, machine, settings.retry_failed)
        cells = job.left(_cells(study))
        with Live(cells, machine.workers, lambda cell: study.steps(cell)[0]) as live:
            failed = job.do(study.first(), live)
            failed += job.do((cell for cell in study.tuning() if study.entry(cell.arm).origin is not None), live)
            chosen = {entry.name: job.chosen(study.tuning(), "row", entry.name) for entry in study.entries}
            failed += replace(job, runner=replace(runner, chosen=chosen)).do(study.runs(), live)
        transfer_report.say(folder)
    return say_failed(failed, folder)


def _describe(folder: Path, planned: TransferPlan) -> None:
    """Write what the runs share, and which pictures of each target the labels belong to."""
    study = planned.study
    write_shared(folder / SHARED, study.fit)
    write_shared(folder / PRETRAIN, study.pretrain)
    for target in planned.targets:
        for seed in (TUNE_SEED, *study.seeds):
            path = subset_file(folder / "subsets" / target, seed)
            write_subsets(path, planned.data(target, seed), seed, study.labels)


def _say(planned: TransferPlan, folder: Path, machine: Machine) -> None:
    """The grid, what takes no part, and what is left to do will cost, every step counted as a supervised one."""
    study = planned.study
    cells = ledger.left(folder, study.to_dict(), _cells(study))
    torch.set_num_threads(machine.threads)
    opened = next(iter(planned.targets.values()))
    step, _ = estimate.seconds(opened.net(), shape_of(opened.data), study.batch_size, study.precision, machine.device)
    total = 0.0
    for kind in ("pretrain", "tune", "run"):
        left = [cell for cell in cells if cell.kind == kind]
        pictures = sum(study.steps(cell)[0] * _batch_size(study, cell) for cell in left)
        total += pictures / study.batch_size * step
        print(f"{kind:<9}{len(left):>5} to do, {pictures:>12,} pictures to train on")
    for entry in study.entries:
        print(f"{entry.name}: {entry.steps:,} steps on {study.labels:,} labels, from {entry.origin or 'a fresh net'}")
    for refused in study.refused:
        print(f"left out: {refused['reason']}")
    for same in same_pictures(study.to_dict()):
        print(same)
    minutes = total / 60 / (1 if machine.cuda else machine.workers)
    where = f"with {machine.workers} at once on {machine.device}"
    print(f"at most about {minutes:.0f} minutes of training steps {where}")


def _cells(study: Stages) -> list[Cell]:
    """All of them, each once."""
    return list(dict.fromkeys([*study.first(), *study.tuning(), *study.runs()]))


def _batch_size(study: Stages, cell: Cell) -> int:
    return study.origin(cell.arm).batch_size if cell.kind == "pretrain" else study.batch_size
