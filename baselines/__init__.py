"""Variants: TCN with a few settings changed, and other methods, each with a sentence on what it shows.

`VARIANTS` holds the variants that a command line may name. A file of the user's own declares further ones (baselines/own.py),
which are looked up, trained and scored by the same functions. The training loop has no branch on a variant's name: a variant is
the base config of a profile with a few settings replaced.
"""
from __future__ import annotations

from typing import Any

from baselines import controls, foundation, metric_learning, own, sake
from baselines.variant import Variant, VariantTable, checked, sourced
from tcn.config import BUILT_IN, PARTS, Config, InputError
from tcn.files import earlier
from tcn.train.method import Method

__all__ = ["find", "GROUPS", "load", "method_of", "named", "table", "Table", "Variant", "VARIANTS"]


def _convolutions(how: str) -> dict[str, Any]:
    return {f"coupling.{part}": how for part in PARTS}


_NORMS_SHARED = {"coupling.batch_norm_affine": "hard", "coupling.batch_norm_statistics": "hard"}
_HARD = {**_convolutions("hard"), **_NORMS_SHARED, "losses.sharing": 0.0}
_UNTRAINED = {**_HARD, "coupling.call": "joint", "training.optimizer": "none"}
_ONE_ENCODER = {**_HARD, "coupling.call": "joint"}
_HARD_CONVOLUTIONS = {**_convolutions("hard"), "losses.sharing": 0.0}
SHARING_GRID = (0.1, 1, 10, 100, 1000, 10000)
"""Weights of the sharing loss L_SWS in the grid; the paper uses 1000."""
DIMENSIONS = (32, 128, 256, 512)
"""Lengths D of the retrieval features that are tried besides the profile's 64."""


def _soft_up_to(last: str) -> dict[str, Any]:
    """Settings that tie the convolutions softly from the stem up to the part `last`, and leave the later parts independent."""
    tied = PARTS[:PARTS.index(last) + 1]
    return {f"coupling.{part}": "soft" if part in tied else "none" for part in PARTS}


def _batch_hard(regression: float) -> dict[str, Any]:
    return {"losses.semantic_form": "separate", "losses.regression": regression}


