"""Whatever a result folder holds, the harness goes on with it, sets it aside, or names the file: damaged ones cost themselves."""
from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import JSON, damage, fuzz

from benchmarks import experiments, reproduce, runner
from benchmarks.launch import cost
from benchmarks.mirror import Mirror
from benchmarks.records import write_json, write_table
from benchmarks.store import RunFolder, SuiteFolder, damaged
from tcn.config import InputError

RECORD = {"device": "a processor", "threads": 1, "versions": {"torch": "2"}, "commit": "c" * 40, "data_digest": "d" * 64,
          "datasets": [["emoji fixed training", "d" * 64, "{}"], ["emoji fixed unseen", "d" * 64, "{}"]]}
FILES = ("config.json", "status.json", "provenance.json", "spent.json", "mlflow.json", "metrics.csv", "history.csv", "steps.csv",
         "per_query.csv", "examples.json", "SHA256SUMS")


def made(output: Path) -> RunFolder:
    """A finished run, as the runner leaves it, in files of a few lines; its suite beside it."""
    one_run = experiments.plan(experiments.PROFILES["laptop"], None, ["tcn"], [0], {}, False)[0]
    folder = RunFolder(output, one_run, "ab" * 32)
    folder.path.mkdir(parents=True)
    folder.write_config()
    write_json(folder.path / "provenance.json", RECORD)
    write_json(folder.path / "spent.json", {"seconds": 2.5})
    write_table(folder.path / "history.csv", [{"epoch": n, "total": 3.0 - n, "pairs_per_second": 40.0} for n in range(3)],
                ["epoch"])
    write_table(folder.path / "steps.csv", [{"step": n, "epoch": 1, "total": 1 / n} for n in range(1, 5)], ["step"])
    write_table(folder.path / "metrics.csv", [{"classes": "unseen", "features": "real", "protocol": "released", "metric": name,
                                               "value": 0.25, "query_source": "all", "gallery": "all"}
                                              for name in ("mAP@all", "Prec@100")], ["classes"])
    write_table(folder.path / "per_query.csv", [{"query": "anvil/1.png", "AP_released": 0.25}], ["query"])
    write_json(folder.path / "examples.json", {"examples": []})
    folder.seal()
    folder.set_state("finished", None, 2, 1)
    SuiteFolder(output, "laptop", False).write([folder], {}, "2026-01-01", "a command")
    write_json(folder.path / "mlflow.json", {"uri": "mlflow.db", "run_id": "r" * 32})
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    return made(tmp_path_factory.mktemp("whole") / "out")


@contextlib.contextmanager
def copied(folder: RunFolder) -> Iterator[RunFolder]:
    """The suite of a folder, to be damaged."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "out"
        shutil.copytree(folder.path.parent.parent, output)
        yield RunFolder(output, folder.run, folder.identity)


def changed(data: st.DataObject, path: Path) -> None:
    """Damage a file; now and then it is gone, or a folder lies in its place."""
    content = path.read_bytes()
    new = data.draw(st.one_of(damage(content), JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40),
                              st.sampled_from((None, "a folder"))))
    path.unlink()
    if isinstance(new, bytes):
        path.write_bytes(new)
    elif new:
        path.mkdir()


@contextlib.contextmanager
def named(*names: str) -> Iterator[None]:
    """An InputError in the block names one of these."""
    try:
        yield
    except InputError as error:
        assert any(name in str(error) for name in names) and "Traceback" not in str(error), error


def test_the_whole_folder_is_read(whole):
    suite = SuiteFolder.open(whole.path.parent.parent)
    assert [f.path for f in suite.folders()] == [whole.path] and whole.state == "finished" and whole.epochs_done == 2
    assert damaged(whole.path) == [] and whole.whole() and runner._earlier(whole) == 2.5
    assert reproduce.read(whole.path).run == whole.run
    assert list(cost.kept_rates(suite.output, "a processor", 1).values()) == [[40.0] * 3]


@fuzz("result folders, by the harness", 300)
@given(data=st.data())
def test_a_damaged_file_is_named_or_its_run_set_aside(whole, data):
    name = data.draw(st.sampled_from(FILES))
    with copied(whole) as folder:
        output = folder.path.parent.parent
        if data.draw(st.booleans()):
            (folder.path / "SHA256SUMS").unlink()  # as earlier versions left it
        if not (folder.path / name).exists():
            return
        changed(data, folder.path / name)
        with named("config.json"):
            RunFolder.read(folder.path)
        assert folder.state in ("finished", "interrupted", "new") or name == "status.json"
        assert runner._earlier(folder) >= 0 or name == "spent.json"
        assert set(damaged(folder.path)) <= {name, "SHA256SUMS"} or name == "SHA256SUMS"
        cost.kept_rates(output, "a processor", 1)
        cost._result_bytes(output)
        with named(name, "--reproduce", *(["not as it was written"] if name == "SHA256SUMS" else [])):
            reproduce.read(reproduce.find(folder.path.name, output, output))
        if not folder.whole() and name not in ("status.json", "config.json", "mlflow.json"):
            assert not folder.path.exists() or not list(folder.path.glob("*.csv"))  # out of the way
        for found in SuiteFolder.open(output).folders():
            assert found.path == folder.path


@fuzz("result folders, by the harness", 100)
@given(data=st.data())
def test_a_damaged_list_of_runs_is_named(whole, data):
    with copied(whole) as folder:
        output = folder.path.parent.parent
        changed(data, output / "suite.json")
        with named("suite.json"):
            suite = SuiteFolder.open(output)
            suite.folders()
            suite.write([folder], {}, "2026-01-02", "another command")
            assert f"runs/{folder.path.name}" in [entry["folder"] for entry in suite.head()["runs"]]


@pytest.fixture(scope="module")
def mirrored(whole, tables, tmp_path_factory) -> Iterator[tuple[RunFolder, Mirror]]:
    output = tmp_path_factory.mktemp("mirrored") / "out"
    shutil.copytree(whole.path.parent.parent, output)
    shutil.copyfile(tables, output / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield RunFolder(output, whole.run, whole.identity), Mirror(SuiteFolder.open(output), "a command")


@fuzz("result folders, by the harness", 60)
@given(data=st.data())
def test_a_damaged_folder_is_no_fault_of_mlflow(whole, mirrored, data):
    """What can't be mirrored is named; the store stays, and the next folder goes on."""
    folder, mirror = mirrored
    shutil.rmtree(folder.path)
    shutil.copytree(whole.path, folder.path)
    (folder.path / "mlflow.json").unlink()
    if data.draw(st.booleans()):
        (folder.path / "SHA256SUMS").unlink()
    name = data.draw(st.sampled_from([name for name in FILES if (folder.path / name).exists()]))
    changed(data, folder.path / name)
    mirror.settle(folder)
    assert mirror.alive


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_file_that_is_gone_or_a_folder_is_no_fault_of_mlflow(whole, mirrored, name):
    """In a folder of an earlier version, whose files no list of digests guards."""
    folder, mirror = mirrored
    for put in (lambda path: None, Path.mkdir):
        shutil.rmtree(folder.path)
        shutil.copytree(whole.path, folder.path, ignore=shutil.ignore_patterns("SHA256SUMS", "mlflow.json", name))
        put(folder.path / name)
        mirror.settle(folder)
        assert mirror.alive
