"""Distances to rankings: the distance of each photo, ties, and the ranks of relevant photos (paper, section 4).

In: query and gallery features. Out: distances as whole numbers, so that ties are known exactly; the runs of equal distances
in which relevant photos stand; and ranks drawn over random tie orders. Everything is computed with torch, on any device.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError

RESOLUTION = 2.0**40
"""Half squared distances are rounded to 2**-40 times the features' spread (at most 1): far above the rounding of float64 sums,
far below the differences that rank photos. Copies of a photo thus tie, whatever the block size, device or threads."""
LEAST_SPREAD = 2.0**-24
"""Smallest spread that determines the unit, about the resolution of float32. The unit shrinks no further, so that copies still
tie."""
_BLOCK_ELEMENTS = 2**23
"""Number of elements of one block of distances (queries x photos); a block needs about 40 bytes per element."""


def block_size(block: int | None, photos: int) -> int:
    """The number of queries handled at once: `block`, or one that bounds the memory. Raises InputError if `block` is below 1."""
    if block is None:
        return max(1, _BLOCK_ELEMENTS // photos)
    if block < 1:
        raise InputError(f"block must be at least 1, not {block}")
    return block


@dataclass(frozen=True)
class Gallery:
    """Gallery features [N, D] ready for distances, and where each row stood in the gallery as given [N]."""

    features: Tensor
    order: Tensor
    metric: str
    centre: Tensor  #: [D], subtracted from photos and queries alike; unused with codes
    scale: float  #: distances are counted in units of 1 / scale; 1 with codes

    @classmethod
    def of(cls, photos: Tensor, order: Tensor, queries: Tensor, metric: str) -> Gallery:
        """photos: [N, D], and all queries that will be compared with them, as `inputs.comparable` gives them.

        If all vectors lie close together, as for a collapsed network, their products differ only in the last digits. After
        centring, the products are as small as the differences, and no digit is lost.
        """
        if metric == "hamming":
            return cls(photos, order, metric, photos.new_zeros(photos.shape[1]), 1.0)
        centre = photos.mean(0)
        centred = photos - centre
        reach = max(float(torch.linalg.vector_norm(rows, dim=1).max()) for rows in (centred, queries - centre))
        spread = 2.0 ** math.ceil(math.log2(min(1.0, max(reach, LEAST_SPREAD))))
        return cls(centred, order, metric, centre, RESOLUTION / spread)

    def distances(self, queries: Tensor) -> Tensor:
        """Whole numbers, float64 [B, N], that grow with distance: the Hamming distance, or half the squared distance in units.

        For unit vectors, half the squared distance is the cosine distance, and it orders photos as the distance does.
        """
        if self.metric == "hamming":
            product = queries @ self.features.T
            return product.neg_().add_(self.features.shape[1]).div_(2).double()
        queries = queries - self.centre
        halves = [rows.square().sum(1).div_(2) for rows in (queries, self.features)]
        product = (queries @ self.features.T).neg_().add_(halves[0][:, None]).add_(halves[1])
        return product.mul_(self.scale).round_().clamp_(min=0.0)

    def unstable_ranks(self, distances: Tensor) -> Tensor:
        """float64 [B, N], from 1: the rank of each photo by NumPy's default sort, given the photos in gallery order."""
        given = torch.empty_like(distances)
        given[:, self.order] = distances
        found = np.argsort(given.cpu().numpy(), axis=1)
        ranks = np.empty(found.shape)
        np.put_along_axis(ranks, found, np.arange(1.0, found.shape[1] + 1)[None], axis=1)
        return torch.from_numpy(ranks).to(distances.device)[:, self.order]

    def keys(self, distances: Tensor) -> Tensor:
        """int64 [B, N], all different within a row: ordered by distance, then by gallery order."""
        if len(self.features) > 2**21:
            raise InputError(f"gallery has {len(self.features)} rows; gallery order is kept up to {2**21}")
        return distances.to(torch.int64).mul_(len(self.features)).add_(self.order)


