"""From features to numbers: one ranking per query, read by every protocol that calls itself mAP or Prec.

In: query and gallery features (or binary codes) with their labels. Out: `Scores`: values per query, and
their averages under each named protocol, each with its chance level and its ceiling (paper, section 4).

Only the ranks of the relevant photos matter. On a CPU they come from sorted whole numbers (`tcn.scoring.cpu`). Elsewhere,
and where real-valued distances tie, they come from sorted distances (`tcn.scoring.rankings`, `tcn.scoring.measures`), which tell
how many photos lie nearer than a relevant one and how many lie equally far. Ties are thus known exactly, and the value over
random tie orders follows, exactly or from sampled ranks.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError
from tcn.files.text import some
from tcn.scoring.cpu.one_pass import rank_all
from tcn.scoring.inputs import (
    check_choice,
    check_cutoffs,
    check_protocols,
    checked_labels,
    comparable,
    identical_rows,
    one_spelling,
)
from tcn.scoring.measures import Asked, expected, from_ranks, harmonic_numbers, score_block
from tcn.scoring.protocols import ALL, PROTOCOLS, R_PRECISION, Measure
from tcn.scoring.rankings import Gallery, TieGroups, block_size, random_ranks

TIES = ("expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort", "as-released")
"""The ways to order equal distances; see `score`."""
MISSING_CLASSES = ("error", "zero", "as-released")
DUPLICATES = ("as-published", "distinct")
CHANCE_DRAWS = 1000
"""Number of random rankings for chance levels that have no closed form."""


@lru_cache(maxsize=1024)
def _chance(measures: frozenset[Measure], relevant: int, photos: int) -> dict[Measure, float]:
    """The expected value of each measure for a query whose gallery is in random order.

    Such a gallery is one whose photos all lie equally far, so the closed forms for ties apply. The other measures
    take the mean over `CHANCE_DRAWS` seeded random rankings.
    """
    if relevant == 0:
        return dict.fromkeys(measures, 0.0)
    table = torch.zeros((CHANCE_DRAWS, relevant), dtype=torch.int64)
    groups = TieGroups(table, table + photos, table, table + relevant)
    number = torch.full((CHANCE_DRAWS,), relevant)
    one, harmonic = groups.rows(torch.arange(1)), harmonic_numbers(photos, table.device)
    found = {measure: float(expected(measure, one, number[:1], harmonic)[0])
             for measure in measures if measure.closed_form}
    if len(found) < len(measures):
        ranks = random_ranks(groups, torch.arange(CHANCE_DRAWS), seed=relevant * 1_000_003 + photos)
        found |= {measure: float(from_ranks(measure, ranks, number).mean())
                  for measure in measures if not measure.closed_form}
    return found


# ----------------------------------------------------------------------------------------------------- result
@dataclass(frozen=True)
class Scores:
    """The values of one set of rankings under every protocol asked for, per query and averaged."""

    protocols: tuple[str, ...]
    metric: str
    ties: str
    missing_classes: str
    duplicates: str
    ks: tuple[int, ...]
    queries: int  #: number of queries scored
    photos: int  #: gallery size N (after `duplicates`)
    classes: np.ndarray  #: the query classes, sorted, as given
    query_class: np.ndarray  #: int64 [queries], index into `classes`
    relevant: np.ndarray  #: int64 [queries], R
    identical: int | None  #: gallery rows equal to an earlier one in every bit; None where `gallery_group` tells copies
    _values: dict[Measure, np.ndarray] = field(repr=False)
    _draws: dict[Measure, np.ndarray] = field(repr=False)

    def metrics(self, protocol: str) -> tuple[str, ...]:
        """The names of the metrics that a protocol has a value for."""
        return tuple(self._named(protocol))

    def _named(self, protocol: str) -> dict[str, Measure]:
        if protocol not in self.protocols:
            raise InputError(f"protocol {protocol!r} was not scored; scored were {', '.join(self.protocols)}")
        return PROTOCOLS[protocol].all_measures(self.ks, self.ties)

    def _measure(self, protocol: str, metric: str) -> Measure:
        named = self._named(protocol)
        if metric not in named:
            raise InputError(f"protocol {protocol!r} has no metric {metric!r}; it has {', '.join(named)}")
        return named[metric]

    def per_query(self, protocol: str, metric: str) -> np.ndarray:
        """Values of one metric, float64 [queries], in the order in which the queries were given."""
        return self._values[self._measure(protocol, metric)]

    @property
    def ap(self) -> dict[str, np.ndarray]:
        """Average precision over the whole ranking, float64 [queries], by protocol (cvpr19 defines none)."""
        return {name: self.per_query(name, "mAP@all") for name in self.protocols if PROTOCOLS[name].at_all}

    @property
    def prec(self) -> dict[str, dict[int, np.ndarray]]:
        """Precision at each cut-off, float64 [queries], by protocol and K."""
        return {name: {k: self.per_query(name, f"Prec@{k}") for k in self.ks} for name in self.protocols}

    @property
    def r_precision(self) -> np.ndarray:
        """Share of relevant photos among the first R, float64 [queries]."""
        return self._values[R_PRECISION]

    def value(self, protocol: str, metric: str) -> float:
        """The averaged metric, e.g. `value("released", "mAP@all")`."""
        return self._average(protocol, metric, self.per_query(protocol, metric))

    def error(self, protocol: str, metric: str) -> float:
        """Standard error of `value` from sampling tie orders; 0 where the value is exact."""
        draws = self._draws.get(self._measure(protocol, metric))
        if draws is None or draws.shape[1] < 2:
            return 0.0
        each = np.array([self._average(protocol, metric, draw) for draw in draws.T])
        return float(each.std(ddof=1) / math.sqrt(len(each)))

    def chance(self, protocol: str, metric: str) -> float:
        """Expected value of the metric if every gallery were in random order, averaged as the protocol does.

        Exact for Prec and for raw AP with a fixed divisor; else the mean of `CHANCE_DRAWS` seeded random
        rankings for each (R, N).
        """
        measure = self._measure(protocol, metric)
        distinct, index = np.unique(self.relevant, return_inverse=True)
        measures = frozenset(self._values)
        table = np.array([_chance(measures, int(number), self.photos)[measure] for number in distinct])
        return self._average(protocol, metric, table[index])

    def ceiling(self, protocol: str, metric: str) -> float:
        """The best value that any ranking could reach, averaged as the protocol does."""
        measure = self._measure(protocol, metric)
        return self._average(protocol, metric, measure.ceiling(self.relevant, self.photos))

    def _average(self, protocol: str, metric: str, values: np.ndarray) -> float:
        counted = np.ones(len(values), dtype=bool)
        if self.missing_classes == "as-released" and metric.startswith("mAP"):
            counted = self.relevant > 0
        return PROTOCOLS[protocol].average.of(values[counted], self.query_class[counted], len(self.classes))

    def per_class(self, protocol: str, metric: str) -> dict[Any, float]:
        """Mean of the metric over the queries of each class. A class that `as-released` leaves out of mAP has no entry."""
        values = self.per_query(protocol, metric)
        total = np.bincount(self.query_class, weights=values, minlength=len(self.classes))
        number = np.bincount(self.query_class, minlength=len(self.classes))
        photos = np.bincount(self.query_class, weights=self.relevant, minlength=len(self.classes))
        left_out = (photos == 0) & (self.missing_classes == "as-released" and metric.startswith("mAP"))
        return {name.item(): float(mean) for name, mean, out in zip(self.classes, total / number, left_out) if not out}

    def summary(self) -> dict[str, dict[str, float]]:
        """The same numbers as `evaluate` returns."""
        return {name: {metric: self.value(name, metric) for metric in PROTOCOLS[name].measures(self.ks, self.ties)}
                for name in self.protocols}

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows with protocol, metric, value, standard_error, chance, ceiling, queries and photos."""
        return [
            {"protocol": name, "metric": metric, "value": self.value(name, metric),
             "standard_error": self.error(name, metric), "chance": self.chance(name, metric),
             "ceiling": self.ceiling(name, metric), "queries": self.queries, "photos": self.photos}
            for name in self.protocols for metric in self.metrics(name)
        ]


