"""The paper's claims as pairs of variants, compared on a task's runs and judged by one rule.

In: a checked suite. Out: findings, one per pair, with their state: holds, does not, cannot be told, not measured. One seed never
decides. Paper: ablation table, motivation figure, singular values.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from reports import paper
from reports.read.measured import NOT_MEASURED
from reports.read.runs import FinishedRun, Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.stats import verdicts
from reports.stats.uncertainty import Comparison, compare, holm
from reports.wording import counted

HOLDS, DOES_NOT, OPEN, MISSING = "holds", "does not", "cannot be told", NOT_MEASURED
SIGNIFICANT = 0.05
LAST_EPOCHS = 3
"""Number of epochs at the end of training whose mean is taken as the end of a curve."""
TOP_VALUES = 30
"""Number of singular values that the paper's figure shows."""
RETRIEVAL, CLASS_LOSS, SEEN_ACCURACY, DIRECTIONS = "retrieval", "class loss", "seen-class accuracy", "relative singular value"
PAPERS, OURS = "Claims of the paper", "Our question, not the paper's"
FURTHER = "Further variants against TCN, a family of its own"


@dataclass(frozen=True)
class Pair:
    """Two variants of which the first is claimed to have the higher number."""

    first: str
    second: str
    measure: str = RETRIEVAL
    facts: tuple[str, str] | None = None
    """Their names in published.csv, where the paper gives both numbers."""
    read_off: str = ""
    """Values read from the paper's figure, if it has no table of them."""


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
    """The result of comparing one pair on a task's runs."""

    pair: Pair
    comparison: Comparison | None = None
    """None if no seed has both sides."""
    seeds: tuple[int, ...] = ()
    runs: tuple[FinishedRun, ...] = ()
    state: str = MISSING
    why: str = ""
    dropped: int = 0
    """Number of classes that are left out because not all of these runs have them."""
    p_seeds: float = math.nan
    """Holm-corrected over all pairs of the task that could be tested; likewise `p_classes`."""
    p_classes: float = math.nan

    @property
    def measured(self) -> Comparison:
        """The comparison. ValueError for a pair that was not measured."""
        if self.comparison is None:
            raise ValueError(f"{self.pair.first} against {self.pair.second} was not measured")
        return self.comparison

    @property
    def testable(self) -> bool:
        """Whether it has enough common seeds for a sign-flip test over them."""
        return self.comparison is not None and self.comparison.seeds >= verdicts.SIGN_TEST_SEEDS

    @property
    def significant(self) -> bool:
        """Whether the corrected test over seeds and, where there are classes, the one over classes is below SIGNIFICANT."""
        return self.p_seeds < SIGNIFICANT and (math.isnan(self.p_classes) or self.p_classes < SIGNIFICANT)

    @property
    def verdict(self) -> str:
        """The state, with its reason or with the word significant."""
        return self.state + (f": {self.why}" if self.why else " (significant)" if self.significant and self.state != OPEN else "")


@dataclass(frozen=True)
class ClaimRow:
    """A claim with its findings on each task of the suite."""

    claim: Claim
    found: dict[Task, tuple[Finding, ...]]

    def state(self, task: Task) -> str:
        """The state of all its pairs together: it holds if all do, and does not if one does not."""
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
RULE = (
    f"Rule. Fewer than {verdicts.SIGN_TEST_SEEDS} common seeds: cannot be told. Else it holds where three things agree with the "
    "claim, does not where all three point the other way, and cannot be told otherwise: the sign-flip test over classes of the "
    f"seed-mean differences, Holm-corrected over all comparisons that could be tested, is below {SIGNIFICANT}; the sign-flip "
    f"test over seeds is at most {SIGNIFICANT}; the interval over classes and seeds leaves out 0. Curves and singular values "
    "have no classes: there the last two decide. A claim of several comparisons holds if all do, and does not if one does not.")


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
    """Every claim with its findings on each task. The extension's claim belongs to no task; `tables.claims` adds it."""
    measured = {task: findings(suite, task) for task in suite.tasks()}
    return [ClaimRow(claim, {task: tuple(found[pair] for pair in claim.pairs) for task, found in measured.items()})
            for claim in CLAIMS]


def findings(suite: Suite, task: Task) -> dict[Pair, Finding]:
    """Every pair behind the claims, compared on the task's runs and judged by RULE."""
    # A pair that belongs to two claims is tested once.
    if ("findings", task) in suite.memory:
        return suite.memory["findings", task]
    distinct: dict[tuple[str, str, str], Finding] = {}
    keys: dict[Pair, tuple[str, str, str]] = {}
    for pair in (pair for claim in CLAIMS for pair in claim.pairs):
        there = _resolved(suite, task, pair)
        keys[pair] = there.first, there.second, there.measure
        if keys[pair] not in distinct:
            distinct[keys[pair]] = _compared(suite, task, there)
    distinct = dict(zip(distinct, _family(list(distinct.values()))))
    suite.memory["findings", task] = {
        pair: replace(distinct[key], pair=replace(distinct[key].pair, facts=pair.facts, read_off=pair.read_off))
        for pair, key in keys.items()}
    return suite.memory["findings", task]


