"""Result folders in, checked cells out.

A cell is one run of one variant with one seed. What can't be trusted is named and left out, never guessed;
every mean knows how many of its planned seeds it rests on.
"""
from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.read.escaping import slug, visible
from reports.read.files import (
    MOST_COUNT,
    MOST_NUMBER,
    ReportError,
    array_shape,
    check_fields,
    check_picture,
    is_count,
    read_arrays,
    read_frame,
    read_json,
    shown,
)
from tcn.files.checksums import SUMS, file_digest, read_sums

__all__ = ["ReportError", "read_frame", "read_json"]
FOLDER_NAME = re.compile(r"^(?P<dataset>[^-]+)-(?P<split>.+?)__(?P<variant>.+)__seed(?P<seed>\d+)__(?P<identity>\w+)$")
METRIC_TEXT = ("classes", "features", "protocol", "metric", "query_source", "gallery")
METRIC_NUMBERS = ("value", "chance", "ceiling", "queries", "photos")
METRIC_LATER = {"duplicates": "as-published", "ties": "expected", "standard_error": "0"}
"""Columns that older metrics.csv files lack, and what those files mean by it."""
FRAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "metrics.csv": (METRIC_TEXT, METRIC_NUMBERS),
    "history.csv": ((), ("epoch", "class_sketch", "class_photo", "seen_accuracy", "validation_map")),
    "steps.csv": ((), ("step", "epoch", "class_sketch", "class_photo")),
    "singular_values.csv": (("set", "modality"), ("index", "value")),
    "ledger.csv": (("trap", "arm", "features", "protocol", "metric", "note"), ("value",)),
    "precision_recall.csv": (("features",), ("recall", "precision")),
}
"""File -> (text columns, number columns) that must be there; further columns are kept as text."""
CONFIG_FIELDS = {
    **dict.fromkeys(("data", "network", "coupling", "losses", "training", "execution", "evaluation"), "a group of settings"),
    "data.dataset": "a name", "data.split": "a name", "variant": "a name", "seed": "a whole number from 0", "identity": "text",
    "network.dim": "a whole number from 0", "losses.sharing": "a number from 0", "training.epochs": "a whole number from 0",
    "training.optimizer": "text", "evaluation.features": "text", "evaluation.missing_classes": "text"}
STATUS_FIELDS = {"state": "a name", "reason": "text", "epochs": "a whole number from 0", "epochs_done": "a whole number from 0",
                 "best_epoch": "a whole number from 0"}
PROVENANCE_FIELDS = {
    **dict.fromkeys(("identity", "commit", "python", "device", "platform", "command", "started", "finished", "data_digest",
                     "split_digest", "words_digest", "selected_by", "words", "weights", "diff_sha256"), "text"),
    **dict.fromkeys(("dirty", "smoke"), "true or false"), **dict.fromkeys(("versions", "manifest"), "a group of settings"),
    "notes": "a list",
    "optimizer_steps": "a whole number from 0", "train_seconds": "a number from 0", "total_seconds": "a number from 0"}
HEAD_FIELDS = {"profile": "a name", "smoke": "true or false", "created": "text", "command": "text", "cells": "a list",
               "ledger": "a list"}
"""Field of a run's files or of suite.json -> what must stand there where it is given; other fields are shown as they are."""
TRAP_KINDS = ("training", "scoring", "pictures", "data", "fixed", "remaining")
FEATURE_ARRAYS = ("query", "gallery", "query_labels", "gallery_labels")
DISTANCE_ARRAYS = ("steps", "layers", "parts", "kinds", "start_norm", "between", "sketch", "photo")
CLASS_TOLERANCE = 1e-6
"""How far the mean over classes of per_query.npz may be from the number in metrics.csv, which may be rounded there."""


class NoResults(ReportError):
    """Nothing to report on."""


@dataclass(frozen=True, order=True)
class Task:
    """A data set and its split: numbers are compared within a task, never across."""

    dataset: str
    split: str

    @property
    def slug(self) -> str:
        """Name for files and anchors: letters, digits, dots and hyphens only."""
        return slug(self.dataset, self.split)


@dataclass(frozen=True)
class Score:
    """Which number: the columns of metrics.csv that pick one row of a cell."""

    metric: str
    protocol: str = "released"
    features: str = "real"
    classes: str = "unseen"
    source: str = "all"
    gallery: str = "all"
    duplicates: str = "as-published"


@dataclass(frozen=True)
class Trap:
    """One entry of the ledger as suite.json names it: where released code and corrected behaviour part."""

    trap: str
    title: str
    consequence: str = ""
    setting: str = ""
    released: str = ""
    corrected: str = ""
    kind: str = "fixed"
    """`training` (paired runs), `scoring` (one network scored twice), `pictures` (how files are read), `data`, `fixed` (nothing
    left to switch), or `remaining` (ours also under --as-released)."""
    arms: dict[str, str | None] = field(default_factory=dict)
    """`training` only: arm (`corrected`, `released`) -> variant."""
    note: str = ""
    datasets: tuple[str, ...] = ()
    """Data sets on which the released code behaves so; empty: all."""


