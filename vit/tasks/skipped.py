"""Pictures that were left out, listed in a run's folder before anything is trained."""

from pathlib import Path
from typing import final

import lightning as L
from typing_extensions import override

from vit.files import extend, listed
from vit.tasks.checkpoint import is_smoke_run

SKIPPED = "skipped.json"


@final
class Skipped(L.Callback):
    """Writes ``skipped.json``: what was wrong with each picture that was left out, named from the data's place.

    Every picture is decoded once when the set is read; one that can no longer be read later ends the run.
    """

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and not is_smoke_run(trainer):
            path, skipped = Path(trainer.default_root_dir) / SKIPPED, trainer.datamodule.splits.skipped  # type: ignore[attr-defined]
            before = listed(path)  # of a run that is resumed
            extend(path, [problem for problem in skipped if problem not in before])
