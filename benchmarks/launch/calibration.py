"""How fast this device is at what a run does, measured once in a short calibration and kept in the cache folder.

In: a run's settings, a device. Out: training pairs, feature images, scored queries and decoded files per second, and the
memory they took, at the sizes of a real run (random weights and pictures: speed does not depend on what they show).
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageDraw

import tcn
from benchmarks import provenance
from benchmarks.experiments import PlannedRun
from benchmarks.launch import power
from benchmarks.material import build_model
from benchmarks.records import read_json, write_json
from tcn import metrics
from tcn.config import BUILT_IN, PARTS, Config, InputError, Modality, change, to_dict
from tcn.data.decode import decode
from tcn.data.pairs import PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.data.store import pack
from tcn.files.atomic import warn
from tcn.model import backbones
from tcn.scoring.features import Encoding, extract
from tcn.seeding import borrowed
from tcn.train import loop
from tcn.train.method import Ingredients

FILE = "calibration.json"
FEW_STEPS = 5
"""A rate from fewer training steps is called rough."""
PICTURES = 32
CLASSES = 8
WORD_SIZE = 300
STEP_SECONDS = 2.0
"""A training step expected to take longer is measured on fewer pairs."""
SMALL_BATCHES = (4, 12)
MOST_PICTURES = 1024
SHAPE_SECONDS = 6.0
"""Training steps of one shape go on for about as long."""
TIMED_SECONDS = 1.0
"""Other measurements grow until they take as long."""


@dataclass(frozen=True)
class TrainingShape:
    """What of a run's settings decides the cost of a training step."""

    backbone: str
    image_size: int
    stored_size: int
    batch_pairs: int
    dim: int
    encoders: int
    """1 where every part is shared, else 2."""
    joint: bool
    """Both modalities pass in one batch."""
    tied: bool
    """The sharing loss reads parameters of both encoders."""
    teacher: bool
    """The frozen network sees every photo too."""
    batch_norm_split: int
    execution: str
    """How it is computed (precision, layout, compiling), as JSON."""
    method: str
    """Other methods' losses, and what they leave untrained, cost other times."""
    method_source: str


@dataclass(frozen=True)
class ExtractionShape:
    """What decides the cost of one image's features."""

    backbone: str
    image_size: int
    stored_size: int
    execution: str
    method_source: str
    """Methods of the user's own may have another network; all built-in ones have the backbone."""
    method: str


@dataclass(frozen=True)
class ScoringShape:
    """What decides the cost of one query: the gallery's size, dimensions of the features, bits of the codes."""

    gallery: int
    dim: int
    bits: int


@dataclass(frozen=True)
class Rate:
    """Something measured: units per second, over how many steps of how many units, and the memory at its peak."""

    per_second: float
    steps: int
    units: int
    """Units in a step."""
    host_bytes: int = 0
    """Peak of the process that measured."""
    device_bytes: int = 0
    model_bytes: int = 0
    """The model's state, as a checkpoint holds it."""
    watts: float = 0.0
    """Drawn by the GPU meanwhile; 0 where nothing tells."""
    measured: str = ""
    """When, in UTC."""


def _execution(config: Config) -> str:
    return json.dumps(to_dict(config).get("execution", {}), sort_keys=True)


def training_shape(config: Config) -> TrainingShape:
    """The shape of a trained run's steps; runs of equal shape cost the same."""
    parts = {getattr(config.coupling, part) for part in PARTS}
    return TrainingShape(config.network.backbone, config.data.image_size, config.data.stored_size, config.data.batch_pairs,
                         config.network.dim, 1 if parts == {"hard"} else 2, config.coupling.call == "joint", "soft" in parts,
                         config.losses.distillation > 0, config.network.batch_norm_split, _execution(config), config.method,
                         config.method_source)


def extraction_shape(config: Config) -> ExtractionShape:
    """The shape of a run's feature extraction."""
    own = config.method_source != BUILT_IN
    return ExtractionShape(config.network.backbone, config.data.image_size, config.data.stored_size, _execution(config),
                           config.method_source, config.method if own else "")


def scoring_shape(config: Config, gallery: int) -> ScoringShape:
    """The shape of a run's scoring of the unseen classes."""
    backbone = config.evaluation.features == "backbone"
    return ScoringShape(gallery, backbones.source(config.network.backbone).features if backbone else config.network.dim,
                        config.network.dim)


# --- kept rates ----------------------------------------------------------------------------------------------

