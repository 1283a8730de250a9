"""Fit and resume, from the command line or from Python: ``fit(["-c", "quickstart"])``."""

import json
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vit import bundle
from vit.commandline import record, report
from vit.commandline.arguments import take, with_configs
from vit.commandline.inherit import inherited
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.commandline.runfolder import (
    CONFIG,
    LAST,
    Progress,
    claimed,
    default_folder,
    held,
    newest_checkpoint,
    progress_of,
    resumable,
)
from vit.files import require_room, sha256, write_atomically
from vit.tasks.checkpoint import Checkpoints, is_smoke_run
from vit.tasks.skipped import Skipped
from vit.tasks.task import Task
from vit.tasks.termination import Termination, in_main_thread

OF_A_TEST = ("test.json", "confusion.png", "mistakes.png")


class Run(NamedTuple):
    """A finished fit: its folder, its metrics and where its time went.

    Metrics are the last values, and ``best/val/acc``, that of the kept model; ``waited`` is the part of ``seconds`` in
    which data was read in before the first step, or a batch was not there yet; ``next`` is what to type then. A
    resumed run that was finished already has no metrics and took no time.
    """

    folder: Path
    metrics: dict[str, float]
    seconds: float
    waited: float
    next: str


def fit(args: list[str]) -> Run:
    """Train as ``vit fit ARGS`` does; every file lands in one folder.

    Raises:
        ValueError: anything the user can put right, in one line. No folder is left when nothing was trained.
    """
    command = record.shown("fit", args)
    (run, resume), args = take(args, "--run", "--resume")
    if resume is not None:
        return _resume(Path(resume), args, run, command)
    args, configs = with_configs(args)
    folder = Path(run) if run else default_folder(configs)
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve('base')}", *inherited(args), *args])
        cli.build(folder)
        if not _writes(cli):
            return _fit(cli, None, command)
        with claimed(folder, cli.saved_config()), held(folder):
            require_room(folder, _checkpoints_size(cli))
            record.keep_data(folder, cli.datamodule)
            return _fit(cli, None, command)


def _resume(folder: Path, args: list[str], run: str | None, command: str) -> Run:
    if run is not None:
        raise ValueError(f"--resume {folder} continues in its own folder: leave --run {run} out")
    args, _ = with_configs(args)
    resumable(folder, args)
    with quiet():
        cli = VitCLI("fit", [f"--config={folder / CONFIG}", *args])
        cli.build(folder)
        progress = progress_of(newest_checkpoint(folder)[0])
        _refuse_less(cli, progress)
        if _is_finished(cli, progress):
            further = f"--trainer.max_epochs {progress.epochs + 1}"
            print(f"{folder} is already finished, {progress.steps} steps; to train longer: {further}")
            return Run(folder, {}, 0.0, 0.0, _next_command(cli))
        if not _writes(cli):
            return _fit(cli, newest_checkpoint(folder)[0], command)
        with held(folder):
            return _continue(cli, command)


def _continue(cli: VitCLI, command: str) -> Run:
    config, folder, model = cli.folder / CONFIG, cli.folder, cli.folder / bundle.WEIGHTS
    require_room(folder, _checkpoints_size(cli))
    record.keep_data(folder, cli.datamodule)
    checkpoint, problem = newest_checkpoint(folder)  # none of a run stopped before its first: it starts anew
    if problem:
        print(problem)
    before, released = config.read_text(encoding="utf-8"), sha256(model) if model.is_file() else ""
    write_atomically(config, lambda part: part.write_text(cli.saved_config(), encoding="utf-8"))
    try:
        done = _fit(cli, checkpoint, command)
    except ValueError:  # refused, by other classes for instance: the run stays as it was
        write_atomically(config, lambda part: part.write_text(before, encoding="utf-8"))
        raise
    if not model.is_file() or sha256(model) != released:
        for name in OF_A_TEST:  # of the model as it was
            (folder / name).unlink(missing_ok=True)
        if (folder / report.PAGE).is_file():
            report.write(folder)
    return done


def _refuse_less(cli: VitCLI, done: Progress) -> None:
    """Refuse an end that lies behind: the run would be said to have ended where it did not."""
    trainer = cli.trainer
    ends = {"max_steps": (trainer.max_steps, done.steps), "max_epochs": (trainer.max_epochs, done.epochs)}
    for option, (end, reached) in ends.items():
        if end is not None and 0 <= end < reached:
            raise ValueError(f"--trainer.{option} {end} lies behind: {cli.folder} has trained {reached} already")


