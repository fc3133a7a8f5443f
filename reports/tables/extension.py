"""The extension's results -> a table: digits on plain ground to digits blended with photos.

In: the folder `extension` beside a suite's runs, as benchmarks/digits.py writes it. Out: a Table. Results of another task than
the paper's, MNIST to MNIST-M, are never shown beside its numbers.
"""
from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from reports import published
from reports.read.files import ReportError, read_json
from reports.read.schema import ExtensionRun, parse
from reports.tables.table import Column, Entry, Row, Table

FOLDER = "extension"
TITLES = {"source-only": "Source only", "dann": "DANN", "dann-own-norms": "DANN, batch norms by domain",
          "dann-coupled": "DANN + coupled network"}
ORDER = tuple(TITLES)
PUBLISHED_NAMES = {"source-only": "source only", "dann": "DANN", "dann-coupled": "DANN+TCN"}
"""Our method -> its name in the paper's table, which lacks one of ours."""
MNIST = "MNIST to MNIST-M"


class Run(ExtensionRun):
    """One finished run of the extension, and its folder."""

    folder: Path


@dataclass(frozen=True)
class ExtensionRuns:
    """Finished runs of one task, and what was left out."""

    runs: tuple[Run, ...]
    left_out: tuple[tuple[str, str], ...]

    def of(self, method: str) -> dict[int, float]:
        """Seed -> accuracy on the target's test digits."""
        return {run.seed: run.target_accuracy for run in self.runs if run.method == method}


def read(root: Path) -> ExtensionRuns:
    """The runs below `root`/extension. Runs that are unfinished, broken, or of another task than most are left out with a
    reason."""
    runs, left_out = [], []
    for folder in sorted((root / FOLDER / "runs").glob("*")):
        name = f"{FOLDER}/runs/{folder.name}"
        if not (folder / "result.json").exists():
            left_out.append((name, "not finished: no result.json; the same command runs it again"))
            continue
        try:
            run = parse(Run, {**read_json(folder / "result.json"), "folder": folder}, "result.json")
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
    return ExtensionRuns(tuple(runs), tuple(left_out))


def table(root: Path) -> Table | None:
    """Accuracy on target and source test digits by method; published numbers only beside MNIST -> MNIST-M. None without runs."""
    found = read(root)
    if not found.runs:
        return None
    data, steps = found.runs[0].data, found.runs[0].steps
    facts = {p.method: p for p in published.facts() if p.source == "tcn-table-5"} if data == MNIST else {}
    columns = [Column("Method", wrap=True), Column("target digits, measured", numeric=True),
               Column("source digits, measured", numeric=True), Column("Seeds")]
    if facts:
        columns.insert(2, Column(f"target digits, {published.SHORT_SOURCES['tcn-table-5']}", numeric=True))
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
             f"Runs: {FOLDER}/runs/METHOD__seedK beside the runs, all of them in {FOLDER}/results.csv.",
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


def _differences(found: ExtensionRuns) -> list[str]:
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


def _title(found: ExtensionRuns, method: str) -> str:
    return next(run.title for run in found.runs if run.method == method)
