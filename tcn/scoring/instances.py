"""Accuracy at instance level, Acc@K: is the very photo from which a sketch was drawn among the nearest ones?

In: features, labels, and the photo from which each sketch was drawn. Out: `InstanceScores`: the share of sketches whose photo is
among the K nearest, both of their class's photos and of the whole gallery, as papers on fine-grained retrieval report it (such as
that of the Sketchy database, Sangkloy et al. 2016). Works on any device.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError
from tcn.scoring.inputs import check_choice, check_cutoffs, checked_labels, comparable, one_spelling
from tcn.scoring.rankings import Gallery, block_size
from tcn.scoring.scores import DUPLICATES, first_of_each

SCOPES = {"instance-in-class": "photos of the sketch's class", "instance": "whole gallery"}
"""Name of a ranking (in rows it takes the place of the protocol's name) -> the photos that are ranked."""
INSTANCE_KS = (1, 5, 10)


@dataclass(frozen=True)
class InstanceScores:
    """Acc@K of the queries whose photo is in the gallery, per query and as their mean."""

    ks: tuple[int, ...]
    duplicates: str
    photos: int  #: gallery size N (after `duplicates`)
    counted: np.ndarray  #: bool [queries], whether the query's photo is in the gallery
    _values: Mapping[str, np.ndarray] = field(repr=False)
    _chance: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def queries(self) -> int:
        """Number of queries that are counted."""
        return int(self.counted.sum())

    @property
    def left_out(self) -> int:
        """Number of queries whose photo is not in the gallery, or that name no photo; no mean includes them."""
        return len(self.counted) - self.queries

    def per_query(self, scope: str, k: int) -> np.ndarray:
        """Probability that the photo is among the first k, float64 [queries]: 0 or 1 without ties; NaN where left out."""
        values = np.full(len(self.counted), np.nan)
        values[self.counted] = self._values[scope][:, self.ks.index(k)]
        return values

    def value(self, scope: str, k: int) -> float:
        """Acc@k, the mean over the counted queries."""
        return float(self._values[scope][:, self.ks.index(k)].mean())

    def chance(self, scope: str, k: int) -> float:
        """Acc@k expected of photos in random order, exactly."""
        return float(self._chance[scope][:, self.ks.index(k)].mean())

    def summary(self) -> dict[str, dict[str, float]]:
        """`{"instance-in-class": {"Acc@1": .., ...}, "instance": {...}}`."""
        return {scope: {f"Acc@{k}": self.value(scope, k) for k in self.ks} for scope in SCOPES}

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows like those of `tcn.scoring.scores.Scores.rows`, with the scope in place of the protocol."""
        return [{"protocol": scope, "metric": f"Acc@{k}", "value": self.value(scope, k), "standard_error": 0.0,
                 "chance": self.chance(scope, k), "ceiling": 1.0, "queries": self.queries, "photos": self.photos}
                for scope in SCOPES for k in self.ks]


def instance_accuracy(
    query: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    query_instance: Any,
    gallery_instance: Any,
    metric: str = "euclidean",
    ks: Sequence[int] = INSTANCE_KS,
    *,
    gallery_group: Any = None,
    duplicates: str = "as-published",
    spellings: str = "error",
    block: int | None = None,
    device: str | torch.device | None = None,
) -> InstanceScores:
    """Acc@K at instance level, within the class and over the whole gallery.

    query_instance [Nq], gallery_instance [Ng]: integers or strings; a sketch was drawn from the photos of its own value, of
    which the gallery may hold several copies: the nearest one counts. An empty string names no photo. Queries without their
    photo in the gallery are left out (`InstanceScores.left_out`). Photos at equal distance stand in random order, and a value is
    the probability over these orders, in closed form. All else as in `tcn.scoring.scores.score`.

    Raises `InputError` as that does; where no query's photo is in the gallery, since nothing is defined then; and where the
    photos of a query's instance are all of another class than the query.

    >>> import numpy as np
    >>> gallery = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])  # nearest: a dog, then cat b, then cat a
    >>> found = instance_accuracy(gallery[2:], gallery, ["cat"], ["cat", "cat", "dog"], ["b"], ["a", "b", "c"], ks=(1, 2))
    >>> found.value("instance-in-class", 1), found.value("instance", 1), found.value("instance", 2)
    (1.0, 0.0, 1.0)
    """
    check_choice("duplicates", duplicates, DUPLICATES)
    ks = check_cutoffs(ks)
    queries, photos = comparable(query, gallery, metric, device)
    query_names, photo_names = one_spelling(checked_labels("query_labels", query_labels, len(queries), "query"),
                                            checked_labels("gallery_labels", gallery_labels, len(photos), "gallery"), spellings)
    drawn_from = checked_labels("query_instance", query_instance, len(queries), "query")
    shown = checked_labels("gallery_instance", gallery_instance, len(photos), "gallery")
    if drawn_from.dtype.kind != shown.dtype.kind:
        raise InputError("query_instance and gallery_instance must be of one kind: both integers, or both strings")
    if duplicates == "distinct":
        if gallery_group is None:
            raise InputError("duplicates='distinct' needs gallery_group, to say which photos are the same")
        kept = first_of_each(checked_labels("gallery_group", gallery_group, len(photos), "gallery"), photo_names)
        photos, photo_names, shown = photos[torch.from_numpy(kept).to(photos.device)], photo_names[kept], shown[kept]

    known = drawn_from != "" if drawn_from.dtype.kind == "U" else np.ones(len(drawn_from), bool)
    counted = known & np.isin(drawn_from, shown)
    if not counted.any():
        raise InputError(f"query_instance: the photo of none of the {len(queries)} queries is in gallery_instance; nothing is "
                         f"defined; check both arrays")
    wanted, own = _numbered(drawn_from[counted], shown)
    class_of, classes = _numbered(query_names[counted], photo_names)
    pairs = classes.max() + class_of.max() + 1
    elsewhere = ~np.isin(wanted * pairs + class_of, own * pairs + classes)
    if elsewhere.any():
        row = int(np.flatnonzero(counted)[elsewhere][0])
        raise InputError(f"query_instance row {row}: every photo of {drawn_from[row]} is of another class than the query, which "
                         f"is of {query_names[row]}; correct gallery_labels, or make instances differ between classes")

    # photos of one class side by side, so that those of a query's class are a slice
    order = np.argsort(classes, kind="stable")
    photos, own, classes = photos[torch.from_numpy(order).to(photos.device)], own[order], classes[order]
    table = Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    by_instance = np.argsort(own, kind="stable")
    first, end = (np.searchsorted(own[by_instance], wanted, side) for side in ("left", "right"))
    rows, size = np.flatnonzero(counted), block_size(block, len(photos))
    values, chance = ({scope: np.empty((len(rows), len(ks))) for scope in SCOPES} for _ in range(2))
    for label in np.unique(class_of):
        of_class = np.flatnonzero(class_of == label)
        slices = (tuple(np.searchsorted(classes, label, side) for side in ("left", "right")), (0, len(photos)))
        for begin in range(0, len(of_class), size):
            part = of_class[begin:begin + size]
            distances = table.distances(queries[torch.from_numpy(rows[part]).to(photos.device)])
            at = first[part, None] + np.arange((end - first)[part].max())
            copies = torch.from_numpy(by_instance[np.minimum(at, len(photos) - 1)]).to(photos.device)
            there = torch.from_numpy(at < end[part, None]).to(photos.device)
            for scope, (low, high) in zip(SCOPES, slices):
                found = _counts(distances, copies, there, int(low), int(high))
                values[scope][part] = _within(ks, *found[:3])
                chance[scope][part] = _within(ks, np.zeros(len(part), np.int64), np.full(len(part), high - low), found[3])
    return InstanceScores(ks, duplicates, len(photos), counted, values, chance)


def _counts(distances: Tensor, copies: Tensor, there: Tensor, low: int, high: int) -> tuple[np.ndarray, ...]:
    """Counts, int64 [B] each, over the photos in columns low to high: photos nearer than the nearest copy of a query's photo,
    photos as far as it, copies among these, and all copies.

    distances: [B, N]. copies: int64 [B, M], columns of the copies; there: bool [B, M], which of these entries are copies.
    """
    here = there & (low <= copies) & (copies < high)
    far = distances.gather(1, copies).masked_fill(~here, torch.inf)
    nearest, ranked = far.amin(1, keepdim=True), distances[:, low:high]
    before, reached = (ranked < nearest).sum(1), (ranked <= nearest).sum(1)
    return tuple(count.cpu().numpy() for count in (before, reached - before, (far == nearest).sum(1), here.sum(1)))


def _numbered(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays with a number from 0, int64, for each different value."""
    numbers = np.unique(np.concatenate([first, second]), return_inverse=True)[1]
    return numbers[:len(first)], numbers[len(first):]


def _within(ks: Sequence[int], before: np.ndarray, level: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Probability that one of `copies` photos is among the first k, float64 [B, len(ks)].

    before, level, copies: int64 [B]. The copies are among `level` photos in random order, which come after `before` others. The
    first r of those hold no copy with probability (n-r)/n * (n-r-1)/(n-1) * ..., a factor for each copy.
    """
    found = np.empty((len(before), len(ks)))
    for column, k in enumerate(ks):
        reach = np.clip(k - before, 0, level)
        missed = np.ones(len(before))
        for copy in range(int(copies.max())):
            factor = np.clip(level - reach - copy, 0, None) / np.maximum(level - copy, 1)
            missed *= np.where(copy < copies, factor, 1.0)
        found[:, column] = 1 - missed
    return found
