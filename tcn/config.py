"""Every scientific choice of a run, with its unit and its source.

In: plain dictionaries (from a file, a command line, a variant's delta). Out: frozen dataclasses, checked,
and the run's identity: a hash over the resolved settings and the digests of data and split. The file is long because it is a
list: what a setting may hold is declared with it, and the few functions at the end read these declarations.
"""
from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

PARTS = ("stem", "stage1", "stage2", "stage3", "stage4")
SPLITS = {"emoji": ("fixed",), "sketchy": ("1", "2"), "tuberlin": ("1",), "quickdraw": ("1",)}
"""Data set -> its splits. A part of a data set (`PART_NAME`) has those of the whole."""
PART_NAME = "(sketchy|tuberlin|quickdraw)-first([1-9][0-9]{0,3})|(sketchy)-original"
"""Names of parts of a data set, each a data set of its own: its first N sketches and photos of each class by name, or Sketchy's
12,500 original photos without the extension."""
GENERALISED = "-generalised"
"""What ends the name of a data set, or of a part, whose gallery holds photos of seen classes too (docs/own-dataset.md)."""
OWN_NAME = "[a-z](_?[a-z0-9]){0,39}"
"""Names of data sets that a file of the user's own declares (docs/own-dataset.md). Without a hyphen, none is taken for a part."""
OWN_SPLIT = "fixed"
"""The one split of such a data set."""
BUILT_IN = "built-in"
"""Source of the variants and data sets that this project declares itself."""
BACKBONES = ("resnet50", "resnet18", "efficientnet_lite0", "efficientnet_lite2", "test_resnet")
"""Encoders with a name of their own; all others of timm and torchvision go by `timm:NAME` and `torchvision:NAME`."""
LIBRARIES = ("timm", "torchvision")
BACKBONE = rf"{'|'.join(BACKBONES)}|({'|'.join(LIBRARIES)}):[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?"
"""What `network.backbone` takes."""
LARGEST = 1e30
"""Of a float setting without a bound of its own: losses and steps are float32, which ends at 3.4e38."""


class InputError(ValueError):
    """Bad input from the user: the message names the file or field and says what to do."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; the bounds belong to it unless `open_low` or `open_high`. NaN and infinity never do."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        return f"{'above' if self.open_low else 'from'} {self.low:g} {'to below' if self.open_high else 'to'} {_plain(self.high)}"


@dataclass(frozen=True)
class Form:
    """Strings that a regular expression matches as a whole, and its description in words."""

    pattern: str
    words: str

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


def whole_of(dataset: str) -> str:
    """The data set that a part was cut from, or whose gallery is generalised; any other name as it is.

    >>> whole_of("sketchy-first25"), whole_of("sketchy-original"), whole_of("emoji-generalised")
    ('sketchy', 'sketchy', 'emoji')
    """
    dataset = dataset.removesuffix(GENERALISED)
    found = re.fullmatch(PART_NAME, dataset)
    return (found[1] or found[3]) if found else dataset


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


_DATASETS = f"one of {', '.join(SPLITS)}, or a part of one such as sketchy-first25"
# What a field may hold is declared in its annotation; `change` and `check` compare every value with that.
Tie = Literal["hard", "soft", "none"]
Side = Annotated[int, Range(1, 4096)]
Grey = Annotated[int, Range(0, 255)]
Parts = Annotated[int, Range(1, 4096)]
Weight = Annotated[float, Range(0, LARGEST)]
Rate = Annotated[float, Range(0, LARGEST, open_low=True)]
Weights = Annotated[str, Form("imagenet|file:[0-9a-f]{64}", "'imagenet', or 'file:' and the file's SHA-256 in 64 hexadecimal "
                                                            "digits (--weights and --teacher-weights make it)")]


class Modality(enum.Enum):
    """Which side of the retrieval an image belongs to."""

    SKETCH = "sketch"
    PHOTO = "photo"


@dataclass(frozen=True)
class Data:
    """What is shown to the network."""

    dataset: Annotated[str, Form(f"({'|'.join(SPLITS)}|{PART_NAME}|{OWN_NAME})({GENERALISED})?",
                                 f"{_DATASETS}, or the name of one that a file of your own declares")] = "emoji"
    declared: Annotated[str, Form(f"{BUILT_IN}|file:[0-9a-f]{{64}}",
                                  f"'{BUILT_IN}', or 'file:' and a SHA-256 (--datasets makes it)")] = BUILT_IN
    """Where the data set is declared: here, or in a file of the user's own, by a digest of what it says of classes, roles and
    held-out files (`tcn.data.declared`)."""
    split: Literal["fixed", "1", "2"] = "fixed"
    """One of the data set's own (`SPLITS`)."""
    validation: Literal["own", "carved"] = "own"
    """Classes that are never trained on and choose settings: the split's `own` (emoji has some, the paper's data sets none), or
    15 per cent of the seen ones, `carved` out by a fixed rule (`tcn.data.specs.carved`)."""
    image_size: Side = 224
    """Side of the square the encoders see, in pixels (paper: 224)."""
    stored_size: Annotated[int, Range(2, 4096)] = 256
    """Side of the square kept in the image cache, at which augmentation applies, in pixels (released: 256). A single pixel has no
    side along which it could be turned or scaled."""
    batch_pairs: Annotated[int, Range(1, 65_536)] = 32
    """Sketch-photo pairs in a batch (paper: 32)."""
    augmentation: Literal["corrected", "released"] = "corrected"
    """`released`: scale and turn about the top-left corner, fill black, truncate to 8 bits.
    `corrected`: about the centre, fill as below, no truncation."""
    sketch_fill: Grey = 255
    """Grey level uncovered by the corrected augmentation of a sketch; the released form always fills 0."""
    photo_fill: Grey = 0
    """The same for photos; 255 where photos stand on white."""
    unit_words: bool = True
    """Word vectors scaled to unit length (released for Sketchy), or raw (released for TU-Berlin)."""
    loader_streams: Literal["fresh", "replayed"] = "fresh"
    """`fresh`: every epoch draws its own augmentations and sketches. `replayed`: each epoch draws those of the first again,
    at the same places of the new photo order (released: loader workers seeded without the epoch; it replays where all classes
    have equally many sketches, as TU-Berlin's, and hardly at all elsewhere: docs/ledger.md)."""
    resize: Literal["float", "rounded"] = "float"
    """From the stored size to the network's, in training and at test: `float`, or `rounded` to 8 bits after each of its two
    passes, as Pillow's resize does (released)."""
    transparent: Literal["white", "as-stored"] = "white"
    """Transparent parts of a picture: on `white`, or the colours `as-stored` beneath them, most often black (released)."""
    exif: Literal["ignored", "applied"] = "ignored"
    """A picture's EXIF orientation: `ignored`, or `applied` (released)."""


