"""The scores of a run: which queries and photos are scored together, and that each row says which."""
from __future__ import annotations

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
        return (centres[labels] + rng.normal(size=(len(labels), 8))).astype(np.float32)

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


def test_values_per_query_are_those_of_all_queries_against_the_whole_gallery(features):
    scores = scoring.score_run(features, change(Config(), {"network.dim": 8}))
    own = features.unseen
    np.testing.assert_allclose(scores.per_query["real/standard/mAP@all"], average_precision(
        own.query, own.gallery, own.query_files.labels, own.gallery_files.labels), rtol=1e-6)
    assert {name.split("/")[0] for name in scores.per_query} == {"real", "binary"}
    assert {name.split("/")[1] for name in scores.per_query} == set(metrics.ALL)
    assert all(len(values) == 6 for values in scores.per_query.values())


def test_scoring_changes_none_of_its_input(features):
    before = [x.copy() for x in (features.unseen.query, features.unseen.gallery, *features.seen.values())]
    first, second = (scoring.score_run(features, change(Config(), {"network.dim": 8})) for _ in range(2))
    assert first.metrics == second.metrics
    for old, new in zip(before, (features.unseen.query, features.unseen.gallery, *features.seen.values())):
        assert np.array_equal(old, new)
