"""`vit demo`: the whole of it on handwritten digits in one process: fit, test, predict, explain."""

import json
import time
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from vit import bundle, evaluate, explain, run
from vit.commandline import arguments
from vit.commandline.predictions import Predicted
from vit.data import catalog
from vit.files import write_atomically

ENOUGH = 0.96
"""A test accuracy below this fails the demo."""
MARK = ".demo"
DIGIT = 1
"""Place in the test split of the picture that is predicted and explained."""
FILES = (
    ("metrics.csv, curves.png", "loss and accuracy over training"),
    ("confusion.png", "which digits are taken for which, on the test split"),
    ("rollout.png", "where the model looks in digit.png"),
    ("model.safetensors, model.json", "the model: vit.load({folder!r}).predict(picture)"),
    ("config.yaml", "the run: vit fit -c {folder}/config.yaml repeats it"),
)


def main(argv: list[str]) -> int:
    """``vit demo [--run DIR]``; 1 when the test accuracy is below `ENOUGH`.

    Raises:
        ValueError: an unknown argument, or a folder that holds something else than an earlier demo.
    """
    (folder,), rest = arguments.take(argv, "--run")
    if rest:
        raise ValueError(f"vit demo takes only --run DIR (default: runs/demo), got {rest[0]!r}")
    return demo(Path(folder or "runs/demo"))


def demo(folder: Path) -> int:
    """Fit, test, predict one picture and draw its rollout, all into ``folder``; the exit code."""
    _clear(folder)
    start = time.monotonic()
    try:
        run.fit(["-c", "quickstart", "--run", str(folder)])
    finally:
        if folder.is_dir():
            (folder / MARK).touch()
    trained = time.monotonic() - start
    result = evaluate.test(["--load", str(folder)])
    digit, truth = _save_digit(folder / "digit.png")
    (predicted,) = evaluate.predict(["--load", str(folder), f"--data.pictures={json.dumps([str(digit)])}"])
    figure = explain.rollout_figure(bundle.load(folder), digit, digit.name)
    write_atomically(folder / "rollout.png", lambda part: figure.savefig(part, format="png"))
    summary = _summary(folder, result, predicted, truth, trained, time.monotonic() - start)
    write_atomically(folder / "summary.txt", lambda part: part.write_text(summary, encoding="utf-8"))
    Console(highlight=False, markup=False, soft_wrap=True).print("\n" + summary, end="")
    return 0 if result["acc"] >= ENOUGH else 1


def _clear(folder: Path) -> None:
    """Remove an earlier demo; nothing else is ever removed."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MARK).is_file():
        raise ValueError(f"{folder} is not empty and no earlier demo: name another folder with --run, or remove it")
    rmtree(folder)


def _save_digit(path: Path) -> tuple[Path, str]:
    """A picture of the test split, and what it shows."""
    source = catalog.load("digits", None, "test")
    assert source is not None and isinstance(source.pictures, np.ndarray)
    Image.fromarray(source.pictures[DIGIT][..., 0]).save(path)
    return path, catalog.describe("digits", None).classes[source.labels[DIGIT]]


def _summary(
    folder: Path, result: dict[str, Any], predicted: Predicted, truth: str, trained: float, in_all: float
) -> str:
    low, high = result["acc_95"]
    failed = "" if result["acc"] >= ENOUGH else f": too low, expected at least {ENOUGH:.0%}"
    files = [f"  {names:<31} {what.format(folder=str(folder))}" for names, what in FILES]
    return "\n".join(
        (
            "A small Vision Transformer, trained on scikit-learn's handwritten digits",
            f"  test accuracy   {result['acc']:.2%} (95 % interval {low:.1%} to {high:.1%}, n = {result['n']}){failed}",
            f"  digit.png       {predicted.label} with probability {predicted.probability:.3f}; it is a {truth}",
            f"  time            {trained:.0f} s of training, {in_all:.0f} s in all",
            f"Files in {folder}",
            *files,
            "Next",
            "  vit fit -c quickstart --data.root my_photos/ --run runs/mine   (one folder of pictures per class)",
            f"  vit predict {folder} PICTURES",
            f"  vit explain {folder} PICTURES --out maps/",
            "",
        )
    )