# ----------------------------------------------------------------------------------------------- public calls
def evaluate(
    query: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    protocols: Sequence[str] = ALL,
    metric: str = "euclidean",
    ks: Sequence[int] = (100, 200),
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Score rankings by every named protocol: `{protocol: {"mAP@all": .., "mAP@100": .., "Prec@100": ..}}`.

    query [Nq, D], gallery [Ng, D]: NumPy arrays or tensors, floating point for "euclidean" (on L2-normalised
    features; the default) and "cosine", 0-1 codes (bool or uint8) for "hamming". query_labels [Nq],
    gallery_labels [Ng]: integers or strings. "cvpr19" defines no mAP@all. `options` are those of `score`,
    which also returns per-query values, chance levels and ceilings. Raises `InputError`.

    Five photos ranked by hand. The query points along the first axis; the photos stand at 10, 20, 30, 40 and
    50 degrees from it, so that is their order. The second and the third are cats: R = 2, and the precisions
    at the hits are 1/2 and 2/3. Raw AP is their mean, 7/12; the interpolated AP lifts the first to 2/3. There
    is one hit within the first two: its precision divided by min(2, R) = 2 is 1/4, by the one hit 1/2.

    >>> import numpy as np
    >>> angles = np.deg2rad([10, 20, 30, 40, 50])
    >>> gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> labels = np.array(["dog", "cat", "cat", "dog", "dog"])
    >>> result = evaluate(np.array([[3.0, 0.0]]), gallery, np.array(["cat"]), labels, ks=(2,))
    >>> for name in ("released", "cvpr19", "cvae", "standard"):
    ...     print(name, {metric: round(value, 3) for metric, value in result[name].items()})
    released {'mAP@all': 0.667, 'mAP@2': 0.25, 'Prec@2': 0.5}
    cvpr19 {'mAP@2': 0.5, 'Prec@2': 1.0}
    cvae {'mAP@all': 0.583, 'mAP@2': 0.25, 'Prec@2': 0.5}
    standard {'mAP@all': 0.583, 'mAP@2': 0.25, 'Prec@2': 0.5}

    (cvpr19's "Prec@2" is the relevance of the third photo alone.)
    """
    return score(query, gallery, query_labels, gallery_labels, protocols, metric, ks, **options).summary()


def score(
    query: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    protocols: Sequence[str] = ALL,
    metric: str = "euclidean",
    ks: Sequence[int] = (100, 200),
    *,
    missing_classes: str = "error",
    ties: str = "expected",
    tie_draws: int = 32,
    seed: int = 0,
    gallery_group: Any = None,
    duplicates: str = "as-published",
    spellings: str = "error",
    block: int | None = None,
    device: str | torch.device | None = None,
) -> Scores:
    """Like `evaluate`, but returns everything behind the numbers.

    missing_classes: how a class with queries but no photos is treated. "error" raises; "zero" scores its queries
        0; "as-released" leaves it out of mAP and counts it as 0 in Prec, as the released code does. If no class
        has a photo, nothing is defined, which is always an error.
    ties: how photos at equal distance are ordered. "expected": the mean over random orders, in closed form
        for Prec and for raw AP with a fixed divisor, elsewhere the mean of `tie_draws` orders drawn with
        `seed` (its standard error: `Scores.error`). "best", "worst": the largest and the smallest value that
        any order gives. "gallery-order": as they stand in the gallery. "scikit-learn": in AP, all photos at
        one distance share the precision at the last of them (the top K being cut in gallery order); Prec is
        then in gallery order. "unstable-sort": as in the released code, the order of NumPy's default sort
        of the distances (always on the CPU); it depends on the processor and NumPy's version, so its
        numbers can't be reproduced elsewhere. "as-released": each protocol as its own code has it
        (`Protocol.ap_ties`): the unstable sort, and for cvpr19 and sem-pcyc, which call scikit-learn, shared
        precisions in AP (the top K being cut by the unstable sort). Real-valued features tie if their cosines differ by less
        than about 1e-12 times the features' spread, so copies of a photo always tie, whatever the rounding.
    gallery_group [Ng]: integers or strings; equal values mark one photo that is listed several times.
    duplicates: "as-published" keeps all entries, "distinct" the first of each group, or of each class in it
        where its entries have several classes: a photo listed under two classes is relevant to both.
    spellings: names that differ only in case, blanks, hyphens and underscores, leading zeros or Unicode form. "error"
        names them; "merge" takes them as one class; "as-given" as different classes.
    block: queries handled at once, chosen to bound memory if None; results differ by the order of sums only.
    device: that of `query` if None, or the CPU; a device without float64 (MPS) is replaced by the CPU.

    For tied distances, report the values of "expected" with their standard errors (column `standard_error` of
    `Scores.rows`), and as bounds the values of two more calls, with "best" and with "worst".

    Raises `InputError` for features that are not 2-D numbers, that hold NaN or infinities, or that are empty;
    for zero vectors (they have no direction); for lengths or dimensions that do not fit; for labels that are
    neither integers (of 64 bits with sign) nor strings (bytes: UTF-8); for a device that does not exist; and
    for unknown options.

    >>> import numpy as np
    >>> codes = np.array([[0, 0], [0, 1], [1, 1]], dtype=np.uint8)
    >>> scores = score(codes[:1], codes, [7], [3, 7, 7], metric="hamming", ks=(1,))
    >>> round(scores.value("standard", "mAP@all"), 4)  # hits at ranks 2 and 3: (1/2 + 2/3) / 2
    0.5833
    >>> scores.value("standard", "Prec@R"), round(scores.chance("standard", "Prec@1"), 4)
    (0.5, 0.6667)
    """
    names, ks = check_protocols(protocols), check_cutoffs(ks)
    check_choice("ties", ties, TIES)
    check_choice("missing_classes", missing_classes, MISSING_CLASSES)
    check_choice("duplicates", duplicates, DUPLICATES)
    if tie_draws < 1:
        raise InputError(f"tie_draws must be at least 1, not {tie_draws}")
    queries, photos = comparable(query, gallery, metric, device)
    query_names, photo_names = one_spelling(checked_labels("query_labels", query_labels, len(queries), "query"),
                                            checked_labels("gallery_labels", gallery_labels, len(photos), "gallery"), spellings)
    groups, identical = None, None
    if gallery_group is not None:  # a wrong array is an error even where it is not used
        groups = checked_labels("gallery_group", gallery_group, len(photos), "gallery")
    else:
        identical = identical_rows(photos.cpu().numpy())
    if duplicates == "distinct":
        if groups is None:
            raise InputError("duplicates='distinct' needs gallery_group, to say which photos are the same")
        kept = first_of_each(groups, photo_names)
        photos, photo_names = photos[torch.from_numpy(kept).to(photos.device)], photo_names[kept]

    task = _Task.of(queries, photos, query_names, photo_names, metric)
    task.check_missing(missing_classes, photo_names)
    measures = {measure for name in names for measure in PROTOCOLS[name].all_measures(ks, ties).values()} | {R_PRECISION}
    values, draws = _values(task, Asked(tuple(measures), ties, tie_draws, seed), block)
    return Scores(names, metric, ties, missing_classes, duplicates, ks, len(queries), len(photos),
                  task.classes, task.query_class, task.relevant, identical, values, draws)


def first_of_each(groups: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Indices of the first row of each group and class, ascending."""
    group, label = (np.unique(values, return_inverse=True)[1] for values in (groups, classes))
    return np.sort(np.unique(group * (label.max() + 1) + label, return_index=True)[1])


@dataclass(frozen=True)
class _Task:
    """Queries and gallery with the photos of one class side by side, so that a query's relevant photos are a slice."""

    queries: Tensor
    gallery: Gallery
    classes: np.ndarray  #: of the queries, sorted
    query_class: np.ndarray  #: int64 [Nq], index into `classes`
    photo_count: np.ndarray  #: int64 [C], photos of each class
    starts: np.ndarray  #: int64 [Nq], where the relevant photos of each query begin
    relevant: np.ndarray  #: int64 [Nq], R

    @classmethod
    def of(cls, queries: Tensor, photos: Tensor, query_names: np.ndarray, photo_names: np.ndarray, metric: str) -> _Task:
        """queries, photos: as `inputs.comparable` gives them. Names: labels of both, with one spelling for each class."""
        classes, query_class = np.unique(query_names, return_inverse=True)
        photo_class = np.searchsorted(classes, photo_names)
        photo_class[photo_class == len(classes)] = 0
        photo_class = np.where(classes[photo_class] == photo_names, photo_class, len(classes))
        counts = np.bincount(photo_class, minlength=len(classes) + 1)[: len(classes)]
        order = torch.from_numpy(np.argsort(photo_class, kind="stable")).to(photos.device)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return cls(queries, Gallery.of(photos[order], order, queries, metric), classes, query_class, counts,
                   starts[query_class], counts[query_class])

    def check_missing(self, missing_classes: str, photo_names: np.ndarray) -> None:
        """Raise InputError if no class has a photo, or if one class has none and `missing_classes` is "error"."""
        if not self.photo_count.any():
            raise InputError(f"gallery_labels has no photo of any query class ({some([*self.classes], 5)}; the gallery holds "
                             f"{some([*np.unique(photo_names)], 5)}): nothing can be scored; check both arrays of labels")
        if missing_classes == "error" and (self.photo_count == 0).any():
            absent = self.classes[self.photo_count == 0]
            raise InputError(f"gallery_labels has no photo for {len(absent)} query class(es): {some([*absent], 5)}; "
                             "leave their queries out, or choose missing_classes='zero' or 'as-released'")


def _values(task: _Task, asked: Asked, block: int | None) -> tuple[dict[Measure, np.ndarray], dict[Measure, np.ndarray]]:
    """The values of each measure, float64 [Nq]; and for sampled measures the values under each drawn tie order, float64 [Nq,
    draws]."""
    queries, photos, place = len(task.queries), len(task.gallery.features), task.queries.device
    size = block_size(block, photos)
    values = {measure: np.zeros(queries) for measure in asked.measures}
    draws: dict[Measure, np.ndarray] = {}

    def keep_draws(rows: np.ndarray, found: Mapping[Measure, np.ndarray]) -> None:
        for measure, value in found.items():
            if measure not in draws:
                draws[measure] = np.full((queries, asked.tie_draws), np.nan)
            draws[measure][rows] = value

    # Queries with similar numbers of relevant photos share a block, so that little of its table is padding.
    schedule = np.lexsort((task.query_class, task.relevant))
    schedule = schedule[task.relevant[schedule] > 0]
    if place.type == "cpu" and len(schedule):
        ranked = rank_all(task.gallery, task.queries, schedule, task.starts, task.relevant, asked, block)
        for rows, exact in ranked.values:
            for measure, value in exact.items():
                values[measure][rows] = value
        for rows, drawn in ranked.draws:
            keep_draws(rows, drawn)
        schedule = schedule[np.isin(schedule, np.concatenate([np.empty(0, np.int64), *ranked.left]))]
    harmonic = harmonic_numbers(photos, place)
    for begin in range(0, len(schedule), size):
        chosen = schedule[begin:begin + size]
        here = torch.from_numpy(chosen).to(place)
        starts, relevant = (torch.from_numpy(table[chosen]).to(place) for table in (task.starts, task.relevant))
        found, sampled = score_block(task.gallery, task.queries[here], starts, relevant, here, asked, harmonic)
        for measure, block_values in found.items():
            values[measure][chosen] = block_values.cpu().numpy()
        for measure, (mixed, drawn_values) in sampled.items():
            keep_draws(chosen[mixed.cpu().numpy()], {measure: drawn_values.cpu().numpy()})
    for measure, table in draws.items():
        # Queries without such ties have the same value in every draw.
        table[:] = np.where(np.isnan(table), values[measure][:, None], table)
    return values, draws