class Calibration:
    """Rates of one device, read from the cache folder and measured where they are not there."""

    def __init__(self, cache: Path, device: torch.device, force: bool = False, say: Callable[[str], None] = print) -> None:
        """`force`: measure each anew. `say`: told what is measured, before it is."""
        self.cache, self.device, self._say, self._force = cache, device, say, force
        self.path = cache / FILE
        self._known = self._kept()
        self._fresh: set[str] = set()

    def _kept(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            return read_json(self.path, "its rates are measured anew")
        except InputError as error:
            warn(str(error))
            return {}

    def training(self, run: PlannedRun) -> Rate:
        """Training pairs per second."""
        shape = training_shape(run.config)
        return self._rate("training", shape, f"training, {shape.backbone} at {shape.image_size} pixels like {run.variant}",
                          lambda: self._with_pictures(run, _measure_training))

    def extraction(self, run: PlannedRun) -> Rate:
        """Images to features per second."""
        shape = extraction_shape(run.config)
        return self._rate("extraction", shape, f"features, {shape.backbone} at {shape.image_size} pixels",
                          lambda: self._with_pictures(run, _measure_extraction))

    def scoring(self, run: PlannedRun, queries: int, gallery: int) -> Rate:
        """Queries scored per second, real-valued and binary, by all protocols."""
        shape = scoring_shape(run.config, gallery)
        return self._rate("scoring", shape, f"scoring against {gallery:,} photos",
                          lambda: _measure_scoring(shape, queries, self.device))

    def decoding(self, size: int) -> Rate:
        """Picture files to squares of `size` pixels per second on one core."""
        return self._rate("decoding", size, f"decoding to {size} pixels", lambda: _measure_decoding(size))

    def _rate(self, what: str, shape: Any, words: str, measure: Callable[[], Rate]) -> Rate:
        identity = [what, shape if isinstance(shape, int) else asdict(shape), provenance.device_name(self.device),
                    torch.get_num_threads(), torch.__version__, _code()]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        known = _rate_of(self._known.get(key))
        if key in self._known and known is None:
            warn(f"{self.path}: the entry {key} is damaged; measured anew")
        if known is not None and not (self._force and key not in self._fresh):
            return known
        self._say(f"measuring once: {words}")
        rate = replace(measure(), measured=provenance.now())
        # Another command may have measured something else meanwhile.
        self._known = {**self._kept(), key: {"of": identity, **asdict(rate)}}
        write_json(self.path, self._known)
        self._fresh.add(key)
        return rate

    def _with_pictures(self, run: PlannedRun, measure: Callable[..., Rate]) -> Rate:
        with tempfile.TemporaryDirectory(prefix="tcn-calibration-") as folder:
            return measure(run, self.device, Path(folder))


def _rate_of(entry: Any) -> Rate | None:
    """The rate that an entry of the file holds; None where it is damaged."""
    try:
        rate = Rate(**{name: value for name, value in entry.items() if name != "of"})
        numbers = [value for name, value in asdict(rate).items() if name != "measured"]
        return rate if all(value >= 0 for value in numbers) and rate.per_second > 0 and isinstance(rate.measured, str) else None
    except (AttributeError, TypeError):
        return None


@functools.cache
def _code() -> str:
    """Digest of the method's source: a rate measured with other code says nothing of this one."""
    files = sorted(Path(tcn.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


# --- what is measured with ------------------------------------------------------------------------------------

def draw_pictures(folder: Path, modality: Modality, size: int) -> list[str]:
    """PICTURES files such as the data sets hold: photos as JPEG, drawings as PNG of thin lines; names below `folder`."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(PICTURES):
        if modality is Modality.PHOTO:
            coarse = Image.fromarray(rng.integers(0, 256, (size // 3, size // 3, 3), dtype=np.uint8))
            picture, name = coarse.resize((size, size), Image.Resampling.BICUBIC), f"photo-{i}.jpg"
        else:
            picture, name = Image.new("RGB", (size, size), "white"), f"sketch-{i}.png"
            ImageDraw.Draw(picture).line([tuple(point) for point in rng.integers(0, size, (24, 2)).tolist()], "black", 2)
        if not (folder / name).exists():
            picture.save(folder / name)
        names.append(name)
    return names


def _pixels(folder: Path, modality: Modality, stored_size: int, count: int) -> Pixels:
    names = draw_pictures(folder, modality, 256)
    chosen = tuple(names[i % PICTURES] for i in range(count))
    files = Files(folder, chosen, np.arange(count) % CLASSES, ("",) * count)
    return pack(files, stored_size, folder / "cache", f"calibration {modality.value} {count}", f"calibration {modality.value}",
                False)


def _random_model(run: PlannedRun, device: torch.device) -> torch.nn.Module:
    name = run.config.network.backbone
    with borrowed(0):
        encoder, (teacher, classifier) = backbones.untrained(name)[0], backbones.untrained(name)
        words, imagenet_words = torch.randn(CLASSES, WORD_SIZE), torch.randn(len(classifier.bias), WORD_SIZE)
    return build_model(run.definition.method, run.config,
                       Ingredients(encoder, teacher, classifier, words, CLASSES, imagenet_words), device)


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes at this process's peak on the host and on the device."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Enough(Exception):
    """Stops the training loop once it has been timed."""


def _measure_extraction(run: PlannedRun, device: torch.device, folder: Path, model: torch.nn.Module | None = None) -> Rate:
    """Features of photos in memory; the number of photos grows until they take long enough."""
    model = model or _random_model(run, device)

    def take(count: int) -> float:
        pixels = _pixels(folder, Modality.PHOTO, run.config.data.stored_size, count)
        started = time.perf_counter()
        extract(cast(Encoding, model), pixels, Modality.PHOTO, run.config.data.image_size, device)
        _wait(device)
        return time.perf_counter() - started

    take(4)
    count, seconds = 16, take(16)
    while count < MOST_PICTURES and seconds < TIMED_SECONDS:
        count *= 4
        seconds = take(count)
    return Rate(count / seconds, 1, count, *_memory(device))


def _measure_training(run: PlannedRun, device: torch.device, folder: Path) -> Rate:
    """Steps of the training loop itself, on pictures in memory.

    Where a whole batch would take long (a large network on the CPU), two smaller ones are timed and the line through
    them is followed to the batch's size: part of a step's cost does not depend on the number of pairs.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = _random_model(run, device)
    samples: list[float] = []
    batch = run.config.data.batch_pairs
    features = _measure_extraction(run, device, folder, model)
    # A step feeds two images a pair forwards and back, which costs some three times a forward pass; and the teacher's.
    expected = 7 * batch / features.per_second
    if device.type == "cuda" or expected <= STEP_SECONDS or batch <= max(SMALL_BATCHES):
        steps = max(1, min(16, int(SHAPE_SECONDS / 3 / expected)))
        with power.drawn(power.name_of(device)) as samples:
            seconds, timed = _time_steps(run, model, device, folder, batch, steps, warm=False)
        per_step, units = seconds / timed, batch
    else:
        few, more = SMALL_BATCHES
        first, second = (_time_steps(run, model, device, folder, size, 1, warm=size == more)[0] for size in SMALL_BATCHES)
        slope = (second - first) / (more - few)
        # Noise may turn the line round; then the larger batch stands for all.
        per_step = second + slope * (batch - more) if slope > 0 else second * batch / more
        timed, units = 2, more
    bytes_of_state = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return Rate(batch / per_step, timed, units, *_memory(device), model_bytes=bytes_of_state, watts=power.middle(samples))


def _time_steps(run: PlannedRun, model: torch.nn.Module, device: torch.device, folder: Path, pairs: int, steps: int, warm: bool
                ) -> tuple[float, int]:
    """Seconds of training and steps timed, by the loop's own clock; an epoch has `steps` steps of `pairs` pairs.

    `warm`: the first epoch counts and is the only one; else it warms up, and up to three follow.
    """
    # The rates are so small that random weights stay where they are.
    config = change(run.config, {"training.epochs": 100, "training.select_by": "seen_accuracy", "data.batch_pairs": pairs,
                                  "training.encoder_rate": 1e-9, "training.head_rate": 1e-9})
    sketches, photos = (_pixels(folder, modality, config.data.stored_size, steps * pairs) for modality in Modality)
    heldout = _pixels(folder, Modality.SKETCH, config.data.stored_size, CLASSES)
    rows: list[dict[str, float]] = []
    started = time.perf_counter()

    def note(history: loop.History) -> None:
        rows[:] = history.epochs[1 if warm else 2:]
        if rows and (warm or time.perf_counter() - started > SHAPE_SECONDS or len(rows) == 3):
            raise _Enough

    own = folder / f"steps-of-{pairs}"
    own.mkdir()
    with contextlib.suppress(_Enough):
        loop.fit(run.definition.method, model, PairSource(sketches, photos, config.data),
                 loop.ValidationData(heldout, None, None), config, own, device, progress=False, on_epoch=note)
    return sum(row["seconds"] for row in rows), len(rows) * steps


def _measure_scoring(shape: ScoringShape, queries: int, device: torch.device) -> Rate:
    """Random features and codes by all protocols, and precision over recall; more queries until they take long enough, or all are there."""
    rng = np.random.default_rng(0)
    classes = min(25, shape.gallery)

    def take(number: int) -> float:
        labels = np.arange(number) % classes, np.arange(shape.gallery) % classes
        seconds = 0.0
        for metric, width in (("euclidean", shape.dim), ("hamming", shape.bits)):
            query, gallery = (rng.standard_normal((len(own), width)).astype(np.float32) for own in labels)
            sides = (query > 0, gallery > 0) if metric == "hamming" else (query, gallery)
            started = time.perf_counter()
            metrics.score(sides[0], sides[1], labels[0], labels[1], protocols=metrics.ALL, metric=metric, device=device)
            if metric == "euclidean":
                metrics.precision_recall(sides[0], sides[1], labels[0], labels[1], device=device)
            seconds += time.perf_counter() - started
        return seconds

    number = min(queries, 32)
    take(min(number, 4))
    seconds = take(number)
    while seconds < TIMED_SECONDS and number < queries:
        number = min(queries, 4 * number)
        seconds = take(number)
    return Rate(number / seconds, 1, number)


def _measure_decoding(size: int) -> Rate:
    with tempfile.TemporaryDirectory(prefix="tcn-calibration-") as name:
        folder = Path(name)
        paths = [folder / file for modality in Modality for file in draw_pictures(folder, modality, 256)]
        decode(paths[0], size)
        done, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < TIMED_SECONDS:
            decode(paths[done % len(paths)], size)
            done += 1
    return Rate(done / seconds, done, 1)
