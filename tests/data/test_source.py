"""Sources: what is kept in memory, what is drawn or decoded again, and that both are the same pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit.data.images import Preprocessing
from vit.data.order import Request
from vit.data.scenes import Scenes
from vit.data.source import Batches, Some, Source, fitted

OWN = Preprocessing((32, 32), 3, (0.5,) * 3, (0.25,) * 3)
SMALL = Preprocessing((11, 7), 1, (0.5,), (0.25,))
SAMPLES = np.array([1200, 5, 7, 2**19, 11])  # in no order, and far apart


def endless() -> Source:
    scenes = Scenes("relation", 1, 2**19 + 1)
    return Source(scenes, scenes.labels)


def request(samples: np.ndarray) -> Request:
    return Request(samples, np.zeros(len(samples), np.uint64))


@pytest.mark.parametrize("preprocessing", [OWN, SMALL], ids=["as drawn", "resized"])
def test_kept_and_drawn_again_are_the_same(preprocessing: Preprocessing):
    whole = endless()
    kept = fitted(whole, preprocessing, SAMPLES)
    assert isinstance(kept.pictures, Some) and len(kept) == 2**19 + 1
    assert kept.pictures.pictures.shape == (5, *preprocessing.img_size, preprocessing.channels)
    a, b = (Batches(one, preprocessing)[request(SAMPLES[:4])] for one in (kept, whole))
    assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.index.tolist() == [*SAMPLES[:4]]
    assert isinstance(whole.pictures, Scenes)
    expected = np.stack([preprocessing.pixels(whole.pictures[i]) for i in SAMPLES[:4].tolist()])
    assert torch.equal(a.images, preprocessing.normalise(torch.from_numpy(expected)))


def test_the_limit_counts_what_is_used():
    whole = endless()
    assert fitted(whole, OWN) is whole  # 1.5 GiB of pictures
    needed = 5 * 32 * 32 * 3
    assert isinstance(fitted(whole, OWN, SAMPLES, needed).pictures, Some)
    assert fitted(whole, OWN, SAMPLES, needed - 1) is whole


def test_only_the_wanted_files_are_opened(tmp_path: Path):
    for number in (2, 3, 5):
        Image.new("L", (7, 11), 10 * number).save(tmp_path / f"{number}.png")
    files = Source([tmp_path / f"{number}.png" for number in range(7)], np.arange(7))
    kept = fitted(files, SMALL, np.array([5, 2, 3]))
    assert isinstance(kept.pictures, Some)
    assert kept.pictures[np.array([3, 5])][:, 0, 0, 0].tolist() == [30, 50]
    assert fitted(kept, SMALL) is kept
    for absent in (4, 6):
        with pytest.raises(IndexError, match=f"picture {absent} is not among the 3"):
            kept.pictures[np.array([3, absent])]
    with pytest.raises(ValueError, match=r"0\.png"):
        fitted(files, SMALL)


def test_a_whole_split_is_an_array_and_one_that_fits_is_left_alone():
    scenes = Scenes("shape", 1, 1500)  # more than is drawn at a time
    array = fitted(Source(scenes, scenes.labels), OWN)
    assert isinstance(array.pictures, np.ndarray) and np.array_equal(array.pictures, scenes.pictures(range(1500)))
    assert fitted(array, OWN, np.array([3])) is array
