"""What the paper claims, what was measured of it, and what that supports: verdicts, comparisons, controls.

In: a checked suite. Out: the claims table, tables of paired comparisons and of controls, sentences. A verdict on the paper
comes only from its own data sets; one seed never gives a verdict. Paper: ablation table, Table 5, motivation figure,
singular values.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import t

from reports import paper
from reports.figure_kinds import listed
from reports.read.cells import Cell, Score
from reports.read.schema import Task
from reports.read.suite import NOT_MEASURED, Suite
from reports.stats import verdicts
from reports.stats.uncertainty import LEVEL, RESAMPLES, Comparison, best_p, compare, holm, seeds_needed
from reports.tables import extension
from reports.tables.entries import measured_entry, seed_names
from reports.tables.table import Column, Entry, Row, Table

HOLDS, DOES_NOT, OPEN, MISSING = "holds", "does not", "cannot be told", NOT_MEASURED
SIGNIFICANT = 0.05
LAST_EPOCHS = 3
"""Epochs at the end of training whose mean stands for where a curve ends."""
TOP_VALUES = 30
"""Singular values that the paper's figure shows."""
RETRIEVAL, CLASS_LOSS, SEEN_ACCURACY, DIRECTIONS = "retrieval", "class loss", "seen-class accuracy", "relative singular value"
PAPERS, OURS = "Claims of the paper", "Our question, not the paper's"
GAPS_NAMED = 6
"""Most gaps of the paper's that are named one by one."""


@dataclass(frozen=True)
class Pair:
    """Two variants of which the first is claimed to have the higher number."""

    first: str
    second: str
    measure: str = RETRIEVAL
    facts: tuple[str, str] | None = None
    """Their names in published.csv, where the paper gives both numbers."""
    read_off: str = ""
    """What the paper's figure says where it gives no table."""


@dataclass(frozen=True)
class Claim:
    """A statement that holds if all its pairs do."""

    key: str
    statement: str
    where: str
    pairs: tuple[Pair, ...]
    group: str = PAPERS


