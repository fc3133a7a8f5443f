"""Repeats one finished run and says whether it agrees, and within what tolerance.

In: a run (its folder, folder name, identity or MLflow run id) of a suite. Out: a second run beside it, compared
value by value, and a JSON file that the report shows. Provenance of the first run says what must be the same.
"""
from __future__ import annotations

import csv
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import baselines
from benchmarks import provenance
from benchmarks.experiments import PlannedRun
from benchmarks.material import Material
from benchmarks.mirror import Mirror
from benchmarks.records import read_json, read_rows, write_json
from benchmarks.runner import execute, recall
from benchmarks.store import RunFolder, SuiteFolder, damaged, read_config
from tcn.config import InputError
from tcn.files import earlier
from tcn.train import checkpoints

FOLDER = "reproductions"
ELSEWHERE = 0.04
"""Largest difference of a metric of the unseen classes that is still called agreement where device, threads, versions or
code differ: training amplifies rounding. Measured on emoji: three pairs of runs that part by rounding alone (`ledger-words`)
differed by up to 0.024 in such a metric (docs/ledger.md)."""
TIMES = ("seconds", "pairs_per_second")
ENVIRONMENT = ("commit", "diff_sha256", "device", "gpus_per_run", "threads", "python", "platform", "protocol_version")


@dataclass(frozen=True)
class Original:
    """A finished run that can be repeated."""

    suite: Path
    folder: Path
    run: PlannedRun
    identity: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Reproduction:
    """What came of repeating a run; the fields of its JSON file."""

    run: str
    identity: str
    dataset: str
    split: str
    variant: str
    seed: int
    verdict: str
    """`bit for bit`, `within tolerance`, `differs` or `failed`."""
    tolerance: float
    largest_difference: float | None
    """Over the metrics of all unseen queries against the whole gallery; None where the second run gave none."""
    where: str
    """Which metric differs most."""
    compared: int
    """Values compared, over metrics, per-query values, features, history and checkpoint."""
    same_environment: bool
    differences: tuple[str, ...]
    """What differs in the environment, then which files differ."""
    command: str
    date: str

    @property
    def agrees(self) -> bool:
        """True where the second run confirms the first."""
        return self.verdict in ("bit for bit", "within tolerance")

    def text(self) -> str:
        """A few lines for a terminal."""
        lines = [f"{self.run}: {self.verdict}"]
        if self.largest_difference is not None:
            lines.append(f"  {self.compared:,} values compared; largest difference of a metric {self.largest_difference:.3g}"
                         + (f" ({self.where})" if self.where else "") + f", tolerance {self.tolerance:g}")
        lines.append("  same commit, device, threads and versions" if self.same_environment else
                     "  environment differs; bit for bit is promised only where it is the same")
        return "\n".join([*lines, *(f"  - {text}" for text in self.differences)])


def find(name: str, output: Path | None, results: Path) -> Path:
    """The run folder meant by `name`: a path, a folder's name, an identity (6 digits or more) or an MLflow run id.

    Looks in the suite `output`, or in every suite below `results`. InputError where there is none, or several.
    """
    path = Path(name).expanduser()
    if (path / "config.json").exists():
        return path.resolve()
    suites = [output] if output else sorted(p.parent for p in (*results.glob("suite.json"), *results.glob("*/suite.json")))
    found = []
    for folder in (f for suite in suites for f in sorted(earlier.runs_folder(suite).glob("*")) if f.is_dir()):
        identity = folder.name.rpartition("__")[2]
        full, run_id = str(_field(folder / "config.json", "identity")), _field(folder / "mlflow.json", "run_id")
        prefix = len(name) >= 6 and re.fullmatch("[0-9a-f]+", name) and (full.startswith(name) or identity.startswith(name))
        if name in (folder.name, run_id) or prefix:
            found.append(folder)
    if not found:
        raise InputError(f"--reproduce {name}: no such run in {', '.join(map(str, suites)) or results}; give a folder below "
                         f"OUTPUT/runs, its name, the run's identity, or its MLflow run id (and --output for another suite)")
    if len(found) > 1:
        raise InputError(f"--reproduce {name} could be {', '.join(str(f) for f in found[:5])}; give the folder")
    return found[0].resolve()


