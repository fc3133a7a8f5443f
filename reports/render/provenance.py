"""From a number on the page to what it was made of: one entry per run, down to its per-query values.

In: checked runs. Out: what each run's entry shows (settings, code, data, environment, files, how to run it again), and its means
worked out again from the per-query values that it kept.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reports import naming
from reports.read import means
from reports.read.files import ReportError, read_json
from reports.read.means import Recomputed
from reports.read.runs import FinishedRun, setting
from reports.read.schema import Mirrored, Reproduction, parse
from reports.read.suite import Suite
from tcn.files.inside import is_inside

SHORT_DIFF = 200
"""A diff of at most so many lines stands on the page in full; a longer one is linked."""
LONG_DIFF = 1 << 20
"""A diff of more bytes than this is not read."""
FILES = ("config.json", "provenance.json", "status.json", "method.py", "method.zip", "metrics.csv", "per_query.npz",
         "per_query.csv", "ledger.csv", "history.csv", "steps.csv", "features.npz", "singular_values.csv", "diff.patch",
         "checkpoint.pt")


def recompute(run: FinishedRun, suite: Suite) -> Recomputed:
    """`means.recompute`; what can't be read is named among what the suite left out, too."""
    found = means.recompute(run)
    if found.problem.startswith(means.UNREADABLE):
        note = (f"{run.name}/per-query values", found.problem.removeprefix("per-query values "))
        if note not in suite.left_out:
            suite.left_out.append(note)
    return found


def summary(found: Mapping[str, Recomputed]) -> str:
    """One sentence over all runs."""
    checked = [r for r in found.values() if r.checks]
    numbers = sum(len(r.checks) for r in checked)
    differ = sum(len(r.differing) for r in checked)
    without = len(found) - len(checked)
    text = f"When this page was made, {numbers:,} means of {len(checked)} runs were worked out again from the per-query values " \
           f"that the runs kept: {'all equal' if not differ else f'{differ} DIFFER'}."
    return text + (f" {without} run{'s' * (without != 1)} kept none that could be read." if without else "")


@dataclass(frozen=True)
class Kept:
    """A file of a run, and its address relative to the page; empty where no relative path leads there (on another drive)."""

    name: str
    address: str


@dataclass(frozen=True)
class Changes:
    """What is known of the uncommitted changes that a run was made with."""

    file: Kept | None
    """The diff, where the run kept it."""
    size: str = ""
    text: str | None = None
    """The diff itself, where it is short enough to be shown."""


@dataclass(frozen=True)
class RunEntry:
    """What the page shows of one run."""

    run: FinishedRun
    checked: Recomputed
    again: tuple[Reproduction, ...]
    """Repetitions of the run."""
    folder: Kept
    files: tuple[Kept, ...]
    settings: tuple[str, ...]
    """`name = value` of every setting."""
    versions: str
    manifest: str
    mlflow: str
    changes: Changes | None


@dataclass(frozen=True)
class RunGroup:
    """The runs of one task and variant."""

    anchor: str
    title: str
    entries: tuple[RunEntry, ...]


def groups(suite: Suite, page_folder: Path, checked: Mapping[str, Recomputed]) -> list[RunGroup]:
    """Every finished run, by task and variant. `checked`: run -> its means worked out again."""
    found: dict[str, list[FinishedRun]] = {}
    for run in suite.runs:
        found.setdefault(run.group_anchor, []).append(run)
    return [RunGroup(anchor, f"{naming.task_title(runs[0].task)}: {naming.label(runs[0].variant)}",
                     tuple(_entry(run, suite, page_folder, checked[run.name]) for run in runs))
            for anchor, runs in found.items()]


def _entry(run: FinishedRun, suite: Suite, page_folder: Path, checked: Recomputed) -> RunEntry:
    p = run.provenance
    return RunEntry(
        run, checked, tuple(r for r in suite.reproductions if r.run == run.name),
        kept(run.sent or run.folder, page_folder, folder=run.sent is None),
        tuple(kept(run.folder / name, page_folder) for name in FILES if run.sent is None and (run.folder / name).is_file()),
        tuple(f"{name} = {value}" for name, value in _flat(_that_apply(run)).items()),
        ", ".join([f"Python {p.python or '?'}", *(f"{name} {version}" for name, version in p.versions.items())]),
        _manifest(p.manifest) if "manifest" in p.model_fields_set else "", _mlflow(run.folder), _changes(run, page_folder))


def _manifest(manifest: Mapping[str, Any] | None) -> str:
    if manifest is None:
        return "the files' contents were not checked before this run (python -m tcn data check does)"
    rest = "; ".join(f"{key}: {value}" for key, value in manifest.items() if key != "content_digest")
    return f"{manifest.get('content_digest', '?')}" + (f" ({rest})" if rest else "")


def _mlflow(folder: Path) -> str:
    if not (folder / "mlflow.json").exists():
        return ""
    try:
        found = parse(Mirrored, read_json(folder / "mlflow.json"), "mlflow.json")
    except ReportError as error:
        return str(error)
    return f"{found.run_id} in {found.uri.rstrip('/').rsplit('/', 1)[-1]}"


def _changes(run: FinishedRun, page_folder: Path) -> Changes | None:
    """Uncommitted changes; None where there were none."""
    if not run.provenance.dirty:
        return None
    path = run.folder / "diff.patch"
    if not is_inside(path, run.folder):
        return Changes(None)  # a link that leads elsewhere could show any file of this machine
    file = kept(path, page_folder)
    if path.stat().st_size > LONG_DIFF:
        return Changes(file, f", {path.stat().st_size / 1e6:,.1f} MB")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.count("\n")
    return Changes(file, f"{lines} lines", text) if lines <= SHORT_DIFF else Changes(file, f" ({lines:,} lines)")


def _that_apply(run: FinishedRun) -> dict[str, Any]:
    """The settings that a run's numbers depend on. Features that were brought along were scored here, and nothing else."""
    brought = run.provenance.brought
    return {"brought along": brought, "data": {key: setting(run.config, f"data.{key}") for key in ("dataset", "split")},
            "evaluation": run.config.get("evaluation", {}), "seed": run.seed} if brought else run.config


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name.

    >>> _flat({"data": {"split": "1"}, "seed": 0})
    {'data.split': '1', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def kept(path: Path, page_folder: Path, folder: bool = False) -> Kept:
    """A file or folder with its address relative to the page: results may be moved as a whole."""
    try:
        target = Path(os.path.relpath(path, page_folder)).as_posix()
    except ValueError:  # another drive: no relative path leads there
        return Kept(path.name, "")
    return Kept(path.name, quote(os.fsencode(target + "/" * folder)))
