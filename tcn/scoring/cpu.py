"""Values of every measure on a CPU, as fast as its caches and vector units allow (paper, section 4).

In come the gallery, the queries and the measures; out come values per query, drawn values, and the queries left to
`tcn.scoring.measures.score_block`. NumPy in blocks of queries, each thread taking whole blocks; no loop over queries or ranks.

Real-valued features: products and half norms come from one float64 matrix product, rounded to the units in which ties
are defined. Their order is kept by a whole number of 32 bits, whose lowest bit says "relevant"; sorted, the places of
that bit are the ranks. Where a relevant photo and an irrelevant one share such a number, the row is done again with 64
bits, which hold the units themselves; if they still share it, they tie, and the row is left to the general path.

Codes: exclusive or, counted bits, and per query two tables over the distances 0..D, of all photos and of the relevant
ones. Both are read off sorted rows. Expectations over tie orders follow from these tables, not from photos.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from tcn.scoring.measures import Measure, bound, from_ranks
from tcn.scoring.rankings import Gallery, TieGroups

#: Elements of one tile of distances (queries x some photos): 512 KB, which a core's second-level cache holds.
_TILE = 2**16
#: Elements sorted in one go.
_SORTED = 2**17
#: Elements of one block of keys (queries x photos), for one thread: 16 MB of 32-bit keys. More make products faster.
_KEYS = 2**22
#: Most queries of a block, however small the gallery.
_ROWS = 1024
#: Drawn ranks handled at once: some arrays of 1 MB.
_DRAWN = 2**17


@dataclass(frozen=True)
class Block:
    """Queries scored together: all have the same number of relevant photos."""

    rows: np.ndarray  #: int64 [B], indices of the queries
    relevant: int  #: R, at least 1
    spans: tuple[tuple[int, int, int], ...]  #: (first, end, start): these rows' relevant photos begin at `start`


@dataclass
class Result:
    """What a block, or a whole sweep, found."""

    values: list[tuple[np.ndarray, dict[Measure, np.ndarray]]] = field(default_factory=list)  #: rows [B], values [B]
    draws: list[tuple[np.ndarray, dict[Measure, np.ndarray]]] = field(default_factory=list)  #: rows, [B, draws]
    left: list[np.ndarray] = field(default_factory=list)  #: rows whose ties the sweep does not resolve

    def add(self, other: Result) -> None:
        self.values += other.values
        self.draws += other.draws
        self.left += other.left


class _Scratch:
    """Arrays of one thread, kept from block to block: fresh memory costs as much as a pass over it."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Uninitialised; overwritten by the next request under this name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size, np.uint8)
        return self._held[name][:size].view(dtype).reshape(shape)


