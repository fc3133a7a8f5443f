"""Several output folders of one's own, read as one suite: runs that were made in parts, here or on several machines.

In: output folders, in order. Out: one suite. Its runs decide verdicts like those of a single folder, so folders of different
profiles, whose settings differ, are an error. Bundles, which others sent, are in `bundles.py`.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reports.read.comparable import one_protocol_version, one_setting_per_row
from reports.read.files import ReportError
from reports.read.runs import FinishedRun
from reports.read.schema import Task
from reports.read.suite import Suite, read_suite

METRICS = "metrics.csv"


def read_suites(roots: Sequence[Path]) -> Suite:
    """The suite of one folder or more. Of a run that stands in several, the one in the folder named first is kept, and the other
    is named among what was left out, with whether its numbers are the same.

    Raises NoResults as `read_suite` does, and ReportError where a folder stands there twice or profiles differ.
    """
    suites = [read_suite(root) for root in roots]
    return suites[0] if len(suites) == 1 else _joined(suites)


def _joined(suites: Sequence[Suite]) -> Suite:
    first = suites[0]
    if len({suite.root.resolve() for suite in suites}) < len(suites):
        raise ReportError("--results names a folder twice; name each once")
    if other := next((suite for suite in suites if suite.profile != first.profile), None):
        raise ReportError(f"'{first.root}' is of profile {first.profile or 'unknown'}, '{other.root}' of "
                          f"{other.profile or 'unknown'}; a report shows one profile, so render them one by one")
    left_out = [entry for suite in suites for entry in suite.left_out]
    runs: dict[str, FinishedRun] = {}
    for run in (run for suite in suites for run in suite.runs):
        if kept := runs.get(run.name):
            same = (kept.folder / METRICS).read_bytes() == (run.folder / METRICS).read_bytes()
            here, there = (Path(os.path.relpath(folder, first.root.parent)).as_posix()
                           for folder in (run.folder, kept.folder.parent))
            left_out.append((here, f"the same run stands in {there}, which is shown, with " + (
                "the same numbers" if same else "other numbers: bits repeat on one machine, at one number of threads")))
        else:
            runs[run.name] = run
    planned = {(run.task, run.variant, run.seed): run.name for run in first.runs}
    used = one_setting_per_row(one_protocol_version(list(runs.values()), left_out), planned, left_out)
    done = {(run.task, run.variant, run.seed) for run in used}
    unfinished = {(u.task, u.variant, u.seed): u for suite in reversed(suites) for u in suite.unfinished}
    cut = {row: left for row, seeds in _union(suite.cut_rows for suite in suites).items()
           if (left := {seed for seed in seeds if (*row, seed) not in done})}
    return Suite(first.root, first.profile, any(suite.smoke for suite in suites), first.created,
                 "\n".join(filter(None, (suite.command for suite in suites))),
                 {name: why for suite in reversed(suites) for name, why in suite.missing_datasets.items()},
                 used, [u for key, u in sorted(unfinished.items()) if key not in done], left_out,
                 _union(suite.planned for suite in suites),
                 next((suite.deviations for suite in suites if suite.deviations), []),
                 [each for suite in suites for each in suite.reproductions],
                 next((suite.cut for suite in suites if suite.cut.budget), first.cut), cut,
                 further=tuple(suite.root for suite in suites[1:]))


def _union(each: Iterable[Mapping[tuple[Task, str], set[int]]]) -> dict[tuple[Task, str], set[int]]:
    """(task, variant) -> the seeds that any of these has."""
    found: dict[tuple[Task, str], set[int]] = {}
    for rows in each:
        for row, seeds in rows.items():
            found.setdefault(row, set()).update(seeds)
    return found
