"""The scores of a run: which queries and photos are scored together, and that each row says which."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scoring
from benchmarks.extraction import RunFeatures, SetFeatures
from tcn import metrics
from tcn.config import Config, Modality, change
from tcn.data.splits import Files


def files(labels: list[int], sources: list[str], groups: tuple[str, ...] = ()) -> Files:
    return Files(Path("."), tuple(map(str, range(len(labels)))), np.array(labels), tuple(sources), groups)


@pytest.fixture(scope="module")
def features() -> RunFeatures:
    """Three unequal classes; sketches by two publishers, of whom one also drew some photos; one photo is listed twice."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(3, 8))
    queries, photos = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]

    def of(labels: list[int]) -> np.ndarray:
        return (centres[labels] + 2 * rng.normal(size=(len(labels), 8))).astype(np.float32)

    query, gallery = of(queries), of(photos)
    gallery[4] = gallery[3]
    own = SetFeatures(query, gallery, files(queries, ["emojione-monotone", "b"] * 3),
                      files(photos, ["emojione-v1", "c"] * 5, tuple("0123356789")))
    return RunFeatures({m: of([0, 1, 2] * 6) for m in Modality}, own)


def average_precision(query: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, labels: np.ndarray) -> list[float]:
    """AP of each query from a plain ranking by distance of rows of length 1; no two photos of these tests are equally far."""
    query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query.astype(float), gallery.astype(float)))
    found = []
    for row, label in zip(query, query_labels):
        hits = labels[np.argsort(((gallery - row) ** 2).sum(1), kind="stable")] == label
        found.append(float(np.mean([hits[:i + 1].mean() for i in np.flatnonzero(hits)])))
    return found


def test_each_subset_holds_the_queries_and_photos_that_its_row_names(features):
    scores = scoring.score_run(features, change(Config(), {"data.dataset": "emoji", "data.split": "fixed", "network.dim": 8}))
    rows = {(r.query_source, r.gallery, r.duplicates): r for r in scores.metrics
            if (r.classes, r.features, r.protocol, r.metric) == ("unseen", "real", "standard", "mAP@all")}
    own, everything = features.unseen, np.ones(10, bool)
    first_copies, not_theirs = np.arange(10) != 4, np.array(own.gallery_files.sources) != "emojione-v1"
    theirs = np.array(own.query_files.sources) == "emojione-monotone"
    expected = {("all", "all", "as-published"): (np.ones(6, bool), everything),
                ("all", "all", "distinct"): (np.ones(6, bool), first_copies),
                ("b", "all", "as-published"): (~theirs, everything),
                ("emojione-monotone", "all", "as-published"): (theirs, everything),
                ("emojione-monotone", "without emojione-v1", "as-published"): (theirs, not_theirs)}
    assert rows.keys() == expected.keys()
    for key, (queries, photos) in expected.items():
        values = average_precision(own.query[queries], own.gallery[photos], own.query_files.labels[queries],
                                   own.gallery_files.labels[photos])
        assert rows[key].value == pytest.approx(np.mean(values), rel=1e-6), key
        assert (rows[key].queries, rows[key].photos) == (queries.sum(), photos.sum())
    assert len({row.value for row in rows.values()}) == len(rows), "the data must tell the subsets apart"


def test_values_per_query_are_those_of_all_queries_against_the_whole_gallery(features):
    scores = scoring.score_run(features, change(Config(), {"network.dim": 8}))
    own = features.unseen
    np.testing.assert_allclose(scores.per_query["real/standard/mAP@all"], average_precision(
        own.query, own.gallery, own.query_files.labels, own.gallery_files.labels), rtol=1e-6)
    assert {name.split("/")[0] for name in scores.per_query} == {"real", "binary"}
    assert {name.split("/")[1] for name in scores.per_query} == set(metrics.ALL)
    assert all(len(values) == 6 for values in scores.per_query.values())


def test_the_ledger_is_scored_of_fewer_queries_than_the_blocks_it_compares(features):
    """Six queries in seven blocks: one at a time."""
    rows = scoring.score_ledger(replace(features, other_side=features.unseen.gallery[::-1].copy()),
                                change(Config(), {"network.dim": 8}))
    blocks, whole = ([row.value for row in rows if (row.deviation, row.arm) == ("one-matrix", arm)]
                     for arm in ("corrected", "released"))
    assert len(blocks) == len(scoring.LEDGER_METRICS) and blocks == pytest.approx(whole)


def test_scoring_changes_none_of_its_input(features):
    before = [x.copy() for x in (features.unseen.query, features.unseen.gallery, *features.seen.values())]
    first, second = (scoring.score_run(features, change(Config(), {"network.dim": 8})) for _ in range(2))
    assert first.metrics == second.metrics
    for old, new in zip(before, (features.unseen.query, features.unseen.gallery, *features.seen.values())):
        assert np.array_equal(old, new)


def test_instances_are_scored_where_file_names_tell_the_photo(features):
    """Both kinds of features, both ways of counting the photo that is listed twice; one sketch's photo is not there."""
    own = features.unseen
    photos = tuple(f"{label}/p{group}" for label, group in zip(own.gallery_files.labels, own.gallery_files.groups))
    drawn = ("0/p0", "0/p1", "0/p0", "1/p3", "1/absent", "2/p5")
    named = replace(features, unseen=replace(own, query_files=replace(own.query_files, instances=drawn),
                                             gallery_files=replace(own.gallery_files, instances=photos)))
    plain, scored = (scoring.score_run(one, change(Config(), {"network.dim": 8})) for one in (features, named))
    extra = [row for row in scored.metrics if row not in plain.metrics]
    assert [row for row in scored.metrics if row not in extra] == list(plain.metrics)
    assert {(r.features, r.duplicates, r.query_source, r.gallery, r.protocol, r.metric) for r in extra} == {
        (kind, rule, "all", "all", scope, f"Acc@{k}") for kind in ("real", "binary") for rule in ("as-published", "distinct")
        for scope in ("instance", "instance-in-class") for k in (1, 5, 10)}
    assert {(row.queries, row.photos, row.ties, row.ceiling) for row in extra if row.duplicates == "distinct"} == {
        (5, 9, "expected", 1.0)}
    query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (own.query.astype(float), own.gallery.astype(float)))
    for scope in ("instance", "instance-in-class"):
        places = []
        for row, photo in ((0, 0), (1, 1), (2, 0), (3, 3), (5, 5)):
            ranked = [j for j in range(10) if scope == "instance" or own.gallery_files.labels[j] == own.query_files.labels[row]]
            places.append(sum(query[row] @ gallery[j] > query[row] @ gallery[photo] + 1e-12 for j in ranked))
        value = next(r.value for r in extra
                     if (r.features, r.duplicates, r.protocol, r.metric) == ("real", "as-published", scope, "Acc@1"))
        assert value == pytest.approx(np.mean([place < 1 for place in places]))


def test_no_photo_of_any_sketch_means_no_row(features):
    files = (replace(features.unseen.query_files, instances=("",) * 6),
             replace(features.unseen.gallery_files, instances=("",) * 10))
    lacking = replace(features, unseen=replace(features.unseen, query_files=files[0], gallery_files=files[1]))
    assert not [row for row in scoring.score_run(lacking, change(Config(), {"network.dim": 8})).metrics
                if row.metric.startswith("Acc")]
