"""Which runs may share a table: of one protocol version, and in a row of one group of settings.

In: checked runs. Out: those that are kept; the others are named, with the reason, among what was left out.
"""
from __future__ import annotations

from collections.abc import Mapping

from reports.read.runs import FinishedRun
from reports.read.schema import Task


def one_protocol_version(runs: list[FinishedRun], left_out: list[tuple[str, str]],
                         version: int | None = None) -> list[FinishedRun]:
    """Keep the runs that were scored under `version` of the rules, or where that is None under the newest one among them."""
    wanted = max((run.provenance.protocol_version for run in runs), default=1) if version is None else version
    left_out += [(run.name, f"scored under protocol version {run.provenance.protocol_version}, the others here under "
                  f"{wanted}; numbers of two versions never share a table, so show it in a report of its own, or run it again")
                 for run in runs if run.provenance.protocol_version != wanted]
    return [run for run in runs if run.provenance.protocol_version == wanted]


def one_setting_per_row(runs: list[FinishedRun], in_plan: Mapping[tuple[Task, str, int], str],
                        left_out: list[tuple[str, str]]) -> list[FinishedRun]:
    """Keep one group of equal settings per (task, variant): the planned one, else the one finished last."""
    groups: dict[tuple[Task, str], dict[str, list[FinishedRun]]] = {}
    for run in runs:
        groups.setdefault((run.task, run.variant), {}).setdefault(run.settings(), []).append(run)
    kept: list[FinishedRun] = []
    for by_settings in groups.values():
        def rank(group: list[FinishedRun]) -> tuple[int, str]:
            planned = sum(in_plan.get((c.task, c.variant, c.seed)) == c.name for c in group)
            return planned, max(c.provenance.finished for c in group)
        best = max(by_settings.values(), key=rank)
        # Of a run that an earlier version wrote under another name and this one made again, the later one.
        kept += {c.seed: c for c in sorted(best, key=lambda c: c.provenance.finished)}.values()
        for group in by_settings.values():
            if group is not best:
                left_out += [(c.name, (f"other settings, data or split than {best[0].name}, which is the "
                              f"{'planned' if rank(best)[0] else 'latest'} one of this row")) for c in group]
    return sorted(kept, key=lambda c: (c.task, c.variant, c.seed))