@dataclass(frozen=True)
class Finding:
    """What a task's runs say of one pair."""

    pair: Pair
    comparison: Comparison | None = None
    """None where no seed has both sides."""
    seeds: tuple[int, ...] = ()
    runs: tuple[Cell, ...] = ()
    state: str = MISSING
    why: str = ""
    dropped: int = 0
    """Classes that not all of these runs have, and that are left out."""
    p_seeds: float = math.nan
    """Holm-corrected over all pairs of the task that could be tested; likewise `p_classes`."""
    p_classes: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether the corrected test over seeds and, where there are classes, the one over classes is below SIGNIFICANT."""
        return self.p_seeds < SIGNIFICANT and (math.isnan(self.p_classes) or self.p_classes < SIGNIFICANT)

    @property
    def verdict(self) -> str:
        """The state with the plain word that belongs to it."""
        return self.state + (f": {self.why}" if self.why else " (significant)" if self.significant and self.state != OPEN else "")


@dataclass(frozen=True)
class ClaimRow:
    """A claim with what each task of the suite says of it."""

    claim: Claim
    found: dict[Task, tuple[Finding, ...]]

    def state(self, task: Task) -> str:
        """Of all its pairs together: one that does not hold refutes it, and all must hold."""
        return combined(finding.state for finding in self.found.get(task, ()))


def _ablation(first: str, second: str, a: str, b: str) -> Pair:
    return Pair(first, second, facts=(a, b))


_SOFT, _SBHT = "weight sharing: soft", "semantic metric: SBHT"
CLAIMS = (
    Claim("soft-hard", "Soft sharing (TCN) retrieves unseen classes better than hard sharing (HWS)", "ablation table",
          (_ablation("tcn", "hws", _SOFT, "weight sharing: hard 1:1"),)),
    Claim("soft-none", "Soft sharing retrieves them better than no sharing (NWS)", "ablation table",
          (_ablation("tcn", "nws", _SOFT, "weight sharing: without"),)),
    Claim("hard-none", "Hard sharing retrieves them better than no sharing", "ablation table",
          (_ablation("hws", "nws", "weight sharing: hard 1:1", "weight sharing: without"),)),
    Claim("seen-unseen", "Hard sharing fits the seen classes better, yet retrieves unseen ones worse", "motivation figure",
          (Pair("tcn", "hws", CLASS_LOSS, read_off="near 1.15 (sketches) and 0.65 (photos) against 0.2"),
           Pair("hws", "tcn", SEEN_ACCURACY, read_off="near 0.92 against 0.76"),
           _ablation("tcn", "hws", _SOFT, "weight sharing: hard 1:1"))),
    Claim("semantic", "The semantic metric (SBHT) helps", "ablation table",
          (_ablation("tcn", "tcn-no-semantic", _SBHT, "semantic metric: without"),)),
    Claim("sbht-bht", "SBHT beats batch-hard triplets without semantics (BHT)", "ablation table",
          (_ablation("tcn", "tcn-bht", _SBHT, "semantic metric: BHT"),)),
    Claim("sbht-sr", "SBHT beats BHT with a separate semantic regression (SR) at every weight", "ablation table",
          tuple(_ablation("tcn", f"tcn-bht-sr-{w}", _SBHT, f"semantic metric: BHT+SR 1:{w}") for w in ("0.1", "1", "10"))),
    Claim("teacher", "The ImageNet teacher's loss helps", "ablation table",
          (_ablation("tcn", "tcn-no-teacher", "teacher: with", "teacher: without"),)),
    Claim("batch-norm", "Independent batch norms beat shared ones (the general criterion)", "text",
          (Pair("tcn", "tcn-shared-bn"),)),
    Claim("directions", "Soft sharing keeps more directions in the features than hard sharing", "singular values",
          (Pair("tcn", "hws", DIRECTIONS),)),
    Claim("near-frozen", "Soft sharing is more than near-frozen convolutions with independent batch norms", "",
          (Pair("tcn", "frozen-conv"), Pair("tcn", "l2-sp")), OURS),
    Claim("common", "Soft sharing is more than one set of convolutions with independent batch norms", "",
          (Pair("tcn", "hard-conv"),), OURS),
    Claim("near-frozen-1000", "At the paper's sharing weight, 1000, it is more than near-frozen convolutions", "",
          (Pair("tcn-weight-1000", "frozen-conv"), Pair("tcn-weight-1000", "l2-sp-weight-1000")), OURS),
    Claim("norm", "The norm does what its square does not", "", (Pair("tcn", "squared"),), OURS),
    Claim("slow", "Soft sharing is more than hard sharing that learns slowly", "", (Pair("tcn", "hws-slow"),), OURS),
    Claim("slow-1000", "At the paper's sharing weight it is more than one set of convolutions that learns slowly", "",
          (Pair("tcn-weight-1000", "hard-conv-slow"),), OURS),
)
EXTENSION = (("dann-coupled", "dann"), ("dann", "source-only"))
QUESTION = ("near-frozen", "common", "near-frozen-1000")
"""Claims on which the evidence is put in sentences."""
EXTENSION_NAMES = {"dann-coupled": "DANN + coupled", "dann": "DANN", "source-only": "source only"}
RULE = (
    f"Rule. Fewer than {verdicts.SIGN_TEST_SEEDS} common seeds: cannot be told. Else it holds where three things agree with the "
    "claim, does not where all three point the other way, and cannot be told otherwise: the sign-flip test over classes of the "
    f"seed-mean differences, Holm-corrected over all comparisons that could be tested, is below {SIGNIFICANT}; the sign-flip "
    f"test over seeds is at most {SIGNIFICANT}; the interval over classes and seeds leaves out 0. Curves and singular values "
    "have no classes: there the last two decide. A claim of several comparisons holds if all do, and does not if one does not.")
INTERVAL = (f"Intervals: {LEVEL:.0%} BCa bootstrap of the mean difference over classes and seeds, crossed, {RESAMPLES:,} "
            "resamples; with one seed over classes only, which leaves out what training again would change. Six seeds are "
            "few for a bootstrap: where seeds differ as much as classes do, such an interval holds the truth in about 9 of "
            "10 cases, by simulation.")


def combined(states: Iterable[str]) -> str:
    """The state of a claim of several comparisons.

    >>> combined(["holds", "holds"]), combined(["holds", "not measured"]), combined(["does not", "cannot be told"]), combined([])
    ('holds', 'cannot be told', 'does not', 'not measured')
    """
    found = list(states)
    if DOES_NOT in found:
        return DOES_NOT
    if not found or set(found) == {MISSING}:
        return MISSING
    return HOLDS if set(found) == {HOLDS} else OPEN


def claims(suite: Suite) -> list[ClaimRow]:
    """Every claim with what each task says of it; the extension's, which belongs to no task, is a row of `table` alone."""
    measured = {task: findings(suite, task) for task in suite.tasks()}
    return [ClaimRow(claim, {task: tuple(found[pair] for pair in claim.pairs) for task, found in measured.items()})
            for claim in CLAIMS]


