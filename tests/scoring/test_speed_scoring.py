"""The fast ways of scoring against the general one, against plain loops, and against the benchmark's reference."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.speed import reference_scoring
from tcn.scoring import scores
from tcn.scoring.cpu.blocks import Block, BlockScores, Scratch, in_threads
from tcn.scoring.cpu.codes import Codes
from tcn.scoring.cpu.one_pass import rank_all
from tcn.scoring.cpu.real import Real
from tcn.scoring.cpu.runs import Runs, drawn_ranks
from tcn.scoring.cpu.values import table_values
from tcn.scoring.measures import Asked, from_ranks
from tcn.scoring.protocols import ALL, AP, R_PRECISION, Divisor, Prec, Precision
from tcn.scoring.rankings import Gallery, random_ranks
from tcn.scoring.scores import TIES, score

KS = (1, 5, 40)


@pytest.fixture
def general(monkeypatch):
    """Scores by torch's path alone, as on a GPU: the single pass leaves every query."""
    def call(*data, **options):
        with monkeypatch.context() as patch:
            patch.setattr(scores, "rank_all", lambda gallery, queries, schedule, *rest: BlockScores(left=[schedule]))
            return score(*data, **options)
    return call


def labels(generator, queries: int, photos: int, classes: int = 4):
    """Classes of unequal size, each with photos; photos also of a class that no query has."""
    other = generator.integers(0, classes + 1, photos - classes) ** 2 % (classes + 1)
    return generator.integers(0, classes, queries), np.concatenate([np.arange(classes), other])


def real(seed: int, spread: float = 1.0, queries: int = 30, photos: int = 210):
    """Features [N, 6] with copies within and across classes; a small spread makes them nearly collapsed."""
    generator = np.random.default_rng(seed)
    query, gallery = (np.ones(6) * (spread < 1) + spread * generator.normal(size=(rows, 6)) for rows in (queries, photos))
    gallery[generator.integers(0, photos, 25)] = gallery[generator.integers(0, photos, 25)] * 2.0
    return query, gallery, *labels(generator, queries, photos)


def codes(seed: int, bits: int, queries: int = 30, photos: int = 210):
    generator = np.random.default_rng(seed)
    return (generator.random((queries, bits)) < 0.3, generator.random((photos, bits)) < 0.4,
            *labels(generator, queries, photos))


def assert_equal_scores(one, other) -> None:
    for name in ALL:
        for metric in one.metrics(name):
            np.testing.assert_allclose(one.per_query(name, metric), other.per_query(name, metric), rtol=0, atol=1e-12,
                                       err_msg=f"{name} {metric}")
            assert one.error(name, metric) == pytest.approx(other.error(name, metric), abs=1e-12), (name, metric)


# ------------------------------------------------------------------------------------- against the general path
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("bits", [1, 3, 64, 70, 512])
def test_codes_score_as_on_the_general_path(general, ties, bits):
    data = codes(bits, bits)
    assert_equal_scores(score(*data, metric="hamming", ks=KS, ties=ties), general(*data, metric="hamming", ks=KS, ties=ties))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-9, 0.0])
def test_features_score_as_on_the_general_path(general, ties, spread):
    data = real(5, spread)
    assert_equal_scores(score(*data, ks=KS, ties=ties), general(*data, ks=KS, ties=ties))


@pytest.mark.parametrize("ties", ["expected", "gallery-order", "worst"])
def test_all_photos_of_one_class(general, ties):
    for data, metric in ((real(1), "euclidean"), (codes(1, 5), "hamming")):
        data = *data[:2], np.zeros(30, int), np.zeros(210, int)
        found = score(*data, metric=metric, ks=KS, ties=ties)
        assert_equal_scores(found, general(*data, metric=metric, ks=KS, ties=ties))
        assert found.value("standard", "mAP@all") == pytest.approx(1.0, rel=1e-12)


def test_a_class_with_a_single_photo_and_queries_without_any(general):
    query, gallery, query_labels, gallery_labels = real(2)
    gallery_labels = np.where(np.arange(len(gallery)) == 7, 90, gallery_labels)
    query_labels = np.concatenate([[90, 91, 90], query_labels[3:]])
    options = {"ks": KS, "missing_classes": "zero"}
    data = query, gallery, query_labels, gallery_labels
    assert_equal_scores(score(*data, **options), general(*data, **options))


