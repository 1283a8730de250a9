"""The classification task: loss, metrics and optimiser around a net it neither builds nor knows."""

from pathlib import Path
from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit.data.mixing import Mixing
from vit.data.module import Batch
from vit.models import load_init
from vit.tasks import optim
from vit.tasks.choice import answer
from vit.tasks.finite import Policy
from vit.tasks.losses import Criterion, CrossEntropy, class_weights
from vit.tasks.task import Task


@final
class Classifier(Task):
    """Train ``net``, images (b c h w) to logits (b k), on the batches of a `vit.data` module.

    Logs train/loss (epoch mean), train/loss_step, lr, val/loss, val/acc, test/loss, test/acc. Validation and test loss
    are plain cross-entropy, so that recipes with different criteria can be compared; means weight a ragged last batch
    by its images.

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
        super().__init__(net, optimizer, compile, nonfinite)
        self.criterion, self.mixing, self.init_from = criterion, mixing, init_from
        self.register_buffer("class_weights", None, persistent=False)

    @override
    def next_command(self, folder: Path) -> str:
        return f"vit test {folder}"

    @override
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.net(images)

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        self.class_weights = class_weights(self.criterion.class_weights, self.data.class_counts)
        if self.init_from is not None and self.trainer.ckpt_path is None:  # a resumed run has its weights already
            loaded = load_init(self.net, self.init_from)
            if self.trainer.is_global_zero:
                print(loaded)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch.images, batch.labels
        targets = F.one_hot(labels, len(self.data.classes)).float()
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        logits, choice = answer(self.net, images)
        losses = self.criterion(logits, targets, self.class_weights)
        loss = losses.mean()
        total = loss if choice is None else loss + choice.term(losses)
        self.log_training(batch, loss, total)
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

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> Float[Tensor, "b k"]:
        """Logits, for callbacks."""
        logits = self(batch.images).float()
        own = self.own(batch, batch_idx, split)
        right = logits[own].argmax(dim=-1) == batch.labels[own]
        values = {"loss": F.cross_entropy(logits[own], batch.labels[own]), "acc": right.float().mean()}
        self.log_evaluated(split, values, len(right))
        return logits
