"""Every scientific choice of a run, with its unit and its source.

In: plain dictionaries (from a file, a command line, a variant's delta). Out: frozen dataclasses, checked,
and the run's identity: a hash over the resolved settings and the digests of data and split.
"""
from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any

PARTS = ("stem", "stage1", "stage2", "stage3", "stage4")
TIES = ("hard", "soft", "none")


class InputError(ValueError):
    """Bad input from the user: the message names the file or field and says what to do."""


class Modality(enum.Enum):
    """Which side of the retrieval an image belongs to."""

    SKETCH = "sketch"
    PHOTO = "photo"


@dataclass(frozen=True)
class Data:
    """What is shown to the network."""

    dataset: str = "emoji"
    split: str = "fixed"
    image_size: int = 224
    """Side of the square the encoders see, in pixels (paper: 224)."""
    stored_size: int = 256
    """Side of the square kept in the image cache, at which augmentation applies, in pixels (released: 256)."""
    batch_pairs: int = 32
    """Sketch-photo pairs in a batch (paper: 32)."""
    augmentation: str = "corrected"
    """`released`: scale and turn about the top-left corner, fill black, truncate to 8 bits.
    `corrected`: about the centre, fill as below, no truncation."""
    sketch_fill: int = 255
    """Grey level uncovered by the corrected augmentation of a sketch; the released form always fills 0."""
    photo_fill: int = 0
    """The same for photos; 255 where photos stand on white."""
    unit_words: bool = True
    """Word vectors scaled to unit length (released for Sketchy), or raw (released for TU-Berlin)."""
    loader_streams: str = "fresh"
    """`fresh`: every epoch draws its own augmentations and sketches. `replayed`: each epoch draws those of the first again,
    at the same places of the new photo order (released: loader workers seeded without the epoch)."""


@dataclass(frozen=True)
class Coupling:
    """Which parts of the two encoders are one (`hard`), tied by the sharing loss (`soft`) or free (`none`).

    The paper's criterion: couple what is common to both modalities, keep apart what is specific to one.
    """

    stem: str = "soft"
    stage1: str = "soft"
    stage2: str = "soft"
    stage3: str = "soft"
    stage4: str = "soft"
    batch_norm_affine: str = "none"
    """Scale and shift of every batch norm in the encoders (TCN: independent)."""
    batch_norm_statistics: str = "none"
    """Running statistics of every batch norm in the encoders: `hard` or `none`."""
    embedding: str = "hard"
    """The feature-embedding network; one for both modalities in the paper."""
    call: str = "separate"
    """`joint`: sketches and photos of a step pass a wholly shared encoder in one batch (our HWS default);
    `separate`: two calls, each normalised by its own batch. The paper does not say which HWS used."""


@dataclass(frozen=True)
class Network:
    """Architecture and where it starts."""

    backbone: str = "resnet50"
    weights: str = "imagenet"
    """`imagenet`, or `file:<sha256>` of a given state dict, so that the identity follows the contents."""
    teacher_weights: str = "imagenet"
    """The same for the frozen teacher, whose classifier gives the SVD start."""
    dim: int = 64
    """Retrieval dimension D."""
    embedding_norm: str = "shared"
    """`shared`: one batch norm over D, each modality in a call of its own (released for Sketchy).
    `per_modality`: shared scale and shift, statistics kept apart (released for TU-Berlin, QuickDraw)."""
    dropout: float = 0.0
    """On the retrieval feature, training only (released: 0 for Sketchy; else 0.5 for D <= 64, 0.7 above)."""
    start: str = "svd"
    """`svd` of the teacher's classifier, or `random` (framework default)."""
    batch_norm_split: int = 1
    """Parts of a training batch that every batch norm normalises alone, the first of them alone updating the running
    statistics; the losses see the whole batch (released: 2, by data parallelism over two GPUs)."""


