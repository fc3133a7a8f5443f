"""Scoring at the size of real data sets: all six protocols from one call, beside one protocol in the released style.

Features (64-d) and codes (64 bits) are random; the numbers of queries and photos per class are those of the published lists.
The ceiling is one product and one float32 sort of every row on the same number of threads, and nothing else.
`TCN_SPEED_FULL=1` adds QuickDraw's 92,291 x 54,151 (ours only).
"""
from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from benchmarks.speed.conftest import Timed
from benchmarks.speed.reference_scoring import each_query
from benchmarks.tools.scoring_size import DIMENSIONS, labels_of
from tcn import metrics

Precision = type[np.float32] | type[np.float64]
FULL = os.environ.get("TCN_SPEED_FULL") == "1"
#: Number of queries that the reference scores: each takes some milliseconds, so all of them would take minutes.
PART = 60
#: Number of queries in a block of the ceiling, so that one thread holds some megabytes.
ROWS = 64


@lru_cache(maxsize=1)
def material(dataset: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features [N, 64] float32 and labels [N], each of the queries and of the photos."""
    rng = np.random.default_rng(0)
    labels = [labels_of(dataset, kind) for kind in ("sketches", "photos")]
    return [rng.standard_normal((len(own), DIMENSIONS)).astype(np.float32) for own in labels], labels


def sides_of(dataset: str, kind: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sides, labels = material(dataset)
    return ([side > 0 for side in sides] if kind == "codes" else sides), labels


def multiply_and_sort(queries: np.ndarray, photos: np.ndarray, precision: Precision) -> None:
    """The ceiling: one product and one float32 sort of each row, in blocks, on torch's number of threads."""
    queries, across = queries.astype(precision), np.ascontiguousarray(photos.T, dtype=precision)
    blocks = [queries[begin:begin + ROWS] for begin in range(0, len(queries), ROWS)]
    threads = torch.get_num_threads()

    def some(first: int) -> None:
        product = np.empty((ROWS, len(photos)), precision)
        held = np.empty((ROWS, len(photos)), np.float32)
        for rows in blocks[first::threads]:
            np.matmul(rows, across, out=product[:len(rows)])
            held[:len(rows)] = product[:len(rows)]
            held[:len(rows)].sort(axis=1)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


def ours(dataset: str, kind: str, **options: Any) -> Callable[[], metrics.Scores]:
    sides, labels = sides_of(dataset, kind)
    metric = "hamming" if kind == "codes" else "euclidean"
    return lambda: metrics.score(sides[0], sides[1], labels[0], labels[1], metric=metric, **options)


@pytest.mark.parametrize("kind", ["real", "codes"])
@pytest.mark.parametrize("role", ["reference", "ours", "ceiling"])
def bench_scoring(timed: Timed, kind: str, role: str) -> None:
    """Real-valued features without ties, and codes in gallery order: no tie orders are sampled."""
    sides, labels = sides_of("sketchy", kind)
    work = {"real": "Sketchy, real-valued", "codes": "Sketchy, 64-bit codes, gallery order"}[kind]
    options = {"subject": "scoring", "work": work, "role": role, "unit": "query"}
    if role == "reference":
        part = np.linspace(0, len(labels[0]) - 1, PART).astype(int)
        values = timed(run=lambda: each_query(sides[0][part], sides[1], labels[0][part], labels[1]), units=PART, rounds=3,
                       warmup=0, note=f"{PART} queries, one protocol: mAP@all and Prec@100", **options)
        scores = ours("sketchy", kind, ties="gallery-order")()
        for metric, own in zip(("mAP@all", "Prec@100"), values):
            np.testing.assert_allclose(scores.per_query("released", metric)[part], own, rtol=1e-9)
    elif role == "ours":
        ties = "gallery-order" if kind == "codes" else "expected"
        timed(run=ours("sketchy", kind, ties=ties), units=len(labels[0]), rounds=3, warmup=1,
              note="six protocols, mAP@all, mAP and Prec at 100 and 200", **options)
    else:
        real, _ = sides_of("sketchy", "real")  # sorting codes would meet equal values
        # Ties are defined to 2**-40 of the features' spread, a precision that a float32 product does not have.
        precision: Precision = np.float64 if kind == "real" else np.float32
        timed(run=lambda: multiply_and_sort(real[0], real[1], precision), units=len(labels[0]), rounds=3, warmup=1,
              note=f"{precision.__name__} product and float32 sort alone, values that differ", **options)


@pytest.mark.parametrize("role", ["ours", "ceiling"])
def bench_float32_ceiling(timed: Timed, role: str) -> None:
    """The same comparison, with a float32 product in the ceiling, which is not precise enough to detect ties."""
    sides, labels = sides_of("sketchy", "real")
    run = ours("sketchy", "real") if role == "ours" else lambda: multiply_and_sort(sides[0], sides[1], np.float32)
    timed(subject="scoring", work="Sketchy, real-valued, against float32", role=role, run=run, units=len(labels[0]), unit="query",
          rounds=3, warmup=1, note="float32 product and sort alone" if role == "ceiling" else "")


@pytest.mark.parametrize("ties,note", [("expected", "32 orders of ties drawn where no closed form is known"),
                                       ("best", "upper bound"), ("worst", "lower bound")])
def bench_ties(timed: Timed, ties: str, note: str) -> None:
    timed(subject="scoring", work=f"Sketchy, 64-bit codes, {ties}", role="ours", run=ours("sketchy", "codes", ties=ties),
          units=len(material("sketchy")[1][0]), unit="query", rounds=3, warmup=1, note=note)


@pytest.mark.skipif(not FULL, reason="minutes; set TCN_SPEED_FULL=1")
@pytest.mark.parametrize("kind,ties", [("real", "expected"), ("codes", "gallery-order"), ("codes", "expected")])
def bench_quickdraw(timed: Timed, kind: str, ties: str) -> None:
    work = "QuickDraw, real-valued" if kind == "real" else f"QuickDraw, 64-bit codes, {ties}"
    timed(subject="scoring", work=work, role="ours", run=ours("quickdraw", kind, ties=ties),
          units=len(material("quickdraw")[1][0]), unit="query", rounds=1, warmup=0, note="92,291 x 54,151")
