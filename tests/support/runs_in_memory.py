"""Whole runs by the harness's own code, of a tiny network on pictures in memory: what was trained, extracted and scored.

The data are lopsided, so that every setting shows: no two classes of a list have equally many pictures, one unseen class has no
photos where it is asked for, pictures are stored larger than they are seen, in colours, and word vectors have lengths of their
own.
"""
from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_models import CPU, tiny_backbone
from torch import nn

from benchmarks import runner
from benchmarks.experiments import PlannedRun
from benchmarks.extraction import RunFeatures
from benchmarks.material import Material, Places
from benchmarks.mirror import NoMirror
from benchmarks.records import read_rows
from benchmarks.scoring import LedgerRow, RunScores
from benchmarks.store import RunFolder
from tcn.config import Config, change
from tcn.data.pixels import Pixels
from tcn.data.splits import Files, Split
from tcn.data.words import Words
from tcn.model.backbones import Backbone, Classifier
from tcn.train import checkpoints
from tcn.train.method import Ingredients

STORED, SIZE, DIM = 15, 11, 3
SEEN, VALIDATION, UNSEEN = ("ant", "bee", "cow"), ("doe", "elk"), ("fox", "gnu", "hen")
SETTINGS: dict[str, Any] = {
    "data.stored_size": STORED, "data.image_size": SIZE, "data.batch_pairs": 5, "data.sketch_fill": 200, "data.photo_fill": 30,
    "network.dim": DIM, "network.dropout": 0.2, "losses.sharing": 0.3, "training.epochs": 1, "training.encoder_rate": 3e-3,
    "training.head_rate": 3e-2, "training.weight_decay": 0.02}
COUNTS: dict[str, tuple[int, dict[int, int]]] = {
    "train_sketches": (1, {0: 3, 1: 5, 2: 2}), "train_photos": (2, {0: 3, 1: 2, 2: 5}),
    "heldout_sketches": (3, {0: 1, 1: 3, 2: 2}), "validation_sketches": (4, {3: 2, 4: 4}), "validation_photos": (5, {3: 5, 4: 3}),
    "query": (6, {5: 8, 6: 11, 7: 3}), "gallery": (7, {5: 16, 6: 7, 7: 10})}
"""List -> seed of its pictures, and how many each class has."""


def pictures(seed: int, counts: dict[int, int]) -> Pixels:
    """Noisy pictures, in each of which the colour and place of a square tell the class, in some of them wrongly."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(list(counts), list(counts.values()))
    array = rng.integers(0, 120, (len(labels), STORED, STORED, 3), dtype=np.uint8)
    for picture, label in zip(array, np.where(rng.random(len(labels)) < 0.3, rng.permutation(labels), labels).tolist()):
        picture[label:label + 7, 2 * label % 9:2 * label % 9 + 6, label % 3] += 130
    return Pixels(array, Files(Path("."), tuple(f"{seed}/{row}.png" for row in range(len(labels))), labels, ("",) * len(labels)))


@functools.cache
def _encoder(seed: int) -> Backbone:
    made = tiny_backbone(seed)
    with torch.no_grad():
        for _ in range(30):
            made(torch.randn(8, 3, SIZE, SIZE))
    return made.eval()


def encoder(seed: int) -> Backbone:
    """The tiny network; its batch norms have seen pictures, so that none of its features is always 0."""
    return copy.deepcopy(_encoder(seed))


class InMemory(Material):
    """What a run reads, made here instead of read; all that follows from it is the harness's own."""

    def __init__(self, without: str | None = None, repeated: bool = False) -> None:
        """without: an unseen class that has no photos. repeated: every third photo of the gallery is the one before it."""
        super().__init__(Places(cache=Path("/nonexistent"), progress=False))
        self.lists = {role: pictures(*made) for role, made in COUNTS.items()}
        seed, counts = COUNTS["gallery"]
        names = SEEN + VALIDATION + UNSEEN
        gallery = pictures(seed, {label: n for label, n in counts.items() if names[label] != without})
        if repeated:
            again = np.arange(len(gallery)) - (np.arange(len(gallery)) % 3 == 2)
            gallery = Pixels(gallery.array[again], replace(gallery.files, groups=tuple(map(str, again))))
        self.lists["gallery"] = gallery
        files = {role: own.files for role, own in self.lists.items()}
        self.made = Split("sketchy", "1", SEEN, VALIDATION, UNSEEN, **files, data_digest="d" * 64, split_digest="e" * 64)

    def split_of(self, config: Config) -> Split:
        return self.made

    def pixels(self, config: Config, role: str) -> Pixels:
        return self.lists[role]

    def words(self, config: Config) -> Words:
        vectors = np.random.default_rng(8).normal(size=(len(SEEN), 4)).astype(np.float32)
        return Words(SEEN, vectors, "made here")

    def ingredients(self, config: Config) -> Ingredients:
        generator = torch.Generator().manual_seed(9)
        classifier = Classifier(torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator))
        words, further = self.word_tensors(config)
        return Ingredients(encoder(1), encoder(2), classifier, words, len(SEEN), further)


@dataclass
class Outcome:
    """What a run left: its tables of epochs and steps, and what was written of features, scores and ledger."""

    model: nn.Module | None = None
    epochs: list[dict[str, str]] = field(default_factory=list)
    steps: list[dict[str, str]] = field(default_factory=list)
    features: RunFeatures | None = None
    scores: RunScores | None = None
    ledger: tuple[LedgerRow, ...] = ()


def config_of(**delta: Any) -> Config:
    """The settings of these runs with some replaced."""
    return change(Config(), {"data.dataset": "sketchy", "data.split": "1", **SETTINGS, **delta})


def ran(config: Config, folder: Path, scored: bool = True, ledger: bool = False, without: str | None = None,
        repeated: bool = False) -> Outcome:
    """A run by `runner.attempt`, from the planned run to the sealed folder.

    scored: whether features are extracted and scored. ledger: whether the ledger is. without: an unseen class that has no photos.
    repeated: whether photos are listed twice.
    """
    outcome = Outcome()

    def built(*given: Any) -> nn.Module:
        outcome.model = made(*given)
        return outcome.model

    def written(folder: Path, split: Split, features: RunFeatures, scores: RunScores) -> None:
        outcome.features, outcome.scores = features, scores
        (folder / "metrics.csv").touch()

    def ledger_written(folder: Path, rows: tuple[LedgerRow, ...]) -> None:
        outcome.ledger = rows

    made = runner.build_model
    folders = RunFolder(folder, PlannedRun("sketchy", "1", "tcn" if ledger else "nws", config), "f" * 64)
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in (("build_model", built), ("write_run", written), ("write_ledger", ledger_written)):
            patch.setattr(runner, name, stand_in)
        for name in ("save", "keep"):  # a third of such a run's time
            patch.setattr(checkpoints, name, lambda state, path: None)
        if not scored:
            patch.setattr(runner, "run_features", lambda *given: None)
            patch.setattr(runner, "score_run", lambda *given: None)
        patch.setattr(runner.provenance, "collect", lambda device: {})
        patch.setattr(runner.provenance, "write_diff", lambda path: None)
        failure = runner.attempt(folders.run, folders, InMemory(without, repeated), NoMirror(), CPU, "", "a test")
    assert failure is None, failure
    outcome.epochs, outcome.steps = (read_rows(folders.path / f"{name}.csv") for name in ("history", "steps"))
    return outcome