def _field(path: Path, name: str) -> Any:
    # A damaged folder must not hide the one that is meant.
    try:
        return read_json(path).get(name, "")
    except InputError:
        return ""


def read(folder: Path) -> Original:
    """A run's settings and provenance from its folder. InputError where it is not finished, not readable, or not as it was
    written."""
    status, record = read_json(folder / "status.json"), read_json(folder / "provenance.json")
    if status.get("state") != "finished":
        raise InputError(f"{folder} is '{status.get('state')}' by its status.json, not finished; run it first, then reproduce it")
    run, identity = read_config(folder)
    if record.get("brought"):
        raise InputError(f"{folder}: its features were brought along (tcn add); there is no network here to run again. "
                         f"Its numbers follow from its features.npz: python -m tcn evaluate {folder / 'features.npz'}")
    if bad := damaged(folder):
        raise InputError(f"{folder} is not as it was written: {', '.join(bad)}; run it again, then reproduce it")
    recall(folder, run.config.method_source)
    if run.variant not in baselines.table(run.config.method_source).variants:
        raise InputError(f"{folder / 'config.json'} names the variant '{run.variant}', which is unknown here; "
                         f"`run_all.py --help` lists them")
    for name, kind in (("threads", int), ("gpus_per_run", int), ("versions", dict)):
        if not isinstance(record.get(name), (kind, type(None))):
            raise InputError(f"{folder / 'provenance.json'}: '{name}' is {record[name]!r:.60}; fetch the folder again")
    if not _metric_table(folder):
        raise InputError(f"{folder / 'metrics.csv'} is missing or has no rows; run it again, then reproduce it")
    return Original(folder.parent.parent, folder, run, identity, record)


