"""Scores against independent oracles: double loops, all orders enumerated, scikit-learn, cases by hand."""
from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tcn.config import InputError
from tcn.scoring import inputs, rankings, retrieve
from tcn.scoring import scores as scoring
from tcn.scoring.protocols import ALL, AP, PROTOCOLS, Divisor
from tcn.scoring.rankings import Gallery
from tcn.scoring.retrieve import rank
from tcn.scoring.scores import evaluate, score

KS = (1, 3, 7, 200)
EXACT_UNDER_TIES = {"released": ("Prec",), "zse": ("Prec",), "cvpr19": ("Prec",),
                    "sem-pcyc": ("Prec", "mAP@all"), "cvae": ("Prec", "mAP"), "standard": ("Prec", "mAP")}


# ------------------------------------------------------------------------------------------------ the oracle
def oracle(protocol: str, metric: str, relevance: list[int]) -> float:
    """One metric of one query from the 0-1 relevance of its whole ranking, after the table of definitions."""
    number = sum(relevance)
    if number == 0:
        return 0.0
    kind, at = metric.split("@")
    if kind == "Prec":
        k = number if at == "R" else int(at)
        hits = sum(relevance[:k])
        if protocol == "cvpr19":
            return float(relevance[k]) if k < len(relevance) else 0.0
        return hits / min(k, number) if protocol == "zse" else hits / k
    k = len(relevance) if at == "all" else int(at)
    top = relevance[:k]
    precisions = []
    for i in range(len(top)):
        precisions.append(sum(top[: i + 1]) / (i + 1))
    total = 0.0
    for i in range(len(top)):
        if top[i]:
            total += max(precisions[i:]) if protocol in ("released", "zse") else precisions[i]
    if at == "all":
        divisor = number
    else:
        divisor = {"released": min(k, number), "zse": min(k, number), "standard": min(k, number), "cvae": k,
                   "cvpr19": sum(top), "sem-pcyc": sum(top)}[protocol]
    return total / divisor if divisor else 0.0


def averaged(protocol: str, values: list[float], labels: list) -> float:
    if protocol != "released":
        return sum(values) / len(values)
    means = []
    for name in sorted(set(labels)):
        own = [value for value, label in zip(values, labels) if label == name]
        means.append(sum(own) / len(own))
    return sum(means) / len(means)


def relevances(query, gallery, query_labels, gallery_labels) -> list[list[int]]:
    """Rank by the Euclidean distance of unit vectors with Python's own stable sort."""
    def unit(rows):
        return [[float(x) / math.sqrt(sum(float(y) ** 2 for y in row)) for x in row] for row in rows]

    found = []
    photos = unit(gallery)
    for row, label in zip(unit(query), query_labels):
        distance = [math.dist(row, photo) for photo in photos]
        order = sorted(range(len(photos)), key=lambda j: distance[j])
        found.append([int(gallery_labels[j] == label) for j in order])
    return found


def problem(seed: int, queries: int = 9, photos: int = 31, classes: int = 3, dimensions: int = 5):
    """Random features with labels of unequal frequency; every class has photos."""
    generator = np.random.default_rng(seed)
    names = np.array([f"class {i}" for i in range(classes)])
    share = np.arange(1, classes + 1) / sum(range(1, classes + 1))
    query_labels = generator.choice(names, queries, p=share)
    gallery_labels = np.concatenate([names, generator.choice(names, photos - classes, p=share[::-1])])
    return (generator.normal(size=(queries, dimensions)), generator.normal(size=(photos, dimensions)),
            query_labels, gallery_labels)


def coded(seed: int, queries: int = 5, photos: int = 7, bits: int = 2):
    """Short codes, so that ties abound; two classes."""
    generator = np.random.default_rng(seed)
    query, gallery = (generator.integers(0, 2, (rows, bits)).astype(bool) for rows in (queries, photos))
    return (query, gallery, generator.integers(0, 2, queries),
            np.concatenate([[0, 1], generator.integers(0, 2, photos - 2)]))


def all_orders(query, gallery, query_labels, gallery_labels) -> list[list[list[int]]]:
    """For each query, the relevance of every ranking by Hamming distance: ties in all their orders."""
    found = []
    for row, label in zip(query, query_labels):
        distance = [sum(bool(a) != bool(b) for a, b in zip(row, photo)) for photo in gallery]
        runs = [[int(gallery_labels[j] == label) for j in range(len(gallery)) if distance[j] == value]
                for value in sorted(set(distance))]
        # every permutation counts once, equal relevance patterns included: that is a uniform order
        found.append([list(itertools.chain(*choice))
                      for choice in itertools.product(*(itertools.permutations(run) for run in runs))])
    return found


# -------------------------------------------------------------------------------------------- values, no ties
@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("seed", range(4))
def test_each_protocol_agrees_with_a_double_loop(protocol, seed):
    data = problem(seed)
    scores = score(*data, protocols=[protocol], ks=KS)
    rankings = relevances(*data)
    for metric in scores.metrics(protocol):
        each = [oracle(protocol, metric, ranking) for ranking in rankings]
        np.testing.assert_allclose(scores.per_query(protocol, metric), each, atol=1e-12, err_msg=metric)
        mean = averaged(protocol, each, list(data[2]))
        assert scores.value(protocol, metric) == pytest.approx(mean), metric
        assert scores.error(protocol, metric) == 0


