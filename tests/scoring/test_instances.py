"""Accuracy at instance level against every order of equally far photos, counted one by one."""
from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tcn.config import InputError
from tcn.scoring.instances import instance_accuracy
from tcn.scoring.scores import score

KS = (1, 2, 3, 5, 9)


def by_permutations(distances: list[float], wanted: list[bool], k: int) -> Fraction:
    """Share of all orders of equal distances in which one of the wanted photos is among the first k."""
    hits, orders = 0, 0
    levels = sorted(set(distances))
    groups = [[i for i, d in enumerate(distances) if d == level] for level in levels]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = [i for part in parts for i in part]
        hits += any(wanted[i] for i in order[:k])
        orders += 1
    return Fraction(hits, orders)


@pytest.fixture(scope="module")
def task() -> dict[str, np.ndarray]:
    """Codes of 3 bits, so that photos tie; unequal classes; photo 'b' stands there three times, once under another class; queries
    without their photo, and one that names none."""
    rng = np.random.default_rng(4)
    return {
        "query": rng.integers(0, 2, (9, 3), dtype=np.uint8), "gallery": rng.integers(0, 2, (8, 3), dtype=np.uint8),
        "query_labels": np.array(["cat", "cat", "cat", "dog", "dog", "cat", "dog", "owl", "cat"]),
        "gallery_labels": np.array(["cat", "cat", "dog", "cat", "dog", "dog", "owl", "cat"]),
        "query_instance": np.array(["b", "a", "b", "f", "e", "absent", "", "g", "a"]),
        "gallery_instance": np.array(["a", "b", "b", "b", "e", "f", "g", ""])}


def test_every_probability_is_a_share_of_all_orders(task):
    found = instance_accuracy(**task, metric="hamming", ks=KS)
    distances = (task["query"][:, None] != task["gallery"]).sum(2)
    assert found.counted.tolist() == [True, True, True, True, True, False, False, True, True]
    assert (found.queries, found.left_out, found.photos) == (7, 2, 8)
    mixed = 0
    for k in KS:
        sums = dict.fromkeys(("instance", "instance-in-class"), Fraction(0))
        for row in np.flatnonzero(found.counted):
            same = task["gallery_labels"] == task["query_labels"][row]
            for scope, ranked in (("instance", np.ones(8, bool)), ("instance-in-class", same)):
                wanted = (task["gallery_instance"] == task["query_instance"][row])[ranked].tolist()
                share = by_permutations(distances[row][ranked].tolist(), wanted, k)
                assert found.per_query(scope, k)[row] == pytest.approx(float(share), abs=1e-12), (scope, k, row)
                mixed += share.denominator > 1
                sums[scope] += share
        for scope, total in sums.items():
            assert found.value(scope, k) == pytest.approx(float(total / 7), abs=1e-12)
    assert mixed > 10  # else ties were not tested
    assert np.isnan(found.per_query("instance", 1)[[5, 6]]).all()


def test_chance_is_the_share_of_photo_sets_that_hold_a_copy(task):
    found = instance_accuracy(**task, metric="hamming", ks=KS)
    for k in KS:
        sums = {"instance": 0.0, "instance-in-class": 0.0}
        for row in np.flatnonzero(found.counted):
            same = task["gallery_labels"] == task["query_labels"][row]
            for scope, ranked in (("instance", np.ones(8, bool)), ("instance-in-class", same)):
                wanted = np.flatnonzero((task["gallery_instance"] == task["query_instance"][row])[ranked])
                sets = list(itertools.combinations(range(ranked.sum()), min(k, ranked.sum())))
                sums[scope] += np.mean([bool(set(one) & set(wanted)) for one in sets])
        for scope, total in sums.items():
            assert found.chance(scope, k) == pytest.approx(total / 7, abs=1e-12)


