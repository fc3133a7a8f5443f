"""What each of the paper's tables and figures needs: its rows, data sets, metrics, and the variants that stand for them here.

Everything that a table or figure has to know before it sees a measured number, and which of the runs at hand it asks for.
"""
from __future__ import annotations

import math
import re
from dataclasses import dataclass

from reports.naming import FROZEN_ROWS, MARKED, dimension_in_name, weight_in_name
from reports.read.runs import setting
from reports.read.schema import Task
from reports.read.suite import Suite

PAPER_STEPS = 21_400
"""Optimiser steps of the paper's Sketchy run: 68,401 photos in batches of 32, 10 epochs."""
PAPER_ORDER = ("tcn", "hws", "nws")
PAPER_WEIGHT = 1000.0
TRAINED = ("tcn", "hws", "nws")
UNTRAINED_BASELINES = ("untrained-imagenet", "untrained-imagenet-permodality", "untrained-svd", "untrained-svd-permodality")
LEAVE_ONE_OUT = ("tcn-no-teacher", "tcn-no-semantic", "tcn-shared-bn")
COUPLING = ("nws", "couple-stem", "couple-stage1", "couple-stage2", "couple-stage3", "tcn", "couple-norms", "tcn-shared-bn",
            "hws-separate", "hws")
"""From nothing coupled to everything: the paper's general criterion."""
COUPLING_BESIDE = ("tcn-own-embedding",)
COUPLED_PARTS = {"stem": "stem", "stage1": "stage 1", "stage2": "stage 2", "stage3": "stage 3", "stage4": "stage 4",
                 "batch_norm_affine": "BN scale, shift", "batch_norm_statistics": "BN statistics", "embedding": "embedding",
                 "call": "calls"}
"""Setting below `coupling.` -> heading of its column."""
METHODS = ("class-only", "siamese", "triplet", "teacher-pca", "sake")
UNTRAINED = (*UNTRAINED_BASELINES, "teacher-pca")
"""Rows without training."""
CONTROLS = ("frozen-conv", "hard-conv", "l2-sp", "l2-sp-weight-1000", "squared", "hws-slow", "hard-conv-slow")
"""Controls that the paper lacks; the weights 10 and 1000 of the grid belong to the same question."""
CONTROL_WEIGHTS = (10.0, 1000.0)
WEIGHTS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""The paper's grid of sharing weights; 0.1 is shown where it was run."""
DIMENSIONS = (32, 64, 128, 256, 512)
MAIN_DIMENSION, WIDE_DIMENSION = 64, 512
RULES = ("released", "standard")
PROTOCOLS = {
    "released": "TCN, SAKE, DSN", "cvpr19": "TCN's other flag, Doodle2Search", "zse": "ZSE-SBIR and its descendants",
    "sem-pcyc": "SEM-PCYC", "cvae": "CVAE, J. Li's ZS-SBIR", "standard": "what a statistician would expect",
}
"""Rule -> whose code computes so, in the order of the table of rules."""
NOT_DEFINED = {("cvpr19", "mAP@all")}
"""(rule, metric) that the rule's code has no such number for."""


@dataclass(frozen=True)
class AblationRow:
    """A row of the paper's ablation table: how the paper names it, and which variant here stands for it."""

    group: str
    label: str
    variant: str
    method: str
    """Its name in published.csv."""


