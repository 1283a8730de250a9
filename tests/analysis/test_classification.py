"""Scores against counts by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from vit.analysis.classification import scores
from vit.analysis.statistics import wilson


def drawn(n: int = 211, k: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(k, n, p=np.arange(1, k + 1) / sum(range(1, k + 1)))
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    shares = np.exp(logits)
    return labels, shares / shares.sum(axis=1, keepdims=True)


def test_scores_of_many_classes():
    labels, probabilities = drawn()
    found, predicted = scores(labels, probabilities), probabilities.argmax(axis=1)
    right = int((labels == predicted).sum())
    assert found["acc"] == right / 211 and found["acc_95"] == wilson(right, 211) and found["n"] == 211
    assert found["acc_top5"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(7)))
    assert found["balanced_acc"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    for label, row in enumerate(found["classes"]):
        hits = int(((labels == label) & (predicted == label)).sum())
        assert row["n"] == (labels == label).sum() and row["recall_95"] == wilson(hits, row["n"])
        assert row["recall"] == pytest.approx(hits / row["n"])
        assert row["precision"] == pytest.approx(hits / (predicted == label).sum())
        assert row["f1"] == pytest.approx(2 * hits / (row["n"] + (predicted == label).sum()))


def test_a_constant_answer_scores_one_over_k():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    found = scores(labels, np.tile([0.6, 0.3, 0.1], (100, 1)))
    assert found["acc"] == 0.9 and found["balanced_acc"] == pytest.approx(1 / 3) and "acc_top5" not in found


def test_what_is_undefined_is_none_and_no_part_of_a_mean():
    found = scores(np.array([0, 0, 1]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]]))
    absent = found["classes"][2]
    assert absent == {"n": 0, "precision": None, "recall": None, "f1": None, "recall_95": None}
    assert found["balanced_acc"] == pytest.approx((0.5 + 1) / 2)


def test_no_sample_and_other_numbers_are_refused():
    for labels, n in ((np.zeros(0, int), 0), (np.zeros(3, int), 2)):
        with pytest.raises(ValueError, match="a label for each of at least one sample"):
            scores(labels, np.full((n, 2), 0.5))