def test_names_of_protocols_and_metrics():
    assert ALL == ("released", "cvpr19", "zse", "sem-pcyc", "cvae", "standard")
    result = evaluate(*problem(0))
    assert set(result["cvpr19"]) == {"mAP@100", "mAP@200", "Prec@100", "Prec@200"}
    for name in set(ALL) - {"cvpr19"}:
        assert set(result[name]) == {"mAP@all", "mAP@100", "mAP@200", "Prec@100", "Prec@200"}
    assert all(type(value) is float for found in result.values() for value in found.values())
    assert evaluate(*problem(0), protocols="zse", ks=3).keys() == {"zse"}


def test_eight_photos_ranked_by_hand():
    # relevance 0 1 1 0 1 0 0 0, so R = 3 and the precisions at the hits are 1/2, 2/3, 3/5
    angles = np.deg2rad(np.arange(5, 45, 5))
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([9, 4, 4, 9, 4, 9, 9, 9])
    result = evaluate(np.array([[1.0, 0.0]]), gallery, np.array([4]), labels, ks=(2, 4))
    raw, voc = (1 / 2 + 2 / 3 + 3 / 5) / 3, (2 / 3 + 2 / 3 + 3 / 5) / 3
    two, four, lifted = 1 / 2, 1 / 2 + 2 / 3, 2 / 3 + 2 / 3  # sums of precisions within the first 2 and 4
    expected = {
        "released": {"mAP@all": voc, "mAP@2": two / 2, "Prec@2": 1 / 2, "mAP@4": lifted / 3, "Prec@4": 2 / 4},
        "cvpr19": {"mAP@2": two / 1, "Prec@2": 1.0, "mAP@4": four / 2, "Prec@4": 1.0},
        "zse": {"mAP@all": voc, "mAP@2": two / 2, "Prec@2": 1 / 2, "mAP@4": lifted / 3, "Prec@4": 2 / 3},
        "sem-pcyc": {"mAP@all": raw, "mAP@2": two / 1, "Prec@2": 1 / 2, "mAP@4": four / 2, "Prec@4": 2 / 4},
        "cvae": {"mAP@all": raw, "mAP@2": two / 2, "Prec@2": 1 / 2, "mAP@4": four / 4, "Prec@4": 2 / 4},
        "standard": {"mAP@all": raw, "mAP@2": two / 2, "Prec@2": 1 / 2, "mAP@4": four / 3, "Prec@4": 2 / 4},
    }
    for name, values in expected.items():
        assert result[name] == pytest.approx(values), name


def test_macro_gives_each_class_and_micro_each_query_one_vote():
    # class "a": two queries that find their photo first; class "b": one that finds it last of three
    query = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]])
    gallery = np.array([[1.0, 0.05], [0.0, 1.0], [-1.0, 0.0]])
    scores = score(query, gallery, ["a", "a", "b"], ["a", "other", "b"])
    assert scores.value("released", "mAP@all") == pytest.approx((1 + 1 / 3) / 2)
    assert scores.value("standard", "mAP@all") == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert scores.per_class("standard", "mAP@all") == pytest.approx({"a": 1.0, "b": 1 / 3})


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_agrees_where_it_defines_the_same(seed):
    query, gallery, query_labels, gallery_labels = problem(seed, photos=60)
    scores = score(query, gallery, query_labels, gallery_labels, ks=(10,))
    similarity = (query / np.linalg.norm(query, axis=1, keepdims=True)
                  @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T)
    for i, row in enumerate(similarity):
        relevant = gallery_labels == query_labels[i]
        whole = average_precision_score(relevant, row)
        assert scores.per_query("sem-pcyc", "mAP@all")[i] == pytest.approx(whole)
        top = np.argsort(-row)[:10]
        alone = average_precision_score(relevant[top], row[top]) if relevant[top].any() else 0.0
        assert scores.per_query("cvpr19", "mAP@10")[i] == pytest.approx(alone)
        assert scores.per_query("sem-pcyc", "mAP@10")[i] == pytest.approx(alone)


def test_item_after_the_cut_off_is_all_that_cvpr19_calls_precision():
    angles = np.deg2rad(np.arange(1, 7))
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for position in range(6):
        labels = np.full(6, 1)
        labels[position] = 0
        value = evaluate([[1.0, 0.0]], gallery, [0], labels, ["cvpr19"], ks=(3, 6))["cvpr19"]
        assert value["Prec@3"] == float(position == 3)
        assert value["Prec@6"] == 0.0  # there is no seventh photo


# ------------------------------------------------------------------------------------------------------- ties
@pytest.mark.parametrize("seed", range(6))
def test_expected_ties_equal_the_mean_over_all_orders(seed):
    data = coded(seed)
    exact = score(*data, metric="hamming", ks=(1, 3, 5))
    sampled = score(*data, metric="hamming", ks=(1, 3, 5), tie_draws=3000, seed=seed)
    orders = all_orders(*data)
    for name in ALL:
        for metric in exact.metrics(name):
            mean = [np.mean([oracle(name, metric, order) for order in every]) for every in orders]
            if metric.startswith(EXACT_UNDER_TIES[name]):
                np.testing.assert_allclose(exact.per_query(name, metric), mean, atol=1e-12,
                                           err_msg=f"{name} {metric}")
                assert exact.error(name, metric) == 0
            else:
                np.testing.assert_allclose(sampled.per_query(name, metric), mean, atol=0.035,
                                           err_msg=f"{name} {metric}")
                off = abs(sampled.value(name, metric) - averaged(name, mean, list(data[2])))
                assert off <= 4.5 * sampled.error(name, metric) + 1e-12, (name, metric)