def findings(suite: Suite, task: Task) -> dict[Pair, Finding]:
    """Every pair behind the claims, compared on the task's runs and judged by RULE."""
    # a pair that serves two claims is one comparison, whatever the paper says beside it
    if (key := ("findings", task)) in suite.memory:
        return suite.memory[key]
    distinct: dict[tuple[str, str, str], Finding] = {}
    keys = {}
    for pair in (pair for claim in CLAIMS for pair in claim.pairs):
        there = _resolved(suite, task, pair)
        keys[pair] = there.first, there.second, there.measure
        if keys[pair] not in distinct:
            distinct[keys[pair]] = _compared(suite, task, there)
    tested = [key for key, f in distinct.items() if f.comparison is not None and f.comparison.seeds >= verdicts.SIGN_TEST_SEEDS]
    by_classes = holm([distinct[key].comparison.p_classes for key in tested])
    by_seeds = holm([distinct[key].comparison.p_seeds for key in tested])
    for key, p_classes, p_seeds in zip(tested, by_classes, by_seeds):
        distinct[key] = _judged(replace(distinct[key], p_classes=p_classes, p_seeds=p_seeds))
    suite.memory["findings", task] = {
        pair: replace(distinct[key], pair=replace(distinct[key].pair, facts=pair.facts, read_off=pair.read_off))
        for pair, key in keys.items()}
    return suite.memory["findings", task]


def table(suite: Suite) -> Table:
    """The claims table. Published and measured numbers meet only where a task is of the paper's; a laptop gives words there."""
    papers, laptops = ([task for task in suite.tasks() if paper.is_paper(task) is whose] for whose in (True, False))
    numbers = papers or laptops
    columns = [Column("Claim", wrap=True, wide=True), Column("Compared", wrap=True)]
    columns += [Column("Published", wrap=True)] if papers else []
    columns += [Column("Verdict on the paper's data sets", wrap=True),
                *(Column(_laptop_heading(suite, task), wrap=True) for task in laptops)]
    columns += [Column(f"Measured difference [{LEVEL:.0%} interval]", wrap=True), Column("Seeds", wrap=True)]
    rows: list[Row] = []
    measured = claims(suite)
    for group in (PAPERS, OURS):
        rows.append(Row((Entry(group),), "section"))
        for row in (row for row in measured if row.claim.group == group):
            where = f" ({row.claim.where})" if row.claim.where else ""
            lead = Entry(row.claim.statement + where)
            several = len(row.claim.pairs) > 1
            if several:
                states = [_by_task({task: row.state(task) for task in papers}),
                          *(_on_laptop(row.state(task), row.state(task)) for task in laptops)]
                rows.append(Row((lead, Entry("all of these"), *[Entry("")] * bool(papers), *states, Entry(""), Entry(""))))
            for i, pair in enumerate(row.claim.pairs):
                found = {task: row.found[task][i] for task in (*papers, *laptops)}
                states = [_by_task({task: found[task].verdict for task in papers}),
                          *(_on_laptop(found[task].verdict, found[task].state) for task in laptops)]
                published = [Entry(_published(pair, papers, group))] if papers else []
                rows.append(Row((Entry("") if several else lead, Entry(_label(pair)), *published, *states,
                                 *_numbers({task: found[task] for task in numbers}))))
        if group == PAPERS:
            rows += _extension(suite, papers, laptops)
    notes = [RULE, INTERVAL, *(note for task in numbers for note in (_family_note(suite, task), *evidence(suite, task)) if note)]
    if laptops:
        notes.append("A laptop's verdict is one on its own data and budget. It says nothing on the paper's data sets, and a "
                     "“does not” there does not contradict the paper.")
    if papers and laptops:
        notes.append("The differences and published numbers are those of the paper's data sets; the laptop's measured "
                     "differences stand in its own table of comparisons.")
    notes += [DIRECTIONS_NOTE, CURVES_NOTE]
    return Table("claims", "The paper's claims and what was measured of them", tuple(columns), tuple(rows), tuple(notes))


DIRECTIONS_NOTE = (f"Directions in the features, our measure of what the paper draws: the mean of the top {TOP_VALUES} "
                   "singular values of unseen features as a share of the largest, averaged over photos and sketches.")
CURVES_NOTE = (f"Class loss and seen-class accuracy: means over the last {LAST_EPOCHS} epochs; the loss is the mean of that "
               "of sketches and of photos.")