_ALL = (
    Variant("tcn", "TCN (soft sharing)", "the paper's method: convolutions softly tied, batch norms independent",
            ledger=True),
    Variant("hws", "HWS (hard sharing)", "one encoder for both modalities, one concatenated batch",
            _ONE_ENCODER),
    Variant("hws-separate", "HWS, separate calls", "one encoder, each modality normalised by its own batch", _HARD),
    Variant("nws", "NWS (no sharing)", "two untied encoders from the same start",
            {**_convolutions("none"), "losses.sharing": 0.0}),
    Variant("untrained-imagenet", "ImageNet features", "no training: the frozen network's pooled features (d)",
            {**_UNTRAINED, "evaluation.features": "backbone"}),
    Variant("untrained-imagenet-permodality", "ImageNet features, per-modality statistics",
            "no training: the same, standardised per modality on seen drawings",
            {**_UNTRAINED, "evaluation.features": "backbone", "evaluation.statistics": "per_modality"}),
    Variant("untrained-svd", "SVD start", "no training: the embedding as it starts (D)", _UNTRAINED),
    Variant("untrained-svd-permodality", "SVD start, per-modality statistics",
            "no training: the same, standardised per modality on seen drawings",
            {**_UNTRAINED, "evaluation.statistics": "per_modality"}),
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
    Variant("ledger-resize", "TCN, resize rounded to 8 bits", "ledger: 8 bits after each pass of the resize",
            {"data.resize": "rounded"}, grid_point=True),
    Variant("tcn-as-released", "TCN, all deviations as released", "ledger: every deviation of the released code at once",
            as_released=True),
    *(Variant(f"tcn-weight-{weight}", f"TCN, sharing weight {weight}", "the sharing weight, tried over a stated grid",
              {"losses.sharing": float(weight)}, grid_point=True) for weight in SHARING_GRID),
    # The paper's ablation: we read a:b as weight a for the class loss of the sketches and b for that of the photos.
    Variant("hws-0.1-1", "HWS, class losses 0.1:1", "hard sharing with the sketches' class loss at a tenth",
            {**_ONE_ENCODER, "losses.class_sketch": 0.1}),
    Variant("hws-10-1", "HWS, class losses 10:1", "hard sharing with the sketches' class loss tenfold",
            {**_ONE_ENCODER, "losses.class_sketch": 10.0}),
    Variant("tcn-bht", "TCN, BHT", "batch-hard triplet on the features in place of the semantic metric", _batch_hard(0.0)),
    *(Variant(f"tcn-bht-sr-{weight:g}", f"TCN, BHT+SR 1:{weight:g}",
              "batch-hard triplet and a separate regression to the words", _batch_hard(weight)) for weight in (0.1, 1.0, 10.0)),
    *(Variant(f"tcn-dim-{dim}", f"TCN, {dim} dimensions", "what the length of the features is worth", {"network.dim": dim})
      for dim in DIMENSIONS),
    Variant("couple-stem", "Soft: stem", "only the stem's convolution softly tied", _soft_up_to("stem")),
    *(Variant(f"couple-{part}", f"Soft: stem to stage {part[-1]}", f"convolutions softly tied up to stage {part[-1]}",
              _soft_up_to(part)) for part in PARTS[1:-1]),
    Variant("couple-norms", "Soft: convolutions, batch-norm scale and shift",
            "batch norms' scale and shift softly tied too, statistics independent", {"coupling.batch_norm_affine": "soft"}),
    Variant("tcn-own-embedding", "TCN, two embedding networks", "what one embedding network for both modalities is worth",
            {"coupling.embedding": "none"}),
    Variant("class-only", "Class loss alone", "one encoder trained by the class loss and nothing else",
            {**_ONE_ENCODER, "losses.distillation": 0.0, "losses.semantic": 0.0}),
    Variant("siamese", "Siamese, contrastive", "one encoder, contrastive loss over all sketch-photo pairs of a batch",
            {**_ONE_ENCODER, "losses.semantic": 0.0}, method=metric_learning.SIAMESE),
    Variant("triplet", "Batch-hard triplets across modalities",
            "one encoder, hardest photo for each sketch and hardest sketch for each photo",
            {**_ONE_ENCODER, "losses.semantic": 0.0}, method=metric_learning.TRIPLET),
    Variant("teacher-pca", "Frozen teacher, PCA",
            "no training: the teacher's features reduced to D by principal components of seen classes",
            {**_UNTRAINED, "evaluation.features": "backbone", "evaluation.statistics": "pca"}),
    Variant("sake", "SAKE's idea", "one encoder told the modality, teacher corrected by word similarity; word vectors in place "
            "of WordNet, gates by stage in place of residual blocks, our embedding and schedule",
            {**_ONE_ENCODER, "losses.semantic": 0.0}, method=sake.SAKE),
    Variant("frozen-conv", "Frozen convolutions, independent batch norms",
            "control: convolutions stay at the ImageNet start, batch norms and embedding are trained",
            _HARD_CONVOLUTIONS, method=controls.FROZEN),
    Variant("hard-conv", "Hard-shared convolutions, independent batch norms",
            "control: one set of convolutions, trained; batch norms by modality", _HARD_CONVOLUTIONS),
    Variant("l2-sp", "Tied to the ImageNet start", "control: two encoders, each tied to its start by the norm that ties TCN's "
            "to each other", _convolutions("none"), method=controls.ANCHORED),
    Variant("l2-sp-weight-1000", "Tied to the ImageNet start, weight 1000", "control: the same at the paper's weight",
            {**_convolutions("none"), "losses.sharing": 1000.0}, grid_point=True, method=controls.ANCHORED),
    Variant("squared", "TCN, squared norm", "control: the squared norm, whose pull fades as the encoders near each other",
            method=controls.SQUARED),
    Variant("hws-slow", "HWS, encoder rate a tenth", "control: hard sharing that moves less", _ONE_ENCODER,
            {"training.encoder_rate": 0.1}),
    Variant("hard-conv-slow", "Hard-shared convolutions, encoder rate a tenth", "control: one set of convolutions that moves "
            "less, batch norms by modality", _HARD_CONVOLUTIONS, {"training.encoder_rate": 0.1}),
    *foundation.variants(_UNTRAINED),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _ALL}
