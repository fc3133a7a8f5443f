"""Intervals, paired tests and Holm's correction against another library, naive loops, closed forms and worked examples."""
from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import scipy.stats

from reports.stats import uncertainty
from reports.stats.uncertainty import best_p, compare, holm, interval, seeds_needed, sign_flip

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Differences in height of 15 pairs of maize plants in eighths of an inch (Darwin 1876), the example of Fisher (1935)."""


def crossed(seeds: int, classes: int, rng: np.random.Generator, by_seed: float, by_class: float, rest: float) -> np.ndarray:
    """Values [S, C] with random seeds, random classes and noise, all of mean 0."""
    return (by_seed * rng.normal(size=(seeds, 1)) + by_class * rng.normal(size=(1, classes))
            + rest * rng.normal(size=(seeds, classes)))


def test_one_seed_agrees_with_scipys_bca():
    values = np.random.default_rng(0).exponential(size=(1, 40))
    ours = interval(values)
    theirs = scipy.stats.bootstrap((values[0],), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1),
                                   confidence_level=0.95).confidence_interval
    width = theirs.high - theirs.low
    assert ours.method == "BCa bootstrap over classes only" and ours.level == 0.95
    assert abs(ours.low - theirs.low) < 0.03 * width and abs(ours.high - theirs.high) < 0.03 * width
    # the data are skewed: a symmetric interval would miss BCa's by more than the tolerance above
    assert ours.high - values.mean() > 1.15 * (values.mean() - ours.low)


def test_one_class_resamples_seeds_and_other_levels_nest():
    values = np.random.default_rng(3).exponential(size=(12, 1))
    ours = interval(values)
    theirs = scipy.stats.bootstrap((values[:, 0],), np.mean, n_resamples=20_000, rng=np.random.default_rng(1)).confidence_interval
    assert ours.method == "BCa bootstrap over seeds only"
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.04 * (theirs.high - theirs.low))
    narrow = interval(values, level=0.8)
    assert ours.low < narrow.low < values.mean() < narrow.high < ours.high


def test_crossed_interval_is_that_of_naive_loops():
    rng = np.random.default_rng(5)
    values = rng.exponential(size=(4, 7)) + rng.exponential(size=(4, 1))
    seeds, classes, resamples = 4, 7, 500
    drawn_seeds, drawn_classes = uncertainty._counts(seeds, resamples, 0), uncertainty._counts(classes, resamples, 1)
    assert (drawn_seeds.sum(1) == seeds).all() and (drawn_classes.sum(1) == classes).all()
    means = []
    for r in range(resamples):
        picked = [values[s, c] for s in range(seeds) for _ in range(int(drawn_seeds[r, s]))
                  for c in range(classes) for _ in range(int(drawn_classes[r, c]))]
        means.append(statistics.fmean(picked))
    mean = statistics.fmean(values.ravel())
    influences = []
    for axis, n in ((0, seeds), (1, classes)):
        left_out = [float(np.delete(values, i, axis).mean()) for i in range(n)]
        influences += [(n - 1) / n * (statistics.fmean(left_out) - value) for value in left_out]
    a = sum(u**3 for u in influences) / (6 * sum(u**2 for u in influences) ** 1.5)
    normal = statistics.NormalDist()
    z0 = normal.inv_cdf(sum(m < mean for m in means) / resamples)
    bounds = []
    for tail in (0.025, 0.975):
        z = z0 + normal.inv_cdf(tail)
        at = normal.cdf(z0 + z / (1 - a * z)) * (resamples - 1)
        low = sorted(means)[math.floor(at)]
        bounds.append(low + (at - math.floor(at)) * (sorted(means)[math.ceil(at)] - low))
    found = interval(values, resamples=resamples)
    assert (found.low, found.high) == pytest.approx(bounds, abs=1e-9) and found.method == "BCa bootstrap over classes and seeds"


def test_width_of_additive_values_follows_the_closed_form():
    # of r_s + q_c, seeds and classes drawn apart, the mean's variance is var(r) / S + var(q) / C (divisors S and C)
    rng = np.random.default_rng(8)
    by_seed, by_class = rng.normal(size=(20, 1)), rng.normal(size=(1, 30))
    found = interval(by_seed + by_class)
    expected = 2 * 1.96 * math.sqrt(by_seed.var() / 20 + by_class.var() / 30)
    assert found.high - found.low == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("seeds, classes, by_seed, lowest", [(6, 30, 0.3, 0.90), (1, 40, 0.0, 0.90), (6, 30, 1.0, 0.82)])
def test_interval_covers_the_mean_it_should(seeds, classes, by_seed, lowest):
    # six seeds that differ as much as classes do: a bootstrap of six is known to be narrow, and the report says how many it had
    rng = np.random.default_rng(13)
    held = []
    for _ in range(300):
        found = interval(crossed(seeds, classes, rng, by_seed, 1.0, 0.5), resamples=1000)
        held.append(found.low <= 0 <= found.high)
    assert lowest <= np.mean(held) <= 0.99


def test_degenerate_values_are_defined():
    same = interval(np.full((3, 4), 0.1))
    assert same.low == same.high == pytest.approx(0.1) and "equal" in same.method
    for alone in (np.array([[0.3]]), np.empty((0, 5))):
        found = interval(alone)
        assert math.isnan(found.low) and math.isnan(found.high) and not found.excludes_zero
    chessboard = interval(np.indices((4, 4)).sum(0) % 2 * 1.0)  # all rows and columns average to 0.5
    assert chessboard.low < 0.5 < chessboard.high
    two = interval(np.array([[0.0], [1.0]]))
    assert 0 <= two.low <= 0.5 <= two.high <= 1
    for bad in (np.array([[1.0, math.nan]]), np.array([[math.inf, 1.0]]), np.array([1.0, 2.0])):
        with pytest.raises(ValueError):
            interval(bad)


def test_rows_and_columns_whose_means_differ_by_rounding_leave_no_skewness():
    square = (np.arange(7)[:, None] * 3 + np.arange(7)) % 7 + 1  # every row and column holds 1 to 7 once
    whole, tenths = interval(square * 1.0), interval(square / 10)
    assert len({float(mean) for axis in (0, 1) for mean in (square / 10).mean(axis)}) > 1  # added in another order
    assert (tenths.low, tenths.high) == pytest.approx((whole.low / 10, whole.high / 10), abs=1e-9)


def test_same_values_same_answer_and_shift_and_scale():
    values = np.random.default_rng(2).exponential(size=(5, 9))
    first, moved = interval(values), interval(3 * values + 1)
    assert interval(values.copy()) == first
    assert (moved.low, moved.high) == pytest.approx((3 * first.low + 1, 3 * first.high + 1))


def test_sign_flip_agrees_with_scipy_over_all_patterns():
    rng = np.random.default_rng(4)
    for n in (2, 5, 6, 10):
        differences = rng.normal(0.4, 1, size=n)
        theirs = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(differences) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sign_flip_above_the_exact_range_is_fishers_example():
    # Fisher: 863 of the 32,768 patterns reach Darwin's sum or more; two-sided twice that
    assert len(DARWIN) > uncertainty.EXACT
    exact = 2 * 863 / 2**15
    error = math.sqrt(exact * (1 - exact) / uncertainty.FLIPS)
    assert abs(sign_flip(np.array(DARWIN)) - exact) < 4 * error
    assert sign_flip(np.ones(40)) == 1 / (uncertainty.FLIPS + 1)


def test_sign_flip_is_not_fooled_by_rounding():
    # 0.1 + 0.2 is not 0.3 in binary: patterns that tie with the observed sum must count
    assert sign_flip(np.array([0.1, 0.2, 0.3])) == 2 / 8
    assert sign_flip(np.array([0.1, 0.2, -0.3])) == 1.0
    assert math.isnan(sign_flip(np.array([])))


def test_best_p_is_what_differences_of_one_sign_reach():
    for seeds in range(1, 9):
        assert best_p(seeds) == sign_flip(np.arange(1.0, seeds + 1))
    assert round(best_p(6), 3) == 0.031
    assert seeds_needed(0) == seeds_needed(1) == 6
    for tests in (1, 2, 5, 20):
        needed = seeds_needed(tests)
        p = [best_p(needed)] * tests
        assert max(holm(p)) < 0.05 <= max(holm([best_p(needed - 1)] * tests))


def test_holm_worked_example_and_nan():
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    found = holm([0.04, math.nan, 0.01])
    assert found[0] == 0.04 and math.isnan(found[1]) and found[2] == 0.02
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(6)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 9)) ** 3).tolist()
        level = rng.choice([0.01, 0.05, 0.2])
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[i] > level / (len(p) - rank):
                break
            rejected.add(i)
        assert rejected == {i for i, q in enumerate(holm(p)) if q <= level}


def test_comparison_numbers():
    rng = np.random.default_rng(9)
    first, second = rng.random((6, 20)) + 0.1, rng.random((6, 20))
    found = compare(first, second)
    gaps = first - second
    # the t statistic of the paired test over classes is d_z times the root of their number
    assert found.effect * math.sqrt(20) == pytest.approx(scipy.stats.ttest_rel(first.mean(0), second.mean(0)).statistic)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.share == sum(gaps[:, c].mean() > 0 for c in range(20)) / 20
    assert found.wins == sum(gaps[s].mean() > 0 for s in range(6)) and (found.seeds, found.classes) == (6, 20)
    assert found.p_seeds == sign_flip([statistics.fmean(row) for row in gaps]) and found.best_p_seeds == 2 / 64
    assert found.p_classes == pytest.approx(sign_flip([statistics.fmean(column) for column in gaps.T]))
    assert found.interval == interval(gaps)
    swapped = compare(second, first)
    assert (swapped.interval.low, swapped.interval.high) == pytest.approx((-found.interval.high, -found.interval.low), abs=1e-9)
    assert (swapped.p_seeds, swapped.p_classes) == (found.p_seeds, found.p_classes)
    assert swapped.effect == pytest.approx(-found.effect)


def test_comparison_of_equal_runs_and_of_too_little():
    # the same mean reached by other additions is no difference
    equal = compare(np.array([[0.1 + 0.2, 0.5], [0.4, 0.4]]), np.array([[0.3, 0.5], [0.4, 0.4]]))
    assert (equal.difference, equal.share, equal.wins, equal.p_seeds, equal.p_classes) == (0.0, 0.5, 0, 1.0, 1.0)
    assert math.isnan(equal.effect) and equal.interval.low == equal.interval.high == 0
    numbers = compare(np.array([[0.5], [0.6]]), np.array([[0.4], [0.4]]))
    assert math.isnan(numbers.p_classes) and math.isnan(numbers.effect) and numbers.p_seeds == 0.5
    assert math.isnan(compare(np.empty((0, 3)), np.empty((0, 3))).difference)
    # a gap of as much as the rounding allowed for is none
    assert compare(np.array([[1.0, 1e-12]]), np.array([[1.0, 0.0]])).share == 0.5
    with pytest.raises(ValueError, match="same seeds and classes"):
        compare(np.zeros((2, 3)), np.zeros((2, 4)))
