"""All result folders of one output folder -> a suite, and what it measured.

In: a folder with suite.json, cells/ and reproductions/. Out: a Suite of checked cells. A mean knows on how many of the planned
seeds it rests; what is broken is named and left out.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from reports.read import cells as read
from reports.read.cells import FOLDER_NAME, Cell, Score, Unfinished
from reports.read.files import ReportError, read_json, shown
from reports.read.schema import Cut, Head, Planned, Reproduction, Task, Trap, parse

T = TypeVar("T")
NOT_MEASURED = "not measured"


class NoResults(ReportError):
    """Nothing to report on."""


@dataclass(frozen=True)
class Measured:
    """One number over seeds, with the seeds that it was expected from."""

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
        """How many seeds have a value."""
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
            return NOT_MEASURED
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
    cut: Cut = Cut()
    """The budget of the plan, and whether it left the extension out."""
    cut_rows: dict[tuple[Task, str], set[int]] = field(default_factory=dict)
    """(task, variant) -> seeds that the budget left out; they are in `planned`, too."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Results that are computed from these cells once and needed in several places; the key names them."""
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

    @property
    def titles(self) -> dict[str, str]:
        """Variant -> the title that its run finished last recorded; built-in variants record none."""
        return {cell.variant: cell.provenance.title for cell in sorted(self.cells, key=lambda cell: cell.provenance.finished)
                if cell.provenance.title}

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
        return self._try(cell, file, lambda: read.read_run_frame(cell.folder / file))

    def ledger(self, cell: Cell) -> pd.DataFrame | None:
        """Rows of the cell's ledger.csv; None where it has none, which only trained cells of one variant have."""
        if cell.name not in self._ledgers:
            there = (cell.folder / "ledger.csv").exists()
            self._ledgers[cell.name] = self._try(cell, "ledger.csv", lambda: read.read_ledger(cell.folder)) if there else None
        return self._ledgers[cell.name]

    def features(self, cell: Cell) -> dict[str, np.ndarray] | None:
        """Arrays of features.npz: query [Nq, D], gallery [Ng, D] and their labels; None as for `frame`."""
        return self._try(cell, "features.npz", lambda: read.read_features(cell.folder / "features.npz"))

    def examples(self, cell: Cell) -> list[dict[str, Any]] | None:
        """Checked contents of examples.json, picture files as existing paths; None as for `frame`."""
        return self._try(cell, "examples.json", lambda: read.read_examples(cell.folder))

    def per_class(self, cell: Cell, score: Score) -> pd.Series | None:
        """Class -> mean of a number over the class's queries, by name; None where per_query.npz holds no such number.

        It holds unseen classes, with all queries and the gallery as published. A file whose classes do not average to the
        cell's number under the `released` rule, the one that is a mean over classes, is named in `left_out` and not used.
        """
        if (score.classes, score.source, score.gallery, score.duplicates) != ("unseen", "all", "all", "as-published"):
            return None
        if (cell.name, score) not in self._classes:
            self._classes[cell.name, score] = self._try(cell, "per_query.npz",
                                                        lambda: read.read_classes(cell, score, self.value(cell, score)))
        return self._classes[cell.name, score]

    def distances(self, cell: Cell) -> dict[str, np.ndarray] | None:
        """Arrays of distances.npz: steps [T]; layers, parts, kinds, start_norm [L]; between, sketch, photo [T, L].

        None where the run wrote none (untrained, or older); also None, with a note in `left_out`, where it is broken.
        """
        path = cell.folder / "distances.npz"
        return self._try(cell, path.name, lambda: read.read_distances(path)) if path.exists() else None

    def precision_recall(self, cell: Cell) -> pd.DataFrame | None:
        """Columns features, recall, precision of precision_recall.csv; None as for `distances`."""
        path = cell.folder / "precision_recall.csv"
        return self._try(cell, path.name, lambda: read.read_precision_recall(path)) if path.exists() else None

    def _rows(self, cell: Cell) -> dict[Score, dict[str, Any]]:
        if cell.name not in self._scores:
            self._scores[cell.name] = {
                Score(row["metric"], row["protocol"], row["features"], row["classes"], row["query_source"],
                      row["gallery"], row["duplicates"]): row for row in cell.metrics.to_dict("records")}
        return self._scores[cell.name]

    def _try(self, cell: Cell, file: str, contents: Callable[[], T]) -> T | None:
        """What a reader returns; None, with a note in `left_out`, where the file is missing, broken or not as it was written."""
        try:
            read.check_digest(cell.folder, file)
            return contents()
        except ReportError as error:
            note = (f"{cell.name}/{file}", f"{error}; the run's other numbers stay, what needs this file does without it")
            if note not in self.left_out:
                self.left_out.append(note)
            return None


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
    for entry in _read_plan(head.cells, left_out, "cells"):
        task = Task(entry.dataset, entry.split)
        planned.setdefault((task, entry.variant), set()).add(entry.seed)
        in_plan[task, entry.variant, entry.seed] = Path(entry.folder).name

    cells: list[Cell] = []
    unfinished: list[Unfinished] = []
    for folder in folders:
        try:
            cell = read.read_cell(folder)
        except ReportError as error:
            left_out.append((folder.name, str(error)))
            if match := FOLDER_NAME.match(folder.name):
                task = Task(match["dataset"], match["split"])
                planned.setdefault((task, match["variant"]), set()).add(int(match["seed"]))
            continue
        if isinstance(cell, Cell):
            cells.append(cell)
        else:
            unfinished.append(cell)
    cells = _one_setting_per_row(cells, in_plan, left_out)
    done = {(cell.task, cell.variant, cell.seed) for cell in cells}
    unfinished = [u for u in unfinished if (u.task, u.variant, u.seed) not in done]
    runs: tuple[Cell | Unfinished, ...] = (*cells, *unfinished)
    for run in runs:
        planned.setdefault((run.task, run.variant), set()).add(run.seed)
    known = done | {(u.task, u.variant, u.seed) for u in unfinished}
    broken = {name for name, _ in left_out}
    for key, name in in_plan.items():
        if key not in known and name not in broken:
            unfinished.append(Unfinished(name, *key, "not started", "planned, but its folder is not there"))
    cut, cut_rows = _read_cut(head.cut, planned, left_out)
    for row, seeds in cut_rows.items():
        planned.setdefault(row, set()).update(seeds)
    if not cells and not unfinished:
        more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        raise NoResults(f"no usable results in '{root}': "
                        + "; ".join(f"{name}: {reason}" for name, reason in left_out[:3]) + more)
    return Suite(root, head.profile, head.smoke, head.created, head.command, _missing(head.missing_datasets),
                 cells, sorted(unfinished, key=lambda u: (u.task, u.variant, u.seed)), left_out, planned,
                 _read_traps(head.ledger, left_out), _read_reproductions(root, left_out), cut, cut_rows)