def comparisons(suite: Suite, task: Task) -> Table:
    """Every pair behind the claims with interval, effect size and both tests; its numbers are measured ones only."""
    columns = (Column("Compared", wrap=True), Column("Number"), Column("Difference", numeric=True),
               Column(f"{LEVEL:.0%} interval", numeric=True), Column("Effect d_z", numeric=True),
               Column("Classes above", numeric=True),
               Column("Seeds above", numeric=True), Column("p", "Over classes", True), Column("Holm", "Over classes", True),
               Column("p", "Over seeds", True), Column("Holm", "Over seeds", True), Column("Verdict", wrap=True),
               Column("Common seeds"))
    metric = paper.retrieval_metric(task)
    rows = []
    for heading, pairs in _groups(suite, task).items():
        rows.append(Row((Entry(heading),), "section"))
        for f in pairs:
            c = f.comparison
            lead = (Entry(_names(f.pair)), Entry(metric if f.pair.measure == RETRIEVAL else f.pair.measure))
            if c is None:
                rows.append(Row((*lead, Entry(NOT_MEASURED), *[Entry("–")] * 8, Entry(f.verdict), Entry("none"))))
                continue
            several = c.classes > 1
            rows.append(Row((*lead, Entry(_signed(c.difference), c.difference, runs=f.runs), Entry(_span(c)), _plain(c.effect),
                             Entry(f"{c.share:.0%}" if several else "–"), Entry(f"{c.wins} of {c.seeds}"), _p(c.p_classes),
                             _p(f.p_classes), _p(c.p_seeds if c.seeds > 1 else math.nan), _p(f.p_seeds), Entry(f.verdict),
                             Entry(_seeds(f)))))
    notes = ((f"First minus second, on the same seeds and classes; {metric}: released rule, real-valued features, unseen "
              "classes, each class the mean of its queries. d_z: mean over standard deviation, over classes, of the "
              "seed-mean differences. Classes "
             "above: classes with a seed-mean difference above 0. Verdicts follow the rule below the table of claims."), INTERVAL,
             ("p: two-sided sign-flip tests; over classes it asks whether these networks differ on other classes, over seeds "
             "whether training again would show it. Without a corrected value: too few seeds to be tested."),
             _family_note(suite, task), DIRECTIONS_NOTE, CURVES_NOTE)
    return Table(f"{task.slug}-comparisons", f"{paper.task_title(task)}: paired comparisons (measured)", columns, tuple(rows),
                 tuple(filter(None, notes)))


def controls(suite: Suite, task: Task) -> Table | None:
    """TCN minus each control, with how far the convolutions went; None where no control was planned or found."""
    if not set(paper.CONTROLS) & set(suite.variants(task)):
        return None
    metric = paper.retrieval_metric(task)
    columns = (Column("Row", wrap=True), Column(metric, numeric=True), Column("difference", "First minus this row", True),
               Column(f"{LEVEL:.0%} interval", "First minus this row", True), Column("d_z", "First minus this row", True),
               Column("p classes, Holm", "First minus this row", True), Column("p seeds, Holm", "First minus this row", True),
               Column("Soft sharing is more", wrap=True), Column("from start", "Convolutions at the end", True),
               Column("apart", "Convolutions at the end", True), Column("Seeds"))
    found = findings(suite, task)
    rows = []
    strong = paper.at_weight(suite, task, paper.PAPER_WEIGHT)
    by_names = {(f.pair.first, f.pair.second): f for f in found.values() if f.pair.measure == RETRIEVAL}
    blocks: dict[str, list[str]] = {"tcn": ["hws", "nws", *(paper.at_weight(suite, task, w) for w in paper.CONTROL_WEIGHTS)]}
    blocks.setdefault(strong, [])
    for claim in (claim for claim in CLAIMS if claim.group == OURS):
        for pair in (found[pair].pair for pair in claim.pairs):
            blocks[pair.first].append(pair.second)
    for first, variants in blocks.items():
        rows.append(Row((Entry(f"Against {paper.label(first)}"),), "section"))
        for variant in dict.fromkeys((first, *variants)):
            f = by_names.get((first, variant))
            c = None if f is None else f.comparison
            numbers = [Entry("–")] * 5 + [Entry("–" if f is None else f.verdict)] if c is None else [
                Entry(_signed(c.difference), c.difference, runs=f.runs), Entry(_span(c)), _plain(c.effect), _p(f.p_classes),
                _p(f.p_seeds), Entry(f.verdict)]
            rows.append(Row((Entry(paper.label(variant)), _level(suite, task, variant), *numbers, *_moves(suite, task, variant))))
    notes = ((f"{metric}: released rule, real-valued, unseen classes. Differences on common seeds only; – where that is no "
              "question of this table or nothing was measured."),
             ("From start: distance of an encoder's convolutions from their ImageNet start at the end of training, as a "
              "share of the start's norm (root mean square of both encoders, all convolutions as one vector). Apart: "
              "distance between the two encoders over that distance; 0 for one set, about 141% for two that go their own "
              "ways. The tested checkpoint "
             "may be an earlier epoch; means over the seeds that recorded them."),
             "Corrected values, intervals and verdicts as in the table of comparisons.", *evidence(suite, task))
    return Table(f"{task.slug}-controls", f"{paper.task_title(task)}: controls that the paper lacks (measured)", columns,
                 tuple(rows), tuple(filter(None, notes)))


