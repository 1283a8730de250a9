"""One cell of a grid: the same ``vit fit`` and ``vit test`` a user would type, and the row that is kept of them."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import yaml

from vit import bundle, evaluate, run
from vit.commandline import record
from vit.commandline.runfolder import CONFIG
from vit.data.module import Images
from vit.experiments.grid import Cell, Study, arguments, as_options
from vit.files import write_atomically
from vit.tasks.places import without_places

SHARED = "shared.yaml"


@dataclass(frozen=True)
class Runner:
    """Runs cells of ``study`` below ``folder``.

    Attributes:
        study: the grid.
        folder: the study's.
        options: of the user, for every run: where the data lie, for instance.
        chosen: learning rate and weight decay of each arm once tuned.
    """

    study: Study
    folder: Path
    options: tuple[str, ...]
    chosen: Mapping[str, Mapping[str, float]]

    def __call__(self, cell: Cell) -> dict[str, Any]:
        """Fit, test where it is no tuning run, and describe, `afresh`."""
        return afresh(self.folder, cell, lambda: self._done(cell, self.path(cell)))

    def _done(self, cell: Cell, path: Path) -> dict[str, Any]:
        settings = self._settings(cell)
        metrics = run.fit([*self._arguments(cell, settings), "--run", str(path)]).metrics
        again = [f"--trainer.precision={cell.precision}", *(option for option in self.options if is_of_place(option))]
        tested = evaluate.test(["--load", str(path), *again]) if cell.kind == "run" else {}
        check_data(path, self.study.data["manifest_hash"])
        return self._row(cell, settings, metrics, tested)

    def _settings(self, cell: Cell) -> Mapping[str, float]:
        if cell.kind == "pretrain":
            return {}
        return self.study.trials[cell.trial] if cell.trial is not None else self.chosen[cell.arm]

    def _arguments(self, cell: Cell, settings: Mapping[str, float]) -> list[str]:
        """Of ``vit fit``; the run of an arm that is pretrained starts from the pretraining of its seed."""
        arm, further = self.study.arm(cell.arm), []
        overlays = [*arm.configs, str(self.folder / SHARED), *self.study.configs]
        if cell.kind == "pretrain":
            overlays[len(arm.configs) : len(arm.configs)] = arm.pretrain
            further = as_options(arm.pretrain_options)
        elif arm.pretrain:
            further = [f"--model.init_from={started(self.path(self.study.stage_one(arm.name, cell.seed)))}"]
        configs = [word for name in overlays for word in ("-c", name)]
        return [*configs, *self.options, *arguments(self.study, cell, settings), *further]

    def path(self, cell: Cell) -> Path:
        """Folder of a cell's run."""
        return run_folder(self.folder, cell)

    def log(self, cell: Cell) -> Path:
        """Where a cell's terminal output goes; kept where it failed."""
        return log_file(self.folder, cell)

    def _row(
        self,
        cell: Cell,
        settings: Mapping[str, float],
        metrics: Mapping[str, float],
        tested: Mapping[str, Any],
    ) -> dict[str, Any]:
        arm = self.study.arm(cell.arm)
        steps, per_epoch = self.study.steps(cell)
        epochs = steps / per_epoch
        return {
            "key": cell.key,
            **cell._asdict(),
            "options": dict(settings),
            "status": "done",
            "error": None,
            "acc": tested.get("acc"),
            "loss": tested.get("loss"),
            "n_test": tested.get("n"),
            **validated(metrics),
            "parameters": arm.parameters,
            "macs": arm.macs,
            "steps": steps,
            "epochs": round(epochs, 2),
            "batch_size": self.study.batch_size,
            **provenance(self.path(cell), epochs * cell.size),
            "manifest_hash": self.study.data["manifest_hash"],
            "subset_hash": None
            if cell.kind == "pretrain"
            else subset_hash(subset_file(self.folder, cell.seed), cell.size),
        }