MAIN = ("tcn", "hws", "nws")
UNTRAINED_BASELINES = ("untrained-imagenet", "untrained-imagenet-permodality", "untrained-svd", "untrained-svd-permodality")
LEAVE_ONE_OUT = ("tcn-no-teacher", "tcn-no-semantic", "tcn-shared-bn")
WEIGHTS = tuple(f"tcn-weight-{weight}" for weight in SHARING_GRID)
ABLATION = ("nws", "hws-0.1-1", "hws", "hws-10-1", "tcn", "tcn-no-semantic", "tcn-bht", "tcn-bht-sr-0.1", "tcn-bht-sr-1",
            "tcn-bht-sr-10", "tcn-no-teacher")
COUPLING = ("nws", "couple-stem", *(f"couple-{part}" for part in PARTS[1:-1]), "tcn", "couple-norms", "tcn-shared-bn",
            "hws-separate", "hws", "tcn-own-embedding")
METHODS = ("class-only", "siamese", "triplet", "teacher-pca", "sake")
CONTROLS = ("frozen-conv", "hard-conv", "l2-sp", "l2-sp-weight-1000", "squared", "hws-slow", "hard-conv-slow",
            "tcn-weight-1000")
LEDGER = ("untrained-svd", "tcn", "ledger-augmentation", "ledger-loader", "ledger-batch-norm-split", "ledger-words",
          "ledger-resize",
          "tcn-no-semantic", "tcn-no-semantic-as-released", "tcn-as-released")
FOUNDATION = tuple(variant.name for variant in _ALL if variant.method is foundation.FROZEN)
GROUPS = {"main": MAIN, "untrained": UNTRAINED_BASELINES, "leave-one-out": LEAVE_ONE_OUT, "ablation": ABLATION,
          "dimensions": tuple(f"tcn-dim-{dim}" for dim in DIMENSIONS), "weights": WEIGHTS, "coupling": COUPLING,
          "methods": METHODS, "controls": CONTROLS, "ledger": LEDGER,
          "foundation": FOUNDATION}
_TABLES = {BUILT_IN: VariantTable(BUILT_IN, "this project", sourced(checked(_ALL, "baselines"), BUILT_IN, ""))}
"""Source -> the variants that it declares, for all sources that this process has read."""


_BUILT_IN_METHODS = {variant.method.name: variant.method for variant in _ALL}


def load(place: str, expected: str | None = None) -> VariantTable:
    """Read the variants that a file, or an installed package's entry point, declares. InputError if it can't be used.

    expected: the `Config.method_source` that it has to have; other content is refused before any of it is executed.
    """
    found = own.read(place, {*VARIANTS, *GROUPS}, _TABLES, expected)
    for variant in found.variants.values():
        if _BUILT_IN_METHODS.get(variant.method.name, variant.method) is not variant.method:
            raise InputError(f"{place}: '{variant.name}': '{variant.method.name}' is the name of a built-in method; choose "
                             "another name for yours")
    _TABLES[found.source] = found
    return found


def table(source: str) -> VariantTable:
    """The variants that a source declares. InputError if this process has not read it."""
    if source not in _TABLES:
        raise InputError(f"the file that declares this run's method is not at hand (SHA-256 {source.removeprefix('file:')}); "
                         "name it with --variants FILE")
    return _TABLES[source]


def is_loaded(source: str) -> bool:
    """Whether this process has read that source."""
    return source in _TABLES


def named(name: str) -> tuple[Variant, ...]:
    """The variants that a name on the command line stands for: a built-in variant or a group of them, a Python file that declares
    some, or the entry point of a package that declares some. InputError if it is none of these."""
    name = earlier.typed(name)
    if name in VARIANTS or name in GROUPS:
        return tuple(VARIANTS[member] for member in GROUPS.get(name, (name,)))
    if own.is_file(name) or name in own.announced():
        return tuple(load(name).variants.values())
    return (find(name),)


def find(name: str, source: str = BUILT_IN) -> Variant:
    """The variant of that name; InputError naming the known ones otherwise."""
    variants = table(source).variants
    name = earlier.name(name)  # a result folder may hold the earlier name
    if name not in variants:
        further = f"; by installed packages: {', '.join(own.announced())}" if own.announced() else ""
        raise InputError(f"unknown variant '{name}'; choose among {', '.join(variants)}" + (
            f", or a group: {', '.join(GROUPS)}; or give the Python file that declares it{further}"
            if source == BUILT_IN else ""))
    return variants[name]


def method_of(config: Config) -> Method[Any]:
    """The method that a resolved config names (`method`, `method_source`); InputError naming the known ones otherwise."""
    return table(config.method_source).method(config.method)
