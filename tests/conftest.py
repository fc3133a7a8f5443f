"""Settings for the whole test run: no telemetry, and few threads, since small tensors gain nothing from more."""
from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Started under nohup, or in a shell's background, this process ignores signals that tests send to it.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_MININTERVAL", "30")
# Tests of the command must not find a reader's own data, store or cache.
for name in ("TCN_DATA", "TCN_CACHE", "TCN_CACHE_FORM", "TCN_EMOJI_TARBALLS", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)


def _checked_only(handle: int) -> None:
    """In the place of os.fsync: a wrong handle is an error, and nobody waits for the disk. What a process writes outlives it
    without that; only a power cut could tell, which no test makes. That files are flushed in order is shown by test_files.py."""
    os.fstat(handle)


os.fsync = _checked_only


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Path]:
    """A data root, weights and words for small runs of the command (small_suite.py); MLflow's empty tables are copied."""
    from support.small_suite import make_place

    from benchmarks import mirror

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "make_tables", lambda store: shutil.copyfile(tables, store))
        yield make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def whole_fonts() -> Iterator[None]:
    """PDF figures take whole fonts: choosing the glyphs of each figure takes a quarter of a report's time. Not for tests that
    compare with a report of another process, which has the fonts as users have them."""
    from fontTools.ttLib import TTFont
    from matplotlib.backends import _backend_pdf_ps as fonts

    def whole(file: Any, glyphs: set[int]) -> Any:
        return fonts.SubsetResults(TTFont(file, lazy=True), {glyph: glyph for glyph in glyphs})._as_cm()

    with pytest.MonkeyPatch.context() as patch:
        if hasattr(fonts, "SubsetResults"):  # other versions of matplotlib have it otherwise, and are only slower
            patch.setattr(fonts, "get_glyphs_subset", whole)
        yield


@pytest.fixture(scope="module")
def overview_alone(whole_fonts: None) -> Iterator[None]:
    """Reports draw one figure of each task, for tests to which figures are files like others; each takes half a second."""
    from reports.figures import frames
    from reports.render import command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_figures", lambda suite, task, cache: [frames.overview(suite, task)])
        yield


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forks of a server that has imported everything (support/warm.py). Not for tests of how a process is
    started."""
    import multiprocessing

    from support import warm

    monkeypatch.setattr(multiprocessing, "get_context", warm.context)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files for development ($TCN_SHARED_DATA); tests that need it are skipped elsewhere."""
    folder = Path(os.environ.get("TCN_SHARED_DATA") or "/nonexistent")
    if not folder.is_dir():
        pytest.skip("no real data here: TCN_SHARED_DATA names no folder")
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, as MLflow makes it: its tables take seconds, so tests copy them. From here on SQLite does not wait
    for the disk either."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from benchmarks.mirror import make_tables
    from tcn.files.locks import lock

    @event.listens_for(Engine, "connect")
    def no_waiting(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    # One file for all test processes of a call (their folders lie in one); each that needs it waits for the one that makes it.
    own = tmp_path_factory.getbasetemp()
    store = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tables" / "mlflow.db"
    with lock(store.with_name("lock"), "a test process"):
        if not store.exists():
            make_tables(store.with_name("partial.db"))
            store.with_name("partial.db").rename(store)
    return store


@pytest.fixture
def command(tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
            ) -> Callable[..., tuple[int, str, str]]:
    """Call `run_all.py` in this process; returns status, standard output, standard error."""
    from benchmarks import mirror, run_all

    monkeypatch.setattr(mirror, "make_tables", lambda store: shutil.copyfile(tables, store))
    for name in ("TCN_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run_all.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


_LONGEST = ("faults", "fuzz_results", "run_all", "launch", "digits", "slurm", "explorer_in_browser", "report_faults",
            "everything", "reports", "own_methods", "parallel", "own_datasets", "execution", "claims", "released_lists",
            "figures", "encoders_by_name", "page_in_browser", "calibration", "files", "escaping", "drawn_elsewhere",
            "evaluate", "demo", "torture", "reproduce")
"""Test files that take longest, longest first: begun last, one of them would keep one process busy alone."""


gc.disable()  # while modules are imported, which leave nothing to be collected


def pytest_collection_finish() -> None:
    """What was imported stays: from here on the collector passes over it."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; everything else as it was."""
    rank = {f"test_{name}": number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


# With several pytest-xdist workers each counts what it tried; the process that reports adds them up.

def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand this worker's counts to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        from support.fuzzing import COUNTS

        session.config.workeroutput["fuzzed"] = dict(COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's counts."""
    from support.fuzzing import COUNTS

    COUNTS.update(getattr(node, "workeroutput", {}).get("fuzzed", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many inputs the fuzz tests tried."""
    from support.fuzzing import summary

    if summary():
        terminalreporter.write_line(summary())