@dataclass(frozen=True)
class Coupling:
    """Which parts of the two encoders are one (`hard`), tied by the sharing loss (`soft`) or free (`none`).

    The paper's criterion: couple what is common to both modalities, keep apart what is specific to one.
    """

    stem: Tie = "soft"
    stage1: Tie = "soft"
    stage2: Tie = "soft"
    stage3: Tie = "soft"
    stage4: Tie = "soft"
    batch_norm_affine: Tie = "none"
    """Scale and shift of every batch norm in the encoders (TCN: independent)."""
    batch_norm_statistics: Literal["hard", "none"] = "none"
    """Running statistics of every batch norm in the encoders."""
    embedding: Tie = "hard"
    """The feature-embedding network; one for both modalities in the paper."""
    call: Literal["joint", "separate"] = "separate"
    """`joint`: sketches and photos of a step pass a wholly shared encoder in one batch (our HWS default);
    `separate`: two calls, each normalised by its own batch. The paper does not say which HWS used."""


@dataclass(frozen=True)
class Network:
    """Architecture and where it starts."""

    backbone: Annotated[str, Form(BACKBONE,
                                  f"one of {', '.join(BACKBONES)}, or timm:NAME or torchvision:NAME, any model of "
                                  "these libraries (docs/encoders.md)")] = "resnet50"
    weights: Weights = "imagenet"
    """`imagenet`, the published weights of the encoder's name, or `file:<sha256>` of a given state dict,
    so that the identity follows the contents."""
    teacher_weights: Weights = "imagenet"
    """The same for the frozen teacher, whose classifier gives the SVD start."""
    dim: Annotated[int, Range(1, 65_536)] = 64
    """Retrieval dimension D."""
    embedding_norm: Literal["shared", "per_modality"] = "shared"
    """`shared`: one batch norm over D, each modality in a call of its own (released for Sketchy).
    `per_modality`: shared scale and shift, statistics kept apart (released for TU-Berlin, QuickDraw)."""
    dropout: Annotated[float, Range(0, 1, open_high=True)] = 0.0
    """On the retrieval feature, training only (released: 0 for Sketchy; else 0.5 for D <= 64, 0.7 above)."""
    start: Literal["svd", "random"] = "svd"
    """`svd` of the teacher's classifier, or `random` (framework default)."""
    batch_norm_split: Parts = 1
    """Parts of a training batch that every batch norm normalises alone, the first of them alone updating the running
    statistics; the losses see the whole batch (released: 2, by data parallelism over two GPUs). With as many GPUs for a run
    (`--gpus-per-run`), each takes a part; at 1, batch norms are synchronised over them."""