@dataclass(frozen=True)
class Reproduction:
    """A run that was run again, and how far the second run's numbers are from the first's."""

    file: str
    run: str
    variant: str
    dataset: str
    split: str
    seed: int
    verdict: str
    tolerance: float
    largest_difference: float
    where: str
    compared: int
    same_environment: bool
    differences: tuple[str, ...]
    command: str
    date: str


@dataclass(frozen=True)
class Cell:
    """One finished run whose four core files are sound."""

    folder: Path
    task: Task
    variant: str
    seed: int
    config: dict[str, Any]
    status: dict[str, Any]
    provenance: dict[str, Any]
    metrics: pd.DataFrame
    dim: int | None
    """Length of its feature vectors, None where neither features nor settings tell."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def anchor(self) -> str:
        """Fragment identifier of its provenance entry on the page."""
        return "run-" + slug(self.name)

    @property
    def group_anchor(self) -> str:
        """Fragment identifier of all runs of its row: same task and variant, any seed."""
        return f"runs-{self.task.slug}-{slug(self.variant)}"

    @property
    def trained(self) -> bool:
        return setting(self.config, "training.optimizer", "adam") != "none" and bool(self.status.get("epochs"))

    @property
    def smoke(self) -> bool:
        """Whether it was run to try the chain alone; runs from before this was recorded tell it by their command."""
        recorded = self.provenance.get("smoke")
        return "--quick" in str(self.provenance.get("command", "")).split() if recorded is None else recorded

    def settings(self) -> str:
        """Everything that must agree between seeds of one row: settings without the seed, data, split."""
        config = {key: value for key, value in self.config.items() if key not in ("seed", "identity")}
        parts = [config, self.provenance.get("data_digest"), self.provenance.get("split_digest")]
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True)
class Unfinished:
    """A planned cell without numbers, and why."""

    name: str
    task: Task
    variant: str
    seed: int
    state: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """One number over seeds: never a mean over fewer seeds than it says."""

    values: dict[int, float]
    """Seed -> value, for the seeds that have it."""
    expected: tuple[int, ...]
    """Seeds planned or found for this row."""
    chance: tuple[float, ...] = ()
    """Distinct chance levels among the seeds: one, where all saw the same queries and gallery."""
    ceiling: tuple[float, ...] = ()
    queries: int = 0
    """Queries behind each seed's value (the largest among seeds)."""
    photos: int = 0
    runs: tuple[Cell, ...] = field(default=(), repr=False)
    standard_error: float = 0.0
    """Largest standard error among seeds of a value that is a mean over sampled tie orders; 0 where it is exact."""
    ties: tuple[str, ...] = ()
    """How equal distances were ordered, where not all seeds agree on `expected`."""

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where nothing was measured."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation over seeds (divisor n - 1); NaN below two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else math.nan

    @property
    def seeds(self) -> str:
        """`3/3`, `2/3`, or `1 seed` where one was all that was planned.

        >>> Measured({0: .5}, (0,)).seeds, Measured({0: .5}, (0, 1, 2)).seeds, Measured({}, ()).seeds
        ('1 seed', '1/3', 'none')
        """
        if not self.expected:
            return "none"
        if self.n == len(self.expected) == 1:
            return "1 seed"
        return f"{self.n}/{len(self.expected)}"

    def text(self, decimals: int = 3) -> str:
        """Mean ± sd, or `not measured`.

        >>> Measured({0: .1, 1: .3}, (0, 1)).text(), Measured({}, (0, 1)).text()
        ('0.200 ± 0.141', 'not measured')
        """
        if not self.values:
            return "not measured"
        spread = f" ± {self.sd:.{decimals}f}" if self.n > 1 else ""
        return f"{self.mean:.{decimals}f}{spread}"


def paired(first: Measured, second: Measured) -> Measured:
    """first - second, seed by seed, over the seeds that both have; its runs are both sides' runs of those seeds.

    >>> gap = paired(Measured({0: .5, 1: .75}, (0, 1)), Measured({0: .25, 1: .25, 2: .1}, (0, 1, 2)))
    >>> gap.values, gap.seeds
    ({0: 0.25, 1: 0.5}, '2/3')
    """
    common = sorted(set(first.values) & set(second.values))
    runs = {cell.name: cell for side in (first, second) for cell in side.runs if cell.seed in common}
    return Measured({seed: first.values[seed] - second.values[seed] for seed in common},
                    tuple(sorted({*first.expected, *second.expected})), runs=tuple(runs.values()),
                    standard_error=math.hypot(first.standard_error, second.standard_error))


