"""Held-out splits and nested subsets."""

import numpy as np
import pytest

from vit.data.subset import carve, first, nested

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 4], [500, 300, 100, 2, 1]))


def test_carving_is_stratified_complete_and_seeded():
    kept, held = carve(LABELS, 0.1, seed=0)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(LABELS)))
    assert np.bincount(LABELS[held], minlength=5).tolist() == [50, 30, 10, 1, 0]
    assert np.array_equal(held, carve(LABELS, 0.1, seed=0)[1])
    assert not np.array_equal(held, carve(LABELS, 0.1, seed=1)[1])


def test_all_or_nothing_is_refused():
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"got {fraction}"):
            carve(LABELS, fraction, seed=0)


def test_subsets_are_nested_stratified_and_cover_every_class():
    order = nested(LABELS, seed=0)
    assert np.array_equal(np.sort(order), np.arange(len(LABELS)))
    assert set(LABELS[order[:5]]) == {0, 1, 2, 3, 4}
    for size in (10, 100, 333, 900):
        counts = np.bincount(LABELS[order[:size]], minlength=5)
        assert np.abs(counts - size * np.bincount(LABELS) / len(LABELS)).max() <= 3
    balanced = np.tile(np.arange(10), 50)
    assert np.bincount(balanced[nested(balanced, seed=3)[:100]]).tolist() == [10] * 10
    assert not np.array_equal(order, nested(LABELS, seed=1))


def test_a_training_subset_is_inside_the_larger_one():
    order = nested(LABELS, seed=0)
    small, large = first(order, 50, 5), first(order, 0.5, 5)
    assert len(small) == 50 and len(large) == round(len(order) / 2)
    assert set(small) < set(large) and np.all(np.diff(small) > 0) and set(LABELS[small]) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (10_000, "more than the 903 pictures"),
        (4, "at least one of each of the 5 classes"),
        (0.001, "is 1 pictures: expected at least one"),
        (0, "got 0"),
        (1.5, "share of at most 1.0, got 1.5"),
        (True, "got True"),
    ],
)
def test_a_size_that_cannot_be_is_refused(size: float, words: str):
    with pytest.raises(ValueError, match=words):
        first(nested(LABELS, seed=0), size, 5)


def test_groups_stay_together_and_the_share_is_near():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 60, 600)
    labels = rng.integers(0, 3, 600)
    for seed in range(5):
        kept, held = carve(labels, 0.2, seed, groups)
        assert not {*groups[kept]} & {*groups[held]}
        assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(600))
        share = np.bincount(labels[held]) / np.bincount(labels)
        assert np.abs(share - 0.2).max() < 0.06
    assert not np.array_equal(held, carve(labels, 0.2, 0, groups)[1])


def test_a_group_that_holds_all_of_a_class_is_kept():
    labels = np.array([0] * 10 + [1] * 3 + [0] * 3)
    groups = np.array([*range(10), 90, 90, 90, 91, 91, 91])
    for seed in range(20):
        kept, held = carve(labels, 0.3, seed, groups)
        assert len(held) and {*labels[kept]} == {0, 1}


def test_groups_larger_than_the_share_are_held_one_at_least_the_smallest():
    labels, groups = np.repeat([0, 1], 20), np.array([*np.repeat(range(4), 5), *np.repeat(range(4, 9), 4)])
    for seed in range(5):
        kept, held = carve(labels, 0.1, seed, groups)
        assert len(held) == 4 and len({*groups[held]}) == 1 and not {*groups[kept]} & {*groups[held]}
    assert not len(carve(labels, 0.1, 0, labels)[1])  # a group is a whole class
