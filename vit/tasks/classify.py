"""The classification task: loss, metrics and optimiser around a net it neither builds nor knows."""

from typing import Any, cast, final

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from vit.bundle import mismatch
from vit.data.mixing import Mixing
from vit.data.module import Batch, Images
from vit.data.order import Loader
from vit.models import load_init
from vit.spec import spec
from vit.tasks import optim
from vit.tasks.choice import answer
from vit.tasks.finite import Finite, Policy
from vit.tasks.losses import Criterion, CrossEntropy, class_weights


@final
class Classifier(L.LightningModule):
    """Train ``net``, images (b c h w) to logits (b k), on the batches of a `vit.data` module.

    Logs train/loss (epoch mean), train/loss_step, lr, val/loss, val/acc, test/loss, test/acc. Validation and test loss
    are plain cross-entropy, so that recipes with different criteria can be compared; means weight a ragged last batch
    by its images. Dropout, drop path and mixing draw from torch's generator, which is seeded before each micro-batch by
    a pure function of (the data module's seed, step, micro-batch, rank): a resumed run repeats them and no generator
    state is stored. Constructor arguments are not stored as hyperparameters: the run folder's config is their record.

    Args:
        net: any net called images -> logits.
        optimizer: recipe.
        criterion: training loss on soft targets.
        mixing: mixup and cutmix, None for neither.
        init_from: where the weights start, ``timm:vit_small_patch16_224`` for instance; None for fresh ones.
        compile: compile the net in place with torch.compile; checkpoints are the same with and without.
        nonfinite: stop at a step whose loss or gradient is not finite, or skip it; the samples are named either way.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.AdamW = optim.AdamW(),  # noqa: B008, frozen
        criterion: Criterion = CrossEntropy(),  # noqa: B008, frozen
        mixing: Mixing | None = None,
        init_from: str | None = None,
        compile: bool = False,
        nonfinite: Policy = "stop",
    ) -> None:
        super().__init__()
        self._finite = Finite(nonfinite)
        self.net, self.init_from = net, init_from
        self.optimizer, self.criterion, self.mixing = optimizer, criterion, mixing
        self.register_buffer("class_weights", None, persistent=False)
        if compile:
            net.compile()

    @override
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.net(images)

    @override
    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        self._finite = Finite(self._finite.policy)
        self.class_weights = class_weights(self.criterion.class_weights, self._data.class_counts)
        if self.init_from is not None and self.trainer.ckpt_path is None:  # a resumed run has its weights already
            loaded = load_init(self.net, self.init_from)
            if self.trainer.is_global_zero:
                print(loaded)

    @override
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        place = (self._data.seed, self.global_step, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        self._finite.begin(self.net)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels, samples = batch.images, batch.labels, batch.index
        targets = F.one_hot(labels, len(self._data.classes)).float()
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        logits, choice = answer(self.net, images)
        losses = self.criterion(logits, targets, self.class_weights)
        loss = losses.mean()
        total = loss if choice is None else loss + choice.term(losses)
        self._finite.see(samples, total)
        self.log("train/loss_step", loss, prog_bar=True)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return total

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "b k"]:
        return self._evaluate(batch, batch_idx, "val")

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "b k"]:
        return self._evaluate(batch, batch_idx, "test")

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Int[Tensor, " b"], Float[Tensor, "b k"]]:
        """Index of each sample in its source, and its class probabilities (softmax)."""
        return batch.index, self(batch.images).float().softmax(dim=-1)

    @override
    def configure_optimizers(self) -> Any:
        # fused AdamW unscales fp16 gradients inside its step, after the point where clipping would need them unscaled
        optimizer = self.optimizer.build(self.net, fused=self.trainer.precision != "16-mixed")
        trainer = self.trainer
        epoch = optim.steps(self._data.steps_per_epoch, trainer.limit_train_batches, trainer.accumulate_grad_batches)
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
        if not self._finite.admits(None if scaled else norm, self.global_step, agreed):
            optimizer.zero_grad()
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint knows its net, classes and preprocessing, as plain data."""
        data = self._data
        checkpoint["vit"] = {
            "spec": spec(self.net),
            "classes": list(data.classes),
            "preprocessing": data.preprocessing.to_dict(),
            "skipped": self._finite.skipped,
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse, before anything is copied, a checkpoint of another net or other classes (ValueError)."""
        if "vit" not in checkpoint:
            raise ValueError("the checkpoint was not written by vit: expected an entry 'vit' with its classes")
        saved, own = checkpoint["vit"]["classes"], list(self._data.classes)
        if saved != own:
            raise ValueError(f"the checkpoint was trained on classes {saved}, the data has {own}")
        if problem := mismatch(self.state_dict(), checkpoint["state_dict"]):
            raise ValueError(f"the checkpoint does not fit this model: {problem}")
        self._finite.skipped = checkpoint["vit"].get("skipped", 0)

    @property
    def _data(self) -> Images:
        return cast(Images, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> Float[Tensor, "b k"]:
        """Logits, for callbacks."""
        logits = self(batch.images).float()
        own = slice(max(1, len(batch.labels) - self._is_padded(batch_idx, split)))
        right = logits[own].argmax(dim=-1) == batch.labels[own]
        values = {"loss": F.cross_entropy(logits[own], batch.labels[own]), "acc": right.float().mean()}
        self.log_dict(
            {f"{split}/{name}": value for name, value in values.items()},
            prog_bar=True,
            batch_size=len(right) * self.trainer.world_size,  # Lightning takes the processes' mean of it, as an integer
            sync_dist=True,
        )
        return logits

    def _is_padded(self, batch_idx: int, split: str) -> bool:
        """Whether a batch ends with a sample that another process has too: `Plan` gives each process as many."""
        world = self.trainer.world_size
        if world == 1:
            return False
        loader = self.trainer.val_dataloaders if split == "val" else self.trainer.test_dataloaders
        uneven = len(cast(Loader, loader).plan.index) % world
        return 0 < uneven <= self.global_rank and batch_idx + 1 == len(cast(Loader, loader))
