"""Binary codes on a CPU: packed bits, and counts of photos at each distance.

In: the gallery, the queries and the measures asked for. Out: values per query under each way to order equal distances.

A distance is the number of bits set after an exclusive or. For each query, sorted rows give two tables over the distances 0..D:
of all photos, and of the relevant ones. Expectations over tie orders are computed from these tables, not from photos.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tcn.scoring.cpu.blocks import TILE, Block, BlockScores, Scratch, mark, sorted_hits
from tcn.scoring.cpu.runs import Runs, drawn_ranks
from tcn.scoring.cpu.values import expectations, table_values
from tcn.scoring.measures import Asked, bound, from_ranks
from tcn.scoring.protocols import Measure
from tcn.scoring.rankings import Gallery

DRAWN = 2**17
"""Number of drawn ranks handled at once: some arrays of 1 MB."""


@dataclass(frozen=True)
class Codes:
    """Codes packed to words of 64 bits, and the measures asked for."""

    queries: np.ndarray  #: uint64 [W, Nq]
    photos: np.ndarray  #: uint64 [W, N]
    order: np.ndarray  #: int64 [N], where each photo stood in the gallery as given
    bits: int
    asked: Asked
    harmonic: np.ndarray  #: float64 [N + 1], 1 + 1/2 + ... + 1/i

    @classmethod
    def of(cls, gallery: Gallery, queries: torch.Tensor, asked: Asked) -> Codes:
        """gallery, queries: codes of -1 and +1."""
        photos = len(gallery.features)
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, photos + 1))])
        return cls(_packed(queries), _packed(gallery.features), gallery.order.numpy(), queries.shape[1], asked, harmonic)

    def block(self, block: Block, scratch: Scratch) -> BlockScores:
        """Values of the queries of one block."""
        distances = self._distances(block, scratch)
        if self.asked.ties == "gallery-order":
            ranks = self._in_gallery_order(distances, block, scratch)
            return BlockScores(values=[(block.rows, table_values(self.asked.measures, ranks))])
        runs = Runs.of(self._counts(distances, scratch), self._relevant_counts(distances, block))
        if self.asked.ties == "expected":
            return self._expected(block, runs)
        if self.asked.ties == "scikit-learn":
            by_order = self._in_gallery_order(distances, block, scratch)
            return BlockScores(values=[(block.rows, self._shared_thresholds(block, by_order, runs))])
        return BlockScores(values=[(block.rows, self._bounds(block, runs))])

    def _distances(self, block: Block, scratch: Scratch) -> np.ndarray:
        """Hamming distances, uint8 or (beyond 255 bits) int32 [B, N]."""
        kind = np.uint8 if self.bits < 256 else np.int32
        found = scratch.array("distances", (len(block.rows), self.photos.shape[1]), kind)
        words = self.queries[:, block.rows]
        width = max(256, TILE // len(found))
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

    def _counts(self, distances: np.ndarray, scratch: Scratch) -> np.ndarray:
        """How many photos lie at each distance, int64 [B, D + 1].

        Each row's distances get an offset that grows from row to row. Rows that are sorted are then sorted as a whole, and one
        search finds the ends of all runs. A vectorised sort of few different values takes half the time of counting them.
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

    def _in_gallery_order(self, distances: np.ndarray, block: Block, scratch: Scratch) -> np.ndarray:
        """Ranks of the relevant photos if equal distances stay in gallery order, float64 [B, R]."""
        photos = len(self.order)
        kind = np.int32 if (self.bits + 1) * photos < 2**30 else np.int64
        keys = scratch.array("keys", distances.shape, kind)
        np.multiply(distances, 2 * photos, out=keys, dtype=kind, casting="unsafe")
        np.add(keys, (2 * self.order).astype(kind), out=keys)
        mark(keys, block)
        ranks = scratch.array("ranks", (len(keys), block.relevant), np.float64)
        sorted_hits(keys, ranks, scratch)
        return ranks

    def _shared_thresholds(self, block: Block, by_order: np.ndarray, runs: Runs) -> dict[Measure, np.ndarray]:
        groups = runs.of_photos()
        last, number = (groups.start + groups.size).double(), torch.full((len(block.rows),), block.relevant)
        found = table_values([measure for measure in self.asked.measures if not measure.shared], by_order)
        for measure in self.asked.measures:
            if measure.shared:
                found[measure] = from_ranks(measure, torch.from_numpy(by_order), number, last).numpy()
        return found

    def _bounds(self, block: Block, runs: Runs) -> dict[Measure, np.ndarray]:
        groups = runs.of_photos()
        # If relevant photos come first (or last) within each tie, the values follow from the ranks alone.
        plain = [m for m in self.asked.measures if m.extreme_by_hits_first]
        found = table_values(plain, groups.ranks(self.asked.ties).numpy())
        number, harmonic = torch.full((len(block.rows),), block.relevant), torch.from_numpy(self.harmonic)
        for measure in set(self.asked.measures) - set(plain):
            found[measure] = bound(measure, groups, number, harmonic, self.asked.ties).numpy()
        return found

    def _expected(self, block: Block, runs: Runs) -> BlockScores:
        closed = [measure for measure in self.asked.measures if measure.closed_form]
        sampled = [measure for measure in self.asked.measures if not measure.closed_form]
        values = expectations(closed, runs, block.relevant, self.harmonic)
        mixed = np.flatnonzero(runs.mixed)
        if not sampled or not len(mixed):
            if sampled:
                values |= table_values(sampled, runs.of_photos().ranks("best").numpy())
            return BlockScores(values=[(block.rows, values)])
        drawn = {measure: np.empty((len(mixed), self.asked.tie_draws)) for measure in sampled}
        step = max(1, DRAWN // (block.relevant * self.asked.tie_draws))
        for begin in range(0, len(mixed), step):
            part = mixed[begin:begin + step]
            ranks = drawn_ranks(runs.rows(part), block.rows[part], self.asked.tie_draws, self.asked.seed)
            for measure, found in table_values(sampled, ranks).items():
                drawn[measure][begin:begin + step] = found.reshape(-1, self.asked.tie_draws)
        if len(mixed) < len(block.rows):  # in the other rows one order is as good as another
            values |= table_values(sampled, runs.of_photos().ranks("best").numpy())
        for measure in sampled:
            values.setdefault(measure, np.empty(len(block.rows)))[mixed] = drawn[measure].mean(1)
        return BlockScores(values=[(block.rows, values)], draws=[(block.rows[mixed], drawn)])


def _packed(codes: torch.Tensor) -> np.ndarray:
    """Codes of -1 and +1, [N, D], as uint64 [ceil(D / 64), N]; bits beyond D are 0 and never differ."""
    octets = np.packbits(codes.numpy() > 0, axis=1)
    octets = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8)))
    return np.ascontiguousarray(octets.view(np.uint64).T)
