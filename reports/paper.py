"""What the paper shows and what others published: names, the rows of each table, facts with their sources.

Everything that a table or figure needs to know before it sees a measured number stands here.
"""
from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reports.read.cells import setting
from reports.read.escaping import shortened
from reports.read.files import ReportError
from reports.read.schema import Task
from reports.read.suite import Suite

PUBLISHED_FILE = Path(__file__).with_name("published.csv")
PUBLISHED_COLUMNS = ("method", "dimension", "features", "dataset", "split", "metric", "value", "source")
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
    "tcn-own-embedding": "TCN, two embedding networks",
    "hws-0.1-1": "HWS, class losses 0.1:1",
    "hws-10-1": "HWS, class losses 10:1",
    "tcn-bht": "TCN, BHT in place of the semantic metric",
    "tcn-bht-sr-0.1": "TCN, BHT+SR 1:0.1",
    "tcn-bht-sr-1": "TCN, BHT+SR 1:1",
    "tcn-bht-sr-10": "TCN, BHT+SR 1:10",
    "couple-stem": "Soft: stem",
    "couple-stage1": "Soft: stem and stage 1",
    "couple-stage2": "Soft: stem to stage 2",
    "couple-stage3": "Soft: stem to stage 3",
    "couple-norms": "Soft: convolutions, batch-norm scale and shift",
    "class-only": "Class loss alone",
    "siamese": "Siamese, contrastive",
    "triplet": "Batch-hard triplets across modalities",
    "teacher-pca": "Frozen teacher, PCA",
    "sake": "SAKE's idea",
    "frozen-conv": "Frozen convolutions, independent batch norms",
    "hard-conv": "Hard-shared convolutions, independent batch norms",
    "l2-sp": "Tied to the ImageNet start",
    "l2-sp-weight-1000": "Tied to the ImageNet start, weight 1000",
    "squared": "TCN, squared norm",
    "hws-slow": "HWS, encoder rate a tenth",
    "hard-conv-slow": "Hard-shared convolutions, encoder rate a tenth",
    "ledger-augmentation": "TCN, released augmentation",
    "ledger-loader": "TCN, replayed loader streams",
    "ledger-batch-norm-split": "TCN, batch norm split in two",
    "ledger-words": "TCN, raw word vectors",
    "ledger-resize": "TCN, resize rounded to 8 bits",
    "tcn-no-semantic-as-released": "TCN, “without” semantic metric as released",
    "tcn-as-released": "TCN, all traps as released",
}
SHORT_LABELS = {
    **LABELS,
    "tcn": "TCN", "hws": "HWS", "nws": "NWS", "floor-imagenet": "ImageNet floor",
    "floor-imagenet-permodality": "ImageNet floor, per modality", "floor-svd": "SVD floor",
    "floor-svd-permodality": "SVD floor, per modality", "tcn-no-teacher": "TCN, no teacher",
    "tcn-no-semantic": "TCN, no semantic", "tcn-shared-bn": "TCN, shared BN", "tcn-own-embedding": "TCN, two embeddings",
    "hws-0.1-1": "HWS 0.1:1", "hws-10-1": "HWS 10:1", "tcn-bht": "TCN, BHT", "couple-norms": "Soft: all, BN scale",
    "couple-stage1": "Soft: to stage 1", "couple-stage2": "Soft: to stage 2", "couple-stage3": "Soft: to stage 3",
    "class-only": "Class loss", "siamese": "Siamese", "triplet": "Triplet", "teacher-pca": "Teacher, PCA", "sake": "SAKE's idea",
    "frozen-conv": "Frozen conv.", "hard-conv": "Hard conv., own BN", "l2-sp": "Tied to start",
    "l2-sp-weight-1000": "Tied to start, 1000", "squared": "Squared norm", "hws-slow": "HWS, slow encoder",
    "hard-conv-slow": "Hard conv., slow",
    "tcn-no-semantic-as-released": "TCN, no semantic as released",
}
TRAINED = ("tcn", "hws", "nws")
FLOORS = ("floor-imagenet", "floor-imagenet-permodality", "floor-svd", "floor-svd-permodality")
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
UNTRAINED = (*FLOORS, "teacher-pca")
"""Rows without training."""
CONTROLS = ("frozen-conv", "hard-conv", "l2-sp", "l2-sp-weight-1000", "squared", "hws-slow", "hard-conv-slow")
"""Controls that the paper lacks; the weights 10 and 1000 of the grid belong to the same question."""
CONTROL_WEIGHTS = (10.0, 1000.0)
WEIGHTS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""The paper's grid of sharing weights; 0.1 is shown where it was run."""
DIMENSIONS = (32, 64, 128, 256, 512)
MAIN_DIMENSION, WIDE_DIMENSION = 64, 512
METHOD_TEXTS = {
    "tcn": ("Two encoders with softly tied convolutions and batch norms of their own; class loss, teacher, semantic metric.", ""),
    "hws": ("TCN's losses on one encoder for both modalities, one batch for both.", ""),
    "class-only": ("One encoder and the class loss, nothing else: what ordinary classification already gives.", ""),
    "siamese": (("One encoder; sketch-photo pairs of one class are drawn together, pairs of different classes pushed beyond a "
                "margin (contrastive loss)."), ("All pairs of a batch instead of sampled ones, features of unit length, our encoder and "
                "start; a class head reads the features without training them.")),
    "triplet": (("One encoder; for each sketch its furthest photo of the same class against the nearest of another, and the "
                "reverse (batch-hard triplets across modalities)."), ("Batches are drawn by photo, not by a fixed number of items "
                "a class as batch-hard mining usually has it; softplus in place of a margin.")),
    "teacher-pca": ("The frozen ImageNet teacher's features, reduced to D by principal components of seen classes; no training.",
                    ""),
    "sake": ("SAKE's idea: one network that is told the modality, its teacher's signal corrected by how near class names are.",
             ("Similarity from word vectors instead of WordNet, gates at the end of each stage instead of inside its blocks, and "
             "this suite's embedding, start, pairs and schedule: not SAKE as published.")),
}
"""Variant -> (what it is, what is not faithful to its source), for the table of methods."""
RULES = ("released", "standard")
PROTOCOLS = {
    "released": "TCN, SAKE, DSN", "cvpr19": "TCN's other flag, Doodle2Search", "zse": "ZSE-SBIR and its descendants",
    "sem-pcyc": "SEM-PCYC", "cvae": "CVAE, J. Li's ZS-SBIR", "standard": "what a statistician would expect",
}
"""Rule -> whose code computes so, in the order of the table of rules."""
NOT_DEFINED = {("cvpr19", "mAP@all")}
"""(rule, metric) that the rule's code has no such number for."""

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


