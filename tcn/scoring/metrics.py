"""From features to numbers: one ranking per query, read by every protocol that calls itself mAP or Prec.

In come query and gallery features (or binary codes) with their labels; out come `Scores`: per-query values,
their averages under each named protocol, each with its chance level and its ceiling (paper, section 4).

Only the ranks of the relevant photos matter. On a CPU they come from sorted whole numbers (`tcn.scoring.cpu`); elsewhere,
and where real-valued distances tie, from sorted distances (`tcn.scoring.rankings`, `tcn.scoring.measures`): these say how many photos
lie nearer than a relevant one and how many lie equally far. Ties are thus known exactly, and the value over random
tie orders follows, exactly or from sampled ranks.
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError
from tcn.data.words import normal_form
from tcn.scoring.cpu import sweep
from tcn.scoring.measures import Measure, expected, from_ranks, harmonic_numbers, score_block
from tcn.scoring.rankings import Gallery, TieGroups, random_ranks, sort_rows


@dataclass(frozen=True)
class Protocol:
    """One way in which published code computes "mAP" and "Prec" from a ranking."""

    name: str
    #: "raw": mean of the precisions at the hits; "voc": of the largest precision at the hit's rank or later
    average_precision: str
    #: divisor of the AP of the first K ranks: "min(K, R)", "hits" (relevant photos among them) or "K"
    divisor: str
    #: "micro": mean over queries; "macro": mean over classes of the class means
    average: str
    #: "hits / K", "hits / min(K, R)" or "item K + 1" (the relevance of the one photo after the cut-off)
    precision: str
    #: whether the protocol defines mAP over the whole ranking
    at_all: bool
    #: how its own code treats equal distances in AP: "order", as NumPy's default (unstable) sort leaves them, or "shared":
    #: cut in that order, then all photos at one distance share the precision at the last of them. Prec is by "order" in all
    ap_ties: str
    #: who computes it so
    source: str


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        Protocol("released", "voc", "min(K, R)", "macro", "hits / K", True, "order",
                 "TCN's released code by default (`iccv19`), also SAKE and DSN; the paper's tables use it."),
        Protocol("cvpr19", "raw", "hits", "micro", "item K + 1", False, "shared",
                 "TCN's released code by its other flag, Doodle2Search: scikit-learn's AP of the top K."),
        Protocol("zse", "voc", "min(K, R)", "micro", "hits / min(K, R)", True, "order",
                 "ZSE-SBIR and the code that descends from it."),
        Protocol("sem-pcyc", "raw", "hits", "micro", "hits / K", True, "shared",
                 "SEM-PCYC: scikit-learn's AP, for mAP@K on the top K alone."),
        Protocol("cvae", "raw", "K", "micro", "hits / K", True, "order",
                 "CVAE (ECCV 2018) and Jiangtong Li's ZS-SBIR."),
        Protocol("standard", "raw", "min(K, R)", "micro", "hits / K", True, "order",
                 "The textbook definition: un-interpolated, one vote a query; no code of its own, so ties as `released`."),
    )
})
ALL: tuple[str, ...] = tuple(PROTOCOLS)

METRICS = ("euclidean", "cosine", "hamming")
#: How equal distances are ordered; see `score`.
TIES = ("expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort", "as-released")
SPELLINGS = ("error", "merge", "as-given")
MISSING_CLASSES = ("error", "zero", "as-released")
DUPLICATES = ("as-published", "distinct")
#: Elements of one block of distances (queries x photos); a block needs about 40 bytes an element.
_BLOCK_ELEMENTS = 2**23
#: Random rankings behind the chance levels that have no closed form.
CHANCE_DRAWS = 1000


def _measures(protocol: Protocol, ks: Sequence[int], ties: str) -> dict[str, Measure]:
    """The metrics that a protocol defines, by name."""
    shared = ties == "scikit-learn" or (ties == "as-released" and protocol.ap_ties == "shared")
    found: dict[str, Measure] = {}
    if protocol.at_all:
        found["mAP@all"] = Measure("AP", protocol.average_precision, "R", None, shared)
    for k in ks:
        found[f"mAP@{k}"] = Measure("AP", protocol.average_precision, protocol.divisor, k, shared)
        found[f"Prec@{k}"] = Measure("Prec", protocol.precision, "", k)
    return found


def _small_class_measures(protocol: Protocol) -> dict[str, Measure]:
    """R-precision and Prec@5, for galleries whose classes are smaller than the usual cut-offs."""
    if protocol.name not in ("released", "standard"):
        return {}
    return {"Prec@5": Measure("Prec", "hits / K", "", 5), "Prec@R": Measure("Prec", "hits / K", "", "R")}


# ----------------------------------------------------------------------------------------- chance and ceiling
@lru_cache(maxsize=1024)
def _chance(measures: frozenset[Measure], relevant: int, photos: int) -> dict[Measure, float]:
    """The expected value of each measure for a query whose gallery is in random order.

    That is a gallery whose photos all lie equally far, so the closed forms for ties apply; the other measures
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


