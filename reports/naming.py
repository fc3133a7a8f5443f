"""Names for people: of variants, data sets, networks and publishers of drawings."""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from types import MappingProxyType

from reports.read.bundles import SENT
from reports.read.escaping import shortened
from reports.read.schema import Task

LABELS = {
    "tcn": "TCN (soft sharing)",
    "hws": "HWS (hard sharing)",
    "hws-separate": "HWS, separate calls",
    "nws": "NWS (no sharing)",
    "untrained-imagenet": "Untrained: ImageNet features",
    "untrained-imagenet-permodality": "Untrained: ImageNet features, per-modality statistics",
    "untrained-svd": "Untrained: SVD start",
    "untrained-svd-permodality": "Untrained: SVD start, per-modality statistics",
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
    "tcn-as-released": "TCN, all deviations as released",
}
FROZEN = {"dinov2": "DINOv2 S/14", "clip": "CLIP B/16", "siglip": "SigLIP B/16", "resnet50": "ResNet-50",
          "convnext": "ConvNeXt-T", "lite0": "EfficientNet-Lite0", "lite2": "EfficientNet-Lite2"}
"""Encoders of the rows `frozen-NAME`, which others trained."""
FROZEN_ROWS = {f"frozen-{name}{suffix}": f"Frozen {title}{treated}" for name, title in FROZEN.items()
               for suffix, treated in (("", ""), ("-permodality", ", per-modality statistics"), ("-pca", ", PCA"))}
LABELS |= FROZEN_ROWS
SHORT_LABELS = {
    **LABELS,
    "tcn": "TCN", "hws": "HWS", "nws": "NWS", "untrained-imagenet": "ImageNet features",
    "untrained-imagenet-permodality": "ImageNet, per modality", "untrained-svd": "SVD start",
    "untrained-svd-permodality": "SVD start, per modality", "tcn-no-teacher": "TCN, no teacher",
    "tcn-no-semantic": "TCN, no semantic", "tcn-shared-bn": "TCN, shared BN", "tcn-own-embedding": "TCN, two embeddings",
    "hws-0.1-1": "HWS 0.1:1", "hws-10-1": "HWS 10:1", "tcn-bht": "TCN, BHT", "couple-norms": "Soft: all, BN scale",
    "couple-stage1": "Soft: to stage 1", "couple-stage2": "Soft: to stage 2", "couple-stage3": "Soft: to stage 3",
    "class-only": "Class loss", "siamese": "Siamese", "triplet": "Triplet", "teacher-pca": "Teacher, PCA", "sake": "SAKE's idea",
    "frozen-conv": "Frozen conv.", "hard-conv": "Hard conv., own BN", "l2-sp": "Tied to start",
    "l2-sp-weight-1000": "Tied to start, 1000", "squared": "Squared norm", "hws-slow": "HWS, slow encoder",
    "hard-conv-slow": "Hard conv., slow",
    "tcn-no-semantic-as-released": "TCN, no semantic as released",
}
TITLES = {"emoji": "Emoji", "sketchy": "Sketchy Extended", "tuberlin": "TU-Berlin Extended",
          "quickdraw": "QuickDraw Extended"}
GENERALISED = "-generalised"
"""Suffix of the name of a data set whose gallery holds photos of seen classes too, as `tcn.config.GENERALISED` says."""
BACKBONES = {"efficientnet_lite0": "EfficientNet-Lite0", "efficientnet_lite2": "EfficientNet-Lite2", "resnet50": "ResNet-50",
             "resnet18": "ResNet-18"}
PUBLISHERS = {"all": "all drawings", "openmoji": "OpenMoji black", "emojione-monotone": "EmojiOne monotone",
              "emojione": "EmojiOne monotone", "fluent-emoji-high-contrast": "Fluent high contrast",
              "fluent": "Fluent high contrast"}
METHOD_TEXTS = {
    "tcn": ("Two encoders with softly tied convolutions and batch norms of their own; class loss, teacher, semantic metric.", ""),
    "hws": ("TCN's losses on one encoder for both modalities, one batch for both.", ""),
    "class-only": ("One encoder and the class loss, nothing else: what ordinary classification already gives.", ""),
    "siamese": (("One encoder; sketch-photo pairs of one class are drawn together, pairs of different classes pushed beyond a "
                 "margin (contrastive loss)."),
                ("All pairs of a batch instead of sampled ones, features of unit length, our encoder and start; a class head "
                 "reads the features without training them.")),
    "triplet": (("One encoder; for each sketch its furthest photo of the same class against the nearest of another, and the "
                 "reverse (batch-hard triplets across modalities)."),
                ("Batches are drawn by photo, not by a fixed number of items a class as batch-hard mining usually has it; "
                 "softplus in place of a margin.")),
    "teacher-pca": ("The frozen ImageNet teacher's features, reduced to D by principal components of seen classes; no training.",
                    ""),
    "sake": ("SAKE's idea: one network that is told the modality, its teacher's signal corrected by how near class names are.",
             ("Similarity from word vectors instead of WordNet, gates at the end of each stage instead of inside its blocks, and "
             "this suite's embedding, start, pairs and schedule: not SAKE as published.")),
}
"""Variant -> (what it is, how it differs from its source), for the table of methods."""


