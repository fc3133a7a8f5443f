"""A suite small enough for tests: QuickDraw in its layout with tiny pictures, random weights, a table of words."""
from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from support.trees import class_names, make_tree

TINY = ["network.dim=8", "data.image_size=32", "data.stored_size=32", "training.encoder_rate=1e-3", "training.head_rate=1e-2"]
SMALL = ["--set", "network.backbone=test_resnet", *TINY]
ONE = ("--datasets", "quickdraw", "--seeds", "3")


def make_place(root: Path) -> Path:
    """A data root with QuickDraw, random weights, a word table; returns `root`."""
    make_tree(root / "data", "quickdraw", sketches=3, photos=2, size=16)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), root / "weights.pth")
    rng = np.random.default_rng(0)
    with open(root / "words.csv", "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["name", *(f"v{i}" for i in range(6))])
        rows.writerows([name, *rng.normal(size=6).round(3)] for name in class_names("quickdraw"))
    return root


def places(place: Path) -> list[str]:
    """Where things are, for the command line."""
    return ["--data-root", str(place / "data"), "--cache", str(place / "cache"), "--words", str(place / "words.csv"),
            "--device", "cpu", "--weights", str(place / "weights.pth")]


def common(place: Path) -> list[str]:
    """Arguments of a run of one epoch."""
    return [*places(place), "--quick", *SMALL]


def run_here(arguments: Sequence[str], threads: int | None = None) -> None:
    """The command in this process, which must succeed and leaves the number of threads as it was (`threads` meanwhile)."""
    from benchmarks import run_all

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        assert run_all.main(arguments) == 0
    finally:
        torch.set_num_threads(before)


def run_folders(output: Path) -> dict[str, Path]:
    """Run folders of a suite by name without the identity."""
    return {p.name.rsplit("__", 1)[0]: p for p in (output / "runs").iterdir()}
