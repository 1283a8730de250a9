"""One cell of a transfer study: a pretraining, or a finetuning from it with test and probe; and the row kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vit import evaluate, run
from vit.analysis.features import PATCHES, gathered
from vit.analysis.fewshot import METHODS
from vit.analysis.probing import standardised
from vit.commandline.arguments import with_configs
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.experiments.grid import Cell, of_length
from vit.experiments.grid import settings as settings_of
from vit.experiments.runner import (
    SHARED,
    afresh,
    check_data,
    is_of_place,
    log_file,
    provenance,
    run_folder,
    started,
    subset_file,
    subset_hash,
    validated,
)
from vit.experiments.stages import Stages
from vit.experiments.starts import LONG, Place
from vit.tasks.start import begin

PRETRAIN = "pretrain.yaml"


@dataclass(frozen=True)
class TwoStage:
    """Runs cells of ``study`` below ``folder``.

    Attributes:
        study: what is pretrained and finetuned.
        folder: the study's.
        options: of the user, for every run, and the shape of pictures.
        places: where each data set lies.
        chosen: settings of each row once tuned.
    """

    study: Stages
    folder: Path
    options: tuple[str, ...]
    places: Mapping[str, Place]
    chosen: Mapping[str, Mapping[str, float]]

    def __call__(self, cell: Cell) -> dict[str, Any]:
        """Fit; of a finetuning, test and probe; and describe, `afresh`."""
        work = self._pretrain if cell.kind == "pretrain" else self._finetune
        return afresh(self.folder, cell, lambda: work(cell))

    def path(self, cell: Cell) -> Path:
        """Folder of a cell's run."""
        return run_folder(self.folder, cell)

    def log(self, cell: Cell) -> Path:
        """Where a cell's terminal output goes; kept where it failed."""
        return log_file(self.folder, cell)

    def _pretrain(self, cell: Cell) -> dict[str, Any]:
        origin = self.study.origin(cell.arm)
        overlays = [*self.study.host, *self.study.methods[origin.method], *self._shared(SHARED, PRETRAIN)]
        args = self._arguments(cell, overlays, origin.source)
        metrics = run.fit([*args, "--run", str(self.path(cell))]).metrics
        return self._row(cell, origin.source, validated(metrics), origin.batch_size)

    def _finetune(self, cell: Cell) -> dict[str, Any]:
        entry, path = self.study.entry(cell.arm), self.path(cell)
        settings = self.study.trials[cell.trial] if cell.trial is not None else self.chosen[cell.arm]
        args = self._arguments(cell, [*self.study.host, *self._shared(SHARED)], entry.target)
        start = None if entry.origin is None else self._start(entry.origin, cell.seed)
        args += [*settings_of(settings), *([] if start is None else [f"--model.init_from={start}"])]
        metrics = run.fit([*args, "--run", str(path)]).metrics
        found: dict[str, Any] = {
            "options": dict(settings),
            "val_loss": metrics["val/loss"],
            "val_acc": metrics["val/acc"],
        }
        if cell.kind == "run":
            again = [
                f"--trainer.precision={cell.precision}",
                *(option for option in self.options if is_of_place(option)),
            ]
            tested = evaluate.test(["--load", str(path), *again])
            found |= {
                "acc": tested["acc"],
                "loss": tested["loss"],
                "n_test": tested["n"],
                "probe": None if entry.row == LONG else probed(args, start),
            }
        subsets = subset_file(self.folder / "subsets" / entry.target, cell.seed)
        return self._row(cell, entry.target, found, self.study.batch_size) | {
            "subset_hash": subset_hash(subsets, cell.size)
        }

    def _start(self, origin: str, seed: int) -> Path:
        return started(self.path(self.study.stage_one(origin, seed)))

    def _shared(self, *names: str) -> list[str]:
        return [str(self.folder / name) for name in names] + list(self.study.configs)

    def _arguments(self, cell: Cell, overlays: Sequence[str], place: str) -> list[str]:
        configs = [word for name in overlays for word in ("-c", name)]
        return [*configs, *self.options, *self.places[place].options, *of_length(cell, *self.study.steps(cell))]

    def _row(self, cell: Cell, place: str, found: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        path, (steps, per_epoch) = self.path(cell), self.study.steps(cell)
        manifest_hash = self.study.sets[place]["manifest_hash"]
        check_data(path, manifest_hash)
        epochs = steps / per_epoch
        return {
            "key": cell.key,
            **cell._asdict(),
            "status": "done",
            "error": None,
            **found,
            "steps": steps,
            "epochs": round(epochs, 2),
            "batch_size": batch_size,
            **provenance(path, epochs * cell.size),
            "manifest_hash": manifest_hash,
        }


def probed(args: Sequence[str], start: Path | None) -> dict[str, float]:
    """Test accuracy of classifiers fitted to frozen features of the pictures that a run with ``args`` is finetuned on.

    Features are those that finetuning begins with: of the pretrained net, or of a fresh one.
    """
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve('base')}", *with_configs(list(args))[0]])
        torch.manual_seed(cli.config.seed_everything)
        made = cli.parser.instantiate(cli.config)
        net, data = made.model.net, made.data
        if start is not None:
            begin(net, str(start), data.classes)
        net = net.to("cuda" if torch.cuda.is_available() else "cpu")
        data.setup("fit")
        gallery, labels = gathered(net, data.excerpt("train", data.num_train))
        data.setup("test")
        queries, truth = gathered(net, data.test_dataloader())
    known, asked = standardised(gallery[PATCHES], queries[PATCHES])
    return {method: float((fit(known, labels, asked) == truth).mean()) for method, fit in METHODS.items()}
