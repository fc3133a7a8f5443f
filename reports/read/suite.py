"""All result folders of one output folder -> a suite, and what it measured.

In: a folder with suite.json, runs/ and reproductions/. Out: a Suite of checked runs. A mean knows on how many of the planned
seeds it rests; what is broken is named and left out.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from reports.read import means
from reports.read import runs as read
from reports.read.comparable import one_protocol_version, one_setting_per_row
from reports.read.files import ReportError, read_json, shown
from reports.read.measured import Measured
from reports.read.runs import FOLDER_NAME, FinishedRun, Score, Unfinished
from reports.read.schema import Cut, Deviation, Head, Planned, Reproduction, Task, parse
from tcn.files import earlier

T = TypeVar("T")


class NoResults(ReportError):
    """Nothing to report on."""


@dataclass
class Suite:
    """All result folders of one output folder, read and checked."""

    root: Path
    profile: str
    smoke: bool
    created: str
    command: str
    missing_datasets: dict[str, str]
    runs: list[FinishedRun]
    unfinished: list[Unfinished]
    left_out: list[tuple[str, str]]
    """(folder or file, why) of what was found and not used."""
    planned: dict[tuple[Task, str], set[int]]
    """(task, variant) -> seeds planned or found, finished or not."""
    deviations: list[Deviation] = field(default_factory=list)
    """The ledger's entries, in order; empty for results written before there was one."""
    reproductions: list[Reproduction] = field(default_factory=list)
    cut: Cut = Cut()
    """The budget of the plan, and whether it left the extension out."""
    cut_rows: dict[tuple[Task, str], set[int]] = field(default_factory=dict)
    """(task, variant) -> seeds that the budget left out; they are in `planned`, too."""
    further: tuple[Path, ...] = ()
    """Output folders that were read beside `root` (joined.py)."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Results that are computed from these runs once and needed in several places; the key names them."""
    _index: dict[tuple[Task, str], list[FinishedRun]] = field(default_factory=dict, repr=False)
    _scores: dict[str, dict[Score, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _ledgers: dict[str, pd.DataFrame | None] = field(default_factory=dict, repr=False)
    _classes: dict[tuple[str, Score], pd.Series | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for run in sorted(self.runs, key=lambda c: c.seed):
            self._index.setdefault((run.task, run.variant), []).append(run)

    def holding(self, name: str) -> Path:
        """The output folder, the first of several, that holds a file or folder of this name; `root` where none does."""
        return next((folder for folder in (self.root, *self.further) if (folder / name).exists()), self.root)

    def tasks(self) -> list[Task]:
        """Every task that was planned or found, by name."""
        return sorted({task for task, _ in self.planned})

    def variants(self, task: Task) -> list[str]:
        """Every variant planned or found for a task, by name."""
        return sorted({variant for where, variant in self.planned if where == task})

    @property
    def titles(self) -> dict[str, str]:
        """Variant -> the title that its run finished last recorded; built-in variants record none."""
        return {run.variant: run.provenance.title for run in sorted(self.runs, key=lambda run: run.provenance.finished)
                if run.provenance.title}

    def runs_of(self, task: Task, variant: str) -> list[FinishedRun]:
        """Finished runs of one row, by seed."""
        return self._index.get((task, variant), [])

    def measure(self, task: Task, variant: str, score: Score) -> Measured:
        """One number over the seeds of a row; empty where it was not measured."""
        expected = tuple(sorted(self.planned.get((task, variant), ())))
        values: dict[int, float] = {}
        runs, rows = [], []
        for run in self.runs_of(task, variant):
            row = self._rows(run).get(score)
            if row is not None:
                values[run.seed] = float(row["value"])
                runs.append(run)
                rows.append(row)
        return Measured(values, expected, _distinct(rows, "chance"), _distinct(rows, "ceiling"),
                        max((int(row["queries"]) for row in rows), default=0),
                        max((int(row["photos"]) for row in rows), default=0), tuple(runs),
                        max((float(row["standard_error"]) for row in rows), default=0.0),
                        tuple(sorted({str(row["ties"]) for row in rows} - {"expected"})))

    def value(self, run: FinishedRun, score: Score) -> float | None:
        """One number of one run; None where it has no such row."""
        row = self._rows(run).get(score)
        return None if row is None else float(row["value"])

    def scores(self, task: Task) -> set[Score]:
        """Every number that at least one finished run of the task has."""
        return {score for run in self.runs if run.task == task for score in self._rows(run)}

    def dim(self, task: Task, variant: str) -> int | None:
        """Feature length of a row; None where unknown or not the same for all seeds."""
        found = {run.dim for run in self.runs_of(task, variant)}
        return found.pop() if len(found) == 1 else None

    def frame(self, run: FinishedRun, file: str) -> pd.DataFrame | None:
        """A further CSV file of a run; None, with a note in `left_out`, where it is missing or broken."""
        return self._try(run, file, lambda: read.read_run_frame(run.folder / file))

    def ledger(self, run: FinishedRun) -> pd.DataFrame | None:
        """Rows of the run's ledger.csv; None where it has none, which only trained runs of one variant have."""
        if run.name not in self._ledgers:
            there = (run.folder / "ledger.csv").exists()
            self._ledgers[run.name] = self._try(run, "ledger.csv", lambda: read.read_ledger(run.folder)) if there else None
        return self._ledgers[run.name]

    def features(self, run: FinishedRun) -> dict[str, np.ndarray] | None:
        """Arrays of features.npz: query [Nq, D], gallery [Ng, D] and their labels; None as for `frame`."""
        return self._try(run, "features.npz", lambda: read.read_features(run.folder / "features.npz"))

    def examples(self, run: FinishedRun) -> list[dict[str, Any]] | None:
        """Checked contents of examples.json, picture files as existing paths; None as for `frame`."""
        return self._try(run, "examples.json", lambda: read.read_examples(run.folder))

    def per_class(self, run: FinishedRun, score: Score) -> pd.Series | None:
        """Class -> mean of a number over the class's queries, by name; None where per_query.npz holds no such number.

        It holds unseen classes, with all queries and the gallery as published. A file whose classes do not average to the
        run's number under the `released` rule, the one that is a mean over classes, is named in `left_out` and not used.
        """
        if (score.classes, score.source, score.gallery, score.duplicates) != ("unseen", "all", "all", "as-published"):
            return None
        if (run.name, score) not in self._classes:
            self._classes[run.name, score] = self._try(run, "per_query.npz",
                                                        lambda: read.read_classes(run, score, self.value(run, score)))
        return self._classes[run.name, score]

    def precisions(self, run: FinishedRun, labels: np.ndarray) -> np.ndarray | None:
        """Average precision of each query (released rule, real-valued) [Nq]; None as for `frame`.
        labels: the queries' classes."""
        return self._try(run, "per_query.npz", lambda: means.read_precisions(run.folder / "per_query.npz", labels))

    def distances(self, run: FinishedRun) -> dict[str, np.ndarray] | None:
        """Arrays of distances.npz: steps [T]; layers, parts, kinds, start_norm [L]; between, sketch, photo [T, L].

        None where the run wrote none (untrained, or older); also None, with a note in `left_out`, where it is broken.
        """
        path = run.folder / "distances.npz"
        return self._try(run, path.name, lambda: read.read_distances(path)) if path.exists() else None

    def precision_recall(self, run: FinishedRun) -> pd.DataFrame | None:
        """Columns features, recall, precision of precision_recall.csv; None as for `distances`."""
        path = run.folder / "precision_recall.csv"
        return self._try(run, path.name, lambda: read.read_precision_recall(path)) if path.exists() else None

    def _rows(self, run: FinishedRun) -> dict[Score, dict[str, Any]]:
        if run.name not in self._scores:
            self._scores[run.name] = read.rows_of(run)
        return self._scores[run.name]

    def _try(self, run: FinishedRun, file: str, contents: Callable[[], T]) -> T | None:
        """What a reader returns; None, with a note in `left_out`, where the file is missing, broken or not as it was written."""
        try:
            if run.sent is not None and not (run.folder / file).exists():  # a bundle holds no pictures, for example
                return None
            read.check_digest(run.folder, file)
            return contents()
        except ReportError as error:
            note = (f"{run.name}/{file}", f"{error}; the run's other numbers stay, what needs this file does without it")
            if note not in self.left_out:
                self.left_out.append(note)
            return None


def read_suite(root: Path) -> Suite:
    """Read `root`/suite.json and every folder under `root`/runs.

    Raises NoResults where there is no run folder, or none that is finished, failed or interrupted.
    """
    found = sorted(earlier.runs_folder(root).glob("*")) if root.is_dir() else []
    folders = [path for path in found if path.is_dir()]
    if not folders:
        raise NoResults(f"no results in '{root}': expected run folders in '{earlier.runs_folder(root)}'; "
                        "run `python benchmarks/run_all.py` first, or name another folder with --results")
    left_out = [(path.name, "no folder of a run, but a file") for path in found
                if path not in folders and not path.name.startswith(".")]
    head = _read_head(root, left_out)
    planned: dict[tuple[Task, str], set[int]] = {}
    in_plan: dict[tuple[Task, str, int], str] = {}
    for entry in _read_plan(root, head.runs, left_out, "runs"):
        task = Task(entry.dataset, entry.split)
        planned.setdefault((task, entry.variant), set()).add(entry.seed)
        in_plan[task, entry.variant, entry.seed] = Path(entry.folder).name

    runs: list[FinishedRun] = []
    unfinished: list[Unfinished] = []
    for folder in folders:
        try:
            run = read.read_run(folder)
        except ReportError as error:
            left_out.append((folder.name, str(error)))
            if match := FOLDER_NAME.match(folder.name):
                task = Task(match["dataset"], match["split"])
                planned.setdefault((task, earlier.name(match["variant"])), set()).add(int(match["seed"]))
            continue
        if isinstance(run, FinishedRun):
            runs.append(run)
        else:
            unfinished.append(run)
    runs = one_setting_per_row(one_protocol_version(runs, left_out), in_plan, left_out)
    done = {(run.task, run.variant, run.seed) for run in runs}
    unfinished = [u for u in unfinished if (u.task, u.variant, u.seed) not in done]
    known_runs: tuple[FinishedRun | Unfinished, ...] = (*runs, *unfinished)
    for run in known_runs:
        planned.setdefault((run.task, run.variant), set()).add(run.seed)
    known = done | {(u.task, u.variant, u.seed) for u in unfinished}
    broken = {name for name, _ in left_out}
    for key, name in in_plan.items():
        if key not in known and name not in broken:
            unfinished.append(Unfinished(name, *key, "not started", "planned, but its folder is not there"))
    cut, cut_rows = _read_cut(root, head.cut, planned, left_out)
    for row, seeds in cut_rows.items():
        planned.setdefault(row, set()).update(seeds)
    if not runs and not unfinished:
        more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        raise NoResults(f"no usable results in '{root}': "
                        + "; ".join(f"{name}: {reason}" for name, reason in left_out[:3]) + more)
    return Suite(root, head.profile, head.smoke, head.created, head.command, _missing(head.missing_datasets),
                 runs, sorted(unfinished, key=lambda u: (u.task, u.variant, u.seed)), left_out, planned,
                 _read_deviations(head.ledger, left_out), _read_reproductions(root, left_out), cut, cut_rows)


def _distinct(rows: list[dict[str, Any]], column: str) -> tuple[float, ...]:
    return tuple(sorted({float(row[column]) for row in rows if not math.isnan(row[column])}))


def _read_head(root: Path, left_out: list[tuple[str, str]]) -> Head:
    """suite.json. A broken field of it is named and takes its default."""
    try:
        found = earlier.head(read_json(root / "suite.json"))
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; the plan is unknown, so a seed that never started can't be named"))
        return Head()
    for key in Head.model_fields:
        try:
            parse(Head, {key: found.get(key)}, "suite.json")
        except ReportError as error:
            left_out.append(("suite.json", f"{error}; " + (
                "the plan is unknown" if key == "runs" else "the ledger table is left out" if key == "ledger" else "left away")))
            found[key] = None
    return parse(Head, found, "suite.json")


def _missing(found: Any) -> dict[str, str]:
    """Data set -> why it was not there; older files hold a list or a single name."""
    if isinstance(found, dict):
        return found
    return {str(name): "missing" for name in (found if isinstance(found, list) else [found])} if found else {}


def _read_cut(root: Path, found: dict[str, Any], planned: dict[tuple[Task, str], set[int]], left_out: list[tuple[str, str]]
              ) -> tuple[Cut, dict[tuple[Task, str], set[int]]]:
    """What the budget left out, and by row the seeds that no call has taken up since."""
    try:
        cut = parse(Cut, found, "suite.json, cut")
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; what the budget left out is unknown"))
        return Cut(), {}
    rows: dict[tuple[Task, str], set[int]] = {}
    for entry in _read_plan(root, cut.runs, left_out, "cut runs"):
        key = Task(entry.dataset, entry.split), entry.variant
        if entry.seed not in planned.get(key, ()):
            rows.setdefault(key, set()).add(entry.seed)
    return cut, rows


def _read_plan(root: Path, entries: list[Any], left_out: list[tuple[str, str]], field: str) -> list[Planned]:
    """The runs of suite.json, or those cut; an entry that can't be used is named."""
    plan = []
    for number, entry in enumerate(entries, 1):
        where = f"suite.json, entry {number} of its {field}"
        try:
            planned = parse(Planned, entry, where)
            parts = Path(planned.folder).parts
            if len(parts) > 2 or ".." in parts or len(parts) == 2 and parts[0] != earlier.runs_folder(root).name:
                raise ReportError(f"{where}: {shown(planned.folder)} is no folder below runs/; nothing outside is read")
            plan.append(planned)
        except ReportError as error:
            left_out.append(("suite.json", str(error)))
    return plan


def _read_deviations(entries: list[Any], left_out: list[tuple[str, str]]) -> list[Deviation]:
    """The ledger of suite.json; an entry that can't be read costs its row and is named."""
    deviations: dict[str, Deviation] = {}
    for number, entry in enumerate(entries, 1):
        where = f"entry {number} of its ledger"
        try:
            deviation = parse(Deviation, entry, where)
            if deviation.deviation in deviations:
                raise ReportError(f"{where}: '{deviation.deviation}' stands there twice")
            deviations[deviation.deviation] = deviation
        except ReportError as error:
            left_out.append(("suite.json", str(error)))
    return list(deviations.values())


def _read_reproductions(root: Path, left_out: list[tuple[str, str]]) -> list[Reproduction]:
    found = []
    for path in sorted((root / "reproductions").glob("*.json")):
        try:
            found.append(parse(Reproduction, {**read_json(path), "file": path.name}, path.name))
        except ReportError as error:
            left_out.append((f"reproductions/{path.name}", str(error)))
    return sorted(found, key=lambda r: (r.date, r.run))