def evidence(suite: Suite, task: Task) -> list[str]:
    """What the controls and distances support on our question, in sentences made from the numbers; none without controls."""
    found = findings(suite, task)
    sentences = []
    for claim in (claim for claim in CLAIMS if claim.key in QUESTION):
        pairs = {found[pair].pair: found[pair] for pair in claim.pairs}
        measured = [f for f in pairs.values() if f.comparison is not None]
        if not measured:
            continue
        first = measured[0].pair.first
        if claim.key == "near-frozen-1000" and first == "tcn":
            continue  # the paper's own weight: the same runs as above
        parts = [f"{_signed(f.comparison.difference)} {_span(f.comparison)} against {_lower(paper.label(f.pair.second))} "
                 f"({f.why or f.state})" for f in measured]
        missing = [paper.short_label(f.pair.second) for f in pairs.values() if f.comparison is None]
        sentences.append(f"“{claim.statement}”: {paper.task_title(task)}, {paper.short_label(first)} {'; '.join(parts)}. "
                         + (f"Not measured: {', '.join(missing)}. " if missing else "") + _conclusion(list(pairs.values())))
    if not sentences:
        return []
    shown = dict.fromkeys(("tcn", paper.at_weight(suite, task, paper.PAPER_WEIGHT), "hard-conv", "nws"))
    ends = [(variant, moves) for variant in shown if (moves := _travelled(suite, task, variant))]
    if ends:
        sentences.append("At the end of training the convolutions are this far from their start (share of its norm), and "
                         "apart by this share of the way: " + "; ".join(
                             f"{paper.short_label(variant)} {_mean(moves, 0):.1%} and {_mean(moves, 1):.1%}"
                             for variant, moves in ends) + ".")
    return sentences


def why(suite: Suite, task: Task) -> verdicts.Verdict | None:
    """The controls' answer in short: is soft sharing more than near-frozen, or than common convolutions? None without controls."""
    found = findings(suite, task)
    states, parts = [], []
    for claim, text in (("near-frozen", "More than near-frozen convolutions"), ("common", "More than one set of convolutions")):
        pairs = [found[pair] for pair in next(c for c in CLAIMS if c.key == claim).pairs]
        states.append(combined(f.state for f in pairs))
        numbers = [f"{_signed(f.comparison.difference)} against {_lower(paper.label(f.pair.second))}, {_seeds(f)}"
                   for f in pairs if f.comparison is not None]
        parts.append(f"{text}: {states[-1]}" + (f" ({'; '.join(numbers)})" if numbers else "") + ".")
    if set(states) == {MISSING}:
        return None
    state = "yes" if set(states) == {HOLDS} else "no" if DOES_NOT in states else "open"
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
    # the paper's ablation is in mAP@all and Prec@100; a spread of one metric says nothing of another's
    facts = [p for p in paper.published() if p.table == "ablation" and p.metric == metric
             and (where is None or Task(p.dataset, p.split) == where)]
    if not facts:
        return []
    named = listed(paper.short_label(v) for v in spreads)
    steps = verdicts.optimiser_steps(suite, task)
    elsewhere = "" if where else (f" These are other drawings, another network and fewer steps ({steps} against "
                                  f"{paper.PAPER_STEPS:,}): the spread on the paper's own data is not known.")
    sentences = [("The paper's ablation table has one run a row. Two single runs of one method differ, by their seeds "
                  f"alone, with a standard deviation of √2 times the seeds'. Measured here on {paper.task_title(task)}: "
                  f"{sd:.3f} in {metric} over the "
                 f"seeds of {named} (pooled, {degrees} degrees of freedom), so two such runs differ by up to {limit:.3f} "
                 f"({quantile:.2f} × √2 × {sd:.3f}) in {LEVEL:.0%} of cases without any difference in method.{elsewhere}")]
    for place in dict.fromkeys(Task(p.dataset, p.split) for p in facts):
        values = {p.method: p.value for p in facts if Task(p.dataset, p.split) == place}
        pairs = [(a, b) for a, b in combinations(paper.ABLATION, 2) if a.group == b.group and {a.method, b.method} <= set(values)]
        gaps = [(round(abs(values[a.method] - values[b.method]), 6), a, b) for a, b in pairs]
        # TCN's own row against the others is what the table is read for
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


def interval_frame(suite: Suite, task: Task) -> pd.DataFrame:
    """Columns label, difference, low, high, seeds, group: the retrieval comparisons that were measured, in table order."""
    rows = []
    for heading, pairs in _groups(suite, task).items():
        for f in pairs:
            c = f.comparison
            if c is not None and f.pair.measure == RETRIEVAL:
                rows.append((_names(f.pair), c.difference, c.interval.low, c.interval.high, c.seeds, heading))
    return pd.DataFrame(rows, columns=["label", "difference", "low", "high", "seeds", "group"])


