"""Rendering the whole report from the folders of 100 runs: tables, figures, page.

The folders hold made-up numbers in the layout of real runs (tests/support/result_folders.py). The reference is what everybody
does by hand, a loop that reads each run's metrics and averages over seeds: it makes one table of the report's, without
any figure, so the ratio says what all the rest costs, not how fast it could be.
"""
from __future__ import annotations

import csv
import importlib.util
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.provenance import ROOT
from benchmarks.speed.conftest import Timed
from reports.render.command import render

SEEDS = range(14)
"""Of seven variants each: 98 runs."""


def _builder() -> ModuleType:
    path = ROOT / "tests" / "support" / "result_folders.py"
    found = importlib.util.spec_from_file_location("result_folders", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def results() -> tempfile.TemporaryDirectory[str]:
    kept = tempfile.TemporaryDirectory()
    _builder().write_suite(Path(kept.name), seeds=SEEDS)
    return kept


def averages(folder: Path) -> dict[str, float]:
    """Mean mAP@all (`released`, real-valued, unseen) of each variant over its seeds, read run by run."""
    sums: dict[str, list[float]] = {}
    for run in sorted((folder / "runs").iterdir()):
        with open(run / "metrics.csv", newline="") as source:
            for row in csv.DictReader(source):
                if (row["classes"], row["features"], row["protocol"], row["metric"], row["query_source"], row["gallery"]) == (
                        "unseen", "real", "released", "mAP@all", "all", "all"):
                    sums.setdefault(run.name.split("__")[1], []).append(float(row["value"]))
    return {name: sum(values) / len(values) for name, values in sums.items()}


@pytest.mark.parametrize("role", ("reference", "ours"))
def bench_report(timed: Timed, role: str) -> None:
    folder = Path(results().name)
    if role == "reference":
        found = timed("report", "98 runs", role, len(list((folder / "runs").iterdir())), "run", lambda: averages(folder),
                      rounds=3, warmup=1, note="one table by a plain loop, no figure")
        assert len(found) == 7
    else:
        timed("report", "98 runs", role, len(list((folder / "runs").iterdir())), "run",
              lambda: render(folder, folder / "report"), rounds=1, warmup=0, note="all tables, figures and the page")
