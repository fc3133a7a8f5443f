"""The speed of this device at each part of a run, measured once in a short calibration and kept in the cache folder.

In: a run's settings, a device. Out: training pairs, images encoded, queries scored and files decoded per second, and the
memory that this took, at the sizes of a real run (random weights and pictures: speed does not depend on what they show).
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
"""A rate measured over fewer training steps is reported as rough."""
PICTURES, CLASSES, WORD_SIZE = 32, 8, 300
STEP_SECONDS = 2.0
"""A training step that is expected to take longer than this is measured on fewer pairs."""
SMALL_BATCHES = (4, 12)
MOST_PICTURES = 1024
SHAPE_SECONDS = 6.0
"""For each shape, training steps are timed for about this long."""
TIMED_SECONDS = 1.0
"""The other measurements take more and more items until they last this long."""


@dataclass(frozen=True)
class TrainingShape:
    """The settings of a run that decide the cost of a training step."""

    backbone: str
    image_size: int
    stored_size: int
    resize: str
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
    """The settings of the computation (precision, layout, compiling), as JSON."""
    method: str
    """Methods differ in the cost of their losses and in what they train."""
    method_source: str


@dataclass(frozen=True)
class ExtractionShape:
    """The settings that decide the cost of encoding one image."""

    backbone: str
    image_size: int
    stored_size: int
    resize: str
    execution: str
    method_source: str
    method: str
    """Of a user's own method, which may have another network; all built-in ones use the backbone."""


@dataclass(frozen=True)
class ScoringShape:
    """What decides the cost of one query: the gallery's size, dimensions of the features, bits of the codes."""

    gallery: int
    dim: int
    bits: int


@dataclass(frozen=True)
class Rate:
    """One measurement: units per second, the number of steps and of units per step, and the peak memory."""

    per_second: float
    steps: int
    units: int
    """Units in a step."""
    host_bytes: int = 0
    """Peak memory of the measuring process on the host; `device_bytes` on the GPU."""
    device_bytes: int = 0
    model_bytes: int = 0
    """Size of the model's state, as a checkpoint holds it."""
    watts: float = 0.0
    """Power that the GPU drew meanwhile; 0 where it is not known."""
    measured: str = ""
    """When, in UTC."""


def _execution(config: Config) -> str:
    return json.dumps(to_dict(config).get("execution", {}), sort_keys=True)


def training_shape(config: Config) -> TrainingShape:
    """The shape of a run's training steps; steps of equal shape cost the same."""
    parts = {getattr(config.coupling, part) for part in PARTS}
    return TrainingShape(config.network.backbone, config.data.image_size, config.data.stored_size, config.data.resize,
                         config.data.batch_pairs, config.network.dim, 1 if parts == {"hard"} else 2,
                         config.coupling.call == "joint", "soft" in parts, config.losses.distillation > 0,
                         config.network.batch_norm_split, _execution(config), config.method, config.method_source)


def extraction_shape(config: Config) -> ExtractionShape:
    """The shape of a run's feature extraction."""
    return ExtractionShape(config.network.backbone, config.data.image_size, config.data.stored_size, config.data.resize,
                           _execution(config), config.method_source, config.method if config.method_source != BUILT_IN else "")


def scoring_shape(config: Config, gallery: int) -> ScoringShape:
    """The shape of a run's scoring of the unseen classes."""
    backbone = config.evaluation.features == "backbone"
    return ScoringShape(gallery, backbones.source(config.network.backbone).features if backbone else config.network.dim,
                        config.network.dim)


# --- kept rates ----------------------------------------------------------------------------------------------

