"""How sure a number is: BCa bootstrap intervals, paired comparisons with sign-flip tests, Holm's correction.

In: arrays [S seeds, C classes] of class means (queries of one class are not independent, so the class is the unit).
Out: plain values. Pure functions: the same arrays give the same answer, digit for digit. The paper gives none of this.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import norm, t

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 2021
"""Seed of every random draw, fixed before any result was seen."""
EXACT = 14
"""Up to this many units a sign-flip test goes through all sign patterns (2^14 = 16,384)."""
FLIPS = 19_999
"""Random sign patterns above that: the smallest p-value is then 1 / 20,000."""
ROUNDING = 1e-12
"""Sums that differ by less than this share of their terms count as equal, so that the order of adding decides nothing."""


@dataclass(frozen=True)
class Interval:
    """An interval of a mean; `low` and `high` are NaN if there is nothing to resample."""

    low: float
    high: float
    level: float = LEVEL
    method: str = ""
    """What was resampled, in words."""

    @property
    def excludes_zero(self) -> bool:
        """False if the interval contains 0, touches it or is unknown.

        >>> Interval(0.1, 0.2).excludes_zero, Interval(0.0, 0.2).excludes_zero, Interval(math.nan, math.nan).excludes_zero
        (True, False, False)
        """
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """a - b on the same seeds and classes."""

    difference: float
    """Grand mean of a - b."""
    interval: Interval
    effect: float
    """d_z: mean over standard deviation, over classes, of the seed-mean differences; NaN below two classes or without spread."""
    share: float
    """Share of classes whose seed-mean difference is above 0; equal ones count half."""
    p_seeds: float
    """Two-sided sign-flip test over seeds of the class-mean differences."""
    p_classes: float
    """Two-sided sign-flip test over classes of the seed-mean differences: the question whether these networks, and not
    training again, differ on other classes. NaN with one class, as for a number that has none."""
    best_p_seeds: float
    """The smallest `p_seeds` that this number of seeds can reach."""
    seeds: int
    classes: int
    wins: int
    """Number of seeds whose difference is above 0."""


def interval(values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """BCa bootstrap interval of the grand mean of `values` [S, C], resampling seeds and classes.

    Crossed resampling: one draw takes S seeds and C classes with replacement, and every drawn seed meets every drawn class
    (Owen, "The pigeonhole bootstrap", 2007: never too narrow by what seeds and classes do together). With one seed only
    classes are resampled, with one class only seeds, and `method` says so.

    Bias correction: the share of resampled means below the mean, equal ones half, as a normal quantile. Acceleration: for
    statistics of several independent samples, here the two factors, sum(u^3) / (6 sum(u^2)^1.5), where u runs over
    both factors' jackknife influences, (n - 1)/n (mean of the left-out means - mean without this one); of a grand mean this
    is (a seed's mean - grand mean) / S and (a class's mean - grand mean) / C. Leaving out single cells [s, c] instead
    would treat them as independent, which is what the resampling denies.

    A bootstrap of few units is narrow: of six seeds that differ as much as 30 classes do, it holds the mean in 0.91 of
    simulated cases instead of 0.95 (tests/report/test_statistics.py).

    All values equal: low = high = that value. A single value, or none: NaN. ValueError for NaN, infinities or another shape.

    >>> interval(np.full((2, 3), 0.5)).low, interval(np.array([[0.5]])).method
    (0.5, 'nothing to resample')
    """
    values = _checked(values)
    seeds, classes = values.shape
    if values.size < 2:
        return Interval(math.nan, math.nan, level, "nothing to resample")
    factors = [name for name, n in (("seeds", seeds), ("classes", classes)) if n > 1]
    method = "BCa bootstrap over " + (" and ".join(reversed(factors)) if len(factors) > 1 else f"{factors[0]} only")
    mean = values.mean()
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        return Interval(float(mean), float(mean), level, f"{method}; all values are equal")
    by_seed = _counts(classes, resamples, 1) @ values.T / classes
    means = (by_seed * _counts(seeds, resamples, 0)).sum(1) / seeds
    slack = ROUNDING * np.abs(values).max()
    below = ((means < mean - slack).mean() + (means <= mean + slack).mean()) / 2
    bias = norm.ppf(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    influence = np.concatenate([(values.mean(axis) - mean) / n for axis, n in ((1, seeds), (0, classes)) if n > 1])
    spread = (influence**2).sum()
    # If all rows and all columns have the same mean, as on a chessboard, there is no skewness to correct.
    acceleration = (influence**3).sum() / (6 * spread**1.5) if spread > slack**2 else 0.0
    edge = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, norm.cdf(bias + edge / (1 - acceleration * edge)))
    return Interval(float(low), float(high), level, method)


def half_width(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of a mean over seeds; NaN for fewer than two, of which nothing can be told.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    seeds = len(values)
    return float(t.ppf(0.5 + LEVEL / 2, seeds - 1) * np.std(values, ddof=1) / math.sqrt(seeds)) if seeds > 1 else math.nan


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """first - second, both [S, C] of the same seeds and classes in the same order. ValueError as for `interval`.

    >>> found = compare(np.array([[0.5, 0.6, 0.9]]), np.array([[0.4, 0.4, 0.8]]))
    >>> round(found.difference, 3), found.share, found.p_seeds, found.p_classes
    (0.133, 1.0, 1.0, 0.25)
    """
    first, second = _checked(first), _checked(second)
    if first.shape != second.shape:
        raise ValueError("a paired comparison needs the same seeds and classes on both sides, "
                         f"not {first.shape} and {second.shape}")
    gaps = first - second
    slack = ROUNDING * max(np.abs(first).max(initial=0), np.abs(second).max(initial=0))
    gaps[np.abs(gaps) <= slack] = 0.0
    seeds, classes = gaps.shape
    by_seed, by_class = (gaps.mean(1), gaps.mean(0)) if gaps.size else (np.array([]), np.array([]))
    spread = float(by_class.std(ddof=1)) if len(by_class) > 1 else 0.0
    effect = float(by_class.mean()) / spread if spread > slack else math.nan
    return Comparison(
        float(gaps.mean()) if gaps.size else math.nan, interval(gaps), effect,
        float(((by_class > 0) + 0.5 * (by_class == 0)).mean()) if gaps.size else math.nan, sign_flip(by_seed),
        sign_flip(by_class) if len(by_class) > 1 else math.nan, best_p(seeds), seeds, classes, int((by_seed > 0).sum()))


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p-value of `differences` [n] under the null hypothesis that each could as well have the opposite sign.

    The share of sign patterns whose sum is at least as far from 0 as the observed one: over all 2^n patterns up to EXACT
    differences, above that over FLIPS seeded random ones, (b + 1) / (FLIPS + 1). NaN without differences.

    >>> sign_flip(np.array([1.0, 2.0, 3.0])), sign_flip(np.array([1.0, -1.0])), sign_flip(np.zeros(3))
    (0.25, 1.0, 1.0)
    """
    differences = np.asarray(differences, dtype=np.float64)
    if not differences.size:
        return math.nan
    reached = abs(differences.sum()) - ROUNDING * np.abs(differences).sum()
    if len(differences) <= EXACT:
        return float((np.abs(_all_signs(len(differences)) @ differences) >= reached).mean())
    return (int((np.abs(_random_signs(len(differences)) @ differences) >= reached).sum()) + 1) / (FLIPS + 1)