def _family(found: list[Finding]) -> list[Finding]:
    """The same comparisons. Those that could be tested are judged, with both tests corrected over all of them (Holm)."""
    tested = [i for i, f in enumerate(found) if f.testable]
    by_classes, by_seeds = (holm([getattr(found[i].measured, name) for i in tested]) for name in ("p_classes", "p_seeds"))
    corrected = {i: judged(replace(found[i], p_classes=p_classes, p_seeds=p_seeds))
                 for i, p_classes, p_seeds in zip(tested, by_classes, by_seeds)}
    return [corrected.get(i, f) for i, f in enumerate(found)]


def further(suite: Suite, task: Task) -> list[Finding]:
    """Each variant that belongs to no claim and no named table, such as a user's own method, against TCN on the same seeds and
    classes. These comparisons are corrected as a family of their own, so that their number changes no verdict on a claim."""
    if ("further", task) not in suite.memory:
        suite.memory["further", task] = _family([_compared(suite, task, Pair(variant, "tcn"))
                                                 for variant in paper.other_variants(suite, task)])
    return suite.memory["further", task]


def grouped(suite: Suite, task: Task) -> dict[str, list[Finding]]:
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
    own = further(suite, task)
    return groups | {FURTHER: own} if own else groups


def _resolved(suite: Suite, task: Task, pair: Pair) -> Pair:
    """The pair, with the variants that stand for the paper's weight replaced if that weight is TCN's own."""
    own = paper.own_weight(suite, task) == paper.PAPER_WEIGHT
    names = {"tcn-weight-1000": paper.at_weight(suite, task, paper.PAPER_WEIGHT)}
    if own and not suite.runs_of(task, "l2-sp-weight-1000"):
        names["l2-sp-weight-1000"] = "l2-sp"
    return replace(pair, first=names.get(pair.first, pair.first), second=names.get(pair.second, pair.second), facts=None,
                   read_off="")


def _compared(suite: Suite, task: Task, pair: Pair) -> Finding:
    """The comparison itself, before the correction for all others; what is missing is named."""
    sides = [_values(suite, task, variant, pair.measure) for variant in (pair.first, pair.second)]
    common = sorted(set(sides[0]) & set(sides[1]))
    if not common:
        return Finding(pair, why="no common seed" if all(sides) else "")
    # Classes that a seed of either side lacks can't be paired.
    indices = [set(side[seed].index) for side in sides for seed in common]
    classes = sorted(set.intersection(*indices))
    first, second = (np.array([side[seed].reindex(classes) for seed in common], dtype=np.float64) for side in sides)
    if not classes:
        return Finding(pair, why="no common class")
    runs = tuple(c for v in (pair.first, pair.second) for c in suite.runs_of(task, v) if c.seed in common)
    return replace(untested(pair, first, second, common), runs=runs, dropped=len(set.union(*indices)) - len(classes))


def untested(pair: Pair, first: np.ndarray, second: np.ndarray, common: list[int]) -> Finding:
    """A comparison before it is judged: it cannot be told, and `why` says in how many seeds the first side is above."""
    c = compare(first, second)
    return Finding(pair, c, tuple(common), state=OPEN, why=f"above in {c.wins} of {counted(c.seeds, 'seed')}")


def judged(found: Finding) -> Finding:
    """The finding with the state that RULE gives it; for a comparison with enough seeds."""
    c = found.measured
    if found.pair.measure == RETRIEVAL and math.isnan(c.p_classes):
        return replace(found, why=f"{found.why}; no values per class")
    by_classes = found.p_classes < SIGNIFICANT or found.pair.measure != RETRIEVAL
    if by_classes and c.p_seeds <= SIGNIFICANT and c.interval.excludes_zero:
        return replace(found, state=HOLDS if c.difference > 0 else DOES_NOT, why="")
    return found


def _values(suite: Suite, task: Task, variant: str, measure: str) -> dict[int, pd.Series]:
    """Seed -> class -> value. A number without classes, or without stored values per class, has one class `all`."""
    found: dict[int, pd.Series] = {}
    for run in suite.runs_of(task, variant):
        if measure == RETRIEVAL:
            score = Score(paper.retrieval_metric(task))
            values = suite.per_class(run, score)
            number = suite.value(run, score)
            if values is None and number is not None:
                values = pd.Series({"all": number})
        else:
            number = _curve_end(suite, run, measure) if measure in (CLASS_LOSS, SEEN_ACCURACY) else _directions(suite, run)
            values = None if number is None or math.isnan(number) else pd.Series({"all": number})
        if values is not None:
            found[run.seed] = values
    return found


def _curve_end(suite: Suite, run: FinishedRun, measure: str) -> float | None:
    """Mean over the last epochs of the class loss (of sketches and photos) or of the accuracy on held-out seen sketches."""
    history = suite.frame(run, "history.csv") if run.trained else None
    if history is None:
        return None
    last = history[history["epoch"] > 0].sort_values("epoch").tail(LAST_EPOCHS)
    columns = ["class_sketch", "class_photo"] if measure == CLASS_LOSS else ["seen_accuracy"]
    return float(last[columns].to_numpy().mean()) if len(last) else None


def _directions(suite: Suite, run: FinishedRun) -> float | None:
    """Mean of the top singular values of unseen features over the largest, averaged over photos and sketches."""
    frame = suite.frame(run, "singular_values.csv")
    if frame is None:
        return None
    parts = [part.nlargest(TOP_VALUES) for _, part in frame[frame["set"] == "unseen"].groupby("modality")["value"]]
    shares = [float(part.mean() / part.max()) for part in parts if part.max() > 0]
    return statistics.fmean(shares) if len(shares) == 2 else None