ABLATION = (
    AblationRow("Weight sharing", "without (NWS)", "nws", "weight sharing: without"),
    AblationRow("Weight sharing", "hard 0.1:1", "hws-0.1-1", "weight sharing: hard 0.1:1"),
    AblationRow("Weight sharing", "hard 1:1 (HWS)", "hws", "weight sharing: hard 1:1"),
    AblationRow("Weight sharing", "hard 10:1", "hws-10-1", "weight sharing: hard 10:1"),
    AblationRow("Weight sharing", "soft (TCN)", "tcn", "weight sharing: soft"),
    AblationRow("Semantic metric", "without", "tcn-no-semantic", "semantic metric: without"),
    AblationRow("Semantic metric", "BHT", "tcn-bht", "semantic metric: BHT"),
    AblationRow("Semantic metric", "BHT+SR 1:0.1", "tcn-bht-sr-0.1", "semantic metric: BHT+SR 1:0.1"),
    AblationRow("Semantic metric", "BHT+SR 1:1", "tcn-bht-sr-1", "semantic metric: BHT+SR 1:1"),
    AblationRow("Semantic metric", "BHT+SR 1:10", "tcn-bht-sr-10", "semantic metric: BHT+SR 1:10"),
    AblationRow("Semantic metric", "SBHT (TCN)", "tcn", "semantic metric: SBHT"),
    AblationRow("Teacher", "without", "tcn-no-teacher", "teacher: without"),
    AblationRow("Teacher", "with (TCN)", "tcn", "teacher: with"),
)
"""The paper's 13 rows. The ratio a:b of the hard rows is not explained where we could read it; our reading: a weighs the
class loss of the sketches, b that of the photos."""
COMPARISON_COLUMNS = (
    (Task("tuberlin", "220/30"), "mAP@all"), (Task("tuberlin", "220/30"), "Prec@100"),
    (Task("sketchy", "100/25"), "mAP@all"), (Task("sketchy", "100/25"), "Prec@100"),
    (Task("sketchy", "104/21"), "mAP@200"), (Task("sketchy", "104/21"), "Prec@200"),
    (Task("quickdraw", "80/30"), "mAP@all"), (Task("quickdraw", "80/30"), "Prec@100"),
    (Task("quickdraw", "80/30"), "Prec@200"),
)
"""The paper's Table 2; the last column is not the paper's, but later papers report it for QuickDraw."""
COMPARISON_ROWS = ((512, "real"), (64, "binary"))
"""Feature length and kind of the paper's own two rows in Table 2."""
GROUPS = (
    ("main", "Comparison: TCN, HWS, NWS", PAPER_ORDER),
    ("untrained", "Untrained baselines", UNTRAINED_BASELINES),
    ("ablation", "Ablation", tuple(dict.fromkeys(row.variant for row in ABLATION))),
    ("dimensions", "Dimensions", ()),
    ("weights", "Sharing weight", ()),
    ("coupling", "What is coupled", (*COUPLING, *COUPLING_BESIDE)),
    ("methods", "Other methods", METHODS),
    ("controls", "Controls", CONTROLS),
    ("ledger", "Ledger", ()),
    ("", "Further variants", ()),
)
"""(name on the command line, name for people, variants): a variant belongs to the first group that holds it."""


def is_paper(task: Task) -> bool:
    """True for the paper's own three data sets; all else is a laptop task and meets no published number."""
    return task.dataset in {"sketchy", "tuberlin", "quickdraw"}


def paper_task(task: Task) -> Task | None:
    """The task as published.csv names it, or None where the paper has no such split.

    >>> paper_task(Task("sketchy", "2")), paper_task(Task("emoji", "fixed"))
    (Task(dataset='sketchy', split='104/21'), None)
    """
    if task.dataset == "tuberlin":
        return Task("tuberlin", "220/30")
    if task.dataset == "quickdraw":
        return Task("quickdraw", "80/30")
    if task.dataset == "sketchy":
        number = re.search(r"\d+", task.split)
        return {"1": Task("sketchy", "100/25"), "100": Task("sketchy", "100/25"),
                "2": Task("sketchy", "104/21"), "104": Task("sketchy", "104/21")}.get(number[0] if number else "")
    return None


def headline(task: Task) -> tuple[str, ...]:
    """Metrics that head a task's tables. On emoji a class has 4 or 5 photos, so Prec@100 says little there."""
    if paper_task(task) == Task("sketchy", "104/21"):
        return ("mAP@200", "Prec@200")
    return ("mAP@all", "Prec@100") if is_paper(task) else ("mAP@all", "Prec@R", "Prec@5")


def retrieval_metric(task: Task) -> str:
    """The one mAP that heads a task."""
    return headline(task)[0]


