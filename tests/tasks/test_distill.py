from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from vit import bundle
from vit.data.images import Preprocessing
from vit.data.mixing import Mixing
from vit.layers import DistilledHead
from vit.models import CNN, MAE, Backbone, TokenLabels, ViT
from vit.tasks.distill import Distiller, Hard, Soft, Teacher
from vit.tasks.losses import CrossEntropy

CLASSES = [str(digit) for digit in range(10)]
GREY = Preprocessing((8, 8), 1, (0.5,), (0.25,))


def teacher(folder: Path, classes: list[str] = CLASSES, preprocessing: Preprocessing = GREY, **options) -> CNN:
    """A CNN with something to say, as a bundle."""
    torch.manual_seed(3)
    net = CNN(8, preprocessing.channels, len(classes), width=0.25, **options)
    torch.nn.init.normal_(net.net.fc.weight)
    bundle.save(folder, net, classes=classes, preprocessing=preprocessing)
    return net.eval()


def student(head: type | None = None) -> ViT:
    torch.manual_seed(5)
    options = {} if head is None else {"prefix": ("cls", "dist")}
    backbone = partial(Backbone, patch_size=4, embed_dim=24, depth=1, **options)
    return ViT(8, 1, 10, backbone) if head is None else ViT(8, 1, 10, backbone, head)