@pytest.mark.parametrize("seed", range(3))
def test_standard_error_is_the_spread_between_independent_draws(seed):
    data = coded(seed, queries=4, photos=40, bits=2)
    runs = [score(*data, ["released"], "hamming", seed=other) for other in range(60)]
    means = [run.value("released", "mAP@all") for run in runs]
    stated = runs[0].error("released", "mAP@all")
    assert len(set(means)) > 50
    assert 0.5 < stated / np.std(means, ddof=1) < 2


def test_standard_error_of_two_draws_is_half_their_distance():
    scores = score(*coded(1, queries=4, photos=40, bits=2), ["standard", "zse"], "hamming", tie_draws=2)
    first, second = next(drawn for measure, drawn in scores._draws.items() if measure == AP(None, True, Divisor.MIN_K_R)).T
    half = abs(first.mean() - second.mean()) / 2
    assert half > 0 and scores.error("zse", "mAP@all") == pytest.approx(half, rel=1e-9)
    assert scores.error("standard", "mAP@all") == 0


@pytest.mark.parametrize("seed", range(12))
def test_best_and_worst_orders_are_the_bounds(seed):
    data = coded(seed)
    best = score(*data, metric="hamming", ks=(1, 3, 5, 9), ties="best")
    worst = score(*data, metric="hamming", ks=(1, 3, 5, 9), ties="worst")
    for i, every in enumerate(all_orders(*data)):
        for name in ALL:
            for metric in best.metrics(name):
                values = [oracle(name, metric, order) for order in every]
                assert best.per_query(name, metric)[i] == pytest.approx(max(values)), (name, metric)
                assert worst.per_query(name, metric)[i] == pytest.approx(min(values)), (name, metric)


def test_gallery_order_is_a_stable_sort():
    query, gallery, query_labels, gallery_labels = coded(3, queries=12, photos=30)
    scores = score(query, gallery, query_labels, gallery_labels, ALL, "hamming", (1, 4), ties="gallery-order")
    for i, row in enumerate(query):
        order = np.argsort((row != gallery).sum(1), kind="stable")
        ranking = (gallery_labels[order] == query_labels[i]).astype(int).tolist()
        for name in ALL:
            for metric in scores.metrics(name):
                assert scores.per_query(name, metric)[i] == pytest.approx(oracle(name, metric, ranking))


@pytest.mark.parametrize("block", [None, 1, 5])
def test_unstable_sort_is_numpy_s_default_argsort(block):
    """Enough photos that the default sort is no insertion sort; its order of ties is taken, not the gallery's."""
    query, gallery, query_labels, gallery_labels = coded(3, queries=12, photos=900, bits=4)
    scores = score(query, gallery, query_labels, gallery_labels, ALL, "hamming", (1, 4, 90), ties="unstable-sort",
                   block=block)
    for i, row in enumerate(query):
        order = np.argsort((row != gallery).sum(1).astype(float))
        ranking = (gallery_labels[order] == query_labels[i]).astype(int).tolist()
        for name in ALL:
            for metric in scores.metrics(name):
                assert scores.per_query(name, metric)[i] == pytest.approx(oracle(name, metric, ranking)), metric


@pytest.mark.parametrize("seed", range(3))
def test_every_order_of_ties_lies_between_the_bounds(seed):
    data = coded(seed, queries=8, photos=120, bits=3)
    scores = {ties: score(*data, metric="hamming", ks=(3, 20), ties=ties) for ties in scoring.TIES}
    moved = 0
    for row in scores["best"].rows():
        name, metric = row["protocol"], row["metric"]
        low, high = (scores[ties].per_query(name, metric) for ties in ("worst", "best"))
        # scikit-learn's shared thresholds are no order of the photos, so the bounds do not hold for them
        for ties in set(scoring.TIES) - {"scikit-learn", "as-released"}:
            each = scores[ties].per_query(name, metric)
            assert (low - 1e-12 <= each).all() and (each <= high + 1e-12).all(), (ties, name, metric)
        moved += int((low < high).sum())
    assert moved > 100


def test_without_ties_all_orders_are_one():
    data = problem(11, photos=60)
    found = {ties: score(*data, ks=(4,), ties=ties).summary() for ties in scoring.TIES}
    for ties, summary in found.items():
        for name in ALL:
            assert summary[name] == pytest.approx(found["expected"][name], rel=1e-12), ties


@pytest.mark.parametrize("seed", range(3))
def test_shared_thresholds_are_scikit_learn_s(seed):
    query, gallery, query_labels, gallery_labels = coded(seed, queries=8, photos=40, bits=3)
    scores = score(query, gallery, query_labels, gallery_labels, ALL, "hamming", (6,), ties="scikit-learn")
    differs = False
    for i, row in enumerate(query):
        distance = (row != gallery).sum(1)
        relevant = gallery_labels == query_labels[i]
        reference = average_precision_score(relevant, -distance)
        assert scores.per_query("sem-pcyc", "mAP@all")[i] == pytest.approx(reference)
        top = np.argsort(distance, kind="stable")[:6]
        alone = average_precision_score(relevant[top], -distance[top]) if relevant[top].any() else 0.0
        assert scores.per_query("cvpr19", "mAP@6")[i] == pytest.approx(alone)
        ranking = relevant[np.argsort(distance, kind="stable")].astype(int).tolist()
        differs |= abs(reference - oracle("sem-pcyc", "mAP@all", ranking)) > 1e-3
    assert differs