def secondary(task: Task) -> tuple[str, ...]:
    """The remaining metrics, for the table of cut-offs."""
    return tuple(m for m in ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5") if m not in headline(task))


def weight_of(suite: Suite, task: Task, variant: str) -> float | None:
    """Sharing weight of a row of the weight grid: as its runs recorded it, else as its name says. None for other variants."""
    named = weight_in_name(variant)
    return None if named is None else _recorded_weight(suite, task, variant, named)


def own_weight(suite: Suite, task: Task) -> float:
    """Sharing weight that `tcn` itself was run with; NaN where no finished run tells."""
    return _recorded_weight(suite, task, "tcn", math.nan)


def _recorded_weight(suite: Suite, task: Task, variant: str, unknown: float) -> float:
    return next((float(setting(run.config, "losses.sharing", unknown)) for run in suite.runs_of(task, variant)), unknown)


def at_weight(suite: Suite, task: Task, weight: float) -> str:
    """Variant that stands for TCN at a sharing weight: its row of the grid, or `tcn` where that is its own weight."""
    found = next((v for v in suite.variants(task) if weight_of(suite, task, v) == weight), "")
    if not suite.runs_of(task, found) and own_weight(suite, task) == weight:
        return "tcn"
    name = f"tcn-weight-{weight:g}"
    # a row of that name which recorded another weight is not meant
    return found or (name if weight_of(suite, task, name) == weight else f"tcn-weight-{weight:e}")


def weights(suite: Suite, task: Task) -> list[tuple[float, str]]:
    """(weight, variant) of the grid's rows in order: the paper's weights, and others where they were planned or run."""
    found = {w for v in suite.variants(task) if (w := weight_of(suite, task, v)) is not None} | {own_weight(suite, task)}
    return [(w, at_weight(suite, task, w)) for w in sorted({*WEIGHTS, *(w for w in found if w > 0)})]


def dimension_of(suite: Suite, task: Task, variant: str) -> int | None:
    """Feature length of a TCN of another length: as its runs recorded it, else as its name says. None for other variants."""
    named = dimension_in_name(variant)
    return None if named is None else suite.dim(task, variant) or named


def at_dimension(suite: Suite, task: Task, dimension: int) -> str:
    """Variant that stands for TCN at a feature length: `tcn` where its runs have it, else the row of that length."""
    own = suite.dim(task, "tcn")
    if own == dimension or own is None and dimension == MAIN_DIMENSION:
        return "tcn"
    found = next((v for v in suite.variants(task) if dimension_of(suite, task, v) == dimension), "")
    name = f"tcn-dim-{dimension}"
    return found or (name if dimension_of(suite, task, name) == dimension else f"tcn-{dimension}d")


def dimensions(suite: Suite, task: Task) -> list[tuple[int, str]]:
    """(length, variant) in order: the paper's lengths, and others where they were planned or run."""
    found = {d for v in suite.variants(task) if (d := dimension_of(suite, task, v)) is not None}
    own = suite.dim(task, "tcn") or MAIN_DIMENSION
    wanted = {d for d in DIMENSIONS if d != MAIN_DIMENSION} | found | {own}
    return [(d, at_dimension(suite, task, d)) for d in sorted(wanted)]


def is_untrained(variant: str) -> bool:
    """Whether a row is an untrained baseline: one of this project, or by the first word of its name.
    `floor` is the earlier word."""
    return variant in UNTRAINED or variant in FROZEN_ROWS or variant.startswith(("untrained-", "floor-"))


def group_of(suite: Suite, variant: str) -> str:
    """Group of a variant, `` for one that no table names."""
    if is_untrained(variant) and variant not in METHODS:
        return "untrained"
    if variant.startswith(MARKED):
        return "brought"
    if weight_in_name(variant) is not None:
        return "weights"
    if dimension_in_name(variant) is not None:
        return "dimensions"
    named = next((name for name, _, variants in GROUPS if variant in variants), "")
    return named or ("ledger" if is_ledger(suite, variant) else "")


def is_ledger(suite: Suite, variant: str) -> bool:
    """True for a variant that is there to measure one deviation of the ledger: it belongs to the ledger's table alone."""
    if variant.startswith("ledger-") or variant.endswith("-as-released"):
        return True
    named = any(variant in variants for _, _, variants in GROUPS)
    return not named and any(variant in deviation.arms.values() for deviation in suite.deviations)


def is_tcn(variant: str) -> bool:
    """True for TCN itself at any feature length (`tcn`, `tcn-dim-512`), not for its ablations."""
    return variant == "tcn" or dimension_in_name(variant) is not None


def main_variants(suite: Suite, task: Task) -> list[str]:
    """Rows of the comparison table: TCN, HWS, NWS (always), TCN at 512 dimensions where more than a plain call was asked for,
    untrained baselines at hand, features brought along and runs that were sent."""
    there = suite.variants(task)
    wide = [v for v in there if dimension_of(suite, task, v) == WIDE_DIMENSION]
    if not wide and any(group_of(suite, v) not in ("main", "untrained", "ledger", "brought", "") for v in there):
        wide = [f"tcn-dim-{WIDE_DIMENSION}"]
    return ["tcn", *wide, "hws", "nws", *(v for v in UNTRAINED_BASELINES if v in there),
            *(v for v in there if is_untrained(v) and v not in UNTRAINED), *brought(suite, task)]


def brought(suite: Suite, task: Task) -> list[str]:
    """Features made elsewhere and runs that were sent, by name."""
    return [v for v in suite.variants(task) if v.startswith(MARKED)]


def other_variants(suite: Suite, task: Task) -> list[str]:
    """Whatever no named table holds: shown under its own heading rather than dropped."""
    return [v for v in suite.variants(task) if not group_of(suite, v)]
