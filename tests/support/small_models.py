"""Models and data small enough to train in a test."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tcn.config import PARTS, Config, change
from tcn.data.pairs import PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.model.backbones import Backbone, Classifier
from tcn.train import loop
from tcn.train.loop import History, ValidationData
from tcn.train.method import TCN, Ingredients


class TinyTrunk(nn.Module):
    """Five parts, each a convolution and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
                                    for i in range(5))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


def tiny_backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    trunk = TinyTrunk()
    return Backbone(trunk, {part: [block] for part, block in zip(PARTS, trunk.blocks)}, 4)


CPU = torch.device("cpu")


CLASSES = 4


def pixels(labels: list[int], seed: int) -> Pixels:
    """Class c is a bright spot in its own quarter of a noisy picture."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 60, (len(labels), 12, 12, 3), dtype=np.uint8)
    for i, c in enumerate(labels):
        array[i, 6 * (c % 2):6 * (c % 2) + 6, 6 * (c // 2 % 2):6 * (c // 2 % 2) + 6, c % 3] += 150
    return Pixels(array, Files(Path("."), tuple(map(str, range(len(labels)))), np.array(labels), ("",) * len(labels)))


def config(**delta) -> Config:
    return change(Config(), {"network.dim": 4, "data.image_size": 12, "data.stored_size": 12, "data.batch_pairs": 8,
                             "training.epochs": 3, "training.encoder_rate": 3e-3, "training.head_rate": 3e-2, **delta})


def ingredients(seed: int = 0) -> Ingredients:
    g = torch.Generator().manual_seed(seed)
    return Ingredients(tiny_backbone(seed), tiny_backbone(seed), Classifier(torch.randn(1000, 4, generator=g), torch.zeros(1000)),
                       torch.randn(CLASSES, 5, generator=g), CLASSES, torch.randn(1000, 5, generator=g))


def setup(settings: Config):
    labels = [i % CLASSES for i in range(24)]
    source = PairSource(pixels(labels[:12], 1), pixels(labels, 2), settings.data)
    validation = ValidationData(pixels(labels[:8], 3), pixels([4, 5, 4, 5], 4), pixels([4, 4, 5, 5, 5], 5))
    return TCN.build(settings, ingredients()), source, validation


def train(folder: Path, settings: Config, **options) -> tuple[nn.Module, History]:
    folder.mkdir(parents=True, exist_ok=True)
    model, source, validation = setup(settings)
    history = loop.fit(TCN, model, source, validation, settings, folder, CPU, progress=False, **options)
    return model, history


def strip(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "pairs_per_second")} for row in rows]
