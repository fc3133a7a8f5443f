"""Variants as deltas of one config, and other methods: one sentence each on what it shows.

`VARIANTS` is what a command line may name. A variant never branches in the training loop: it is the base config
of a profile with a few settings replaced.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tcn.config import PARTS, InputError
from tcn.method import TCN, Method


@dataclass(frozen=True)
class Variant:
    """A named delta: dotted settings replaced in the profile's base config."""

    name: str
    title: str
    shows: str
    delta: dict[str, Any] = field(default_factory=dict)
    method: Method = TCN
    as_released: bool = False
    """Every trap of the ledger is turned on, as the data set has it."""
    ledger: bool = False
    """Scoring traps of the ledger are measured on this variant's trained network."""


def _convolutions(how: str) -> dict[str, Any]:
    return {f"coupling.{part}": how for part in PARTS}


_NORMS_SHARED = {"coupling.batch_norm_affine": "hard", "coupling.batch_norm_statistics": "hard"}
_HARD = {**_convolutions("hard"), **_NORMS_SHARED, "losses.sharing": 0.0}
_FLOOR = {**_HARD, "coupling.call": "joint", "training.optimizer": "none", "training.epochs": 0}
SHARING_GRID = (0.1, 1, 10, 100, 1000)
"""Weights of L_SWS tried; the paper's is 1000."""

_ALL = (
    Variant("tcn", "TCN (soft sharing)", "the paper's method: convolutions softly tied, batch norms independent",
            ledger=True),
    Variant("hws", "HWS (hard sharing)", "one encoder for both modalities, one concatenated batch",
            {**_HARD, "coupling.call": "joint"}),
    Variant("hws-separate", "HWS, separate calls", "one encoder, each modality normalised by its own batch", _HARD),
    Variant("nws", "NWS (no sharing)", "two untied encoders from the same start",
            {**_convolutions("none"), "losses.sharing": 0.0}),
    Variant("floor-imagenet", "ImageNet features", "no training: the frozen network's pooled features (d)",
            {**_FLOOR, "evaluation.features": "backbone"}),
    Variant("floor-imagenet-permodality", "ImageNet features, per-modality statistics",
            "no training: the same, standardised per modality on seen drawings",
            {**_FLOOR, "evaluation.features": "backbone", "evaluation.statistics": "per_modality"}),
    Variant("floor-svd", "SVD start", "no training: the embedding as it starts (D)", _FLOOR),
    Variant("floor-svd-permodality", "SVD start, per-modality statistics",
            "no training: the same, standardised per modality on seen drawings",
            {**_FLOOR, "evaluation.statistics": "per_modality"}),
    Variant("tcn-no-teacher", "TCN without teacher", "what the distillation from ImageNet is worth",
            {"losses.distillation": 0.0}),
    Variant("tcn-no-semantic", "TCN without semantic metric", "what the semantic metric is worth",
            {"losses.semantic": 0.0}),
    Variant("tcn-shared-bn", "TCN with shared batch norm", "what independent batch norms are worth", _NORMS_SHARED),
    Variant("tcn-no-semantic-as-released", "TCN 'without' semantic metric as released",
            "what the released code runs without the flag: batch-hard triplet and regression",
            {"losses.semantic": 0.0, "losses.semantic_off": "as-released"}),
    Variant("ledger-augmentation", "TCN, released augmentation", "ledger: about the top-left corner, black fill",
            {"data.augmentation": "released"}),
    Variant("ledger-loader", "TCN, replayed loader streams", "ledger: loader workers seeded without the epoch",
            {"data.loader_streams": "replayed"}),
    Variant("ledger-batch-norm-split", "TCN, batch norm split in two", "ledger: data parallelism over two GPUs",
            {"network.batch_norm_split": 2}),
    Variant("ledger-words", "TCN, raw word vectors", "ledger: word vectors at their own length", {"data.unit_words": False}),
    Variant("tcn-as-released", "TCN, all traps as released", "ledger: every trap of the released code at once",
            as_released=True),
    *(Variant(f"tcn-weight-{weight:g}", f"TCN, sharing weight {weight:g}", "the sharing weight, tried over a stated grid",
              {"losses.sharing": float(weight)}) for weight in SHARING_GRID),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _ALL}
MAIN = ("tcn", "hws", "nws")
FLOORS = ("floor-imagenet", "floor-imagenet-permodality", "floor-svd", "floor-svd-permodality")
LEAVE_ONE_OUT = ("tcn-no-teacher", "tcn-no-semantic", "tcn-shared-bn")
WEIGHTS = tuple(f"tcn-weight-{weight:g}" for weight in SHARING_GRID)
LEDGER = ("floor-svd", "tcn", "ledger-augmentation", "ledger-loader", "ledger-batch-norm-split", "ledger-words",
          "tcn-no-semantic", "tcn-no-semantic-as-released", "tcn-as-released")
GROUPS = {"main": MAIN, "floors": FLOORS, "leave-one-out": LEAVE_ONE_OUT, "weights": WEIGHTS, "ledger": LEDGER}


def find(name: str) -> Variant:
    """The variant of that name; InputError naming the known ones otherwise."""
    if name not in VARIANTS:
        raise InputError(f"unknown variant '{name}'; choose among {', '.join(VARIANTS)}, or a group: "
                         f"{', '.join(GROUPS)}")
    return VARIANTS[name]
