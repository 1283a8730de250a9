"""Levels: shape, range, determinism by key, and what each may do."""

import os
from typing import get_args

import numpy as np
import pytest

from vit.data.augment import Augment, transforms
from vit.data.source import Level


def pictures(count: int, h: int, w: int, c: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, h, w, c), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [(8, 8), (13, 29)])
@pytest.mark.parametrize("level", get_args(Level))
def test_shape_range_and_determinism(level: Level, size: tuple[int, int], channels: int):
    augment, again = (Augment(level, size, channels, flip=True) for _ in range(2))
    images = pictures(60, *size, channels)
    before = images.copy()
    results = [augment(image, key) for key, image in enumerate(images)]
    assert all(r.shape == (*size, channels) and r.dtype == np.uint8 for r in results)
    assert np.array_equal(images, before)
    for key in reversed(range(60)):  # another order, another instance
        assert np.array_equal(again(images[key], key), results[key])


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_flat_pictures_do_no_harm(channels: int):
    augment = Augment("strong", (8, 8), channels, flip=True)
    for value in (0, 255):
        for key in range(60):
            assert augment(np.full((8, 8, channels), value, np.uint8), key).shape == (8, 8, channels)


@pytest.mark.parametrize("channels", [4, 5, 64])
def test_all_bands_move_and_change_tone_together(channels: int):
    """OpenCV works on four channels at a time, and some steps know of three only."""
    augment = Augment("strong", (16, 24), channels, flip=True)
    augment.compose.transforms[-1].p = 0  # what is erased is filled with noise
    image = np.repeat(pictures(1, 16, 24, 1)[0], channels, axis=2)
    for key in range(60):
        result = augment(image, key)
        assert (result == result[..., :1]).all() and result.shape == image.shape


def test_levels_get_stronger():
    images = pictures(50, 28, 28, 1)
    change = [
        np.mean(
            [np.abs(Augment(level, (28, 28), 1, True)(x, k).astype(int) - x).mean() > 0 for k, x in enumerate(images)]
        )
        for level in get_args(Level)
    ]
    assert change[0] == 0 and change[1] > 0.9
    steps = [len(transforms(level, (28, 28), 1, True)) for level in get_args(Level)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("flip", [True, False])
def test_mirrors_only_where_labels_survive(flip: bool):
    image = np.zeros((16, 16, 1), np.uint8)
    image[:, :4] = 255
    results = [Augment("light", (16, 16), 1, flip)(image, key) for key in range(60)]
    mirrored = sum(r[:, 10:].any() for r in results)
    assert 15 < mirrored < 45 if flip else mirrored == 0


def test_light_shifts_up_to_an_eighth_on_each_axis():
    image = np.zeros((16, 40, 1), np.uint8)
    image[8, 20] = 255
    spots = [np.argwhere(Augment("light", (16, 40), 1, False)(image, key))[0][:2] - (8, 20) for key in range(300)]
    assert np.min(spots, axis=0).tolist() == [-2, -5] and np.max(spots, axis=0).tolist() == [2, 5]


def test_steps_draw_independently():
    """`set_random_seed` would seed each step alike: a mirrored picture would be an erased one, always."""
    image = np.tile(np.arange(16, dtype=np.uint8)[None, :, None], (16, 1, 1)) + 100
    augment = Augment("medium", (16, 16), 1, True)
    mirrored, warped = [], []
    for key in range(400):
        augment(image, key)
        flip, affine = augment.compose.transforms[:2]
        mirrored.append(augment(image, key)[8, 3, 0] > augment(image, key)[8, 12, 0])
        warped.append(bool(affine.params))
        assert flip.p == affine.p == 0.5
    assert abs(np.corrcoef(mirrored, warped)[0, 1]) < 0.2


def test_importing_asks_no_network():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
