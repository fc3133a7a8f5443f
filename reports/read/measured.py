"""One number over the seeds of a row.

In: values by seed, and the seeds that were planned. Out: mean and standard deviation, on how many of the planned seeds they
rest, and differences paired by seed.
"""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from reports.read.runs import FinishedRun

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Measured:
    """One number over seeds, with the seeds that it was expected from."""

    values: dict[int, float]
    """Seed -> value, for the seeds that have it."""
    expected: tuple[int, ...]
    """Seeds planned or found for this row."""
    chance: tuple[float, ...] = ()
    """Distinct chance levels among the seeds: one, where all saw the same queries and gallery."""
    ceiling: tuple[float, ...] = ()
    queries: int = 0
    """Queries behind each seed's value (the largest among seeds)."""
    photos: int = 0
    runs: tuple[FinishedRun, ...] = field(default=(), repr=False)
    standard_error: float = 0.0
    """Largest standard error among seeds of a value that is a mean over sampled tie orders; 0 where it is exact."""
    ties: tuple[str, ...] = ()
    """How equal distances were ordered, where not all seeds agree on `expected`."""

    @property
    def n(self) -> int:
        """How many seeds have a value."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where nothing was measured."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation over seeds (divisor n - 1); NaN below two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else math.nan

    @property
    def seeds(self) -> str:
        """`3/3`, `2/3`, or `1 seed` where one was all that was planned.

        >>> Measured({0: .5}, (0,)).seeds, Measured({0: .5}, (0, 1, 2)).seeds, Measured({}, ()).seeds
        ('1 seed', '1/3', 'none')
        """
        if not self.expected:
            return "none"
        if self.n == len(self.expected) == 1:
            return "1 seed"
        return f"{self.n}/{len(self.expected)}"

    def text(self, decimals: int = 3) -> str:
        """Mean ± sd, or `not measured`.

        >>> Measured({0: .1, 1: .3}, (0, 1)).text(), Measured({}, (0, 1)).text()
        ('0.200 ± 0.141', 'not measured')
        """
        if not self.values:
            return NOT_MEASURED
        spread = f" ± {self.sd:.{decimals}f}" if self.n > 1 else ""
        return f"{self.mean:.{decimals}f}{spread}"


def paired(first: Measured, second: Measured) -> Measured:
    """first - second, seed by seed, over the seeds that both have; its runs are both sides' runs of those seeds.

    >>> gap = paired(Measured({0: .5, 1: .75}, (0, 1)), Measured({0: .25, 1: .25, 2: .1}, (0, 1, 2)))
    >>> gap.values, gap.seeds
    ({0: 0.25, 1: 0.5}, '2/3')
    """
    common = sorted(set(first.values) & set(second.values))
    runs = {run.name: run for side in (first, second) for run in side.runs if run.seed in common}
    return Measured({seed: first.values[seed] - second.values[seed] for seed in common},
                    tuple(sorted({*first.expected, *second.expected})), runs=tuple(runs.values()),
                    standard_error=math.hypot(first.standard_error, second.standard_error))
