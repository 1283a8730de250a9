"""``vit study transfer``: is a pretrained start worth it, from which source, for a target with few labels?"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from vit import environment
from vit.commandline.quiet import quiet
from vit.experiments import estimate, ledger, transfer_report
from vit.experiments.gains import same_pictures
from vit.experiments.grid import TUNE_SEED, Cell, best_trial
from vit.experiments.job import Job, cores, say_failed, write_shared
from vit.experiments.ledger import Ledger
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
    environment.commit()  # of the code that the workers, forked later, will run
    torch.set_num_threads(1)  # a process that has started a thread pool cannot be forked
    for name in ("sklearn.linear_model", "sklearn.neighbors"):  # of the probes, imported once for all workers
        import_module(name)
    settings = options.settings
    cuda = torch.cuda.is_available()
    workers = settings.workers or (2 if cuda else cores())
    with quiet():
        planned = plan(settings, options.configs, options.options)
    study = planned.study
    folder = Path(settings.out or f"runs/transfer-{study.entries[0].target}")
    if settings.dry_run:
        _say(planned, folder, workers, "cuda" if cuda else "cpu")
        return 0
    with ledger.claimed(folder, study.to_dict()) as book:
        _describe(folder, planned)
        shape = f"--data.img_size={list(study.img_size)}", f"--data.channels={study.channels}"
        runner = TwoStage(study, folder, (*options.options, *shape), planned.places, {})
        job = Job(runner, book, workers, cuda, settings.retry_failed)
        cells = job.left(_cells(study))
        with Live(cells, workers, lambda cell: study.steps(cell)[0]) as live:
            failed = job.do(study.first(), live)
            failed += job.do((cell for cell in study.tuning() if study.entry(cell.arm).origin is not None), live)
            chosen = {entry.name: _chosen(study, book, entry.name) for entry in study.entries}
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


def _chosen(study: Stages, book: Ledger, entry: str) -> Mapping[str, float]:
    rows = [book[cell.key] for cell in study.tuning() if cell.arm == entry]
    try:
        return best_trial(rows)["options"]
    except ValueError as error:
        raise ValueError(
            f"row {entry}: {error}, the last with {rows[-1]['error']}; --retry-failed takes them up again"
        ) from error


def _say(planned: TransferPlan, folder: Path, workers: int, device: str) -> None:
    """The grid, what takes no part, and what is left to do will cost, every step counted as a supervised one."""
    study = planned.study
    if before := ledger.begun(folder):
        ledger.continues(before, study.to_dict(), folder)
    book = Ledger(folder, ledger.fingerprint(study.to_dict()))
    torch.set_num_threads(max(1, cores() // workers))
    opened = next(iter(planned.targets.values()))
    step, _ = estimate.seconds(opened.net(), shape_of(opened.data), study.batch_size, study.precision, device)
    total = 0.0
    cells = [cell for cell in _cells(study) if cell.key not in book]
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
    at_once = 1 if device == "cuda" else workers
    print(f"at most about {total / 60 / at_once:.0f} minutes of training steps with {workers} at once on {device}")


def _cells(study: Stages) -> list[Cell]:
    """All of them, each once."""
    return list(dict.fromkeys([*study.first(), *study.tuning(), *study.runs()]))


def _batch_size(study: Stages, cell: Cell) -> int:
    return study.origin(cell.arm).batch_size if cell.kind == "pretrain" else study.batch_size
