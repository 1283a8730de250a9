"""What a classifier gets right and wrong, from its probabilities: the numbers of a test."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vit.analysis.statistics import wilson

TOP = 5


def scores(labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n k"]) -> dict[str, Any]:
    """Accuracy, top-5 and balanced accuracy in 0..1; precision, recall and F1 of each class.

    Accuracies and recalls carry Wilson intervals (95 %) as ``*_95``. Balanced accuracy is the mean recall of the
    classes that are there, 1 / k for a constant answer. Top-5 is left out below 6 classes. What is undefined is None:
    the recall of a class without pictures, the precision of one that is never answered.

    Raises:
        ValueError: no samples, or numbers of samples that differ.
    """
    n, k = probabilities.shape
    if not n or labels.shape != (n,):
        raise ValueError(f"expected a label for each of at least one sample, got {labels.shape} and {(n, k)}")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    predicted = order[:, 0]
    right = int((predicted == labels).sum())
    found: dict[str, Any] = {"acc": right / n, "acc_95": wilson(right, n), "n": n}
    if k > TOP:
        among = int((order[:, :TOP] == labels[:, None]).any(axis=1).sum())
        found |= {f"acc_top{TOP}": among / n, f"acc_top{TOP}_95": wilson(among, n)}
    found["classes"] = _classes(labels, predicted, k)
    found["balanced_acc"] = float(np.mean([row["recall"] for row in found["classes"] if row["n"]]))
    return found


def _classes(labels: np.ndarray, predicted: np.ndarray, k: int) -> list[dict[str, Any]]:
    rows = []
    for label in range(k):
        of_class, answered = labels == label, predicted == label
        n, hits, answers = int(of_class.sum()), int((of_class & answered).sum()), int(answered.sum())
        row = {"precision": _share(hits, answers), "recall": _share(hits, n), "f1": _share(2 * hits, n + answers)}
        rows.append({"n": n, **row, "recall_95": wilson(hits, n) if n else None})
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
