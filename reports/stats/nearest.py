"""The photos nearest to each query, from the features that a run kept.

In: features of queries and photos. Out: positions in the gallery, as `tcn.scoring.retrieve.rank` gives them for Euclidean
distances of unit vectors.
"""
from __future__ import annotations

import numpy as np

BLOCK = 1 << 22
"""Distances that are worked out at a time."""
DIGITS = 6
"""Likenesses that agree to so many digits are equal: sums in another order differ in the seventh."""


def nearest(query: np.ndarray, gallery: np.ndarray, most: int) -> np.ndarray:
    """Positions of the `most` nearest photos of each query, int64 [Nq, min(most, Ng)], nearest first;
    equal ones in gallery order.

    query: [Nq, D], gallery: [Ng, D], both finite.

    >>> nearest(np.array([[3.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [2.0, 0.0]]), 3)
    array([[1, 3, 2]])
    """
    queries, photos = _unit(query), _unit(gallery)
    kept = min(most, len(photos))
    found = np.empty((len(queries), kept), np.int64)
    rows = max(1, BLOCK // len(photos))
    for start in range(0, len(queries), rows):
        likeness = np.round(queries[start:start + rows] @ photos.T, DIGITS)
        least = np.partition(likeness, len(photos) - kept, axis=1)[:, len(photos) - kept]
        for place, (row, bound) in enumerate(zip(likeness, least), start):
            within = np.flatnonzero(row >= bound)
            found[place] = within[np.argsort(-row[within], kind="stable")][:kept]
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray((values / np.maximum(lengths, 1e-12)).astype(np.float32))