def _groups(suite: Suite, task: Task) -> dict[str, list[Finding]]:
    """Section -> its findings, each comparison once."""
    found = findings(suite, task)
    groups: dict[str, list[Finding]] = {PAPERS: [], OURS: []}
    seen = set()
    for claim in CLAIMS:
        for f in (found[pair] for pair in claim.pairs):
            key = (f.pair.first, f.pair.second, f.pair.measure)
            if key not in seen:
                seen.add(key)
                groups[claim.group].append(f)
    return groups


def _resolved(suite: Suite, task: Task, pair: Pair) -> Pair:
    """The pair with the variants that stand for the paper's weight where that is TCN's own."""
    own = paper.own_weight(suite, task) == paper.PAPER_WEIGHT
    names = {"tcn-weight-1000": paper.at_weight(suite, task, paper.PAPER_WEIGHT)}
    if own and not suite.cells_of(task, "l2-sp-weight-1000"):
        names["l2-sp-weight-1000"] = "l2-sp"
    return replace(pair, first=names.get(pair.first, pair.first), second=names.get(pair.second, pair.second), facts=None,
                   read_off="")


def _compared(suite: Suite, task: Task, pair: Pair) -> Finding:
    """The comparison itself, not yet tested against the others; what is missing is named."""
    sides = [_values(suite, task, variant, pair.measure) for variant in (pair.first, pair.second)]
    common = sorted(set(sides[0]) & set(sides[1]))
    if not common:
        return Finding(pair, why="no common seed" if all(sides) else "")
    # classes that a seed of either side lacks can't be paired
    indices = [set(side[seed].index) for side in sides for seed in common]
    classes = sorted(set.intersection(*indices))
    first, second = (np.array([side[seed].reindex(classes) for seed in common], dtype=np.float64) for side in sides)
    if not classes:
        return Finding(pair, why="no common class")
    runs = tuple(c for v in (pair.first, pair.second) for c in suite.cells_of(task, v) if c.seed in common)
    return replace(_untested(pair, first, second, common), runs=runs, dropped=len(set.union(*indices)) - len(classes))


def _untested(pair: Pair, first: np.ndarray, second: np.ndarray, common: list[int]) -> Finding:
    """A comparison that no rule has judged yet: it cannot be told, with the plain word."""
    c = compare(first, second)
    return Finding(pair, c, tuple(common), state=OPEN, why=f"above in {c.wins} of {_count(c.seeds, 'seed')}")


def _judged(found: Finding) -> Finding:
    """RULE, for a comparison with enough seeds."""
    c = found.comparison
    if found.pair.measure == RETRIEVAL and math.isnan(c.p_classes):
        return replace(found, why=f"{found.why}; no values per class")
    by_classes = found.p_classes < SIGNIFICANT or found.pair.measure != RETRIEVAL
    if by_classes and c.p_seeds <= SIGNIFICANT and c.interval.excludes_zero:
        return replace(found, state=HOLDS if c.difference > 0 else DOES_NOT, why="")
    return found


def _values(suite: Suite, task: Task, variant: str, measure: str) -> dict[int, pd.Series]:
    """Seed -> class -> value; a number without classes, or whose values per class are not at hand, has one class `all`."""
    found: dict[int, pd.Series] = {}
    for cell in suite.cells_of(task, variant):
        if measure == RETRIEVAL:
            score = Score(paper.retrieval_metric(task))
            values = suite.per_class(cell, score)
            number = suite.value(cell, score)
            if values is None and number is not None:
                values = pd.Series({"all": number})
        else:
            number = _curve_end(suite, cell, measure) if measure in (CLASS_LOSS, SEEN_ACCURACY) else _directions(suite, cell)
            values = None if number is None or math.isnan(number) else pd.Series({"all": number})
        if values is not None:
            found[cell.seed] = values
    return found


def _curve_end(suite: Suite, cell: Cell, measure: str) -> float | None:
    """Mean over the last epochs of the class loss (of sketches and photos) or of the accuracy on held-out seen sketches."""
    history = suite.frame(cell, "history.csv") if cell.trained else None
    if history is None:
        return None
    last = history[history["epoch"] > 0].sort_values("epoch").tail(LAST_EPOCHS)
    columns = ["class_sketch", "class_photo"] if measure == CLASS_LOSS else ["seen_accuracy"]
    return float(last[columns].to_numpy().mean()) if len(last) else None


def _directions(suite: Suite, cell: Cell) -> float | None:
    """Mean of the top singular values of unseen features over the largest, averaged over photos and sketches."""
    frame = suite.frame(cell, "singular_values.csv")
    if frame is None:
        return None
    parts = [part.nlargest(TOP_VALUES) for _, part in frame[frame["set"] == "unseen"].groupby("modality")["value"]]
    shares = [float(part.mean() / part.max()) for part in parts if part.max() > 0]
    return statistics.fmean(shares) if len(shares) == 2 else None


