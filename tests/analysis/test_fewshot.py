import numpy as np
import pytest

from vit.analysis.fewshot import METHODS, drawn, probed, ridge
from vit.analysis.statistics import mean_interval, wilson

LABELS = np.repeat([0, 1, 2], [13, 7, 11])


def clouds(count: int, seed: int, distance: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in five channels, apart in two of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = distance * np.eye(3, 5)
    return (centres[labels] + rng.standard_normal((count, 5))).astype(np.float32), labels


def test_fewer_shots_lie_inside_more_of_the_same_draw() -> None:
    sets = [set(drawn(LABELS, shots, seed=4, draw=2).tolist()) for shots in (1, 3, 7)]
    assert sets[0] < sets[1] < sets[2]
    for chosen, shots in zip(sets, (1, 3, 7), strict=True):
        assert np.bincount(LABELS[sorted(chosen)]).tolist() == [shots] * 3


def test_a_draw_is_decided_by_seed_and_number_alone() -> None:
    first = drawn(LABELS, 3, seed=4, draw=2).tolist()
    np.random.seed(5)
    assert drawn(LABELS, 3, seed=4, draw=2).tolist() == first
    assert drawn(LABELS, 3, seed=4, draw=3).tolist() != first
    assert drawn(LABELS, 3, seed=5, draw=2).tolist() != first


def test_a_class_with_too_few_is_told() -> None:
    with pytest.raises(ValueError, match="8 shots of each class: expected as many of class 1, got 7"):
        drawn(LABELS, 8, seed=0, draw=0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_apart_is_told_apart_and_noise_is_not(method: str) -> None:
    rows = {row.shots: row for row in probed(clouds(90, 1), clouds(60, 2), [5], 4, 0) if row.method == method}
    assert rows[5].interval.value > 0.9 and rows[None].interval.value > 0.95
    noise = {r.shots: r for r in probed(clouds(90, 1, 0.0), clouds(300, 2, 0.0), [5], 4, 0) if r.method == method}
    assert noise[None].interval.value < 0.5 and noise[5].interval.value < 0.5


def test_intervals_are_of_draws_and_of_pictures() -> None:
    rows = probed(clouds(90, 1, 2.0), clouds(60, 2, 2.0), [2, 1], 5, 0)
    assert [(row.method, row.shots) for row in rows] == [(m, s) for m in METHODS for s in (2, 1, None)]
    few, *_, everything = rows
    assert len(few.values) == 5 and len(set(few.values)) > 1
    assert few.interval == mean_interval(few.values)
    accuracy = everything.values[0]
    assert everything.interval[1:] == wilson(round(60 * accuracy), 60)


def test_ridge_looks_at_the_gallery_alone() -> None:
    gallery, labels = clouds(30, 1)
    queries, _ = clouds(12, 2)
    assert ridge(gallery, labels, queries).tolist() == [int(ridge(gallery, labels, q[None])[0]) for q in queries]


def test_what_gives_no_interval_or_no_question_is_told() -> None:
    with pytest.raises(ValueError, match="an interval takes at least 2 draws, got 1"):
        probed(clouds(9, 1), clouds(9, 2), [1], 1, 0)
    one = (clouds(9, 1)[0], np.zeros(9, dtype=int))
    with pytest.raises(ValueError, match="a probe tells classes apart: expected at least 2"):
        probed(one, one, [1], 2, 0)