@pytest.mark.parametrize("kind", ["real", "codes"])
def test_as_released_orders_ties_as_each_protocol_s_own_code(kind):
    """Photos listed up to four times, under other classes too: the cut falls into runs of equal distance."""
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(450, 4)) if kind == "real" else generator.integers(0, 2, (450, 9)).astype(bool)
    gallery = rows[generator.integers(0, 450, 900)]
    query = generator.normal(size=(8, 4)) if kind == "real" else generator.integers(0, 2, (8, 9)).astype(bool)
    query_labels, gallery_labels = generator.integers(0, 3, 8), generator.choice(4, 900, p=(0.1, 0.2, 0.3, 0.4))
    data = query, gallery, query_labels, gallery_labels
    scores = score(*data, metric="euclidean" if kind == "real" else "hamming", ks=(10, 200), ties="as-released")
    # the order of ties is made a fact here by giving the sort the very numbers that the ranking sorts
    sides = inputs.comparable(query, gallery, scores.metric, None)
    distances = Gallery.of(sides[1], torch.arange(900), sides[0], scores.metric).distances(sides[0]).numpy()
    differs = dict.fromkeys(ALL, False)
    for i, row in enumerate(distances):
        order = np.argsort(row)
        relevant = gallery_labels == query_labels[i]
        ranking = relevant[order].astype(int).tolist()
        for name in ALL:
            for metric in scores.metrics(name):
                by_sort = oracle(name, metric, ranking)
                value = by_sort
                if metric.startswith("mAP") and name in ("cvpr19", "sem-pcyc"):
                    top = order if metric == "mAP@all" else order[:int(metric[4:])]
                    value = average_precision_score(relevant[top], -row[top]) if relevant[top].any() else 0.0
                assert scores.per_query(name, metric)[i] == pytest.approx(value, rel=1e-12), (name, metric)
                differs[name] |= abs(value - by_sort) > 1e-4
    assert [name for name in ALL if differs[name]] == ["cvpr19", "sem-pcyc"]
    assert scores.chance("cvpr19", "mAP@10") == score(*data, metric=scores.metric, ks=(10, 200)).chance("cvpr19", "mAP@10")


@pytest.mark.parametrize("size,hits", [(6, 2), (6, 3), (6, 5), (5, 1), (5, 4), (3, 3)])
def test_sampled_ranks_are_uniform_subsets(size, hits):
    draws = 6000
    table = torch.zeros((draws, hits + 1), dtype=torch.int64)  # a run after four nearer photos, then padding
    inside = torch.arange(hits + 1) < hits
    groups = rankings.TieGroups(torch.where(inside, table + 4, 20), torch.where(inside, table + size, 0),
                                torch.where(inside, table, hits), torch.where(inside, table + hits, 0))
    ranks = rankings.random_ranks(groups, torch.arange(draws), seed=5)
    assert torch.isinf(ranks[:, -1]).all()
    found, count = np.unique(ranks[:, :-1].numpy(), axis=0, return_counts=True)
    subsets = [tuple(4 + p for p in chosen) for chosen in itertools.combinations(range(1, size + 1), hits)]
    assert [tuple(row) for row in found.astype(int)] == subsets
    share = draws / len(subsets)
    assert ((count - share) ** 2 / share).sum() < len(subsets) - 1 + 5 * math.sqrt(2 * len(subsets))


def test_sampled_ranks_far_down_are_whole_numbers_to_the_last_digit():
    far = torch.tensor([[2**24, 2**24 + 2]])  # float32 has no 2^24 + 1
    groups = rankings.TieGroups(far, torch.ones_like(far), torch.tensor([[0, 1]]), torch.ones_like(far))
    assert rankings.random_ranks(groups, torch.arange(1), seed=0).tolist() == [[2**24 + 1, 2**24 + 3]]


def test_equal_features_give_the_chance_level_not_the_gallery_order():
    # a collapsed network: without tie handling a gallery sorted by class would score 1 for its first class
    query, gallery = np.ones((4, 3)), np.ones((10, 3)) * np.arange(1, 11)[:, None]
    scores = score(query, gallery, [0, 0, 1, 1], [0] * 3 + [1] * 7, ks=(2,))
    for name in ("standard", "cvae"):
        for metric in scores.metrics(name):
            assert scores.value(name, metric) == pytest.approx(scores.chance(name, metric)), metric
    chance = scores.chance("released", "mAP@all")
    assert scores.value("released", "mAP@all") == pytest.approx(chance, abs=0.08)


# ------------------------------------------------------------------------------------------- chance, ceiling
@pytest.mark.parametrize("photos,relevant", [(7, 2), (7, 5), (6, 6), (8, 1)])
def test_chance_and_ceiling_against_every_ranking(photos, relevant):
    generator = np.random.default_rng(1)
    labels = np.array([1] * relevant + [0] * (photos - relevant))
    query, gallery = generator.normal(size=(1, 4)), generator.normal(size=(photos, 4))
    scores = score(query, gallery, [1], labels, ks=(1, 3, 6, 9))
    rankings = [[int(i in chosen) for i in range(photos)]
                for chosen in itertools.combinations(range(photos), relevant)]
    for name in ALL:
        for metric in scores.metrics(name):
            values = [oracle(name, metric, ranking) for ranking in rankings]
            exact = metric.startswith(EXACT_UNDER_TIES[name])
            margin = 1e-12 if exact else 0.04
            assert scores.chance(name, metric) == pytest.approx(np.mean(values), abs=margin), (name, metric)
            assert scores.ceiling(name, metric) == pytest.approx(max(values)), (name, metric)
    assert scores.chance("standard", "Prec@3") == pytest.approx(relevant / photos)


