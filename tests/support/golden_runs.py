"""The settings and the model of the golden test, for all tests that compare with the oracle."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.golden_oracle import FEATURES, backbone
from torch import nn

from tcn.config import REFERENCE, Config, Modality
from tcn.data.pairs import PairBatch, PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.model.backbones import Classifier
from tcn.train.method import TCN, Ingredients

CPU = torch.device("cpu")


SEEN, WORDS, TEACHER_CLASSES, DIM = 4, 3, 11, 5


STORED, SIZE = 15, 12


SETTINGS = {
    "data.stored_size": STORED, "data.image_size": SIZE, "data.batch_pairs": 7, "data.sketch_fill": 200, "data.photo_fill": 30,
    "network.dim": DIM, "network.dropout": 0.3, "training.epochs": 3, "training.encoder_rate": 2e-3, "training.head_rate": 5e-2,
    "training.weight_decay": 0.05, "losses.class_sketch": 0.7, "losses.class_photo": 1.3, "losses.distillation": 0.9,
    "losses.sharing": 0.3, "losses.semantic": 1.2, "losses.regression": 0.6, "seed": 5}


PLAIN = {f"execution.{key}": value for key, value in dataclasses.asdict(REFERENCE).items()}


def pictures(counts: list[int], first: int, seed: int) -> Pixels:
    """counts[i] noisy pictures of class first + i, each class bright in its own place; in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(first, first + len(counts)), counts))
    array = rng.integers(0, 100, (len(labels), STORED, STORED, 3), dtype=np.uint8)
    for picture, label in zip(array, labels):
        picture[2 * label % 9:2 * label % 9 + 6, 3 * label % 8:3 * label % 8 + 8, label % 3] += 150
    return Pixels(array, Files(Path("."), tuple(map(str, range(len(labels)))), labels, ("",) * len(labels)))


SKETCHES, PHOTOS = pictures([3, 1, 6, 4], 0, 1), pictures([11, 4, 2, 8], 0, 2)


class Recorded(PairSource):
    """The real pairs, in float64 and kept: `batches` by epoch."""

    def __init__(self, settings: Any, sketches: Pixels = SKETCHES, photos: Pixels = PHOTOS) -> None:
        super().__init__(sketches, photos, settings)
        self.batches: list[list[PairBatch]] = []

    def epoch(self, *arguments: Any, **options: Any) -> Iterator[PairBatch]:
        self.batches.append([])
        for batch in super().epoch(*arguments, **options):
            self.batches[-1].append(dataclasses.replace(batch, sketches=batch.sketches.double(), photos=batch.photos.double()))
            yield self.batches[-1][-1]


def ingredients() -> Ingredients:
    g = torch.Generator().manual_seed(8)
    weight, bias, words = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in
                           ((TEACHER_CLASSES, FEATURES), (TEACHER_CLASSES,), (SEEN, WORDS)))
    return Ingredients(backbone(1), backbone(2), Classifier(weight, bias), words, SEEN)


def built(config: Config) -> nn.Module:
    """The product's model in float64, given float64 also where validation hands it float32."""
    model = TCN.build(config, ingredients()).double()
    network = model.network
    for module in {network.encoders.sketch, network.encoders.photo, *(network.embedding(m).class_head for m in Modality)}:
        module.register_forward_pre_hook(lambda module, values: tuple(value.double() for value in values))
    return model
