"""The training step: from the image cache through augmentation, coupled encoders, losses and Adam.

On the CPU the laptop profile is measured (EfficientNet-Lite0 at 64 pixels). On CUDA it is the paper's (ResNet-50 at 224 pixels,
stored at 256, batch 32; random weights, since speed does not depend on them), in every precision. Reference: the plain step of
reference_training.py with its batches in memory. Ceiling: our step with its batches in memory, on the device.
"""
from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import experiments
from benchmarks.speed.conftest import Timed
from benchmarks.speed.reference_training import plain_step
from tcn.config import REFERENCE, Config, Execution, change
from tcn.data.pairs import PairBatch, PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.model import backbones
from tcn.model.backbones import Backbone, Classifier
from tcn.model.execution import keep_memory, place, training_mode
from tcn.seeding import torch_stream
from tcn.train.loop import adam, train_step
from tcn.train.method import TCN, Ingredients, TcnModel

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES, WORDS = 100, 300


@dataclass
class Trainer:
    """A model in training, its optimizer and its source of pairs."""

    model: TcnModel
    optimizer: torch.optim.Optimizer
    config: Config
    source: PairSource

    def batches(self, number: int) -> list[PairBatch]:
        """The first batches of an epoch, on the device."""
        return [batch for batch, _ in zip(self.source.epoch(0, 1, DEVICE), range(number))]

    def step(self, batch: PairBatch, number: int = 0) -> dict[str, torch.Tensor]:
        """Our step."""
        return train_step(TCN, self.model, self.optimizer, batch, self.config, torch_stream(0, "alpha", 1, number))

    def from_cache(self, steps: int) -> None:
        """Train for `steps` steps with batches from the image cache; the losses are fetched once, at the end."""
        with training_mode(self.config.execution, DEVICE):
            read([self.step(batch, n) for n, (batch, _) in enumerate(zip(self.source.epoch(0, 1, DEVICE), range(steps)))])

    def from_memory(self, batches: list[PairBatch]) -> None:
        """Train for one step on each of these batches; the losses are fetched once, at the end."""
        with training_mode(self.config.execution, DEVICE):
            read([self.step(batch, n) for n, batch in enumerate(batches)])

    def plain(self, batches: list[PairBatch]) -> list[dict[str, float]]:
        """The reference's steps."""
        return [plain_step(self.model, self.optimizer, batch, self.config, torch_stream(0, "alpha", 1, n))
                for n, batch in enumerate(batches)]


def read(values: list[dict[str, torch.Tensor]]) -> list[list[float]]:
    return [torch.stack(list(row.values())).tolist() for row in values]


@lru_cache(maxsize=2)
def pixels(number: int, size: int, seed: int) -> Pixels:
    """Random pictures, memory-mapped from a file like those of an image cache."""
    folder = tempfile.mkdtemp()
    path = Path(folder) / "pixels.npy"
    rng = np.random.default_rng(seed)
    np.save(path, rng.integers(0, 256, (number, size, size, 3), dtype=np.uint8))
    files = Files(Path(folder), tuple(map(str, range(number))), np.arange(number) % CLASSES, ("",) * number)
    return Pixels(np.load(path, mmap_mode="r"), files)


def architecture(name: str) -> tuple[Backbone, Classifier]:
    """Encoder and classifier with the same random weights at every call."""
    torch.manual_seed(0)
    return backbones.untrained(name)