def _travelled(suite: Suite, task: Task, variant: str) -> list[tuple[float, float, Cell]]:
    """(from start / norm of the start, apart / from start, run) of each run with distances, over all convolutions."""
    found = []
    for cell in suite.cells_of(task, variant):
        arrays = suite.distances(cell)
        chosen = arrays["kinds"] == "convolution" if arrays is not None else np.array([False])
        if not chosen.any():
            continue
        last = {name: arrays[name][-1, chosen].astype(np.float64) for name in ("between", "sketch", "photo")}
        start = np.linalg.norm(arrays["start_norm"][chosen].astype(np.float64))
        way = math.sqrt((np.sum(last["sketch"] ** 2) + np.sum(last["photo"] ** 2)) / 2)
        apart = float(np.linalg.norm(last["between"]) / way) if way else 0.0
        found.append((float(way / start) if start else math.nan, apart, cell))
    return found


def _mean(moves: list[tuple[float, float, Cell]], which: int) -> float:
    return statistics.fmean(move[which] for move in moves)


def _moves(suite: Suite, task: Task, variant: str) -> tuple[Entry, Entry, Entry]:
    """From start, apart, and the seeds of the row."""
    seeds = Entry(seed_names(suite.measure(task, variant, Score(paper.retrieval_metric(task)))) or "none")
    moves = _travelled(suite, task, variant)
    if not moves:
        return Entry("–"), Entry("–"), seeds
    runs = tuple(cell for *_, cell in moves)
    way, apart = _mean(moves, 0), _mean(moves, 1)
    return Entry(f"{way:.1%}", way, runs=runs), Entry(f"{apart:.1%}", apart, runs=runs), seeds


def _level(suite: Suite, task: Task, variant: str) -> Entry:
    return measured_entry(suite.measure(task, variant, Score(paper.retrieval_metric(task))))


def _numbers(found: dict[Task, Finding]) -> tuple[Entry, Entry]:
    """Difference with interval, and seeds; several tasks are named."""
    named = {task: f for task, f in found.items() if f.comparison is not None}
    if not named:
        return Entry(NOT_MEASURED), Entry("none")
    texts = [f"{_signed(f.comparison.difference)} {_span(f.comparison)}" for f in named.values()]
    seeds = [_seeds(f) for f in named.values()]
    if len(found) > 1:
        texts, seeds = ([f"{paper.task_title(task)}: {text}" for task, text in zip(named, part)] for part in (texts, seeds))
    runs = tuple(cell for f in named.values() for cell in f.runs)
    value = next(iter(named.values())).comparison.difference if len(named) == 1 else math.nan
    return Entry("; ".join(texts), value, runs=runs), Entry("; ".join(seeds))


def _by_task(states: dict[Task, str]) -> Entry:
    """One word where all tasks say the same, else each by name; `not measured` where the paper's data sets were not run."""
    if not states or set(states.values()) == {MISSING}:
        return Entry(MISSING)
    decided = all(state.startswith((HOLDS, DOES_NOT)) for state in states.values())
    if len(states) == 1:
        return Entry(next(iter(states.values())), strong=decided)
    return Entry("; ".join(f"{paper.task_title(task)}: {state}" for task, state in states.items()), strong=decided)


def _extension(suite: Suite, papers: list[Task], laptops: list[Task]) -> list[Row]:
    """The claim of Table 5, judged by the same rule on the extension's own runs; its comparisons are a family of their own."""
    measured = extension.read(suite.root)
    data, steps = (measured.runs[0].data, measured.runs[0].steps) if measured.runs else ("", 0)
    theirs = data == extension.MNIST
    found = []
    for first, second in EXTENSION:
        sides = measured.of(first), measured.of(second)
        common = sorted(set(sides[0]) & set(sides[1]))
        pair = Pair(first, second, "accuracy on target digits")
        values = (np.array([[side[seed]] for seed in common]) for side in sides)
        found.append(_untested(pair, *values, common) if common else Finding(pair))
    tested = [f.comparison is not None and f.comparison.seeds >= verdicts.SIGN_TEST_SEEDS for f in found]
    corrected = holm([f.comparison.p_seeds if ready else math.nan for f, ready in zip(found, tested)])
    found = [_judged(replace(f, p_seeds=p)) if ready else f for f, ready, p in zip(found, tested, corrected)]

    def states(text: str, state: str) -> list[Entry]:
        laptop = [Entry(MISSING)] * len(laptops)
        if laptop and measured.runs and not theirs:
            told = _on_laptop(text, state)
            laptop[0] = replace(told, text=f"{told.text} ({data}, {steps:,} steps)")
        return [Entry(text, strong=state in (HOLDS, DOES_NOT)) if theirs else Entry(MISSING), *laptop]

    facts = {p.method: p.value for p in paper.published() if p.table == "extension"}
    whole = combined(f.state for f in found)
    rows = [Row((Entry("Coupling helps domain-adversarial training, MNIST to MNIST-M (Table 5)"), Entry("all of these"),
                 *[Entry("")] * bool(papers), *states(whole, whole), Entry(""), Entry("")))]
    for (first, second), f in zip(EXTENSION, found):
        published = " against ".join(f"{facts[extension.PUBLISHED_NAMES[name]]:.3f}" for name in (first, second))
        numbers = [Entry(MISSING), Entry("none")]
        if f.comparison is not None:
            # an offline task's numbers never stand beside the paper's
            beside = not papers or theirs
            numbers = [Entry(f"{_signed(f.comparison.difference)} {_span(f.comparison)}", f.comparison.difference) if beside
                       else Entry("see the extension's own table"), Entry(_seeds(f))]
        rows.append(Row((Entry(""), Entry(f"{EXTENSION_NAMES[first]} against {EXTENSION_NAMES[second]}, accuracy"),
                         *[Entry(published)] * bool(papers), *states(f.verdict, f.state), *numbers)))
    return rows