def _is_finished(cli: VitCLI, done: Progress) -> bool:
    """Whether nothing is left to train, and what follows training was done, too."""
    trainer = cli.trainer
    at_end = done.steps == trainer.max_steps or done.whole_epochs == trainer.max_epochs
    return at_end and not is_smoke_run(trainer) and record.steps_recorded(cli.folder) == done.steps


def _next_command(cli: VitCLI) -> str:
    assert isinstance(cli.model, Task)
    data = cli.config.data
    if len(cli.datamodule.classes) < 2:
        return cli.model.next_command(cli.folder, "--data.root LABELLED")
    values = {name: data[name] for name in ("dataset", "root", "channels", "merge_classes") if data[name] is not None}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return cli.model.next_command(cli.folder, " ".join(f"--data.{n} {shlex.quote(t)}" for n, t in texts.items()))


def _writes(cli: VitCLI) -> bool:
    """Whether this process keeps the run folder: the first of several does, and none when the code is only tried."""
    return getattr(rank_zero_only, "rank", 0) == 0 and not cli.config.trainer.fast_dev_run


def _checkpoints_size(cli: VitCLI) -> int:
    """Bytes that the run's checkpoints will take more than now: three and a part; weights, average, two moments."""
    if not isinstance(cli.trainer.checkpoint_callback, Checkpoints):
        return 0
    weights = sum(tensor.numel() * tensor.element_size() for tensor in cli.model.parameters())
    there = sum(path.stat().st_size for path in (cli.folder / "checkpoints").glob("*.ckpt"))
    return max(0, 4 * 4 * weights - there)


def _fit(cli: VitCLI, checkpoint: Path | None, command: str) -> Run:
    trainer, start = cli.trainer, time.monotonic()
    termination = Termination()
    trainer.callbacks += [Skipped(), termination]  # type: ignore[attr-defined]
    with _interruptible(cli.folder, termination), _advised(cli), cli.logging():
        trainer.ckpt_path = checkpoint  # given to `fit` instead, the task's set-up would not know that it is resumed
        trainer.fit(cli.model, datamodule=cli.datamodule, weights_only=True)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    seconds, waited = time.monotonic() - start, cli.datamodule.waited
    keeper = trainer.checkpoint_callback
    if isinstance(keeper, Checkpoints) and keeper.best_score is not None:
        metrics[f"best/{keeper.monitor}"] = keeper.best_score
    if trainer.is_global_zero and not is_smoke_run(trainer):
        seed, steps = cli.config.seed_everything, trainer.global_step
        record.add_sitting(cli.folder, command, seed, seconds, waited, steps)
        report.write(cli.folder)
    return Run(cli.folder, metrics, seconds, waited, _next_command(cli))


@contextmanager
def _advised(cli: VitCLI) -> Iterator[None]:
    """Out of memory: say what takes the same steps in less of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        if isinstance(error, MemoryError):
            raise MemoryError("out of memory: --data.cache_gb 0 keeps no decoded pictures in it") from error
        size, accumulated = cli.datamodule.batch_size, cli.trainer.accumulate_grad_batches
        advice = "take a smaller data.img_size or a smaller model"
        if size > 1:
            halved = f"--data.batch_size {size // 2} --trainer.accumulate_grad_batches {2 * accumulated}"
            advice = f"a new run with {halved} makes steps of as many pictures in half the memory"
        kept = f"; {cli.folder / LAST} is kept, to resume with more memory" if (cli.folder / LAST).is_file() else ""
        raise torch.OutOfMemoryError(f"out of memory with batches of {size}: {advice}{kept}") from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # the CPU's words


@contextmanager
def _interruptible(folder: Path, termination: Termination) -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt, where Lightning exits with 1 and ignores the signal from then on; SIGTERM as 143."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not termination.interrupted and not isinstance(error.__context__, KeyboardInterrupt):
            if isinstance(error, SIGTERMException):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        hint = f"; `vit fit --resume {folder}` continues" if (folder / LAST).is_file() else ""
        raise KeyboardInterrupt(f"interrupted{hint}") from None
    finally:
        if in_main_thread():
            signal.signal(signal.SIGINT, handler)