def test_lessons_are_their_formulas() -> None:
    logits, taught = torch.randn(3, 5), torch.randn(3, 5)
    p, q = (taught / 2.5).softmax(-1), (logits / 2.5).softmax(-1)
    assert_close(Soft(2.5)(logits, taught), 2.5**2 * (p * (p / q).log()).sum(-1))
    assert_close(Hard()(logits, taught), -logits.log_softmax(-1)[torch.arange(3), taught.argmax(-1)])
    assert_close(Soft()(taught, taught), torch.zeros(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [partial(Soft, share=0.0), partial(Hard, share=1.5)])
def test_a_share_is_one(make) -> None:
    with pytest.raises(ValueError, match="the teacher's share of the loss must be above 0 and at most 1"):
        make()


def test_a_temperature_is_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        Soft(temperature=0)


def test_a_teacher_is_matched_by_the_names_of_classes(tmp_path) -> None:
    net, images = teacher(tmp_path, CLASSES[::-1]), torch.randn(2, 1, 8, 8)
    assert_close(Teacher(str(tmp_path), CLASSES, GREY)(images), net(images).flip(1))
    with pytest.raises(ValueError, match="has 10 classes, the data 10: the teacher does not know 'a'"):
        Teacher(str(tmp_path), [*CLASSES[1:], "a"], GREY)
    with pytest.raises(ValueError, match="has 10 classes, the data 11: the teacher does not know 'a'"):
        Teacher(str(tmp_path), [*CLASSES, "a"], GREY)
    with pytest.raises(ValueError, match="has 10 classes, the data 9: the data lacks '9'"):
        Teacher(str(tmp_path), CLASSES[:9], GREY)
    with pytest.raises(ValueError, match="takes pictures of 1 channels, the data has 3"):
        Teacher(str(tmp_path), CLASSES, Preprocessing((8, 8), 3, (0.5,) * 3, (0.25,) * 3))


def test_only_a_classifier_teaches(tmp_path) -> None:
    backbone = partial(Backbone, patch_size=4, embed_dim=24, depth=1)
    for name, net in (("mae", MAE(8, 1, backbone)), ("patches", TokenLabels(8, 1, 10, backbone))):
        bundle.save(tmp_path / name, net, classes=CLASSES, preprocessing=GREY)
        with pytest.raises(ValueError, match="knows no classes" if name == "mae" else "labels patches, not pictures"):
            Teacher(str(tmp_path / name), CLASSES, GREY)


def test_black_and_white_are_the_same_to_teacher_and_student(tmp_path) -> None:
    teacher(tmp_path, preprocessing=replace(GREY, value_range=(0, 4095)))
    with pytest.raises(ValueError, match=r"other values of black and white: \(0, 4095\) and default"):
        Teacher(str(tmp_path), CLASSES, GREY)


def test_a_teacher_sees_pictures_as_it_is_used_to(tmp_path) -> None:
    own = Preprocessing((16, 12), 1, (0.1,), (0.5,))
    net, values = teacher(tmp_path, preprocessing=own), torch.rand(2, 1, 8, 8)
    shown = F.interpolate((values - 0.1) / 0.5, (16, 12), mode="bicubic", antialias=True)
    assert_close(Teacher(str(tmp_path), CLASSES, GREY)((values - 0.5) / 0.25), net(shown), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", [None, DistilledHead])
@pytest.mark.parametrize("lesson", [Soft(2.0, share=0.3), Hard(share=0.7)], ids=["soft", "hard"])
def test_a_step_is_the_sum_of_both_losses_on_the_same_mixed_pictures(tmp_path, trainer, digits, head, lesson) -> None:
    net = teacher(tmp_path / "teacher", preprocessing=digits.preprocessing)
    task = Distiller(student(head), str(tmp_path / "teacher"), lesson, mixing=Mixing(0.2, 1.0))
    seen = []
    criterion, both = CrossEntropy(0.1), task.losses

    def losses(images, targets):
        found = both(images, targets)
        with torch.no_grad():
            answers = taught = task.net(images)
            if head is not None:
                answers, taught = task.net.head.both(*task.net.backbone(images))
            expected = (1 - lesson.share) * criterion(answers, targets, None)
            seen.append((found[0].detach(), expected + lesson.share * lesson(taught, net(images))))
        return found

    task.criterion, task.losses = criterion, losses
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer(callbacks=[], enable_checkpointing=False, max_epochs=1, limit_train_batches=2).fit(task, digits)
    assert len(seen) == 2
    for found, expected in seen:
        assert_close(found, expected, rtol=1e-5, atol=1e-5)
    taught = task._teacher.net
    assert not taught.training and not any(p.requires_grad for p in taught.parameters())
    assert_close(dict(taught.state_dict()), before, rtol=0, atol=0)
    assert not any("teacher" in name for name in task.state_dict())


def test_a_student_learns_from_the_teacher_alone(tmp_path, trainer, digits) -> None:
    """Labels have no share: after some steps the answers are nearer to the teacher's."""
    net = teacher(tmp_path / "teacher", preprocessing=digits.preprocessing)
    task = Distiller(student(), str(tmp_path / "teacher"), Soft(1.0, share=1.0))
    digits.setup("fit")
    images = next(iter(digits.val_dataloader())).images

    def distance() -> float:
        with torch.no_grad():
            return float(Soft(1.0)(task.net.eval()(images), net(images)).mean())

    first = distance()
    trainer(callbacks=[], enable_checkpointing=False, max_epochs=3).fit(task.train(), digits)
    assert distance() < 0.9 * first


def test_a_run_does_not_go_on_with_another_teacher(tmp_path, trainer, digits) -> None:
    path, last = tmp_path / "teacher", tmp_path / "last.ckpt"

    def fit(epochs: int, begun: bool) -> None:
        fitting = trainer(callbacks=[], enable_checkpointing=False, max_epochs=epochs, limit_train_batches=2)
        fitting.fit(Distiller(student(), str(path)), digits, ckpt_path=last if begun else None, weights_only=True)
        fitting.save_checkpoint(last)

    net = teacher(path, preprocessing=digits.preprocessing)
    fit(1, begun=False)
    fit(2, begun=True)
    net.net.fc.bias.data[0] += 0.1
    bundle.save(path, net, classes=CLASSES, preprocessing=digits.preprocessing)
    with pytest.raises(ValueError, match=f"began with another teacher: the weights of {path} have changed since"):
        fit(3, begun=True)