def _distinct(rows: list[dict[str, Any]], column: str) -> tuple[float, ...]:
    return tuple(sorted({float(row[column]) for row in rows if not math.isnan(row[column])}))


def _read_head(root: Path, left_out: list[tuple[str, str]]) -> Head:
    """suite.json. A broken field of it is named and takes its default."""
    try:
        found = read_json(root / "suite.json")
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; the plan is unknown, so a seed that never started can't be named"))
        return Head()
    for key in Head.model_fields:
        try:
            parse(Head, {key: found.get(key)}, "suite.json")
        except ReportError as error:
            left_out.append(("suite.json", f"{error}; " + (
                "the plan is unknown" if key == "cells" else "the ledger table is left out" if key == "ledger" else "left away")))
            found[key] = None
    return parse(Head, found, "suite.json")


def _missing(found: Any) -> dict[str, str]:
    """Data set -> why it was not there; older files hold a list or a single name."""
    if isinstance(found, dict):
        return found
    return {str(name): "missing" for name in (found if isinstance(found, list) else [found])} if found else {}


def _read_cut(found: dict[str, Any], planned: dict[tuple[Task, str], set[int]], left_out: list[tuple[str, str]]
              ) -> tuple[Cut, dict[tuple[Task, str], set[int]]]:
    """What the budget left out, and by row the seeds that no call has taken up since."""
    try:
        cut = parse(Cut, found, "suite.json, cut")
    except ReportError as error:
        left_out.append(("suite.json", f"{error}; what the budget left out is unknown"))
        return Cut(), {}
    rows: dict[tuple[Task, str], set[int]] = {}
    for entry in _read_plan(cut.cells, left_out, "cut cells"):
        key = Task(entry.dataset, entry.split), entry.variant
        if entry.seed not in planned.get(key, ()):
            rows.setdefault(key, set()).add(entry.seed)
    return cut, rows


def _read_plan(entries: list[Any], left_out: list[tuple[str, str]], field: str) -> list[Planned]:
    """The cells of suite.json, or those cut; an entry that can't be used is named."""
    plan = []
    for number, entry in enumerate(entries, 1):
        where = f"suite.json, entry {number} of its {field}"
        try:
            planned = parse(Planned, entry, where)
            parts = Path(planned.folder).parts
            if len(parts) > 2 or ".." in parts or len(parts) == 2 and parts[0] != "cells":
                raise ReportError(f"{where}: {shown(planned.folder)} is no folder below cells/; nothing outside is read")
            plan.append(planned)
        except ReportError as error:
            left_out.append(("suite.json", str(error)))
    return plan


def _read_traps(entries: list[Any], left_out: list[tuple[str, str]]) -> list[Trap]:
    """The ledger of suite.json; an entry that can't be read costs its row and is named."""
    traps: dict[str, Trap] = {}
    for number, entry in enumerate(entries, 1):
        where = f"entry {number} of its ledger"
        try:
            trap = parse(Trap, entry, where)
            if trap.trap in traps:
                raise ReportError(f"{where}: '{trap.trap}' stands there twice")
            traps[trap.trap] = trap
        except ReportError as error:
            left_out.append(("suite.json", str(error)))
    return list(traps.values())


def _read_reproductions(root: Path, left_out: list[tuple[str, str]]) -> list[Reproduction]:
    found = []
    for path in sorted((root / "reproductions").glob("*.json")):
        try:
            found.append(parse(Reproduction, {**read_json(path), "file": path.name}, path.name))
        except ReportError as error:
            left_out.append((f"reproductions/{path.name}", str(error)))
    return sorted(found, key=lambda r: (r.date, r.run))


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
            return planned, max(c.provenance.finished for c in group)
        best = max(by_settings.values(), key=rank)
        kept += best
        for group in by_settings.values():
            if group is not best:
                left_out += [(c.name, (f"other settings, data or split than {best[0].name}, which is the "
                              f"{'planned' if rank(best)[0] else 'latest'} one of this row")) for c in group]
    return sorted(kept, key=lambda c: (c.task, c.variant, c.seed))

