"""The extension's results -> a table and a figure: digits on plain ground to digits blended with photos.

In: the folder `extension` beside a suite's cells, as benchmarks/digits.py writes it. Out: a Table, a FigureData and its
drawing. An offline task is never shown beside the paper's numbers, which are of MNIST and MNIST-M.
"""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from reports import paper
from reports.figure_kinds import FigureData
from reports.figure_style import PAGE, finish, styled
from reports.reading import ReportError, check_fields, check_picture, read_frame, read_json
from reports.tables import Column, Entry, Row, Table

FOLDER = "extension"
FIELDS = {**dict.fromkeys(("data", "method", "title"), "a name"), "seed": "a whole number from 0",
          **dict.fromkeys(("target_accuracy", "source_accuracy"), "a number from 0 to 1"), "steps": "a whole number from 0",
          "seconds": "a number from 0"}
"""Field of result.json, in the order of Run's, -> what must stand there."""
TITLES = {"source-only": "Source only", "dann": "DANN", "dann-own-norms": "DANN, batch norms by domain",
          "dann-coupled": "DANN + coupled network"}
ORDER = tuple(TITLES)
PUBLISHED_NAMES = {"source-only": "source only", "dann": "DANN", "dann-coupled": "DANN+TCN"}
"""Our method -> its name in the paper's table; one of ours it has not."""
MNIST = "MNIST to MNIST-M"
LOOKS = {"source-only": ("#8c8c8c", "D", ":"), "dann": ("#d55e00", "s", "--"), "dann-own-norms": ("#009e73", "^", "-."),
         "dann-coupled": ("#0072b2", "o", "-")}


@dataclass(frozen=True)
class Run:
    """One finished run of the extension."""

    folder: Path
    data: str
    method: str
    title: str
    seed: int
    target_accuracy: float
    source_accuracy: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Found:
    """Finished runs of one task, and what was left out."""

    runs: tuple[Run, ...]
    left_out: tuple[tuple[str, str], ...]

    def of(self, method: str) -> dict[int, float]:
        """Seed -> accuracy on the target's test digits."""
        return {run.seed: run.target_accuracy for run in self.runs if run.method == method}


def read(root: Path) -> Found:
    """The runs below `root`/extension; those of another task than most, unfinished and broken ones are left out with why."""
    runs, left_out = [], []
    for folder in sorted((root / FOLDER / "runs").glob("*")):
        name = f"{FOLDER}/runs/{folder.name}"
        if not (folder / "result.json").exists():
            left_out.append((name, "not finished: no result.json; the same command runs it again"))
            continue
        try:
            found = read_json(folder / "result.json")
            check_fields(found, FIELDS, "result.json", required=FIELDS)
            run = Run(folder, *(found[name] for name in FIELDS))
            if run.method not in ORDER:
                raise ReportError(f"result.json: method '{run.method}' is none of {', '.join(ORDER)}")
            if folder.name != f"{run.method}__seed{run.seed}":
                raise ReportError(f"result.json is of {run.method} seed {run.seed}, the folder's name of another run: one was "
                                  "copied or renamed")
            runs.append(run)
        except ReportError as error:
            left_out.append((name, str(error)))
    tasks = [(run.data, run.steps) for run in runs]
    if tasks:
        own = max(sorted(set(tasks)), key=tasks.count)
        left_out += [(f"{FOLDER}/runs/{run.folder.name}", f"{run.data}, {run.steps} steps: not the task of the other runs")
                     for run in runs if (run.data, run.steps) != own]
        runs = [run for run in runs if (run.data, run.steps) == own]
    return Found(tuple(runs), tuple(left_out))


def table(root: Path) -> Table | None:
    """Accuracy on target and source test digits by method; published numbers only beside MNIST -> MNIST-M. None without runs."""
    found = read(root)
    if not found.runs:
        return None
    data, steps = found.runs[0].data, found.runs[0].steps
    facts = {p.method: p for p in paper.published() if p.source == "tcn-table-5"} if data == MNIST else {}
    columns = [Column("Method", wrap=True), Column("target digits, measured", numeric=True),
               Column("source digits, measured", numeric=True), Column("Seeds")]
    if facts:
        columns.insert(2, Column(f"target digits, {paper.SHORT_SOURCES['tcn-table-5']}", numeric=True))
    seeds = {run.seed for run in found.runs}
    rows = []
    for method in ORDER:
        own = [run for run in found.runs if run.method == method]
        title = own[0].title if own else TITLES[method]
        entries = [Entry(title), _mean([run.target_accuracy for run in own], len(seeds)),
                   _mean([run.source_accuracy for run in own], len(seeds)), Entry(f"{len(own)}/{len(seeds)}" if own else "none")]
        if facts:
            fact = facts.get(PUBLISHED_NAMES.get(method, ""))
            entries.insert(2, Entry("–") if fact is None else Entry(f"{fact.value:.3f}", fact.value))
        rows.append(Row(tuple(entries)))
    notes = [f"{data}. Accuracy after {steps:,} optimiser steps, mean ± standard deviation over seeds. The label of a target "
             "digit is read for this number alone: no setting, step or run was chosen by it.",
             f"Runs: {FOLDER}/runs/METHOD__seedK beside the cells, all of them in {FOLDER}/results.csv.",
             "DANN, batch norms by domain: a control the paper lacks, one set of convolutions for both domains.",
             *_differences(found), *(f"Left out: {name}: {why}" for name, why in found.left_out)]
    if data != MNIST:
        notes.insert(1, "Not comparable to the paper's extension table, which is of MNIST and MNIST-M: 1,797 digits of 8 × 8 "
                        "pixels, scaled up and blended with two photos.")
    return Table("extension", "Digits on plain ground to digits blended with photos" + (" (measured)" if data != MNIST else ""),
                 tuple(columns), tuple(rows), tuple(notes))


