"""What training has in common, whatever is learned: randomness, optimiser, clipping, checkpoints."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from vit.bundle import mismatch
from vit.data.module import Batch, Images
from vit.data.order import Loader
from vit.spec import spec
from vit.tasks import optim
from vit.tasks.faults import Fault, report
from vit.tasks.finite import Finite, Policy
from vit.tasks.start import known_of


class Task(L.LightningModule, ABC):
    """Train ``net`` on the batches of a `vit.data` module.

    What a net draws (dropout, drop path, masks) comes from torch's generator, which is seeded before each micro-batch
    by a pure function of (the data module's seed, step, micro-batch, rank): a resumed run repeats it and no generator
    state is stored. Constructor arguments are not stored as hyperparameters: the run folder's config is their record.

    Args:
        net: what is trained.
        optimizer: recipe.
        compile: compile the net in place with torch.compile; checkpoints are the same with and without.
        nonfinite: stop at a step whose loss or gradient is not finite, or skip it; the samples are named either way.
    """

    def __init__(self, net: nn.Module, optimizer: optim.AdamW, compile: bool, nonfinite: Policy) -> None:
        super().__init__()
        self._finite = Finite(nonfinite)
        self.net, self.optimizer = net, optimizer
        if compile:
            net.compile()

    @abstractmethod
    def next_command(self, folder: Path, data: str) -> str:
        """What to type after a fit in ``folder`` on data that the options ``data`` name."""

    @override
    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._finite = Finite(self._finite.policy)

    @override
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        place = (self.data.seed, self.global_step, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        self._finite.begin(self.net)

    def log_training(self, batch: Batch, loss: Tensor, total: Tensor | None = None) -> None:
        """Log the loss of a micro-batch and the learning rate, and have it looked at before the step is taken.

        ``total`` is what the step descends where that is more than the loss.
        """
        self._finite.see(batch.index, loss if total is None else total)
        self.log("train/loss_step", loss, prog_bar=True)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.labels), sync_dist=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    @override
    def configure_optimizers(self) -> Any:
        # fused AdamW unscales fp16 gradients inside its step, after the point where clipping would need them unscaled
        optimizer = self.optimizer.build(self.net, fused=self.trainer.precision != "16-mixed")
        trainer = self.trainer
        epoch = optim.steps(self.data.steps_per_epoch, trainer.limit_train_batches, trainer.accumulate_grad_batches)
        total = optim.total_steps(epoch, trainer.max_epochs, trainer.max_steps)
        scheduler = LambdaLR(optimizer, self.optimizer.schedule(total, epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Also where a step that is not finite loses its gradients, without which an optimiser leaves all as it is.

        Not Lightning's clipping, which keeps the norm to itself and refuses a fused optimiser in mixed precision; bf16,
        unlike fp16, scales nothing.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        scaled = self.trainer.precision == "16-mixed"
        agreed = self.trainer.strategy.reduce_boolean_decision
        if not self._finite.admits(None if scaled else norm, self.global_step, agreed, self._report):
            optimizer.zero_grad()
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def _report(self, fault: Fault) -> str:
        return report(fault, self.trainer, self.data)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint knows its net, classes and preprocessing, as plain data."""
        data = self.data
        checkpoint["vit"] = {
            "spec": spec(self.net),
            "classes": list(data.classes),
            "preprocessing": data.preprocessing.to_dict(),
            "skipped": self._finite.skipped,
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse, before anything is copied, a checkpoint of another net or other classes (ValueError)."""
        known = known_of(checkpoint)
        saved, own = known["classes"], list(self.data.classes)
        if saved != own:
            raise ValueError(f"the checkpoint was trained on classes {saved}, the data has {own}")
        if problem := mismatch(self.state_dict(), checkpoint["state_dict"]):
            raise ValueError(f"the checkpoint does not fit this model: {problem}")
        self._finite.skipped = known.get("skipped", 0)

    @property
    def data(self) -> Images:
        """The data module of the run."""
        return cast(Images, self.trainer.datamodule)  # type: ignore[attr-defined]

    def own(self, batch: Batch, batch_idx: int, split: str) -> slice:
        """The samples of an evaluated batch to count: at its end may stand one that another process has, too."""
        return slice(max(1, len(batch.labels) - self._is_padded(batch_idx, split)))

    def log_evaluated(self, split: str, values: dict[str, Tensor], count: int) -> None:
        """Log means over ``count`` samples, which weight a ragged last batch by its images."""
        self.log_dict(
            {f"{split}/{name}": value for name, value in values.items()},
            prog_bar=True,
            batch_size=count * self.trainer.world_size,  # Lightning takes the processes' mean of it, as an integer
            sync_dist=True,
        )

    def _is_padded(self, batch_idx: int, split: str) -> bool:
        """Whether a batch ends with a sample that another process has too: `Plan` gives each process as many."""
        world = self.trainer.world_size
        if world == 1:
            return False
        loader = self.trainer.val_dataloaders if split == "val" else self.trainer.test_dataloaders
        uneven = len(cast(Loader, loader).plan.index) % world
        return 0 < uneven <= self.global_rank and batch_idx + 1 == len(cast(Loader, loader))