def _on_laptop(text: str, state: str) -> Entry:
    return Entry(f"{text}, on this data and budget only" if state == DOES_NOT else text, strong=state in (HOLDS, DOES_NOT))


def _laptop_heading(suite: Suite, task: Task) -> str:
    steps = verdicts.optimiser_steps(suite, task) or "unknown number of"
    return f"Laptop ({paper.task_title(task).lower()}, {steps} optimiser steps; the paper's: {paper.PAPER_STEPS:,})"


def _published(pair: Pair, tasks: list[Task], group: str) -> str:
    """The paper's two numbers on each of the measured data sets, in the metric that the verdict is about."""
    if pair.read_off:
        return pair.read_off
    if pair.facts is None:
        return "not asked" if group == OURS else "no number at hand"
    found = []
    for task in tasks:
        metric, where = paper.retrieval_metric(task), paper.paper_task(task)
        values = {p.method: p.value for p in paper.published()
                  if p.table == "ablation" and p.metric == metric and Task(p.dataset, p.split) == where}
        if set(pair.facts) <= set(values):
            found.append(f"{paper.task_title(task)}: {values[pair.facts[0]]:.3f} against {values[pair.facts[1]]:.3f} ({metric})")
    return "; ".join(found) or "no number for these data sets"


def _family_note(suite: Suite, task: Task) -> str:
    """What the correction allows: how many comparisons were tested, and how many seeds `significant` would take."""
    tested = {(f.pair.first, f.pair.second, f.pair.measure): f for f in findings(suite, task).values()
              if f.comparison is not None and f.comparison.seeds >= verdicts.SIGN_TEST_SEEDS}
    if not tested:
        return (f"{paper.task_title(task)}: no comparison has {verdicts.SIGN_TEST_SEEDS} common seeds, so none was tested "
                "and nothing here is significant.")
    m, seeds = len(tested), min(f.comparison.seeds for f in tested.values())
    least = min(1.0, m * best_p(seeds))
    reach = f"above {SIGNIFICANT}, so nothing here could be called significant; that would take {seeds_needed(m)} seeds" \
        if least >= SIGNIFICANT else f"below {SIGNIFICANT}"
    return (f"{paper.task_title(task)}: {_count(m, 'comparison')} could be tested. With {seeds} seeds a sign-flip test over "
            f"seeds reaches p = {best_p(seeds):.3f} at best, Holm-corrected {best_p(seeds):.3f} × {m} = {least:.3f}: {reach}. "
            "“Significant” is printed only "
            f"where the corrected test over seeds is below {SIGNIFICANT} as well.")


def _names(pair: Pair) -> str:
    return f"{paper.short_label(pair.first)} against {paper.short_label(pair.second)}"


def _label(pair: Pair) -> str:
    """`TCN against HWS`, and which number if it is not retrieval."""
    return _names(pair) + ("" if pair.measure == RETRIEVAL else f", {pair.measure}")


def _seeds(found: Finding) -> str:
    c = found.comparison
    lost = f", {found.dropped} classes not in all runs left out" if found.dropped else ""
    return "none" if c is None else _count(c.seeds, "seed") + lost


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _title(where: Task) -> str:
    return {"100/25": "Sketchy, split 1", "220/30": "TU-Berlin"}.get(where.split, paper.task_title(where))


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _span(c: Comparison) -> str:
    return "[–]" if math.isnan(c.interval.low) else f"[{_signed(c.interval.low)}, {_signed(c.interval.high)}]"


def _plain(value: float) -> Entry:
    return Entry("–") if math.isnan(value) else Entry(f"{value:.2f}".replace("-", "−"), value)


def _p(value: float) -> Entry:
    return Entry("–") if math.isnan(value) else Entry("<0.001" if value < 0.001 else f"{value:.3f}", value)


def _lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
