"""Ranks, or runs of equal distance, to the values of measures, on tables of a whole block.

In: ranks float64 [B, R] of B queries with R relevant photos each, or their `Runs`. Out: float64 [B] for each measure, the same
as from `tcn.scoring.measures`; what several measures share is summed once.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from tcn.scoring.cpu.runs import Runs
from tcn.scoring.protocols import AP, Divisor, Measure, Prec, Precision


def table_values(measures: Iterable[Measure], ranks: np.ndarray) -> dict[Measure, np.ndarray]:
    """Each measure, float64 [B], of queries that all have R relevant photos, at these ranks (float64 [B, R], ascending).

    The values are those of `tcn.scoring.measures.from_ranks`; sums that measures share are computed once.
    """
    table = _Ranked(ranks)
    return {measure: table.value(measure) for measure in measures}


class _Ranked:
    """Ranks [B, R] of relevant photos, and the sums that measures share."""

    def __init__(self, ranks: np.ndarray) -> None:
        self.ranks, self.number = ranks, ranks.shape[1]
        self._sums: dict[tuple[bool, int | None], np.ndarray] = {}
        self._counts: dict[int, np.ndarray] = {}
        self._precision: np.ndarray | None = None

    def value(self, measure: Measure) -> np.ndarray:
        """One measure of each query, float64 [B]."""
        if isinstance(measure, Prec):
            cut = measure.cut_off(self.number)
            if measure.rule is Precision.NEXT_ITEM:
                next_item: np.ndarray = (self.ranks[:, :cut + 1] == cut + 1).any(1)
                return next_item.astype(np.float64)
            return self.hits(cut) / measure.over(self.number)
        total = self.total(measure.interpolated, measure.k)
        if measure.k is not None and measure.divisor is Divisor.HITS:
            mean: np.ndarray = total / np.maximum(self.hits(measure.k), 1)
            return mean
        return total / measure.over(self.number)

    def hits(self, cut: int) -> np.ndarray:
        """Relevant photos among the first `cut`, int64 [B]."""
        if cut not in self._counts:
            self._counts[cut] = np.count_nonzero(self.ranks[:, :cut] <= cut, axis=1)
        return self._counts[cut]

    def total(self, interpolated: bool, cut: int | None) -> np.ndarray:
        """Sum of the precisions at the hits within the cut-off, or of the largest at a hit's rank or later."""
        if (interpolated, cut) not in self._sums:
            if self._precision is None:
                self._precision = np.arange(1.0, self.number + 1) / self.ranks
            values = self._precision
            if cut is not None:  # the first K photos hold at most K hits
                inside = self.ranks[:, :cut] <= cut
                values = values[:, :cut] * inside
            if interpolated:
                # Hits after the cut-off have precision 0 here, so they raise no earlier one.
                values = _largest_from_here_on(values)
            self._sums[interpolated, cut] = values.sum(1)
        return self._sums[interpolated, cut]


def _largest_from_here_on(values: np.ndarray) -> np.ndarray:
    """The largest of each value and those after it in its row; float64 [B, R], none negative, in reversed order.

    The values are compared as whole numbers, which have the same order for floats of 0 and above and take less time.
    """
    backwards = np.ascontiguousarray(values).view(np.int64)[:, ::-1]
    largest: np.ndarray = np.maximum.accumulate(backwards, axis=1)
    return largest.view(np.float64)


def expectations(measures: Iterable[Measure], runs: Runs, number: int, harmonic: np.ndarray) -> dict[Measure, np.ndarray]:
    """Means over all tie orders, float64 [B], as in `tcn.scoring.measures.expected`; each run is computed once."""
    share = runs.hits / np.maximum(runs.size, 1)
    slope = np.maximum(runs.hits - 1, 0) / np.maximum(runs.size - 1, 1)
    level = runs.before + 1 - slope * (runs.start + 1)
    sums: dict[tuple[Literal["hits", "precisions"], int | None], np.ndarray] = {}

    def total(what: Literal["hits", "precisions"], cut: int | None) -> np.ndarray:
        """Expected sum over the positions up to the cut-off, float64 [B]."""
        if (what, cut) not in sums:
            reach = runs.size if cut is None else np.clip(cut - runs.start, 0, runs.size)
            steps = reach if what == "hits" else (
                slope * reach + level * (harmonic[runs.start + reach] - harmonic[runs.start]))
            sums[what, cut] = (share * steps).sum(1)
        return sums[what, cut]

    found: dict[Measure, np.ndarray] = {}
    for measure in measures:
        if isinstance(measure, AP):
            found[measure] = total("precisions", measure.k) / measure.over(number)
            continue
        cut = measure.cut_off(number)
        if measure.rule is Precision.NEXT_ITEM:
            here = (runs.start <= cut) & (cut < runs.start + runs.size)
            found[measure] = (share * here).sum(1)
        else:
            found[measure] = total("hits", cut) / measure.over(number)
    return found
