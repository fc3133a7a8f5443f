"""Ranks to values: AP and Prec of each query, by each rule, in every way in which equal distances may be ordered.

In come the ranks of the relevant photos or the runs of equal distances they stand in (`tcn.scoring.rankings`); out comes one
number per query and measure (paper, section 4). Torch throughout: any device; `tcn.scoring.cpu` is the CPU's short cut.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tcn.scoring.rankings import Gallery, TieGroups, random_ranks, sort_rows

#: Elements of one table of sampled ranks: 8 MB, large enough that threads are worth starting.
SAMPLED_ELEMENTS = 2**20


@dataclass(frozen=True)
class Measure:
    """A number per query: AP or Prec, by one rule, at one cut-off (None: none; "R": the query's own R)."""

    family: str
    rule: str
    divisor: str
    k: int | str | None
    shared: bool = False
    """AP reads a hit's precision at the last photo of equal distance, as scikit-learn does."""

    @property
    def closed_form(self) -> bool:
        """Whether the mean over random tie orders is known exactly."""
        return self.family == "Prec" or (self.rule == "raw" and self.divisor != "hits")


def cut_off(measure: Measure, relevant: Tensor) -> Tensor:
    """The cut-off K of each query as float64 [B, 1]; infinite where there is none."""
    if measure.k == "R":
        return relevant[:, None].clamp(min=1).double()
    value = math.inf if measure.k is None else float(measure.k)
    return torch.full((len(relevant), 1), value, dtype=torch.float64, device=relevant.device)


def divisor(measure: Measure, relevant: Tensor, hits: Tensor | None) -> Tensor:
    """What the sum over the hits is divided by, float64 [B]; at least 1, so that no hit means 0."""
    cut = cut_off(measure, relevant)[:, 0]
    number = relevant.double()
    if measure.family == "Prec":
        value = {"hits / K": cut, "hits / min(K, R)": torch.minimum(cut, number),
                 "item K + 1": torch.ones_like(cut)}[measure.rule]
    elif measure.divisor == "hits" and measure.k is not None:
        assert hits is not None
        value = hits.double()
    else:
        value = {"R": number, "min(K, R)": torch.minimum(cut, number), "K": cut}[measure.divisor]
    return value.clamp(min=1.0)


def from_ranks(
    measure: Measure, ranks: Tensor, relevant: Tensor, thresholds: Tensor | None = None
) -> Tensor:
    """One measure for each query from the ranks of its relevant photos.

    ranks: float64 [B, R], ascending, counted from 1, infinite where a query has fewer than R relevant photos.
    relevant: [B], the number of relevant photos. thresholds: float64 [B, R], the rank at which the precision
    of a hit is read if that is not its own rank (scikit-learn reads it at the last photo of equal distance).
    """
    cut = cut_off(measure, relevant)
    if isinstance(measure.k, int):
        ranks = ranks[:, : measure.k + 1]  # the first K + 1 photos hold at most K + 1 hits
        thresholds = None if thresholds is None else thresholds[:, : measure.k + 1]
    if measure.family == "Prec":
        inside = ranks == cut + 1 if measure.rule == "item K + 1" else ranks <= cut
        return inside.sum(1) / divisor(measure, relevant, None)
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
    if measure.rule == "voc":
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
    if measure.family == "Prec":
        if measure.rule == "item K + 1":
            share = ((groups.start <= cut) & (cut < groups.start + groups.size)) / size
        else:
            share = reach / size
        return share.sum(1) / divisor(measure, relevant, None)
    slope = (groups.hits - 1).clamp(min=0) / (size - 1).clamp(min=1)
    steps = harmonic[groups.start + reach.long()] - harmonic[groups.start]
    total = slope * reach + (groups.hits_before + 1 - slope * (groups.start + 1)) * steps
    return (total / size).sum(1) / divisor(measure, relevant, None)


def bound(measure: Measure, groups: TieGroups, relevant: Tensor, harmonic: Tensor, order: str) -> Tensor:
    """The largest ("best") or smallest ("worst") value that a measure takes over all tie orders, float64 [B].

    Mostly relevant photos come first, or last, among those equally far. Not so for "item K + 1", nor where
    the sum is divided by the hits: one late hit more can lower that mean. There the number x of hits that the
    run across the cut-off places within it is varied; for each x they stand as early or as late as they can.
    """
    ranks = groups.ranks(order)
    if measure.rule != "item K + 1" and (measure.divisor != "hits" or measure.k is None):
        return from_ranks(measure, ranks, relevant)
    cut = cut_off(measure, relevant)
    end = groups.start + groups.size
    if measure.rule == "item K + 1":
        here = (groups.start <= cut) & (cut < end)
        return (here if order == "best" else here & (groups.hits == groups.size)).any(1).double()
    column = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    whole = (end <= cut) & (groups.size > 0)
    before, total = whole.sum(1, keepdim=True), (column / ranks).masked_fill(~whole, 0.0).sum(1, keepdim=True)
    across = (groups.start < cut) & (cut < end)
    hits = across.sum(1, keepdim=True)
    start = groups.start.masked_fill(~across, 0).amax(1, keepdim=True)
    outside = (end - cut).masked_fill(~across, 0.0).amax(1, keepdim=True)
    fewest, most = torch.clamp(hits - outside, min=0), torch.minimum(hits, cut - start)
    x = torch.arange(int(most.max()) + 1, device=ranks.device).expand(len(ranks), -1)
    # x hits in a row after `lead` photos, `before` of them hits, have precisions (before + i) / (lead + i)
    photos = len(harmonic) - 1
    lead = start.expand_as(x) if order == "best" else (cut.clamp(max=photos).long() - x).clamp(min=0)
    last = torch.clamp(lead + x, max=photos)
    value = (total + x - (lead - before) * (harmonic[last] - harmonic[lead])) / (before + x).clamp(min=1)
    impossible = (x < fewest) | (x > most)
    if order == "best":
        return value.masked_fill(impossible, -math.inf).amax(1)
    return value.masked_fill(impossible, math.inf).amin(1)


def score_block(
    gallery: Gallery, queries: Tensor, starts: Tensor, relevant: Tensor, identity: Tensor,
    measures: set[Measure], harmonic: Tensor, ties: str, tie_draws: int, seed: int,
) -> tuple[dict[Measure, Tensor], dict[Measure, tuple[Tensor, Tensor]]]:
    """All measures of a block of queries, and of those sampled the rows and their values [rows, draws].

    starts, relevant: int64 [B], where each query's relevant photos begin in the gallery, and how many.
    """
    distances = gallery.distances(queries)
    width = int(relevant.max())
    column = torch.arange(width, device=queries.device)
    present = column < relevant[:, None]
    at = (starts[:, None] + column).clamp_(max=distances.shape[1] - 1)
    by_order = None
    if ties in ("unstable-sort", "as-released"):
        by_order = sort_rows(gallery.unstable_ranks(distances).gather(1, at).masked_fill_(~present, math.inf))
    if ties in ("gallery-order", "scikit-learn"):
        keys = gallery.keys(distances)
        wanted = sort_rows(keys.gather(1, at).masked_fill_(~present, 2**62))
        by_order = torch.searchsorted(sort_rows(keys), wanted) + 1
        by_order = torch.where(present, by_order.double(), math.inf)
    if by_order is not None and not any(measure.shared for measure in measures):
        return {measure: from_ranks(measure, by_order, relevant) for measure in measures}, {}
    nearest = sort_rows(distances.gather(1, at).masked_fill_(~present, math.inf))
    groups = TieGroups.of(sort_rows(distances), nearest)

    if by_order is not None:
        last = torch.where(present, (groups.start + groups.size).double(), math.inf)
        return {measure: from_ranks(measure, by_order, relevant, last if measure.shared else None)
                for measure in measures}, {}
    if ties in ("best", "worst"):
        return {measure: bound(measure, groups, relevant, harmonic, ties) for measure in measures}, {}

    ranks = groups.ranks("best")
    mixed = groups.mixed.nonzero()[:, 0]
    sampled = [measure for measure in measures if not measure.closed_form]
    found = {measure: (expected(measure, groups, relevant, harmonic) if measure.closed_form and len(mixed)
                       else from_ranks(measure, ranks, relevant)) for measure in measures}
    if not len(mixed) or not sampled:
        return found, {}
    drawn = {measure: torch.empty((len(mixed), tie_draws), dtype=torch.float64, device=queries.device)
             for measure in sampled}
    rows = max(1, SAMPLED_ELEMENTS // (width * tie_draws))
    for begin in range(0, len(mixed), rows):
        part = mixed[begin:begin + rows].repeat_interleave(tie_draws)
        draw = torch.arange(tie_draws, device=queries.device).repeat(len(part) // tie_draws)
        ranks = random_ranks(groups.rows(part), identity[part] * tie_draws + draw, seed)
        for measure in sampled:
            values = from_ranks(measure, ranks, relevant[part])
            drawn[measure][begin:begin + rows] = values.view(-1, tie_draws)
    for measure in sampled:
        found[measure][mixed] = drawn[measure].mean(1)
    return found, {measure: (mixed, drawn[measure]) for measure in sampled}
