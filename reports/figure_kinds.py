"""What a figure is before it is drawn: its kind, its data and its caption, and sentences that several captions share.

In: runs of a Suite. Out: FigureData for `figures.draw`.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports import paper
from reports.read.escaping import visible
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.wording import listed

PATHS = ("file", "query_file")
"""Columns that hold paths of pictures."""


@dataclass(frozen=True)
class FigureData:
    """What one figure shows: `kind` names the drawing function, `saved` is written beside it as CSV."""

    kind: str
    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    examples: pd.DataFrame | None = None
    """Retrieval examples below the figure, with the columns of `feature_frames.retrieval`."""

    def saved(self, results: Path) -> pd.DataFrame:
        """All that the figure shows as one frame, paths of pictures relative to the folder of results.

        Where there are examples, a column `part` tells `point` from `example`.
        """
        frames = [self.frame.copy()]
        if self.examples is not None:
            frames = [self.frame.assign(part="point"), self.examples.assign(part="example")]
        for frame in frames:
            for column in (name for name in PATHS if name in frame):
                frame[column] = [visible(Path(os.path.relpath(file, results)).as_posix()) for file in frame[column]]
        return pd.concat(frames, ignore_index=True)


def seed_count(frame: pd.DataFrame, by: str = "variant") -> str:
    """How many seeds the rows of a frame rest on: `one seed`, `6 seeds` or `1 to 6 seeds`.

    >>> seed_count(pd.DataFrame({"variant": ["a", "a", "b"], "seed": [0, 1, 0]}))
    '1 to 2 seeds'
    """
    counts = frame.groupby(by)["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    return f"{low} to {high} seeds" if low != high else "one seed" if high == 1 else f"{high} seeds"


def with_common_seeds(frame: pd.DataFrame, by: str) -> tuple[pd.DataFrame, str]:
    """The frame with a column `paired`, and a sentence: which seeds the line through its rows rests on.

    Points of different seeds don't show a trend: the line is drawn through the means over the seeds that all points have, and
    other seeds are dots. Where no seed is common to all, each point takes its own seeds, and the sentence says so.
    """
    common = set.intersection(*(set(part["seed"]) for _, part in frame.groupby(by)))
    if not common:
        return frame.assign(paired=True), "No seed is common to all points: each is the mean of its own seeds."
    marked = frame.assign(paired=frame["seed"].isin(common))
    several = len(common) > 1
    text = f"Line: {'mean over seeds' if several else 'seed'} {listed(sorted(common))}, which every point has"
    text += "; band: lowest to highest of them" if several else ""
    return marked, text + ("." if marked["paired"].all() else "; small dots: further seeds.")


def reference_baseline(suite: Suite, task: Task) -> list[str]:
    """The untrained baseline that is best on the validation classes;
    without validation classes (the paper's data sets) the first one.

    Never chosen by unseen classes. Empty where no untrained baseline was measured.
    """
    metric = paper.retrieval_metric(task)
    untrained_rows = [v for v in paper.main_variants(suite, task) if paper.is_untrained(v) and suite.runs_of(task, v)]
    measured = {v: suite.measure(task, v, Score(metric, classes="validation")) for v in untrained_rows}
    means = {v: m.mean for v, m in measured.items() if m.n}
    return [max(means, key=means.__getitem__)] if means else untrained_rows[:1]
