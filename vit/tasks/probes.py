"""What a net that is being pretrained has learned so far: probes on frozen features, and signs of collapse."""

from typing import final

import lightning as L
import numpy as np
import torch
from typing_extensions import override

from vit.analysis.probing import effective_rank, linear_probe, nearest_neighbours, spread, standardised
from vit.data.order import Loader
from vit.data.source import Batch
from vit.models import Pretraining
from vit.models.pretraining import evaluating
from vit.tasks.checkpoint import is_smoke_run
from vit.tasks.pretrain import Pretrainer


@final
class Probes(L.Callback):
    """Accuracy on labelled validation pictures of classifiers fitted to the frozen features of some training pictures.

    Logs probe/knn (nearest neighbours) and probe/linear (logistic regression), both on standardised features, and of
    the validation features features/rank (effective rank), features/spread (0 once collapsed) and features/norm (mean
    length). Before training, too, for the untrained net that the others are to be judged by; then every
    ``every_n_epochs`` and after the last. Draws nothing, so that training goes as it would without. With labels of one
    class only there are no accuracies.

    Args:
        every_n_epochs: epochs between two looks.
        gallery: training pictures that the classifiers are fitted to, at most; every class has its share.
        queries: validation pictures, at most; every class has its share.
        neighbours: that vote.
    """

    def __init__(
        self, every_n_epochs: int = 10, gallery: int = 2000, queries: int = 1000, neighbours: int = 20
    ) -> None:
        if min(every_n_epochs, gallery, queries, neighbours) < 1:
            raise ValueError(
                f"expected numbers of at least 1, got {every_n_epochs}, {gallery}, {queries}, {neighbours}"
            )
        self.every_n_epochs, self.gallery, self.queries, self.neighbours = every_n_epochs, gallery, queries, neighbours

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pretrainer(pl_module)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0 and not is_smoke_run(trainer):
            found = self._look(pretrainer(pl_module))
            for logger in trainer.loggers:
                logger.log_metrics(found, step=0)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_due(trainer, self.every_n_epochs):
            pl_module.log_dict(self._look(pretrainer(pl_module)), sync_dist=True)

    def _look(self, task: Pretrainer) -> dict[str, float]:
        data, net = task.data, task.net
        assert isinstance(net, Pretraining)
        queries, query_labels = _features(net, data.excerpt("val", self.queries))
        found = {
            "features/rank": effective_rank(queries),
            "features/spread": spread(queries),
            "features/norm": float(np.linalg.norm(queries, axis=1).mean()),
        }
        gallery, labels = _features(net, data.excerpt("train", self.gallery))
        if len(np.unique(labels)) > 1:
            gallery, queries = standardised(gallery, queries)
            voted = nearest_neighbours(gallery, labels, queries, self.neighbours)
            fitted = linear_probe(gallery, labels, queries)
            found["probe/knn"] = float((voted == query_labels).mean())
            found["probe/linear"] = float((fitted == query_labels).mean())
        return found


def pretrainer(module: L.LightningModule) -> Pretrainer:
    """``module``, of which only a pretraining task will do (ValueError)."""
    if not isinstance(module, Pretrainer):
        name = type(module).__name__
        raise ValueError(f"a callback of pretraining got a {name}: -c pretrain/mae goes after -c model/NAME")
    return module


def is_due(trainer: L.Trainer, every_n_epochs: int) -> bool:
    """Whether a validation is to be looked at: each ``every_n_epochs``-th of a fit and its last; any outside a fit."""
    if trainer.state.fn != "fit":
        return True
    if trainer.sanity_checking or is_smoke_run(trainer):
        return False
    done = trainer.current_epoch + 1
    return done % every_n_epochs == 0 or done == trainer.max_epochs


@torch.no_grad()
def _features(net: Pretraining, batches: Loader[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Features (n d) and labels (n,), without autocast."""
    device, features, labels = net.backbone.prefix_tokens.device, [], []
    with evaluating(net), torch.autocast(device.type, enabled=False):
        for batch in batches:
            features.append(net.features(batch.images.to(device)).float().cpu().numpy())
            labels.append(batch.labels.numpy())
    return np.concatenate(features), np.concatenate(labels)
