"""Mixup and CutMix: labels follow exactly what was done to the pixels."""

import pytest
import torch
from torch.nn.functional import one_hot
from torch.testing import assert_close

from vit.data.mixing import Mixing


def labelled(b: int, c: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose every pixel is one-hot for the sample: what a mixed one consists of can be read off its mean."""
    identity = torch.eye(b)
    return identity[:, :, None, None].expand(b, b, 11, 17).clone()[:, :c], identity


@pytest.mark.parametrize(
    "options", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.5, "cutmix_alpha": 0.5}]
)
def test_targets_are_the_shares_of_the_pixels(options: dict):
    images, targets = labelled(5, 5)
    mixing, seen = Mixing(**options), []
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, soft = mixing(images, targets)
        assert_close(mixed.mean((2, 3)), soft)
        assert_close(soft.sum(1), torch.ones(5))
        seen.append(soft)
    assert len(torch.stack(seen).unique(dim=0)) > 20
    assert torch.equal(images, labelled(5, 5)[0])


def test_cutmix_pastes_a_box():
    images, targets = labelled(7, 7)
    mixed, _ = Mixing(cutmix_alpha=1.0)(images, targets)
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("c", [1, 3])
def test_any_batch_size_and_channels(b: int, c: int):
    images, targets = torch.rand(b, c, 5, 7), one_hot(torch.arange(b), 4).float()
    for options in ({"mixup_alpha": 0.4}, {"cutmix_alpha": 0.4}):
        mixed, soft = Mixing(**options)(images, targets)
        assert mixed.shape == images.shape and soft.shape == targets.shape
        if b == 1:
            assert_close(mixed, images)
            assert_close(soft, targets)


def test_torch_seed_decides_and_probability_counts():
    images, targets = labelled(5, 5)
    mixing = Mixing(0.8, 1.0, probability=0.3)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append([mixing(images, targets)[1] for _ in range(300)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    untouched = sum(soft is targets for soft in results[0])
    assert 180 <= untouched <= 240  # 210 +- 3.8 sd
    assert Mixing()(images, targets)[0] is images


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"mixup_alpha=-1\.0"):
        Mixing(mixup_alpha=-1.0)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        Mixing(probability=1.5)
