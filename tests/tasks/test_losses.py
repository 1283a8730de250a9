import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from vit.tasks.losses import BinaryCrossEntropy, CrossEntropy, class_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
HARD = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]])


def test_cross_entropy_of_hard_targets_is_that_of_labels():
    assert_close(CrossEntropy()(LOGITS, HARD, None), F.cross_entropy(LOGITS, torch.tensor([0, 2]), reduction="none"))


def test_cross_entropy_smooths_and_weights_soft_targets():
    weights = torch.tensor([0.5, 2.0, 1.0])
    smooth = 0.9 * SOFT + 0.1 / 3
    expected = -(weights * smooth * LOGITS.log_softmax(-1)).sum(-1)
    assert_close(CrossEntropy(label_smoothing=0.1)(LOGITS, SOFT, weights), expected)


def test_binary_cross_entropy_counts_every_mixed_class_as_present():
    p = LOGITS.sigmoid()
    expected = -torch.stack(
        (p[0, 0].log() + p[0, 1].log() + (1 - p[0, 2]).log(), (1 - p[1, 0]).log() + p[1, 1].log() + p[1, 2].log())
    )
    assert_close(BinaryCrossEntropy()(LOGITS, SOFT, None), expected / 3)


@pytest.mark.parametrize("criterion", [CrossEntropy(), BinaryCrossEntropy()], ids=lambda c: type(c).__name__)
def test_half_precision_logits_give_a_float32_loss_and_a_gradient(criterion):
    logits = LOGITS.bfloat16().requires_grad_()
    loss = criterion(logits, SOFT, torch.ones(3))
    assert loss.dtype == torch.float32 and loss.shape == (2,)
    loss.mean().backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_balanced_weights_give_classes_equal_say_and_images_mean_one():
    counts = torch.tensor([10, 30, 60])
    weights = class_weights("balanced", counts)
    assert weights is not None
    assert_close(weights * counts, torch.full((3,), 100 / 3))
    assert math.isclose(float((weights * counts).sum() / counts.sum()), 1.0, rel_tol=1e-6)


def test_listed_weights_are_taken_and_none_is_none():
    counts = torch.tensor([1, 2])
    assert class_weights("none", counts) is None
    assert_close(class_weights([0.5, 1.5], counts), torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize(
    ("choice", "counts", "message"),
    [
        ([1.0], [4, 5], r"class_weights needs 2 numbers >= 0, one per class, got \[1.0\]"),
        ([1.0, -1.0], [4, 5], "needs 2 numbers >= 0"),
        ("balanced", [4, 0], r"images of every class, got counts \[4, 0\]"),
    ],
)
def test_impossible_weights_are_refused(choice, counts, message):
    with pytest.raises(ValueError, match=message):
        class_weights(choice, torch.tensor(counts))