@dataclass(frozen=True)
class Losses:
    """Weights of the terms, applied once, in training (paper: total loss)."""

    class_sketch: float = 1.0
    class_photo: float = 1.0
    distillation: float = 1.0
    """0 leaves the teacher's loss out; the SVD start stays."""
    sharing: float = 1000.0
    """Weight of L_SWS (paper: 1000)."""
    semantic: float = 1.0
    semantic_form: str = "coupled"
    """`coupled`: anchors mixed with word vectors (the paper's semantic metric). `separate`: batch-hard triplet
    on the features plus a regression to the words (the ablated form)."""
    regression: float = 1.0
    """Weight of the regression inside the `separate` form."""
    semantic_off: str = "zero"
    """What weight 0 of the semantic metric means. `zero`: no such term. `as-released`: the `separate` form at weight 1,
    which is what the released code runs when the flag is left out."""
    margin: float | None = None
    """None: softplus ("soft margin"); a number: hinge."""


@dataclass(frozen=True)
class Training:
    """Optimisation (paper section on implementation; released script)."""

    epochs: int = 10
    encoder_rate: float = 1e-4
    """Base learning rate of the encoders (released: 1e-4)."""
    head_rate: float = 1e-4
    """Base learning rate of everything else (released: 1e-4)."""
    weight_decay: float = 5e-4
    """L2 penalty inside Adam's gradient, not decoupled (released: 5e-4)."""
    optimizer: str = "adam"
    """`adam`, or `none` for floors that are not trained."""
    select_by: str = "seen_accuracy"
    """Which epoch is kept: `seen_accuracy` (mean over seen classes on held-out sketches; released) or
    `validation_map` (mAP@all on validation classes, never trained on). Never an unseen class."""


@dataclass(frozen=True)
class Execution:
    """How the same computation is carried out. No field changes what is computed, only its rounding and its speed; rounding is
    amplified by training, so all of them are part of a run's identity. `REFERENCE` is the plain float32 form; docs/speed.md gives
    the tolerance to which each fast form meets it."""

    precision: str = "float32"
    """Of the encoders' and the teacher's convolutions in training: `float32`; `tf32` (CUDA: float32 with 10 bits of mantissa in
    products); `bf16` (autocast). Embedding, losses, optimizer and all features that are scored stay float32 or wider."""
    memory_format: str = "channels-last"
    """Order of images and convolution weights in memory: `channels-last` or `contiguous` (PyTorch's default)."""
    batch_norm: str = "two-pass"
    """On the CPU in channels-last order: statistics in two passes with sums in float64 (`two-pass`), or torch's own kernel
    (`native`), whose float32 sums lose three digits there. In contiguous order and on CUDA, both are torch's own."""
    compile: str = "none"
    """`encoders`: torch.compile of both encoders and the teacher (a minute or two before the first step); `none`."""
    optimizer: str = "fused"
    """Adam in one kernel (`fused`), or tensor by tensor (`loop`)."""
    sharing: str = "fused"
    """The sharing loss in few passes or kernels (`fused`), or a norm of a difference for each tensor, the gradient left to
    autograd (`loop`)."""
    teacher: str = "folded"
    """The frozen teacher's batch norms multiplied into its convolutions (`folded`), or computed (`as-is`)."""
    convolutions: str = "cropped"
    """Kernels reduced to the taps that meet the picture where it is smaller than the kernel (`cropped`), or `as-is`."""


    algorithms: str = "fast"
    """On CUDA: the fastest kernels, whose sums may come in another order each time (`fast`), or only those that give the same
    bits every time (`deterministic`; slower, and refused where an operation has none). The CPU's are deterministic anyway."""


REFERENCE = Execution("float32", "contiguous", "native", "none", "loop", "loop", "as-is", "as-is")
"""Every computation in its plain form."""


