"""How often other people's drawings find their class: precision among the five nearest photos, beside the data set's own
sketches.

`python -m benchmarks.demo.found OUTPUT --drawings NDJSON` takes real strokes of the unseen classes (QuickDraw's files), searches
with them as the page does with a drawing (`answers.Demo.draw`), and compares with the run's own query sketches of the same
classes. In: runs and files of drawings. Out: a line for each run. Nothing is trained, and nothing is chosen by these numbers.
"""
from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo.answers import UNSEEN, Demo, nearest, rank_of_first
from benchmarks.demo.command import add_runs, opened
from benchmarks.threads import limit_threads
from tcn.cli.ending import ending
from tcn.config import InputError
from tcn.data.strokes import Drawing, files_of, folder_names, read_drawings
from tcn.data.words import normal_form

TOP = 5


@dataclass(frozen=True)
class DrawingPrecision:
    """One run's precision among the five nearest unseen photos, with its standard error over queries."""

    run: str
    drawings: int
    drawn: float
    drawn_error: float
    sketches: int
    """Number of the run's own query sketches of the same classes."""
    own: float
    own_error: float
    chance: float
    """The share of photos that are of the drawing's class, averaged over the drawings."""
    classes: tuple[str, ...]
    photos: int
    milliseconds: float
    """Median time of an answer to a drawing."""


def taken(sources: Sequence[Path], classes: Collection[str], dataset: str, number: int) -> list[tuple[str, Drawing]]:
    """`number` drawings of `classes`, each with its class: the first drawing of each class by `key_id`, then the second of each,
    and so on, whether the game recognised them or not. InputError if there is none."""
    names = folder_names(dataset)
    by_class: dict[str, list[Drawing]] = {name: [] for name in sorted(classes)}
    for path in files_of(sources):
        for one in read_drawings(path):
            name = names.get(normal_form(one.word))
            if name in by_class:
                by_class[name].append(one)
    rounds = itertools.zip_longest(*([(name, one) for one in sorted(own, key=lambda one: one.key)]
                                     for name, own in by_class.items()))
    found = [one for several in rounds for one in several if one is not None][:number]
    if not found:
        raise InputError(f"the files of --drawings hold no drawing of an unseen class ({', '.join(sorted(classes)[:5])}, ...)")
    return found


def measure(demo: Demo, sources: Sequence[Path], number: int) -> list[DrawingPrecision]:
    """Each run's precision on `number` drawings of its unseen classes, and on its own query sketches of the same classes."""
    made = []
    for place, run in enumerate(demo.runs):
        task = demo.tasks[demo.task_of(run)]
        queries = demo.sets[task.queries].names
        photos = demo.sets[run.galleries[UNSEEN].pictures].names
        assert queries is not None and photos is not None
        dataset = task.dataset if task.dataset == "quickdraw" else "sketchy"
        drawings = taken(sources, set(queries.tolist()), dataset, number)
        drawn, times = [], []
        for name, one in drawings:
            strokes = [stroke.T.tolist() for stroke in one.strokes]
            _, (answer,) = demo.draw(strokes, [place], UNSEEN, TOP, name)
            drawn.append(_precision(answer.photos))
            times.append(answer.milliseconds)
        classes = sorted({name for name, _ in drawings})
        own = [_precision(demo.query(demo.task_of(run), int(i), [place], UNSEEN, TOP)[1][0].photos)
               for i in np.flatnonzero(np.isin(queries, classes))]
        chance = float(np.mean([np.mean(photos == name) for name, _ in drawings]))
        made.append(DrawingPrecision(run.name, len(drawn), float(np.mean(drawn)), _error(drawn), len(own), float(np.mean(own)),
                                     _error(own), chance, tuple(classes), len(photos), float(np.median(times))))
    return made


def _precision(photos: Sequence[Mapping[str, Any]]) -> float:
    return sum(one["right"] for one in photos) / len(photos)


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def ranking_milliseconds(photos: int, dim: int, rounds: int = 20) -> list[float]:
    """Times in milliseconds, shortest first, of finding the twelve nearest photos and the rank of the first right one, among
    random features."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((photos, dim), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    right, times = rng.random(photos) < 0.01, []
    for query in rng.standard_normal((rounds, dim), dtype=np.float32):
        started = time.perf_counter()
        rank_of_first(nearest(query, features, 12)[1], right)
        times.append((time.perf_counter() - started) * 1e3)
    return sorted(times)


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 if all was measured, 2 for bad usage."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.demo.found", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runs(p)
    p.add_argument("--drawings", type=Path, nargs="+", metavar="NDJSON", help="QuickDraw's files, or folders of them")
    p.add_argument("--number", type=int, default=100, metavar="N", help="number of drawings (default: 100)")
    p.add_argument("--time", type=int, metavar="N", help="only measure how long the ranking of N photos takes; no run is needed")
    options = p.parse_args(arguments)
    if options.time is not None:
        if options.time < 1:
            raise InputError(f"--time {options.time}: give a whole number from 1")
        if options.threads is not None:
            limit_threads(options.threads)
        for dim in (64, 512):
            times = ranking_milliseconds(options.time, dim)
            print(f"{options.time:,} photos, {dim} dimensions: {times[len(times) // 2]:.1f} ms, "
                  f"the shortest of {len(times)} {times[0]:.1f}")
        return 0
    if not options.drawings:
        raise InputError("give --drawings: QuickDraw's .ndjson files, or folders of them")
    if options.number < 1:
        raise InputError(f"--number {options.number}: give a whole number from 1")
    for one in measure(opened(options), options.drawings, options.number):
        print(f"{one.run}: Prec@{TOP} {one.drawn:.3f} +- {one.drawn_error:.3f} on {one.drawings} drawings of "
              f"{len(one.classes)} unseen classes, {one.own:.3f} +- {one.own_error:.3f} on the data set's {one.sketches} own "
              f"sketches of them; chance {one.chance:.3f}, {one.photos:,} photos, "
              f"{one.milliseconds:.0f} ms a drawing", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
