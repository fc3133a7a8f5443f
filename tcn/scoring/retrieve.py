"""The ranking itself: the nearest photos of each query, and precision against recall.

In: features and labels, as `tcn.scoring.scores` takes them. Out: indices of photos, or the interpolated curve of the PASCAL
VOC challenge. Equal distances stay in gallery order. Works on any device.
"""
from __future__ import annotations

from collections.abc import Mapping
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
    stay in gallery order. Features, labels and errors as in `score`; InputError if no query's class has a photo.

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
    photos_of = {label: torch.from_numpy(np.flatnonzero(there == label)).to(photos.device) for label in np.unique(there)}
    total, counted = np.zeros(len(RECALLS)), 0
    for begin in range(0, len(queries), size):
        curves = _curves(table.keys(table.distances(queries[begin:begin + size])), wanted[begin:begin + size], photos_of)
        # Added one after the other, so that the sum does not depend on the size of a block.
        total = np.cumsum(np.concatenate([total[None], curves]), axis=0)[-1]
        counted += len(curves)
    if not counted:
        raise InputError("no query's class has a photo in the gallery; check query_labels and gallery_labels")
    return np.asarray(total / counted)


def _curves(keys: torch.Tensor, wanted: np.ndarray, photos_of: Mapping[Any, torch.Tensor]) -> np.ndarray:
    """Interpolated precision of each query whose class has photos, float64 [Q, 101]. keys [B, N]: those of all photos;
    overwritten.

    The k-th relevant photo, at rank n, has precision k / n. Between two of them the precision only falls, so the maximum is
    reached at a relevant photo.
    """
    asked = [(np.flatnonzero(wanted == label), label) for label in np.unique(wanted) if label in photos_of]
    places = [torch.from_numpy(rows).to(keys.device) for rows, _ in asked]
    relevant = [keys[rows[:, None], photos_of[label]].sort(dim=1).values for rows, (_, label) in zip(places, asked)]
    ordered = sort_rows(keys)
    curves = torch.full((len(wanted), len(RECALLS)), torch.nan, dtype=torch.float64, device=keys.device)
    for rows, own in zip(places, relevant):
        number = own.shape[1]
        ranks = torch.searchsorted(ordered[rows], own).add_(1)
        precision = torch.arange(1, number + 1, device=keys.device) / ranks.double()
        best = precision.flip(1).cummax(dim=1).values.flip(1)
        # The first rank that reaches a recall of r has ceil(r * R) hits; rounding guards against products such as 0.07 * 100.
        needed = np.maximum(1, np.ceil(np.round(RECALLS * number, 9))).astype(np.int64)
        curves[rows] = best[:, torch.from_numpy(needed - 1).to(keys.device)]
    with_photos = np.sort(np.concatenate([rows for rows, _ in asked])) if asked else np.zeros(0, np.int64)
    found: np.ndarray = curves.cpu().numpy()[with_photos]
    return found
