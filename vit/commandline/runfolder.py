"""A run's folder: claimed once, continued only by --resume."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from filelock import FileLock, Timeout

from vit.files import sweep
from vit.names import did_you_mean
from vit.tasks import checkpoint
from vit.tasks.faults import NONFINITE

CONFIG = "config.yaml"
LAST, PREVIOUS, BEST = (f"checkpoints/{name}" for name in (checkpoint.LAST, checkpoint.PREVIOUS, checkpoint.BEST))
RESUME_MAY_CHANGE = ("trainer.", "data.root", "data.num_workers", "model.nonfinite")


class Progress(NamedTuple):
    """How far a checkpoint is: optimiser steps, epochs begun, and those of them that are whole."""

    steps: int
    epochs: int
    whole_epochs: int


def default_folder(configs: list[str]) -> Path:
    """runs/<time>-<name>, the name being that of the configs."""
    name = "-".join(Path(config).stem for config in configs) or "run"
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


@contextmanager
def claimed(folder: Path, config: str) -> Iterator[None]:
    """Make ``folder`` this run's, with its config in it; an error before anything was trained leaves no trace.

    But for a first step that is not finite: what the folder says of it is wanted.

    Raises:
        ValueError: something lies there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} is not empty: --run expects a new folder, and `vit fit --resume {folder}` continues a run"
        )
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / CONFIG).open("x", encoding="utf-8") as file:  # of two runs that start at once, one gets it
            file.write(config)
    except FileExistsError as error:
        raise ValueError(f"{folder} was taken by another run just now") from error
    except OSError as error:
        raise ValueError(f"no run can be written to {folder}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if not any((folder / name).exists() for name in (LAST, BEST, NONFINITE)):
            rmtree(folder)
            if folder not in missing:  # it was there, empty, before
                folder.mkdir()
            _remove_empty(missing[1:])
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from continuing the run in ``folder``, and remove what killed ones left half-written.

    Raises:
        ValueError: another process is at it.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"{folder} is in use: another process is training this run") from error
    try:
        sweep(folder / "checkpoints")
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def newest_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """The newest checkpoint of a run that is whole, None before its first, and what to say when it is not the last.

    Raises:
        ValueError: there are checkpoints, but none is whole.
    """
    steps, problems = {}, []
    for path in (folder / LAST, folder / PREVIOUS, folder / BEST):
        try:
            steps[path] = checkpoint.load_checkpoint(path, "meta").get("global_step", -1)
        except ValueError as error:
            problems.append(str(error))
        if folder / LAST in steps:
            return folder / LAST, ""
    if steps:
        newest = max(steps, key=lambda path: steps[path])
        return newest, f"{problems[0]}; continuing from {newest.name}, step {steps[newest]}"
    if any((folder / name).is_file() for name in (LAST, PREVIOUS, BEST)):
        raise ValueError(f"{folder} has no checkpoint to continue from: {'; '.join(problems)}")
    return None, ""


def progress_of(path: Path | None) -> Progress:
    """How far the checkpoint at ``path`` is; without one, at the start."""
    if path is None:
        return Progress(0, 0, 0)
    content = checkpoint.load_checkpoint(path, "meta")
    epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    return Progress(content["global_step"], epochs["started"], epochs["processed"])


def resumable(folder: Path, args: list[str]) -> Path:
    """``folder``, when a run can be continued there with these further arguments.

    Raises:
        ValueError: no run there, or an option that would make it another run.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run: expected {CONFIG} in it{nearby(folder)}")
    for argument in args:
        key = argument.lstrip("-").partition("=")[0]
        if argument.startswith("--") and not key.startswith(RESUME_MAY_CHANGE):
            raise ValueError(
                f"--{key} cannot change on resume: only trainer options, {', '.join(RESUME_MAY_CHANGE[1:])} may; "
                f"`vit fit -c {folder / CONFIG} --{key} ...` starts another run"
            )
    return folder


def nearby(path: Path) -> str:
    """`; did you mean ...?` when something of a similar name lies beside ``path``."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, beside, shown=lambda name: str(path.parent / name))


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if any(folder.iterdir()):
            return
        folder.rmdir()
