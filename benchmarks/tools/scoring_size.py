"""Measure how long scoring takes and how much memory it needs at the size of a real data set, with random features.

`python benchmarks/tools/scoring_size.py sketchy quickdraw` scores random 64-d features and random 64-bit codes under all six
protocols, with as many queries and photos of each class as the published lists have, and prints time, peak memory and the score.
"""
from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.provenance import device_name
from tcn import metrics
from tcn.data import specs

DIMENSIONS = 64


def labels_of(dataset: str, kind: str) -> np.ndarray:
    """Labels int64 [N]: each unseen class occurs as often as the published lists have `sketches` or `photos` (`kind`) of it."""
    plan = specs.read_plan(dataset)
    return np.repeat(np.arange(len(plan.of("unseen"))), [plan.counts[kind][name] for name in plan.of("unseen")])


def measure(dataset: str, metric: str) -> str:
    """One line of text: sizes, seconds, the process's peak memory so far, and the released mAP@all beside its chance level."""
    rng = np.random.default_rng(0)
    labels = [labels_of(dataset, kind) for kind in ("sketches", "photos")]
    sides: list[np.ndarray] = [rng.standard_normal((len(own), DIMENSIONS)).astype(np.float32) for own in labels]
    if metric == "hamming":
        sides = [side > 0 for side in sides]
    started = time.perf_counter()
    scores = metrics.score(sides[0], sides[1], labels[0], labels[1], metric=metric)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (f"{dataset}, {metric}: {len(labels[0]):,} queries x {len(labels[1]):,} photos, {seconds:.1f} s, "
            f"{1000 * seconds / len(labels[0]):.2f} ms a query, peak {peak:.2f} GB, "
            f"mAP@all {scores.value('released', 'mAP@all'):.4f} (chance {scores.chance('released', 'mAP@all'):.4f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/tools/scoring_size.py", description=__doc__.splitlines()[0])
    sized = [name for name, spec in specs.SPECS.items()
             if not spec.builder and specs.read_plan(name).expected().get("gallery")]
    parser.add_argument("datasets", nargs="+", choices=sized, metavar="NAME", help=f"some of {', '.join(sized)}")
    parser.add_argument("--metrics", nargs="+", choices=("euclidean", "hamming"), default=("euclidean", "hamming"))
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{DIMENSIONS}-d, all six protocols, one process", flush=True)
    for dataset in options.datasets:
        for metric in options.metrics:
            print(measure(dataset, metric), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
