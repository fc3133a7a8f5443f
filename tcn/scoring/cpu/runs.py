"""Runs of equal Hamming distance, and ranks drawn within them.

In: how many photos, and how many relevant ones, lie at each distance from each query. Out: the run in which each relevant photo
stands, and its ranks under random tie orders, the same as `tcn.scoring.rankings.random_ranks` draws.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from tcn.scoring.rankings import TieGroups


@dataclass(frozen=True)
class Runs:
    """The runs of equal Hamming distance of each query, nearest first: all int64 [B, D + 1]."""

    start: np.ndarray  #: photos that lie nearer
    size: np.ndarray  #: photos at this distance
    before: np.ndarray  #: relevant photos that lie nearer
    hits: np.ndarray  #: relevant photos at this distance

    @classmethod
    def of(cls, size: np.ndarray, hits: np.ndarray) -> Runs:
        return cls(size.cumsum(1) - size, size, hits.cumsum(1) - hits, hits)

    def rows(self, chosen: np.ndarray) -> Runs:
        return Runs(self.start[chosen], self.size[chosen], self.before[chosen], self.hits[chosen])

    @property
    def mixed(self) -> np.ndarray:
        """Queries, bool [B], whose tie order matters."""
        found: np.ndarray = np.any((self.hits > 0) & (self.hits < self.size), axis=1)
        return found

    def of_photos(self) -> TieGroups:
        """For each relevant photo, nearest first, the run in which it stands: int64 [B, R] (all rows have R)."""
        run = np.repeat(np.arange(self.hits.size), self.hits.reshape(-1)).reshape(len(self.hits), -1)
        return TieGroups(*(torch.from_numpy(table.reshape(-1)[run])
                           for table in (self.start, self.size, self.before, self.hits)))


_GOLDEN, _FIRST, _SECOND = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(state: np.ndarray) -> np.ndarray:
    """splitmix64's mixing steps on uint64, in place."""
    shifted = np.empty_like(state)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        np.bitwise_xor(state, np.right_shift(state, np.uint64(shift), out=shifted), out=state)
        np.multiply(state, factor, out=state)
    np.bitwise_xor(state, np.right_shift(state, np.uint64(31), out=shifted), out=state)
    return state


def _draws(seed: int, streams: Iterable[np.ndarray | int], counter: np.ndarray, size: np.ndarray | np.float64) -> np.ndarray:
    """Random float64 numbers in [0, size): `tcn.scoring.rankings.uniform` times `size`."""
    state = np.zeros(1, np.uint64)
    for part in (seed, *streams):
        state = _mix((state + np.asarray(part, np.int64).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    bits = _mix((counter.astype(np.uint64) + np.uint64(1)) * _GOLDEN + state)
    np.right_shift(bits, np.uint64(11), out=bits)
    # A whole number below 2**53 times a size is rounded once, like the uniform number times the size.
    return np.multiply(bits.view(np.int64), size * 2.0**-53, out=bits.view(np.float64), casting="unsafe")


def drawn_ranks(runs: Runs, identity: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Ranks of the relevant photos under `draws` random tie orders, float64 [Q * draws, R], ascending.

    runs: of Q queries with R relevant photos each. identity: int64 [Q], names their streams of random numbers. The
    draws are those of `tcn.scoring.rankings.random_ranks`, whose docstring says why every order is equally likely.
    """
    groups = [table.numpy() for table in vars(runs.of_photos()).values()]
    start, size, before, hits = groups
    width, column = start.shape[1], np.arange(start.shape[1])
    stream = (identity[:, None] * draws + np.arange(draws)).reshape(-1)
    sparse = (hits < size) & (2 * hits <= size)
    base = np.where(sparse, start, start + column - before).astype(np.int32)
    span = np.where(sparse, size, 0).astype(np.float64)
    drawn = _draws(seed, (stream.reshape(-1, draws, 1), 0), column, span[:, None])
    ranks = drawn.astype(np.int32)
    ranks += base[:, None]
    ranks = ranks.reshape(-1, width)
    ranks.sort(axis=1)
    again, part, attempt = np.arange(len(ranks)), ranks, 0
    while True:
        same = part[:, 1:] == part[:, :-1]
        clash = same.any(1)
        if not clash.any():
            break
        again, part, attempt = again[clash], part[clash], attempt + 1
        row, at = np.divmod(np.flatnonzero(same[clash]), width - 1)
        at += 1
        query = again[row] // draws
        drawn = _draws(seed, (stream[again[row]], attempt), at, size[query, at].astype(np.float64))
        part[row, at] = start[query, at] + drawn.astype(np.int64)
        part.sort(axis=1)
        ranks[again] = part
    _shuffle_dense(ranks, (start, size, before, hits), stream, draws, seed)
    return ranks + 1.0


def _shuffle_dense(ranks: np.ndarray, groups: tuple[np.ndarray, ...], stream: np.ndarray, draws: int, seed: int) -> None:
    """Shuffle, in place, the positions of runs of which more than half are relevant."""
    start, size, before, hits = groups
    first_of_run = (hits < size) & (2 * hits > size) & (np.arange(start.shape[1]) == before)
    query, first = np.nonzero(first_of_run)
    if not len(query):
        return
    row = (query[:, None] * draws + np.arange(draws)).reshape(-1)  # every run once for each draw
    query, first = np.repeat(query, draws), np.repeat(first, draws)
    length, wanted = size[query, first], hits[query, first]
    run = np.repeat(np.arange(len(row)), length)
    position = np.arange(len(run)) - (length.cumsum() - length)[run]
    # The same uniform numbers as on torch's path: 53 bits, added to the run's number.
    key = run + _draws(seed, (stream[row][run], -1 - first[run]), position, np.float64(2.0**53)) * 2.0**-53
    shuffled = np.argsort(key, kind="stable")
    taken = position[shuffled] < wanted[run]
    place, owner = position[taken], run[taken]
    nth = np.arange(len(owner)) - (wanted.cumsum() - wanted)[owner]
    ranks[row[owner], first[owner] + nth] = start[query, first][owner] + place