@dataclass(frozen=True)
class Losses:
    """Weights of the terms, applied once, in training (paper: total loss)."""

    class_sketch: Weight = 1.0
    class_photo: Weight = 1.0
    distillation: Weight = 1.0
    """0 leaves the teacher's loss out; the SVD start stays."""
    sharing: Weight = 1000.0
    """Weight of L_SWS (paper: 1000)."""
    semantic: Weight = 1.0
    semantic_form: Literal["coupled", "separate"] = "coupled"
    """`coupled`: anchors mixed with word vectors (the paper's semantic metric). `separate`: batch-hard triplet
    on the features plus a regression to the words (the ablated form)."""
    regression: Weight = 1.0
    """Weight of the regression inside the `separate` form."""
    semantic_off: Literal["zero", "as-released"] = "zero"
    """What weight 0 of the semantic metric means. `zero`: no such term. `as-released`: the `separate` form at weight 1,
    which is what the released code runs when the flag is left out."""
    margin: Weight | None = None
    """None: softplus ("soft margin"); a number: hinge."""


@dataclass(frozen=True)
class Training:
    """Optimisation (paper section on implementation; released script)."""

    epochs: Annotated[int, Range(0, 100_000)] = 10
    encoder_rate: Rate = 1e-4
    """Base learning rate of the encoders (released: 1e-4)."""
    head_rate: Rate = 1e-4
    """Base learning rate of everything else (released: 1e-4)."""
    weight_decay: Weight = 5e-4
    """L2 penalty inside Adam's gradient, not decoupled (released: 5e-4)."""
    optimizer: Literal["adam", "none"] = "adam"
    """`adam`, or `none` for untrained baselines that are not trained."""
    select_by: Literal["seen_accuracy", "validation_map"] = "seen_accuracy"
    """Which epoch is kept: `seen_accuracy` (mean over seen classes on held-out sketches; released) or
    `validation_map` (mAP@all on validation classes, never trained on). Never an unseen class."""


