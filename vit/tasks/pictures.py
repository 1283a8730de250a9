"""Pictures a run leaves in its folder, and in wandb where that logs: samples, learning curves, confusion, mistakes."""

from io import BytesIO
from pathlib import Path
from typing import final

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from typing_extensions import override

from vit.analysis import plots
from vit.data.source import Batch
from vit.files import write_atomically
from vit.tasks.checkpoint import is_smoke_run
from vit.tasks.metrics import MetricsCSV
from vit.tasks.observer import Observer
from vit.tasks.wandb import Wandb


@final
class Curves(L.Callback):
    """``curves.png`` from ``metrics.csv`` when training ends."""

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tables = [logger.path for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        if trainer.is_global_zero and tables and tables[0].is_file():
            write_picture(plots.curves(tables[0]), Path(trainer.default_root_dir) / "curves.png")


@final
class Samples(L.Callback):
    """``samples.png`` when training begins: some pictures trained on, before augmentation, each class in its share.

    Args:
        count: how many.
    """

    def __init__(self, count: int = 12) -> None:
        self.count = count

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or is_smoke_run(trainer):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        excerpt = data.excerpt("train", self.count)
        places = excerpt.plan.index
        titles = [data.classes[label] for label in excerpt.dataset.source.labels[places]]
        write_picture(
            plots.samples(excerpt.dataset.pixels(places), titles), Path(trainer.default_root_dir) / "samples.png"
        )


@final
class Confusion(Observer):
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
    def see(self, batch: Batch, logits: Tensor) -> None:
        self._count(batch.labels, logits.argmax(dim=-1))

    on_validation_batch_end = Observer.on_test_batch_end

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if len(self.matrix):
            self._draw(trainer, "val/confusion")

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figure = self._draw(trainer, "test/confusion")
        if trainer.is_global_zero and not is_smoke_run(trainer):
            write_picture(figure, Path(trainer.default_root_dir) / "confusion.png")

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
                logger.log_picture(key, image_of(figure), trainer.global_step)
        return figure


@final
class Mistakes(Observer):
    """``mistakes.png`` after a test: the pictures got wrong with the highest probability."""

    def __init__(self, count: int = 24) -> None:
        self.count = count
        self._found: list[tuple[float, int, int, int]] = []  # probability, position, class, answer

    @override
    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._found = []

    @override
    def see(self, batch: Batch, logits: Tensor) -> None:
        sure, answers = logits.softmax(dim=-1).max(dim=-1)
        wrong = answers != batch.labels
        columns = (column[wrong].tolist() for column in (sure, batch.index, batch.labels, answers))
        self._found = sorted([*self._found, *zip(*columns, strict=True)], reverse=True)[: self.count]

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or is_smoke_run(trainer):
            return
        path = Path(trainer.default_root_dir) / "mistakes.png"
        path.unlink(missing_ok=True)  # of a model that made some
        if not self._found:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        pictures = data.test_dataloader().dataset.pixels(np.array([place for _, place, _, _ in self._found]))
        names = data.classes
        titles = [f"{names[label]}, not\n{names[answer]} ({sure:.0%})" for sure, _, label, answer in self._found]
        write_picture(plots.samples(pictures, titles), path)


def write_picture(figure: Figure, path: Path) -> None:
    """As PNG, whole or not at all."""
    write_atomically(path, lambda part: figure.savefig(part, format="png"))


def image_of(figure: Figure) -> Image.Image:
    """As it will be seen."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)
