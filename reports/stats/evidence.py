"""Findings and distances, put into sentences: what the controls support, and which gaps of the paper one seed can show.

In: a checked suite. Out: sentences and a verdict that follow from the numbers.
"""
from __future__ import annotations

import math
import statistics
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.stats import t

from reports import naming, paper, published
from reports.read.runs import FinishedRun, Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.stats import verdicts
from reports.stats.judging import CLAIMS, DOES_NOT, HOLDS, MISSING, Finding, Pair, combined, findings
from reports.stats.uncertainty import LEVEL, Comparison
from reports.wording import counted, listed, signed

GAPS_NAMED = 6
"""Largest number of gaps of the paper's table that are named one by one."""
QUESTION = ("near-frozen", "common", "near-frozen-1000")
"""Claims whose evidence is put into sentences."""


def of_controls(suite: Suite, task: Task) -> list[str]:
    """The answer of the controls and distances to our question, in sentences made from the numbers; none without controls."""
    found = findings(suite, task)
    sentences = []
    for claim in (claim for claim in CLAIMS if claim.key in QUESTION):
        pairs = {found[pair].pair: found[pair] for pair in claim.pairs}
        measured = [f for f in pairs.values() if f.comparison is not None]
        if not measured:
            continue
        first = measured[0].pair.first
        if claim.key == "near-frozen-1000" and first == "tcn":
            continue  # TCN has the paper's weight, so these are the same runs as above
        parts = [f"{signed(f.measured.difference)} {span(f.measured)} against {_lower(naming.label(f.pair.second))} "
                 f"({f.why or f.state})" for f in measured]
        missing = [naming.short_label(f.pair.second) for f in pairs.values() if f.comparison is None]
        sentences.append(f"“{claim.statement}”: {naming.task_title(task)}, {naming.short_label(first)} {'; '.join(parts)}. "
                         + (f"Not measured: {', '.join(missing)}. " if missing else "") + _conclusion(list(pairs.values())))
    if not sentences:
        return []
    shown = dict.fromkeys(("tcn", paper.at_weight(suite, task, paper.PAPER_WEIGHT), "hard-conv", "nws"))
    ends = [(variant, moves) for variant in shown if (moves := travelled(suite, task, variant))]
    if ends:
        sentences.append("At the end of training the convolutions are this far from their start (share of its norm), and "
                         "apart by this share of the way: " + "; ".join(
                             f"{naming.short_label(variant)} {mean_of(moves, 0):.1%} and {mean_of(moves, 1):.1%}"
                             for variant, moves in ends) + ".")
    return sentences


def why(suite: Suite, task: Task) -> verdicts.Verdict | None:
    """A short verdict on whether soft sharing is more than near-frozen convolutions, or than common ones; None without
    controls."""
    found = findings(suite, task)
    states, parts = [], []
    for claim, text in (("near-frozen", "More than near-frozen convolutions"), ("common", "More than one set of convolutions")):
        pairs = [found[pair] for pair in next(c for c in CLAIMS if c.key == claim).pairs]
        states.append(combined(f.state for f in pairs))
        numbers = [f"{signed(f.comparison.difference)} against {_lower(naming.label(f.pair.second))}, {seeds_text(f)}"
                   for f in pairs if f.comparison is not None]
        parts.append(f"{text}: {states[-1]}" + (f" ({'; '.join(numbers)})" if numbers else "") + ".")
    if set(states) == {MISSING}:
        return None
    state: Literal["yes", "no", "open"] = "yes" if set(states) == {HOLDS} else "no" if DOES_NOT in states else "open"
    return verdicts.Verdict("Why does it work: is soft sharing more than near-frozen, or simply common, convolutions with batch "
                            "norms of their own? (Our question, not the paper's.)", state, " ".join(parts))


def _conclusion(found: list[Finding]) -> str:
    state = combined(f.state for f in found)
    if state == HOLDS:
        return "So it is more than that here: it retrieves better than each of these."
    if state == DOES_NOT:
        return "So it is not more than that here: at least one of these retrieves better."
    signs = {np.sign(f.comparison.difference) for f in found if f.comparison is not None}
    way = {frozenset({1.0}): "to more", frozenset({-1.0}): "to less", frozenset({0.0}): "nowhere"}.get(frozenset(signs))
    measured = sum(f.comparison is not None for f in found)
    direction = f"{'All differences point' if measured > 1 else 'The difference points'} {way}" if way else \
        "The differences do not all point one way"
    few = any(f.comparison is not None and f.comparison.seeds < verdicts.SIGN_TEST_SEEDS for f in found)
    reason = f"fewer than {verdicts.SIGN_TEST_SEEDS} common seeds" if few else "not every difference stands out from chance" \
        if all(f.comparison is not None for f in found) else "not every one was measured"
    return f"{direction}; with {reason}, it cannot be told." if few else f"{direction}; {reason}, so it cannot be told."