@dataclass(frozen=True)
class Execution:
    """How the same computation is carried out. No field changes what is computed, only its rounding and its speed; rounding is
    amplified by training, so all of them are part of a run's identity. `REFERENCE` is the plain float32 form; docs/speed.md gives
    the tolerance to which each fast form meets it."""

    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the encoders' and the teacher's convolutions in training: `float32`; `tf32` (CUDA: float32 with 10 bits of mantissa in
    products); `bf16` (autocast). Embedding, losses, optimizer and all features that are scored stay float32 or wider."""
    memory_format: Literal["channels-last", "contiguous"] = "channels-last"
    """Order of images and convolution weights in memory: `channels-last` or `contiguous` (PyTorch's default)."""
    batch_norm: Literal["two-pass", "native"] = "two-pass"
    """On the CPU in channels-last order: statistics in two passes with sums in float64 (`two-pass`), or torch's own kernel
    (`native`), whose float32 sums lose three digits there. In contiguous order and on CUDA, both are torch's own."""
    compile: Literal["none", "encoders"] = "none"
    """`encoders`: torch.compile of both encoders and the teacher (a minute or two before the first step); `none`."""
    graphs: Literal["none", "encoders"] = "none"
    """`encoders` (CUDA): forward and backward pass of both encoders and the teacher recorded once and replayed in every step,
    which spares the host the launch of each kernel; `none`."""
    optimizer: Literal["fused", "loop"] = "fused"
    """Adam in one kernel (`fused`), or tensor by tensor (`loop`)."""
    sharing: Literal["fused", "loop"] = "fused"
    """The sharing loss in few passes or kernels (`fused`), or a norm of a difference for each tensor, the gradient left to
    autograd (`loop`)."""
    teacher: Literal["folded", "as-is"] = "folded"
    """The frozen teacher's batch norms multiplied into its convolutions (`folded`), or computed (`as-is`)."""
    convolutions: Literal["cropped", "as-is"] = "cropped"
    """Kernels reduced to the taps that meet the picture where it is smaller than the kernel (`cropped`), or `as-is`."""
    algorithms: Literal["fast", "deterministic"] = "fast"
    """On CUDA: the fastest kernels, whose sums may come in another order each time (`fast`), or only those that give the same
    bits every time (`deterministic`; slower, and refused where an operation has none). The CPU's are deterministic anyway."""


REFERENCE = Execution("float32", "contiguous", "native", "none", "none", "loop", "loop", "as-is", "as-is")
"""Every computation in its plain form."""


@dataclass(frozen=True)
class Evaluation:
    """How features are taken and scored."""

    features: Literal["embedding", "backbone"] = "embedding"
    """`embedding` (D) or `backbone` (d, before the embedding)."""
    statistics: Literal["network", "per_modality", "pca"] = "network"
    """`network`: as the network stands. `per_modality`: features standardised per modality by mean and
    standard deviation taken from seen training images (for untrained baselines). `pca`: reduced to `network.dim` by principal
    components of seen training images of both modalities."""
    photo_side: Literal["photo", "sketch"] = "photo"
    """Which side's output of the embedding gives the photos' features: `photo`, or `sketch` (released: at test time
    photos are normalised with the sketches' statistics, where these are kept apart)."""
    binary: bool = True
    """Also score ITQ codes."""
    itq_rule: Literal["textbook", "released"] = "textbook"
    """Update of ITQ's rotation: `textbook`, or `released`, which takes NumPy's V^H for V."""
    itq_start: Literal["drawn", "released"] = "drawn"
    """Where ITQ starts: `drawn`, a uniformly distributed rotation by the run's seed, the principal axes' signs fixed; `released`:
    the same one whatever the seed, the axes' signs as the library leaves them."""
    itq_fit: Literal["seen", "as-released"] = "seen"
    """What ITQ is fitted on: `seen` training features, or `as-released`: the test sketches, queries and gallery each
    centred on their own mean (transductive: it uses test data)."""
    ties: Literal["expected", "best", "worst", "gallery-order", "scikit-learn", "unstable-sort", "as-released"] = "expected"
    """Order of photos at equal distance: `expected` over random orders, or one of tcn.scoring.scores.TIES (released:
    `as-released`, each protocol as its own code has it)."""
    missing_classes: Literal["error", "zero", "as-released"] = "error"
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
    method: Annotated[str, Form("[a-z0-9][a-z0-9-]{0,59}", "a name in lower case, of letters, digits and hyphens")] = "tcn"
    """What the variant's declaration calls its method."""
    method_source: Annotated[str, Form(f"{BUILT_IN}|file:[0-9a-f]{{64}}",
                                       f"'{BUILT_IN}', or 'file:' and the SHA-256 of the file that declares the variant "
                                       "(--variants makes it)")] = BUILT_IN
    """Where the variant and its method are declared: here, or in a file of the user's own, by its content."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 2020
    """Seed of every random stream (released: 2020)."""


_LATER = {"execution.algorithms": "fast", "execution.batch_norm": "native", "data.resize": "float", "data.transparent": "white",
          "data.exif": "ignored", "evaluation.itq_start": "drawn", "data.validation": "own", "execution.graphs": "none",
          "method_source": BUILT_IN, "data.declared": BUILT_IN}
"""Settings added after the first runs were kept -> the value that those runs had. At that value a setting does not enter the
identity, so that kept runs stay valid."""


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

    Raises InputError for an unknown key or a value that the field does not take, naming it and what it takes.
    """
    if not isinstance(values, dict):
        raise InputError(f"settings are a {type(values).__name__}; they must be a mapping from names to values")
    return change(Config(), flatten(values))


def recorded(values: dict[str, Any]) -> Config:
    """As `from_dict`, of settings that a run recorded: those that came after it take the value that such runs had."""
    return change(Config(), {**_LATER, **flatten(values)})


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
    return dataclasses.replace(node, **{path[0]: _held(value, _declared(node.__class__)[path[0]], full)})


class _Annotation(typing.NamedTuple):
    """A field's annotation, taken apart."""

    hint: Any
    is_group: bool
    or_none: bool
    kind: Any
    choices: tuple[str, ...] | None
    bounds: Any


@functools.cache
def _declared(group: type) -> dict[str, _Annotation]:
    """Field -> what it takes. Kept, since a plan of all rows checks some hundred thousand fields."""
    return {name: _apart(hint) for name, hint in typing.get_type_hints(group, include_extras=True).items()}


def _apart(hint: Any) -> _Annotation:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _apart(next(part for part in parts if part is not type(None)))._replace(hint=hint, or_none=True)
    choices = parts if origin is Literal else None
    kind, bounds = (parts[0], parts[1]) if origin is Annotated else (str if choices else hint, None)
    return _Annotation(hint, dataclasses.is_dataclass(hint), False, kind, choices, bounds)


def _held(value: Any, declared: _Annotation, key: str) -> Any:
    """`value` in the declared type: a whole number becomes a float where one is declared. Raises InputError where not allowed."""
    try:
        return _taken(value, declared)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"setting '{key}' is {_shown(value)}; it takes {_allowed(declared.hint)}") from None


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # a whole number of thousands of digits
        return "a number of too many digits"


