"""Search of the laptop settings on validation classes, one seed, few epochs; unseen classes are never read.

`python benchmarks/search_settings.py --out benchmarks/results/search.csv` trains each point of the stated grids and
writes one row a point: the settings that differ, best validation mAP@all and its epoch, seen-class accuracy.
Finished points are kept; `--part 1/2` takes every second one, for two processes side by side.
"""
from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any, Sequence

import torch

import baselines
from benchmarks import experiments
from benchmarks.provenance import ROOT
from benchmarks.runner import Material, Places, build_model, validation_data
from tcn import training
from tcn.batches import PairSource
from tcn.config import Config, change

SEED = 100
"""Not a seed that is reported."""
COLUMNS = ("stage", "variant", "settings", "epochs", "validation_map", "best_epoch", "seen_accuracy", "class_sketch",
           "sharing", "seconds")


def grid() -> list[tuple[str, str, dict[str, Any]]]:
    """(stage, variant, settings) of every point tried, in the order in which they were thought of."""
    points: list[tuple[str, str, dict[str, Any]]] = []

    def add(stage: str, variant: str, encoder: float, head: float, **more: Any) -> None:
        points.append((stage, variant, {"training.encoder_rate": encoder, "training.head_rate": head, "training.epochs": 8,
                                        **{key.replace("__", "."): value for key, value in more.items()}}))

    for variant in ("nws", "hws"):
        for encoder, head in ((3e-4, 3e-3), (1e-3, 3e-3), (1e-3, 1e-2)):
            add("rates", variant, encoder, head)
    add("rates", "nws", 1e-4, 1e-4)
    add("batch", "nws", 1e-3, 1e-2, data__batch_pairs=16)
    add("norm", "nws", 1e-3, 1e-2, network__embedding_norm="shared")
    for encoder, head in ((1e-3, 3e-2), (3e-3, 1e-2)):
        add("rates", "nws", encoder, head)
        add("rates", "hws", encoder, head)
    for weight in (0.1, 1.0, 10.0, 100.0, 1000.0):
        add("weight", "tcn", 1e-3, 1e-2, losses__sharing=weight)
    for weight in (0.1, 1.0, 10.0, 0.01, 100.0, 1000.0):
        add("weight", "tcn", 3e-3, 1e-2, losses__sharing=weight)
    return points


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search.csv")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th point, from the K-th")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    part, parts = map(int, options.part.split("/"))
    material = Material(Places(ROOT / ".cache", progress=False))
    (key, base), = experiments.PROFILES["laptop"].base.items()
    for number, (stage, variant, settings) in enumerate(grid()):
        text = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
        if number % parts != part - 1 or (stage, variant, text) in _done(options.out):
            continue
        delta = {**base, **baselines.find(variant).delta, **settings, "seed": SEED}
        row = _try(change(Config(), delta), variant, material)
        _append(options.out, {"stage": stage, "variant": variant, "settings": text, **row})
        print(stage, variant, text, {k: round(v, 4) for k, v in row.items()}, flush=True)
    return 0


def _try(config: Config, variant: str, material: Material) -> dict[str, float]:
    method = baselines.find(variant).method
    model = build_model(method, config, material.ingredients(config), torch.device("cpu"))
    source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
    with tempfile.TemporaryDirectory() as folder:
        history = training.fit(method, model, source, validation_data(material, config), config, Path(folder),
                               torch.device("cpu"), progress=False)
    last = history.epochs[-1]
    return {"epochs": config.training.epochs, "validation_map": history.best_value, "best_epoch": history.best_epoch,
            "seen_accuracy": history.epochs[history.best_epoch]["seen_accuracy"], "class_sketch": last["class_sketch"],
            "sharing": last.get("sharing", 0.0), "seconds": sum(row.get("seconds", 0.0) for row in history.epochs)}


def _done(path: Path) -> set[tuple[str, str, str]]:
    if not path.exists():
        return set()
    with open(path, newline="", encoding="utf-8") as source:
        return {(row["stage"], row["variant"], row["settings"]) for row in csv.DictReader(source)}


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    sys.exit(main())