def task_title(task: Task) -> str:
    """Name of a task for people.

    >>> task_title(Task("sketchy", "1")), task_title(Task("emoji", "fixed"))
    ('Sketchy Extended, split 1', 'Emoji')
    >>> task_title(Task("sketchy-first25", "2")), task_title(Task("tuberlin-first10", "1"))
    ('Sketchy sample (first 25), split 2', 'TU-Berlin sample (first 10)')
    >>> task_title(Task("sketchy-generalised", "1"))
    'Sketchy Extended, split 1, generalised'
    """
    if task.dataset.endswith(GENERALISED):
        return f"{task_title(replace(task, dataset=task.dataset.removesuffix(GENERALISED)))}, generalised"
    whole, part = part_of(task.dataset)
    name = TITLES.get(whole, whole).removesuffix(" Extended" if part else "") + part
    if whole == "sketchy":
        number = re.search(r"\d+", task.split)
        return f"{name}, split {number[0]}" if number and number[0] in "12" else f"{name}, {task.split}"
    return name if whole in TITLES or task.split == "fixed" else f"{name}, {task.split}"


def numbers_of(task: Task) -> str:
    """The name of numbers that can't be compared with published ones: those of the laptop data set, of a part of a data set, or
    of a user's own data set.

    >>> numbers_of(Task("emoji", "fixed")), numbers_of(Task("little_zoo", "fixed"))
    ('Laptop numbers', 'Numbers of little_zoo')
    """
    return "Laptop numbers" if task.dataset in TITLES else f"Numbers of {task_title(task)}"


def part_of(dataset: str) -> tuple[str, str]:
    """The data set from which a part was cut, and the part in words; for any other data set its name and an empty text. A data
    set with a generalised gallery is not a part.

    >>> part_of("sketchy-first25"), part_of("sketchy-original"), part_of("emoji")
    (('sketchy', ' sample (first 25)'), ('sketchy', ' without its extension'), ('emoji', ''))
    """
    dataset = dataset.removesuffix(GENERALISED)
    found = re.fullmatch(r"(.+)-first(\d{1,4})|(.+)-original", dataset)
    if found is None:
        return dataset, ""
    return (found[1], f" sample (first {found[2]})") if found[1] else (found[3], " without its extension")


def sample_size(dataset: str) -> int | None:
    """The number of files of each class in a sample; None where the data set is no sample.

    >>> sample_size("sketchy-first25"), sample_size("sketchy-original")
    (25, None)
    """
    found = re.search(r"-first(\d{1,4})$", dataset.removesuffix(GENERALISED))
    return int(found[1]) if found else None


BROUGHT = "brought-"
"""Prefix of the names of variants whose features were made elsewhere (benchmarks/add.py)."""
MARKED = (BROUGHT, SENT)
"""Prefixes of the variants that this results folder did not compute: every table marks them, and no verdict counts them."""


_recorded: ContextVar[Mapping[str, str]] = ContextVar("titles that runs recorded", default=MappingProxyType({}))


@contextlib.contextmanager
def recorded(titles: Mapping[str, str]) -> Iterator[None]:
    """In this block, variants that this project does not know have these titles, which their runs recorded.

    >>> with recorded({"mine": "A method of mine", "tcn": "Not TCN"}):
    ...     label("mine"), short_label("mine"), label("tcn")
    ('A method of mine', 'A method of mine', 'TCN (soft sharing)')
    """
    token = _recorded.set(titles)
    try:
        yield
    finally:
        _recorded.reset(token)


def label(variant: str) -> str:
    """Long name of a variant; an unknown one has the title that its runs recorded (`recorded`), else its own name.

    >>> label("tcn-weight-10"), label("tcn-dim-512"), label("something"), label("brought-mine")
    ('TCN, sharing weight 10', 'TCN, 512 dimensions', 'something', 'mine (brought along)')
    >>> label("sent:theirs:tcn")
    'TCN (soft sharing) (sent: theirs)'
    """
    if variant.startswith(SENT):
        bundle, _, own = variant.removeprefix(SENT).partition(":")
        name = label(own)
        return f"{name if name != own else _recorded.get().get(variant, own)} (sent: {shortened(bundle)})"
    if variant.startswith(BROUGHT):
        return f"{variant.removeprefix(BROUGHT)} (brought along)"
    return _numbered(variant, "TCN, sharing weight {:g}", "TCN, {} dimensions") or LABELS.get(variant) or \
        _recorded.get().get(variant, variant)


def short_label(variant: str) -> str:
    """Name of a variant for legends.

    >>> short_label("tcn-weight-0.1"), short_label("tcn-dim-32"), short_label("triplet")
    ('TCN, weight 0.1', 'TCN, 32-d', 'Triplet')
    """
    if variant.startswith(MARKED):
        return shortened(label(variant))
    return _numbered(variant, "TCN, weight {:g}", "TCN, {}-d") or SHORT_LABELS.get(variant) or \
        shortened(_recorded.get().get(variant, variant))


def _numbered(variant: str, by_weight: str, by_dimension: str) -> str:
    weight, dimension = weight_in_name(variant), dimension_in_name(variant)
    return by_weight.format(weight) if weight is not None else by_dimension.format(dimension) if dimension is not None else ""


def publisher(source: str) -> str:
    """Name of a publisher of drawings for people."""
    return PUBLISHERS.get(source) or shortened(source)


def weight_in_name(variant: str) -> float | None:
    """Sharing weight of a row of the weight grid, None for every other variant.

    >>> weight_in_name("tcn-weight-0.1"), weight_in_name("tcn")
    (0.1, None)
    """
    match = re.fullmatch(r"tcn-weight-(\d{1,12}(?:\.\d{1,12})?(?:e[+-]?\d{1,2})?)", variant, re.ASCII)
    return float(match[1]) if match else None


def dimension_in_name(variant: str) -> int | None:
    """Feature length in the name of a TCN of another length, None for every other variant.

    >>> dimension_in_name("tcn-dim-32"), dimension_in_name("tcn-512"), dimension_in_name("tcn")
    (32, 512, None)
    """
    match = re.fullmatch(r"tcn-(?:dim-?)?(\d{1,6})d?", variant, re.ASCII)
    return int(match[1]) if match else None
