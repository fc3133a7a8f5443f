"""Ranks to values: AP and Prec of each query, by each rule, in every way in which equal distances may be ordered.

In: the ranks of the relevant photos, or the runs of equal distance in which they stand (`tcn.scoring.rankings`). Out: one
number per query and measure (paper, section 4). Everything is computed with torch, on any device; `tcn.scoring.cpu` computes the
same faster on a CPU. Shapes: B queries, R relevant photos each (the largest number in the block), N photos.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tcn.scoring.protocols import AP, Measure, Prec, Precision
from tcn.scoring.rankings import Gallery, TieGroups, random_ranks, sort_rows

SAMPLED_ELEMENTS = 2**20
"""Number of elements of one table of sampled ranks: 8 MB, large enough that threads are worth starting."""


@dataclass(frozen=True)
class Asked:
    """The measures asked for, and how equal distances are treated."""

    measures: tuple[Measure, ...]
    ties: str
    """As in `tcn.scoring.scores.score`; so are `tie_draws` and `seed`."""
    tie_draws: int
    seed: int


def cut_off(measure: Measure, relevant: Tensor) -> Tensor:
    """The cut-off K of each query as float64 [B, 1]; infinite for a measure without one. relevant: [B], R of each query."""
    if measure.k == "R":
        return relevant[:, None].clamp(min=1).double()
    value = math.inf if measure.k is None else float(measure.k)
    return torch.full((len(relevant), 1), value, dtype=torch.float64, device=relevant.device)


def divisor(measure: Measure, relevant: Tensor, hits: Tensor | None) -> Tensor:
    """The divisor of the sum over the hits, float64 [B]. It is at least 1, so that the value is 0 without hits.

    hits: [B], the number of relevant photos among the first K, which is needed for AP divided by the hits.
    """
    if isinstance(measure, AP) and measure.per_hits:
        assert hits is not None
        return hits.double().clamp(min=1.0)
    rule = measure.rule.divisor if isinstance(measure, Prec) else measure.divisor
    cut, number = cut_off(measure, relevant)[:, 0], relevant.double()
    value: Tensor = number if measure.k is None else rule.of(cut, number, torch.minimum)
    return value.clamp(min=1.0)


def from_ranks(measure: Measure, ranks: Tensor, relevant: Tensor, thresholds: Tensor | None = None) -> Tensor:
    """One measure for each query from the ranks of its relevant photos.

    ranks: float64 [B, R], ascending, counted from 1, infinite where a query has fewer than R relevant photos.
    relevant: [B], the number of relevant photos. thresholds: float64 [B, R], the rank at which the precision
    of a hit is read if that is not its own rank (scikit-learn reads it at the last photo of equal distance).
    """
    cut = cut_off(measure, relevant)
    if isinstance(measure.k, int):
        ranks = ranks[:, : measure.k + 1]  # the first K + 1 photos hold at most K + 1 hits
        thresholds = None if thresholds is None else thresholds[:, : measure.k + 1]
    if isinstance(measure, Prec):
        if measure.rule is Precision.NEXT_ITEM:
            return (ranks == cut + 1).sum(1).double()
        return (ranks <= cut).sum(1) / divisor(measure, relevant, None)
    inside = ranks <= cut
    if thresholds is None:
        found = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
        precision = found / ranks
    else:
        thresholds = torch.minimum(thresholds, cut).contiguous()
        within = torch.where(inside, thresholds, math.inf)
        found = torch.searchsorted(within, thresholds, right=True)
        precision = found / thresholds
    precision = precision.masked_fill(~inside, 0.0)
    if measure.interpolated:
        envelope = precision.flip(1).cummax(1).values.flip(1)
        precision = envelope.masked_fill(~inside, 0.0)
    return precision.sum(1) / divisor(measure, relevant, inside.sum(1))


def harmonic_numbers(length: int, device: torch.device) -> Tensor:
    """H[i] = 1 + 1/2 + ... + 1/i for i = 0..length, float64."""
    steps = torch.arange(1, length + 1, dtype=torch.float64, device=device).reciprocal()
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


def expected(measure: Measure, groups: TieGroups, relevant: Tensor, harmonic: Tensor) -> Tensor:
    """The mean of a measure over all orders of equal distances, exactly, float64 [B].

    A run of n photos, m of them relevant, stands after s photos, h of them relevant. Position p of the run is
    relevant with probability m/n, and then (p-1)(m-1)/(n-1) relevant photos are expected before it in the
    run, so it adds m/n * (h + 1 + (p-1)(m-1)/(n-1)) / (s+p) to the sum of precisions. Over p this is a
    harmonic difference. Each of the m relevant photos carries one m-th of its run.
    """
    cut = cut_off(measure, relevant)
    size = groups.size.double().clamp(min=1)
    reach = torch.minimum(torch.clamp(cut - groups.start, min=0), groups.size)
    if isinstance(measure, Prec):
        if measure.rule is Precision.NEXT_ITEM:
            return (((groups.start <= cut) & (cut < groups.start + groups.size)) / size).sum(1)
        return (reach / size).sum(1) / divisor(measure, relevant, None)
    slope = (groups.hits - 1).clamp(min=0) / (size - 1).clamp(min=1)
    steps = harmonic[groups.start + reach.long()] - harmonic[groups.start]
    total = slope * reach + (groups.hits_before + 1 - slope * (groups.start + 1)) * steps
    return (total / size).sum(1) / divisor(measure, relevant, None)


def bound(measure: Measure, groups: TieGroups, relevant: Tensor, harmonic: Tensor, order: str) -> Tensor:
    """The largest ("best") or smallest ("worst") value that a measure takes over all tie orders, float64 [B].

    For most measures the extreme is reached by placing relevant photos first (or last) within each tie. The exceptions are
    the relevance of the photo after the cut-off, and AP divided by the hits among the first K, since a further, late hit can
    lower that mean.
    """
    if measure.extreme_by_hits_first:
        return from_ranks(measure, groups.ranks(order), relevant)
    if isinstance(measure, AP):
        return _bound_per_hits(cut_off(measure, relevant), groups, harmonic, order)
    cut = cut_off(measure, relevant)
    here = (groups.start <= cut) & (cut < groups.start + groups.size)
    return (here if order == "best" else here & (groups.hits == groups.size)).any(1).double()


def _bound_per_hits(cut: Tensor, groups: TieGroups, harmonic: Tensor, order: str) -> Tensor:
    """The same for AP divided by the hits within the cut-off, float64 [B, 1].

    The run across the cut-off can place different numbers x of hits within it. Every possible x is tried; for each, the hits
    stand as early or as late as they can.
    """
    ranks, end = groups.ranks(order), groups.start + groups.size
    column = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    whole = (end <= cut) & (groups.size > 0)
    before, total = whole.sum(1, keepdim=True), (column / ranks).masked_fill(~whole, 0.0).sum(1, keepdim=True)
    across = (groups.start < cut) & (cut < end)
    hits = across.sum(1, keepdim=True)
    start = groups.start.masked_fill(~across, 0).amax(1, keepdim=True)
    outside = (end - cut).masked_fill(~across, 0.0).amax(1, keepdim=True)
    fewest, most = torch.clamp(hits - outside, min=0), torch.minimum(hits, cut - start)
    x = torch.arange(int(most.max()) + 1, device=ranks.device).expand(len(ranks), -1)
    # x hits in a row after `lead` photos, `before` of them hits, have precisions (before + i) / (lead + i).
    photos = len(harmonic) - 1
    lead = start.expand_as(x) if order == "best" else (cut.clamp(max=photos).long() - x).clamp(min=0)
    last = torch.clamp(lead + x, max=photos)
    value = (total + x - (lead - before) * (harmonic[last] - harmonic[lead])) / (before + x).clamp(min=1)
    impossible = (x < fewest) | (x > most)
    if order == "best":
        return value.masked_fill(impossible, -math.inf).amax(1)
    return value.masked_fill(impossible, math.inf).amin(1)


def score_block(
    gallery: Gallery, queries: Tensor, starts: Tensor, relevant: Tensor, identity: Tensor, asked: Asked, harmonic: Tensor,
) -> tuple[dict[Measure, Tensor], dict[Measure, tuple[Tensor, Tensor]]]:
    """All measures of a block of queries, float64 [B]; and of those that are sampled, the rows [M] and their values [M, draws].

    starts, relevant: int64 [B], where each query's relevant photos begin in the gallery, and how many there are. identity:
    int64 [B], names each query's stream of random numbers. harmonic: `harmonic_numbers` up to the size of the gallery.
    """
    distances = gallery.distances(queries)
    column = torch.arange(int(relevant.max()), device=queries.device)
    present = column < relevant[:, None]
    at = (starts[:, None] + column).clamp_(max=distances.shape[1] - 1)
    by_order = _given_order(gallery, distances, present, at, asked.ties)
    if by_order is not None and not any(measure.shared for measure in asked.measures):
        return {measure: from_ranks(measure, by_order, relevant) for measure in asked.measures}, {}
    nearest = sort_rows(distances.gather(1, at).masked_fill_(~present, math.inf))
    groups = TieGroups.of(sort_rows(distances), nearest)

    if by_order is not None:
        last = torch.where(present, (groups.start + groups.size).double(), math.inf)
        return {measure: from_ranks(measure, by_order, relevant, last if measure.shared else None)
                for measure in asked.measures}, {}
    if asked.ties in ("best", "worst"):
        return {measure: bound(measure, groups, relevant, harmonic, asked.ties) for measure in asked.measures}, {}

    ranks = groups.ranks("best")
    mixed = groups.mixed.nonzero()[:, 0]
    sampled = [measure for measure in asked.measures if not measure.closed_form]
    found = {measure: (expected(measure, groups, relevant, harmonic) if measure.closed_form and len(mixed)
                       else from_ranks(measure, ranks, relevant)) for measure in asked.measures}
    if not len(mixed) or not sampled:
        return found, {}
    drawn = _drawn(groups, relevant, identity, mixed, sampled, asked)
    for measure in sampled:
        found[measure][mixed] = drawn[measure].mean(1)
    return found, {measure: (mixed, drawn[measure]) for measure in sampled}


def _given_order(gallery: Gallery, distances: Tensor, present: Tensor, at: Tensor, ties: str) -> Tensor | None:
    """Ranks of the relevant photos, float64 [B, R], if `ties` names one order; None if it stands for all orders.

    at: int64 [B, R], columns of the relevant photos in `distances`; present: bool [B, R], which of these entries are photos.
    """
    if ties in ("unstable-sort", "as-released"):
        return sort_rows(gallery.unstable_ranks(distances).gather(1, at).masked_fill_(~present, math.inf))
    if ties in ("gallery-order", "scikit-learn"):
        keys = gallery.keys(distances)
        wanted = sort_rows(keys.gather(1, at).masked_fill_(~present, 2**62))
        by_order = torch.searchsorted(sort_rows(keys), wanted) + 1
        return torch.where(present, by_order.double(), math.inf)
    return None


def _drawn(groups: TieGroups, relevant: Tensor, identity: Tensor, mixed: Tensor, sampled: Sequence[Measure], asked: Asked
           ) -> dict[Measure, Tensor]:
    """Values under random tie orders, float64 [M, draws], of the queries `mixed`, int64 [M]."""
    draws = asked.tie_draws
    drawn = {measure: torch.empty((len(mixed), draws), dtype=torch.float64, device=mixed.device) for measure in sampled}
    rows = max(1, SAMPLED_ELEMENTS // (groups.start.shape[1] * draws))
    for begin in range(0, len(mixed), rows):
        part = mixed[begin:begin + rows].repeat_interleave(draws)
        draw = torch.arange(draws, device=mixed.device).repeat(len(part) // draws)
        ranks = random_ranks(groups.rows(part), identity[part] * draws + draw, asked.seed)
        for measure in sampled:
            values = from_ranks(measure, ranks, relevant[part])
            drawn[measure][begin:begin + rows] = values.view(-1, draws)
    return drawn
