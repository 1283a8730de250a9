"""A trained net's answers to pictures."""

from collections.abc import Container
from typing import Literal, NamedTuple, cast, final

import lightning as L
from jaxtyping import Float, Int64
from torch import Tensor, nn
from typing_extensions import override

from vit.data.source import Batch
from vit.models import CNN, ViT

Numbers = Literal["logits", "embeddings"]


class Answer(NamedTuple):
    """Of one batch: positions, the largest probabilities and their classes, and the numbers that were wanted."""

    index: Int64[Tensor, " b"]  # pyright: ignore[reportIncompatibleMethodOverride]
    probabilities: Float[Tensor, "b top"]
    classes: Int64[Tensor, "b top"]
    logits: Float[Tensor, "b k"] | None
    embeddings: Float[Tensor, "b d"] | None


@final
class Answers(L.LightningModule):
    """Predicts with ``net``; keeps ``top_k`` probabilities and, in full, only the ``included`` numbers.

    An embedding is what the net's last linear map sees.
    """

    def __init__(self, net: nn.Module, top_k: int, included: Container[Numbers] = ()) -> None:
        super().__init__()
        self.net, self.top_k, self.included = net, top_k, included

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> Answer:
        embeddings = None
        if "embeddings" in self.included:
            logits, features = cast(ViT | CNN, self.net).with_features(batch.images)
            embeddings = features.float().clone()  # they may be a view that would keep all tokens
        else:
            logits = self.net(batch.images)
        logits = logits.float()
        top = logits.softmax(dim=-1).topk(self.top_k)
        return Answer(batch.index, top.values, top.indices, logits if "logits" in self.included else None, embeddings)
