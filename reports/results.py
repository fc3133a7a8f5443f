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
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
TRAP_KINDS = ("training", "scoring", "data", "fixed")
FEATURE_ARRAYS = ("query", "gallery", "query_labels", "gallery_labels")
DISTANCE_ARRAYS = ("steps", "layers", "parts", "kinds", "start_norm", "between", "sketch", "photo")
CLASS_TOLERANCE = 1e-6
"""How far the mean over classes of per_query.npz may be from the number in metrics.csv, which may be rounded there."""


class ReportError(ValueError):
    """Result folders that can't be used: the message names the folder or file and says what to do."""


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
        return _slug(f"{self.dataset}-{self.split}")


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
    """`training` (paired runs), `scoring` (one network scored twice), `data`, or `fixed` (nothing left to switch)."""
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
        return "run-" + _slug(self.name)

    @property
    def group_anchor(self) -> str:
        """Fragment identifier of all runs of its row: same task and variant, any seed."""
        return f"runs-{self.task.slug}-{_slug(self.variant)}"

    @property
    def trained(self) -> bool:
        return setting(self.config, "training.optimizer", "adam") != "none" and bool(self.status.get("epochs"))

    @property
    def smoke(self) -> bool:
        return "--quick" in str(self.provenance.get("command", "")).split()

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
        return self._try(cell, file, lambda: read_frame(cell.folder / file, *FRAMES[file]))

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
    folders = sorted(path for path in (root / "cells").glob("*") if path.is_dir()) if root.is_dir() else []
    if not folders:
        raise NoResults(f"no results in '{root}': expected cell folders in '{root / 'cells'}'; "
                        "run `python benchmarks/run_all.py` first, or name another folder with --results")
    left_out: list[tuple[str, str]] = []
    head = _read_head(root, left_out)
    planned: dict[tuple[Task, str], set[int]] = {}
    in_plan: dict[tuple[Task, str, int], str] = {}
    for entry in head["cells"]:
        task = Task(str(entry["dataset"]), str(entry["split"]))
        planned.setdefault((task, entry["variant"]), set()).add(int(entry["seed"]))
        in_plan[task, entry["variant"], int(entry["seed"])] = Path(str(entry["folder"])).name

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


def read_frame(path: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file with the named columns checked; number columns become float, empty ones NaN.

    Raises ReportError where the file is missing, unreadable, empty, lacks a column or holds a word for a number.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise ReportError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path.name} can't be read ({type(error).__name__}: {error})") from None
    missing = [name for name in (*text, *numbers) if name not in frame.columns]
    if missing:
        raise ReportError(f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if frame.empty:
        raise ReportError(f"{path.name} has no rows")
    for name in numbers:
        try:
            frame[name] = pd.to_numeric(frame[name].mask(frame[name].isin(("", "nan"))))
        except (ValueError, TypeError) as error:
            raise ReportError(f"{path.name}, column {name}: {error}") from None
    return frame


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


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unnamed"


def _distinct(rows: list[dict[str, Any]], column: str) -> tuple[float, ...]:
    return tuple(sorted({float(row[column]) for row in rows if not math.isnan(row[column])}))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ReportError where it is missing, unreadable or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path.name} can't be read ({type(error).__name__}: {error})") from None
    if not isinstance(value, dict):
        raise ReportError(f"{path.name} holds no settings, but a {type(value).__name__}")
    return value


def _read_head(root: Path, left_out: list[tuple[str, str]]) -> dict[str, Any]:
    """suite.json with defaults; a broken one costs the plan, not the results."""
    head: dict[str, Any] = {"profile": "unknown", "smoke": False, "created": "", "command": "",
                            "missing_datasets": {}, "cells": [], "ledger": []}
    try:
        found = read_json(root / "suite.json")
        for entry in found.get("cells", []):
            int(entry["seed"]), str(entry["dataset"]), str(entry["split"]), str(entry["variant"]), entry["folder"]
        missing = found.get("missing_datasets") or {}
        if not isinstance(missing, dict):
            missing = {str(name): "missing" for name in missing}
        head.update({key: found[key] for key in head if found.get(key) is not None}, missing_datasets=missing)
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; the plan is unknown, so a seed that never started can't be named"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        left_out.append(("suite.json", f"its list of cells is not as expected ({error!r}); the plan is unknown"))
    return head


