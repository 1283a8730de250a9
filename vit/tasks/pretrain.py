"""The pretraining task: MAE, SimMIM or AIM on pictures whose labels nobody looks at."""

from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.data.module import Batch
from vit.data.order import MASK, keys
from vit.models import Pretraining, Reconstruction, SimMIM
from vit.models.simmim import refuse_nothing_to_learn
from vit.tasks import optim
from vit.tasks.finite import Policy
from vit.tasks.task import Task


@final
class Pretrainer(Task):
    """Train a `vit.models.Pretraining` net on the pictures of a `vit.data` module; labels are ignored.

    Logs train/loss (epoch mean), train/loss_step, lr and val/loss: losses are the net's own, so that those of different
    nets cannot be compared. What training hides is drawn anew each time; of a validation picture the same is hidden in
    every epoch and run of a seed.

    Args:
        net: `vit.models.MAE`, `vit.models.SimMIM` or `vit.models.AIM`.
        optimizer: recipe.
        compile: compile the net in place with torch.compile; checkpoints are the same with and without.
        nonfinite: stop at a step whose loss or gradient is not finite, or skip it; the samples are named either way.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.AdamW = optim.AdamW(),  # noqa: B008, frozen
        compile: bool = False,
        nonfinite: Policy = "stop",
    ) -> None:
        super().__init__(net, optimizer, compile, nonfinite)

    @override
    def next_command(self, folder: Path, data: str) -> str:
        return f"vit fit -c finetune --model.init_from {folder} {data}".rstrip()

    @override
    def setup(self, stage: str) -> None:
        """Raises ValueError for a net of another kind: typed as a module, since `vit validate` parses a stand-in."""
        if not isinstance(self.net, Pretraining):
            name = type(self.net).__name__
            raise ValueError(
                f"pretraining trains vit.models.MAE, SimMIM or AIM, got a {name}: -c pretrain/mae goes last"
            )
        if isinstance(self.net, SimMIM) and stage == "fit":
            refuse_nothing_to_learn(self.net)
        super().setup(stage)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        noise = torch.rand(len(batch.images), self._net.num_patches(batch.images), device=self.device)
        loss = self._reconstruct(batch, noise).loss.mean()
        self.log_training(batch, loss)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses = self.reconstruct(batch).loss[self.own(batch, batch_idx, "val")]
        self.log_evaluated("val", {"loss": losses.mean()}, len(losses))

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Of each picture always the same is hidden: a pure function of (the data module's seed, its position)."""
        patches = self._net.num_patches(batch.images)
        places = batch.index.cpu().numpy()[:, None] * patches + np.arange(patches)
        drawn = keys(self.data.seed, 0, places, MASK) >> np.uint64(40)  # 24 bits: what float32 holds
        return self._reconstruct(batch, torch.from_numpy(drawn.astype(np.float32) / 2**24).to(self.device))

    def _reconstruct(self, batch: Batch, noise: Float[Tensor, "b n"]) -> Reconstruction:
        return self.net(batch.images, noise)

    @property
    def _net(self) -> Pretraining:
        return cast(Pretraining, self.net)
