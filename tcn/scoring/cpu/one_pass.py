"""One pass over all queries on a CPU (paper, section 4).

In: the gallery, the queries and what is asked of them. Out: values per query, drawn values, and the queries left to
`tcn.scoring.measures.score_block`. Each thread takes whole blocks of queries.
"""
from __future__ import annotations

import numpy as np
import torch

from tcn.scoring.cpu.blocks import BlockScores, blocks, in_threads
from tcn.scoring.cpu.codes import Codes
from tcn.scoring.cpu.real import Real
from tcn.scoring.measures import Asked
from tcn.scoring.rankings import Gallery

KEYS = 2**22
"""Elements of one block of keys (queries x photos), for one thread: 16 MB of 32-bit keys. More make products faster."""
ROWS = 1024
"""Most queries of a block, however small the gallery."""


def rank_all(gallery: Gallery, queries: torch.Tensor, schedule: np.ndarray, starts: np.ndarray, relevant: np.ndarray,
          asked: Asked, rows: int | None = None) -> BlockScores:
    """Score the queries of `schedule` on `torch.get_num_threads()` threads.

    gallery, queries: on the CPU, photos of one class side by side. schedule: int64 [S], queries with relevant photos,
    ordered by their number. starts, relevant: int64 [Nq], where each query's relevant photos begin, and how many there are.
    rows: most queries of a block (None: what the caches hold). Blocks and threads change values only by the order of sums.
    """
    photos, width = gallery.features.shape
    most = min(ROWS, max(16, KEYS // max(photos, 8 * width)))  # long codes have tables as long
    most = min(most, rows or most)
    parts = list(blocks(schedule, starts, relevant, most))
    if gallery.metric == "hamming":
        if asked.ties in ("unstable-sort", "as-released"):
            return BlockScores(left=[schedule])
        return in_threads(parts, Codes.of(gallery, queries, asked).block)
    real = Real.of(gallery, queries, asked.measures)
    found = in_threads(parts, real.coarse)
    if not found.left:
        return found
    # the same schedule without the rows that are done, so that blocks stay dense; 64 bits take twice the room
    again = schedule[np.isin(schedule, np.concatenate(found.left))]
    found.left = []
    found.add(in_threads(list(blocks(again, starts, relevant, max(1, most // 2))), real.exact))
    return found
