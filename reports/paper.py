"""What the paper shows and what others published: names, the rows of each table, facts with their sources.

Everything that a table or figure needs to know before it sees a measured number stands here.
"""
from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from reports.results import ReportError, Suite, Task

PUBLISHED_FILE = Path(__file__).with_name("published.csv")
SOURCES = {
    "tcn-table-2": "TCN paper, Table 2 (image on the authors' project page, preprint of April 2021)",
    "tcn-ablation": "TCN paper, ablation table (image on the authors' project page)",
    "tcn-table-5": "TCN paper, Table 5 (image on the authors' project page)",
    "zse-sbir": "ZSE-SBIR (CVPR 2023) project page, comparison table",
    "clip-at": "\"CLIP for all things ZS-SBIR\" (CVPR 2023) project page, comparison table",
}
SHORT_SOURCES = {"tcn-table-2": "TCN paper, Table 2", "tcn-ablation": "TCN paper, ablation",
                 "tcn-table-5": "TCN paper, Table 5", "zse-sbir": "ZSE-SBIR page", "clip-at": "CLIP-AT page"}
PAPER_STEPS = 21_400
"""Optimiser steps of the paper's Sketchy run: 68,401 photos in batches of 32, 10 epochs."""
PAPER_ORDER = ("tcn", "hws", "nws")
PAPER_WEIGHT = 1000.0

LABELS = {
    "tcn": "TCN (soft sharing)",
    "hws": "HWS (hard sharing)",
    "hws-separate": "HWS, separate calls",
    "nws": "NWS (no sharing)",
    "floor-imagenet": "Floor: ImageNet features",
    "floor-imagenet-permodality": "Floor: ImageNet features, per-modality statistics",
    "floor-svd": "Floor: SVD start",
    "floor-svd-permodality": "Floor: SVD start, per-modality statistics",
    "tcn-no-teacher": "TCN without the teacher's loss",
    "tcn-no-semantic": "TCN without the semantic metric",
    "tcn-shared-bn": "TCN with shared batch norm",
}
SHORT_LABELS = {
    "tcn": "TCN", "hws": "HWS", "hws-separate": "HWS, separate calls", "nws": "NWS",
    "floor-imagenet": "ImageNet floor",
    "floor-imagenet-permodality": "ImageNet floor, per modality", "floor-svd": "SVD floor",
    "floor-svd-permodality": "SVD floor, per modality", "tcn-no-teacher": "TCN, no teacher",
    "tcn-no-semantic": "TCN, no semantic", "tcn-shared-bn": "TCN, shared BN",
}
TRAINED = ("tcn", "hws", "nws")
FLOORS = ("floor-imagenet", "floor-imagenet-permodality", "floor-svd", "floor-svd-permodality")
LEAVE_ONE_OUT = ("tcn-no-teacher", "tcn-no-semantic", "tcn-shared-bn")
RULES = ("released", "standard")

TITLES = {"emoji": "Emoji", "sketchy": "Sketchy Extended", "tuberlin": "TU-Berlin Extended",
          "quickdraw": "QuickDraw Extended"}
BACKBONES = {"efficientnet_lite0": "EfficientNet-Lite0", "resnet50": "ResNet-50", "resnet18": "ResNet-18"}
PUBLISHERS = {"all": "all drawings", "openmoji": "OpenMoji black", "emojione-monotone": "EmojiOne monotone",
              "emojione": "EmojiOne monotone", "fluent-emoji-high-contrast": "Fluent high contrast",
              "fluent": "Fluent high contrast"}


