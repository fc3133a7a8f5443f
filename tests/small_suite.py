"""A suite small enough for tests: QuickDraw in its layout with tiny pictures, random weights, a table of words."""
from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torchvision import models
from trees import class_names, make_tree

TINY = ["network.dim=8", "data.image_size=32", "data.stored_size=32", "training.encoder_rate=1e-3", "training.head_rate=1e-2"]
SMALL = ["--set", "network.backbone=resnet18", *TINY]
LIGHT = ["--set", "network.backbone=efficientnet_lite0", *TINY]
"""The same with a third of the parameters: for tests that write many checkpoints."""
ONE = ("--datasets", "quickdraw", "--seeds", "3")


def make_place(root: Path) -> Path:
    """A data root with QuickDraw, random weights, a word table; returns `root`."""
    make_tree(root / "data", "quickdraw", sketches=3, photos=2, size=16)
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), root / "r18.pth")
    rng = np.random.default_rng(0)
    with open(root / "words.csv", "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["name", *(f"v{i}" for i in range(6))])
        rows.writerows([name, *rng.normal(size=6).round(3)] for name in class_names("quickdraw"))
    return root


def places(place: Path, weights: bool = True) -> list[str]:
    """Where things are, for the command line; `weights`: with the random ones of ResNet-18."""
    given = ["--data-root", str(place / "data"), "--cache", str(place / "cache"), "--words", str(place / "words.csv"),
             "--device", "cpu"]
    return [*given, "--weights", str(place / "r18.pth")] if weights else given


def common(place: Path) -> list[str]:
    """Arguments of a run of one epoch."""
    return [*places(place), "--quick", *SMALL]


def light(place: Path) -> list[str]:
    """The same with the lighter network."""
    return [*places(place, weights=False), "--quick", *LIGHT]


def cells(output: Path) -> dict[str, Path]:
    """Cell folders of a suite by name without the identity."""
    return {p.name.rsplit("__", 1)[0]: p for p in (output / "cells").iterdir()}
