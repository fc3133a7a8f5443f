"""Search of the laptop settings on validation classes, one seed, few epochs; unseen classes are never read.

`python benchmarks/search_settings.py --out benchmarks/results/search.csv` trains each point of the stated grids and
writes one row a point: the settings that differ, best validation mAP@all and its epoch, seen-class accuracy.
Finished points are kept; `--part 1/2` takes every second one, for two processes side by side.
"""
from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import baselines
from benchmarks import experiments, preflight
from benchmarks.material import Material, Places, build_model
from benchmarks.provenance import ROOT
from benchmarks.records import read_rows
from benchmarks.threads import limit_threads
from tcn.config import Config, InputError, change
from tcn.data.pairs import PairSource
from tcn.files.atomic import writable
from tcn.train import loop

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
    try:
        return _search(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _search(options: argparse.Namespace) -> int:
    checks = preflight.Checks()
    part, parts = checks.ask(lambda: _part(options.part)) or (1, 1)
    checks.ask(lambda: limit_threads(options.threads))
    checks.ask(lambda: writable(options.out.parent, "the folder", "--out"))
    if options.out.is_dir():
        checks.add(f"--out {options.out} is a folder; pass a file")
    material = Material(Places(ROOT / ".cache", progress=False))
    (key, base), = experiments.PROFILES["laptop"].base.items()
    points, done = [], checks.ask(lambda: _done(options.out)) or set()
    for number, (stage, variant, settings) in enumerate(grid()):
        text = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
        if number % parts == part - 1 and (stage, variant, text) not in done:
            config = change(Config(), {**base, **baselines.find(variant).delta, **settings, "seed": SEED})
            points.append((stage, text, experiments.Cell(*key, variant, config)))
    preflight.check_cells(checks, [cell for _, _, cell in points], material, options.out.parent, torch.device("cpu"),
                          fetch=not checks.reasons)
    checks.stop()
    for stage, text, cell in points:
        variant, row = cell.variant, _try(cell.config, cell.variant, material)
        _append(options.out, {"stage": stage, "variant": variant, "settings": text, **row})
        print(stage, variant, text, {k: round(v, 4) for k, v in row.items()}, flush=True)
    return 0


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--part {text}: give K/N with K from 1 to N, such as 1/2")
    return part, parts


def _try(config: Config, variant: str, material: Material) -> dict[str, float]:
    method = baselines.find(variant).method
    model = build_model(method, config, material.ingredients(config), torch.device("cpu"))
    source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
    with tempfile.TemporaryDirectory() as folder:
        history = loop.fit(method, model, source, material.validation(config), config, Path(folder),
                               torch.device("cpu"), progress=False)
    last = history.epochs[-1]
    return {"epochs": config.training.epochs, "validation_map": history.best_value, "best_epoch": history.best_epoch,
            "seen_accuracy": history.epochs[history.best_epoch]["seen_accuracy"], "class_sketch": last["class_sketch"],
            "sharing": last.get("sharing", 0.0), "seconds": sum(row.get("seconds", 0.0) for row in history.epochs)}


def _done(path: Path) -> set[tuple[str, str, str]]:
    try:
        return {(row["stage"], row["variant"], row["settings"]) for row in read_rows(path)}
    except KeyError as error:
        raise InputError(f"--out {path} has no column {error}: it is another table; pass another file") from error


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
