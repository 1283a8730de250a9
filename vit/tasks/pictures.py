"""Pictures a run leaves in its folder, and in wandb where that logs: learning curves and the confusion matrix."""

from io import BytesIO
from pathlib import Path
from typing import Any, final

import lightning as L
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from typing_extensions import override

from vit.analysis import plots
from vit.files import write_atomically
from vit.tasks.checkpoint import is_smoke_run
from vit.tasks.metrics import MetricsCSV
from vit.tasks.wandb import Wandb


@final
class Curves(L.Callback):
    """``curves.png`` from ``metrics.csv`` when training ends."""

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tables = [logger.path for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        if trainer.is_global_zero and tables and tables[0].is_file():
            _write(plots.curves(tables[0]), Path(trainer.default_root_dir) / "curves.png")


@final
class Confusion(L.Callback):
    """Counts of (true, predicted) classes; ``confusion.png`` after a test, wandb gets validation's last one too."""

    def __init__(self) -> None:
        self.matrix = torch.zeros(0, 0, dtype=torch.long)

    @override
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reset(trainer, pl_module)

    @override
    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reset(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count(batch.labels, outputs)

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count(batch.labels, outputs)

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if len(self.matrix):
            self._draw(trainer, "val/confusion")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figure = self._draw(trainer, "test/confusion")
        if trainer.is_global_zero and not is_smoke_run(trainer):
            _write(figure, Path(trainer.default_root_dir) / "confusion.png")

    def _reset(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        k = len(trainer.datamodule.classes)  # type: ignore[attr-defined]
        self.matrix = torch.zeros(k, k, dtype=torch.long, device=pl_module.device)

    def _count(self, labels: Tensor, predicted: Tensor) -> None:
        k = len(self.matrix)
        self.matrix += torch.bincount(labels * k + predicted, minlength=k * k).view(k, k)

    def _draw(self, trainer: L.Trainer, key: str) -> Figure:
        matrix = trainer.strategy.reduce(self.matrix, reduce_op="sum")
        figure = plots.confusion(matrix.cpu().numpy(), trainer.datamodule.classes)  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                logger.log_picture(key, _image(figure), trainer.global_step)
        return figure


def _write(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda part: figure.savefig(part, format="png"))


def _image(figure: Figure) -> Image.Image:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)