def afresh(folder: Path, cell: Cell, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row that ``work`` makes of a study's cell, with when it began and how long it took.

    A run that was killed is not continued but done again: the same seed gives the same result. Of a finished one the
    model, the metrics and the configuration stay; what is several times as large goes: the checkpoints, and the prints
    of the data.
    """
    path = run_folder(folder, cell)
    if path.exists():
        rmtree(path)
    os.environ.update(WANDB_RUN_GROUP=folder.resolve().name, WANDB_JOB_TYPE=cell.kind)
    began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    row = work()
    rmtree(path / "checkpoints", ignore_errors=True)
    (path / record.SEEN).unlink(missing_ok=True)
    return {**row, "started": started, "seconds": round(time.monotonic() - began, 1)}


def validated(metrics: Mapping[str, float]) -> dict[str, float]:
    """What a fit measured on validation pictures: their loss, and the accuracy where labels were learned."""
    return {f"val_{name}": metrics[f"val/{name}"] for name in ("acc", "loss") if f"val/{name}" in metrics}


def started(path: Path) -> Path:
    """The folder of a pretraining (ValueError where it left nothing to start from)."""
    if not (path / bundle.RECORD).is_file():
        raise ValueError(f"nothing to start from: the pretraining {path.name} failed or is gone")
    return path


def provenance(path: Path, pictures: float) -> dict[str, Any]:
    """Of the run in a folder: how long it took for so many pictures, its configuration, and where it was made."""
    (sitting,) = json.loads((path / record.SITTINGS).read_text(encoding="utf-8"))
    return {
        "fit_seconds": sitting["seconds"],
        "train_images_per_s": round(pictures / sitting["seconds"], 1),
        "config_hash": config_hash(path / CONFIG),
        **{name: sitting[name] for name in ("command", "commit", "versions", "hardware")},
    }


def check_data(path: Path, manifest_hash: str) -> None:
    """Raises ValueError where the run in a folder has read other data than the study began with."""
    seen = json.loads((path / bundle.RECORD).read_text(encoding="utf-8"))["data"]["manifest_hash"]
    if seen != manifest_hash:
        raise ValueError(f"the data changed since the study began: expected {manifest_hash}, got {seen}")


def run_folder(folder: Path, cell: Cell) -> Path:
    """Where the run of a cell lies."""
    return folder / "runs" / cell.key


def log_file(folder: Path, cell: Cell) -> Path:
    """Where what a cell says on the terminal goes."""
    return folder / "runs" / f"{cell.key}.log"


def subset_file(folder: Path, seed: int) -> Path:
    """Where the manifest of a seed's nested subsets lies."""
    return folder / "subsets" / f"seed-{seed}.json"


def write_subsets(path: Path, data: Images, seed: int, count: int) -> None:
    """The manifest of a seed's nested subsets of up to ``count`` pictures; ``data`` have that seed."""
    manifest = {
        "data": data.description.name,
        "manifest_hash": data.manifest_hash,
        "seed": seed,
        "order": data.nested_order[:count].tolist(),
    }
    write_atomically(path, lambda part: part.write_text(json.dumps(manifest), encoding="utf-8"))


def subset_hash(path: Path, size: int) -> str:
    """SHA-256 of the positions, in the train split, of the first ``size`` pictures that a manifest lists."""
    order = json.loads(path.read_text(encoding="utf-8"))["order"]
    return hashlib.sha256(json.dumps(order[:size]).encode()).hexdigest()


def config_hash(path: Path) -> str:
    """SHA-256 of a run's whole configuration, without where data and other runs lie."""
    config = without_places(yaml.safe_load(path.read_text(encoding="utf-8")))
    config["data"].pop("root", None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def is_of_place(option: str) -> bool:
    """Whether it says where data lie or what computes, which a test has to be told again."""
    return option.startswith(("--data.root=", "--trainer.accelerator="))
