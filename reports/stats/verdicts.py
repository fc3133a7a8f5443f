"""Sentences that follow from the numbers: does training beat the untrained baselines, and which sharing wins.

A verdict never says more than its seeds can: one seed gives an order, not a finding.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from reports import naming, paper
from reports.read.measured import Measured
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.stats.uncertainty import half_width
from reports.wording import listed

SIGN_TEST_SEEDS = 6
"""Fewest seeds at which a two-sided sign test over seeds can fall below 0.05 (2 / 2^6 = 0.031)."""


@dataclass(frozen=True)
class Verdict:
    """An answer to one question."""

    question: str
    state: Literal["yes", "no", "open", "missing"]
    """`yes`, `no`, `open` (can't be told) or `missing` (not measured)."""
    answer: str
    details: tuple[str, ...] = ()


def beats_untrained(suite: Suite, task: Task) -> Verdict:
    """Whether a trained variant beats the best untrained baseline of the same feature length on the validation classes, by more
    than the 95 % interval over its seeds, where it has more than one."""
    question = "Does training beat the best untrained baseline of the same dimension, on the validation classes?"
    score = Score(paper.retrieval_metric(task), classes="validation")
    # The weight grid and the ablations are left out, since taking the best of many trained rows would favour training.
    rows = dict.fromkeys([*(v for v in paper.main_variants(suite, task) if v not in paper.brought(suite, task)),
                          *paper.UNTRAINED])
    measured = {v: m for v in rows if (m := suite.measure(task, v, score)).n}
    untrained_rows = {v: m for v, m in measured.items() if paper.is_untrained(v)}
    trained = {v: m for v, m in measured.items() if v not in untrained_rows}
    if not any(score.classes == "validation" for score in suite.scores(task)) and suite.scores(task):
        return Verdict(question, "open", "It can't be told: these results hold no validation classes. On unseen classes the "
                                         "table shows trained variants and untrained baselines side by side.")
    if not trained:
        return Verdict(question, "missing", "Not measured: no trained variant has a finished run scored on "
                                            "validation classes.")
    details, wins, compared = [], [], []
    for variant in sorted(trained, key=lambda v: -trained[v].mean):
        m, dim = trained[variant], suite.dim(task, variant)
        rivals = {v: f for v, f in untrained_rows.items() if suite.dim(task, v) == dim is not None}
        name = f"{naming.short_label(variant)} ({dim or '?'}-d)"
        if not rivals:
            details.append(f"{name}: {_number(m)}; no untrained baseline of this dimension was measured, so this can't be told.")
            continue
        best = max(rivals, key=lambda v: rivals[v].mean)
        gap, half = m.mean - rivals[best].mean, half_width(list(m.values.values()))
        compared.append(variant)
        if gap > (0 if m.n == 1 else half):
            wins.append(variant)
        above = sum(value > rivals[best].mean for value in m.values.values())
        how = "not above" if gap <= 0 else "above" if variant in wins else "above, but by less than its interval,"
        details.append(f"{name}: {_number(m)} against {_number(rivals[best])} of “{naming.short_label(best)}”: {how} "
                       f"({gap:+.3f}{f' ± {half:.3f}, 95 % over seeds' if m.n > 1 else ''}; {above} of {m.n} "
                       f"seed{'s' * (m.n > 1)} above the untrained baseline).")
    if untrained_rows:
        top = max(untrained_rows, key=lambda v: untrained_rows[v].mean)
        details.append(f"Best untrained baseline of any dimension: “{naming.short_label(top)}” "
                       f"({suite.dim(task, top) or '?'}-d), {_number(untrained_rows[top])}.")
    if not compared:
        return Verdict(question, "open", "It can't be told: no untrained baseline of the same dimension was measured.",
                       tuple(details))
    if not wins:
        return Verdict(question, "no", "No. No trained variant beats the best untrained baseline of the same dimension on the "
                                       f"validation classes ({score.metric}) by more than its interval.", tuple(details))
    best = max(wins, key=lambda v: trained[v].mean)
    names = listed([naming.short_label(v) for v in wins])
    short = [naming.short_label(v) for v in compared if v not in wins]
    rest = f" {listed(short)} {'do' if len(short) > 1 else 'does'} not." if short else ""
    seed = " One seed each can't tell how sure that is." if max(trained[v].n for v in wins) == 1 else ""
    return Verdict(question, "yes", f"Yes: {names} {'do' if len(wins) > 1 else 'does'}, "
                                    f"{naming.short_label(best)} by most ({trained[best].mean:.3f}, "
                                    f"{score.metric}){'' if seed else ', by more than the interval over seeds'}.{rest}{seed}",
                   tuple(details))


def sharing_order(suite: Suite, task: Task) -> Verdict:
    """The measured order of soft, hard and no sharing on unseen classes beside the paper's."""
    question = "Which weight sharing retrieves unseen classes best? (The paper: soft > hard > none.)"
    score = Score(paper.retrieval_metric(task))
    all_three = {v: suite.measure(task, v, score) for v in paper.PAPER_ORDER}
    measured = {v: m for v, m in all_three.items() if m.n}
    details = [f"{naming.short_label(v)}: {_number(m) if m.n else 'not measured'}" for v, m in all_three.items()]
    if len(measured) < 3:
        absent = listed([naming.short_label(v) for v in all_three if v not in measured])
        return Verdict(question, "missing", f"Not measured: {absent} {'have' if 3 - len(measured) > 1 else 'has'} "
                                            "no finished run.", tuple(details))
    order = sorted(measured, key=lambda v: -measured[v].mean)
    shown = " > ".join(f"{naming.short_label(v)} {measured[v].mean:.3f}" for v in order)
    same = tuple(order) == paper.PAPER_ORDER
    common = sorted(set.intersection(*(set(m.values) for m in measured.values())))
    for first, second in combinations(order, 2):
        wins = sum(measured[first].values[s] > measured[second].values[s] for s in common)
        details.append(f"{naming.short_label(first)} above {naming.short_label(second)} in {wins} of {len(common)} "
                       f"common seed{'s' * (len(common) != 1)}, by {measured[first].mean - measured[second].mean:.3f} "
                       "on average.")
    agreement = "the paper's order" if same else "not the paper's order"
    if len(common) < 2:
        seeds = "Measured with one seed" if common and max(m.n for m in measured.values()) == 1 else \
            f"Measured with {'only one seed' if common else 'no seed'} common to the three"
        return Verdict(question, "open", f"{seeds}: {shown}; {agreement}. One seed can't tell an order from chance.",
                       tuple(details))
    steady = sum(sorted(measured, key=lambda v: -measured[v].values[s]) == order for s in common)
    caution = "" if len(common) >= SIGN_TEST_SEEDS else \
        f" With {len(common)} seeds no two-sided sign test can fall below p = 0.05, so this describes these runs."
    return Verdict(question, "yes" if same else "no",
                   f"Measured: {shown}: {agreement}; the same order in {steady} of {len(common)} seeds.{caution}",
                   tuple(details))


def optimiser_steps(suite: Suite, task: Task) -> str:
    """Optimiser steps of the main trained rows, such as `408` or `390 to 408`; empty if none is known."""
    steps = {steps for v in paper.main_variants(suite, task) for run in suite.runs_of(task, v)
             if run.trained and (steps := run.provenance.optimizer_steps)}
    if not steps:
        return ""
    return f"{min(steps):,}" if len(steps) == 1 else f"{min(steps):,} to {max(steps):,}"


def unequal_training(suite: Suite, task: Task) -> list[str]:
    """Sentences on differences between rows that readers would compare: data, budget, encoder, selection."""
    runs = [run for v in paper.main_variants(suite, task) for run in suite.runs_of(task, v)]
    sentences = []
    for name, key in (("data", "data_digest"), ("split", "split_digest"), ("commit", "commit")):
        if len({getattr(run.provenance, key) for run in runs}) > 1:
            sentences.append(f"Not all rows of this task are of the same {name}: "
                             f"{_by_value(runs, [getattr(c.provenance, key)[:8] or 'unknown' for c in runs])}.")
    trained = [run for run in runs if run.trained]
    for key in ("training.epochs", "training.encoder_rate", "training.head_rate", "training.select_by",
                "data.image_size", "data.batch_pairs", "network.backbone"):
        if len({str(setting(run.config, key)) for run in trained}) > 1:
            sentences.append(f"Not all trained rows have the same {key}: "
                             f"{_by_value(trained, [str(setting(c.config, key)) for c in trained])}.")
    dirty = sorted({naming.short_label(c.variant) for c in runs if c.provenance.dirty})
    if dirty:
        sentences.append(f"Run from a working tree with uncommitted changes: {listed(dirty)}.")
    return sentences


def _by_value(runs: list[FinishedRun], values: list[str]) -> str:
    """Each value with the variants of the runs that have it; `values` are those of `runs`, in their order."""
    groups: dict[str, set[str]] = {}
    for run, value in zip(runs, values):
        groups.setdefault(value, set()).add(naming.short_label(run.variant))
    return "; ".join(f"{value}: {', '.join(sorted(names))}" for value, names in groups.items())


def _number(measured: Measured) -> str:
    seeds = measured.seeds if measured.seeds.endswith("seed") else f"{measured.seeds} seeds"
    return f"{measured.text()} ({seeds})"
