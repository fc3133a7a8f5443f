"""The paper's claims beside their measurements, the comparisons behind them, and the controls that the paper lacks.

In: a checked suite. Out: tables. A verdict on the paper comes only from its own data sets; results of the laptop have a column of
their own. Paper: ablation table, Table 5, motivation figure, singular values.
"""
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from reports import naming, paper, published
from reports.read.measured import NOT_MEASURED
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.stats import evidence, verdicts
from reports.stats.evidence import against, seeds_text, span
from reports.stats.judging import (
    CLAIMS,
    DOES_NOT,
    HOLDS,
    LAST_EPOCHS,
    MISSING,
    OURS,
    PAPERS,
    RETRIEVAL,
    RULE,
    SIGNIFICANT,
    TOP_VALUES,
    Finding,
    Pair,
    claims,
    combined,
    findings,
    grouped,
    judged,
    untested,
)
from reports.stats.uncertainty import LEVEL, RESAMPLES, best_p, holm, seeds_needed
from reports.tables import extension
from reports.tables.entries import measured_entry, seed_names
from reports.tables.table import Column, Entry, Row, Table
from reports.wording import counted, signed

EXTENSION = (("dann-coupled", "dann"), ("dann", "source-only"))
EXTENSION_CLAIM = "Coupling helps domain-adversarial training, MNIST to MNIST-M (Table 5)"
EXTENSION_NAMES = {"dann-coupled": "DANN + coupled", "dann": "DANN", "source-only": "source only"}
INTERVAL = (f"Intervals: {LEVEL:.0%} BCa bootstrap of the mean difference over classes and seeds, crossed, {RESAMPLES:,} "
            "resamples; with one seed over classes only, which leaves out what training again would change. Six seeds are "
            "few for a bootstrap: where seeds differ as much as classes do, such an interval holds the truth in about 9 of "
            "10 cases, by simulation.")


def table(suite: Suite) -> Table:
    """The claims table. Published and measured numbers meet only where a task is of the paper's; a laptop gives words there."""
    papers, laptops = ([task for task in suite.tasks() if paper.is_paper(task) is whose] for whose in (True, False))
    numbers = papers or laptops
    beyond = extension.read(suite.holding(extension.FOLDER))
    columns = [Column("Claim", wrap=True, wide=True), Column("Compared", wrap=True)]
    columns += [Column("Published", wrap=True)] if papers else []
    columns += [Column("Verdict on the paper's data sets", wrap=True),
                *(Column(_laptop_heading(suite, task), wrap=True) for task in laptops)]
    columns += [Column(f"Measured difference [{LEVEL:.0%} interval]", wrap=True), Column("Seeds", wrap=True)]
    rows: list[Row] = []
    told = claims(suite)
    missing = [row for row in told if all(row.state(task) == MISSING for task in (*papers, *laptops))]
    for group in (PAPERS, OURS):
        rows.append(Row((Entry(group),), "section"))
        for row in (row for row in told if row.claim.group == group and row not in missing):
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
        if group == PAPERS and beyond.runs:
            rows += _extension(beyond, papers, laptops)
    rows = [row for i, row in enumerate(rows) if row.kind != "section" or i + 1 < len(rows) and rows[i + 1].kind != "section"]
    unmeasured = [row.claim.statement for row in missing] + [EXTENSION_CLAIM] * (not beyond.runs)
    notes = [RULE, INTERVAL]
    for task in numbers:
        notes += [_family_note(suite, task), *evidence.of_controls(suite, task)]
    if laptops:
        notes.append("A verdict of a laptop or a sample is one on its own data and budget. It says nothing on the paper's data "
                     "sets, and a “does not” there does not contradict the paper.")
    if papers and laptops:
        notes.append("The differences and published numbers are those of the paper's data sets; the laptop's measured "
                     "differences stand in its own table of comparisons.")
    notes += [DIRECTIONS_NOTE, CURVES_NOTE, *([f"Not measured: {'; '.join(unmeasured)}."] if unmeasured else [])]
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
    for heading, pairs in grouped(suite, task).items():
        rows.append(Row((Entry(heading),), "section"))
        for f in pairs:
            c = f.comparison
            lead = (Entry(against(f.pair)), Entry(metric if f.pair.measure == RETRIEVAL else f.pair.measure))
            if c is None:
                rows.append(Row((*lead, Entry(NOT_MEASURED), *[Entry("–")] * 8, Entry(f.verdict), Entry("none"))))
                continue
            several = c.classes > 1
            rows.append(Row((*lead, Entry(signed(c.difference), c.difference, runs=f.runs), Entry(span(c)), _plain(c.effect),
                             Entry(f"{c.share:.0%}" if several else "–"), Entry(f"{c.wins} of {c.seeds}"), _p(c.p_classes),
                             _p(f.p_classes), _p(c.p_seeds if c.seeds > 1 else math.nan), _p(f.p_seeds), Entry(f.verdict),
                             Entry(seeds_text(f)))))
    notes = ((f"First minus second, on the same seeds and classes; {metric}: released rule, real-valued features, unseen "
              "classes, each class the mean of its queries. d_z: mean over standard deviation, over classes, of the "
              "seed-mean differences. Classes "
             "above: classes with a seed-mean difference above 0. Verdicts follow the rule below the table of claims."), INTERVAL,
             ("p: two-sided sign-flip tests; over classes it asks whether these networks differ on other classes, over seeds "
             "whether training again would show it. Without a corrected value: too few seeds to be tested."),
             _family_note(suite, task), DIRECTIONS_NOTE, CURVES_NOTE)
    return Table(f"{task.slug}-comparisons", f"{naming.task_title(task)}: paired comparisons (measured)", columns, tuple(rows),
                 tuple(filter(None, notes)))