@pytest.mark.parametrize("block", [1, 2, None])
def test_real_features_rank_by_distance_whatever_the_block(block):
    rng = np.random.default_rng(8)
    classes, instances = np.repeat(np.arange(4), [3, 9, 1, 7]), rng.permutation(20)
    gallery = rng.normal(size=(20, 5))
    drawn = rng.permutation(20)[:13]
    query = gallery[drawn] + 2 * rng.normal(size=(13, 5))
    found = instance_accuracy(query, gallery, classes[drawn], classes, instances[drawn], instances, block=block)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    for row, photo in enumerate(drawn):
        distances = ((unit[1] - unit[0][row]) ** 2).sum(1)
        for scope, ranked in (("instance", np.ones(20, bool)), ("instance-in-class", classes == classes[photo])):
            place = (distances[ranked] < distances[photo]).sum()
            assert [found.per_query(scope, k)[row] for k in (1, 5, 10)] == [float(place < k) for k in (1, 5, 10)]
    assert 0 < found.value("instance", 1) < found.value("instance", 5) < 1


def test_a_collapsed_network_scores_chance():
    """One point for all: the probability over orders of equal distance is that of a random ranking."""
    photos = np.ones((30, 4))
    labels, instances = np.repeat([0, 1], [10, 20]), np.arange(30) % 25  # five photos of class 0 stand under class 1, too
    found = instance_accuracy(photos[:10], photos, labels[:10], labels, instances[:10], instances)
    for scope in ("instance", "instance-in-class"):
        for k in (1, 5, 10):
            assert found.value(scope, k) == pytest.approx(found.chance(scope, k), abs=1e-12)
    with_copy, without = (1 - math.comb(30 - n, 5) / math.comb(30, 5) for n in (2, 1))
    assert found.value("instance", 5) == pytest.approx((5 * with_copy + 5 * without) / 10, abs=1e-12)
    assert found.value("instance-in-class", 10) == 1.0


def test_distinct_counts_a_photo_that_is_listed_twice_once():
    """The copies of three photos nearer than the wanted one take its place among the first five, until they count once."""
    angles = np.deg2rad([1, 1, 2, 2, 3, 3, 4])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    names = np.array(["a", "a", "b", "b", "c", "c", "d"])
    one = {"query": [[1.0, 0.0]], "gallery": gallery, "query_labels": [0], "gallery_labels": [0] * 7, "query_instance": ["d"],
           "gallery_instance": names, "gallery_group": names}
    listed, once = (instance_accuracy(**one, duplicates=rule) for rule in ("as-published", "distinct"))
    assert (listed.value("instance", 5), once.value("instance", 5)) == (0.0, 1.0)
    assert (listed.photos, once.photos, once.chance("instance", 1)) == (7, 4, 0.25)


def test_rows_have_the_columns_of_those_of_protocols(task):
    found = instance_accuracy(**task, metric="hamming")
    other = score(task["query"], task["gallery"], task["query_labels"], task["gallery_labels"], metric="hamming").rows()
    rows = found.rows()
    assert [list(row) for row in rows] == [list(other[0])] * 6
    assert found.summary() == {scope: {row["metric"]: row["value"] for row in rows if row["protocol"] == scope}
                               for scope in ("instance-in-class", "instance")}
    assert {(row["ceiling"], row["queries"], row["photos"]) for row in rows} == {(1.0, 7, 8)}


@pytest.mark.parametrize(("changes", "message"), [
    ({"query_instance": np.array(["x"] * 9)}, "photo of none of the 9 queries"),
    ({"query_instance": np.array([""] * 9)}, "photo of none of the 9 queries"),
    ({"query_instance": np.arange(9)}, "must be of one kind"),
    ({"query_instance": np.array(["a"] * 8)}, "query_instance has 8 entries"),
    ({"gallery_instance": np.array(["a"] * 9)}, "gallery_instance has 9 entries"),
    ({"gallery_instance": np.ones(8)}, "gallery_instance is an array of float64"),
    ({"query_instance": np.array(["b", "a", "b", "a", "e", "", "", "g", "a"])}, "query_instance row 3: every photo of a is of "
                                                                                "another class than the query, which is of dog"),
    ({"duplicates": "distinct"}, "needs gallery_group"),
    ({"ks": (0,)}, "ks must be whole numbers"),
])
def test_what_is_undefined_or_contradicts_itself_is_an_error(task, changes, message):
    with pytest.raises(InputError, match=message):
        instance_accuracy(**{**task, "metric": "hamming", **changes})
