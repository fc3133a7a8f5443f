"""What must hold after a kill, and after the command has ended by itself: whole files, equal results, one MLflow run each.

In: an output folder. Out: the numbers of files and values that were checked; `Lost` if a kill destroyed something.
"""
from __future__ import annotations

import collections
import contextlib
import csv
import json
import shutil
import sqlite3
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMES = ("seconds", "pairs_per_second")


class Lost(Exception):
    """A kill destroyed or changed something that it must not."""


@dataclass
class Count:
    """The numbers of kills and rounds, and of the files and values that were checked."""

    kills: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    """(how the command was killed, what it was doing) -> number of kills."""
    rounds: collections.Counter[str] = field(default_factory=collections.Counter)
    files: int = 0
    half_written: int = 0
    values: int = 0
    recorded: int = 0

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())


def examine(output: Path, progress: dict[str, int], count: Count) -> str:
    """Check every file after a kill; returns what the process was doing. `progress`: run's folder -> finished epochs, updated
    here.

    Raises Lost where a file under its final name is not complete, or where an epoch is gone that was finished before.
    """
    from tcn.train import checkpoints

    at = "start or end of the call"
    for path in sorted(p for p in output.rglob("*") if p.is_file() and "mlartifacts" not in p.parts):
        if path.name.endswith(".partial") or ".partial" in path.suffixes:
            count.half_written += 1
            continue
        count.files += 1
        try:
            _whole(path)
        except Exception as error:
            raise Lost(f"{path} is not whole: {type(error).__name__}: {error}") from error
    for folder in sorted((output / "runs").glob("*")):
        path = folder / "status.json"
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"state": "new", "epochs_done": 0, "epochs": 0}
        epochs = checkpoints.last(folder).state
        reached = state["epochs"] if state["state"] == "finished" else epochs["epoch"] if epochs else 0
        if reached < max(progress.get(folder.name, 0), state["epochs_done"] if state["epochs"] else 0):
            raise Lost(f"{folder} was at epoch {progress.get(folder.name)}, and is at {reached}")
        progress[folder.name] = reached
        if state["state"] == "running":
            at = ("training" if reached < state["epochs"] else "scoring") if (folder / "steps.csv").exists() or state["epochs"] \
                else "scoring"
    return at


def _whole(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        widths = {len(row) for row in csv.reader(text.splitlines())}
        if not text.endswith("\n") or len(widths) > 1:
            raise ValueError("cut short")
    elif path.suffix in (".npz", ".pt"):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                raise ValueError("a checksum does not fit")
    elif path.suffix == ".png":
        if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
            raise ValueError("cut short")
    elif path.name == "mlflow.db":
        with tempfile.TemporaryDirectory() as place:
            # As the next process will find it: SQLite first undoes what a dead one has half written,
            # which a read-only store forbids.
            for file in path.parent.glob(f"{path.name}*"):
                shutil.copy(file, place)
            with contextlib.closing(sqlite3.connect(Path(place) / path.name)) as store:
                answer = store.execute("PRAGMA integrity_check").fetchone()[0]
        if answer != "ok":
            raise ValueError(answer)


def compare(straight: Path, tortured: Path) -> int:
    """Compare the results of two suites; returns how many values were compared. Raises Lost, which names the file, where one
    differs."""
    import numpy as np
    import torch

    ours, theirs = ({p.name: p for p in (root / "runs").iterdir()} for root in (straight, tortured))
    if ours.keys() != theirs.keys():
        raise Lost(f"{tortured} has other runs: {sorted(theirs)} instead of {sorted(ours)}")
    values = 0
    for name, folder in ours.items():
        twin = theirs[name]
        names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (folder, twin)]
        if names[0] != names[1]:
            raise Lost(f"{twin} has other files: {sorted(names[0] ^ names[1])}")
        for file in sorted(names[0]):
            a, b = folder / file, twin / file
            if a.suffix == ".npz":
                with np.load(a) as x, np.load(b) as y:
                    equal = x.files == y.files and all(np.array_equal(x[k], y[k]) for k in x.files)
                    values += sum(x[k].size for k in x.files)
            elif a.suffix == ".pt":
                x, y = (torch.load(p, weights_only=True)["model"] for p in (a, b))
                equal = a.read_bytes() == b.read_bytes()
                values += sum(tensor.numel() for tensor in x.values())
                equal = equal and all(torch.equal(x[k], y[k]) for k in x)
            elif file in ("history.csv", "steps.csv"):
                x, y = ([{k: v for k, v in row.items() if k not in TIMES} for row in _rows(p)] for p in (a, b))
                equal = x == y
                values += sum(len(row) for row in x)
            elif file in ("provenance.json", "spent.json", "mlflow.json", "SHA256SUMS", ".lock", "diff.patch"):
                continue  # they say when, where and how a run was made, or are checksums of such files
            else:
                equal = a.read_bytes() == b.read_bytes()
                values += a.read_bytes().count(b",") if a.suffix == ".csv" else 1
            if not equal:
                raise Lost(f"{b} differs from the undisturbed {a}")
    return values


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def count_runs(output: Path) -> int:
    """Check the MLflow store; returns how many runs it has. Raises Lost where a run is missing, is there twice or is not
    FINISHED, and where a metric is missing or is there twice."""
    with sqlite3.connect(f"file:{output / 'mlflow.db'}?mode=ro", uri=True) as store:
        recorded = store.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        tags: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for run, key, value in store.execute("SELECT run_uuid, key, value FROM tags"):
            tags[run][key] = value
        logged: dict[str, collections.Counter[tuple[str, int]]] = collections.defaultdict(collections.Counter)
        for run, key, step in store.execute("SELECT run_uuid, key, step FROM metrics WHERE key NOT LIKE 'system/%'"):
            logged[run][key, step] += 1
        params = collections.Counter(run for run, in store.execute("SELECT run_uuid FROM params"))
    wrong = [f"{run} is {status}" for run, status in recorded if status != "FINISHED"]
    parents = [run for run, _ in recorded if tags[run].get("kind") == "suite"]
    folders = collections.Counter(tags[run].get("folder") for run, _ in recorded if tags[run].get("kind") == "run")
    runs = {p.name: p for p in (output / "runs").iterdir()}
    if len(parents) != 1:
        wrong.append(f"{len(parents)} MLflow runs of the suite instead of 1")
    if set(folders) != set(runs) or any(number != 1 for number in folders.values()):
        wrong.append(f"MLflow runs by folder {dict(folders)}, result folders {sorted(runs)}")
    for run, _ in recorded:
        path = runs.get(tags[run].get("folder", ""))
        if path is None:
            continue
        steps = _rows(path / "steps.csv") if (path / "steps.csv").exists() else []
        expected = {("step/total", int(row["step"])) for row in steps}
        twice = [key for key, number in logged[run].items() if number > 1]
        missing = [key for key in expected if not logged[run][key]]
        if twice or missing or not params[run] or not any("mAP" in key for key, _ in logged[run]):
            wrong.append(f"{path.name}: metrics twice {twice[:3]}, missing {missing[:3]}, {params[run]} parameters")
    if wrong:
        raise Lost(f"{output / 'mlflow.db'}: {'; '.join(wrong)}")
    return len(recorded)
