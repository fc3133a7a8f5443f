"""The photos nearest to each query, from the features that a run kept.

In: features of queries and photos. Out: positions in the gallery, as `tcn.scoring.retrieve.rank` gives them for Euclidean
distances of unit vectors.
"""
from __future__ import annotations

import numpy as np

BLOCK = 1 << 22
"""Distances that are worked out at a time."""
SPARE = 16
"""Candidates beyond those asked for that are compared exactly."""
SLACK = 1e-5
"""Beyond the error of a product in float32, as a share of the two lengths."""


def nearest(query: np.ndarray, gallery: np.ndarray, most: int) -> np.ndarray:
    """Positions of the `most` nearest photos of each query, int64 [Nq, min(most, Ng)], nearest first;
    equal ones in gallery order.

    query: [Nq, D], gallery: [Ng, D], both finite. Candidates are found in float32 and compared in float64, both seen from the
    photos' mean, so that features that lie close together keep their order.

    >>> nearest(np.array([[3.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [2.0, 0.0]]), 3)
    array([[1, 3, 2]])
    """
    photos = _unit(gallery)
    centre = photos.mean(axis=0)
    photos -= centre
    half = np.einsum("ij,ij->i", photos, photos) / 2
    spread = max(float(np.sqrt(2 * half.max())), 2.0 ** -24)
    steps = 2.0 ** 40 / min(spread, 1)
    rough_photos, rough_half = (photos / spread).astype(np.float32).T, (half / spread ** 2).astype(np.float32)
    kept = min(most, len(photos))
    taken = min(kept + SPARE, len(photos))
    found = np.empty((len(query), kept), np.int64)
    rows = max(1, BLOCK // len(photos))
    for start in range(0, len(query), rows):
        queries = _unit(query[start:start + rows]) - centre
        rough = rough_half - (queries / spread).astype(np.float32) @ rough_photos  # half the squared distance, up to a constant
        slack = SLACK * (1 + np.sqrt(np.einsum("ij,ij->i", queries, queries)) / spread)
        near = np.argpartition(rough, taken - 1, axis=1)[:, :taken]
        for place, (own, row, candidates) in enumerate(zip(queries, rough, near), start):
            values = row[candidates]
            bound = np.partition(values, kept - 1)[kept - 1] + slack[place - start]
            # Where even the last candidate is as near as that, further photos may be as well.
            candidates = np.flatnonzero(row <= bound) if bound >= values.max() else np.sort(candidates)
            exact = np.round((half[candidates] - photos[candidates] @ own) * steps)
            found[place] = candidates[np.argsort(exact, kind="stable")][:kept]
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    values = features.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
    return np.asarray(values / np.maximum(lengths, 1e-12)[:, None])