def _read_cell(folder: Path) -> Cell | Unfinished:
    config = read_json(folder / "config.json")
    status = read_json(folder / "status.json")
    dataset, split = setting(config, "data.dataset"), setting(config, "data.split")
    variant, seed = config.get("variant"), config.get("seed")
    if None in (dataset, split, variant, seed):
        raise ReportError("config.json names no data.dataset, data.split, variant or seed")
    task = Task(str(dataset), str(split))
    state = status.get("state")
    if state != "finished":
        reason = status.get("reason") or f"stopped after {status.get('epochs_done', 0)} of " \
                                         f"{status.get('epochs', 'unknown')} epochs"
        return Unfinished(folder.name, task, str(variant), int(seed), str(state), str(reason))
    provenance = read_json(folder / "provenance.json")
    match = FOLDER_NAME.match(folder.name)
    identity = str(provenance.get("identity", ""))
    if match and not identity.startswith(match["identity"]):
        raise ReportError(f"provenance.json is of run {identity[:8] or 'unknown'}, the folder's name of "
                          f"{match['identity']}: one was copied or edited")
    metrics = read_frame(folder / "metrics.csv", *FRAMES["metrics.csv"])
    for name, meaning in METRIC_LATER.items():
        metrics[name] = metrics[name].replace("", meaning) if name in metrics else meaning
    try:
        metrics["standard_error"] = metrics["standard_error"].astype(float)
    except ValueError as error:
        raise ReportError(f"metrics.csv, column standard_error: {error}") from None
    keys = metrics[[*METRIC_TEXT, "duplicates"]]
    if keys.duplicated().any():
        raise ReportError(f"metrics.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    bad = metrics[~metrics["value"].between(0, 1) | metrics[["queries", "photos"]].isna().any(axis=1)]
    if len(bad):
        row = bad.iloc[0]
        raise ReportError(f"metrics.csv, line {bad.index[0] + 2}: {row['metric']} is {row['value']} over "
                          f"{row['queries']} queries and {row['photos']} photos; expected a value from 0 to 1 and counts")
    return Cell(folder, task, str(variant), int(seed), config, status, provenance, metrics,
                _feature_length(folder / "features.npz", config))


def _read_ledger(folder: Path) -> pd.DataFrame:
    frame = read_frame(folder / "ledger.csv", *FRAMES["ledger.csv"])
    keys = frame[["trap", "arm", "features", "protocol", "metric"]]
    if keys.duplicated().any():
        raise ReportError(f"ledger.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    bad = frame[~(frame["value"].between(0, 1) | frame["value"].isna())]
    if len(bad):
        raise ReportError(f"ledger.csv, line {bad.index[0] + 2}: {bad['value'].iloc[0]} is not within 0 to 1")
    return frame


def _read_traps(found: Any, left_out: list[tuple[str, str]]) -> list[Trap]:
    """The ledger of suite.json; an entry that can't be read costs its row and is named."""
    traps = []
    if not isinstance(found, list):
        left_out.append(("suite.json", f"its ledger is no list but a {type(found).__name__}; the ledger table is left out"))
        found = []
    for number, entry in enumerate(found):
        try:
            text = {key: str(entry.get(key) or "") for key in ("consequence", "setting", "released", "corrected", "note")}
            trap = Trap(str(entry["trap"]), str(entry["title"]), kind=str(entry["kind"]), arms=dict(entry.get("arms") or {}),
                        datasets=tuple(map(str, entry.get("datasets") or ())), **text)
            if trap.kind not in TRAP_KINDS:
                raise ValueError(f"kind '{trap.kind}' is none of {', '.join(TRAP_KINDS)}")
            traps.append(trap)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            left_out.append(("suite.json", f"entry {number + 1} of its ledger is not as expected ({error!r})"))
    return traps


def _read_reproductions(root: Path, left_out: list[tuple[str, str]]) -> list[Reproduction]:
    found = []
    for path in sorted((root / "reproductions").glob("*.json")):
        try:
            entry = read_json(path)
            found.append(Reproduction(
                path.name, str(entry["run"]), str(entry["variant"]), str(entry["dataset"]), str(entry["split"]),
                int(entry["seed"]), str(entry["verdict"]), _number(entry.get("tolerance")),
                _number(entry.get("largest_difference")), str(entry.get("where") or ""), int(entry.get("compared") or 0),
                bool(entry.get("same_environment")), tuple(map(str, entry.get("differences") or ())),
                str(entry.get("command") or ""), str(entry.get("date") or "")))
        except ReportError as error:
            left_out.append((f"reproductions/{path.name}", str(error)))
        except (KeyError, TypeError, ValueError) as error:
            left_out.append((f"reproductions/{path.name}", f"not as expected ({error!r})"))
    return sorted(found, key=lambda r: (r.date, r.run))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _feature_length(path: Path, config: dict[str, Any]) -> int | None:
    """D from the header of the stored array, without reading it; else from the settings."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("query.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return int(read(stream)[0][1])
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
        pass  # Suite.features names the broken file once a figure asks for it
    if setting(config, "evaluation.features", "embedding") == "embedding":
        return setting(config, "network.dim")
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
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in FEATURE_ARRAYS}
    except FileNotFoundError:
        raise ReportError("features.npz is missing") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ReportError(f"features.npz can't be read ({type(error).__name__}: {error})") from None
    for side in ("query", "gallery"):
        values, labels = arrays[side], arrays[f"{side}_labels"]
        if values.ndim != 2 or len(values) != len(labels) or not np.isfinite(values).all():
            raise ReportError(f"features.npz, {side}: {values.shape} values for {len(labels)} labels, "
                              "or values that are not finite")
    return arrays


def _read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays of an npz file, those that it lacks left away. ReportError where it can't be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    except FileNotFoundError:
        raise ReportError(f"{path.name} is missing") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path.name} can't be read ({type(error).__name__}: {error})") from None


def _read_classes(cell: Cell, score: Score, expected: float | None) -> pd.Series | None:
    """Class means of one number from per_query.npz, checked against the cell's own number."""
    key, all_ranks = (f"{score.features}/{score.protocol}/{metric}" for metric in (score.metric, "mAP@all"))
    arrays = _read_arrays(cell.folder / "per_query.npz", ("class", key, all_ranks))
    if key not in arrays:
        return None
    values, names = arrays[key], arrays.get("class", np.array([]))
    if values.ndim != 1 or len(values) != len(names) or not np.isfinite(values).all():
        raise ReportError(f"per_query.npz, {key}: {values.shape} values for {len(names)} classes, or values that are not finite")
    means = pd.Series(values, index=pd.Index(names, name="class")).groupby(level=0).mean()
    skipped = setting(cell.config, "evaluation.missing_classes") == "as-released" and score.metric.startswith("mAP")
    if skipped and all_ranks in arrays:
        # AP over all ranks is 0 for a class without photos alone, and as released such a class is not averaged
        means = means[pd.Series(arrays[all_ranks], index=names).groupby(level=0).max().reindex(means.index) > 0]
    if score.protocol == "released" and expected is not None and not abs(means.mean() - expected) <= CLASS_TOLERANCE:
        raise ReportError(f"per_query.npz, {key}: its classes average to {means.mean():.6f}, metrics.csv says {expected:.6f}; "
                          "one of the two was copied or edited")
    return means


def _read_distances(path: Path) -> dict[str, np.ndarray]:
    arrays = _read_arrays(path, DISTANCE_ARRAYS)
    if absent := [name for name in DISTANCE_ARRAYS if name not in arrays]:
        raise ReportError(f"{path.name} lacks the array{'s' * (len(absent) > 1)} {', '.join(absent)}")
    steps, layers = len(arrays["steps"]), len(arrays["layers"])
    shapes = {"steps": (steps,), "layers": (layers,), "parts": (layers,), "kinds": (layers,), "start_norm": (layers,),
              "between": (steps, layers), "sketch": (steps, layers), "photo": (steps, layers)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not steps or not layers:
            raise ReportError(f"{path.name}, {name}: shape {arrays[name].shape} for {steps} steps and {layers} layers")
    for name in ("start_norm", "between", "sketch", "photo"):
        if not (np.issubdtype(arrays[name].dtype, np.floating) and np.isfinite(arrays[name]).all() and (arrays[name] >= 0).all()):
            raise ReportError(f"{path.name}, {name}: distances that are negative or not finite")
    if (np.diff(arrays["steps"]) <= 0).any():
        raise ReportError(f"{path.name}, steps: not in increasing order")
    return arrays


def _read_precision_recall(path: Path) -> pd.DataFrame:
    frame = read_frame(path, *FRAMES[path.name])
    for name in ("recall", "precision"):
        if not frame[name].between(0, 1).all():
            raise ReportError(f"{path.name}, column {name}: a value that is missing or not within 0 to 1")
    return frame


def _read_examples(folder: Path) -> list[dict[str, Any]]:
    examples = read_json(folder / "examples.json").get("examples", [])
    try:
        return [{"query": {**e["query"], "file": _picture(folder, e["query"]["file"])},
                 "average_precision": float(e["average_precision"]), "kind": str(e["kind"]),
                 "retrieved": [{**r, "rank": int(r["rank"]), "correct": bool(r["correct"]),
                                "file": _picture(folder, r["file"])} for r in e["retrieved"]]} for e in examples]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"examples.json is not as expected ({error!r})") from None


def _picture(folder: Path, name: str) -> Path:
    """A picture under the cell's examples/, and nowhere else."""
    for path in (folder / "examples" / name, folder / name):
        if path.is_file() and path.resolve().is_relative_to((folder / "examples").resolve()):
            return path
    raise ReportError(f"examples.json names '{name}', which is not under examples/")
