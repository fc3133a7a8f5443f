"""How far all runs are, in one place: repainted on a terminal, a block of lines every half minute elsewhere.

In: the folders of runs that are computed or wait. Out: lines of text, with the training time left.
"""
from __future__ import annotations

import collections
import csv
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from benchmarks.experiments import PlannedRun
from benchmarks.store import RunFolder

LINES_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """How far a run is, by its folder: epochs trained, of how many, and the last epoch's speed (None before the first)."""

    done: int
    epochs: int
    pairs_per_second: float | None = None
    epoch_seconds: float | None = None


def progress_of(folder: RunFolder) -> Progress:
    """Read a run's folder; a run that has not started is at 0."""
    epochs = folder.run.config.training.epochs
    history = folder.path / "history.csv"
    if not history.exists():
        return Progress(0, epochs)
    with open(history, newline="", encoding="utf-8") as source:
        rows = [row for row in csv.DictReader(source) if row.get("pairs_per_second")]
    if not rows:
        return Progress(0, epochs)
    last = rows[-1]
    return Progress(int(last["epoch"]), epochs, float(last["pairs_per_second"]), float(last["seconds"]))


def seconds_left(unfinished: Sequence[tuple[PlannedRun, Progress]], running: int, known: Mapping[str, Sequence[float]]) -> float | None:
    """Seconds of training left, `running` runs at once; None until an epoch tells.

    A run without an epoch of its own takes the median of `known`: data set -> seconds an epoch took in other runs.
    """
    each = []
    for run, progress in unfinished:
        seconds = progress.epoch_seconds or (statistics.median(known[run.dataset]) if known.get(run.dataset) else None)
        left = (progress.epochs - progress.done) if run.trained else 0
        if left and seconds is None:
            return None
        each.append(left * (seconds or 0.0))
    return max(max(each, default=0.0), sum(each) / max(1, running))


class Board:
    """Progress of all runs in one place: repainted on a terminal, a block of lines every half minute elsewhere."""

    def __init__(self, total: int, skipped: int, failed: int, out: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.skipped, self.failed, self.out, self._now = total, skipped, failed, out, now
        self.finished = 0
        self._live = out.isatty()
        self._painted = 0
        self._last: float | None = None if self._live else now()
        self._known: dict[str, dict[str, float]] = collections.defaultdict(dict)

    def say(self, line: str) -> None:
        """An event, kept on the screen."""
        self.clear()
        print(line, file=self.out, flush=True)

    def show(self, running: Sequence[RunFolder], waiting: Sequence[RunFolder]) -> None:
        """Paint the state, where it is time to."""
        if self._last is not None and self._now() - self._last < (1.0 if self._live else LINES_EVERY_SECONDS):
            return
        self._last = self._now()
        lines = self.lines(running, waiting)
        self.clear()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in lines]
            self._painted = len(lines)
        print("\n".join(lines), file=self.out, flush=True)

    def lines(self, running: Sequence[RunFolder], waiting: Sequence[RunFolder]) -> list[str]:
        """One line for all, one for each running run."""
        unfinished = [(folder.run, progress_of(folder)) for folder in (*running, *waiting)]
        for run, progress in unfinished:
            if progress.epoch_seconds:
                self._known[run.dataset][run.name] = progress.epoch_seconds
        known = {dataset: list(runs.values()) for dataset, runs in self._known.items()}
        left = seconds_left(unfinished, len(running), known)
        head = (f"{self.total} runs: {self.skipped + self.finished} done, {len(running)} running, {len(waiting)} to do, "
                f"{self.failed} failed; " + ("time left not known before an epoch is done" if left is None else
                                             f"about {duration(left)} of training left"))
        return [head, *(f"  {title(run)}: {_state(progress, run)}" for run, progress in unfinished[:len(running)])]

    def clear(self) -> None:
        """Take the painted block off the terminal."""
        if self._painted:
            self.out.write(f"\x1b[{self._painted}A\x1b[J")
            self.out.flush()
            self._painted = 0


def _state(progress: Progress, run: PlannedRun) -> str:
    if not run.trained:
        return "scoring"
    if progress.done >= progress.epochs:
        return f"trained, epoch {progress.epochs}/{progress.epochs}; scoring"
    speed = f", {progress.pairs_per_second:,.0f} pairs/s" if progress.pairs_per_second else ""
    return f"epoch {progress.done + 1}/{progress.epochs}{speed}"


def title(run: PlannedRun) -> str:
    """A run, as messages call it."""
    return f"{run.variant} seed {run.seed} on {run.dataset} {run.split}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(61), duration(7260)
    ('1 min 01 s', '2 h 01 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
