"""Scoring in the style of the released evaluation: one query after another, one ranked photo after another.

In: features or codes with labels. Out: AP and Prec of each query and their means over classes, by the protocol `released`
alone. The style: the distances of a block of queries are one matrix, each query has one `argsort`, and the interpolated
precision takes one `np.maximum` for each ranked photo, from the last to the first.
"""
from __future__ import annotations

import numpy as np

#: Number of queries whose distances are held at once.
BLOCK = 64


def distances_of(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """float64 [B, N]: Hamming distances of codes (bool), else squared distances of unit vectors."""
    if queries.dtype == bool:
        signs = [np.where(side, 1.0, -1.0) for side in (queries, gallery)]
        return (queries.shape[1] - signs[0] @ signs[1].T) / 2
    units = [side / np.linalg.norm(side.astype(np.float64), axis=1, keepdims=True) for side in (queries, gallery)]
    return 2 - 2 * (units[0] @ units[1].T)


def interpolated_precision(right: np.ndarray) -> float:
    """Average precision of one ranking, bool [N], from the envelope of its precision over its recall."""
    found = np.cumsum(right)
    if found[-1] == 0:
        return 0.0
    precision = np.concatenate([[0.0], found / np.arange(1, len(right) + 1), [0.0]])
    recall = np.concatenate([[0.0], found / found[-1], [1.0]])
    for rank in range(len(precision) - 1, 0, -1):
        precision[rank - 1] = np.maximum(precision[rank - 1], precision[rank])
    steps = np.nonzero(recall[1:] != recall[:-1])[0]
    return float(np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1]))


def precision_within(right: np.ndarray, k: int) -> float:
    """Share of right photos among the first k, counted one by one."""
    hits = 0
    for rank in range(min(k, len(right))):
        if right[rank]:
            hits += 1
    return hits / k


def each_query(
    queries: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, k: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """AP over the whole ranking and Prec@k of each query, float64 [Nq]; equal distances stay in gallery order."""
    average, within = [], []
    for begin in range(0, len(queries), BLOCK):
        distances = distances_of(queries[begin:begin + BLOCK], gallery)
        for row, label in zip(distances, query_labels[begin:begin + BLOCK]):
            right = gallery_labels[np.argsort(row, kind="stable")] == label
            average.append(interpolated_precision(right))
            within.append(precision_within(right, k))
    return np.array(average), np.array(within)


def mean_over_classes(values: np.ndarray, labels: np.ndarray) -> float:
    """The mean over classes of the mean of each class's values."""
    return float(np.mean([np.mean(values[labels == name]) for name in np.unique(labels)]))