def test_chance_is_what_random_features_score():
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), [40, 30, 20, 10])
    query = generator.normal(size=(1200, 16))
    scores = score(query, generator.normal(size=(100, 16)), np.arange(1200) % 4, labels, ks=(10,))
    for row in scores.rows():
        spread = scores.per_query(row["protocol"], row["metric"]).std()
        # one gallery serves all queries, so they are not independent: a generous margin, far below the
        # ceiling
        assert row["value"] == pytest.approx(row["chance"], abs=0.12 * spread + 0.01), row
        assert row["chance"] < row["ceiling"] <= 1
        assert row["queries"] == 1200 and row["photos"] == 100


# ------------------------------------------------------------------------------------------------ properties
SMALL = st.integers(0, 10**6)


@settings(max_examples=25, deadline=None)
@given(SMALL, st.sampled_from(["euclidean", "cosine"]), st.floats(1e-6, 1e6))
def test_order_names_and_scale_do_not_matter(seed, metric, scale):
    query, gallery, query_labels, gallery_labels = problem(seed)
    before = score(query, gallery, query_labels, gallery_labels, metric=metric, ks=KS)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(gallery))
    code = dict(zip(np.unique(gallery_labels), generator.permutation([-7, 5, 900]).tolist()))
    lengths = scale * generator.uniform(0.5, 2, (len(gallery), 1))
    after = score(query * scale, (gallery * lengths)[order], [code[name] for name in query_labels],
                  [code[name] for name in gallery_labels[order]], metric=metric, ks=KS)
    for name in ALL:
        for what in before.metrics(name):
            np.testing.assert_allclose(after.per_query(name, what), before.per_query(name, what), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SMALL)