# ------------------------------------------------------------------------------------------------------- ties
@dataclass(frozen=True)
class TieGroups:
    """For each relevant photo, nearest first, the run of equal distances in which it stands. All int64 [B, R]."""

    start: Tensor  #: photos that lie nearer
    size: Tensor  #: photos equally far, itself included; 0 where a query has fewer than R relevant photos
    hits_before: Tensor  #: relevant photos that lie nearer
    hits: Tensor  #: relevant photos equally far, itself included

    @classmethod
    def of(cls, everything: Tensor, relevant: Tensor) -> TieGroups:
        """everything: sorted distances of all photos [B, N]. relevant: those of the relevant ones [B, R], filled up with
        infinity."""
        start = torch.searchsorted(everything, relevant)
        size = torch.searchsorted(everything, relevant, right=True) - start
        before = torch.searchsorted(relevant, relevant)
        hits = torch.searchsorted(relevant, relevant, right=True) - before
        return cls(start, size, before, torch.where(size > 0, hits, 0))

    def rows(self, chosen: Tensor) -> TieGroups:
        return TieGroups(self.start[chosen], self.size[chosen], self.hits_before[chosen], self.hits[chosen])

    @property
    def mixed(self) -> Tensor:
        """Queries [B] whose relevant photos share a distance with irrelevant ones: the tie order matters."""
        return (self.hits < self.size).any(1)

    def ranks(self, order: str) -> Tensor:
        """float64 [B, R]: relevant photos come "best" (first) or "worst" (last) among those equally far."""
        column = torch.arange(self.start.shape[1], device=self.start.device)
        offset = column - self.hits_before + (self.size - self.hits if order == "worst" else 0)
        return torch.where(self.size > 0, (self.start + offset + 1).double(), math.inf)



def mixed_bits(state: Tensor) -> Tensor:
    """splitmix64's mixing steps, in place. Products of int64 wrap around, and the masks make the shifts logical."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state.bitwise_xor_((state >> shift).bitwise_and_(2 ** (64 - shift) - 1)).mul_(factor)
    return state.bitwise_xor_((state >> 31).bitwise_and_(2**33 - 1))


def uniform(seed: int, streams: Sequence[Tensor | int], counter: Tensor) -> Tensor:
    """Uniform float64 in [0, 1), shaped like `counter`: the same on every device and for every block size.

    A counter-based generator: the seed and the numbers in `streams` (broadcast against `counter`) name a
    splitmix64 sequence, and `counter` is the position in it.
    """
    state = torch.zeros((), dtype=torch.int64, device=counter.device)
    for part in (seed, *streams):  # mixed one by one: neighbouring seeds must not share streams
        state = mixed_bits((state + part + 1) * -7046029254386353131)
    bits = mixed_bits((counter + 1).mul_(-7046029254386353131).add_(state))
    return (bits >> 11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53)


def random_ranks(groups: TieGroups, identity: Tensor, seed: int) -> Tensor:
    """Ranks of the relevant photos when equal distances come in random order, float64 [B, R], ascending.

    The m relevant photos of a run of n take a uniformly random m of its n positions. Sparse runs draw
    positions, and draw again where two coincide. Every step treats the positions alike, so every subset of m
    positions is equally likely. Runs that are more than half full are shuffled as a whole. identity: int64 [B], names
    each row's stream of random numbers.
    """
    start, size, before, hits = groups.start, groups.size, groups.hits_before, groups.hits
    rows, width = start.shape
    column = torch.arange(width, device=start.device).expand(rows, width)
    ranks = start + column - before

    sparse = (hits < size) & (2 * hits <= size)
    draw = (uniform(seed, (identity[:, None], 0), column) * size).long()
    ranks = torch.where(sparse, start + draw, ranks)
    ranks = sort_rows(torch.where(size > 0, ranks, 2**62 + column))
    again, attempt = torch.arange(rows, device=start.device), 0
    while True:
        part = ranks[again]
        same = part[:, 1:] == part[:, :-1]
        left = same.any(1)
        if not bool(left.any()):
            break
        again, part, attempt = again[left], part[left], attempt + 1
        row, at = same[left].nonzero(as_tuple=True)
        at = at + 1
        draw = (uniform(seed, (identity[again[row]], attempt), at) * size[again[row], at]).long()
        part[row, at] = start[again[row], at] + draw
        ranks[again] = sort_rows(part)

    dense = (hits < size) & (2 * hits > size)
    row, first = (dense & (column == before)).nonzero(as_tuple=True)
    if len(row):
        length, wanted = size[row, first], hits[row, first]
        run = torch.repeat_interleave(torch.arange(len(row), device=row.device), length)
        ends = length.cumsum(0)
        position = torch.arange(int(ends[-1]), device=row.device) - (ends - length)[run]
        key = run + uniform(seed, (identity[row][run], -1 - first[run]), position)
        shuffled = torch.argsort(key, stable=True)
        taken = position[shuffled] < wanted[run]  # before shuffling, the relevant ones came first
        place, owner = position[taken], run[taken]
        nth = torch.arange(len(owner), device=row.device) - (wanted.cumsum(0) - wanted)[owner]
        ranks[row[owner], first[owner] + nth] = start[row, first][owner] + place
    return torch.where(size > 0, (ranks + 1).double(), math.inf)


def sort_rows(table: Tensor) -> Tensor:
    """Each row in ascending order. The given table may be overwritten.

    On a CPU, NumPy's vectorised sort is several times faster than torch's, which also returns the indices.
    """
    if table.device.type == "cpu":
        values = table.contiguous().numpy()
        values.sort(axis=1)
        return torch.from_numpy(values)
    return table.sort(dim=1).values
