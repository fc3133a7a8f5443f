"""Search a profile's settings on validation classes, with one seed and few epochs. Unseen classes are never read.

`python benchmarks/search_settings.py --out benchmarks/results/search.csv` trains each point of the laptop profile's grid and
writes one row a point: the settings that differ, best validation mAP@all and its epoch, seen-class accuracy. `--profile sample
--data-root DIR` does so for Sketchy's sample, on classes carved out of the seen ones of split 1. Finished points are kept;
`--part 1/2` takes every second one, for two processes side by side.
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
from benchmarks.prepared import device_named, overrides_of
from benchmarks.provenance import ROOT
from benchmarks.records import read_rows
from benchmarks.threads import limit_threads
from tcn.cli.ending import ending
from tcn.config import Config, InputError
from tcn.data.pairs import PairSource
from tcn.files.atomic import warn, writable_file
from tcn.train import loop

SEED = 100
"""The seed of the search; reported results use other seeds."""
COLUMNS = ("stage", "variant", "settings", "epochs", "validation_map", "best_epoch", "seen_accuracy", "class_sketch",
           "sharing", "seconds")


Point = tuple[str, str, dict[str, Any]]
"""Stage, variant and settings of one point of a grid."""


def _point(stage: str, variant: str, encoder: float, head: float, **more: Any) -> Point:
    return stage, variant, {"training.encoder_rate": encoder, "training.head_rate": head, "training.epochs": 8,
                            **{key.replace("__", "."): value for key, value in more.items()}}


def laptop_grid() -> list[Point]:
    """Every point tried for the laptop profile, in the order in which it was tried."""
    points = [_point("rates", variant, encoder, head) for variant in ("nws", "hws")
              for encoder, head in ((3e-4, 3e-3), (1e-3, 3e-3), (1e-3, 1e-2))]
    points += [_point("rates", "nws", 1e-4, 1e-4), _point("batch", "nws", 1e-3, 1e-2, data__batch_pairs=16),
               _point("norm", "nws", 1e-3, 1e-2, network__embedding_norm="shared")]
    points += [_point("rates", variant, encoder, head) for encoder, head in ((1e-3, 3e-2), (3e-3, 1e-2))
               for variant in ("nws", "hws")]
    points += [_point("weight", "tcn", 1e-3, 1e-2, losses__sharing=weight) for weight in (0.1, 1.0, 10.0, 100.0, 1000.0)]
    points += [_point("weight", "tcn", 3e-3, 1e-2, losses__sharing=weight) for weight in (0.1, 1.0, 10.0, 0.01, 100.0, 1000.0)]
    return points


def sample_grid() -> list[Point]:
    """Every point tried for the sample profile; it holds the paper's rates (1e-4) and sharing weight (1000).

    Rates are chosen by the mean of NWS, HWS and TCN, so that none of the three is favoured; the weight by TCN alone. The last
    points ask what a larger picture and twice the epochs would give.
    """
    rates = ((1e-3, 3e-3), (3e-4, 3e-3), (1e-3, 1e-2), (3e-3, 1e-2), (1e-4, 1e-4))
    points = [_point("rates", variant, encoder, head, training__epochs=4) for encoder, head in rates[:4]
              for variant in ("nws", "hws", "tcn")]
    points += [_point("weight", "tcn", 3e-3, 1e-2, training__epochs=4, losses__sharing=weight)
               for weight in (0.1, 10.0, 100.0, 1000.0)]
    points += [_point("size", "hws", 3e-3, 1e-2, training__epochs=4, data__image_size=96, data__stored_size=96),
               _point("epochs", "hws", 3e-3, 1e-2, training__epochs=8)]
    return points + [_point("rates", variant, *rates[4], training__epochs=4) for variant in ("nws", "hws", "tcn")]


GRIDS = {"laptop": (laptop_grid, ("emoji", "fixed"), {}),
         "sample": (sample_grid, ("sketchy", "1"), {"data.validation": "carved", "training.select_by": "validation_map"})}
"""Profile -> its grid, the split searched on, and what the search changes in the profile's settings."""


@ending("interrupted; the same command goes on with the points that are not there")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=tuple(GRIDS), default="laptop")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where Sketchy is (profile sample)")
    parser.add_argument("--words", type=Path, metavar="FILE", help="word vectors (default: those that come with the profile)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="as in run_all.py; a point keeps the values that make it")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", metavar="DIR", help="decoded images")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "search.csv")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th point, from the K-th")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    return _search(options)


def _search(options: argparse.Namespace) -> int:
    checks = preflight.Checks()
    part, parts = checks.ask(lambda: _part(options.part)) or (1, 1)
    checks.ask(lambda: limit_threads(options.threads))
    checks.ask(lambda: writable_file(options.out, "--out"))
    device = checks.ask(lambda: device_named(options.device)) or torch.device("cpu")
    material = Material(Places(options.cache, options.data_root, options.words, progress=False))
    grid, key, changes = GRIDS[options.profile]
    profile = experiments.PROFILES[options.profile]
    dataset = experiments.part_names(profile, None).get(key[0], key[0])
    base = {**profile.base[key], "data.dataset": dataset, **changes}
    overrides = overrides_of(options.overrides)
    for name in overrides:
        if held := sum(name in {**changes, **settings} for _, _, settings in grid()):
            told = f"--set {name}: {held} of the grid's {len(grid())} points have a value of their own"
            checks.add(f"{told}; leave it out") if held == len(grid()) else warn(f"note: {told} and keep it")
    points, done = [], checks.ask(lambda: _done(options.out)) or set()
    for number, (stage, variant, settings) in enumerate(grid()):
        text = " ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in {**overrides, **settings}.items())
        if number % parts == part - 1 and (stage, variant, text) not in done:
            config = experiments.settings_of(baselines.find(variant), base, SEED, key[0], {**overrides, **settings}, {}, False)
            points.append((stage, text, experiments.PlannedRun(dataset, key[1], variant, config)))
    preflight.check_runs(checks, [run for _, _, run in points], material, options.out.parent, device,
                          fetch=not checks.reasons)
    checks.stop()
    for stage, text, run in points:
        variant, row = run.variant, _try(run.config, run.variant, material, device)
        _append(options.out, {"stage": stage, "variant": variant, "settings": text, **row})
        print(stage, variant, text, {k: round(v, 4) for k, v in row.items()}, flush=True)
    return 0


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"--part {text}: give K/N with K from 1 to N, such as 1/2")
    return part, parts


def _try(config: Config, variant: str, material: Material, device: torch.device) -> dict[str, float]:
    method = baselines.find(variant).method
    model = build_model(method, config, material.ingredients(config), device)
    source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
    with tempfile.TemporaryDirectory() as folder:
        history = loop.fit(method, model, source, material.validation(config), config, Path(folder), device, progress=False)
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
