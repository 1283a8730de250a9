"""Masks come along with the pictures, moved as these are, and change nothing else."""

import re

import numpy as np
import pytest
import torch

from vit.data.augment import Augment
from vit.data.module import Images
from vit.data.scenes import Scenes


def scenes(task: str = "shape", **options: object) -> Images:
    return Images(f"scenes_{task}", **{"batch_size": 23, "train_size": 60, **options})


@pytest.mark.parametrize("level", ["none", "strong"])
@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_pictures_labels_and_order_are_those_without_masks(loader: str, level: str) -> None:
    plain = next(iter(getattr(scenes(augment=level, cache_gb=0), loader)()))
    masked = next(iter(getattr(scenes(augment=level, cache_gb=0, masks=True), loader)()))
    for name in ("images", "labels", "index"):
        assert torch.equal(getattr(plain, name), getattr(masked, name)), name
    assert masked.masks.shape == (23, 32, 32) and masked.masks.dtype == torch.int64


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
@pytest.mark.parametrize(("loader", "stream"), [("train_dataloader", 1), ("val_dataloader", 2), ("test_dataloader", 3)])
def test_masks_are_the_generators_with_the_class_on_the_object(loader: str, stream: int, cache_gb: float) -> None:
    batch = next(iter(getattr(scenes(augment="none", masks=True, cache_gb=cache_gb), loader)()))
    inside = Scenes("shape", stream, 1_000_000).masks(batch.index.numpy())
    assert np.array_equal(batch.masks.numpy(), inside * (1 + batch.labels.numpy()[:, None, None]))
    assert [mask.unique().tolist() for mask in batch.masks] == [[0, 1 + label] for label in batch.labels.tolist()]


@pytest.mark.parametrize("level", ["light", "medium", "strong"])
def test_a_mask_moves_with_its_picture(level: str) -> None:
    """A picture that is its own mask, bright on the object, still agrees after augmentation but near the edges."""
    augment, agreed = Augment(level, (32, 32), 1, True), []
    for key in range(40):
        mask = Scenes("shape", 1, 100).masks([key])[0]
        picture, moved = augment.both(255 * mask[..., None], mask, key)
        assert np.array_equal(picture, augment(255 * mask[..., None], key)), "the picture does not feel its mask"
        agreed.append(((picture[..., 0] > 127) == (moved > 0)).mean())
        assert set(np.unique(moved)) <= {0, 1}
    assert np.median(agreed) > 0.97


def test_refuses_sets_and_sizes_without_masks() -> None:
    message = "the classes of scenes_relation are of two objects together: expected scenes_shape or scenes_texture"
    with pytest.raises(ValueError, match=f"^{message}$"):
        scenes("relation", masks=True).val_dataloader()
    with pytest.raises(ValueError, match=re.escape("masks are 32x32: expected img_size 32, got 40x40")):
        scenes(img_size=40, masks=True).val_dataloader()
    with pytest.raises(ValueError, match=r"^masks of objects come with scenes_texture and scenes_shape .* got digits$"):
        Images("digits", masks=True).val_dataloader()
