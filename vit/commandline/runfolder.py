"""A run's folder: claimed once, continued only by --resume."""

import difflib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

CONFIG, LAST, BEST = "config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt"
RESUME_MAY_CHANGE = ("trainer.", "data.root", "data.num_workers")


def default_folder(configs: list[str]) -> Path:
    """runs/<time>-<name>, the name being that of the configs."""
    name = "-".join(Path(config).stem for config in configs) or "run"
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


@contextmanager
def claimed(folder: Path, config: str) -> Iterator[None]:
    """Make ``folder`` this run's, with its config in it; an error before anything was trained leaves no trace.

    Raises:
        ValueError: something lies there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} is not empty: --run expects a new folder, and `vit fit --resume {folder}` continues a run"
        )
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / CONFIG).open("x", encoding="utf-8") as file:  # of two runs that start at once, one gets it
            file.write(config)
    except FileExistsError as error:
        raise ValueError(f"{folder} was taken by another run just now") from error
    try:
        yield
    except BaseException:
        if not (folder / LAST).exists() and not (folder / BEST).exists():
            rmtree(folder)
            if folder not in missing:  # it was there, empty, before
                folder.mkdir()
            _remove_empty(missing[1:])
        raise


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
                f"--{key} cannot change on resume: only trainer options, data.root and data.num_workers may; "
                f"`vit fit -c {folder / CONFIG} --{key} ...` starts another run"
            )
    return folder


def nearby(path: Path) -> str:
    """`; did you mean ...?` when something of a similar name lies beside ``path``."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if any(folder.iterdir()):
            return
        folder.rmdir()
