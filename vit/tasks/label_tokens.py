"""One label per patch: background, or the class of the object there."""

from pathlib import Path
from typing import cast, final

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit.data.labels import require_labels
from vit.data.masked import MaskedBatch
from vit.layers import Size
from vit.models import TokenLabels
from vit.tasks import optim
from vit.tasks.finite import Policy
from vit.tasks.losses import Criterion, CrossEntropy
from vit.tasks.task import Task


@final
class LabelTokens(Task):
    """Train a `vit.models.TokenLabels` net on the masks that a `vit.data` module brings along (`data.masks`).

    Logs train/loss, train/loss_step, lr, and of validation and test: loss (plain cross-entropy of a patch), acc (share
    of patches told rightly), balanced_acc (mean over the classes that occur of the share told rightly) and majority,
    the acc of always giving the most frequent label, whose balanced_acc is one over the number of classes.

    Args:
        net: images to the logits of each patch.
        optimizer: recipe.
        criterion: training loss of a patch; without class weights, which are counted in pictures.
        compile: compile the net in place with torch.compile; checkpoints are the same with and without.
        nonfinite: stop at a step whose loss or gradient is not finite, or skip it; the samples are named either way.

    Raises:
        ValueError: class weights; in `setup`, a net of another kind or data without masks.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.AdamW = optim.AdamW(),  # noqa: B008, frozen
        criterion: Criterion = CrossEntropy(),  # noqa: B008, frozen
        compile: bool = False,
        nonfinite: Policy = "stop",
    ) -> None:
        super().__init__(net, optimizer, compile, nonfinite)
        if criterion.class_weights != "none":
            raise ValueError(f"patches have no class weights: expected none, got {criterion.class_weights}")
        self.criterion = criterion
        self._counts = torch.zeros(0, 0, dtype=torch.long)

    @override
    def next_command(self, folder: Path, data: str) -> str:
        return f"vit validate {folder}"

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not isinstance(self.net, TokenLabels):
            raise ValueError(f"labelling patches trains a vit.models.TokenLabels, got a {type(self.net).__name__}")
        if stage == "fit":
            require_labels(self.data.description, "labelling patches")
        if not self.data.masks:
            raise ValueError("labelling patches needs masks: --data.masks true, of scenes_shape or scenes_texture")

    @override
    def training_step(self, batch: MaskedBatch, batch_idx: int) -> Tensor:
        logits, labels = self._answer(batch)
        targets = F.one_hot(labels, logits.shape[-1]).float()
        loss = self.criterion(rearrange(logits, "b n k -> (b n) k"), rearrange(targets, "b n k -> (b n) k"), None)
        loss = loss.mean()
        self.log_training(batch.plain, loss)
        return loss

    @override
    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "val")

    @override
    def test_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "test")

    @override
    def on_validation_epoch_start(self) -> None:
        self._counts = torch.zeros(0, 0, dtype=torch.long)

    @override
    def on_test_epoch_start(self) -> None:
        self._counts = torch.zeros(0, 0, dtype=torch.long)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_counts("val")

    @override
    def on_test_epoch_end(self) -> None:
        self._log_counts("test")

    def _answer(self, batch: MaskedBatch) -> tuple[Float[Tensor, "b n k"], Int64[Tensor, "b n"]]:
        net = cast(TokenLabels, self.net)
        logits = self.net(batch.images)
        return logits, patch_labels(batch.masks, logits.shape[-1], net.backbone.patch_size)

    def _evaluate(self, batch: MaskedBatch, batch_idx: int, split: str) -> None:
        logits, labels = self._answer(batch)
        own = self.own(batch.plain, batch_idx, split)
        told, labels, k = logits[own].float(), labels[own], logits.shape[-1]
        loss = F.cross_entropy(rearrange(told, "b n k -> (b n) k"), labels.flatten())
        self.log_evaluated(split, {"loss": loss}, len(told))
        pairs = (labels * k + told.argmax(dim=-1)).flatten()
        counts = torch.bincount(pairs, minlength=k * k).view(k, k)
        self._counts = counts if not len(self._counts) else self._counts + counts

    def _log_counts(self, split: str) -> None:
        counts = cast(Tensor, self.trainer.strategy.reduce(self._counts, reduce_op="sum")).double().cpu()
        values = {f"{split}/{name}": value for name, value in token_scores(counts).items()}
        self.log_dict(values, prog_bar=True)


def patch_labels(masks: Int64[Tensor, "b h w"], kinds: int, patch_size: Size) -> Int64[Tensor, "b n"]:
    """The label that most pixels of a patch have; of equally many the lowest, so that background comes first."""
    pixels = F.one_hot(masks, kinds)
    counts = reduce(pixels, "b (y p) (x q) k -> b (y x) k", "sum", p=patch_size[0], q=patch_size[1])
    return counts.argmax(dim=-1)


def token_scores(counts: Float[Tensor, "k k"]) -> dict[str, float]:
    """acc, balanced_acc and majority, as `LabelTokens` logs them, of counts of (true, told) labels."""
    true, right = counts.sum(dim=1), counts.diagonal()
    occurs = true > 0
    return {
        "acc": float(right.sum() / counts.sum()),
        "balanced_acc": float((right[occurs] / true[occurs]).mean()),
        "majority": float(true.max() / counts.sum()),
    }
