"""Fit and resume, from the command line or from Python: ``fit(["-c", "quickstart"])``."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vit.commandline import record
from vit.commandline.arguments import take, with_configs
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.commandline.runfolder import CONFIG, LAST, claimed, default_folder, resumable
from vit.files import write_atomically
from vit.tasks.checkpoint import Checkpoints, is_smoke_run


class Run(NamedTuple):
    """A finished fit: its folder, and its metrics: the last values, and ``best/val/acc``, that of the kept model."""

    folder: Path
    metrics: dict[str, float]


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
        cli = VitCLI("fit", [f"--config={resolve('base')}", *args])
        cli.build(folder)
        writes = getattr(rank_zero_only, "rank", 0) == 0 and not cli.config.trainer.fast_dev_run
        with claimed(folder, cli.saved_config()) if writes else nullcontext():
            return _fit(cli, None, command)


def _resume(folder: Path, args: list[str], run: str | None, command: str) -> Run:
    if run is not None:
        raise ValueError(f"--resume {folder} continues in its own folder: leave --run {run} out")
    args, _ = with_configs(args)
    resumable(folder, args)
    with quiet():
        cli = VitCLI("fit", [f"--config={folder / CONFIG}", *args])
        cli.build(folder)
        before = (folder / CONFIG).read_text(encoding="utf-8")
        if not cli.config.trainer.fast_dev_run:
            write_atomically(folder / CONFIG, lambda part: part.write_text(cli.saved_config()))
        last = folder / LAST  # a run stopped before its first checkpoint starts at its first step again
        try:
            done = _fit(cli, last if last.is_file() else None, command)
        except ValueError:  # refused, by other classes for instance: the run stays as it was
            write_atomically(folder / CONFIG, lambda part: part.write_text(before, encoding="utf-8"))
            raise
        if not cli.config.trainer.fast_dev_run:
            (folder / "test.json").unlink(missing_ok=True)  # of the model as it was
        return done


def _fit(cli: VitCLI, checkpoint: Path | None, command: str) -> Run:
    trainer, start = cli.trainer, time.monotonic()
    with _interruptible(cli.folder), cli.logging():
        trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    keeper = trainer.checkpoint_callback
    if isinstance(keeper, Checkpoints) and keeper.best_score is not None:
        metrics[f"best/{keeper.monitor}"] = keeper.best_score
    if trainer.is_global_zero and not is_smoke_run(trainer):
        record.add_sitting(cli.folder, command, cli.config.seed_everything, time.monotonic() - start)
    return Run(cli.folder, metrics)


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt, where Lightning exits with 1 and ignores the signal from then on; SIGTERM as 143."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        hint = f"; `vit fit --resume {folder}` continues" if (folder / LAST).is_file() else ""
        raise KeyboardInterrupt(f"interrupted{hint}") from None
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