GROUPS = (
    ("main", "Comparison: TCN, HWS, NWS", PAPER_ORDER),
    ("floors", "Floors", FLOORS),
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


def read_published(path: Path) -> tuple[tuple[int, str, Published], ...]:
    """(line number, value as written, fact) of every row of a CSV file with the columns of published.csv.

    `table` and `note` may be left out. Raises ReportError naming line and field for what can't be read at all; whether a
    number makes sense is `lint`'s question.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            if absent := [name for name in PUBLISHED_COLUMNS if name not in header]:
                raise ReportError(f"{path.name}, line 1: no column {', '.join(absent)}; expected "
                                  f"{', '.join(PUBLISHED_COLUMNS)}, and where wanted table, note")
            return tuple(_published_row(f"{path.name}, line {reader.line_num}", reader.line_num, row) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path} can't be read ({type(error).__name__}: {error})") from None


def _published_row(where: str, number: int, row: dict[str | None, Any]) -> tuple[int, str, Published]:
    if None in row:
        raise ReportError(f"{where}: more fields than the header has columns; quote fields that hold a comma")
    fields = {name: (text or "").strip() for name, text in row.items()}
    for name in ("method", "dataset", "metric", "value"):
        if not fields[name]:
            raise ReportError(f"{where}, field {name}: empty")
    try:
        value = float(fields["value"])
    except ValueError:
        raise ReportError(f"{where}, field value: '{fields['value']}' is not a number; write 0.463 for 46.3 %") from None
    if not math.isfinite(value):
        raise ReportError(f"{where}, field value: '{fields['value']}' is not a finite number; leave the row out instead")
    if fields["dimension"] and not (re.fullmatch(r"0*[1-9]\d{0,6}", fields["dimension"], re.ASCII)):
        raise ReportError(f"{where}, field dimension: '{fields['dimension']}' is no number of dimensions; "
                          "write 512, or nothing where the source doesn't say")
    wanted = {name: fields.get(name, "") for name in (*PUBLISHED_COLUMNS, "note")}
    return number, fields["value"], Published(**{**wanted, "value": value}, table=fields.get("table") or "comparison")


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Every published number at hand, none averaged or corrected.

    >>> next(p.value for p in published() if p.method == "TCN" and p.features == "binary" and p.dataset == "quickdraw")
    0.11
    """
    rows = tuple(fact for _, _, fact in read_published(PUBLISHED_FILE))
    unknown = {row.source for row in rows} - set(SOURCES)
    if unknown:
        raise ReportError(f"{PUBLISHED_FILE.name}: no such source: {', '.join(sorted(unknown))}")
    return rows


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

    >>> label("tcn-weight-10"), label("tcn-dim-512"), label("something")
    ('TCN, sharing weight 10', 'TCN, 512 dimensions', 'something')
    """
    return _numbered(variant, "TCN, sharing weight {:g}", "TCN, {} dimensions") or LABELS.get(variant, variant)


def short_label(variant: str) -> str:
    """Name of a variant for legends.

    >>> short_label("tcn-weight-0.1"), short_label("tcn-dim-32"), short_label("triplet")
    ('TCN, weight 0.1', 'TCN, 32-d', 'Triplet')
    """
    return _numbered(variant, "TCN, weight {:g}", "TCN, {}-d") or SHORT_LABELS.get(variant) or shortened(variant)


def _numbered(variant: str, by_weight: str, by_dimension: str) -> str:
    weight, dimension = grid_weight(variant), grid_dimension(variant)
    return by_weight.format(weight) if weight is not None else by_dimension.format(dimension) if dimension is not None else ""


def grid_weight(variant: str) -> float | None:
    """Sharing weight of a row of the weight grid, None for every other variant.

    >>> grid_weight("tcn-weight-0.1"), grid_weight("tcn")
    (0.1, None)
    """
    match = re.fullmatch(r"tcn-weight-(\d{1,12}(?:\.\d{1,12})?(?:e[+-]?\d{1,2})?)", variant, re.ASCII)
    return float(match[1]) if match else None


def grid_dimension(variant: str) -> int | None:
    """Feature length in the name of a TCN of another length, None for every other variant.

    >>> grid_dimension("tcn-dim-32"), grid_dimension("tcn-512"), grid_dimension("tcn")
    (32, 512, None)
    """
    match = re.fullmatch(r"tcn-(?:dim-?)?(\d{1,6})d?", variant, re.ASCII)
    return int(match[1]) if match else None


def own_weight(suite: Suite, task: Task) -> float:
    """Sharing weight that `tcn` itself was run with; NaN where no finished run tells."""
    return next((float(setting(c.config, "losses.sharing", math.nan)) for c in suite.cells_of(task, "tcn")), math.nan)


def at_weight(suite: Suite, task: Task, weight: float) -> str:
    """Variant that stands for TCN at a sharing weight: its row of the grid, or `tcn` where that is its own weight."""
    named = next((v for v in suite.variants(task) if grid_weight(v) == weight), "")
    if not suite.cells_of(task, named) and own_weight(suite, task) == weight:
        return "tcn"
    return named or f"tcn-weight-{weight:g}"


def weights(suite: Suite, task: Task) -> list[tuple[float, str]]:
    """(weight, variant) of the grid's rows in order: the paper's weights, others where they were planned or run."""
    found = {weight for v in suite.variants(task) if (weight := grid_weight(v)) is not None} | {own_weight(suite, task)}
    return [(w, at_weight(suite, task, w)) for w in sorted({*WEIGHTS, *(w for w in found if w > 0)})]


def at_dimension(suite: Suite, task: Task, dimension: int) -> str:
    """Variant that stands for TCN at a feature length: `tcn` where its runs have it, else a row of that name."""
    own = suite.dim(task, "tcn")
    if own == dimension or own is None and dimension == MAIN_DIMENSION:
        return "tcn"
    return next((v for v in suite.variants(task) if grid_dimension(v) == dimension), f"tcn-dim-{dimension}")


def dimensions(suite: Suite, task: Task) -> list[tuple[int, str]]:
    """(length, variant) in order: the paper's lengths, others where they were planned or run."""
    named = {d for v in suite.variants(task) if (d := grid_dimension(v)) is not None}
    own = suite.dim(task, "tcn") or MAIN_DIMENSION
    wanted = {d for d in DIMENSIONS if d != MAIN_DIMENSION} | named | {own}
    return [(d, at_dimension(suite, task, d)) for d in sorted(wanted)]


def group_of(suite: Suite, variant: str) -> str:
    """Group of a variant, `` for one that no table names."""
    if variant.startswith("floor-"):
        return "floors"
    if grid_weight(variant) is not None:
        return "weights"
    if grid_dimension(variant) is not None:
        return "dimensions"
    named = next((name for name, _, variants in GROUPS if variant in variants), "")
    return named or ("ledger" if is_ledger(suite, variant) else "")


def is_ledger(suite: Suite, variant: str) -> bool:
    """True for a variant that is there to measure one trap of the ledger: it belongs to the ledger's table alone."""
    if variant.startswith("ledger-") or variant.endswith("-as-released"):
        return True
    named = any(variant in variants for _, _, variants in GROUPS)
    return not named and any(variant in trap.arms.values() for trap in suite.traps)


def is_tcn(variant: str) -> bool:
    """True for TCN itself at any feature length (`tcn`, `tcn-dim-512`), not for its ablations."""
    return variant == "tcn" or grid_dimension(variant) is not None


def main_variants(suite: Suite, task: Task) -> list[str]:
    """Rows of the comparison table: TCN, HWS, NWS (always), floors at hand, and TCN at 512 dimensions where more than a plain
    call was asked for."""
    there = suite.variants(task)
    wide = [v for v in there if grid_dimension(v) == WIDE_DIMENSION]
    if not wide and any(group_of(suite, v) not in ("main", "floors", "ledger", "") for v in there):
        wide = [f"tcn-dim-{WIDE_DIMENSION}"]
    return ["tcn", *wide, "hws", "nws", *(v for v in FLOORS if v in there),
            *(v for v in there if v.startswith("floor-") and v not in FLOORS)]


def other_variants(suite: Suite, task: Task) -> list[str]:
    """Whatever no named table holds: shown under its own heading rather than dropped."""
    return [v for v in suite.variants(task) if not group_of(suite, v)]


def publisher(source: str) -> str:
    """Name of a publisher of drawings for people."""
    return PUBLISHERS.get(source) or shortened(source)