@dataclass
class Suite:
    """All result folders of one output folder, read and checked."""

    root: Path
    profile: str
    smoke: bool
    created: str
    command: str
    missing_datasets: dict[str, str]
    cells: list[Cell]
    unfinished: list[Unfinished]
    left_out: list[tuple[str, str]]
    """(folder or file, why) of what was found and not used."""
    planned: dict[tuple[Task, str], set[int]]
    """(task, variant) -> seeds planned or found, finished or not."""
    traps: list[Trap] = field(default_factory=list)
    """The ledger's entries, in order; empty for results written before there was one."""
    reproductions: list[Reproduction] = field(default_factory=list)
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What is worked out of these cells once and needed on several pages; the key names it."""
    _index: dict[tuple[Task, str], list[Cell]] = field(default_factory=dict, repr=False)
    _scores: dict[str, dict[Score, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _ledgers: dict[str, pd.DataFrame | None] = field(default_factory=dict, repr=False)
    _classes: dict[tuple[str, Score], pd.Series | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for cell in sorted(self.cells, key=lambda c: c.seed):
            self._index.setdefault((cell.task, cell.variant), []).append(cell)

    def tasks(self) -> list[Task]:
        """Every task that was planned or found, by name."""
        return sorted({task for task, _ in self.planned})

    def variants(self, task: Task) -> list[str]:
        """Every variant planned or found for a task, by name."""
        return sorted({variant for where, variant in self.planned if where == task})

    def cells_of(self, task: Task, variant: str) -> list[Cell]:
        """Finished cells of one row, by seed."""
        return self._index.get((task, variant), [])

    def measure(self, task: Task, variant: str, score: Score) -> Measured:
        """One number over the seeds of a row; empty where it was not measured."""
        expected = tuple(sorted(self.planned.get((task, variant), ())))
        values: dict[int, float] = {}
        runs, rows = [], []
        for cell in self.cells_of(task, variant):
            row = self._rows(cell).get(score)
            if row is not None:
                values[cell.seed] = float(row["value"])
                runs.append(cell)
                rows.append(row)
        return Measured(values, expected, _distinct(rows, "chance"), _distinct(rows, "ceiling"),
                        max((int(row["queries"]) for row in rows), default=0),
                        max((int(row["photos"]) for row in rows), default=0), tuple(runs),
                        max((float(row["standard_error"]) for row in rows), default=0.0),
                        tuple(sorted({str(row["ties"]) for row in rows} - {"expected"})))

    def value(self, cell: Cell, score: Score) -> float | None:
        """One number of one run; None where it has no such row."""
        row = self._rows(cell).get(score)
        return None if row is None else float(row["value"])

    def scores(self, task: Task) -> set[Score]:
        """Every number that at least one finished cell of the task has."""
        return {score for cell in self.cells if cell.task == task for score in self._rows(cell)}

    def dim(self, task: Task, variant: str) -> int | None:
        """Feature length of a row; None where unknown or not the same for all seeds."""
        found = {cell.dim for cell in self.cells_of(task, variant)}
        return found.pop() if len(found) == 1 else None

    def frame(self, cell: Cell, file: str) -> pd.DataFrame | None:
        """A further CSV file of a cell; None, with a note in `left_out`, where it is missing or broken."""
        return self._try(cell, file, lambda: _read_run_frame(cell.folder / file))

    def ledger(self, cell: Cell) -> pd.DataFrame | None:
        """Rows of the cell's ledger.csv; None where it has none, which only trained cells of one variant have."""
        if cell.name not in self._ledgers:
            there = (cell.folder / "ledger.csv").exists()
            self._ledgers[cell.name] = self._try(cell, "ledger.csv", lambda: _read_ledger(cell.folder)) if there else None
        return self._ledgers[cell.name]

    def features(self, cell: Cell) -> dict[str, np.ndarray] | None:
        """Arrays of features.npz: query [Nq, D], gallery [Ng, D] and their labels; None as for `frame`."""
        return self._try(cell, "features.npz", lambda: _read_features(cell.folder / "features.npz"))

    def examples(self, cell: Cell) -> list[dict[str, Any]] | None:
        """Checked contents of examples.json, picture files as existing paths; None as for `frame`."""
        return self._try(cell, "examples.json", lambda: _read_examples(cell.folder))

    def per_class(self, cell: Cell, score: Score) -> pd.Series | None:
        """Class -> mean of a number over the class's queries, by name; None where per_query.npz holds no such number.

        It holds unseen classes, with all queries and the gallery as published. A file whose classes do not average to the
        cell's number under the `released` rule, the one that is a mean over classes, is named in `left_out` and not used.
        """
        if (score.classes, score.source, score.gallery, score.duplicates) != ("unseen", "all", "all", "as-published"):
            return None
        if (cell.name, score) not in self._classes:
            self._classes[cell.name, score] = self._try(cell, "per_query.npz",
                                                        lambda: _read_classes(cell, score, self.value(cell, score)))
        return self._classes[cell.name, score]

    def distances(self, cell: Cell) -> dict[str, np.ndarray] | None:
        """Arrays of distances.npz: steps [T]; layers, parts, kinds, start_norm [L]; between, sketch, photo [T, L].

        None where the run wrote none (untrained, or older); also None, with a note in `left_out`, where it is broken.
        """
        path = cell.folder / "distances.npz"
        return self._try(cell, path.name, lambda: _read_distances(path)) if path.exists() else None

    def precision_recall(self, cell: Cell) -> pd.DataFrame | None:
        """Columns features, recall, precision of precision_recall.csv; None as for `distances`."""
        path = cell.folder / "precision_recall.csv"
        return self._try(cell, path.name, lambda: _read_precision_recall(path)) if path.exists() else None

    def _rows(self, cell: Cell) -> dict[Score, dict[str, Any]]:
        if cell.name not in self._scores:
            self._scores[cell.name] = {
                Score(row["metric"], row["protocol"], row["features"], row["classes"], row["query_source"],
                      row["gallery"], row["duplicates"]): row for row in cell.metrics.to_dict("records")}
        return self._scores[cell.name]

    def _try(self, cell: Cell, file: str, read: Any) -> Any:
        try:
            _check_digest(cell.folder, file)
            return read()
        except ReportError as error:
            note = (f"{cell.name}/{file}", f"{error}; the run's other numbers stay, what needs this file does without it")
            if note not in self.left_out:
                self.left_out.append(note)
            return None


