"""Real-valued features on a CPU: whole-number keys that keep the order of distances.

In: the gallery, the queries and the measures. Out: values per query, and the queries whose relevant photos tie with others.

Products and half norms come from one float64 matrix product, rounded to the units in which ties are defined. Each distance
becomes a 32-bit integer key whose lowest bit marks relevant photos; after sorting, the positions of marked keys are the ranks.
Where a relevant photo and an irrelevant one share a key, the row is done again with 64-bit keys, which hold the units themselves.
If they still share it, they tie, and the row is left to the general path.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from tcn.scoring.cpu.blocks import TILE, Block, BlockScores, Scratch, mark, sorted_hits
from tcn.scoring.cpu.values import table_values
from tcn.scoring.protocols import Measure
from tcn.scoring.rankings import Gallery


@dataclass(frozen=True)
class Real:
    """Features whose matrix product is the distance in units, minus an offset that centres it around 0."""

    queries: np.ndarray  #: float64 [Nq, D + 2]
    photos: np.ndarray  #: float64 [D + 2, N]
    fine: float  #: at most 1: units times this stay within 30 bits and a sign
    measures: tuple[Measure, ...]
    shared: bool  #: whether relevant photos that tie with each other matter

    @classmethod
    def of(cls, gallery: Gallery, queries: torch.Tensor, measures: tuple[Measure, ...]) -> Real:
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

    def coarse(self, block: Block, scratch: Scratch) -> BlockScores:
        return self._scored(block, scratch, np.int32)

    def exact(self, block: Block, scratch: Scratch) -> BlockScores:
        return self._scored(block, scratch, np.int64)

    def _scored(self, block: Block, scratch: Scratch, kind: type) -> BlockScores:
        """Values of the rows without ties that matter; the other rows are listed in `left`. Keys of 64 bits are the units
        themselves."""
        keys = self._keys(self.queries[block.rows], scratch, kind)
        mark(keys, block)
        shape = len(keys), block.relevant
        ranks = scratch.array("ranks", shape, np.float64)
        here, previous = (scratch.array(name, shape, kind) for name in ("here", "previous"))
        sorted_hits(keys, ranks, scratch, (here, previous))
        # A marked key comes after the same key without the mark. At the start of a row the comparison may be with another row's
        # key, which can only report a tie that is none.
        differ = np.bitwise_xor(here, previous, out=previous)
        tied = ((differ == 1) | (differ == 0) if self.shared else differ == 1).any(1)
        if not tied.any():
            return BlockScores(values=[(block.rows, table_values(self.measures, ranks))])
        found = BlockScores(left=[block.rows[tied]])
        if not tied.all():
            found.values.append((block.rows[~tied], table_values(self.measures, ranks[~tied])))
        return found

    def _keys(self, queries: np.ndarray, scratch: Scratch, kind: type) -> np.ndarray:
        """Twice a whole number that grows with distance, [B, N]; equal units give equal numbers."""
        keys = scratch.array("keys", (len(queries), self.photos.shape[1]), kind)
        width = max(256, TILE // len(queries))
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