def test_codes_ranked_in_expectation_do_not_depend_on_gallery_order(seed):
    query, gallery, query_labels, gallery_labels = coded(seed, queries=6, photos=25, bits=3)
    order = np.random.default_rng(seed).permutation(25)
    before = score(query, gallery, query_labels, gallery_labels, metric="hamming", ks=(4,))
    after = score(query, gallery[order], query_labels, gallery_labels[order], metric="hamming", ks=(4,))
    for name in ALL:
        for what in before.metrics(name):
            np.testing.assert_allclose(after.per_query(name, what), before.per_query(name, what), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(SMALL)
def test_inequalities_between_the_definitions(seed):
    scores = score(*problem(seed, photos=40), ks=(2, 5, 12))
    for metric in ("mAP@all", "mAP@2", "mAP@5", "mAP@12"):
        assert (scores.per_query("released", metric) >= scores.per_query("standard", metric) - 1e-12).all()
    for k in scores.ks:
        enough = scores.relevant >= k
        for name in ("released", "zse", "standard", "cvae"):
            assert (scores.per_query(name, f"mAP@{k}") <= scores.prec[name][k] + 1e-12)[enough].all()
    assert (scores.per_query("zse", "Prec@12") >= scores.per_query("standard", "Prec@12")).all()
    assert (scores.r_precision == scores.per_query("standard", "Prec@R")).all()
    assert set(scores.ap) == set(ALL) - {"cvpr19"}


@settings(max_examples=20, deadline=None)
@given(SMALL, st.integers(1, 3))
def test_listing_photos_again_changes_nothing_when_counted_once(seed, copies):
    query, gallery, query_labels, gallery_labels = problem(seed)
    twice = np.random.default_rng(seed).integers(0, len(gallery), 6 * copies)
    group = np.concatenate([np.arange(len(gallery)), twice])
    longer, names = gallery[group], gallery_labels[group]
    once = score(query, gallery, query_labels, gallery_labels, ks=KS)
    distinct = score(query, longer, query_labels, names, ks=KS, gallery_group=group, duplicates="distinct")
    published = score(query, longer, query_labels, names, ks=KS, gallery_group=group)
    assert distinct.photos == len(gallery) and published.photos == len(longer)
    assert distinct.summary() == once.summary()
    for i, ranking in enumerate(relevances(query, longer, query_labels, names)):
        assert published.per_query("standard", "mAP@all")[i] == pytest.approx(
            oracle("standard", "mAP@all", ranking))


def test_the_first_listing_of_a_photo_is_the_one_kept():
    # the second listing of photo "p" stands right at the query, the first far from it
    query, gallery = [[1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    group = ["p", "q", "p"]
    values = {kind: evaluate(query, gallery, [1], [1, 0, 1], ["standard"], ks=(1,), gallery_group=group,
                             duplicates=kind)["standard"] for kind in scoring.DUPLICATES}
    assert values["as-published"] == pytest.approx({"mAP@all": (1 + 2 / 3) / 2, "mAP@1": 1.0, "Prec@1": 1.0})
    assert values["distinct"] == pytest.approx({"mAP@all": 1 / 2, "mAP@1": 0.0, "Prec@1": 0.0})


def test_a_photo_listed_under_two_classes_stays_in_both():
    """Group 7 stands three times: as 1, as 2, as 1 again. Kept are its first 1 and its first 2."""
    query, gallery = [[1.0, 0.0]] * 2, [[1.0, 0.1], [1.0, 0.2], [1.0, 0.0], [0.0, 1.0]]
    scores = score(query, gallery, [1, 2], [1, 2, 1, 3], ["standard"], ks=(1,), gallery_group=[7, 7, 7, 8],
                   duplicates="distinct")
    assert scores.photos == 3 and scores.relevant.tolist() == [1, 1]
    assert scores.per_query("standard", "mAP@all").tolist() == [1.0, 0.5]


def test_doubling_every_photo_keeps_precision_and_lengthens_the_class():
    query, gallery, query_labels, gallery_labels = problem(8)
    once = score(query, gallery, query_labels, gallery_labels, ks=(4, 8))
    double = score(query, np.repeat(gallery, 2, 0), query_labels, np.repeat(gallery_labels, 2), ks=(4, 8))
    np.testing.assert_allclose(double.per_query("standard", "Prec@8"), once.per_query("standard", "Prec@4"))
    assert (double.relevant == 2 * once.relevant).all()


@pytest.mark.parametrize("ties", scoring.TIES)
def test_block_size_changes_no_number(ties):
    data = coded(4, queries=23, photos=50, bits=4)
    whole = score(*data, metric="hamming", ks=(5,), ties=ties)
    real = problem(4, queries=23, photos=50)
    real_whole = score(*real, ks=(5,), ties=ties)
    for block in (1, 4, 23):
        for small, reference in ((score(*data, metric="hamming", ks=(5,), ties=ties, block=block), whole),
                                 (score(*real, ks=(5,), ties=ties, block=block), real_whole)):
            for row, other in zip(small.rows(), reference.rows(), strict=True):
                # to the last digits: a sum over the draws may be taken in another order
                assert {**row, "value": 0, "standard_error": 0} == {**other, "value": 0, "standard_error": 0}
                assert row["value"] == pytest.approx(other["value"], rel=1e-14)
                assert row["standard_error"] == pytest.approx(other["standard_error"], rel=1e-9)


# ----------------------------------------------------------------------------------------------------- inputs
def test_arrays_and_tensors_of_any_float_type():
    query, gallery, query_labels, gallery_labels = problem(5)
    code = {name: 10 + i for i, name in enumerate(np.unique(gallery_labels))}
    numbers = [code[name] for name in query_labels], [code[name] for name in gallery_labels]
    # whole numbers up to 40 are exact in every float type, so all must agree
    query, gallery = np.rint(query * 10).clip(-40, 40), np.rint(gallery * 10).clip(-40, 40)
    reference = evaluate(query, gallery, query_labels, gallery_labels, ks=(4,))
    tensors = torch.tensor(query, dtype=torch.float32, requires_grad=True), torch.tensor(gallery)
    labels = [torch.tensor(values) for values in numbers]
    assert evaluate(*tensors, *labels, ks=(4,)) == reference
    assert evaluate(query.astype(np.float32).tolist(), gallery.astype(">f4"), *numbers, ks=(4,)) == reference
    assert evaluate(tensors[0].bfloat16(), tensors[1].half(), *labels, ks=(4,)) == reference
    assert evaluate(query.astype(int), gallery.astype(np.longdouble), *numbers, ks=(4,)) == reference
    assert evaluate(query, gallery, np.char.encode(query_labels), gallery_labels, ks=(4,)) == reference


def test_labels_in_bytes_are_utf_8():
    query, gallery, query_labels, gallery_labels = problem(5)
    names = {name: f"épée {name} 弓" for name in np.unique(gallery_labels)}
    words = [np.array([names[name] for name in values]) for values in (query_labels, gallery_labels)]
    reference = evaluate(query, gallery, *words, ks=(4,))
    assert evaluate(query, gallery, *(np.char.encode(values, "utf-8") for values in words), ks=(4,)) == reference
    assert evaluate(query, gallery, np.char.encode(words[0], "utf-8"), words[1].tolist(), ks=(4,)) == reference
    with pytest.raises(InputError, match="gallery_labels holds bytes that are not UTF-8"):
        evaluate(query, gallery, words[0], np.char.encode(words[1], "utf-16"))


def test_whole_number_labels_of_any_type():
    query, gallery, query_labels, gallery_labels = problem(5)
    code = {name: i for i, name in enumerate(np.unique(gallery_labels))}
    numbers = [np.array([code[name] for name in values]) for values in (query_labels, gallery_labels)]
    reference = evaluate(query, gallery, *numbers, ks=(4,))
    for kind in (np.int8, np.uint8, ">i4", np.uint64):
        assert evaluate(query, gallery, numbers[0].astype(kind), numbers[1], ks=(4,)) == reference
    far = [values.astype(np.uint64) + np.uint64(2**63 - 4) for values in numbers]
    assert evaluate(query, gallery, *far, ks=(4,)) == reference
    with pytest.raises(InputError, match="query_labels holds 18446744073709551615; integers must lie below"):
        evaluate(query, gallery, numbers[0].astype(np.uint64) - np.uint64(1), numbers[1])


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-7])
def test_a_nearly_collapsed_network_is_still_ranked(spread):
    """Directions that differ in the fifth digit have cosines that differ in the tenth; in the seventh, the 14th."""
    generator = np.random.default_rng(3)
    query, gallery = (1 + spread * generator.normal(size=(rows, 12)) for rows in (20, 60))
    query_labels, gallery_labels = np.arange(20) % 3, np.arange(60) % 3
    wide = [rows.astype(np.longdouble) for rows in (query, gallery)]
    unit = [rows / np.sqrt((rows**2).sum(1, keepdims=True)) for rows in wide]
    order = np.argsort(((unit[0][:, None] - unit[1][None]) ** 2).sum(2), axis=1)
    np.testing.assert_array_equal(rank(query, gallery, 60), order)
    scores = score(query, gallery, query_labels, gallery_labels, ks=(5,))
    for i, ranked in enumerate(order):
        ranking = (gallery_labels[ranked] == query_labels[i]).astype(int).tolist()
        for name in ALL:
            for metric in scores.metrics(name):
                assert scores.per_query(name, metric)[i] == pytest.approx(oracle(name, metric, ranking), abs=1e-12)


def test_codes_as_bool_and_as_bytes():
    data = coded(6, queries=9, photos=30)
    as_bytes = (data[0].astype(np.uint8), torch.from_numpy(data[1].astype(np.uint8)), *data[2:])
    assert evaluate(*as_bytes, metric="hamming") == evaluate(*data, metric="hamming")


def test_inputs_are_left_as_they_were():
    for metric, data in (("euclidean", problem(1)), ("hamming", coded(1))):
        copies = [np.copy(values) for values in data]
        evaluate(*data, metric=metric)
        rank(data[0], data[1], 3, metric)
        for before, after in zip(copies, data):
            np.testing.assert_array_equal(before, after)


def test_a_class_without_photos():
    query, gallery, query_labels, gallery_labels = problem(2)
    query_labels = query_labels.astype("U20")
    query_labels[:2] = "unheard of"
    with pytest.raises(InputError, match="unheard of"):
        evaluate(query, gallery, query_labels, gallery_labels)
    zero = score(query, gallery, query_labels, gallery_labels, missing_classes="zero", ks=(3,))
    released = score(query, gallery, query_labels, gallery_labels, missing_classes="as-released", ks=(3,))
    without = score(query[2:], gallery, query_labels[2:], gallery_labels, ks=(3,))
    classes = len(set(query_labels))
    for name in ("released", "standard"):
        share = (classes - 1) / classes if name == "released" else (len(query) - 2) / len(query)
        for metric in ("mAP@all", "mAP@3", "Prec@3"):
            assert zero.value(name, metric) == pytest.approx(share * without.value(name, metric))
        assert released.value(name, "mAP@all") == pytest.approx(without.value(name, "mAP@all"))
        assert released.value(name, "Prec@3") == pytest.approx(share * without.value(name, "Prec@3"))
        assert zero.ceiling(name, "mAP@all") == pytest.approx(share)
    assert "unheard of" not in released.per_class("released", "mAP@all")  # left out: it has no value
    assert released.per_class("released", "Prec@3")["unheard of"] == zero.per_class("released", "mAP@all")["unheard of"] == 0


@pytest.mark.parametrize("ours,theirs", [
    ("palm tree", "palm_tree"), ("palm tree", "palm tree "), ("t-shirt", "T shirt"), ("caf\u00e9", "cafe\u0301"), ("3", "03"),
    ("3", " 3"), ("CD", "cd")])
def test_one_class_spelt_in_two_ways(ours, theirs):
    """In query and gallery, or within the gallery: an error that names both, one class, or two; never two without a word."""
    query, gallery, query_labels, gallery_labels = problem(5)
    clean = [np.where(names == "class 1", ours, names) for names in (query_labels.astype("U9"), gallery_labels.astype("U9"))]
    mixed = np.where((clean[1] == ours) & (np.arange(31) % 2 == 1), theirs, clean[1])
    other = np.where(clean[1] == ours, theirs, clean[1])
    reference = score(query, gallery, *clean)
    for labels in (mixed, other):
        with pytest.raises(InputError) as error:
            score(query, gallery, clean[0], labels)
        assert f"{ours!r} and {theirs!r}" in str(error.value) and "spellings='merge'" in str(error.value)
        merged = score(query, gallery, clean[0], labels, spellings="merge")
        assert merged.summary() == reference.summary() and merged.classes.tolist() == reference.classes.tolist()
    apart = score(query, gallery, clean[0], mixed, spellings="as-given")
    assert apart.relevant.sum() < reference.relevant.sum()
    with pytest.raises(InputError, match="in several ways"):
        retrieve.precision_recall(query, gallery, clean[0], mixed)
    with pytest.raises(InputError, match="spellings='sloppy'"):
        score(query, gallery, *clean, spellings="sloppy")


def test_names_that_only_look_alike_stay_apart():
    """Numbers by value, sign included; names of joints alone are not all one."""
    query, gallery, query_labels, gallery_labels = problem(5, classes=4)
    for names in (["-1", "1", "10", "01x"], ["-", "_", "--", ""], ["c++", "c", "c#", "+c"]):
        renamed = [np.array(names)[np.array([int(name[-1]) for name in labels])] for labels in (query_labels, gallery_labels)]
        assert score(query, gallery, *renamed).value("standard", "mAP@all") == pytest.approx(
            score(query, gallery, query_labels, gallery_labels).value("standard", "mAP@all"))


def test_numbers_and_their_spellings_are_one_class_where_asked():
    query, gallery, query_labels, gallery_labels = problem(5)
    numbers, texts = np.array([int(n[-1]) for n in query_labels]), np.array([n[-1] for n in gallery_labels])
    with pytest.raises(InputError, match="gallery_labels are strings .* query_labels integers .*spellings='merge'"):
        score(query, gallery, numbers, texts)
    assert score(query, gallery, numbers, texts, spellings="merge").summary() == score(
        query, gallery, query_labels, gallery_labels).summary()


def test_identical_photos_are_counted():
    """Against a set of rows; two changed signs, or rows scaled, are other rows, -0.0 too."""
    generator = np.random.default_rng(0)
    for kind in (np.float64, np.float32, np.float16, bool, np.uint8, np.int64):
        rows = generator.integers(0, 3, (60, 3)).astype(kind)
        assert inputs.identical_rows(rows) == 60 - len({row.tobytes() for row in rows}) > 0, kind
    base = generator.normal(size=(1, 6))
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=6)))
    assert inputs.identical_rows(base * signs) == 0
    assert inputs.identical_rows(np.asfortranarray(np.concatenate([base * signs, base * signs[5:7]]))) == 2
    query, gallery, query_labels, gallery_labels = problem(1)
    listed = np.concatenate([np.arange(31), [4, 4, 9]])
    again = query, gallery[listed], query_labels, gallery_labels[listed]
    assert score(*again).identical == 3 and score(query, gallery, query_labels, gallery_labels).identical == 0
    assert score(*again, gallery_group=listed).identical is None