# --------------------------------------------------------------------------------------------- coarse numbers
def close_pairs(gap: float):
    """Two photos at each of 60 angles, one of the query's class, `gap` radians apart; either may be the nearer."""
    generator = np.random.default_rng(1)
    angle = np.linspace(0.3, 1.2, 60)
    first = generator.random(60) < 0.5
    angles = np.stack([angle + gap * first, angle + gap * ~first], axis=1).reshape(-1)
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.array([[1.0, 0.0]]), gallery, np.array([1]), np.tile([1, 0], 60), angles


def one_pass_of(query, gallery, gallery_labels, measures):
    """The single pass alone, on a gallery whose first photos are the relevant ones; and what its coarse numbers leave."""
    order = np.argsort(gallery_labels != 1, kind="stable")
    photos = torch.from_numpy(gallery[order])
    table = Gallery.of(photos, torch.from_numpy(order), torch.from_numpy(query), "euclidean")
    number = np.array([int((gallery_labels == 1).sum())])
    coarse = Real.of(table, torch.from_numpy(query), measures).coarse(
        Block(np.array([0]), int(number[0]), ((0, 1, 0),)), Scratch())
    return rank_all(table, torch.from_numpy(query), np.array([0]), np.array([0]), number,
                 Asked(measures, "expected", 1, 0)), coarse


def test_photos_closer_than_the_coarse_numbers_are_still_ranked():
    measure = AP(None, False, Divisor.MIN_K_R)
    query, gallery, _, gallery_labels, angles = close_pairs(2e-11)
    found, coarse = one_pass_of(query, gallery, gallery_labels, (measure,))
    assert len(coarse.left) == 1 and not found.left  # 32 bits do not tell them apart, 64 do
    relevance = (gallery_labels[np.argsort(angles)] == 1).tolist()
    precisions = [sum(relevance[:i + 1]) / (i + 1) for i in range(len(relevance)) if relevance[i]]
    assert found.values[0][1][measure] == pytest.approx(sum(precisions) / len(precisions), rel=1e-12)
    copies, _ = one_pass_of(*(close_pairs(0.0)[i] for i in (0, 1, 3)), (measure,))
    assert len(copies.left) == 1 and not copies.values  # true ties are the general path's


def test_wide_gaps_need_no_second_look():
    query, gallery, _, gallery_labels, _ = close_pairs(1e-4)
    found, coarse = one_pass_of(query, gallery, gallery_labels, (AP(None, True, Divisor.MIN_K_R),))
    assert not coarse.left and not found.left


def test_equal_units_give_equal_coarse_numbers_and_order_is_kept():
    generator = np.random.default_rng(4)
    gallery = generator.normal(size=(300, 9))
    gallery[150:] = gallery[:150]
    photos, queries = (torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))
                       for rows in (gallery, generator.normal(size=(40, 9))))
    table = Gallery.of(photos, torch.arange(300), queries, "euclidean")
    sides = Real.of(table, queries, ())
    units = table.distances(queries).numpy()
    for kind in (np.int32, np.int64):
        keys = sides._keys(sides.queries, Scratch(), kind)
        assert (keys % 2 == 0).all()
        order = np.argsort(units, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(keys, order, 1).astype(np.int64), axis=1) >= 0).all()
        np.testing.assert_array_equal(keys[:, :150], keys[:, 150:])
    distance = ((queries[:, None] - photos[None]) ** 2).sum(2).numpy() / 2 * table.scale
    np.testing.assert_allclose(units, distance, atol=1)
    off = keys // 2 - units  # the last kind are the units less an offset; another order of sums may round otherwise
    assert np.ptp(off) <= 2 and (off == np.median(off)).mean() > 0.99


# -------------------------------------------------------------------------------------------- parts of codes
@pytest.mark.parametrize("bits", [1, 8, 63, 64, 65, 255, 256, 300])
def test_distances_and_counts_are_those_of_a_loop(bits):
    query, gallery, _, _ = codes(bits, bits, queries=5, photos=40)
    signs = [torch.from_numpy(np.where(side, 1.0, -1.0)).float() for side in (query, gallery)]
    table = Gallery.of(signs[1], torch.arange(40), signs[0], "hamming")
    packed = Codes.of(table, signs[0], Asked((), "expected", 1, 0))
    block = Block(np.array([3, 1, 4]), 6, ((0, 2, 10), (2, 3, 30)))
    distances = packed._distances(block, Scratch())
    naive = [[sum(bool(a) != bool(b) for a, b in zip(query[i], photo)) for photo in gallery] for i in (3, 1, 4)]
    assert distances.tolist() == naive
    expected = [[row.count(d) for d in range(bits + 1)] for row in naive]
    assert packed._counts(distances, Scratch()).tolist() == expected
    parts = [naive[0][10:16], naive[1][10:16], naive[2][30:36]]
    assert packed._relevant_counts(distances, block).tolist() == [[row.count(d) for d in range(bits + 1)] for row in parts]


