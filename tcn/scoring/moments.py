"""Mean, scatter, products and singular values of so many wide rows that float64 copies of them would fill the memory.

In: rows [N, D] of any float type. Out: float64, from blocks of rows. Smaller inputs are computed whole, as before there were blocks, so
that their results stay bit for bit; `large` says which is which.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

LARGE = 2**27
"""Numbers above which rows are taken in blocks: 1 GB as float64. 65,536 rows of 2,048 dimensions, the features of a ResNet-50."""
BLOCK_ROWS = 2**13
"""Rows of a block: 134 MB as float64 where they have 2,048 dimensions."""


def large(rows: np.ndarray) -> bool:
    """Whether rows are to be taken in blocks."""
    return rows.size > LARGE


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in order, a block at a time, of the type they have."""
    for first in range(0, len(rows), BLOCK_ROWS):
        yield rows[first:first + BLOCK_ROWS]


def mean(rows: np.ndarray) -> np.ndarray:
    """float64 [D]."""
    sums = [block.sum(0, dtype=np.float64) for block in blocks(rows)]
    found: np.ndarray = np.sum(sums, axis=0) / len(rows)
    return found


def mean_and_scatter(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] and the sum of outer products of the centred rows [D, D]. Two passes: what is small is not left of what is large."""
    centre = mean(rows)
    scatter = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks(rows):
        centred = block - centre
        scatter += centred.T @ centred
    return centre, scatter


def product(rows: np.ndarray, centre: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(rows - centre [D]) @ matrix [D, K]: float64 [N, K]."""
    found = np.empty((len(rows), matrix.shape[1]))
    for first, block in zip(range(0, len(rows), BLOCK_ROWS), blocks(rows)):
        found[first:first + BLOCK_ROWS] = (block - centre) @ matrix
    return found


def triangle(parts: Iterator[np.ndarray]) -> np.ndarray:
    """R [min(N, D), D] of the QR decomposition of rows that come in parts: it has their singular values, the smallest as exactly as the
    rows themselves, while those of the scatter lose half of the digits.

    Source: Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential QR and LU factorizations", 2012.
    """
    found: Any = next(parts)
    for part in itertools.chain([found[:0]], parts):
        found = np.linalg.qr(np.concatenate([found, part]), mode="r")
    return np.asarray(found)
