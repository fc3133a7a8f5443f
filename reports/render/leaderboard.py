"""The leaderboard: every row of a suite on one page of tables that sort at a click.

In: a checked suite. Out: the text of one HTML file that fetches nothing, and shows plain tables where scripts are off. Numbers of
different data sets, splits, galleries, kinds of features, protocols or protocol versions never share a table.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reports import naming
from reports.read.measured import Measured
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.render.page import ENVIRONMENT
from reports.render.provenance import Kept, kept
from reports.tables.entries import dim_entry, seed_names

METRICS = ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5")
KINDS = {"real": "real-valued", "binary": "binary codes"}


@dataclass(frozen=True)
class Line:
    """One row: a method over its seeds."""

    method: str
    encoder: str
    """Its network and the side of its images in pixels; "unknown" for features without settings."""
    length: str
    """D, the length of its features or codes."""
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
    kind: str
    """`real` or `binary`."""
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
        return (f"{naming.task_title(self.task)}, {KINDS[self.kind]}: protocol {self.protocol}, version {self.version}; "
                f"{self.queries:,} queries, {self.photos:,} photos")

    def shown(self, line: Line) -> list[Measured]:
        """The line's values in the order of `metrics`."""
        return [line.values[METRICS.index(metric)] for metric in self.metrics]

    @property
    def chance(self) -> list[str]:
        """The chance level of each metric; empty where the lines don't agree on one."""
        levels = [{level for line in self.lines for level in line.values[METRICS.index(metric)].chance}
                  for metric in self.metrics]
        return [f"{level.pop():.3f}" if len(level) == 1 else "" for level in levels]


def page(suite: Suite, folder: Path) -> str:
    """The whole page. folder: where it will be, for its links."""
    return ENVIRONMENT.get_template("leaderboard.html.j2").render(boards=boards(suite, folder), left_out=suite.left_out)


def boards(suite: Suite, folder: Path) -> list[Board]:
    """Every table: by data set and split, then protocol, then kind of features, then version and sizes of the gallery."""
    found: dict[tuple[Task, str, str, int, int, int], list[Line]] = {}
    for task in suite.tasks():
        rules = dict.fromkeys(score.protocol
                              for score in sorted(suite.scores(task), key=lambda s: (s.protocol != "released", s.protocol))
                              if score.metric in METRICS)
        for rule, kind, variant in itertools.product(rules, KINDS, suite.variants(task)):
            if (row := _line(suite, task, rule, kind, variant, folder)) is not None:
                version, queries, photos, line = row
                found.setdefault((task, rule, kind, version, queries, photos), []).append(line)
    made = []
    for (task, rule, kind, version, queries, photos), lines in found.items():
        metrics = tuple(metric for at, metric in enumerate(METRICS) if any(line.values[at].n for line in lines))
        first = METRICS.index(metrics[0])
        lines.sort(key=lambda line: (-line.values[first].mean if line.values[first].n else 1.0, line.method))
        made.append(Board(task, kind, rule, version, queries, photos, metrics, tuple(lines)))
    return made


def _line(suite: Suite, task: Task, rule: str, kind: str, variant: str, folder: Path) -> tuple[int, int, int, Line] | None:
    """The line of a variant, with its protocol version and its numbers of queries and photos; None where nothing was measured."""
    values = tuple(suite.measure(task, variant, Score(metric, rule, kind)) for metric in METRICS)
    most = max(values, key=lambda measured: measured.n)
    if not most.n:
        return None
    runs = most.runs
    label = naming.label(variant) + " (smoke run)" * any(run.smoke for run in runs)
    return (runs[0].provenance.protocol_version, most.queries, most.photos,
            Line(label, _each(map(_encoder, runs)), dim_entry(suite, task, variant, kind).text,
                 f"{most.n} ({seed_names(most)})", values, _each(map(_commit, runs)),
                 _each(run.provenance.device for run in runs),
                 kept(runs[0].sent or runs[0].folder.parents[1], folder, folder=runs[0].sent is None)))


def _encoder(run: FinishedRun) -> str:
    """Its network and the side of its images; empty for features brought without settings."""
    network = setting(run.config, "network.backbone")
    return f"{naming.BACKBONES.get(network, network)}, {setting(run.config, 'data.image_size', '?')} px" if network else ""


def _commit(run: FinishedRun) -> str:
    """The first 8 digits, with a mark where files differed from the commit."""
    return run.provenance.commit[:8] + " + changes" * run.provenance.dirty


def _each(texts: Iterable[str]) -> str:
    """What the runs recorded, each once."""
    return ", ".join(sorted(filter(None, set(texts)))) or "unknown"
