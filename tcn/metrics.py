"""From features to numbers: one ranking per query, read by every protocol that calls itself mAP or Prec.

In come query and gallery features (or binary codes) with their labels; out come `Scores`: per-query values,
their averages under each named protocol, each with its chance level and its ceiling (paper, section 4).

Only the ranks of the relevant photos matter, so a block of queries is handled as a [queries, relevant photos]
table: the sorted distances say how many photos lie nearer than a relevant one and how many lie equally far.
Ties are therefore known exactly, and the value over random tie orders follows, exactly or from sampled ranks.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError


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
    #: who computes it so
    source: str


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        Protocol("released", "voc", "min(K, R)", "macro", "hits / K", True,
                 "TCN's released code by default (`iccv19`), also SAKE and DSN; the paper's tables use it."),
        Protocol("cvpr19", "raw", "hits", "micro", "item K + 1", False,
                 "TCN's released code by its other flag, Doodle2Search: scikit-learn's AP of the top K."),
        Protocol("zse", "voc", "min(K, R)", "micro", "hits / min(K, R)", True,
                 "ZSE-SBIR and the code that descends from it."),
        Protocol("sem-pcyc", "raw", "hits", "micro", "hits / K", True,
                 "SEM-PCYC: scikit-learn's AP, for mAP@K on the top K alone."),
        Protocol("cvae", "raw", "K", "micro", "hits / K", True,
                 "CVAE (ECCV 2018) and Jiangtong Li's ZS-SBIR."),
        Protocol("standard", "raw", "min(K, R)", "micro", "hits / K", True,
                 "The textbook definition: un-interpolated, one vote a query."),
    )
})
ALL: tuple[str, ...] = tuple(PROTOCOLS)

METRICS = ("euclidean", "cosine", "hamming")
#: How equal distances are ordered; see `score`.
TIES = ("expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort")
MISSING_CLASSES = ("error", "zero", "as-released")
DUPLICATES = ("as-published", "distinct")

#: Half squared distances are rounded to 2**-40 times the features' spread (at most 1): far above the rounding of
#: float64 sums, far below what ranks photos. Copies of a photo thus tie, whatever block size, device or threads.
_RESOLUTION = 2.0**40
#: Spread, about the resolution of float32, below which that unit shrinks no further: copies still tie then.
_LEAST_SPREAD = 2.0**-24
#: Elements of one block of distances (queries x photos); a block needs about 40 bytes an element.
_BLOCK_ELEMENTS = 2**23
#: Elements of one table of sampled ranks: 8 MB, large enough that threads are worth starting.
_SAMPLED_ELEMENTS = 2**20
#: Random rankings behind the chance levels that have no closed form.
CHANCE_DRAWS = 1000


# --------------------------------------------------------------------------------------------------- measures
@dataclass(frozen=True)
class _Measure:
    """A number per query: AP or Prec, by one rule, at one cut-off (None: none; "R": the query's own R)."""

    family: str
    rule: str
    divisor: str
    k: int | str | None

    @property
    def closed_form(self) -> bool:
        """Whether the mean over random tie orders is known exactly."""
        return self.family == "Prec" or (self.rule == "raw" and self.divisor != "hits")


def _measures(protocol: Protocol, ks: Sequence[int]) -> dict[str, _Measure]:
    """The metrics that a protocol defines, by name."""
    found: dict[str, _Measure] = {}
    if protocol.at_all:
        found["mAP@all"] = _Measure("AP", protocol.average_precision, "R", None)
    for k in ks:
        found[f"mAP@{k}"] = _Measure("AP", protocol.average_precision, protocol.divisor, k)
        found[f"Prec@{k}"] = _Measure("Prec", protocol.precision, "", k)
    return found


def _small_class_measures(protocol: Protocol) -> dict[str, _Measure]:
    """R-precision and Prec@5, for galleries whose classes are smaller than the usual cut-offs."""
    if protocol.name not in ("released", "standard"):
        return {}
    return {"Prec@5": _Measure("Prec", "hits / K", "", 5), "Prec@R": _Measure("Prec", "hits / K", "", "R")}


def _cut(measure: _Measure, relevant: Tensor) -> Tensor:
    """The cut-off K of each query as float64 [B, 1]; infinite where there is none."""
    if measure.k == "R":
        return relevant[:, None].clamp(min=1).double()
    value = math.inf if measure.k is None else float(measure.k)
    return torch.full((len(relevant), 1), value, dtype=torch.float64, device=relevant.device)


def _divisor(measure: _Measure, relevant: Tensor, hits: Tensor | None) -> Tensor:
    """What the sum over the hits is divided by, float64 [B]; at least 1, so that no hit means 0."""
    cut = _cut(measure, relevant)[:, 0]
    number = relevant.double()
    if measure.family == "Prec":
        value = {"hits / K": cut, "hits / min(K, R)": torch.minimum(cut, number),
                 "item K + 1": torch.ones_like(cut)}[measure.rule]
    elif measure.divisor == "hits" and measure.k is not None:
        assert hits is not None
        value = hits.double()
    else:
        value = {"R": number, "min(K, R)": torch.minimum(cut, number), "K": cut}[measure.divisor]
    return value.clamp(min=1.0)


def _from_ranks(
    measure: _Measure, ranks: Tensor, relevant: Tensor, thresholds: Tensor | None = None
) -> Tensor:
    """One measure for each query from the ranks of its relevant photos.

    ranks: float64 [B, R], ascending, counted from 1, infinite where a query has fewer than R relevant photos.
    relevant: [B], the number of relevant photos. thresholds: float64 [B, R], the rank at which the precision
    of a hit is read if that is not its own rank (scikit-learn reads it at the last photo of equal distance).
    """
    cut = _cut(measure, relevant)
    if isinstance(measure.k, int):
        ranks = ranks[:, : measure.k + 1]  # the first K + 1 photos hold at most K + 1 hits
        thresholds = None if thresholds is None else thresholds[:, : measure.k + 1]
    if measure.family == "Prec":
        inside = ranks == cut + 1 if measure.rule == "item K + 1" else ranks <= cut
        return inside.sum(1) / _divisor(measure, relevant, None)
    inside = ranks <= cut
    if thresholds is None:
        found = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
        precision = found / ranks
    else:
        thresholds = torch.minimum(thresholds, cut).contiguous()
        within = torch.where(inside, thresholds, math.inf)
        found = torch.searchsorted(within, thresholds, right=True)
        precision = found / thresholds
    precision = precision.masked_fill(~inside, 0.0)
    if measure.rule == "voc":
        envelope = precision.flip(1).cummax(1).values.flip(1)
        precision = envelope.masked_fill(~inside, 0.0)
    return precision.sum(1) / _divisor(measure, relevant, inside.sum(1))


# ------------------------------------------------------------------------------------------------------- ties
@dataclass(frozen=True)
class _TieGroups:
    """For each relevant photo, nearest first, the run of equal distances it stands in. All int64 [B, R]."""

    start: Tensor  #: photos that lie nearer
    size: Tensor  #: photos equally far, itself included; 0 where a query has fewer than R relevant photos
    hits_before: Tensor  #: relevant photos that lie nearer
    hits: Tensor  #: relevant photos equally far, itself included

    @classmethod
    def of(cls, everything: Tensor, relevant: Tensor) -> _TieGroups:
        """everything: sorted distances [B, N]. relevant: the same [B, R], infinite where there is none."""
        start = torch.searchsorted(everything, relevant)
        size = torch.searchsorted(everything, relevant, right=True) - start
        before = torch.searchsorted(relevant, relevant)
        hits = torch.searchsorted(relevant, relevant, right=True) - before
        return cls(start, size, before, torch.where(size > 0, hits, 0))

    def rows(self, chosen: Tensor) -> _TieGroups:
        return _TieGroups(self.start[chosen], self.size[chosen], self.hits_before[chosen], self.hits[chosen])

    @property
    def mixed(self) -> Tensor:
        """Queries [B] whose relevant photos share a distance with irrelevant ones: the tie order matters."""
        return (self.hits < self.size).any(1)

    def ranks(self, order: str) -> Tensor:
        """float64 [B, R]: relevant photos come "best" (first) or "worst" (last) among those equally far."""
        column = torch.arange(self.start.shape[1], device=self.start.device)
        offset = column - self.hits_before + (self.size - self.hits if order == "worst" else 0)
        return torch.where(self.size > 0, (self.start + offset + 1).double(), math.inf)


def _harmonic(length: int, device: torch.device) -> Tensor:
    """H[i] = 1 + 1/2 + ... + 1/i for i = 0..length, float64."""
    steps = torch.arange(1, length + 1, dtype=torch.float64, device=device).reciprocal()
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


def _expected(measure: _Measure, groups: _TieGroups, relevant: Tensor, harmonic: Tensor) -> Tensor:
    """The mean of a measure over all orders of equal distances, exactly, float64 [B].

    A run of n photos, m of them relevant, stands after s photos, h of them relevant. Position p of the run is
    relevant with probability m/n, and then (p-1)(m-1)/(n-1) relevant photos are expected before it in the
    run, so it adds m/n * (h + 1 + (p-1)(m-1)/(n-1)) / (s+p) to the sum of precisions. Over p this is a
    harmonic difference. Each of the m relevant photos carries one m-th of its run.
    """
    cut = _cut(measure, relevant)
    size = groups.size.double().clamp(min=1)
    reach = torch.minimum(torch.clamp(cut - groups.start, min=0), groups.size)
    if measure.family == "Prec":
        if measure.rule == "item K + 1":
            share = ((groups.start <= cut) & (cut < groups.start + groups.size)) / size
        else:
            share = reach / size
        return share.sum(1) / _divisor(measure, relevant, None)
    slope = (groups.hits - 1).clamp(min=0) / (size - 1).clamp(min=1)
    steps = harmonic[groups.start + reach.long()] - harmonic[groups.start]
    total = slope * reach + (groups.hits_before + 1 - slope * (groups.start + 1)) * steps
    return (total / size).sum(1) / _divisor(measure, relevant, None)


def _bound(measure: _Measure, groups: _TieGroups, relevant: Tensor, harmonic: Tensor, order: str) -> Tensor:
    """The largest ("best") or smallest ("worst") value that a measure takes over all tie orders, float64 [B].

    Mostly relevant photos come first, or last, among those equally far. Not so for "item K + 1", nor where
    the sum is divided by the hits: one late hit more can lower that mean. There the number x of hits that the
    run across the cut-off places within it is varied; for each x they stand as early or as late as they can.
    """
    ranks = groups.ranks(order)
    if measure.rule != "item K + 1" and (measure.divisor != "hits" or measure.k is None):
        return _from_ranks(measure, ranks, relevant)
    cut = _cut(measure, relevant)
    end = groups.start + groups.size
    if measure.rule == "item K + 1":
        here = (groups.start <= cut) & (cut < end)
        return (here if order == "best" else here & (groups.hits == groups.size)).any(1).double()
    column = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    whole = (end <= cut) & (groups.size > 0)
    before, total = whole.sum(1, keepdim=True), (column / ranks).masked_fill(~whole, 0.0).sum(1, keepdim=True)
    across = (groups.start < cut) & (cut < end)
    hits = across.sum(1, keepdim=True)
    start = groups.start.masked_fill(~across, 0).amax(1, keepdim=True)
    outside = (end - cut).masked_fill(~across, 0.0).amax(1, keepdim=True)
    fewest, most = torch.clamp(hits - outside, min=0), torch.minimum(hits, cut - start)
    x = torch.arange(int(most.max()) + 1, device=ranks.device).expand(len(ranks), -1)
    # x hits in a row after `lead` photos, `before` of them hits, have precisions (before + i) / (lead + i)
    photos = len(harmonic) - 1
    lead = start.expand_as(x) if order == "best" else (cut.clamp(max=photos).long() - x).clamp(min=0)
    last = torch.clamp(lead + x, max=photos)
    value = (total + x - (lead - before) * (harmonic[last] - harmonic[lead])) / (before + x).clamp(min=1)
    impossible = (x < fewest) | (x > most)
    if order == "best":
        return value.masked_fill(impossible, -math.inf).amax(1)
    return value.masked_fill(impossible, math.inf).amin(1)


def _mixed_bits(state: Tensor) -> Tensor:
    """splitmix64's mixing steps, in place; int64 products wrap around, the masks make the shifts logical."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state.bitwise_xor_((state >> shift).bitwise_and_(2 ** (64 - shift) - 1)).mul_(factor)
    return state.bitwise_xor_((state >> 31).bitwise_and_(2**33 - 1))


def _uniform(seed: int, streams: Sequence[Tensor | int], counter: Tensor) -> Tensor:
    """Uniform float64 in [0, 1), shaped like `counter`: the same on every device and for every block size.

    A counter-based generator: the seed and the numbers in `streams` (broadcast against `counter`) name a
    splitmix64 sequence, `counter` the place in it.
    """
    state = torch.zeros((), dtype=torch.int64, device=counter.device)
    for part in (seed, *streams):  # mixed one by one: neighbouring seeds must not share streams
        state = _mixed_bits((state + part + 1) * -7046029254386353131)
    bits = _mixed_bits((counter + 1).mul_(-7046029254386353131).add_(state))
    return (bits >> 11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53)


def _random_ranks(groups: _TieGroups, identity: Tensor, seed: int) -> Tensor:
    """Ranks of the relevant photos when equal distances come in random order, float64 [B, R], ascending.

    The m relevant photos of a run of n take a uniformly random m of its n positions. Sparse runs draw
    positions and draw again where two fell together: every step treats the positions alike, so every m-subset
    is equally likely. Runs more than half full are shuffled outright. identity: int64 [B], names each row's
    stream of random numbers.
    """
    start, size, before, hits = groups.start, groups.size, groups.hits_before, groups.hits
    rows, width = start.shape
    column = torch.arange(width, device=start.device).expand(rows, width)
    ranks = start + column - before

    sparse = (hits < size) & (2 * hits <= size)
    draw = (_uniform(seed, (identity[:, None], 0), column) * size).long()
    ranks = torch.where(sparse, start + draw, ranks)
    ranks = _sort_rows(torch.where(size > 0, ranks, 2**62 + column))
    again, attempt = torch.arange(rows, device=start.device), 0
    while True:
        part = ranks[again]
        same = part[:, 1:] == part[:, :-1]
        left = same.any(1)
        if not bool(left.any()):
            break
        again, part, attempt = again[left], part[left], attempt + 1
        row, at = same[left].nonzero(as_tuple=True)
        at = at + 1
        draw = (_uniform(seed, (identity[again[row]], attempt), at) * size[again[row], at]).long()
        part[row, at] = start[again[row], at] + draw
        ranks[again] = _sort_rows(part)

    dense = (hits < size) & (2 * hits > size)
    row, first = (dense & (column == before)).nonzero(as_tuple=True)
    if len(row):
        length, wanted = size[row, first], hits[row, first]
        run = torch.repeat_interleave(torch.arange(len(row), device=row.device), length)
        ends = length.cumsum(0)
        position = torch.arange(int(ends[-1]), device=row.device) - (ends - length)[run]
        key = run + _uniform(seed, (identity[row][run], -1 - first[run]), position)
        shuffled = torch.argsort(key, stable=True)
        taken = position[shuffled] < wanted[run]  # before shuffling, the relevant ones came first
        place, owner = position[taken], run[taken]
        nth = torch.arange(len(owner), device=row.device) - (wanted.cumsum(0) - wanted)[owner]
        ranks[row[owner], first[owner] + nth] = start[row, first][owner] + place
    return torch.where(size > 0, (ranks + 1).double(), math.inf)


def _sort_rows(table: Tensor) -> Tensor:
    """Each row ascending; the table given may be overwritten.

    NumPy's vectorised sort is several times faster on a CPU than torch's, which keeps the indices too.
    """
    if table.device.type == "cpu":
        values = table.contiguous().numpy()
        values.sort(axis=1)
        return torch.from_numpy(values)
    return table.sort(dim=1).values


# ----------------------------------------------------------------------------------------- chance and ceiling
@lru_cache(maxsize=1024)
def _chance(measures: frozenset[_Measure], relevant: int, photos: int) -> dict[_Measure, float]:
    """The expected value of each measure for a query whose gallery is in random order.

    That is a gallery whose photos all lie equally far, so the closed forms for ties apply; the other measures
    take the mean over `CHANCE_DRAWS` seeded random rankings.
    """
    if relevant == 0:
        return dict.fromkeys(measures, 0.0)
    table = torch.zeros((CHANCE_DRAWS, relevant), dtype=torch.int64)
    groups = _TieGroups(table, table + photos, table, table + relevant)
    number = torch.full((CHANCE_DRAWS,), relevant)
    one, harmonic = groups.rows(torch.arange(1)), _harmonic(photos, table.device)
    found = {measure: float(_expected(measure, one, number[:1], harmonic)[0])
             for measure in measures if measure.closed_form}
    if len(found) < len(measures):
        ranks = _random_ranks(groups, torch.arange(CHANCE_DRAWS), seed=relevant * 1_000_003 + photos)
        found |= {measure: float(_from_ranks(measure, ranks, number).mean())
                  for measure in measures if not measure.closed_form}
    return found


def _ceiling(measure: _Measure, relevant: np.ndarray, photos: int) -> np.ndarray:
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
    _values: dict[_Measure, np.ndarray] = field(repr=False)
    _draws: dict[_Measure, np.ndarray] = field(repr=False)

    def metrics(self, protocol: str) -> tuple[str, ...]:
        """The names of the metrics that a protocol has a value for."""
        return tuple(self._named(protocol))

    def _named(self, protocol: str) -> dict[str, _Measure]:
        if protocol not in self.protocols:
            raise InputError(f"protocol {protocol!r} was not scored; scored were {', '.join(self.protocols)}")
        rule = PROTOCOLS[protocol]
        return {**_measures(rule, self.ks), **_small_class_measures(rule)}

    def _measure(self, protocol: str, metric: str) -> _Measure:
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
        return self._values[_Measure("Prec", "hits / K", "", "R")]

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
        if not len(values):
            return 0.0
        if PROTOCOLS[protocol].average == "micro":
            return values.mean()
        number = np.bincount(group, minlength=len(self.classes))
        total = np.bincount(group, weights=values, minlength=len(self.classes))
        return (total[number > 0] / number[number > 0]).mean()

    def per_class(self, protocol: str, metric: str) -> dict[Any, float]:
        """Mean of the metric over the queries of each class."""
        values = self.per_query(protocol, metric)
        total = np.bincount(self.query_class, weights=values, minlength=len(self.classes))
        number = np.bincount(self.query_class, minlength=len(self.classes))
        return {name.item(): float(mean) for name, mean in zip(self.classes, total / number)}

    def summary(self) -> dict[str, dict[str, float]]:
        """The same numbers as `evaluate` returns."""
        return {name: {metric: self.value(name, metric) for metric in _measures(PROTOCOLS[name], self.ks)}
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
    block: int | None = None,
    device: str | torch.device | None = None,
) -> Scores:
    """As `evaluate`, with everything behind the numbers.

    missing_classes: what a class with queries but no photos means. "error" raises; "zero" scores its queries
        0; "as-released" leaves it out of mAP and counts it as 0 in Prec, as the released code does.
    ties: how photos at equal distance are ordered. "expected": the mean over random orders, in closed form
        for Prec and for raw AP with a fixed divisor, elsewhere the mean of `tie_draws` orders drawn with
        `seed` (its standard error: `Scores.error`). "best", "worst": the largest and the smallest value that
        any order gives. "gallery-order": as they stand in the gallery. "scikit-learn": in AP, all photos at
        one distance share the precision at the last of them (the top K being cut in gallery order); Prec is
        then in gallery order. "unstable-sort": the released code's way, whatever NumPy's default sort makes
        of the distances (always on the CPU); it depends on the processor and NumPy's version, so that no
        number of it can be expected elsewhere. Real-valued features tie where their cosines differ by less
        than about 1e-12 times the features' spread, so copies of a photo do, whatever the rounding.
    gallery_group [Ng]: integers or strings; equal values mark one photo that is listed several times.
    duplicates: "as-published" keeps all entries, "distinct" the first of each group, or of each class in it
        where its entries have several classes: a photo listed under two classes is relevant to both.
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
    if (query_names.dtype.kind == "U") != (photo_names.dtype.kind == "U"):
        raise InputError("query_labels and gallery_labels must be of one kind: both integers or both strings")
    if gallery_group is not None:  # a wrong array is an error even where it is not used
        gallery_group = _labels("gallery_group", gallery_group, len(photos), "gallery")
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
    if missing_classes == "error" and (counts == 0).any():
        absent = classes[counts == 0]
        names = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise InputError(f"gallery_labels has no photo for {len(absent)} query class(es): {names}; "
                         "leave their queries out, or choose missing_classes='zero' or 'as-released'")

    measures = {measure for name in protocols for measure in (
        *_measures(PROTOCOLS[name], ks).values(), *_small_class_measures(PROTOCOLS[name]).values())}
    measures.add(_Measure("Prec", "hits / K", "", "R"))

    def placed(index: np.ndarray) -> Tensor:
        return torch.from_numpy(index).to(place)

    # photos of one class side by side, so that a query's relevant photos are a slice
    order = np.argsort(photo_class, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    relevant = counts[query_class]
    # queries with similarly many relevant photos share a block, so that little of its table is padding
    schedule = np.lexsort((query_class, relevant))
    table = _Gallery.of(photos[placed(order)], placed(order), queries, metric)
    harmonic = _harmonic(len(photos), place)
    values = {measure: np.zeros(len(queries)) for measure in measures}
    draws: dict[_Measure, np.ndarray] = {}
    size = _block_size(block, len(photos))
    for begin in range(0, len(schedule), size):
        chosen = schedule[begin:begin + size]
        if relevant[chosen].max() == 0:
            continue
        found, sampled = _score_block(
            table, queries[placed(chosen)], placed(starts[query_class[chosen]]), placed(relevant[chosen]),
            placed(chosen), measures, harmonic, ties, tie_draws, seed)
        for measure, value in found.items():
            values[measure][chosen] = value.cpu().numpy()
        for measure, (rows, value) in sampled.items():
            if measure not in draws:
                draws[measure] = np.full((len(queries), tie_draws), np.nan)
            draws[measure][chosen[rows.cpu().numpy()]] = value.cpu().numpy()
    for measure, drawn in draws.items():
        # queries without such ties have the same value in every draw
        drawn[:] = np.where(np.isnan(drawn), values[measure][:, None], drawn)
    return Scores(protocols, metric, ties, missing_classes, duplicates, ks, len(queries), len(photos),
                  classes, query_class, relevant, values, draws)


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
    table = _Gallery.of(photos, torch.arange(len(photos), device=photos.device), queries, metric)
    size = _block_size(block, len(photos))
    k = min(k, len(photos))
    found = []
    for begin in range(0, len(queries), size):
        keys = table.keys(table.distances(queries[begin:begin + size]))
        found.append((keys.topk(k, dim=1, largest=False, sorted=True).values % len(photos)).cpu().numpy())
    return np.concatenate(found)


# -------------------------------------------------------------------------------------------------- one block
@dataclass(frozen=True)
class _Gallery:
    """Gallery features [N, D] ready for distances, and where each row stood in the gallery as given [N]."""

    features: Tensor
    order: Tensor
    metric: str
    centre: Tensor  #: [D], subtracted from photos and queries alike; unused with codes
    scale: float  #: distances are counted in units of 1 / scale; 1 with codes

    @classmethod
    def of(cls, photos: Tensor, order: Tensor, queries: Tensor, metric: str) -> _Gallery:
        """photos [N, D] and all the queries that will come, as `_comparable` gives them.

        Directions that all lie close together, as a collapsed network's, differ in the last digits of their
        products only. Around their centre the products are as small as the differences, and lose nothing.
        """
        if metric == "hamming":
            return cls(photos, order, metric, photos.new_zeros(photos.shape[1]), 1.0)
        centre = photos.mean(0)
        centred = photos - centre
        reach = max(float(torch.linalg.vector_norm(rows, dim=1).max()) for rows in (centred, queries - centre))
        spread = 2.0 ** math.ceil(math.log2(min(1.0, max(reach, _LEAST_SPREAD))))
        return cls(centred, order, metric, centre, _RESOLUTION / spread)

    def distances(self, queries: Tensor) -> Tensor:
        """Whole numbers, float64 [B, N], growing with distance: Hamming, or half the squared distance in units.

        For unit vectors that half is the cosine distance, and it orders photos as the distance does.
        """
        if self.metric == "hamming":
            product = queries @ self.features.T
            return product.neg_().add_(self.features.shape[1]).div_(2).double()
        queries = queries - self.centre
        halves = [rows.square().sum(1).div_(2) for rows in (queries, self.features)]
        product = (queries @ self.features.T).neg_().add_(halves[0][:, None]).add_(halves[1])
        return product.mul_(self.scale).round_().clamp_(min=0.0)

    def unstable_ranks(self, distances: Tensor) -> Tensor:
        """float64 [B, N], from 1: where NumPy's default sort, given the photos in gallery order, puts each."""
        given = torch.empty_like(distances)
        given[:, self.order] = distances
        found = np.argsort(given.cpu().numpy(), axis=1)
        ranks = np.empty(found.shape)
        np.put_along_axis(ranks, found, np.arange(1.0, found.shape[1] + 1)[None], axis=1)
        return torch.from_numpy(ranks).to(distances.device)[:, self.order]

    def keys(self, distances: Tensor) -> Tensor:
        """int64 [B, N], all different in a row: by distance, then by gallery order."""
        if len(self.features) > 2**21:
            raise InputError(f"gallery has {len(self.features)} rows; gallery order is kept up to {2**21}")
        return distances.to(torch.int64).mul_(len(self.features)).add_(self.order)


def _score_block(
    gallery: _Gallery, queries: Tensor, starts: Tensor, relevant: Tensor, identity: Tensor,
    measures: set[_Measure], harmonic: Tensor, ties: str, tie_draws: int, seed: int,
) -> tuple[dict[_Measure, Tensor], dict[_Measure, tuple[Tensor, Tensor]]]:
    """All measures of a block of queries, and of those sampled the rows and their values [rows, draws].

    starts, relevant: int64 [B], where each query's relevant photos begin in the gallery, and how many.
    """
    distances = gallery.distances(queries)
    width = int(relevant.max())
    column = torch.arange(width, device=queries.device)
    present = column < relevant[:, None]
    at = (starts[:, None] + column).clamp_(max=distances.shape[1] - 1)
    if ties == "unstable-sort":
        ranks = gallery.unstable_ranks(distances).gather(1, at).masked_fill_(~present, math.inf)
        return {measure: _from_ranks(measure, _sort_rows(ranks), relevant) for measure in measures}, {}
    by_order = None
    if ties in ("gallery-order", "scikit-learn"):
        keys = gallery.keys(distances)
        wanted = _sort_rows(keys.gather(1, at).masked_fill_(~present, 2**62))
        by_order = torch.searchsorted(_sort_rows(keys), wanted) + 1
        by_order = torch.where(present, by_order.double(), math.inf)
    nearest = _sort_rows(distances.gather(1, at).masked_fill_(~present, math.inf))
    groups = _TieGroups.of(_sort_rows(distances), nearest)

    if ties == "gallery-order":
        return {measure: _from_ranks(measure, by_order, relevant) for measure in measures}, {}
    if ties == "scikit-learn":
        last = torch.where(present, (groups.start + groups.size).double(), math.inf)
        return {measure: _from_ranks(measure, by_order, relevant, last if measure.family == "AP" else None)
                for measure in measures}, {}
    if ties in ("best", "worst"):
        return {measure: _bound(measure, groups, relevant, harmonic, ties) for measure in measures}, {}

    ranks = groups.ranks("best")
    mixed = groups.mixed.nonzero()[:, 0]
    sampled = [measure for measure in measures if not measure.closed_form]
    found = {measure: (_expected(measure, groups, relevant, harmonic) if measure.closed_form and len(mixed)
                       else _from_ranks(measure, ranks, relevant)) for measure in measures}
    if not len(mixed) or not sampled:
        return found, {}
    drawn = {measure: torch.empty((len(mixed), tie_draws), dtype=torch.float64, device=queries.device)
             for measure in sampled}
    rows = max(1, _SAMPLED_ELEMENTS // (width * tie_draws))
    for begin in range(0, len(mixed), rows):
        part = mixed[begin:begin + rows].repeat_interleave(tie_draws)
        draw = torch.arange(tie_draws, device=queries.device).repeat(len(part) // tie_draws)
        ranks = _random_ranks(groups.rows(part), identity[part] * tie_draws + draw, seed)
        for measure in sampled:
            values = _from_ranks(measure, ranks, relevant[part])
            drawn[measure][begin:begin + rows] = values.view(-1, tie_draws)
    for measure in sampled:
        found[measure][mixed] = drawn[measure].mean(1)
    return found, {measure: (mixed, drawn[measure]) for measure in sampled}


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
    else:
        array = _array(name, values)
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
        if not is_code:
            raise InputError(f"{name} is {tensor.dtype}; metric='hamming' needs codes, bool or uint8 0-1")
        if tensor.dtype == torch.uint8 and int(tensor.max()) > 1:
            raise InputError(f"{name} holds {int(tensor.max())}; codes are 0 and 1, so unpack packed bits")
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
