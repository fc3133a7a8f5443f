"""The leaderboard: every row of a suite on one page of tables that sort at a click.

In: a checked suite. Out: the text of one HTML file that fetches nothing, and shows plain tables where scripts are off. Numbers of
different data sets, splits, galleries, protocols or protocol versions never share a table.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reports import naming
from reports.read.runs import FinishedRun, Score
from reports.read.schema import Task
from reports.read.suite import Measured, Suite
from reports.render.page import ENVIRONMENT
from reports.render.provenance import Kept, kept
from reports.tables.entries import dim_entry, seed_names

METRICS = ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5")
KINDS = {"real": "real-valued", "binary": "binary codes"}


@dataclass(frozen=True)
class Line:
    """One row: a method with one kind of features, over its seeds."""

    method: str
    features: str
    seeds: str
    values: tuple[Measured, ...]
    """In the order of METRICS."""
    commits: str
    devices: str
    origin: Kept
    """The bundle that it came in, or the results folder."""


@dataclass(frozen=True)
class Board:
    """One table."""

    task: Task
    protocol: str
    version: int
    queries: int
    photos: int
    metrics: tuple[str, ...]
    """Those that at least one line has."""
    lines: tuple[Line, ...]
    """The highest in the first of these metrics first."""

    @property
    def title(self) -> str:
        """What all its numbers have in common."""
        return (f"{naming.task_title(self.task)}: {self.protocol}, protocol version {self.version}; {self.queries:,} queries, "
                f"{self.photos:,} photos")

    def shown(self, line: Line) -> list[Measured]:
        """The line's values in the order of `metrics`."""
        return [line.values[METRICS.index(metric)] for metric in self.metrics]

    @property
    def chance(self) -> list[str]:
        """The chance level of each metric; empty where the lines don't agree on one."""
        levels = [{level for line in self.lines for level in line.values[METRICS.index(metric)].chance} for metric in self.metrics]
        return [f"{level.pop():.3f}" if len(level) == 1 else "" for level in levels]


def page(suite: Suite, folder: Path) -> str:
    """The whole page. folder: where it will be, for its links."""
    return ENVIRONMENT.get_template("leaderboard.html.j2").render(boards=boards(suite, folder), left_out=suite.left_out)


def boards(suite: Suite, folder: Path) -> list[Board]:
    """Every table: by data set and split, then protocol, then version and sizes of the gallery."""
    found: dict[tuple[Task, str, int, int, int], list[Line]] = {}
    for task in suite.tasks():
        rules = dict.fromkeys(score.protocol for score in sorted(suite.scores(task), key=lambda s: (s.protocol != "released", s.protocol))
                              if score.metric in METRICS)
        for rule in rules:
            for variant in suite.variants(task):
                for version, queries, photos, line in _lines(suite, task, rule, variant, folder):
                    found.setdefault((task, rule, version, queries, photos), []).append(line)
    made = []
    for (task, rule, version, queries, photos), lines in found.items():
        metrics = tuple(metric for at, metric in enumerate(METRICS) if any(line.values[at].n for line in lines))
        first = METRICS.index(metrics[0])
        lines.sort(key=lambda line: (-line.values[first].mean if line.values[first].n else 1.0, line.method))
        made.append(Board(task, rule, version, queries, photos, metrics, tuple(lines)))
    return made


def _lines(suite: Suite, task: Task, rule: str, variant: str, folder: Path) -> Iterator[tuple[int, int, int, Line]]:
    """The lines of a variant, each with its protocol version and its numbers of queries and photos."""
    for kind, name in KINDS.items():
        values = tuple(suite.measure(task, variant, Score(metric, rule, kind)) for metric in METRICS)
        most = max(values, key=lambda measured: measured.n)
        if most.n:
            runs = most.runs
            label = naming.label(variant) + " (smoke run)" * any(run.smoke for run in runs)
            length = dim_entry(suite, task, variant, kind).text
            yield (runs[0].provenance.protocol_version, most.queries, most.photos,
                   Line(label, f"{length} {name}", f"{most.n} ({seed_names(most)})", values, _each(map(_commit, runs)),
                        _each(run.provenance.device for run in runs), kept(runs[0].sent or suite.root, folder, folder=runs[0].sent is None)))


def _commit(run: FinishedRun) -> str:
    """The first 8 digits, with a mark where files differed from the commit."""
    return run.provenance.commit[:8] + " + changes" * run.provenance.dirty


def _each(texts: Iterable[str]) -> str:
    """What the runs recorded, each once."""
    return ", ".join(sorted(filter(None, set(texts)))) or "unknown"
