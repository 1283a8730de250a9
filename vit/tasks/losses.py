"""Training losses on soft targets, so that mixup, cutmix and label smoothing work with each of them.

A criterion is a value (frozen, no tensors): it can be a default argument, and checkpoints hold the net's weights only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ClassWeights = Literal["none", "balanced"] | list[float]


class Criterion(ABC):
    """Loss of each image: ``(logits (b k), targets (b k), weights (k) or None) -> (b,)``, in float32."""

    class_weights: ClassWeights

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"], weights: Float[Tensor, " k"] | None
    ) -> Float[Tensor, " b"]: ...


@final
@dataclass(frozen=True)
class CrossEntropy(Criterion):
    """-sum_k w_k t_k log softmax(logits)_k, with targets smoothed to (1 - s) t + s / k.  Szegedy et al. 2016.

    Args:
        label_smoothing: s.
        class_weights: see `class_weights`.
    """

    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"

    def __call__(
        self, logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"], weights: Float[Tensor, " k"] | None
    ) -> Float[Tensor, " b"]:
        return F.cross_entropy(
            logits.float(), targets.float(), weights, label_smoothing=self.label_smoothing, reduction="none"
        )


@final
@dataclass(frozen=True)
class BinaryCrossEntropy(Criterion):
    """One yes-or-no question per class, mean over classes.  Touvron et al. 2022 (DeiT III), section 3.2.

    A mixed image contains both of its classes: any positive target counts as a full yes.

    Args:
        class_weights: see `class_weights`.
    """

    class_weights: ClassWeights = "none"

    def __call__(
        self, logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"], weights: Float[Tensor, " k"] | None
    ) -> Float[Tensor, " b"]:
        present = (targets > 0).float()
        return F.binary_cross_entropy_with_logits(logits.float(), present, weights, reduction="none").mean(dim=-1)


def class_weights(choice: ClassWeights, counts: Tensor) -> Float[Tensor, " k"] | None:
    """Weights of the classes, given their training ``counts`` (k,).

    ``balanced`` is n / (k n_c): every class has the same say and the mean weight over training images is 1, so the
    loss keeps its scale. A list gives the weights in the order of the classes.

    Raises:
        ValueError: a list of the wrong length or with a negative number, or a class without training images.
    """
    if isinstance(choice, list):
        if len(choice) != len(counts) or min(choice) < 0:
            raise ValueError(f"class_weights needs {len(counts)} numbers >= 0, one per class, got {choice}")
        return torch.tensor(choice, dtype=torch.float32)
    if choice == "none":
        return None
    if (counts == 0).any():
        raise ValueError(f"balanced class weights need training images of every class, got counts {counts.tolist()}")
    return (counts.sum() / (len(counts) * counts)).float()