def setting(config: dict[str, Any], dotted: str, default: Any = None) -> Any:
    """A value of nested settings by dotted name.

    >>> setting({"training": {"epochs": 3}}, "training.epochs"), setting({}, "training.epochs", 0)
    (3, 0)
    """
    node: Any = config
    for key in dotted.split("."):
        if not isinstance(node, dict) or key not in node:
            return default
        node = node[key]
    return node


def read_suite(root: Path) -> Suite:
    """Read `root`/suite.json and every folder under `root`/cells.

    Raises NoResults where there is no cell folder, or none that is finished, failed or interrupted.
    """
    found = sorted((root / "cells").glob("*")) if root.is_dir() else []
    folders = [path for path in found if path.is_dir()]
    if not folders:
        raise NoResults(f"no results in '{root}': expected cell folders in '{root / 'cells'}'; "
                        "run `python benchmarks/run_all.py` first, or name another folder with --results")
    left_out = [(path.name, "no folder of a run, but a file") for path in found
                if path not in folders and not path.name.startswith(".")]
    head = _read_head(root, left_out)
    planned: dict[tuple[Task, str], set[int]] = {}
    in_plan: dict[tuple[Task, str, int], str] = {}
    for entry in head["cells"]:
        task = Task(entry["dataset"], entry["split"])
        planned.setdefault((task, entry["variant"]), set()).add(entry["seed"])
        in_plan[task, entry["variant"], entry["seed"]] = Path(entry["folder"]).name

    cells, unfinished = [], []
    for folder in folders:
        try:
            found = _read_cell(folder)
        except ReportError as error:
            left_out.append((folder.name, str(error)))
            if match := FOLDER_NAME.match(folder.name):
                task = Task(match["dataset"], match["split"])
                planned.setdefault((task, match["variant"]), set()).add(int(match["seed"]))
            continue
        (cells if isinstance(found, Cell) else unfinished).append(found)
    cells = _one_setting_per_row(cells, in_plan, left_out)
    done = {(cell.task, cell.variant, cell.seed) for cell in cells}
    unfinished = [u for u in unfinished if (u.task, u.variant, u.seed) not in done]
    for found in [*cells, *unfinished]:
        planned.setdefault((found.task, found.variant), set()).add(found.seed)
    known = done | {(u.task, u.variant, u.seed) for u in unfinished}
    broken = {name for name, _ in left_out}
    for key, name in in_plan.items():
        if key not in known and name not in broken:
            unfinished.append(Unfinished(name, *key, "not started", "planned, but its folder is not there"))
    if not cells and not unfinished:
        more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        raise NoResults(f"no usable results in '{root}': "
                        + "; ".join(f"{name}: {reason}" for name, reason in left_out[:3]) + more)
    return Suite(root, head["profile"], head["smoke"], head["created"], head["command"], head["missing_datasets"],
                 cells, sorted(unfinished, key=lambda u: (u.task, u.variant, u.seed)), left_out, planned,
                 _read_traps(head["ledger"], left_out), _read_reproductions(root, left_out))