def _ceiling(measure: Measure, relevant: np.ndarray, photos: int) -> np.ndarray:
    """The largest value that any ranking could reach, for each query, float64."""
    number = relevant.astype(np.float64)
    any_relevant = (relevant > 0).astype(np.float64)
    if measure.k is None or measure.k == "R":
        return any_relevant
    if measure.rule == "item K + 1":
        return any_relevant * (photos > measure.k)
    if (measure.family == "Prec" and measure.rule == "hits / K") or measure.divisor == "K":
        return np.minimum(number, measure.k) / measure.k
    return any_relevant


# ----------------------------------------------------------------------------------------------------- result
@dataclass(frozen=True)
class Scores:
    """What one set of rankings is worth under every protocol asked for, per query and averaged."""

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
        rule = PROTOCOLS[protocol]
        return {**_measures(rule, self.ks, self.ties), **_small_class_measures(rule)}

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
        return self._values[Measure("Prec", "hits / K", "", "R")]

    def value(self, protocol: str, metric: str) -> float:
        """The averaged metric, e.g. `value("released", "mAP@all")`."""
        return float(self._average(protocol, metric, self.per_query(protocol, metric)))

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
        return float(self._average(protocol, metric, table[index]))

    def ceiling(self, protocol: str, metric: str) -> float:
        """The best value that any ranking could reach, averaged as the protocol does."""
        measure = self._measure(protocol, metric)
        return float(self._average(protocol, metric, _ceiling(measure, self.relevant, self.photos)))

    def _average(self, protocol: str, metric: str, values: np.ndarray) -> float:
        counted = np.ones(len(values), dtype=bool)
        if self.missing_classes == "as-released" and metric.startswith("mAP"):
            counted = self.relevant > 0
        values, group = values[counted], self.query_class[counted]
        if PROTOCOLS[protocol].average == "micro":
            return values.mean()
        number = np.bincount(group, minlength=len(self.classes))
        total = np.bincount(group, weights=values, minlength=len(self.classes))
        return (total[number > 0] / number[number > 0]).mean()

    def per_class(self, protocol: str, metric: str) -> dict[Any, float]:
        """Mean of the metric over the queries of each class. A class that `as-released` leaves out of mAP has none."""
        values = self.per_query(protocol, metric)
        total = np.bincount(self.query_class, weights=values, minlength=len(self.classes))
        number = np.bincount(self.query_class, minlength=len(self.classes))
        photos = np.bincount(self.query_class, weights=self.relevant, minlength=len(self.classes))
        left_out = (photos == 0) & (self.missing_classes == "as-released" and metric.startswith("mAP"))
        return {name.item(): float(mean) for name, mean, out in zip(self.classes, total / number, left_out) if not out}

    def summary(self) -> dict[str, dict[str, float]]:
        """The same numbers as `evaluate` returns."""
        return {name: {metric: self.value(name, metric) for metric in _measures(PROTOCOLS[name], self.ks, self.ties)}
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
    """As `evaluate`, with everything behind the numbers.

    missing_classes: what a class with queries but no photos means. "error" raises; "zero" scores its queries
        0; "as-released" leaves it out of mAP and counts it as 0 in Prec, as the released code does. Where no class
        has a photo nothing is defined: an error in any case.
    ties: how photos at equal distance are ordered. "expected": the mean over random orders, in closed form
        for Prec and for raw AP with a fixed divisor, elsewhere the mean of `tie_draws` orders drawn with
        `seed` (its standard error: `Scores.error`). "best", "worst": the largest and the smallest value that
        any order gives. "gallery-order": as they stand in the gallery. "scikit-learn": in AP, all photos at
        one distance share the precision at the last of them (the top K being cut in gallery order); Prec is
        then in gallery order. "unstable-sort": the released code's way, whatever NumPy's default sort makes
        of the distances (always on the CPU); it depends on the processor and NumPy's version, so that no
        number of it can be expected elsewhere. "as-released": each protocol as its own code has it
        (`Protocol.ap_ties`): the unstable sort, and for cvpr19 and sem-pcyc, which call scikit-learn, shared
        precisions in AP (the top K being cut by the unstable sort). Real-valued features tie where their cosines differ by less
        than about 1e-12 times the features' spread, so copies of a photo do, whatever the rounding.
    gallery_group [Ng]: integers or strings; equal values mark one photo that is listed several times.
    duplicates: "as-published" keeps all entries, "distinct" the first of each group, or of each class in it
        where its entries have several classes: a photo listed under two classes is relevant to both.
    spellings: names that differ only in case, blanks, hyphens and underscores, leading zeros or Unicode form. "error"
        names them; "merge" takes them as one class; "as-given" as different classes.
    block: queries handled at once, chosen to bound memory if None; results differ by the order of sums only.
    device: that of `query` if None, or the CPU; a device without float64 (MPS) is replaced by the CPU.

    What is reported of tied distances is "expected" with its standard error (column `standard_error` of
    `Scores.rows`), and as bounds the values of two more calls, with "best" and with "worst".

    Raises `InputError` for features that are not 2-D numbers, that hold NaN or infinities, or that are empty;
    for zero vectors (they have no direction); for lengths or dimensions that do not fit; for labels that are
    neither integers (of 64 bits with sign) nor strings (bytes: UTF-8); for a device that is not there; and
    for unknown options.

    >>> import numpy as np
    >>> codes = np.array([[0, 0], [0, 1], [1, 1]], dtype=np.uint8)
    >>> scores = score(codes[:1], codes, [7], [3, 7, 7], metric="hamming", ks=(1,))
    >>> round(scores.value("standard", "mAP@all"), 4)  # hits at ranks 2 and 3: (1/2 + 2/3) / 2
    0.5833
    >>> scores.value("standard", "Prec@R"), round(scores.chance("standard", "Prec@1"), 4)
    (0.5, 0.6667)
    """
    protocols = _check_protocols(protocols)
    ks = _check_cutoffs(ks)
    _check_choice("ties", ties, TIES)
    _check_choice("missing_classes", missing_classes, MISSING_CLASSES)
    _check_choice("duplicates", duplicates, DUPLICATES)
    if tie_draws < 1:
        raise InputError(f"tie_draws must be at least 1, not {tie_draws}")
    queries, photos = _comparable(query, gallery, metric, device)
    place = queries.device
    query_names = _labels("query_labels", query_labels, len(queries), "query")
    photo_names = _labels("gallery_labels", gallery_labels, len(photos), "gallery")
    query_names, photo_names = _one_spelling(query_names, photo_names, spellings)
    identical = None
    if gallery_group is not None:  # a wrong array is an error even where it is not used
        gallery_group = _labels("gallery_group", gallery_group, len(photos), "gallery")
    else:
        identical = identical_rows(photos.cpu().numpy())
    if duplicates == "distinct":
        if gallery_group is None:
            raise InputError("duplicates='distinct' needs gallery_group, to say which photos are the same")
        keep = _first_of_each(gallery_group, photo_names)
        photos, photo_names = photos[torch.from_numpy(keep).to(place)], photo_names[keep]

    classes, query_class = np.unique(query_names, return_inverse=True)
    photo_class = np.searchsorted(classes, photo_names)
    photo_class[photo_class == len(classes)] = 0
    photo_class = np.where(classes[photo_class] == photo_names, photo_class, len(classes))
    counts = np.bincount(photo_class, minlength=len(classes) + 1)[: len(classes)]
    if not counts.any():
        raise InputError(f"gallery_labels has no photo of any query class ({_some(classes)}; the gallery holds "
                         f"{_some(np.unique(photo_names))}): nothing can be scored; check both arrays of labels")
    if missing_classes == "error" and (counts == 0).any():
        absent = classes[counts == 0]
        raise InputError(f"gallery_labels has no photo for {len(absent)} query class(es): {_some(absent)}; "
                         "leave their queries out, or choose missing_classes='zero' or 'as-released'")

    measures = {measure for name in protocols for measure in (
        *_measures(PROTOCOLS[name], ks, ties).values(), *_small_class_measures(PROTOCOLS[name]).values())}
    measures.add(Measure("Prec", "hits / K", "", "R"))

    def placed(index: np.ndarray) -> Tensor:
        return torch.from_numpy(index).to(place)

    # photos of one class side by side, so that a query's relevant photos are a slice
    order = np.argsort(photo_class, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    relevant = counts[query_class]
    # queries with similarly many relevant photos share a block, so that little of its table is padding
    schedule = np.lexsort((query_class, relevant))
    size = _block_size(block, len(photos))
    table = Gallery.of(photos[placed(order)], placed(order), queries, metric)
    values = {measure: np.zeros(len(queries)) for measure in measures}
    draws: dict[Measure, np.ndarray] = {}

    def keep(rows: np.ndarray, found: Mapping[Measure, np.ndarray], drawn: bool) -> None:
        for measure, value in found.items():
            if drawn and measure not in draws:
                draws[measure] = np.full((len(queries), tie_draws), np.nan)
            (draws if drawn else values)[measure][rows] = value

    schedule = schedule[relevant[schedule] > 0]
    if place.type == "cpu" and len(schedule):
        swept = sweep(table, queries, schedule, starts[query_class], relevant, measures, ties, tie_draws, seed, block)
        for rows, found in swept.values:
            keep(rows, found, drawn=False)
        for rows, found in swept.draws:
            keep(rows, found, drawn=True)
        schedule = schedule[np.isin(schedule, np.concatenate([np.empty(0, np.int64), *swept.left]))]
    harmonic = harmonic_numbers(len(photos), place)
    for begin in range(0, len(schedule), size):
        chosen = schedule[begin:begin + size]
        found, sampled = score_block(
            table, queries[placed(chosen)], placed(starts[query_class[chosen]]), placed(relevant[chosen]),
            placed(chosen), measures, harmonic, ties, tie_draws, seed)
        keep(chosen, {measure: value.cpu().numpy() for measure, value in found.items()}, drawn=False)
        for measure, (rows, value) in sampled.items():
            keep(chosen[rows.cpu().numpy()], {measure: value.cpu().numpy()}, drawn=True)
    for measure, drawn in draws.items():
        # queries without such ties have the same value in every draw
        drawn[:] = np.where(np.isnan(drawn), values[measure][:, None], drawn)
    return Scores(protocols, metric, ties, missing_classes, duplicates, ks, len(queries), len(photos),
                  classes, query_class, relevant, identical, values, draws)


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
    queries, photos = _comparable(query, gallery, metric, device)
    table = Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    size = _block_size(block, len(photos))
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
    queries, photos = _comparable(query, gallery, metric, device)
    wanted = _labels("query_labels", query_labels, len(queries), "query")
    there = _labels("gallery_labels", gallery_labels, len(photos), "gallery")
    wanted, there = _one_spelling(wanted, there, "error")
    table = Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    size = _block_size(block, len(photos))
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


# ----------------------------------------------------------------------------------------------------- checks
def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")


def _check_protocols(protocols: Sequence[str]) -> tuple[str, ...]:
    names = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    if not names:
        raise InputError("protocols is empty; choose from " + ", ".join(ALL))
    for name in names:
        _check_choice("protocols", name, ALL)
    return tuple(dict.fromkeys(names))


def _check_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    values = (ks,) if isinstance(ks, (int, np.integer)) else tuple(ks)
    for k in values:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"ks must be whole numbers from 1 on, not {k!r}")
    return tuple(dict.fromkeys(int(k) for k in values))


def _comparable(
    query: Any, gallery: Any, metric: str, device: str | torch.device | None
) -> tuple[Tensor, Tensor]:
    """Queries and photos, checked, ready for products and on one device."""
    _check_choice("metric", metric, METRICS)
    place = _device(device, query)
    queries = _features("query", query, metric, place)
    photos = _features("gallery", gallery, metric, place)
    if queries.shape[1] != photos.shape[1]:
        raise InputError(f"query has {queries.shape[1]} dimensions and gallery {photos.shape[1]}; "
                         "they must agree")
    return queries, photos


def _device(device: str | torch.device | None, query: Any) -> torch.device:
    if device is None:
        chosen = query.device if isinstance(query, Tensor) else torch.device("cpu")
    else:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:  # unknown names; builds and machines without it
            raise InputError(f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return torch.device("cpu") if chosen.type == "mps" else chosen


def _features(name: str, values: Any, metric: str, device: torch.device) -> Tensor:
    """Checked and ready for products: unit vectors in float64, or codes as float32 of -1 and +1."""
    if isinstance(values, Tensor):
        tensor = values.detach()
        given = str(tensor.dtype).removeprefix("torch.")
    else:
        array = _array(name, values)
        given = str(array.dtype)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} is an array of {array.dtype}; it must be numbers [rows, dimensions]")
        kept = array.dtype if array.dtype in (bool, np.uint8) else float
        tensor = torch.from_numpy(np.array(array, dtype=kept))
    if tensor.ndim != 2:
        raise InputError(f"{name} must be [rows, dimensions], not of shape {tuple(tensor.shape)}")
    if 0 in tensor.shape:
        raise InputError(f"{name} is empty (shape {tuple(tensor.shape)})")
    is_code = tensor.dtype in (torch.bool, torch.uint8)
    if metric == "hamming":
        if not is_code or (tensor.dtype == torch.uint8 and int(tensor.max()) > 1):
            raise InputError(f"{name} {_no_codes(name, tensor, given)}")
        return tensor.to(device=device, dtype=torch.float32).mul_(2).sub_(1)
    if is_code:
        raise InputError(f"{name} is {tensor.dtype}, so it holds codes; compare them with metric='hamming'")
    if tensor.is_complex():
        raise InputError(f"{name} is complex; features are real numbers")
    tensor = tensor.to(device=device, dtype=torch.float64)
    finite = torch.isfinite(tensor).all(1)
    if not bool(finite.all()):
        raise InputError(f"{name} holds NaN or infinity, first in row {int((~finite).nonzero()[0])}")
    # by the largest component first, so that no square over- or underflows
    largest = tensor.abs().amax(1, keepdim=True)
    if not bool((largest > 0).all()):
        row = int((largest[:, 0] == 0).nonzero()[0])
        raise InputError(f"{name} row {row} is all zeros: no direction, so no ranking; leave it out")
    tensor = tensor / largest
    return tensor / torch.linalg.vector_norm(tensor, dim=1, keepdim=True)


def _no_codes(name: str, tensor: Tensor, kind: str) -> str:
    """What an array of type `kind` that should be codes holds instead, and what to do about it."""
    for low, high in ((-1, 1), (0, 1), (0, 255)):
        if bool(((tensor == low) | (tensor == high)).all()):
            return f"is {kind} and holds {low} and {high}; metric='hamming' needs codes, bool or uint8 0-1: give {name} > 0"
    if tensor.dtype == torch.uint8:
        return (f"is uint8 and holds {int(tensor.max())}; codes are 0 and 1. For packed bits give "
                f"np.unpackbits({name}, axis=1)")
    return (f"is {kind} and holds other values than two; metric='hamming' needs codes, bool or uint8 0-1: give {name} > 0 for "
            f"the signs of its features")


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be read as an array: {error}") from error


def _labels(name: str, values: Any, rows: int, of: str) -> np.ndarray:
    """Checked: int64 or unicode [rows]."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else _array(name, values)
    if array.dtype.kind not in "iuUST":
        raise InputError(f"{name} is an array of {array.dtype}; labels are integers or strings "
                         "(for names: np.array(names, dtype=str))")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} holds bytes that are not UTF-8; give strings") from error
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise InputError(f"{name} holds {int(array.max())}; integers must lie below 2**63")
    array = array.astype(np.int64) if array.dtype.kind in "iu" else array.astype(np.str_)
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, not of shape {array.shape}")
    if len(array) != rows:
        raise InputError(f"{name} has {len(array)} entries, but {of} has {rows} rows")
    return array


def _form(name: str) -> str:
    """What two spellings of one class have in common: `palm_tree`, `Palm tree `; numbers by value: `3`, `03`."""
    if re.fullmatch(r"\s*[+-]?[0-9]{1,40}\s*", name):
        return str(int(name))
    return normal_form(name) or name


def spellings_of(query_labels: np.ndarray, gallery_labels: np.ndarray) -> dict[str, list[str]]:
    """Classes that are spelt in several ways: the name to keep (a query's, where there is one) -> the other spellings.

    Arrays of strings; empty for integers. Names are compared by `tcn.data.words.normal_form`, numbers by value.
    """
    if query_labels.dtype.kind != "U" or gallery_labels.dtype.kind != "U":
        return {}
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys([*np.unique(query_labels).tolist(), *np.unique(gallery_labels).tolist()]):
        found.setdefault(_form(name), []).append(name)
    return {names[0]: names[1:] for names in found.values() if len(names) > 1}


def merged(labels: np.ndarray, several: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Labels with every spelling in `several` (as `spellings_of` gives it) replaced by the name to keep."""
    kept = {other: name for name, others in several.items() for other in others}
    names, index = np.unique(labels, return_inverse=True)
    return np.array([kept.get(name, name) for name in names.tolist()], dtype=np.str_)[index] if kept else labels


def _one_spelling(query: np.ndarray, gallery: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays of labels with one spelling a class, by the `rule` of `score`. InputError as that says."""
    _check_choice("spellings", rule, SPELLINGS)
    if (query.dtype.kind == "U") != (gallery.dtype.kind == "U"):
        names = dict(query_labels=query, gallery_labels=gallery)
        texts, numbers = sorted(names, key=lambda name: names[name].dtype.kind != "U")
        if rule != "merge":
            raise InputError(f"{texts} are strings ({str(names[texts][0])!r}) and {numbers} integers ({names[numbers][0]}); they "
                             f"must be of one kind: give {numbers} as strings, or choose spellings='merge' where the strings "
                             "are such numbers")
        query, gallery = query.astype(np.str_), gallery.astype(np.str_)
    several = spellings_of(query, gallery) if rule != "as-given" else {}
    if several and rule == "error":
        shown = "; ".join(" and ".join(map(repr, (name, *others))) for name, others in list(several.items())[:5])
        raise InputError(f"query_labels and gallery_labels spell {len(several)} class(es) in several ways: {shown}"
                         f"{'; ...' if len(several) > 5 else ''}. Choose spellings='merge' to take them as one class, "
                         "spellings='as-given' if they are different ones")
    return merged(query, several), merged(gallery, several)


def _some(names: np.ndarray) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def identical_rows(rows: np.ndarray) -> int:
    """How many rows of numbers [N, D] equal an earlier one in every bit: photos listed again, or codes that fall together.

    Told by two products of 64 bits a row: linear time, where a sort of the rows would move them all.
    """
    array = np.ascontiguousarray(rows)
    factors = np.random.default_rng(0).integers(1, 2**63, (array.shape[1], 2), dtype=np.uint64) | np.uint64(1)
    marks = np.empty((len(array), 2), np.uint64)
    step = max(1, 2**20 // array.shape[1])
    for begin in range(0, len(array), step):
        words = array[begin:begin + step].view(f"u{array.itemsize}").astype(np.uint64)
        words ^= words >> np.uint64(29)  # else two changed signs, the highest bits, would cancel
        marks[begin:begin + step] = words @ factors
    return len(marks) - len(np.unique(marks.view([("", np.uint64)] * 2)))


def _first_of_each(groups: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Indices of the first row of each group and class, ascending."""
    group, label = (np.unique(values, return_inverse=True)[1] for values in (groups, classes))
    return np.sort(np.unique(group * (label.max() + 1) + label, return_index=True)[1])


def _block_size(block: int | None, photos: int) -> int:
    if block is None:
        return max(1, _BLOCK_ELEMENTS // photos)
    if block < 1:
        raise InputError(f"block must be at least 1, not {block}")
    return block
