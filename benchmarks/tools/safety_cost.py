"""Measure what crash safety costs: the time spent on checkpoints, checksums, locks, tables and MLflow, as a share of training.

`python benchmarks/safety_cost.py` runs the command on the emoji drawings and trains TCN for a few epochs. Everything that exists
only so that a crash loses nothing is timed. Its time and the training time come from the same run, so that other work on the
machine hardly changes their ratio.
"""
from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tcn.cli.ending import ending
from tcn.files.atomic import writable_file, write_bytes

ARGUMENTS = ("--profile", "laptop", "--variants", "tcn", "--no-report")


class StopWatch:
    """Seconds by name. A watched call inside another watched call counts for the outer one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = False

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Time every call of `owner.attribute` from now on."""
        call = getattr(owner, attribute)

        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._running:
                return call(*arguments, **options)
            self._running, started = True, time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started
                self._running = False

        setattr(owner, attribute, timed)

    def watch_entry(self, owner: Any, attribute: str, name: str) -> None:
        """The same for a context manager: the time to enter and to leave it, without the block inside."""
        make: Callable[..., Any] = getattr(owner, attribute)

        @contextlib.contextmanager
        def timed(*arguments: Any, **options: Any) -> Iterator[Any]:
            started = time.perf_counter()
            with make(*arguments, **options) as value:
                self.seconds[name] += time.perf_counter() - started
                try:
                    yield value
                finally:
                    started = time.perf_counter()
            self.seconds[name] += time.perf_counter() - started

        setattr(owner, attribute, timed)


def measure(epochs: int, threads: int, output: Path, more: Sequence[str] = ()) -> tuple[dict[str, float], float, int]:
    """Time one run. Returns the seconds by kind of safety, the seconds of training (epochs with their validation), and the number
    of optimiser steps."""
    from benchmarks import run_all, runner, store
    from benchmarks.mirror import RunMirror
    from tcn.train import checkpoints
    from tcn.train import loop as training

    watch = StopWatch()
    watch.watch(checkpoints, "keep", "checkpoint: written, flushed, older one removed")
    watch.watch(checkpoints, "host_copy", "checkpoint: copy of the model")
    watch.watch(checkpoints, "last", "checkpoint: looked for at the start")
    watch.watch(training, "room", "room on the disk, looked at before")
    watch.watch(runner, "_write_history", "history.csv, steps.csv after each epoch")
    watch.watch(store.RunFolder, "set_state", "status.json")
    watch.watch(store.RunFolder, "seal", "SHA256SUMS of the finished run")
    watch.watch_entry(store.RunFolder, "claim", "the run's lock")
    watch.watch(RunMirror, "history", "MLflow: losses of each step and epoch")
    epoch = StopWatch()
    epoch.watch(training, "_epoch", "train")
    epoch.watch(training, "validate", "validate")
    status = run_all.main([*ARGUMENTS, "--threads", str(threads), "--output", str(output), *more, "--set",
                           f"training.epochs={epochs}"])
    if status:
        raise SystemExit(status)
    folder = next((output / "runs").iterdir())
    steps = len((folder / "steps.csv").read_text().splitlines()) - 1
    return dict(watch.seconds), sum(epoch.seconds.values()), steps


def to_markdown(parts: dict[str, float], training: float, title: str) -> str:
    """A table of seconds and shares."""
    total = sum(parts.values())
    rows = [f"| {name} | {seconds:.3f} | {100 * seconds / training:.2f} % |"
            for name, seconds in sorted(parts.items(), key=lambda item: -item[1])]
    return "\n".join([title, "", "| what | seconds | of training |", "|---|---:|---:|", *rows,
                      f"| **all of it** | **{total:.3f}** | **{100 * total / training:.2f} %** |",
                      f"| training and validation | {training:.1f} | 100 % |"]) + "\n"


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/safety_cost.py", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, metavar="DIR", help="a new folder for the run (default: a temporary one)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table there")
    given = list(sys.argv[1:] if arguments is None else arguments)
    more = given[given.index("--") + 1:] if "--" in given else []
    options = parser.parse_args(given[:given.index("--")] if "--" in given else given)
    if options.table:
        writable_file(options.table, "--table")
    with tempfile.TemporaryDirectory() as temporary:
        parts, training, steps = measure(options.epochs, options.threads, options.output or Path(temporary) / "out", more)
    import torch

    from benchmarks import provenance

    record = provenance.collect(torch.device("cpu"))
    table = to_markdown(parts, training, f"`{provenance.command()}`\n\n{record['device']}, {options.threads} threads, torch "
                                         f"{record['versions']['torch']}, {steps} steps, commit {str(record['commit'])[:10]}")
    print(table)
    if options.table:
        write_bytes(options.table, table.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
