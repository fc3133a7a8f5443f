"""Mean, scatter, products and singular values of rows that are too many and too wide for float64 copies in memory.

In: rows [N, D] of any float type. Out: float64, computed from blocks of rows. Callers use this for rows that are `large`, and
compute smaller ones whole, so that those have bit for bit the results of versions without blocks.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

LARGE = 2**27
"""Number of elements above which rows are taken in blocks: 1 GB as float64, or 65,536 rows of a ResNet-50's 2,048 features."""
BLOCK_ROWS = 2**13
"""Number of rows in a block: 134 MB as float64 if they have 2,048 dimensions."""


def large(rows: np.ndarray) -> bool:
    """Whether rows are so many that they have to be taken in blocks."""
    return rows.size > LARGE


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in order, a block at a time, of the type they have."""
    for first in range(0, len(rows), BLOCK_ROWS):
        yield rows[first:first + BLOCK_ROWS]


def mean(rows: np.ndarray) -> np.ndarray:
    """The mean, float64 [D]."""
    sums = [block.sum(0, dtype=np.float64) for block in blocks(rows)]
    found: np.ndarray = np.sum(sums, axis=0) / len(rows)
    return found


def mean_and_scatter(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] and the sum of outer products of the centred rows [D, D]. Centring first takes two passes, but avoids the
    difference of two large sums, which would lose digits."""
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
    """R [min(N, D), D] of the QR decomposition of rows that come in parts. Its singular values are those of the rows, with the
    small ones just as accurate; computed from the scatter, they would lose half of their digits.

    Source: Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential QR and LU factorizations", 2012.
    """
    found: Any = next(parts)
    for part in itertools.chain([found[:0]], parts):
        found = np.linalg.qr(np.concatenate([found, part]), mode="r")
    return np.asarray(found)