def controls(suite: Suite, task: Task) -> Table | None:
    """TCN minus each control, with the distances that the convolutions moved; None if no control was planned or found."""
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
        rows.append(Row((Entry(f"Against {naming.label(first)}"),), "section"))
        for variant in dict.fromkeys((first, *variants)):
            f = by_names.get((first, variant))
            if f is None or (c := f.comparison) is None:
                numbers = [*[Entry("–")] * 5, Entry("–" if f is None else f.verdict)]
            else:
                numbers = [Entry(signed(c.difference), c.difference, runs=f.runs), Entry(span(c)), _plain(c.effect),
                           _p(f.p_classes), _p(f.p_seeds), Entry(f.verdict)]
            rows.append(Row((Entry(naming.label(variant)), _level(suite, task, variant), *numbers,
                             *_moves(suite, task, variant))))
    notes = ((f"{metric}: released rule, real-valued, unseen classes. Differences on common seeds only; – where that is no "
              "question of this table or nothing was measured."),
             ("From start: distance of an encoder's convolutions from their ImageNet start at the end of training, as a "
              "share of the start's norm (root mean square of both encoders, all convolutions as one vector). Apart: "
              "distance between the two encoders over that distance; 0 for one set, about 141% for two that go their own "
              "ways. The tested checkpoint "
             "may be an earlier epoch; means over the seeds that recorded them."),
             "Corrected values, intervals and verdicts as in the table of comparisons.", *evidence.of_controls(suite, task))
    return Table(f"{task.slug}-controls", f"{naming.task_title(task)}: controls that the paper lacks (measured)", columns,
                 tuple(rows), tuple(filter(None, notes)))


def interval_frame(suite: Suite, task: Task) -> pd.DataFrame:
    """The retrieval comparisons that were measured, in table order. Columns: label, difference, low, high, seeds, group."""
    rows = []
    for heading, pairs in grouped(suite, task).items():
        for f in pairs:
            c = f.comparison
            if c is not None and f.pair.measure == RETRIEVAL:
                rows.append((against(f.pair), c.difference, c.interval.low, c.interval.high, c.seeds, heading))
    return pd.DataFrame(rows, columns=["label", "difference", "low", "high", "seeds", "group"])