class Calibration:
    """Rates of one device, read from the cache folder, and measured if they are missing there."""

    def __init__(self, cache: Path, device: torch.device, force: bool = False, say: Callable[[str], None] = print) -> None:
        """`force`: measure every rate anew. `say`: called with a line of text before each measurement."""
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
        """Images encoded per second."""
        shape = extraction_shape(run.config)
        return self._rate("extraction", shape, f"features, {shape.backbone} at {shape.image_size} pixels",
                          lambda: self._with_pictures(run, _measure_extraction))

    def scoring(self, run: PlannedRun, queries: int, gallery: int) -> Rate:
        """Queries scored per second: real-valued features and binary codes, under all protocols."""
        shape = scoring_shape(run.config, gallery)
        return self._rate("scoring", shape, f"scoring against {gallery:,} photos",
                          lambda: _measure_scoring(shape, queries, self.device))

    def decoding(self, size: int) -> Rate:
        """Picture files decoded to `size` x `size` pixels per second on one core."""
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
        # Another command may have written other rates meanwhile.
        self._known = {**self._kept(), key: {"of": identity, **asdict(rate)}}
        write_json(self.path, self._known)
        self._fresh.add(key)
        return rate

    def _with_pictures(self, run: PlannedRun, measure: Callable[..., Rate]) -> Rate:
        with tempfile.TemporaryDirectory(prefix="tcn-calibration-") as folder:
            return measure(run, self.device, Path(folder))


def _rate_of(entry: Any) -> Rate | None:
    """The rate that an entry of the file holds; None if the entry is damaged."""
    try:
        rate = Rate(**{name: value for name, value in entry.items() if name != "of"})
        numbers = [value for name, value in asdict(rate).items() if name != "measured"]
        return rate if all(value >= 0 for value in numbers) and rate.per_second > 0 and isinstance(rate.measured, str) else None
    except (AttributeError, TypeError):
        return None


@functools.cache
def _code() -> str:
    """Digest of the method's source code. A rate that was measured with other code is not used."""
    files = sorted(Path(tcn.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


# --- what is measured with ------------------------------------------------------------------------------------

def draw_pictures(folder: Path, modality: Modality, size: int) -> list[str]:
    """Write PICTURES files like those of the data sets (photos: JPEG; thin lines: PNG); their names in `folder`."""
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
    """Peak memory of this process in bytes, on the host and on the device."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Enough(Exception):
    """Stops the training loop once it has been timed."""


def _measure_extraction(run: PlannedRun, device: torch.device, folder: Path, model: torch.nn.Module | None = None) -> Rate:
    """Encode photos that are in memory; the number of photos grows until encoding takes long enough."""
    model, data = model or _random_model(run, device), run.config.data

    def take(count: int) -> float:
        pixels = _pixels(folder, Modality.PHOTO, data.stored_size, count)
        started = time.perf_counter()
        extract(cast(Encoding, model), pixels, Modality.PHOTO, data.image_size, device, resize=data.resize)
        _wait(device)
        return time.perf_counter() - started

    take(4)
    count, seconds = 16, take(16)
    while count < MOST_PICTURES and seconds < TIMED_SECONDS:
        count *= 4
        seconds = take(count)
    return Rate(count / seconds, 1, count, *_memory(device))


def _measure_training(run: PlannedRun, device: torch.device, folder: Path) -> Rate:
    """Time steps of the training loop itself, on pictures in memory.

    If a whole batch would take long (a large network on the CPU), two smaller ones are timed and extrapolated to the size of
    the batch by a straight line, since part of a step's cost does not depend on the number of pairs.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = _random_model(run, device)
    samples: list[float] = []
    batch = run.config.data.batch_pairs
    features = _measure_extraction(run, device, folder, model)
    # Both images of a pair pass forward and backward (about three forward passes each), the photo also through the teacher: 7.
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
        # Noise can make the slope negative; then the cost is taken as proportional to the larger batch's.
        per_step = second + slope * (batch - more) if slope > 0 else second * batch / more
        timed, units = 2, more
    bytes_of_state = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return Rate(batch / per_step, timed, units, *_memory(device), model_bytes=bytes_of_state, watts=power.middle(samples))


def _time_steps(run: PlannedRun, model: torch.nn.Module, device: torch.device, folder: Path, pairs: int, steps: int, warm: bool
                ) -> tuple[float, int]:
    """Seconds of training and number of steps timed, by the loop's own clock. An epoch has `steps` steps of `pairs` pairs.

    `warm`: the device is warm already, so a single epoch is timed; else the first epoch warms up, and up to three are timed.
    """
    # The learning rates are so small that the random weights hardly change.
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
    """Score random features and codes under all protocols, with precision over recall. The number of queries grows until scoring
    takes long enough, or until it is that of the run."""
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
