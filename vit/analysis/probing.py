"""How much frozen features say of classes, and whether they have collapsed."""

import warnings
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int

from vit.analysis import shares

TEMPERATURE = 0.07
"""Of the votes of neighbours, as published."""


def standardised(
    gallery: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both, in float64, less the gallery's mean over its standard deviation; channels that never vary are zero."""
    gallery, queries = gallery.astype(np.float64), queries.astype(np.float64)
    mean, deviation = gallery.mean(axis=0), gallery.std(axis=0)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12)
    return (gallery - mean) * scale, (queries - mean) * scale


def nearest_neighbours(
    gallery: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    queries: Float[np.ndarray, "m d"],
    neighbours: int = 20,
) -> Int[np.ndarray, " m"]:
    """Classes by votes of the ``neighbours`` (or all there are) of largest cosine, each exp(cosine / 0.07).

    Wu et al. 2018; Caron et al. 2021 (DINO), appendix F.
    """
    from sklearn.neighbors import KNeighborsClassifier

    votes = KNeighborsClassifier(
        min(neighbours, len(gallery)),
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp(-distance / TEMPERATURE),  # pyright: ignore[reportArgumentType]
    )
    return cast(np.ndarray, votes.fit(gallery, labels).predict(queries))


def linear_probe(
    gallery: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    queries: Float[np.ndarray, "m d"],
    decay: float = 1e-3,
) -> Int[np.ndarray, " m"]:
    """Classes by logistic regression: mean cross-entropy of the gallery + decay / 2 |w|^2, minimised."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # by then the answers do not change any more
        regression = LogisticRegression(C=1 / (decay * len(gallery)), max_iter=300)
        return regression.fit(gallery, labels).predict(queries)


def effective_rank(features: Float[np.ndarray, "n d"]) -> float:
    """`shares.effective_rank` of centred features.

    From 1, all on one line, to the number of channels, all directions alike; 0 for features that are all the same.
    Small while training means collapse (Garrido et al. 2023, RankMe).
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    return shares.effective_rank(torch.from_numpy(centred)[None, None]).item() if centred.any() else 0.0


def spread(features: Float[np.ndarray, "n d"]) -> float:
    """Mean standard deviation of the channels of unit-length features, times sqrt(d).  Chen & He 2021 (SimSiam), 4.1.

    0 where all features point the same way, 1 where they point everywhere.
    """
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return float((features / np.maximum(lengths, 1e-12)).std(axis=0).mean() * np.sqrt(features.shape[1]))