def environment_differences(original: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, one sentence each: code, device, threads, versions."""
    original, now = ({"protocol_version": 1, "gpus_per_run": 1, **record} for record in (original, now))
    found = [f"{key}: {_short(original.get(key))} then, {_short(now.get(key))} now" for key in ENVIRONMENT
             if original.get(key) != now.get(key)]
    then, here = original.get("versions") or {}, now["versions"]
    return found + [f"{package}: {then.get(package)} then, {here.get(package)} now" for package in sorted({*then, *here})
                    if then.get(package) != here.get(package)]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{40,64}", text) else text


def check_material(original: Original, material: Material) -> str:
    """The identity on this machine; InputError where data, split or words are not those of the original."""
    run, record = original.run, original.provenance
    split = material.split_of(run.config)
    for name, here in (("data_digest", split.data_digest), ("split_digest", split.split_digest)):
        if record.get(name) != here:
            raise InputError(f"{original.folder.name} was made on other files: {name} {_short(record.get(name))} there, "
                             f"{_short(here)} here; the same data set is needed to reproduce it (python -m tcn data check)")
    identity = material.identity(run.config)
    words = record.get("words_digest")
    if words and words != material.words_digest(run.config):
        raise InputError(f"{original.folder.name} was made with other word vectors; pass the same file with --words")
    return identity


def reproduce(original: Original, material: Material, device: torch.device, tolerance: float | None, command: str,
              gpus: int = 1) -> Reproduction:
    """Run the run again below OUTPUT/reproductions, on `gpus` devices, and compare.
    An interrupted repetition is taken up again."""
    identity = check_material(original, material)
    suite = SuiteFolder.open(original.suite)
    run = replace(original.run, smoke=suite.smoke)
    folder = RunFolder(original.suite / FOLDER, run, identity)
    if folder.state == "finished":
        shutil.rmtree(folder.path)
    mirror = Mirror(suite, command, {"kind": "reproduction", "reproduces": original.folder.name})
    now = {**provenance.collect(device), "gpus_per_run": gpus if original.run.trained else 1}
    differences = environment_differences(original.provenance, now)
    if identity != original.identity:
        differences.append("settings: this version of the code has other settings (identity "
                           f"{original.identity[:8]} then, {identity[:8]} now); values new to it are at their defaults")
    limit = tolerance if tolerance is not None else (ELSEWHERE if differences else 0.0)
    try:
        reason = execute(run, folder, material, mirror, device, f"again: {run.variant} seed {run.seed}", gpus)
    except KeyboardInterrupt:
        mirror.close("KILLED")
        raise
    mirror.close("FAILED" if reason else "FINISHED")
    result = Reproduction(original.folder.name, original.identity, run.dataset, run.split, run.variant, run.seed, "failed",
                          limit, None, "", 0, not differences, (*differences, *([f"failed: {reason}"] if reason else [])),
                          command, provenance.now())
    if not reason:
        result = compare(result, original.folder, folder.path)
    write_json(original.suite / FOLDER / f"{original.folder.name}.json", asdict(result))
    return result


def compare(result: Reproduction, first: Path, second: Path) -> Reproduction:
    """`result` with verdict and differences filled in from the two folders' files."""
    pairs = list(_metric_pairs(first, second))
    # Metrics of one publisher's queries, or of the fewer validation classes, count towards bit for bit alone.
    worst, where = max(((abs(a - b), name) for name, whole, a, b in pairs if whole), default=(math.nan, ""))
    compared, unequal = len(pairs), [] if all(a == b for _, _, a, b in pairs) else ["metrics.csv"]
    for name, check in (("per_query.npz", _arrays), ("features.npz", _arrays), ("history.csv", _rows), ("steps.csv", _rows),
                        ("precision_recall.csv", _rows), ("distances.npz", _arrays), ("checkpoint.pt", _tensors)):
        if (first / name).exists():
            try:
                number, equal = check(first / name, second / name)
            except Exception as error:  # an older folder has no checksums that would have told before; the run is made, keep it
                number, equal = 0, False
                name += f" (can't be read: {type(error).__name__})"
            compared += number
            unequal += [] if equal else [name]
    verdict = "bit for bit" if not unequal else "within tolerance" if worst <= result.tolerance else "differs"
    files = (f"not equal: {', '.join(unequal)}",) if unequal else ()
    return replace(result, verdict=verdict, largest_difference=worst, where=where if worst else "", compared=compared,
                   differences=(*result.differences, *files))


def _metric_pairs(first: Path, second: Path) -> Iterator[tuple[str, bool, float, float]]:
    """(name, whether of all unseen queries and photos, value then, value now) of every row of metrics.csv; a row that is
    missing now is infinitely far."""
    now = _metric_table(second)
    for key, value in _metric_table(first).items():
        yield " ".join(key), (key[0], *key[4:6]) == ("unseen", "all", "all"), value, now.get(key, math.inf)


def _metric_table(folder: Path) -> dict[tuple[str, ...], float]:
    try:
        # Older folders lack the last column; they held what is now the default value.
        return {(*(row[name] for name in ("classes", "features", "protocol", "metric", "query_source", "gallery")),
                 row.get("duplicates") or "as-published"): float(row["value"])
                for row in read_rows(folder / "metrics.csv", {"value": float})}
    except KeyError as error:
        raise InputError(f"{folder / 'metrics.csv'} lacks the column {error}; fetch the folder again") from error


def _arrays(first: Path, second: Path) -> tuple[int, bool]:
    with np.load(first, allow_pickle=False) as a, np.load(second, allow_pickle=False) as b:
        equal = [name in b.files and np.array_equal(a[name], b[name]) for name in a.files]
        return sum(a[name].size for name in a.files), all(equal)


def _rows(first: Path, second: Path) -> tuple[int, bool]:
    tables = []
    for path in (first, second):
        with open(path, newline="", encoding="utf-8") as stream:
            tables.append([{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(stream)])
    return sum(map(len, tables[0])), tables[0] == tables[1]


def _tensors(first: Path, second: Path) -> tuple[int, bool]:
    a, b = (checkpoints.load(path)["model"] for path in (first, second))
    return sum(t.numel() for t in a.values()), a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