def bad(position: int, value, **options):
    """A call of `evaluate` with one argument spoilt."""
    data = list(problem(0))
    data[position] = value(data[position]) if callable(value) else value
    return lambda: evaluate(*data, **options)


def spoilt(row: int, value: float):
    def change(array):
        array = array.copy()
        array[row, 1 if math.isnan(value) else slice(None)] = value
        return array
    return change


@pytest.mark.parametrize("call,message", [
    (bad(0, spoilt(3, math.nan)), "query holds NaN or infinity, first in row 3"),
    (bad(1, spoilt(4, math.inf)), "gallery holds NaN or infinity, first in row 4"),
    (bad(1, spoilt(5, 0.0)), "gallery row 5 is all zeros"),
    (bad(0, lambda x: x[:0]), "query is empty"),
    (bad(1, lambda x: x[:, 0]), "gallery must be"),
    (bad(1, lambda x: x[:, :3]), "query has 5 dimensions and gallery 3"),
    (bad(0, lambda x: x.astype(object)), "query is an array of object"),
    (bad(0, lambda x: x.astype(complex)), "query is an array of complex"),
    (bad(0, [[1.0, 2.0], [1.0]]), "query cannot be read"),
    (bad(0, lambda x: x > 0), "query .* metric='hamming'"),
    (bad(0, lambda x: x, metric="hamming"), "query is float64 and holds other values .* needs codes"),
    (bad(0, lambda x: np.sign(x).astype(np.int8), metric="hamming"), "query is int8 and holds -1 and 1.*give query > 0"),
    (bad(0, lambda x: np.float32(x > 0), metric="hamming"), "query is float32 and holds 0 and 1.*give query > 0"),
    (bad(0, lambda x: np.uint8(x > 0) * 255, metric="hamming"), "query is uint8 and holds 0 and 255.*give query > 0"),
    *((bad(3, lambda x: np.full(len(x), "zebra"), missing_classes=rule), "no photo of any query class .*zebra.*nothing can be")
      for rule in scoring.MISSING_CLASSES),
    (bad(0, lambda x: np.full(x.shape, 2, np.uint8), metric="hamming"), "query is uint8 and holds 2; .*unpackbits"),
    (bad(2, lambda x: x[:-1]), "query_labels has 8 entries, but query has 9 rows"),
    (bad(3, lambda x: x.astype(object)), "gallery_labels is an array of object"),
    (bad(3, lambda x: np.arange(len(x)) / 2), "gallery_labels is an array of float64"),
    (bad(3, lambda x: x[:, None]), "gallery_labels must be one-dimensional"),
    (bad(2, lambda x: np.arange(len(x))), "one kind"),
    (bad(0, lambda x: x, protocols=["iccv"]), "'iccv' is unknown; choose one of released"),
    (bad(0, lambda x: x, protocols=[]), "protocols is empty"),
    (bad(0, lambda x: x, metric="manhattan"), "metric='manhattan'"),
    (bad(0, lambda x: x, ks=(0,)), "ks must be"),
    (bad(0, lambda x: x, ks=(2.5,)), "ks must be"),
    (bad(0, lambda x: x, ties="random"), "ties='random'"),
    (bad(0, lambda x: x, tie_draws=0), "tie_draws"),
    (bad(0, lambda x: x, missing_classes="skip"), "missing_classes='skip'"),
    (bad(0, lambda x: x, duplicates="distinct"), "gallery_group"),
    (bad(0, lambda x: x, duplicates="distinct", gallery_group=[1, 2]), "gallery_group has 2 entries"),
    (bad(0, lambda x: x, gallery_group=[1, 2]), "gallery_group has 2 entries"),
    (bad(0, lambda x: x, block=0), "block"),
    (bad(0, lambda x: x, device="gpu"), "device='gpu' cannot be used here"),
    (bad(0, lambda x: x, device="cuda:99"), "device='cuda:99' cannot be used here"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_unknown_metric_of_scores_is_named():
    scores = score(*problem(0), protocols=["cvpr19", "zse"])
    with pytest.raises(InputError, match="no metric 'mAP@all'"):
        scores.value("cvpr19", "mAP@all")
    with pytest.raises(InputError, match="'released' was not scored"):
        scores.value("released", "mAP@all")


# ------------------------------------------------------------------------------------------------------- rank
@pytest.mark.parametrize("block", [None, 1, 4])
def test_rank_is_a_stable_sort(block):
    query, gallery, _, _ = problem(7)
    gallery = np.concatenate([gallery, gallery[::-1] * 3.0])  # every photo twice, at different lengths
    found = rank(query, gallery, 13, block=block)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery)]
    distance = ((unit[0][:, None] - unit[1][None]) ** 2).sum(2)
    np.testing.assert_array_equal(found, np.argsort(distance.round(12), axis=1, kind="stable")[:, :13])
    query, gallery, _, _ = coded(7, queries=9, photos=20)
    order = np.argsort((query[:, None] != gallery[None]).sum(2), axis=1, kind="stable")
    np.testing.assert_array_equal(rank(query, gallery, 50, "hamming", block=block), order)
    with pytest.raises(InputError, match="k must be"):
        rank(query, gallery, 0, "hamming")


def test_worked_examples_in_the_docstrings():
    for module in (scoring, retrieve):
        failed, tried = doctest.testmod(module)
        assert tried > 4 and failed == 0


def test_protocols_state_their_source():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.source.endswith(".")