def test_drawn_orders_are_those_of_the_general_path():
    """Runs of every kind: sparse, half full, nearly full, full, empty, without relevant photos."""
    size = np.array([[3, 0, 40, 12, 5, 9, 1], [7, 7, 7, 7, 7, 7, 28]])
    hits = np.array([[0, 0, 3, 6, 4, 9, 1], [1, 2, 3, 4, 5, 6, 2]])
    runs, identity, draws = Runs.of(size, hits), np.array([5, 70_000]), 50
    found = drawn_ranks(runs, identity, draws, seed=9)
    rows = torch.arange(2).repeat_interleave(draws)
    stream = torch.from_numpy(identity)[rows] * draws + torch.arange(draws).repeat(2)
    np.testing.assert_array_equal(found, random_ranks(runs.of_photos().rows(rows), stream, seed=9).numpy())
    assert (np.diff(found, axis=1) > 0).all() and len(np.unique(found, axis=0)) > 90


def test_measures_of_a_table_are_the_general_ones():
    generator = np.random.default_rng(0)
    ranks = np.sort(np.stack([generator.choice(300, 45, replace=False) for _ in range(20)]) + 1.0, axis=1)
    measures = [AP(k, interpolated, divisor) for interpolated in (False, True) for divisor in Divisor
                for k in (None, 1, 7, 45, 400)]
    measures += [Prec(k, rule) for rule in Precision for k in (1, 7, 44, 400)] + [R_PRECISION]
    number = torch.full((20,), 45)
    for measure, values in table_values(measures, ranks).items():
        np.testing.assert_allclose(values, from_ranks(measure, torch.from_numpy(ranks), number).numpy(), rtol=1e-13,
                                   err_msg=str(measure))


# --------------------------------------------------------------------------------- blocks, threads, small caches
@pytest.mark.parametrize("ties", ["expected", "gallery-order", "best", "scikit-learn"])
def test_threads_and_blocks_change_no_value(monkeypatch, ties):
    known = torch.get_num_threads()
    for data, metric in ((real(3), "euclidean"), (codes(3, 9), "hamming")):
        reference = score(*data, metric=metric, ks=KS, ties=ties)
        try:
            for threads, block, elements in ((1, None, 2**16), (3, 1, 300), (2, 7, 1), (3, None, 5000)):
                torch.set_num_threads(threads)
                for name in ("real.TILE", "codes.TILE", "blocks.SORTED", "codes.DRAWN"):
                    monkeypatch.setattr(f"tcn.scoring.cpu.{name}", elements)
                other = score(*data, metric=metric, ks=KS, ties=ties, block=block)
                assert_equal_scores(other, reference)
        finally:
            torch.set_num_threads(known)


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(block, scratch):
        raise MemoryError("no room")
    with pytest.raises(MemoryError, match="no room"):
        in_threads([Block(np.array([0]), 1, ((0, 1, 0),))] * 3, fail)


# -------------------------------------------------------------------------------------- the benchmark's reference
@pytest.mark.parametrize("metric", ["euclidean", "hamming"])
def test_the_reference_of_the_benchmark_agrees(metric):
    generator = np.random.default_rng(0)
    sides = [generator.normal(size=(rows, 16)).astype(np.float32) for rows in (90, 400)]
    sides = [side > 0 for side in sides] if metric == "hamming" else sides
    own = generator.integers(0, 5, 90), generator.integers(0, 5, 400)
    average, within = reference_scoring.each_query(*sides, *own, k=50)
    scores = score(*sides, *own, metric=metric, ks=(50,), ties="gallery-order")
    for name, values in (("mAP@all", average), ("Prec@50", within)):
        np.testing.assert_allclose(scores.per_query("released", name), values, rtol=1e-9)
        assert scores.value("released", name) == pytest.approx(reference_scoring.mean_over_classes(values, own[0]))