def digest(*parts: Any) -> str:
    """Hex digest of arrays, paths' contents and plain values: names a cached figure computation."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).tobytes())
        else:
            state.update(repr(part).encode())
    return state.hexdigest()


def _distinct(rows: list[dict[str, Any]], column: str) -> tuple[float, ...]:
    return tuple(sorted({float(row[column]) for row in rows if not math.isnan(row[column])}))


def _read_head(root: Path, left_out: list[tuple[str, str]]) -> dict[str, Any]:
    """suite.json with defaults; what is broken in it is named and costs the plan or an entry of it, not the results."""
    head: dict[str, Any] = {"profile": "unknown", "smoke": False, "created": "", "command": "",
                            "missing_datasets": {}, "cells": [], "ledger": []}
    try:
        found = read_json(root / "suite.json")
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; the plan is unknown, so a seed that never started can't be named"))
        return head
    for key, kind in HEAD_FIELDS.items():
        try:
            check_fields(found, {key: kind}, "suite.json")
        except ReportError as error:
            left_out.append(("suite.json", f"{error}; " + (
                "the plan is unknown" if key == "cells" else "the ledger table is left out" if key == "ledger" else "left away")))
            found[key] = None
    missing = found.get("missing_datasets") or {}
    if not isinstance(missing, dict):
        missing = {str(name): "missing" for name in (missing if isinstance(missing, list) else [missing])}
    head.update({key: found[key] for key in head if found.get(key) is not None}, missing_datasets=missing)
    head["cells"] = [entry for number, entry in enumerate(head["cells"], 1) if _planned(number, entry, left_out)]
    return head


def _planned(number: int, entry: Any, left_out: list[tuple[str, str]]) -> bool:
    """Whether an entry of suite.json's cells can be used; if not, it is named."""
    fields = {"dataset": "a name", "split": "a name", "variant": "a name", "folder": "a name", "seed": "a whole number from 0"}
    where = f"suite.json, entry {number} of its cells"
    try:
        if not isinstance(entry, dict):
            raise ReportError(f"{where}: expected a group of settings, found {shown(entry)}")
        check_fields(entry, fields, where, required=fields)
        parts = Path(entry["folder"]).parts
        if len(parts) > 2 or ".." in parts or len(parts) == 2 and parts[0] != "cells":
            raise ReportError(f"{where}: {shown(entry['folder'])} is no folder below cells/; nothing outside is read")
    except ReportError as error:
        left_out.append(("suite.json", str(error)))
        return False
    return True


def _read_cell(folder: Path) -> Cell | Unfinished:
    config, status = read_json(folder / "config.json"), read_json(folder / "status.json")
    check_fields(config, CONFIG_FIELDS, "config.json", required=("data.dataset", "data.split", "variant", "seed"))
    check_fields(status, STATUS_FIELDS, "status.json", required=("state",))
    task = Task(config["data"]["dataset"], config["data"]["split"])
    variant, seed = config["variant"], config["seed"]
    match = FOLDER_NAME.match(folder.name)
    if match and not folder.name.startswith(f"{task.dataset}-{task.split}__{variant}__seed{seed}__"):
        raise ReportError(f"config.json is of {task.dataset}-{task.split}, {variant}, seed {seed}, the folder's name of another "
                          "run: one was copied or edited")
    state = status["state"]
    if state != "finished":
        reason = status.get("reason") or f"stopped after {status.get('epochs_done') or 0} of " \
                                         f"{status.get('epochs', 'unknown')} epochs"
        return Unfinished(folder.name, task, variant, seed, state, reason)
    provenance = read_json(folder / "provenance.json")
    check_fields(provenance, PROVENANCE_FIELDS, "provenance.json")
    identity = provenance.get("identity") or ""
    if match and not identity.startswith(match["identity"]):
        raise ReportError(f"provenance.json is of run {identity[:8] or 'unknown'}, the folder's name of "
                          f"{match['identity']}: one was copied or edited")
    if config.get("identity") and identity != config["identity"]:
        raise ReportError(f"provenance.json is of run {identity[:8] or 'unknown'}, config.json of {config['identity'][:8]}: one "
                          "was copied or edited")
    for name in ("config.json", "metrics.csv"):
        _check_digest(folder, name)
    return Cell(folder, task, variant, seed, config, status, provenance, _read_metrics(folder / "metrics.csv"),
                _feature_length(folder / "features.npz", config))


def _check_digest(folder: Path, name: str) -> None:
    """ReportError where a file is there and not as the run wrote it, by the run's SHA256SUMS; older runs, which have none, and
    files that are not listed are taken as they are."""
    if not (folder / SUMS).is_file() or not (folder / name).is_file():
        return
    try:
        wanted = next((digest for digest, listed in read_sums(folder) if listed == name), None)
        found = file_digest(folder / name) if wanted is not None else None
    except (OSError, ValueError) as error:
        raise ReportError(f"{name} can't be compared with {SUMS} ({type(error).__name__})") from None
    if found != wanted:
        raise ReportError(f"{name} is not as the run wrote it (SHA-256 {found[:8]}, {SUMS} says "
                          f"{visible(wanted or 'nothing')[:8]}): it was damaged or edited")