@dataclass(frozen=True)
class Evaluation:
    """How features are taken and scored."""

    features: str = "embedding"
    """`embedding` (D) or `backbone` (d, before the embedding)."""
    statistics: str = "network"
    """`network`: as the network stands. `per_modality`: features standardised per modality by mean and
    standard deviation taken from seen training images (for floors). `pca`: reduced to `network.dim` by principal components of
    seen training images of both modalities."""
    photo_side: str = "photo"
    """Which side's output of the embedding gives the photos' features: `photo`, or `sketch` (released: at test time
    photos are normalised with the sketches' statistics, where these are kept apart)."""
    binary: bool = True
    """Also score ITQ codes."""
    itq_rule: str = "textbook"
    """Update of ITQ's rotation: `textbook`, or `released`, which takes NumPy's V^H for V."""
    itq_fit: str = "seen"
    """What ITQ is fitted on: `seen` training features, or `as-released`: the test sketches, queries and gallery each
    centred on their own mean (transductive: it uses test data)."""
    ties: str = "expected"
    """Order of photos at equal distance: `expected` over random orders, or one of tcn.metrics.TIES (released:
    `unstable-sort`)."""
    missing_classes: str = "error"
    """A class with queries but no photos: `error`, `zero`, or `as-released` (skipped in mAP, 0 in Prec)."""


@dataclass(frozen=True)
class Config:
    """One run, resolved: what is hashed here is what runs, is written and is logged."""

    data: Data = field(default_factory=Data)
    network: Network = field(default_factory=Network)
    coupling: Coupling = field(default_factory=Coupling)
    losses: Losses = field(default_factory=Losses)
    training: Training = field(default_factory=Training)
    execution: Execution = field(default_factory=Execution)
    evaluation: Evaluation = field(default_factory=Evaluation)
    method: str = "tcn"
    seed: int = 2020
    """Seed of every random stream (released: 2020)."""


_CHOICES = {
    "data.augmentation": ("corrected", "released"),
    "data.loader_streams": ("fresh", "replayed"),
    **{f"coupling.{part}": TIES for part in (*PARTS, "batch_norm_affine", "embedding")},
    "coupling.batch_norm_statistics": ("hard", "none"),
    "coupling.call": ("joint", "separate"),
    "network.embedding_norm": ("shared", "per_modality"),
    "network.start": ("svd", "random"),
    "losses.semantic_form": ("coupled", "separate"),
    "losses.semantic_off": ("zero", "as-released"),
    "training.optimizer": ("adam", "none"),
    "training.select_by": ("seen_accuracy", "validation_map"),
    "execution.precision": ("float32", "tf32", "bf16"),
    "execution.memory_format": ("channels-last", "contiguous"),
    "execution.batch_norm": ("two-pass", "native"),
    "execution.compile": ("none", "encoders"),
    "execution.optimizer": ("fused", "loop"),
    "execution.sharing": ("fused", "loop"),
    "execution.teacher": ("folded", "as-is"),
    "execution.convolutions": ("cropped", "as-is"),
    "execution.algorithms": ("fast", "deterministic"),
    "evaluation.features": ("embedding", "backbone"),
    "evaluation.statistics": ("network", "per_modality", "pca"),
    "evaluation.photo_side": ("photo", "sketch"),
    "evaluation.itq_rule": ("textbook", "released"),
    "evaluation.itq_fit": ("seen", "as-released"),
    "evaluation.ties": ("expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort"),
    "evaluation.missing_classes": ("error", "zero", "as-released"),
}
_LATER = {"execution.algorithms": "fast", "execution.batch_norm": "native"}
"""Settings that came after runs were kept, with the value which those runs had: at it, they are no part of the identity."""
_POSITIVE = ("data.image_size", "data.stored_size", "data.batch_pairs", "network.dim", "network.batch_norm_split",
             "training.encoder_rate", "training.head_rate")
