"""From a number on the page to what it was made of: one entry per run, down to its per-query values.

In: checked runs. Out: what each run's entry shows (settings, code, data, environment, files, how to run it again), and its means
worked out again from the per-query values that it kept.
"""
from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from reports import naming
from reports.read.files import ReportError, read_arrays, read_json
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Mirrored, Reproduction, parse
from reports.read.suite import Suite

EQUAL = 1e-9
"""Two means of the same values, added up in another order, differ by less than this."""
SHORT_DIFF = 200
"""A diff of at most so many lines stands on the page in full; a longer one is linked."""
LONG_DIFF = 1 << 20
"""A diff of more bytes than this is not read."""
MACRO = {"released"}
"""Rules that average over classes first; the others average over queries."""
FILES = ("config.json", "provenance.json", "status.json", "method.py", "method.zip", "metrics.csv", "per_query.npz",
         "per_query.csv", "ledger.csv", "history.csv", "steps.csv", "features.npz", "singular_values.csv", "diff.patch", "checkpoint.pt")


@dataclass(frozen=True)
class Check:
    """One number of metrics.csv beside the mean of the run's own per-query values."""

    name: str
    """`features/rule/metric`."""
    values: int
    recomputed: float
    stated: float

    @property
    def equal(self) -> bool:
        """Whether the two agree."""
        return abs(self.recomputed - self.stated) <= EQUAL


@dataclass(frozen=True)
class Recomputed:
    """All checks of one run; `problem` says why there are none."""

    file: str
    checks: tuple[Check, ...] = ()
    problem: str = ""

    @property
    def differing(self) -> tuple[Check, ...]:
        """The numbers that the run's own values don't give."""
        return tuple(check for check in self.checks if not check.equal)

    def sentence(self) -> str:
        """What was recomputed from how many values, and whether it agrees."""
        if self.problem:
            return self.problem
        counts = sorted({check.values for check in self.checks})
        values = " or ".join(f"{n:,}" for n in counts)
        head = f"{len(self.checks)} numbers, each recomputed from {values} per-query values ({self.file})"
        if not self.differing:
            return f"{head}: equal"
        worst = "; ".join(f"{c.name} {c.recomputed:.6f} against {c.stated:.6f}" for c in self.differing[:3])
        return f"{head}: {len(self.differing)} DIFFER{'S' * (len(self.differing) == 1)} ({worst})"


def recompute(run: FinishedRun, suite: Suite) -> Recomputed:
    """Work out every mean over all queries and the whole gallery again from per-query values, as each rule averages."""
    try:
        file, classes, arrays = _per_query(run.folder)
        unseen = _classes_without_photos(run)
    except FileNotFoundError:
        return Recomputed("", problem="this run kept no per-query values")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        note = (f"{run.name}/per-query values", f"can't be read ({error}); its means could not be worked out again")
        if not isinstance(error, ReportError):
            note = (note[0], f"can't be read ({type(error).__name__}: {error}); its means could not be worked out again")
        if note not in suite.left_out:
            suite.left_out.append(note)
        return Recomputed("", problem=f"per-query values {note[1]}")
    checks = []
    for name, values in arrays.items():
        features, rule, metric = name.split("/", 2)
        stated = suite.value(run, Score(metric, rule, features))
        if stated is None:
            continue
        counted = ~np.isin(classes[name], unseen) if metric.startswith("mAP") else np.ones(len(values), bool)
        checks.append(Check(name, int(counted.sum()), _mean(values[counted], classes[name][counted], rule), stated))
    if not checks:
        return Recomputed(file, problem=f"{file} holds no number of metrics.csv")
    return Recomputed(file, tuple(checks))


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
        _kept(run.folder, page_folder, folder=True),
        tuple(_kept(run.folder / name, page_folder) for name in FILES if (run.folder / name).is_file()),
        tuple(f"{name} = {value}" for name, value in _flat(_that_apply(run)).items()),
        ", ".join([f"Python {p.python or '?'}", *(f"{name} {version}" for name, version in p.versions.items())]),
        _manifest(p.manifest) if "manifest" in p.model_fields_set else "", _mlflow(run.folder), _changes(run, page_folder))


def _per_query(folder: Path) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """File name; then, by `features/rule/metric`, the class of each query and the values [queries].

    Older runs kept a CSV file with three numbers a query."""
    path = folder / "per_query.npz"
    if path.exists():
        arrays = read_arrays(path)
        classes = arrays.get("class")
        if classes is None or classes.ndim != 1 or classes.dtype.kind != "U":
            raise ReportError(f"{path.name} lacks the array class, or it holds no names")
        arrays = {name: values for name, values in arrays.items() if name.count("/") == 2}
        for name, values in arrays.items():
            if values.shape != classes.shape or values.dtype.kind not in "fiu":
                raise ReportError(f"{path.name}, {name} has {values.dtype} {values.shape} for {classes.shape} queries")
        return path.name, dict.fromkeys(arrays, classes), arrays
    found: dict[str, list[float]] = {}
    of: dict[str, list[str]] = {}
    with (folder / "per_query.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            for column, names in (("AP_released", ("released/mAP@all",)), ("AP_standard", ("standard/mAP@all",)),
                                  ("Prec@R", ("released/Prec@R", "standard/Prec@R"))):
                for name in (f"{row['features']}/{rest}" for rest in names):
                    found.setdefault(name, []).append(float(row[column]))
                    of.setdefault(name, []).append(row["class"])
    return ("per_query.csv", {name: np.array(names) for name, names in of.items()},
            {name: np.array(values) for name, values in found.items()})


def _classes_without_photos(run: FinishedRun) -> np.ndarray:
    """Classes that the released rule skips in mAP: only where the run was told to skip them."""
    if setting(run.config, "evaluation.missing_classes") != "as-released":
        return np.array([], dtype=str)
    arrays = read_arrays(run.folder / "features.npz", ("query_labels", "gallery_labels"))
    if len(arrays) < 2:
        raise ReportError("features.npz lacks the labels that say which classes have no photos")
    return np.setdiff1d(arrays["query_labels"], arrays["gallery_labels"])


def _mean(values: np.ndarray, classes: np.ndarray, rule: str) -> float:
    if not len(values):
        return 0.0
    if rule in MACRO:
        return float(np.mean([values[classes == name].mean() for name in np.unique(classes)]))
    return float(values.mean())


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
    if not path.is_file() or not path.resolve().is_relative_to(run.folder.resolve()):
        return Changes(None)  # a link that leads elsewhere could show any file of this machine
    file = _kept(path, page_folder)
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


def _kept(path: Path, page_folder: Path, folder: bool = False) -> Kept:
    """A file or folder with its address relative to the page: results may be moved as a whole."""
    try:
        target = Path(os.path.relpath(path, page_folder)).as_posix()
    except ValueError:  # another drive: no relative path leads there
        return Kept(path.name, "")
    return Kept(path.name, quote(os.fsencode(target + "/" * folder)))