def _moves(suite: Suite, task: Task, variant: str) -> tuple[Entry, Entry, Entry]:
    """From start, apart, and the seeds of the row."""
    seeds = Entry(seed_names(suite.measure(task, variant, Score(paper.retrieval_metric(task)))) or "none")
    moves = evidence.travelled(suite, task, variant)
    if not moves:
        return Entry("–"), Entry("–"), seeds
    runs = tuple(run for *_, run in moves)
    way, apart = evidence.mean_of(moves, 0), evidence.mean_of(moves, 1)
    return Entry(f"{way:.1%}", way, runs=runs), Entry(f"{apart:.1%}", apart, runs=runs), seeds


def _level(suite: Suite, task: Task, variant: str) -> Entry:
    return measured_entry(suite.measure(task, variant, Score(paper.retrieval_metric(task))))


def _numbers(found: dict[Task, Finding]) -> tuple[Entry, Entry]:
    """Difference with interval, and seeds; several tasks are named."""
    named = {task: f for task, f in found.items() if f.comparison is not None}
    if not named:
        return Entry(NOT_MEASURED), Entry("none")
    texts = [f"{signed(f.measured.difference)} {span(f.measured)}" for f in named.values()]
    seeds = [seeds_text(f) for f in named.values()]
    if len(found) > 1:
        texts, seeds = ([f"{naming.task_title(task)}: {text}" for task, text in zip(named, part)] for part in (texts, seeds))
    runs = tuple(run for f in named.values() for run in f.runs)
    value = next(iter(named.values())).measured.difference if len(named) == 1 else math.nan
    return Entry("; ".join(texts), value, runs=runs), Entry("; ".join(seeds))


def _by_task(states: dict[Task, str]) -> Entry:
    """One word if all tasks have the same state, else the state of each by name; `not measured` without runs on the paper's data
    sets."""
    if not states or set(states.values()) == {MISSING}:
        return Entry(MISSING)
    decided = all(state.startswith((HOLDS, DOES_NOT)) for state in states.values())
    if len(states) == 1:
        return Entry(next(iter(states.values())), strong=decided)
    return Entry("; ".join(f"{naming.task_title(task)}: {state}" for task, state in states.items()), strong=decided)


def _extension(measured: extension.ExtensionRuns, papers: list[Task], laptops: list[Task]) -> list[Row]:
    """The claim of Table 5, judged by the same rule on the extension's own runs; its comparisons are a family of their own."""
    data, steps = (measured.runs[0].data, measured.runs[0].steps) if measured.runs else ("", 0)
    theirs = data == extension.MNIST
    found = []
    for first, second in EXTENSION:
        sides = measured.of(first), measured.of(second)
        common = sorted(set(sides[0]) & set(sides[1]))
        pair = Pair(first, second, "accuracy on target digits")
        ours, rivals = (np.array([[side[seed]] for seed in common]) for side in sides)
        found.append(untested(pair, ours, rivals, common) if common else Finding(pair))
    corrected = holm([f.measured.p_seeds if f.testable else math.nan for f in found])
    found = [judged(replace(f, p_seeds=p)) if f.testable else f for f, p in zip(found, corrected)]

    def states(text: str, state: str) -> list[Entry]:
        laptop = [Entry(MISSING)] * len(laptops)
        if laptop and measured.runs and not theirs:
            told = _on_laptop(text, state)
            laptop[0] = replace(told, text=f"{told.text} ({data}, {steps:,} steps)")
        return [Entry(text, strong=state in (HOLDS, DOES_NOT)) if theirs else Entry(MISSING), *laptop]

    facts = {p.method: p.value for p in published.facts() if p.table == "extension"}
    whole = combined(f.state for f in found)
    rows = [Row((Entry(EXTENSION_CLAIM), Entry("all of these"),
                 *[Entry("")] * bool(papers), *states(whole, whole), Entry(""), Entry("")))]
    for (first, second), f in zip(EXTENSION, found):
        numbers_there = " against ".join(f"{facts[extension.PUBLISHED_NAMES[name]]:.3f}" for name in (first, second))
        numbers = [Entry(MISSING), Entry("none")]
        if f.comparison is not None:
            # an offline task's numbers never stand beside the paper's
            beside = not papers or theirs
            numbers = [Entry(f"{signed(f.comparison.difference)} {span(f.comparison)}", f.comparison.difference) if beside
                       else Entry("see the extension's own table"), Entry(seeds_text(f))]
        rows.append(Row((Entry(""), Entry(f"{EXTENSION_NAMES[first]} against {EXTENSION_NAMES[second]}, accuracy"),
                         *[Entry(numbers_there)] * bool(papers), *states(f.verdict, f.state), *numbers)))
    return rows


