"""Runs the tests against each mutant, in a forked process that imports the changed text instead of the file.

In: the plan, a folder of results. Out: one JSON line for each mutant in the folder's `RESULTS`. torch and the other libraries are
imported once, before the first fork. Runs on Linux and macOS.
"""
from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any

from benchmarks.tools.mutant_operators import ROOT, Mutant
from benchmarks.tools.mutant_plan import Subject, plan
from benchmarks.tools.mutants_by_hand import EQUIVALENT

RESULTS = "mutants.jsonl"
LIMIT = 20.0
"""Seconds that a mutant's tests may take in addition to three times their time without a fault."""
LIBRARIES = ("torch", "torch._dynamo", "torch.optim", "torchvision.models", "torchvision.transforms.functional", "timm",
             "numpy", "scipy.stats", "scipy.ndimage", "scipy.linalg", "sklearn.decomposition", "sklearn.metrics", "pandas",
             "yaml", "PIL.Image", "threadpoolctl", "tqdm", "psutil", "pytest", "hypothesis.strategies", "doctest")
"""Libraries that are imported before the first fork. The mutated files and the tests are imported after it."""


class _Replaced(importlib.machinery.SourceFileLoader):
    """Loads a module from a given text instead of its file."""

    def __init__(self, name: str, path: str, text: bytes) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:  # noqa: D102
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the mutated module before Python's own finders do."""

    def __init__(self, mutant: Mutant) -> None:
        self.name, self.mutant = mutant.file.removesuffix(".py").replace("/", "."), mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: D102
        if name != self.name:
            return None
        where = str(ROOT / self.mutant.file)
        return importlib.util.spec_from_file_location(name, where, loader=_Replaced(name, where, self.mutant.applied()))


class _First:
    """Pytest plugin that records which test failed first, and how long each test took. Tests run in the order given, after all
    tests that are not in it."""

    def __init__(self, order: Sequence[str]) -> None:
        self.failed = ""
        self.took: dict[str, float] = {}
        self._place = {name: place for place, name in enumerate(order)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:  # noqa: D102
        items.sort(key=lambda item: self._place.get(item.nodeid, -1))

    def pytest_runtest_logreport(self, report: Any) -> None:  # noqa: D102
        self.took[report.nodeid] = round(self.took.get(report.nodeid, 0.0) + report.duration, 3)
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:  # noqa: D102
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (at import)"


def _tests_here(tests: Sequence[str]) -> list[str]:
    return [test for test in dict.fromkeys(tests) if (ROOT / test.partition("::")[0]).exists()]


def _child(mutant: Mutant | None, tests: Sequence[str], order: Sequence[str], send: int, log: str) -> None:
    """Run the tests with the mutant in place of its file, and send what happened. Never returns."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    first, status = _First(order), 99
    try:
        import hypothesis
        import pytest

        # The same examples every time; none is kept for the next mutant, and failing examples are not minimised.
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True,
                                             phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
        hypothesis.settings.load_profile("mutants")
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(mutant))
        status = int(pytest.main(["-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider", *_tests_here(tests)],
                                 plugins=[first]))
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - a mutant may do anything
        first.failed = first.failed or f"{type(error).__name__} outside any test"
    with os.fdopen(send, "w") as out:
        json.dump([status, first.failed, first.took if mutant is None else {}], out)
    os._exit(0)


def run(mutant: Mutant | None, tests: Sequence[str], order: Sequence[str], limit: float, log: str) -> dict[str, Any]:
    """Fork, run the tests, and wait at most `limit` seconds. Returns `status` (killed, survived or time), `by` (the test that
    failed first) and `seconds`; without a mutant also `took` (test -> seconds)."""
    started = time.monotonic()
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        _child(mutant, tests, order, send, log)
    os.close(send)
    ready, _, _ = select.select([receive], [], [], limit)
    with os.fdopen(receive, "rb") as sent:
        answer = sent.read() if ready else b""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # end processes that the tests may have left running
    os.waitpid(child, 0)
    seconds = round(time.monotonic() - started, 1)
    if not ready:
        return {"status": "time", "by": f"not done after {limit:.0f} s", "seconds": seconds}
    if not answer:
        return {"status": "killed", "by": "the process died", "seconds": seconds}
    status, failed, took = json.loads(answer)
    found = {"status": "survived" if status == 0 else "killed", "by": failed, "seconds": seconds}
    return {**found, "took": took} if mutant is None else found


def _changed_at(subject: Subject) -> list[int]:
    """The times at which the file and its tests were last written."""
    return [(ROOT / test.partition("::")[0]).stat().st_mtime_ns for test in (subject.file, *_tests_here(subject.tests))]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The last result of each mutant by name."""
    path = folder / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def run_all(folder: Path, only: Sequence[str], again: bool) -> int:
    """Run the mutants that the folder has no result of (`again`: survivors too). Returns the number of survivors that are not
    known to be equivalent."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each child would load the plugins anew
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    gc.collect()
    gc.freeze()  # without this, each child's collector writes to, and thereby copies, all of the parent's objects
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    done, standing = read_results(folder), 0
    baselines: dict[tuple[str, ...], dict[str, Any]] = {}
    with open(folder / RESULTS, "a", encoding="utf-8") as out:
        for subject, mutants in plan(only):
            pending = [m for m in mutants if m.name not in done
                       or again and done[m.name]["status"] == "survived" and m.name not in EQUIVALENT]
            order: list[str] = []
            if pending:
                log = str(folder / "unchanged.log")
                whole = baselines.get(subject.tests) or run(None, subject.tests, order, 600.0, log)
                baselines[subject.tests] = whole
                if whole["status"] != "survived":
                    raise SystemExit(f"{subject.file}: its tests fail without a fault, at {whole['by']}; see {log}")
                took, seen = whole["took"], _changed_at(subject)
                print(f"{subject.file}: {len(pending)} mutants; {len(took)} tests, {whole['seconds']} s", flush=True)
            for mutant in pending:
                if _changed_at(subject) != seen:  # the tests might fail even without the fault
                    raise SystemExit(f"{subject.file} or its tests changed while mutants ran; start again to go on")
                # Tests that have killed come first, then the fast ones.
                kills = Counter(done[m.name]["by"] for m in mutants if m.name in done)
                order = sorted(took, key=lambda test: (-kills[test], took[test]))
                found = run(mutant, subject.tests, order, 3 * whole["seconds"] + LIMIT, str(folder / "last.log"))
                done[mutant.name] = {"name": mutant.name, **found}
                out.write(json.dumps(done[mutant.name]) + "\n")
                out.flush()
                if found["status"] == "survived" and mutant.name not in EQUIVALENT:
                    before, after = mutant.shown()
                    print(f"  survived: line {mutant.line}, {mutant.operator}\n    {before}\n    {after}", flush=True)
            standing += sum(done[m.name]["status"] == "survived" and m.name not in EQUIVALENT for m in mutants)
    return standing