# ------------------------------------------------------------------------------------------------ whole sweeps
def sweep(
    gallery: Gallery, queries: torch.Tensor, schedule: np.ndarray, starts: np.ndarray, relevant: np.ndarray,
    measures: Iterable[Measure], ties: str, tie_draws: int, seed: int, rows: int | None = None,
) -> Result:
    """Score the queries of `schedule` on `torch.get_num_threads()` threads.

    gallery, queries: on the CPU, photos of one class side by side. schedule: int64 [S], queries with relevant photos,
    by their number. starts, relevant: int64 [Nq], where each query's relevant photos begin, and how many there are.
    ties, tie_draws, seed: as in `tcn.scoring.metrics.score`. rows: most queries of a block (None: what the caches hold).
    Values do not depend on blocks or threads beyond the order of sums.
    """
    measures = tuple(measures)
    photos, width = gallery.features.shape
    most = min(_ROWS, max(16, _KEYS // max(photos, 8 * width)))  # long codes have tables as long
    most = min(most, rows or most)
    blocks = list(_blocks(schedule, starts, relevant, most))
    if gallery.metric == "hamming":
        if ties in ("unstable-sort", "as-released"):
            return Result(left=[schedule])
        codes = _Codes.of(gallery, queries, measures, ties, tie_draws, seed)
        return _in_threads(blocks, codes.block)
    real = _Real.of(gallery, queries, measures)
    found = _in_threads(blocks, real.coarse)
    if not found.left:
        return found
    # the same schedule without the rows that are done, so that blocks stay dense; 64 bits take twice the room
    again = schedule[np.isin(schedule, np.concatenate(found.left))]
    found.left = []
    found.add(_in_threads(list(_blocks(again, starts, relevant, max(1, most // 2))), real.exact))
    return found


def _blocks(schedule: np.ndarray, starts: np.ndarray, relevant: np.ndarray, most: int) -> Iterator[Block]:
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


def _in_threads(blocks: list[Block], work: Callable[[Block, _Scratch], Result]) -> Result:
    """Work on all blocks; each thread takes the next one when it is free. Linear algebra keeps to its own thread."""
    lock, pending = threading.Lock(), iter(blocks)

    def run() -> Result:
        found, scratch = Result(), _Scratch()
        while True:
            with lock:
                block = next(pending, None)
            if block is None:
                return found
            found.add(work(block, scratch))

    threads = min(torch.get_num_threads(), len(blocks))
    if not threads:
        return Result()
    with _libraries().limit(limits=1, user_api="blas"):
        if threads == 1:
            return run()
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(run) for _ in range(threads)]
        found = Result()
        for job in jobs:
            found.add(job.result())
        return found


# ----------------------------------------------------------------------------------------- keys with a low bit
def _sorted_hits(
    keys: np.ndarray, ranks: np.ndarray, scratch: _Scratch, near: tuple[np.ndarray, np.ndarray] | None = None
) -> None:
    """Sort each row of `keys` [B, N] and write where its R keys with the lowest bit set then stand, from 1, to `ranks`.

    ranks: float64 [B, R]. near: two more tables [B, R], of the keys' type, for these keys and for what stands before
    each in sorted order; before the first of a row that may be the last key of another row.
    """
    (rows, photos), number = keys.shape, ranks.shape[1]
    step = max(1, _SORTED // photos)  # a few rows at a time: they stay in the cache from the sort to the last look
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


def _mark(keys: np.ndarray, block: Block) -> None:
    for first, end, start in block.spans:
        keys[first:end, start:start + block.relevant] |= 1


# --------------------------------------------------------------------------------------- real-valued features
@dataclass(frozen=True)
class _Real:
    """Features whose matrix product is the distance in units, less an offset that centres it around 0."""

    queries: np.ndarray  #: float64 [Nq, D + 2]
    photos: np.ndarray  #: float64 [D + 2, N]
    fine: float  #: at most 1: units times this stay within 30 bits and a sign
    measures: tuple[Measure, ...]
    shared: bool  #: whether relevant photos that tie with each other matter

    @classmethod
    def of(cls, gallery: Gallery, queries: torch.Tensor, measures: tuple[Measure, ...]) -> _Real:
        features = gallery.features.numpy()
        centred = queries.numpy() - gallery.centre.numpy()
        halves = [np.einsum("nd,nd->n", side, side) / 2 for side in (centred, features)]
        # |q - p| <= |q| + |p|, and unit vectors are at most 2 apart
        farthest = min(2.0, sum(math.sqrt(half.max()) for half in halves) ** 2) * gallery.scale
        offset = math.floor(farthest / 2)
        left = np.concatenate([-centred, halves[0][:, None], np.ones((len(centred), 1))], axis=1)
        right = np.concatenate([features.T, np.ones((1, len(features))), halves[1][None]]) * gallery.scale
        right[-1] -= offset
        fine = min(1.0, (2**30 - 2) / (farthest - offset + 2))
        return cls(left, right, fine, measures, any(measure.shared for measure in measures))

    def coarse(self, block: Block, scratch: _Scratch) -> Result:
        return self._scored(block, scratch, np.int32)

    def exact(self, block: Block, scratch: _Scratch) -> Result:
        return self._scored(block, scratch, np.int64)

    def _scored(self, block: Block, scratch: _Scratch, kind: type) -> Result:
        """Values of the rows without such ties, the others left; 64-bit keys are the units themselves."""
        keys = self._keys(self.queries[block.rows], scratch, kind)
        _mark(keys, block)
        shape = len(keys), block.relevant
        ranks = scratch.array("ranks", shape, np.float64)
        here, previous = (scratch.array(name, shape, kind) for name in ("here", "previous"))
        _sorted_hits(keys, ranks, scratch, (here, previous))
        # a marked key stands behind the same one without mark; from row to row the look may only err towards "tied"
        differ = np.bitwise_xor(here, previous, out=previous)
        tied = ((differ == 1) | (differ == 0) if self.shared else differ == 1).any(1)
        if not tied.any():
            return Result(values=[(block.rows, table_values(self.measures, ranks))])
        found = Result(left=[block.rows[tied]])
        if not tied.all():
            found.values.append((block.rows[~tied], table_values(self.measures, ranks[~tied])))
        return found

    def _keys(self, queries: np.ndarray, scratch: _Scratch, kind: type) -> np.ndarray:
        """Twice a whole number that grows with distance, [B, N]: equal units, equal numbers."""
        keys = scratch.array("keys", (len(queries), self.photos.shape[1]), kind)
        width = max(256, _TILE // len(queries))
        for begin in range(0, keys.shape[1], width):
            part = keys[:, begin:begin + width]
            units = scratch.array("tile", part.shape, np.float64)
            np.matmul(queries, self.photos[:, begin:begin + width], out=units)
            np.rint(units, out=units)
            if kind is np.int32:
                np.multiply(units, self.fine, out=units)
            whole = scratch.array("whole", part.shape, kind)
            np.copyto(whole, units, casting="unsafe")  # towards 0: still in order
            np.left_shift(whole, 1, out=part)
        return keys


# ------------------------------------------------------------------------------------------------------- codes
@dataclass(frozen=True)
class _Runs:
    """The runs of equal Hamming distance of each query, nearest first: all int64 [B, D + 1]."""

    start: np.ndarray  #: photos that lie nearer
    size: np.ndarray  #: photos at this distance
    before: np.ndarray  #: relevant photos that lie nearer
    hits: np.ndarray  #: relevant photos at this distance

    @classmethod
    def of(cls, size: np.ndarray, hits: np.ndarray) -> _Runs:
        return cls(size.cumsum(1) - size, size, hits.cumsum(1) - hits, hits)

    def rows(self, chosen: np.ndarray) -> _Runs:
        return _Runs(self.start[chosen], self.size[chosen], self.before[chosen], self.hits[chosen])

    @property
    def mixed(self) -> np.ndarray:
        """Queries, bool [B], whose tie order matters."""
        return ((self.hits > 0) & (self.hits < self.size)).any(1)

    def of_photos(self) -> TieGroups:
        """For each relevant photo, nearest first, the run it stands in: int64 [B, R] (all rows have R)."""
        run = np.repeat(np.arange(self.hits.size), self.hits.reshape(-1)).reshape(len(self.hits), -1)
        return TieGroups(*(torch.from_numpy(table.reshape(-1)[run])
                           for table in (self.start, self.size, self.before, self.hits)))


@dataclass(frozen=True)
class _Codes:
    """Codes packed to words of 64 bits, and what is asked of them."""

    queries: np.ndarray  #: uint64 [W, Nq]
    photos: np.ndarray  #: uint64 [W, N]
    order: np.ndarray  #: int64 [N], where each photo stood in the gallery as given
    bits: int
    measures: tuple[Measure, ...]
    ties: str
    tie_draws: int
    seed: int
    harmonic: np.ndarray  #: float64 [N + 1], 1 + 1/2 + ... + 1/i

    @classmethod
    def of(cls, gallery: Gallery, queries: torch.Tensor, measures: tuple[Measure, ...], ties: str, tie_draws: int,
           seed: int) -> _Codes:
        photos = len(gallery.features)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, photos + 1))])
        return cls(_packed(queries), _packed(gallery.features), gallery.order.numpy(), queries.shape[1], measures, ties,
                   tie_draws, seed, harmonic)

    def block(self, block: Block, scratch: _Scratch) -> Result:
        distances = self._distances(block, scratch)
        if self.ties == "gallery-order":
            return Result(values=[(block.rows, table_values(self.measures, self._in_gallery_order(distances, block, scratch)))])
        runs = _Runs.of(self._counts(distances, scratch), self._relevant_counts(distances, block))
        if self.ties == "expected":
            return self._expected(block, runs)
        if self.ties == "scikit-learn":
            by_order = self._in_gallery_order(distances, block, scratch)
            return Result(values=[(block.rows, self._shared_thresholds(block, by_order, runs))])
        return Result(values=[(block.rows, self._bounds(block, runs))])

    def _distances(self, block: Block, scratch: _Scratch) -> np.ndarray:
        """Hamming distances, uint8 or (beyond 255 bits) int32 [B, N]."""
        kind = np.uint8 if self.bits < 256 else np.int32
        found = scratch.array("distances", (len(block.rows), self.photos.shape[1]), kind)
        words = self.queries[:, block.rows]
        width = max(256, _TILE // len(found))
        for begin in range(0, found.shape[1], width):
            part = found[:, begin:begin + width]
            differ = scratch.array("tile", part.shape, np.uint64)
            count = scratch.array("count", part.shape, np.uint8)
            for i, (word, photos) in enumerate(zip(words, self.photos)):
                np.bitwise_xor(word[:, None], photos[begin:begin + width], out=differ)
                if i == 0 and kind is np.uint8:
                    np.bitwise_count(differ, out=part)
                elif i == 0:
                    np.copyto(part, np.bitwise_count(differ, out=count))
                else:
                    np.add(part, np.bitwise_count(differ, out=count), out=part)
        return found

    def _counts(self, distances: np.ndarray, scratch: _Scratch) -> np.ndarray:
        """How many photos lie at each distance, int64 [B, D + 1].

        Numbered from row to row, distances sorted within rows are sorted in all, and one search finds all ends. A
        vectorised sort of few different values takes half the time of counting them one by one.
        """
        rows, bins = len(distances), self.bits + 1
        keys = scratch.array("keys", distances.shape, np.int32)
        np.add(distances, np.arange(rows, dtype=np.int32)[:, None] * bins, out=keys)
        keys.sort(axis=1)
        ends = np.searchsorted(keys.reshape(-1), np.arange(rows * bins, dtype=np.int32), side="right")
        return np.diff(ends, prepend=0).reshape(rows, bins)

    def _relevant_counts(self, distances: np.ndarray, block: Block) -> np.ndarray:
        bins = self.bits + 1
        found = np.empty((len(distances), bins), np.int64)
        for first, end, start in block.spans:
            own = distances[first:end, start:start + block.relevant] + np.arange(end - first)[:, None] * bins
            found[first:end] = np.bincount(own.reshape(-1), minlength=(end - first) * bins).reshape(-1, bins)
        return found

    def _in_gallery_order(self, distances: np.ndarray, block: Block, scratch: _Scratch) -> np.ndarray:
        """Ranks of the relevant photos if equal distances stay as they stand in the gallery, float64 [B, R]."""
        photos = len(self.order)
        kind = np.int32 if (self.bits + 1) * photos < 2**30 else np.int64
        keys = scratch.array("keys", distances.shape, kind)
        np.multiply(distances, 2 * photos, out=keys, dtype=kind, casting="unsafe")
        np.add(keys, (2 * self.order).astype(kind), out=keys)
        _mark(keys, block)
        ranks = scratch.array("ranks", (len(keys), block.relevant), np.float64)
        _sorted_hits(keys, ranks, scratch)
        return ranks

    def _shared_thresholds(self, block: Block, by_order: np.ndarray, runs: _Runs) -> dict[Measure, np.ndarray]:
        groups = runs.of_photos()
        last, number = (groups.start + groups.size).double(), torch.full((len(block.rows),), block.relevant)
        found = table_values([measure for measure in self.measures if not measure.shared], by_order)
        for measure in self.measures:
            if measure.shared:
                found[measure] = from_ranks(measure, torch.from_numpy(by_order), number, last).numpy()
        return found

    def _bounds(self, block: Block, runs: _Runs) -> dict[Measure, np.ndarray]:
        groups = runs.of_photos()
        # where relevant photos come first, or last, of those equally far, the ranks say it all
        plain = [m for m in self.measures if m.rule != "item K + 1" and (m.divisor != "hits" or m.k is None)]
        found = table_values(plain, groups.ranks(self.ties).numpy())
        number, harmonic = torch.full((len(block.rows),), block.relevant), torch.from_numpy(self.harmonic)
        for measure in set(self.measures) - set(plain):
            found[measure] = bound(measure, groups, number, harmonic, self.ties).numpy()
        return found

    def _expected(self, block: Block, runs: _Runs) -> Result:
        closed = [measure for measure in self.measures if measure.closed_form]
        sampled = [measure for measure in self.measures if not measure.closed_form]
        values = _expectations(closed, runs, block.relevant, self.harmonic)
        mixed = np.flatnonzero(runs.mixed)
        if not sampled or not len(mixed):
            if sampled:
                values |= table_values(sampled, runs.of_photos().ranks("best").numpy())
            return Result(values=[(block.rows, values)])
        drawn = {measure: np.empty((len(mixed), self.tie_draws)) for measure in sampled}
        step = max(1, _DRAWN // (block.relevant * self.tie_draws))
        for begin in range(0, len(mixed), step):
            part = mixed[begin:begin + step]
            ranks = drawn_ranks(runs.rows(part), block.rows[part], self.tie_draws, self.seed)
            for measure, found in table_values(sampled, ranks).items():
                drawn[measure][begin:begin + step] = found.reshape(-1, self.tie_draws)
        if len(mixed) < len(block.rows):  # in the other rows one order is as good as another
            values |= table_values(sampled, runs.of_photos().ranks("best").numpy())
        for measure in sampled:
            values.setdefault(measure, np.empty(len(block.rows)))[mixed] = drawn[measure].mean(1)
        return Result(values=[(block.rows, values)], draws=[(block.rows[mixed], drawn)])


def _packed(codes: torch.Tensor) -> np.ndarray:
    """Codes of -1 and +1, [N, D], as uint64 [ceil(D / 64), N]; bits beyond D are 0 and never differ."""
    octets = np.packbits(codes.numpy() > 0, axis=1)
    octets = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8)))
    return np.ascontiguousarray(octets.view(np.uint64).T)


# ---------------------------------------------------------------------------------------------------- measures
def table_values(measures: Iterable[Measure], ranks: np.ndarray) -> dict[Measure, np.ndarray]:
    """Each measure, float64 [B], of queries that all have R relevant photos, at these ranks (float64 [B, R], ascending).

    As `tcn.scoring.measures.from_ranks`; what several measures divide by something else is summed once.
    """
    table = _Ranked(ranks)
    return {measure: table.value(measure) for measure in measures}


class _Ranked:
    """Ranks [B, R] of relevant photos, and the sums that measures share."""

    def __init__(self, ranks: np.ndarray) -> None:
        self.ranks, self.number = ranks, ranks.shape[1]
        self._sums: dict[tuple[str, int | None], np.ndarray] = {}
        self._counts: dict[int, np.ndarray] = {}
        self._precision: np.ndarray | None = None

    def value(self, measure: Measure) -> np.ndarray:
        cut = self.number if measure.k == "R" else measure.k
        if measure.family == "Prec":
            if measure.rule == "item K + 1":
                return (self.ranks[:, :cut + 1] == cut + 1).any(1).astype(np.float64)
            return self.hits(cut) / (min(cut, self.number) if measure.rule == "hits / min(K, R)" else cut)
        total = self.total(measure.rule, cut)
        if cut is None or measure.divisor == "R":
            return total / self.number
        if measure.divisor == "hits":
            return total / np.maximum(self.hits(cut), 1)
        return total / (min(cut, self.number) if measure.divisor == "min(K, R)" else cut)

    def hits(self, cut: int) -> np.ndarray:
        """Relevant photos among the first `cut`, int64 [B]."""
        if cut not in self._counts:
            self._counts[cut] = np.count_nonzero(self.ranks[:, :cut] <= cut, axis=1)
        return self._counts[cut]

    def total(self, rule: str, cut: int | None) -> np.ndarray:
        """Sum of the precisions at the hits within the cut-off, or of the largest at a hit's rank or later."""
        if (rule, cut) not in self._sums:
            if self._precision is None:
                self._precision = np.arange(1.0, self.number + 1) / self.ranks
            values = self._precision
            if cut is not None:  # the first K photos hold at most K hits
                inside = self.ranks[:, :cut] <= cut
                values = values[:, :cut] * inside
            if rule == "voc":
                # hits after the cut-off have precision 0 here, and no later one lifts them
                values = _largest_from_here_on(values)
            self._sums[rule, cut] = values.sum(1)
        return self._sums[rule, cut]


def _largest_from_here_on(values: np.ndarray) -> np.ndarray:
    """The largest of each value and those after it in its row; float64 [B, R], none negative, in reversed order.

    As whole numbers, which order such values as they are: their maximum takes less time.
    """
    backwards = np.ascontiguousarray(values).view(np.int64)[:, ::-1]
    return np.maximum.accumulate(backwards, axis=1).view(np.float64)


def _expectations(measures: Iterable[Measure], runs: _Runs, number: int, harmonic: np.ndarray) -> dict[Measure, np.ndarray]:
    """Means over all tie orders, float64 [B], as `tcn.scoring.measures.expected` has them, each run taken once."""
    share = runs.hits / np.maximum(runs.size, 1)
    slope = np.maximum(runs.hits - 1, 0) / np.maximum(runs.size - 1, 1)
    level = runs.before + 1 - slope * (runs.start + 1)
    sums: dict[tuple[str, int | None], np.ndarray] = {}

    def total(kind: str, cut: int | None) -> np.ndarray:
        if (kind, cut) not in sums:
            reach = runs.size if cut is None else np.clip(cut - runs.start, 0, runs.size)
            if kind == "item":
                each = (runs.start <= cut) & (cut < runs.start + runs.size)
            elif kind == "hits":
                each = reach
            else:
                each = slope * reach + level * (harmonic[runs.start + reach] - harmonic[runs.start])
            sums[kind, cut] = (share * each).sum(1)
        return sums[kind, cut]

    found = {}
    for measure in measures:
        cut = number if measure.k == "R" else measure.k
        if measure.family == "Prec":
            divisor = {"hits / K": cut, "hits / min(K, R)": min(cut, number), "item K + 1": 1}[measure.rule]
            found[measure] = total("item" if measure.rule == "item K + 1" else "hits", cut) / divisor
        else:
            whole = cut is None or measure.divisor == "R"
            divisor = number if whole else min(cut, number) if measure.divisor == "min(K, R)" else cut
            found[measure] = total("precision", cut) / divisor
    return found


# ------------------------------------------------------------------------------------------------- drawn ranks
_GOLDEN, _FIRST, _SECOND = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(state: np.ndarray) -> np.ndarray:
    """splitmix64's mixing steps on uint64, in place."""
    shifted = np.empty_like(state)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        np.bitwise_xor(state, np.right_shift(state, np.uint64(shift), out=shifted), out=state)
        np.multiply(state, factor, out=state)
    return np.bitwise_xor(state, np.right_shift(state, np.uint64(31), out=shifted), out=state)


def _draws(seed: int, streams: Iterable[np.ndarray | int], counter: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Float64 from 0 to below `size`: `tcn.scoring.rankings.uniform` times `size`."""
    state = np.zeros(1, np.uint64)
    for part in (seed, *streams):
        state = _mix((state + np.asarray(part, np.int64).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    bits = _mix((counter.astype(np.uint64) + np.uint64(1)) * _GOLDEN + state)
    np.right_shift(bits, np.uint64(11), out=bits)
    # whole numbers below 2**53 times a size are exact up to one rounding, as the uniform number times it is
    return np.multiply(bits.view(np.int64), size * 2.0**-53, out=bits.view(np.float64), casting="unsafe")


def drawn_ranks(runs: _Runs, identity: np.ndarray, draws: int, seed: int) -> np.ndarray:
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
    """Runs more than half full: shuffle all their places, in place."""
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
    # the same uniform numbers as torch's path: 53 bits, added to the run's number
    key = run + _draws(seed, (stream[row][run], -1 - first[run]), position, np.float64(2.0**53)) * 2.0**-53
    shuffled = np.argsort(key, kind="stable")
    taken = position[shuffled] < wanted[run]
    place, owner = position[taken], run[taken]
    nth = np.arange(len(owner)) - (wanted.cumsum() - wanted)[owner]
    ranks[row[owner], first[owner] + nth] = start[query, first][owner] + place