def _on_laptop(text: str, state: str) -> Entry:
    return Entry(f"{text}, on this data and budget only" if state == DOES_NOT else text, strong=state in (HOLDS, DOES_NOT))


def _laptop_heading(suite: Suite, task: Task) -> str:
    steps = verdicts.optimiser_steps(suite, task) or "unknown number of"
    where = f"Laptop, {naming.task_title(task).lower()}" if task.dataset in naming.TITLES else naming.task_title(task)
    return f"{where} ({steps} optimiser steps; the paper's: {paper.PAPER_STEPS:,})"


def _published(pair: Pair, tasks: list[Task], group: str) -> str:
    """The paper's two numbers on each of the measured data sets, in the metric that the verdict is about."""
    if pair.read_off:
        return pair.read_off
    if pair.facts is None:
        return "not asked" if group == OURS else "no number at hand"
    found = []
    for task in tasks:
        metric, where = paper.retrieval_metric(task), paper.paper_task(task)
        values = {p.method: p.value for p in published.facts()
                  if p.table == "ablation" and p.metric == metric and Task(p.dataset, p.split) == where}
        if set(pair.facts) <= set(values):
            found.append(f"{naming.task_title(task)}: {values[pair.facts[0]]:.3f} against {values[pair.facts[1]]:.3f} ({metric})")
    return "; ".join(found) or "no number for these data sets"


def _family_note(suite: Suite, task: Task) -> str:
    """A note on the correction: how many comparisons were tested, and how many seeds `significant` would take."""
    tested = {(f.pair.first, f.pair.second, f.pair.measure): f for f in findings(suite, task).values() if f.testable}
    if not tested:
        return (f"{naming.task_title(task)}: no comparison has {verdicts.SIGN_TEST_SEEDS} common seeds, so none was tested "
                "and nothing here is significant.")
    m, seeds = len(tested), min(f.measured.seeds for f in tested.values())
    least = min(1.0, m * best_p(seeds))
    reach = f"above {SIGNIFICANT}, so nothing here could be called significant; that would take {seeds_needed(m)} seeds" \
        if least >= SIGNIFICANT else f"below {SIGNIFICANT}"
    return (f"{naming.task_title(task)}: {counted(m, 'comparison')} could be tested. With {seeds} seeds a sign-flip test over "
            f"seeds reaches p = {best_p(seeds):.3f} at best, Holm-corrected {best_p(seeds):.3f} × {m} = {least:.3f}: {reach}. "
            "“Significant” is printed only "
            f"where the corrected test over seeds is below {SIGNIFICANT} as well.")


def _label(pair: Pair) -> str:
    """The name of a pair, such as `TCN against HWS`, with the number that is compared if it is not retrieval."""
    return against(pair) + ("" if pair.measure == RETRIEVAL else f", {pair.measure}")


def _plain(value: float) -> Entry:
    return Entry("–") if math.isnan(value) else Entry(f"{value:.2f}".replace("-", "−"), value)


def _p(value: float) -> Entry:
    return Entry("–") if math.isnan(value) else Entry("<0.001" if value < 0.001 else f"{value:.3f}", value)