def trainer(profile: str, execution: Execution, batch_pairs: int = 32, pictures: int = 1408, **delta: Any) -> Trainer:
    """A TCN of the profile's settings in training, on random pictures."""
    base = next(iter(experiments.PROFILES[profile].base.values()))
    config = change(Config(), {**base, "data.batch_pairs": batch_pairs, **delta,
                               **{f"execution.{key}": value for key, value in dataclasses.asdict(execution).items()}})
    encoder, _ = architecture(config.network.backbone)
    teacher, classifier = architecture(config.network.backbone)
    words = torch.randn(CLASSES, WORDS, generator=torch.Generator().manual_seed(0))
    model = TCN.build(config, Ingredients(encoder, teacher, classifier, words, CLASSES))
    place(model, config.execution, DEVICE)  # changes the model itself
    model.train()
    size = config.data.stored_size
    source = PairSource(pixels(pictures, size, 0), pixels(pictures, size, 1), config.data)
    if execution.graphs != "none":
        with training_mode(execution, DEVICE):
            model.record(torch.zeros(batch_pairs, 3, config.data.image_size, config.data.image_size, device=DEVICE))
    return Trainer(model, adam(model, config), config, source)


def test_the_reference_s_step_is_ours() -> None:
    """Check that both steps have equal losses on the same batch, from the same start."""
    found = []
    for own in (True, False):
        made = trainer("laptop", REFERENCE, batch_pairs=8, pictures=200)
        batch = made.batches(1)[0]
        values = {k: v.item() for k, v in made.step(batch).items()} if own else made.plain([batch])[0]
        found.append(values)
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)


def compare(timed: Timed, role: str, work: str, profile: str, execution: Execution, steps: int,
            beside: str = "", **options: Any) -> None:
    """Time one role of one work. The first steps, which compile and choose algorithms, are not timed."""
    if role != "reference":
        keep_memory()  # as run_all does; the reference runs first, with the C library's default
    made = trainer(profile, REFERENCE if role == "reference" else execution, **options)
    # The reference runs with PyTorch's defaults, TF32 in cuDNN's convolutions among them, as the released code did.
    batches = made.batches(min(steps, made.source.steps)) if role != "ours" else []
    run = {"ours": lambda: made.from_cache(steps), "ceiling": lambda: made.from_memory(batches),
           "reference": lambda: made.plain(batches)}[role]
    timed("training step", work, role, steps * made.config.data.batch_pairs, "pair", run, rounds=4, warmup=1, beside=beside,
          note={"reference": "plain step, batches in memory", "ceiling": "our step, batches in memory", "ours": ""}[role])


@pytest.mark.parametrize("role", ("reference", "ours", "ceiling"))
@pytest.mark.skipif(DEVICE.type == "cuda", reason="the laptop profile is measured on the CPU")
def test_laptop(timed: Timed, role: str) -> None:
    compare(timed, role, "laptop: EfficientNet-Lite0, 64 pixels, batch 32", "laptop", Execution(), steps=12)


FIRST = "paper: ResNet-50, 224 pixels, batch {}, float32"
#: Precision (or float32 with deterministic algorithms), compiled or not, pairs in a batch. The reference is timed with the first
#: entry of each batch size.
PAPER = [("float32", "none", 32), ("deterministic", "none", 32), ("bf16", "none", 32), ("bf16", "encoders", 32),
         ("tf32", "none", 32), ("float32", "none", 128), ("bf16", "none", 128), ("bf16", "encoders", 128), ("tf32", "none", 128),
         ("float32", "encoders", 32), ("tf32", "encoders", 32)]


@pytest.mark.parametrize("precision, compiled, batch", PAPER)
@pytest.mark.parametrize("role", ("reference", "ours", "ceiling"))
@pytest.mark.skipif(DEVICE.type != "cuda", reason="ResNet-50 at 224 pixels is measured on a GPU")
def test_paper(timed: Timed, role: str, precision: Any, compiled: Any, batch: int) -> None:
    if role == "reference" and (precision, compiled) != ("float32", "none"):
        pytest.skip("each batch size has one reference: PyTorch's own defaults")
    work = f"paper: ResNet-50, 224 pixels, batch {batch}, {precision}{', compiled' if compiled == 'encoders' else ''}"
    execution = Execution(algorithms=precision, compile=compiled) if precision == "deterministic" else \
        Execution(precision=precision, compile=compiled)
    compare(timed, role, work, "paper", execution, steps=16, batch_pairs=batch, pictures=16 * batch, beside=FIRST.format(batch))
