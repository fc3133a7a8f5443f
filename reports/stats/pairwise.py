"""Compares any number of sides pair by pair: differences by class with intervals and corrected tests; by query they are only
described.

In: each side's value for the same queries. Out: plain records. The class is the unit of every test, as in the rest of the report.
The sketches of a class are ranked against the same photos, and an easy class is easy for all of them, so the queries of one class
are not independent. A new data set also brings new classes.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import t

from reports.stats.uncertainty import LEVEL, Comparison, compare, holm

SIGNIFICANT = 0.05
WHY = ("Significance is by class, not by query: the queries of a class meet the same photos and share what makes the class easy "
       "or hard, so they are not independent, and a test over them would find almost every difference. What is asked is whether "
       "the difference would show on other classes.")
EQUAL = 1e-12
"""Values that differ by at most this count as equal."""


@dataclass(frozen=True)
class Side:
    """One side of the comparison: the values under one name."""

    name: str
    classes: np.ndarray
    """The class of each query, str [Nq]; the same queries in the same order for all sides."""
    values: Mapping[str, Mapping[int, np.ndarray]]
    """Metric -> seed -> value for each query, float64 [Nq]."""
    left_out: Mapping[str, frozenset[str]]
    """Metric -> classes that its protocol leaves out of the mean: those without photos."""

    def seeds(self, metric: str) -> list[int]:
        """Seeds that have the metric, ascending."""
        return sorted(self.values[metric])

    def by_query(self, metric: str) -> float:
        """Mean over queries and seeds of the metric."""
        kept = ~np.isin(self.classes, list(self.left_out[metric]))
        return float(np.mean([values[kept].mean() for values in self.values[metric].values()]))

    def by_class(self, metric: str) -> float:
        """Mean over classes, of the mean over each class's queries, and over seeds."""
        names = [name for name in np.unique(self.classes) if name not in self.left_out[metric]]
        return float(class_means(self, metric, names, self.seeds(metric)).mean())


@dataclass(frozen=True)
class OfClass:
    """Both sides on one class: means over its queries, and the interval of their difference over its queries alone."""

    name: str
    queries: int
    first: float
    second: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricGap:
    """first - second in one metric, over the seeds that both have."""

    first: str
    second: str
    metric: str
    comparison: Comparison
    """By class: intervals and tests over classes, and over seeds where there are several."""
    p: float
    """`comparison.p_classes`, Holm-corrected over all pairs and metrics of the call."""
    queries: int
    above: int
    """Number of queries whose mean over seeds is higher on the first side."""
    below: int
    of_queries: float
    """Mean over queries of the difference. Its interval assumes that queries are independent, so no verdict uses it."""
    low: float
    high: float
    classes: tuple[OfClass, ...]

    @property
    def significant(self) -> bool:
        """Whether the corrected test over classes is below SIGNIFICANT."""
        return self.p < SIGNIFICANT


def pairs(sides: Sequence[Side], metrics: Sequence[str]) -> list[MetricGap]:
    """Every pair of sides in every metric, ordered by metric. ValueError for sides with other queries or without a common seed.

    >>> import numpy as np
    >>> kinds = np.array(["ant", "ant", "bee"])
    >>> side = lambda name, *ap: Side(name, kinds, {"mAP@all": {0: np.array(ap)}}, {"mAP@all": frozenset()})
    >>> found, = pairs([side("A", .5, .7, .2), side("B", .4, .4, .2)], ["mAP@all"])
    >>> round(found.comparison.difference, 3), found.p, (found.above, found.below), round(found.of_queries, 3)
    (0.1, 1.0, (2, 0), 0.133)
    """
    found = [_pair(first, second, metric) for metric in metrics for first, second in combinations(sides, 2)]
    corrected = holm([pair.p for pair in found])
    return [MetricGap(**{**vars(pair), "p": p}) for pair, p in zip(found, corrected)]


def _pair(first: Side, second: Side, metric: str) -> MetricGap:
    if not np.array_equal(first.classes, second.classes):
        raise ValueError(f"{first.name} and {second.name} are not of the same queries")
    seeds = sorted(set(first.seeds(metric)) & set(second.seeds(metric)))
    if not seeds:
        raise ValueError(f"{first.name} and {second.name} have no seed in common")
    names = [name for name in np.unique(first.classes)
             if name not in first.left_out[metric] and name not in second.left_out[metric]]
    a, b = (np.mean([side.values[metric][seed] for seed in seeds], axis=0) for side in (first, second))
    gaps = a - b
    gaps[np.abs(gaps) <= EQUAL] = 0.0
    rows = []
    for name in names:
        own = first.classes == name
        rows.append(OfClass(str(name), int(own.sum()), float(a[own].mean()), float(b[own].mean()), *_interval(gaps[own])))
    kept = gaps[np.isin(first.classes, names)]
    comparison = compare(class_means(first, metric, names, seeds), class_means(second, metric, names, seeds))
    return MetricGap(first.name, second.name, metric, comparison, comparison.p_classes, len(kept), int((kept > 0).sum()),
                int((kept < 0).sum()), float(kept.mean()), *_interval(kept), tuple(rows))


def class_means(side: Side, metric: str, names: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """float64 [S, C]: mean of the metric over the queries of each class, for each seed."""
    classes, index = np.unique(side.classes, return_inverse=True)
    counts = np.bincount(index, minlength=len(classes))
    place = np.searchsorted(classes, list(names))
    return np.array([(np.bincount(index, weights=side.values[metric][seed]) / counts)[place] for seed in seeds])


def _interval(gaps: np.ndarray) -> tuple[float, float]:
    """t interval of the mean of paired differences [n]; NaN below two."""
    if len(gaps) < 2:
        return math.nan, math.nan
    half = float(t.ppf((1 + LEVEL) / 2, len(gaps) - 1)) * float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return float(gaps.mean()) - half, float(gaps.mean()) + half
