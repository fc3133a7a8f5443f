"""The ranking itself: the nearest photos of each query, and precision against recall.

In: features and labels, as `tcn.scoring.scores` takes them. Out: indices of photos, or the interpolated curve of the PASCAL
VOC challenge. Equal distances stay in gallery order. Works on any device.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tcn.config import InputError
from tcn.scoring.inputs import checked_labels, comparable, one_spelling
from tcn.scoring.rankings import Gallery, block_size, sort_rows


def rank(
    query: Any,
    gallery: Any,
    k: int,
    metric: str = "euclidean",
    *,
    block: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Indices of the k nearest photos of each query, int64 [Nq, min(k, Ng)]; ties in gallery order.

    Features and errors as in `score`.

    >>> import numpy as np
    >>> rank(np.eye(2)[:1], np.array([[0.0, 1.0], [1.0, 0.1], [2.0, 0.2], [1.0, 0.0]]), k=3)
    array([[3, 1, 2]])
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    queries, photos = comparable(query, gallery, metric, device)
    table = Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    size = block_size(block, len(photos))
    k = min(k, len(photos))
    found = []
    for begin in range(0, len(queries), size):
        keys = table.keys(table.distances(queries[begin:begin + size]))
        found.append((keys.topk(k, dim=1, largest=False, sorted=True).values % len(photos)).cpu().numpy())
    return np.concatenate(found)


RECALLS = np.linspace(0, 1, 101)
"""Levels of recall at which precision is read."""


def precision_recall(query: Any, gallery: Any, query_labels: Any, gallery_labels: Any, metric: str = "euclidean", *,
                     block: int | None = None, device: str | torch.device | None = None) -> np.ndarray:
    """Interpolated precision at `RECALLS`, float64 [101]: the mean over queries whose class has photos.

    At a level of recall it is the highest precision at that recall or a higher one, as in the PASCAL VOC challenge. Ties
    stand in gallery order. Features, labels and errors as in `score`; InputError where no query's class has a photo.

    >>> import numpy as np
    >>> curve = precision_recall(np.eye(2)[:1], np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), ["a"], ["a", "b", "a"])
    >>> curve[[0, 50, 51, 100]].round(3).tolist()
    [1.0, 1.0, 0.667, 0.667]
    """
    queries, photos = comparable(query, gallery, metric, device)
    wanted = checked_labels("query_labels", query_labels, len(queries), "query")
    there = checked_labels("gallery_labels", gallery_labels, len(photos), "gallery")
    wanted, there = one_spelling(wanted, there, "error")
    table = Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    size = block_size(block, len(photos))
    total, counted = np.zeros(len(RECALLS)), 0
    for begin in range(0, len(queries), size):
        keys = table.keys(table.distances(queries[begin:begin + size]))
        order = (sort_rows(keys) % len(photos)).cpu().numpy()
        hits = there[order] == wanted[begin:begin + size, None]
        relevant = hits.sum(1)
        hits, relevant = hits[relevant > 0], relevant[relevant > 0]
        found = hits.cumsum(1)
        precision = found / np.arange(1, len(photos) + 1)
        # from the end: the highest precision at this rank or a later one
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row, curve, number in zip(found, best, relevant):
            # the first rank that reaches a recall of r has ceil(r * R) hits; rounding guards products such as 0.07 * 100
            needed = np.maximum(1, np.ceil(np.round(RECALLS * number, 9)))
            total += curve[np.searchsorted(row, needed)]
        counted += len(hits)
    if not counted:
        raise InputError("no query's class has a photo in the gallery; check query_labels and gallery_labels")
    return total / counted
