"""Pictures of what a net that is being pretrained makes of hidden patches."""

from pathlib import Path
from typing import final

import lightning as L
import torch
from matplotlib.figure import Figure
from typing_extensions import override

from vit.analysis import plots
from vit.data.source import Batch
from vit.models import Pretraining
from vit.tasks.pictures import image_of, write_picture
from vit.tasks.pretrain import Pretrainer
from vit.tasks.probes import is_due, pretrainer
from vit.tasks.wandb import Wandb


@final
class Reconstructions(L.Callback):
    """``reconstructions.png``: validation pictures, what is left of them, and with the predicted patches put in.

    Always of the same pictures with the same patches hidden; wandb gets each. Where targets are standardised, a
    predicted patch has its mean and deviation from the true one, as in the published pictures: judge its structure.

    Args:
        every_n_epochs: epochs between two looks; the last is always drawn.
        count: pictures.

    Raises:
        ValueError: ``every_n_epochs`` or ``count`` below 1.
    """

    def __init__(self, every_n_epochs: int = 10, count: int = 8) -> None:
        if min(every_n_epochs, count) < 1:
            raise ValueError(f"expected every_n_epochs and count of at least 1, got {every_n_epochs} and {count}")
        self.every_n_epochs, self.count = every_n_epochs, count

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pretrainer(pl_module)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero or not is_due(trainer, self.every_n_epochs):
            return
        figure = self._draw(pretrainer(pl_module))
        write_picture(figure, Path(trainer.default_root_dir) / "reconstructions.png")
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                logger.log_picture("val/reconstructions", image_of(figure), trainer.global_step)

    @torch.no_grad()
    def _draw(self, task: Pretrainer) -> Figure:
        data, net = task.data, task.net
        assert isinstance(net, Pretraining)
        some = Batch(*(torch.cat(parts)[: self.count] for parts in zip(*data.excerpt("val", self.count), strict=True)))
        images = some.images.to(task.device)
        hidden, filled = net.pictures(images, task.reconstruct(some._replace(images=images)))
        scale = data.preprocessing.mean, data.preprocessing.std
        return plots.reconstructions(*(plots.visible(part.cpu(), *scale) for part in (images, hidden, filled)))
