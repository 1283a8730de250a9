"""Generated pictures: pure, balanced, and with no way to the class but the one the task is about."""

import hashlib
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from vit.data import order
from vit.data.scenes import CLASSES, PICTURES, Scenes, Task

TASKS: tuple[Task, ...] = ("texture", "shape", "relation")
TRAIN, TEST = 3000, 2000
# Chance is 0.25 of 2,000; three standard errors of a share are 0.029, six points allow for twice that.
CHANCE, SLACK = 0.25, 0.06
PINNED = {"texture": "c69c08833945f236", "shape": "ec0f5f8d739ec9bb", "relation": "e7afba89cafbb6a6"}


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The first 5,000 pictures of each task, and their labels."""
    sets = {task: Scenes(task, seed=1, count=TRAIN + TEST) for task in TASKS}
    return {task: (scenes.pictures(range(len(scenes))), scenes.labels) for task, scenes in sets.items()}


def accuracy(model, features: np.ndarray, labels: np.ndarray) -> float:
    """Of a model fitted on the first 3,000, on the other 2,000."""
    return float(model.fit(features[:TRAIN], labels[:TRAIN]).score(features[TRAIN:], labels[TRAIN:]))


def flat(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1).astype(np.float32) / 255


@pytest.mark.parametrize("task", TASKS)
def test_generator_is_pinned(task: Task):
    """Results are recorded against these very pictures: a change wants a new `VERSION`, and new hashes here."""
    scenes = Scenes(task, seed=1, count=64)
    digest = hashlib.sha256(scenes.pictures(range(64)).tobytes() + scenes.masks(range(64)).tobytes())
    digest.update(scenes.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == PINNED[task]


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_depends_on_its_index_alone(task: Task):
    short, long = Scenes(task, 5, 211), Scenes(task, 5, 10**6)
    index = np.random.default_rng(0).permutation(211)  # more than a chunk, in another order
    together = short.pictures(index)
    assert together.shape == (211, 32, 32, 3) and together.dtype == np.uint8
    assert np.array_equal(together, long.pictures(np.arange(211))[index])
    assert np.array_equal(short.pictures([3, 7])[1], short[7]) and np.array_equal(short[-1], short[210])
    assert np.array_equal(short.masks([3, 7])[1], short.masks(range(9))[7])
    assert np.array_equal(short.labels, long.labels[:211])
    assert short.pictures([]).shape == (0, 32, 32, 3) and short.masks([]).shape == (0, 32, 32)
    assert len({picture.tobytes() for picture in together}) == 211
    assert not (Scenes(task, 6, 211).pictures(range(211)) == long.pictures(range(211))).all((1, 2, 3)).any()


@pytest.mark.parametrize("task", TASKS)
def test_every_block_of_four_has_each_class_once_in_random_order(task: Task):
    blocks = Scenes(task, 1, 40_000).labels.reshape(-1, 4)
    assert (np.sort(blocks, 1) == np.arange(4)).all()
    assert blocks.dtype == np.int64 and Scenes(task, 1, 7).labels.tolist() == blocks.ravel()[:7].tolist()
    _, counts = np.unique(blocks, axis=0, return_counts=True)
    assert len(counts) == 24 and ((counts - 10_000 / 24) ** 2 / (10_000 / 24)).sum() < 49.7  # chi-square, p = 0.001


def test_bad_requests_are_errors():
    with pytest.raises(ValueError, match="texture, shape, relation, got 'colour'"):
        Scenes("colour", 0, 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="negative, got -1"):
        Scenes("shape", 0, -1)
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"below 5, got {index}"):
            Scenes("shape", 0, 5)[index]
    with pytest.raises(IndexError, match=r"0\.\.4, got -1\.\.3"):
        Scenes("shape", 0, 5).masks([3, -1])


def test_streams_share_no_key():
    keys = [order.keys(seed, 0, np.arange(n), PICTURES) for seed, n in ((1, 10**6), (2, 5000), (3, 10**4))]
    assert len(np.unique(np.concatenate(keys))) == 1_015_000


@pytest.mark.parametrize("task", TASKS)
def test_masks_cover_the_objects(task: Task, drawn):
    """An object's colours are two of three levels of brightness, the background's is the third, met where they mix."""
    scenes, pictures = Scenes(task, 1, 500), drawn[task][0][:500]
    masks, grey = scenes.masks(range(500)), pictures.mean(-1) / 255
    parts = 2 if task == "relation" else 1
    assert masks.dtype == np.uint8 and set(np.unique(masks)) == set(range(parts + 1))
    radius = scenes.objects(range(500)).radius.reshape(500, parts)
    for part in range(parts):
        area = (masks == part + 1).sum((1, 2)) / (np.pi * radius[:, part] ** 2)
        assert area.min() > 0.8 and area.max() < 1.2 and area.mean() == pytest.approx(1, abs=0.03)
    inner = np.stack([np.roll(masks, shift, (1, 2)) for shift in product((-1, 0, 1), repeat=2)])
    inside, ground = (
        inner.min(0) > 0,
        inner.max(0) == 0,
    )  # away from edges
    back = np.array([np.median(g[m]) for g, m in zip(grey, ground, strict=True)])[:, None, None]
    least = 0.75 if parts == 2 else 0.93  # stripes pass through the middle grey of a pair's background
    assert (np.abs(grey - back)[inside] > 0.12).mean() > least and (np.abs(grey - back)[ground] < 0.12).mean() > 0.99


def test_areas_of_outlines_are_equal():
    scenes = Scenes("shape", 1, 4000)
    area = (scenes.masks(range(4000)) > 0).sum((1, 2))
    means = np.array([area[scenes.labels == label].mean() for label in range(4)])
    assert np.ptp(means) / means.mean() < 0.04  # corners cut by the border are the rest


def directions(scenes: Scenes, count: int) -> np.ndarray:
    """Of the stripes of each object (n 2), in eighths of a turn, 0 to 4."""
    cos, sin = scenes.objects(range(count)).grain.T
    return (np.rint(np.arctan2(sin, cos) / (np.pi / 4)).astype(int) % 4).reshape(count, 2)


def test_relation_is_that_of_two_distant_objects():
    scenes = Scenes("relation", 1, 4000)
    masks, objects = scenes.masks(range(4000)), scenes.objects(range(4000))
    assert not (masks[..., :16] == 2).any() and not (masks[..., 16:] == 1).any()
    left, right = (objects.place[part::2, 0] + 16 * part for part in (0, 1))
    assert (right - left).min() > 13.5 and (right - left).mean() > 14
    turned = directions(scenes, 4000)
    assert np.array_equal(scenes.labels, (turned[:, 1] - turned[:, 0]) % 4)
    assert (objects.texture == 0).all() and CLASSES["relation"][2] == "turned by 90"


def test_a_relation_survives_the_mirror():
    """Augmentation flips: stripes change their sense of turning, and the objects their places."""
    scenes = Scenes("relation", 1, 4000)
    left, right = directions(scenes, 4000).T
    assert np.array_equal((-left - -right) % 4, scenes.labels)


def test_one_object_alone_tells_no_relation_and_both_do():
    """From the numbers they are drawn with, which no picture tells better."""
    scenes, labels = Scenes("relation", 1, TRAIN + TEST), Scenes("relation", 1, TRAIN + TEST).labels
    objects, turned = scenes.objects(range(TRAIN + TEST)), directions(scenes, TRAIN + TEST)
    shape = np.eye(4)[objects.shape].reshape(-1, 2, 4)
    numbers = np.concatenate([objects.place, objects.radius[:, None], objects.grain, objects.turn], 1).reshape(-1, 2, 7)
    alone = [np.concatenate([np.eye(4)[turned[:, part]], shape[:, part], numbers[:, part]], 1) for part in (0, 1)]
    for features in alone:
        for model in (RidgeClassifier(1.0), KNeighborsClassifier(15)):
            assert abs(accuracy(model, features, labels) - CHANCE) < SLACK
    both = np.concatenate([np.eye(4)[turned[:, part]] for part in (0, 1)], 1)
    assert accuracy(KNeighborsClassifier(15), both, labels) == 1
    unordered = np.sort(turned, 1)  # which directions there are, without where
    assert 0.7 < accuracy(KNeighborsClassifier(15), np.eye(4)[unordered].reshape(-1, 8), labels) < 0.79


def test_no_texture_or_direction_of_one_object_goes_with_the_relation():
    scenes = Scenes("relation", 1, 4000)
    for kinds in (*directions(scenes, 4000).T, *scenes.objects(range(4000)).shape.reshape(4000, 2).T):
        table = np.array([np.bincount(kinds[scenes.labels == c], minlength=4) for c in range(4)])
        assert ((table - table.mean(0)) ** 2 / table.mean(0)).sum() < 27.9  # chi-square, 9 degrees, p = 0.001


@pytest.mark.parametrize("task", TASKS)
def test_nuisances_are_independent_of_the_class(task: Task):
    scenes = Scenes(task, 1, 4000)
    objects, labels, parts = scenes.objects(range(4000)), scenes.labels, 2 if task == "relation" else 1
    numbers = objects._asdict()
    kinds_of = {name: numbers.pop(name) for name in ("shape", "texture")}
    for name, part in product([name for name in kinds_of if name != task], range(parts)):
        kinds = kinds_of[name][part::parts]
        table = np.array([[(kinds[labels == c] == k).sum() for k in np.unique(kinds)] for c in range(4)])
        assert ((table - table.mean(0)) ** 2 / table.mean(0)).sum() < 27.9, name  # chi-square, 9 degrees, p = 0.001
    numbers = np.concatenate([values.reshape(4000, -1) for values in numbers.values()], 1)
    means = np.stack([numbers[labels == c].mean(0) for c in range(4)])
    assert (np.abs(means - numbers.mean(0)) / (numbers.std(0) / np.sqrt(1000))).max() < 4.3  # of up to 120 comparisons


@pytest.mark.parametrize("task", ["shape", "relation"])
def test_no_linear_model_of_pixels_tells(task: str, drawn):
    pictures, labels = drawn[task]
    assert abs(accuracy(RidgeClassifier(100.0), flat(pictures), labels) - CHANCE) < SLACK


@pytest.mark.parametrize("task", TASKS)
def test_colours_do_not_tell(task: str, drawn):
    pictures, labels = drawn[task]
    means = flat(pictures).reshape(len(pictures), -1, 3).mean(1)
    bins = pictures // 32 + 8 * np.arange(3, dtype=np.uint8)
    histogram = np.stack([np.bincount(b.ravel(), minlength=24) for b in bins]) / 1024
    for features, model in product((means, histogram), (RidgeClassifier(0.01), KNeighborsClassifier(25))):
        assert abs(accuracy(model, features, labels) - CHANCE) < SLACK


@pytest.mark.parametrize(
    ("task", "least", "most"), [("texture", 0.6, 1.0), ("shape", 0.0, 0.65), ("relation", 0.2, 0.31)]
)
def test_what_a_bag_of_small_patches_tells(task: str, least: float, most: float, drawn):
    """Much of texture, corners of a shape, nothing of a relation: how often 64 patches of 5x5 pixels are seen."""
    pictures, labels = drawn[task]
    pixels = torch.from_numpy(flat(pictures)).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2) * 2 - 1
    rng = np.random.default_rng(0)
    corners = zip(rng.integers(TRAIN, size=64), *rng.integers(28, size=(2, 64)), strict=True)
    patches = torch.stack([pixels[i, :, y : y + 5, x : x + 5] for i, y, x in corners])
    patches -= patches.mean((1, 2, 3), keepdim=True)
    patches /= patches.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None, None]
    found = []
    for part in pixels.split(250):
        seen = nn.functional.conv2d(part, patches).flatten(2)
        found.append(torch.cat([seen.abs().mean(2), seen.relu().mean(2), seen.square().mean(2)], 1))
    features = torch.cat(found).numpy()
    scaled = (features - features[:TRAIN].mean(0)) / features[:TRAIN].std(0).clip(1e-6)
    assert least < accuracy(RidgeClassifier(1.0), scaled, labels) < most


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("texture", 0.5), ("shape", 0.5), ("relation", 0.6)])
def test_a_small_cnn_learns_the_class(task: Task, least: float):
    scenes, held = Scenes(task, 1, 64 * 600), Scenes(task, 3, 1000)
    widths = (3, 16, 32, 64)
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in pairwise(widths)
    ]
    net = nn.Sequential(
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4)
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(600):
        index = np.arange(64 * step, 64 * step + 64)
        loss = nn.functional.cross_entropy(net(tensor(scenes, index)), torch.from_numpy(scenes.labels[index]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = net.eval()(tensor(held, np.arange(1000))).argmax(1).numpy() == held.labels
    assert right.mean() > least


def tensor(scenes: Scenes, index: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(scenes.pictures(index)).permute(0, 3, 1, 2).float() / 127.5 - 1