@dataclass(frozen=True)
class Published:
    """One published number; `source` is a key of SOURCES."""

    table: str
    method: str
    dimension: str
    features: str
    dataset: str
    split: str
    metric: str
    value: float
    source: str
    note: str


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


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Every published number at hand, none averaged or corrected.

    >>> next(p.value for p in published() if p.method == "TCN" and p.features == "binary" and p.dataset == "quickdraw")
    0.11
    """
    with PUBLISHED_FILE.open(encoding="utf-8", newline="") as stream:
        rows = tuple(Published(**{**row, "value": float(row["value"])}) for row in csv.DictReader(stream))
    unknown = {row.source for row in rows} - set(SOURCES)
    if unknown:
        raise ReportError(f"{PUBLISHED_FILE.name}: no such source: {', '.join(sorted(unknown))}")
    return rows


def contradictions() -> list[tuple[Published, str]]:
    """Published numbers that can't all be right, each with the reason; none of them is dropped or averaged.

    Three kinds: noted by hand; the same cell with two values; mAP@200 above Prec@200 in one row. The last can't
    happen by the rule "divide by min(K, R)" where R >= K, so that row followed other rules than its table says.
    """
    found = [(p, p.note) for p in published() if p.table == "conflict"]
    rows: dict[tuple[str, ...], dict[str, Published]] = {}
    cells: dict[tuple[str, ...], list[Published]] = {}
    for p in published():
        if p.table == "comparison":
            rows.setdefault((p.method, p.dimension, p.features, p.dataset, p.split, p.source), {})[p.metric] = p
            cells.setdefault((p.method, p.dimension, p.features, p.dataset, p.split, p.metric), []).append(p)
    for same in cells.values():
        if len({p.value for p in same}) > 1:
            found += [(p, "other sources give " + ", ".join(f"{q.value:.3f}" for q in same if q is not p)) for p in same]
    for metrics in rows.values():
        if {"mAP@200", "Prec@200"} <= set(metrics) and metrics["mAP@200"].value > metrics["Prec@200"].value:
            found.append((metrics["mAP@200"], (f"above its own Prec@200 of {metrics['Prec@200'].value:.3f}: "
                                              "computed by other rules than the table says")))
    return found


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


def task_title(task: Task) -> str:
    """Name of a task for people.

    >>> task_title(Task("sketchy", "1")), task_title(Task("emoji", "fixed"))
    ('Sketchy Extended, split 1', 'Emoji')
    """
    name = TITLES.get(task.dataset, task.dataset)
    if task.dataset == "sketchy":
        number = re.search(r"\d+", task.split)
        return f"{name}, split {number[0]}" if number and number[0] in "12" else f"{name}, {task.split}"
    return name if task.dataset in TITLES else f"{name}, {task.split}"


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


def label(variant: str) -> str:
    """Long name of a variant; an unknown one keeps its own.

    >>> label("tcn-weight-10"), label("something")
    ('TCN, sharing weight 10', 'something')
    """
    weight = grid_weight(variant)
    if weight is not None:
        return f"TCN, sharing weight {weight:g}"
    return LABELS.get(variant, variant)


def short_label(variant: str) -> str:
    """Name of a variant for legends."""
    weight = grid_weight(variant)
    return f"TCN, weight {weight:g}" if weight is not None else SHORT_LABELS.get(variant, variant)


def grid_weight(variant: str) -> float | None:
    """Sharing weight of a row of the weight grid, None for every other variant.

    >>> grid_weight("tcn-weight-0.1"), grid_weight("tcn")
    (0.1, None)
    """
    match = re.fullmatch(r"tcn-weight-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", variant)
    return float(match[1]) if match else None


def is_tcn(variant: str) -> bool:
    """True for TCN itself at any feature length (`tcn`, `tcn-512`), not for its ablations."""
    return re.fullmatch(r"tcn(-(dim-?)?\d+d?)?", variant) is not None


def main_variants(suite: Suite, task: Task) -> list[str]:
    """Rows of the comparison table: TCN, HWS, NWS (always), other lengths of TCN, then the floors at hand."""
    there = suite.variants(task)
    more = [v for v in there if is_tcn(v) and v != "tcn"]
    return ["tcn", *more, "hws", "nws", *(v for v in FLOORS if v in there),
            *(v for v in there if v.startswith("floor-") and v not in FLOORS)]


def other_variants(suite: Suite, task: Task) -> list[str]:
    """Whatever no named table holds: shown under its own heading rather than dropped."""
    named = {*main_variants(suite, task), "hws-separate", *LEAVE_ONE_OUT, *(row.variant for row in ABLATION)}
    return [v for v in suite.variants(task) if v not in named and grid_weight(v) is None]


def publisher(source: str) -> str:
    """Name of a publisher of drawings for people."""
    return PUBLISHERS.get(source, source)