def _mean(values: list[float], seeds: int) -> Entry:
    if not values:
        return Entry("not measured")
    mean, sd = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan
    return Entry(f"{mean:.3f}" + (f" ± {sd:.3f}" if len(values) > 1 else ""), mean, sd, f"{len(values)}/{seeds}")


def _differences(found: Found) -> list[str]:
    """The coupled network against DANN, seed by seed, in a sentence."""
    sentences = []
    for method, rival in (("dann-coupled", "dann"), ("dann-coupled", "dann-own-norms"), ("dann", "source-only")):
        first, second = found.of(method), found.of(rival)
        common = sorted(set(first) & set(second))
        if common:
            gaps = [first[seed] - second[seed] for seed in common]
            spread = f" ± {statistics.stdev(gaps):.3f}" if len(gaps) > 1 else ""
            sentences.append(f"{_title(found, method)} minus {_title(found, rival)}: {statistics.fmean(gaps):+.3f}{spread}, "
                             f"above in {sum(gap > 0 for gap in gaps)} of {len(gaps)} seeds.".replace("-0", "−0"))
    return sentences


def _title(found: Found, method: str) -> str:
    return next(run.title for run in found.runs if run.method == method)


def figure(root: Path) -> FigureData | None:
    """Columns: method, title, seed, step, set, accuracy, file (of the example picture); None without runs."""
    found = read(root)
    rows, without = [], []
    for run in found.runs:
        try:
            history = read_frame(run.folder / "history.csv", (), ("step", "source_accuracy", "target_accuracy"))
            whole = history["step"].between(0, run.steps) & (history["step"] % 1 == 0)
            within = [history[f"{which}_accuracy"].between(0, 1) for which in ("source", "target")]
            if not (whole & within[0] & within[1]).all():
                line = int(np.flatnonzero(~(whole & within[0] & within[1]))[0]) + 2
                raise ReportError(f"history.csv, line {line}: no step of this run, or an accuracy not within 0 to 1")
        except ReportError as error:
            without.append(f"{run.folder.name} ({error})")  # the table has the run's numbers all the same
            continue
        for which in ("target", "source"):
            rows += [(run.method, run.title, run.seed, int(step), which, value)
                     for step, value in zip(history["step"], history[f"{which}_accuracy"])]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["method", "title", "seed", "step", "set", "accuracy"])
    picture = root / FOLDER / "examples.png"
    shown = _opens(picture)
    if shown:
        frame["file"] = picture
    several = frame.groupby("method")["seed"].nunique().max() > 1
    examples = "Left: a digit of each class as the source has it, and one of the target's. Right: accuracy" \
        if shown else "Accuracy"
    return FigureData("digits", "extension", "The coupled idea in domain adaptation",
                      f"{found.runs[0].data}. {examples} on test digits of both domains over training"
                      + ("; lines: means over seeds, bands: lowest to highest seed." if several else "; one seed.")
                      + " Nothing was chosen by these curves: the last step counts."
                      + (f" Without curves: {'; '.join(without)}." if without else "")
                      + (f" {picture.name} can't be read and is left out." if picture.exists() and not shown else ""), frame)


def _opens(picture: Path) -> bool:
    """Whether the examples are a picture as digits.py writes it: ten columns of two square tiles."""
    try:
        check_picture(picture)
        with Image.open(picture) as image:
            return image.width == 5 * image.height > 0
    except (ReportError, OSError):
        return False


@styled
def digits(frame: pd.DataFrame) -> Figure:
    """Frame of `figure` -> example digits, then a panel for the target's and one for the source's accuracy."""
    drawing = Figure(figsize=(PAGE, 2.5))
    with_examples = "file" in frame
    *examples, target, source = drawing.subplots(1, 3 if with_examples else 2,
                                                 width_ratios=(0.55, 1, 1) if with_examples else (1, 1))
    for left in examples:
        left.set_axis_off()
        with Image.open(frame["file"].iloc[0]) as image:
            pixels = np.asarray(image.convert("RGB"))
        # ten columns of two rows are wide; five rows of two pairs fit beside the curves
        side = pixels.shape[0] // 2
        tiles = [pixels[row * side:(row + 1) * side, at * side:(at + 1) * side] for at in range(10) for row in range(2)]
        tiles = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles]
        rows = [np.concatenate([*tiles[2 * n:2 * n + 2], *tiles[2 * n + 10:2 * n + 12]], axis=1) for n in range(5)]
        left.imshow(np.concatenate(rows), interpolation="nearest")
        left.set_title("source, target (twice)", fontsize=7, fontweight="normal", loc="center")
    for panel, which in ((target, "target"), (source, "source")):
        for method in (m for m in ORDER if (frame["method"] == m).any()):
            part = frame[(frame["method"] == method) & (frame["set"] == which)]
            colour, marker, line = LOOKS[method]
            grouped = part.groupby("step")["accuracy"]
            panel.plot(grouped.mean().index, grouped.mean(), color=colour, linestyle=line, marker=marker, markevery=4,
                       markersize=3.5, label=part["title"].iloc[0])
            if part["seed"].nunique() > 1:
                panel.fill_between(grouped.mean().index, grouped.min(), grouped.max(), color=colour, alpha=0.13, linewidth=0)
        finish(panel, f"{which.capitalize()} digits", "Optimiser step", "Accuracy" if which == "target" else "", legend=False)
    handles, labels = target.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return drawing