def _read_metrics(path: Path) -> pd.DataFrame:
    metrics = read_frame(path, *FRAMES["metrics.csv"])
    for name, meaning in METRIC_LATER.items():
        metrics[name] = metrics[name].replace("", meaning) if name in metrics else meaning
    try:
        metrics["standard_error"] = metrics["standard_error"].astype(float)
    except ValueError as error:
        raise ReportError(f"metrics.csv, column standard_error: {error}") from None
    keys = metrics[[*METRIC_TEXT, "duplicates"]]
    if keys.duplicated().any():
        raise ReportError(f"metrics.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    counts = metrics[["queries", "photos"]]
    bad = metrics[~metrics["value"].between(0, 1) | counts.isna().any(axis=1) | (counts < 0).any(axis=1)
                  | (counts % 1 != 0).any(axis=1)]
    if len(bad):
        row = bad.iloc[0]
        raise ReportError(f"metrics.csv, line {bad.index[0] + 2}: {row['metric']} is {row['value']} over "
                          f"{row['queries']} queries and {row['photos']} photos; expected a value from 0 to 1 and counts")
    for name in ("chance", "ceiling", "standard_error"):
        bad = metrics[~metrics[name].between(0, 1) & (metrics[name].notna() | (name == "standard_error"))]
        if len(bad):
            raise ReportError(f"metrics.csv, line {bad.index[0] + 2}, column {name}: {bad[name].iloc[0]} is not within 0 to 1")
    return metrics


def _read_ledger(folder: Path) -> pd.DataFrame:
    frame = read_frame(folder / "ledger.csv", *FRAMES["ledger.csv"])
    keys = frame[["trap", "arm", "features", "protocol", "metric"]]
    if keys.duplicated().any():
        raise ReportError(f"ledger.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    bad = frame[~(frame["value"].between(0, 1) | frame["value"].isna())]
    if len(bad):
        raise ReportError(f"ledger.csv, line {bad.index[0] + 2}: {bad['value'].iloc[0]} is not within 0 to 1")
    return frame


def _read_traps(found: list[Any], left_out: list[tuple[str, str]]) -> list[Trap]:
    """The ledger of suite.json; an entry that can't be read costs its row and is named."""
    traps: list[Trap] = []
    words = ("consequence", "setting", "released", "corrected", "note")
    fields = {"trap": "a name", "title": "a name", "kind": "a name", **dict.fromkeys(words, "text"),
              "arms": "a group of settings", "datasets": "a list"}
    for number, entry in enumerate(found, 1):
        where = f"entry {number} of its ledger"
        try:
            if not isinstance(entry, dict):
                raise ReportError(f"{where}: expected a group of settings, found {shown(entry)}")
            check_fields(entry, fields, where, required=("trap", "title", "kind"))
            if entry["kind"] not in TRAP_KINDS:
                raise ReportError(f"{where}: kind '{entry['kind']}' is none of {', '.join(TRAP_KINDS)}")
            arms = entry.get("arms") or {}
            for arm, variant in arms.items():
                if not isinstance(variant, (str, type(None))):
                    raise ReportError(f"{where}, arms.{arm}: expected a variant's name, found {shown(variant)}")
            if entry["trap"] in {trap.trap for trap in traps}:
                raise ReportError(f"{where}: '{entry['trap']}' stands there twice")
            traps.append(Trap(entry["trap"], entry["title"], kind=entry["kind"], arms=arms,
                              datasets=tuple(map(str, entry.get("datasets") or ())), **{w: entry.get(w) or "" for w in words}))
        except ReportError as error:
            left_out.append(("suite.json", str(error)))
    return traps


def _read_reproductions(root: Path, left_out: list[tuple[str, str]]) -> list[Reproduction]:
    found = []
    words = ("where", "command", "date")
    fields = {**dict.fromkeys(("run", "variant", "dataset", "split", "verdict"), "a name"), "seed": "a whole number from 0",
              **dict.fromkeys(("tolerance", "largest_difference"), "a number from 0"), "compared": "a whole number from 0",
              "same_environment": "true or false", "differences": "a list", **dict.fromkeys(words, "text")}
    for path in sorted((root / "reproductions").glob("*.json")):
        try:
            entry = read_json(path)
            check_fields(entry, fields, path.name, required=("run", "variant", "dataset", "split", "seed", "verdict"))
            found.append(Reproduction(
                path.name, entry["run"], entry["variant"], entry["dataset"], entry["split"], entry["seed"], entry["verdict"],
                _number(entry.get("tolerance")), _number(entry.get("largest_difference")), entry.get("where") or "",
                entry.get("compared") or 0, bool(entry.get("same_environment")),
                tuple(map(str, entry.get("differences") or ())), entry.get("command") or "", entry.get("date") or ""))
        except ReportError as error:
            left_out.append((f"reproductions/{path.name}", str(error)))
    return sorted(found, key=lambda r: (r.date, r.run))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _feature_length(path: Path, config: dict[str, Any]) -> int | None:
    """D from the header of the stored array, without reading it; else from the settings."""
    # Suite.features names a broken file once a figure asks for it
    shape = array_shape(path, "query")
    if shape is not None and len(shape) == 2 and is_count(shape[1]):
        return shape[1] or None
    if setting(config, "evaluation.features", "embedding") == "embedding":
        return setting(config, "network.dim") or None
    return None


def _one_setting_per_row(cells: list[Cell], in_plan: dict[tuple[Task, str, int], str],
                         left_out: list[tuple[str, str]]) -> list[Cell]:
    """Keep one group of equal settings per (task, variant): the planned one, else the one finished last."""
    groups: dict[tuple[Task, str], dict[str, list[Cell]]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.variant), {}).setdefault(cell.settings(), []).append(cell)
    kept = []
    for by_settings in groups.values():
        def rank(group: list[Cell]) -> tuple[int, str]:
            planned = sum(in_plan.get((c.task, c.variant, c.seed)) == c.name for c in group)
            return planned, max(str(c.provenance.get("finished", "")) for c in group)
        best = max(by_settings.values(), key=rank)
        kept += best
        for group in by_settings.values():
            if group is not best:
                left_out += [(c.name, (f"other settings, data or split than {best[0].name}, which is the "
                              f"{'planned' if rank(best)[0] else 'latest'} one of this row")) for c in group]
    return sorted(kept, key=lambda c: (c.task, c.variant, c.seed))


def _read_features(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, FEATURE_ARRAYS)
    if absent := [name for name in FEATURE_ARRAYS if name not in arrays]:
        raise ReportError(f"{path.name} lacks the array{'s' * (len(absent) > 1)} {', '.join(absent)}")
    for side in ("query", "gallery"):
        values, labels = arrays[side], arrays[f"{side}_labels"]
        if values.ndim != 2 or labels.ndim != 1 or not values.size or len(values) != len(labels) or not _finite(values):
            raise ReportError(f"{path.name}, {side}: {values.dtype} {values.shape} for {labels.shape} labels, "
                              "or values that are not finite; expected numbers [N, D] and N labels")
        if labels.dtype.kind != "U":
            raise ReportError(f"{path.name}, {side}_labels: expected names of classes, found {labels.dtype}")
    if arrays["query"].shape[1] != arrays["gallery"].shape[1]:
        raise ReportError(f"{path.name}: queries of {arrays['query'].shape[1]} numbers, photos of {arrays['gallery'].shape[1]}")
    return arrays


def _finite(values: np.ndarray) -> bool:
    """Whether these are numbers to reckon with: floats or integers, none NaN, infinite or beyond MOST_NUMBER."""
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all()) and bool((np.abs(values) <= MOST_NUMBER).all())


