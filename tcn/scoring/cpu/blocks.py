"""Blocks of queries, the arrays of a thread, and the threads that work on them.

In: which queries have how many relevant photos. Out: `Block`s of queries with the same number, worked on in threads, and
the `Result` of all. No loop over queries or ranks in Python.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from tcn.scoring.protocols import Measure

TILE = 2**16
"""Elements of one tile of distances (queries x some photos): 512 KB, which a core's second-level cache holds."""
SORTED = 2**17
"""Elements sorted in one go."""


@dataclass(frozen=True)
class Block:
    """Queries scored together: all have the same number of relevant photos."""

    rows: np.ndarray  #: int64 [B], indices of the queries
    relevant: int  #: R, at least 1
    spans: tuple[tuple[int, int, int], ...]  #: (first, end, start): these rows' relevant photos begin at `start`


@dataclass
class BlockScores:
    """What a block, or a whole gallery, found."""

    values: list[tuple[np.ndarray, dict[Measure, np.ndarray]]] = field(default_factory=list)  #: rows [B], values [B]
    draws: list[tuple[np.ndarray, dict[Measure, np.ndarray]]] = field(default_factory=list)  #: rows, [B, draws]
    left: list[np.ndarray] = field(default_factory=list)  #: rows whose ties the single pass does not resolve

    def add(self, other: BlockScores) -> None:
        self.values += other.values
        self.draws += other.draws
        self.left += other.left


class Scratch:
    """Arrays of one thread, kept from block to block: fresh memory costs as much as a pass over it."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Uninitialised; overwritten by the next request under this name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size, np.uint8)
        return self._held[name][:size].view(dtype).reshape(shape)


def blocks(schedule: np.ndarray, starts: np.ndarray, relevant: np.ndarray, most: int) -> Iterator[Block]:
    """Cut the schedule where the number of relevant photos changes, and after `most` queries."""
    edges = np.flatnonzero(np.diff(relevant[schedule])) + 1
    for run in np.split(schedule, edges) if len(schedule) else []:
        for begin in range(0, len(run), most):
            rows = run[begin:begin + most]
            first = starts[rows]
            cuts = [0, *(np.flatnonzero(np.diff(first)) + 1).tolist(), len(rows)]
            spans = tuple((a, z, int(first[a])) for a, z in pairwise(cuts))
            yield Block(rows, int(relevant[rows[0]]), spans)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def in_threads(blocks: list[Block], work: Callable[[Block, Scratch], BlockScores]) -> BlockScores:
    """Work on all blocks; each thread takes the next one when it is free. Linear algebra keeps to its own thread."""
    lock, pending = threading.Lock(), iter(blocks)

    def run() -> BlockScores:
        found, scratch = BlockScores(), Scratch()
        while True:
            with lock:
                block = next(pending, None)
            if block is None:
                return found
            found.add(work(block, scratch))

    threads = min(torch.get_num_threads(), len(blocks))
    if not threads:
        return BlockScores()
    with _libraries().limit(limits=1, user_api="blas"):
        if threads == 1:
            return run()
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(run) for _ in range(threads)]
        found = BlockScores()
        for job in jobs:
            found.add(job.result())
        return found


def sorted_hits(
    keys: np.ndarray, ranks: np.ndarray, scratch: Scratch, near: tuple[np.ndarray, np.ndarray] | None = None
) -> None:
    """Sort each row of `keys` [B, N] and write where its R keys with the lowest bit set then stand, from 1, to `ranks`.

    ranks: float64 [B, R]. near: two more tables [B, R], of the keys' type, for these keys and for what stands before
    each in sorted order; before the first of a row that may be the last key of another row.
    """
    (rows, photos), number = keys.shape, ranks.shape[1]
    step = max(1, SORTED // photos)  # a few rows at a time: they stay in the cache from the sort to the last look
    flags = scratch.array("flags", (min(step, rows), photos), np.int8)
    before = np.arange(min(step, rows), dtype=np.float64)[:, None] * photos - 1
    for begin in range(0, rows, step):
        part = keys[begin:begin + step]
        part.sort(axis=1)
        own = flags[:len(part)]
        np.bitwise_and(part, 1, out=own, casting="unsafe")
        found = np.flatnonzero(own.view(np.bool_)).reshape(len(part), number)
        np.subtract(found, before[:len(part)], out=ranks[begin:begin + step])
        if near is not None:
            flat = part.reshape(-1)
            flat.take(found, out=near[0][begin:begin + step], mode="wrap")
            flat.take(found - 1, out=near[1][begin:begin + step], mode="wrap")


def mark(keys: np.ndarray, block: Block) -> None:
    for first, end, start in block.spans:
        keys[first:end, start:start + block.relevant] |= 1
