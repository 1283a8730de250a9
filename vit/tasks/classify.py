"""The classification task: loss, metrics and optimiser around a net it neither builds nor knows."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit.data.labels import require_labels
from vit.data.mixing import Mixing
from vit.data.module import Batch
from vit.layers import Choice
from vit.models import Pretraining, TokenLabels
from vit.models.choice import answer
from vit.tasks import optim
from vit.tasks.finite import Policy
from vit.tasks.losses import Criterion, CrossEntropy, class_weights
from vit.tasks.start import begin, other_scale
from vit.tasks.task import Task
from vit.tasks.tune import Full, Tuning, rest


class Classification(Task):
    """Train ``net``, images (b c h w) to logits (b k), on the batches of a `vit.data` module.

    Logs train/loss (epoch mean), train/loss_step, lr, val/loss, val/acc, test/loss, test/acc. Validation and test loss
    are plain cross-entropy, so that recipes with different criteria can be compared; means weight a ragged last batch
    by its images. Frozen parts are in eval mode while the rest trains.

    Args:
        net: any net called images -> logits.
        optimizer: recipe.
        criterion: loss on the labels, as soft targets.
        mixing: mixup and cutmix, None for neither.
        init_from: where the weights start: a run, a bundle, a checkpoint of a run, a safetensors file, or timm's as
            ``timm:vit_small_patch16_224``; None for fresh ones. A head of other classes starts new.
        init_allow: further parts of the net that may start new, or options in which it may differ from its source.
        tune: which weights are trained.
        compile: compile the net in place with torch.compile; checkpoints are the same with and without.
        nonfinite: stop at a step whose loss or gradient is not finite, or skip it; the samples are named either way.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.AdamW,
        criterion: Criterion,
        mixing: Mixing | None,
        init_from: str | None,
        init_allow: Sequence[str],
        tune: Tuning,
        compile: bool,
        nonfinite: Policy,
    ) -> None:
        super().__init__(net, optimizer, compile, nonfinite)
        self.criterion, self.mixing, self.tune = criterion, mixing, tune
        self.init_from, self.init_allow = init_from, init_allow
        self.register_buffer("class_weights", None, persistent=False)

    @abstractmethod
    def losses(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, " b"], Choice | None]:
        """Training loss of each image, and what a hard readout chose."""

    @override
    def next_command(self, folder: Path, data: str) -> str:
        return f"vit test {folder}"

    @override
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.net(images)

    @override
    def setup(self, stage: str) -> None:
        """Raises ValueError for a net that gives no logits, typed as a module so that any will do; or for one class."""
        if isinstance(self.net, Pretraining | TokenLabels):
            name = type(self.net).__name__
            raise ValueError(f"a classifier trains a net that gives a logit for each class of a picture, got a {name}")
        super().setup(stage)
        if stage != "fit":
            return
        require_labels(self.data.description, "a classifier")
        self.class_weights = class_weights(self.criterion.class_weights, self.data.class_counts)
        if self.init_from is not None and self.trainer.ckpt_path is None:  # a resumed run has its weights already
            loaded = begin(self.net, self.init_from, self.data.classes, self.init_allow)
            if self.trainer.is_global_zero:
                print("\n".join(filter(None, (loaded.table(), other_scale(self.init_from, self.data.preprocessing)))))
        self.tune.prepare(self.net)

    @override
    def on_train_epoch_start(self) -> None:
        rest(self.net)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch.images, batch.labels
        targets = F.one_hot(labels, len(self.data.classes)).float()
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        losses, choice = self.losses(images, targets)
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


@final
class Classifier(Classification):
    """Learn from the labels. Arguments as `Classification`'s."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.AdamW = optim.AdamW(),  # noqa: B008, frozen
        criterion: Criterion = CrossEntropy(),  # noqa: B008, frozen
        mixing: Mixing | None = None,
        init_from: str | None = None,
        init_allow: Sequence[str] = (),
        tune: Tuning = Full(),  # noqa: B008, frozen
        compile: bool = False,
        nonfinite: Policy = "stop",
    ) -> None:
        super().__init__(net, optimizer, criterion, mixing, init_from, init_allow, tune, compile, nonfinite)

    @override
    def losses(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, " b"], Choice | None]:
        logits, choice = answer(self.net, images)
        return self.criterion(logits, targets, self.class_weights), choice