def _taken(value: Any, declared: _Annotation) -> Any:
    """The same, but raises ValueError, or the TypeError or OverflowError of a conversion."""
    _, _, or_none, kind, choices, bounds = declared
    if value is None and or_none:
        return None
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (choices and value not in choices) or (bounds is not None and value not in bounds):
        raise ValueError
    return value


def _allowed(hint: Any) -> str:
    """What a field may hold, in words.

    >>> _allowed(Grey), _allowed(Tie)
    ('a whole number from 0 to 255', 'one of hard, soft, none')
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "none (null), or " + _allowed(next(part for part in parts if part is not type(None)))
    if origin is Literal:
        return "one of " + ", ".join(parts)
    if origin is Annotated and parts[0] is str:
        return str(parts[1])
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    return f"{names[parts[0]]} {parts[1]}" if origin is Annotated else names[hint]


def check_fields(settings: Any, prefix: str = "") -> None:
    """Raise InputError where a field of a dataclass, or of one inside it, holds what its annotation does not allow."""
    for name, declared in _declared(settings.__class__).items():
        value = getattr(settings, name)
        if declared.is_group:
            check_fields(value, f"{prefix}{name}.")
        else:
            _held(value, declared, prefix + name)


def check(config: Config) -> None:
    """Raise InputError where a field holds what it may not, or settings contradict each other."""
    check_fields(config)
    whole, own = whole_of(config.data.dataset), config.data.declared != BUILT_IN
    if own == (whole in SPLITS):
        raise InputError(f"setting 'data.declared' is '{config.data.declared}', but '{whole}' is built in; give the data set "
                         "another name" if own else
                         f"setting 'data.dataset' is {config.data.dataset!r}; it takes {_DATASETS}")
    known = SPLITS.get(whole, (OWN_SPLIT,))
    if config.data.split not in known:
        raise InputError(f"setting 'data.split' is '{config.data.split}'; '{config.data.dataset}' has {', '.join(known)}")
    if config.data.validation == "carved" and config.data.dataset == "emoji":
        raise InputError("setting 'data.validation' is 'carved'; 'emoji' has validation classes of its own")
    if config.network.batch_norm_split > config.data.batch_pairs:
        raise InputError(f"setting 'network.batch_norm_split' is {config.network.batch_norm_split}, more than the "
                         f"{config.data.batch_pairs} pairs of a batch ('data.batch_pairs')")
    if config.execution.graphs != "none" and (config.execution.compile != "none" or config.network.batch_norm_split > 1):
        raise InputError("setting 'execution.graphs' is 'encoders', which goes with neither execution.compile=encoders nor a "
                         "'network.batch_norm_split' above 1; leave one of them out")
    if config.training.optimizer != "none" and config.training.epochs < 1:
        raise InputError("setting 'training.epochs' is 0; training needs at least 1")
    if config.coupling.call == "joint" and not wholly_shared(config.coupling):
        raise InputError("setting 'coupling.call' is 'joint', which needs every part of the encoders, batch-norm "
                         "affine and statistics included, to be 'hard'")


def wholly_shared(coupling: Coupling) -> bool:
    """Whether the two encoders are the same network in every part."""
    return all(getattr(coupling, name) == "hard"
               for name in (*PARTS, "batch_norm_affine", "batch_norm_statistics"))


def identity(config: Config, data_digest: str, split_digest: str, words_digest: str = "") -> str:
    """The name of a run, in hexadecimal digits: a hash of settings and contents, without paths, time or host.

    The same settings on the same files give the same identity on every machine.
    """
    settings = to_dict(config)
    for key, value in _LATER.items():
        group, _, name = key.rpartition(".")
        its = settings[group] if group else settings
        if its[name] == value:
            del its[name]
    payload = {"config": settings, "data": data_digest, "split": split_digest, "words": words_digest}
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
