"""Distillation: a classifier that also learns from the answers of a trained one, its teacher."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit import bundle
from vit.data.images import Preprocessing
from vit.data.mixing import Mixing
from vit.layers import Choice, DistilledHead
from vit.models import ViT
from vit.models.choice import answer
from vit.models.pretraining import refuse_pretrained
from vit.models.token_labels import refuse_token_labels
from vit.tasks import optim
from vit.tasks.classify import Classification
from vit.tasks.finite import Policy
from vit.tasks.losses import Criterion, CrossEntropy
from vit.tasks.tune import Full, Tuning


class Lesson(ABC):
    """Loss of each image against the teacher's logits, in float32: ``(logits (b k), teacher's (b k)) -> (b,)``."""

    share: float

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "b k"], taught: Float[Tensor, "b k"]) -> Float[Tensor, " b"]: ...

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"the teacher's share of the loss must be above 0 and at most 1, got {self.share}")


@final
@dataclass(frozen=True)
class Soft(Lesson):
    """t^2 KL(softmax(teacher / t) || softmax(logits / t)).  Hinton et al. 2015, section 2.

    Args:
        temperature: t; t^2 keeps the gradient's size whatever it is.
        share: of this loss in all; the labels have the rest.
    """

    temperature: float = 3.0
    share: float = 0.5

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    @override
    def __call__(self, logits: Float[Tensor, "b k"], taught: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        t = self.temperature
        student, teacher = (F.log_softmax(x.float() / t, dim=-1) for x in (logits, taught))
        return t * t * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


@final
@dataclass(frozen=True)
class Hard(Lesson):
    """Cross-entropy with the teacher's answer as the label.  Touvron et al. 2021 (DeiT), eq. 3.

    Args:
        share: of this loss in all; the labels have the rest.
    """

    share: float = 0.5

    @override
    def __call__(self, logits: Float[Tensor, "b k"], taught: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        return F.cross_entropy(logits.float(), taught.argmax(dim=-1), reduction="none")


@final
class Teacher:
    """A trained net that is asked about a student's pictures: frozen, in eval mode, in no checkpoint.

    Args:
        path: bundle or run folder.
        classes: of the student, in the order of its logits; the teacher knows the same names, in any order.
        preprocessing: of the pictures it will be shown; they are brought to its own mean, deviation and size.

    Raises:
        ValueError: no bundle there, not of a classifier, other classes, another number of channels, or another
            ``value_range``.
    """

    def __init__(self, path: str, classes: Sequence[str], preprocessing: Preprocessing) -> None:
        model = bundle.load(path, device="cpu")
        refuse_pretrained(model.net, path)
        refuse_token_labels(model.net, path)
        if set(model.classes) != set(classes):
            unknown = [name for name in classes if name not in model.classes]
            absent = [name for name in model.classes if name not in classes]
            odd = f"the teacher does not know {unknown[0]!r}" if unknown else f"the data lacks {absent[0]!r}"
            raise ValueError(f"the teacher {path} has {len(model.classes)} classes, the data {len(classes)}: {odd}")
        own = model.preprocessing
        if own.channels != preprocessing.channels:
            raise ValueError(
                f"the teacher {path} takes pictures of {own.channels} channels, the data has {preprocessing.channels}"
            )
        if own.value_range != preprocessing.value_range:
            ranges = " and ".join(str(p.value_range or "default") for p in (own, preprocessing))
            raise ValueError(f"the teacher {path} and the data have other values of black and white: {ranges}")
        self.net = model.net.requires_grad_(False)
        self.digest = hashlib.sha256(safetensors.torch.save(bundle.tensors_of(self.net))).hexdigest()
        self._order = torch.tensor([model.classes.index(name) for name in classes])
        self._size = own.img_size
        given, taken = (torch.tensor([p.mean, p.std])[:, :, None, None] for p in (preprocessing, own))
        self._scale, self._shift = given[1] / taken[1], (given[0] - taken[0]) / taken[1]
        self._same = bool((self._scale == 1).all() and (self._shift == 0).all())

    def to(self, device: torch.device) -> None:
        """Move to where the student's pictures are."""
        self.net.to(device)
        self._order, self._scale, self._shift = (
            tensor.to(device) for tensor in (self._order, self._scale, self._shift)
        )

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits in the order of the student's classes."""
        if not self._same:
            images = images * self._scale + self._shift
        if tuple(images.shape[-2:]) != self._size:
            images = F.interpolate(images, self._size, mode="bicubic", antialias=True)
        return self.net(images)[:, self._order]


@final
class Distiller(Classification):
    """Learn from the labels and from a teacher's answers to the same pictures, augmented and mixed alike.

    A `DistilledHead` answers the labels with its class token and the teacher with its distillation token; any other net
    answers both at once. Validation and test are those of a `Classifier`.

    Args:
        teacher: bundle or run folder of a trained classifier, a CNN or a larger ViT, with the same classes.
        lesson: loss against the teacher, and its share. The other arguments are those of `Classification`.
    """

    def __init__(
        self,
        net: nn.Module,
        teacher: str,
        lesson: Lesson = Hard(),
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
        self.teacher, self.lesson = teacher, lesson
        self._teacher: Teacher | None = None

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self._teacher = Teacher(self.teacher, self.data.classes, self.data.preprocessing)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._teacher is not None:
            checkpoint["vit"]["teacher"] = self._teacher.digest

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another teacher than the run began with (ValueError)."""
        super().on_load_checkpoint(checkpoint)
        if self._teacher is not None and checkpoint["vit"].get("teacher") not in (None, self._teacher.digest):
            raise ValueError(f"the run began with another teacher: the weights of {self.teacher} have changed since")

    @override
    def on_train_start(self) -> None:
        assert self._teacher is not None
        self._teacher.to(self.device)

    @override
    def losses(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, " b"], Choice | None]:
        assert self._teacher is not None
        choice = None
        if isinstance(self.net, ViT) and isinstance(self.net.head, DistilledHead):
            answers, to_teacher = self.net.head.both(*self.net.backbone(images))
        else:
            answers, choice = answer(self.net, images)
            to_teacher = answers
        labelled = self.criterion(answers, targets, self.class_weights)
        taught = self.lesson(to_teacher, self._teacher(images))
        return (1 - self.lesson.share) * labelled + self.lesson.share * taught, choice