def _read_classes(cell: Cell, score: Score, expected: float | None) -> pd.Series | None:
    """Class means of one number from per_query.npz, checked against the cell's own number."""
    key, all_ranks = (f"{score.features}/{score.protocol}/{metric}" for metric in (score.metric, "mAP@all"))
    arrays = read_arrays(cell.folder / "per_query.npz", ("class", key, all_ranks))
    if key not in arrays:
        return None
    values, names = arrays[key], arrays.get("class", np.array([]))
    if values.ndim != 1 or values.shape != names.shape or not values.size or not _finite(values) or names.dtype.kind != "U":
        raise ReportError(f"per_query.npz, {key}: {values.dtype} {values.shape} for {names.dtype} {names.shape} of classes, or "
                          "values that are not finite; expected a number for each query and the name of its class")
    means = pd.Series(values, index=pd.Index(names, name="class")).groupby(level=0).mean()
    skipped = setting(cell.config, "evaluation.missing_classes") == "as-released" and score.metric.startswith("mAP")
    if skipped and all_ranks in arrays and arrays[all_ranks].shape == names.shape:
        # AP over all ranks is 0 for a class without photos alone, and as released such a class is not averaged
        means = means[pd.Series(arrays[all_ranks], index=names).groupby(level=0).max().reindex(means.index) > 0]
    if score.protocol == "released" and expected is not None and not abs(means.mean() - expected) <= CLASS_TOLERANCE:
        raise ReportError(f"per_query.npz, {key}: its classes average to {means.mean():.6f}, metrics.csv says {expected:.6f}; "
                          "one of the two was copied or edited")
    return means