def best_p(units: int) -> float:
    """Smallest p-value that a two-sided sign-flip test over `units` units can reach: 2 / 2^units.

    >>> best_p(6), best_p(1), best_p(0)
    (0.03125, 1.0, 1.0)
    """
    return min(1.0, 2.0 ** (1 - units))


def seeds_needed(tests: int = 1, level: float = 0.05) -> int:
    """Fewest seeds at which a sign-flip test over seeds, Holm-corrected over `tests` of them, can fall below `level`.

    >>> seeds_needed(), seeds_needed(10)
    (6, 9)
    """
    return next(seeds for seeds in range(1, 1000) if max(1, tests) * best_p(seeds) < level)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction in the order given: the chance of a single false finding among all stays below the level.

    The i-th smallest of m p-values is multiplied by m - i + 1, never below the one before it, never above 1. NaN stays NaN
    and is not counted as a test.

    >>> [round(q, 3) for q in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected = [math.nan] * len(p)
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    reached = 0.0
    for place, i in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - place) * p[i]))
        corrected[i] = reached
    return corrected


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.array(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"expected values of seeds and classes [S, C], not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinities: leave the class or the seed out on both sides first, and say so")
    return values


@lru_cache(maxsize=64)
def _counts(units: int, resamples: int, stream: int) -> np.ndarray:
    """How often each unit was drawn, float64 [resamples, units]. A single unit is always drawn."""
    drawn = np.random.default_rng([SEED, stream, units]).multinomial(units, np.full(units, 1 / units), size=resamples)
    return drawn.astype(np.float64)


@lru_cache(maxsize=16)
def _all_signs(units: int) -> np.ndarray:
    patterns = np.arange(2**units)[:, None] >> np.arange(units) & 1
    return 1.0 - 2.0 * patterns


@lru_cache(maxsize=16)
def _random_signs(units: int) -> np.ndarray:
    return 1.0 - 2.0 * np.random.default_rng([SEED, 2, units]).integers(0, 2, size=(FLIPS, units)).astype(np.float64)
