import numpy as np
import pytest

from vit.analysis.probing import effective_rank, linear_probe, nearest_neighbours, spread, standardised

RNG = np.random.default_rng(0)


def clouds(count: int, classes: int = 3, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % classes
    return 6 * np.eye(dim)[labels] + RNG.normal(size=(count, dim)), labels


def test_separate_clouds_are_told_apart_and_noise_is_not():
    (gallery, labels), (queries, truth) = clouds(60), clouds(30)
    noise = RNG.normal(size=(60, 5)), RNG.normal(size=(300, 5))
    for classify in (nearest_neighbours, linear_probe):
        assert (classify(gallery, labels, queries) == truth).mean() > 0.95
        guesses = classify(noise[0], labels, noise[1])
        assert (guesses == np.arange(300) % 3).mean() < 0.5


def test_neighbours_vote_by_angle_and_the_nearer_count_more():
    gallery = np.array([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]])
    labels = np.array([7, 4, 4, 4])
    query = np.array([[100.0, 0.0]])
    assert nearest_neighbours(gallery, labels, query, neighbours=3).tolist() == [7], "exp(1 / 0.07) > 2 exp(0.8 / 0.07)"
    assert nearest_neighbours(gallery, labels, np.array([[0.9, 0.5]]), neighbours=99).tolist() == [4]


def test_the_gallery_alone_sets_the_scale_and_a_dead_channel_stays_zero():
    gallery, queries = RNG.normal(3, 2, (50, 4)), RNG.normal(0, 9, (20, 4))
    gallery[:, 1] = queries[:, 1] = 0.1
    ours, theirs = standardised(gallery, queries)
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(ours.std(axis=0), [1, 0, 1, 1])
    np.testing.assert_allclose(theirs[:, 0], (queries[:, 0] - gallery[:, 0].mean()) / gallery[:, 0].std())
    np.testing.assert_array_equal(theirs[:, 1], 0)


def test_the_effective_rank_counts_directions():
    assert effective_rank(np.ones((9, 4))) == 0
    assert effective_rank(np.outer(RNG.normal(size=9), [1.0, 2.0, 3.0]) + 5) == pytest.approx(1)
    corners = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(corners) == pytest.approx(4)
    # singular values in shares 3/4 and 1/4: exp of their entropy
    skewed = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(skewed) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_the_spread_is_one_for_all_directions_and_zero_for_one():
    assert spread(RNG.normal(size=(20_000, 7))) == pytest.approx(1, abs=0.02)
    assert spread(np.outer(RNG.uniform(1, 9, 50), [1.0, 2.0, 3.0])) == pytest.approx(0, abs=1e-9)