_NOT_NEGATIVE = ("losses.class_sketch", "losses.class_photo", "losses.distillation", "losses.sharing",
                 "losses.semantic", "losses.regression", "training.weight_decay", "training.epochs", "seed")


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain values, in declaration order."""
    return dataclasses.asdict(config)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"split": 1}}` -> `{"data.split": 1}`.

    >>> flatten({"data": {"split": "1"}, "seed": 3})
    {'data.split': '1', 'seed': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def from_dict(values: dict[str, Any]) -> Config:
    """Build and check a Config from nested values; missing keys take their defaults.

    Raises InputError for an unknown key or a value of the wrong type or outside its choices, naming it.
    """
    if not isinstance(values, dict):
        raise InputError(f"settings are a {type(values).__name__}; they must be a mapping from names to values")
    return change(Config(), flatten(values))


def change(config: Config, delta: dict[str, Any]) -> Config:
    """A copy of `config` with dotted keys replaced, checked.

    >>> change(Config(), {"losses.sharing": 10}).losses.sharing
    10.0
    """
    for key, value in delta.items():
        config = _replace(config, key.split("."), value, key)
    check(config)
    return config


def _replace(node: Any, path: list[str], value: Any, full: str) -> Any:
    names = [f.name for f in dataclasses.fields(node)]
    if path[0] not in names:
        raise InputError(f"unknown setting '{full}': '{path[0]}' is none of {', '.join(names)}")
    current = getattr(node, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise InputError(f"unknown setting '{full}': '{path[0]}' has no parts")
        return dataclasses.replace(node, **{path[0]: _replace(current, path[1:], value, full)})
    if dataclasses.is_dataclass(current):
        raise InputError(f"setting '{full}' is a group; name one of its fields, such as "
                         f"'{full}.{dataclasses.fields(current)[0].name}'")
    hint = typing.get_type_hints(type(node))[path[0]]
    return dataclasses.replace(node, **{path[0]: _typed(value, hint, full)})


def _typed(value: Any, hint: Any, key: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(o for o in options if o is not type(None))
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    raise InputError(f"setting '{key}' takes {getattr(kind, '__name__', kind)}, got {value!r}")


def check(config: Config) -> None:
    """Raise InputError where a value is out of range or settings contradict each other."""
    flat = flatten(to_dict(config))
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            raise InputError(f"setting '{key}' is {flat[key]!r}; choose one of {', '.join(choices)}")
    for key in _POSITIVE:
        if not flat[key] > 0:
            raise InputError(f"setting '{key}' is {flat[key]!r}; it must be above 0")
    for key in _NOT_NEGATIVE:
        if flat[key] < 0:
            raise InputError(f"setting '{key}' is {flat[key]!r}; it must not be below 0")
    if not 0 <= config.network.dropout < 1:
        raise InputError(f"setting 'network.dropout' is {config.network.dropout!r}; it must be in [0, 1)")
    if config.training.optimizer != "none" and config.training.epochs < 1:
        raise InputError("setting 'training.epochs' is 0; training needs at least 1")
    if config.coupling.call == "joint" and not wholly_shared(config.coupling):
        raise InputError("setting 'coupling.call' is 'joint', which needs every part of the encoders, batch-norm "
                         "affine and statistics included, to be 'hard'")


def wholly_shared(coupling: Coupling) -> bool:
    """True where the two encoders are one network in every part."""
    return all(getattr(coupling, name) == "hard"
               for name in (*PARTS, "batch_norm_affine", "batch_norm_statistics"))


def identity(config: Config, data_digest: str, split_digest: str, words_digest: str = "") -> str:
    """Hex name of a run: settings and contents, never paths, time or host.

    The same settings on the same files give the same identity on every machine.
    """
    settings = to_dict(config)
    for key, value in _LATER.items():
        group, name = key.split(".")
        if settings[group][name] == value:
            del settings[group][name]
    payload = {"config": settings, "data": data_digest, "split": split_digest, "words": words_digest}
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