def _read_distances(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, DISTANCE_ARRAYS)
    if absent := [name for name in DISTANCE_ARRAYS if name not in arrays]:
        raise ReportError(f"{path.name} lacks the array{'s' * (len(absent) > 1)} {', '.join(absent)}")
    steps, layers = arrays["steps"].size, arrays["layers"].size
    shapes = {"steps": (steps,), "layers": (layers,), "parts": (layers,), "kinds": (layers,), "start_norm": (layers,),
              "between": (steps, layers), "sketch": (steps, layers), "photo": (steps, layers)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not steps or not layers:
            raise ReportError(f"{path.name}, {name}: shape {arrays[name].shape} for {steps} steps and {layers} layers")
    for name in ("start_norm", "between", "sketch", "photo"):
        if not (arrays[name].dtype.kind == "f" and _finite(arrays[name]) and (arrays[name] >= 0).all()):
            raise ReportError(f"{path.name}, {name}: distances that are negative or not finite")
    for name in ("layers", "parts", "kinds"):
        if arrays[name].dtype.kind != "U":
            raise ReportError(f"{path.name}, {name}: expected names, found {arrays[name].dtype}")
    # compared and not subtracted: unsigned numbers have no negative difference
    numbers = arrays["steps"]
    rising = numbers.dtype.kind in "iu" and not (numbers[1:] <= numbers[:-1]).any()
    if not (rising and 0 <= int(numbers[0]) and int(numbers[-1]) < MOST_COUNT):
        raise ReportError(f"{path.name}, steps: expected whole numbers from 0 in increasing order")
    return arrays


def _read_precision_recall(path: Path) -> pd.DataFrame:
    frame = read_frame(path, *FRAMES[path.name])
    for name in ("recall", "precision"):
        if not frame[name].between(0, 1).all():
            raise ReportError(f"{path.name}, column {name}: a value that is missing or not within 0 to 1")
    return frame


def _read_examples(folder: Path) -> list[dict[str, Any]]:
    found = read_json(folder / "examples.json")
    check_fields(found, {"examples": "a list"}, "examples.json")
    return [_example(folder, number, entry) for number, entry in enumerate(found.get("examples") or [], 1)]


def _example(folder: Path, number: int, entry: Any) -> dict[str, Any]:
    where = f"examples.json, entry {number}"
    picture = {"file": "a name", "class": "text", "source": "text"}
    if not isinstance(entry, dict):
        raise ReportError(f"{where}: expected a group of settings, found {shown(entry)}")
    needed = {"query": "a group of settings", "query.file": "a name", "average_precision": "a number from 0 to 1",
              "kind": "a name", "retrieved": "a list"}
    check_fields(entry, {**needed, **{f"query.{name}": kind for name, kind in picture.items()}}, where, required=needed)
    retrieved = []
    for place, hit in enumerate(entry["retrieved"], 1):
        there = f"{where}, photo {place}"
        if not isinstance(hit, dict):
            raise ReportError(f"{there}: expected a group of settings, found {shown(hit)}")
        fields = {**picture, "rank": "a whole number from 0", "correct": "true or false"}
        check_fields(hit, fields, there, required=("file", "rank", "correct"))
        retrieved.append({**hit, "class": hit.get("class") or "", "file": _picture(folder, hit["file"])})
    query = entry["query"]
    return {"query": {**query, "class": query.get("class") or "", "source": query.get("source") or "",
                      "file": _picture(folder, query["file"])},
            "average_precision": float(entry["average_precision"]), "kind": entry["kind"], "retrieved": retrieved}


def _picture(folder: Path, name: str) -> Path:
    """A picture under the cell's examples/, and nowhere else, that can be shown."""
    for path in (folder / "examples" / name, folder / name):
        try:
            there = path.is_file() and path.resolve().is_relative_to((folder / "examples").resolve())
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
            there = False
        if there:
            check_picture(path)
            return path
    raise ReportError(f"examples.json names {shown(name)}, which is not under examples/")


def _read_run_frame(path: Path) -> pd.DataFrame:
    frame = read_frame(path, *FRAMES[path.name])
    if path.name == "singular_values.csv":
        _check_singular_values(frame)
    for column in {"steps.csv": ("step", "epoch"), "history.csv": ("epoch",)}.get(path.name, ()):
        _check_over(frame, column, path.name)
    return frame


def _check_singular_values(frame: pd.DataFrame) -> None:
    bad = frame[~(frame["value"].between(0, MOST_NUMBER) & frame["index"].between(1, MOST_COUNT) & (frame["index"] % 1 == 0))]
    if len(bad):
        row = bad.iloc[0]
        raise ReportError(f"singular_values.csv, line {bad.index[0] + 2}: value {row['value']} of index {row['index']}; expected "
                          "a number from 0 and a whole index from 1")


def _check_over(frame: pd.DataFrame, column: str, file: str) -> None:
    bad = frame[~(frame[column].between(0, MOST_COUNT) & (frame[column] % 1 == 0))]
    if len(bad):
        raise ReportError(f"{file}, line {bad.index[0] + 2}, column {column}: {bad[column].iloc[0]} is no whole number from 0")