def paper_gaps(suite: Suite, task: Task) -> list[str]:
    """Which gaps of the paper's ablation table are below what one seed can show; none where no spread over seeds is known.

    Scores are named only for a task of the paper's: beside laptop numbers the gaps alone stand.
    """
    metric, where = paper.retrieval_metric(task), paper.paper_task(task)
    spreads = {v: m for v in paper.PAPER_ORDER if (m := suite.measure(task, v, Score(metric))).n > 1}
    if not spreads:
        return []
    degrees = sum(m.n - 1 for m in spreads.values())
    sd = math.sqrt(sum((m.n - 1) * m.sd**2 for m in spreads.values()) / degrees)
    quantile = float(t.ppf((1 + LEVEL) / 2, degrees))
    limit = quantile * math.sqrt(2) * sd
    # The paper's ablation is in mAP@all and Prec@100, and the spread of one metric says nothing about another's.
    facts = [p for p in published.facts() if p.table == "ablation" and p.metric == metric
             and (where is None or Task(p.dataset, p.split) == where)]
    if not facts:
        return []
    named = listed(naming.short_label(v) for v in spreads)
    steps = verdicts.optimiser_steps(suite, task)
    what = "a part of the data set" if naming.part_of(task.dataset)[1] else "other drawings, another network"
    elsewhere = "" if where else (f" These are {what} and fewer steps ({steps} against {paper.PAPER_STEPS:,}): the spread on the "
                                  "paper's own data is not known.")
    sentences = [("The paper's ablation table has one run a row. Two single runs of one method differ, by their seeds "
                  f"alone, with a standard deviation of √2 times the seeds'. Measured here on {naming.task_title(task)}: "
                  f"{sd:.3f} in {metric} over the "
                 f"seeds of {named} (pooled, {degrees} degrees of freedom), so two such runs differ by up to {limit:.3f} "
                 f"({quantile:.2f} × √2 × {sd:.3f}) in {LEVEL:.0%} of cases without any difference in method.{elsewhere}")]
    for place in dict.fromkeys(Task(p.dataset, p.split) for p in facts):
        values = {p.method: p.value for p in facts if Task(p.dataset, p.split) == place}
        pairs = [(a, b) for a, b in combinations(paper.ABLATION, 2) if a.group == b.group and {a.method, b.method} <= set(values)]
        gaps = [(round(abs(values[a.method] - values[b.method]), 6), a, b) for a, b in pairs]
        # Readers compare TCN's own row with the others, so these gaps come first.
        below = sorted((gap for gap in gaps if gap[0] < limit),
                       key=lambda gap: ("tcn" not in (gap[1].variant, gap[2].variant), gap[0]))
        if not below:
            sentences.append(f"{_title(place)}: none of the {len(gaps)} gaps within the groups of that table is below this.")
            continue
        numbers = [f"{a.group.lower()}, {a.label} and {b.label} ({gap:.3f}"
                   + (f": {values[a.method]:.3f} and {values[b.method]:.3f})" if where else ")") for gap, a, b in below]
        shown = numbers[:GAPS_NAMED]
        more = f" and {len(numbers) - len(shown)} more" if len(numbers) > len(shown) else ""
        sentences.append(f"{_title(place)}: {len(below)} of the {len(gaps)} gaps within the groups of that table are below "
                         f"this, so its one seed cannot tell these rows apart: {'; '.join(shown)}{more}.")
    return sentences


def travelled(suite: Suite, task: Task, variant: str) -> list[tuple[float, float, FinishedRun]]:
    """(from start / norm of the start, apart / from start, run) of each run with distances, over all convolutions."""
    found = []
    for run in suite.runs_of(task, variant):
        arrays = suite.distances(run)
        if arrays is None or not (chosen := arrays["kinds"] == "convolution").any():
            continue
        last = {name: arrays[name][-1, chosen].astype(np.float64) for name in ("between", "sketch", "photo")}
        start = np.linalg.norm(arrays["start_norm"][chosen].astype(np.float64))
        way = math.sqrt((np.sum(last["sketch"] ** 2) + np.sum(last["photo"] ** 2)) / 2)
        apart = float(np.linalg.norm(last["between"]) / way) if way else 0.0
        found.append((float(way / start) if start else math.nan, apart, run))
    return found


def mean_of(moves: list[tuple[float, float, FinishedRun]], which: Literal[0, 1]) -> float:
    """Mean over runs of how far they went from their start (0), or apart (1)."""
    return statistics.fmean(move[which] for move in moves)


def against(pair: Pair) -> str:
    """A pair as tables name it: TCN against HWS."""
    return f"{naming.short_label(pair.first)} against {naming.short_label(pair.second)}"


def seeds_text(found: Finding) -> str:
    """How many common seeds a finding has, and how many classes were left out."""
    c = found.comparison
    lost = f", {found.dropped} classes not in all runs left out" if found.dropped else ""
    return "none" if c is None else counted(c.seeds, "seed") + lost


def _title(where: Task) -> str:
    return {"100/25": "Sketchy, split 1", "220/30": "TU-Berlin"}.get(where.split, naming.task_title(where))


def span(c: Comparison) -> str:
    """The interval of a comparison: [+0.010, +0.020]."""
    return "[–]" if math.isnan(c.interval.low) else f"[{signed(c.interval.low)}, {signed(c.interval.high)}]"


def _lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
