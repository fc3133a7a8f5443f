"""Faults injected into the command for real: what was computed stays, the user is told, and the next call goes on."""
from __future__ import annotations

import contextlib
import csv
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import torch
from support.mounts import read_only, small_disk
from support.small_suite import ONE, SMALL, common, places, run_folders

from benchmarks import mirror
from benchmarks.launch import local
from benchmarks.mirror import Mirror
from benchmarks.store import RunFolder, SuiteFolder
from benchmarks.tools import torture_child
from tcn.config import InputError
from tcn.train import checkpoints, loop

ROOT = Path(__file__).parents[2]
TCN = "quickdraw-1__tcn__seed3"
UNTRAINED = "quickdraw-1__untrained-svd__seed3"


@pytest.fixture
def run(place, command):
    """The command on that place."""
    return lambda *arguments: command(*common(place), *arguments)


def arguments_of(place: Path, arguments: tuple[str, ...], epochs: int) -> list[str]:
    """The command line; 0 epochs: no setting of them, which untrained baselines refuse."""
    more = [f"training.epochs={epochs}"] if epochs else []
    return [*places(place), "--quick", "--no-report", *ONE, *arguments, *SMALL, *more]


def started(place: Path, *arguments: str, epochs: int = 3, **options) -> subprocess.Popen:
    """The command in a new interpreter, with more epochs than one."""
    return subprocess.Popen([sys.executable, "benchmarks/run_all.py", *arguments_of(place, arguments, epochs)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


class Forked:
    """The command in a process that is a fork of this one: with everything imported, which takes longer than the rest."""

    def __init__(self, place: Path, *arguments: str, epochs: int = 3) -> None:
        output = Path(arguments[arguments.index("--output") + 1])
        self.log = output.with_name(f"{output.name}-{time.monotonic_ns()}.log")
        self.pid = torture_child.child(arguments_of(place, arguments, epochs), self.log, fresh=False)

    def end(self, number: int | None = None, seconds: float = 600.0) -> tuple[int, str]:
        """Send a signal, if any, and wait; the exit status (negative for a signal) and all that was printed."""
        if number:
            os.kill(self.pid, number)
        until = time.monotonic() + seconds
        while (status := torture_child.ended(self.pid)) is None:
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)
        return status, self.log.read_text()


def wait_for(condition, seconds: float = 600.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def runs(output: Path) -> dict[str, list[str]]:
    """Folder of a run -> states of its runs; the suite's own under ''."""
    found: dict[str, list[str]] = {}
    if (output / "mlflow.db").exists():
        with contextlib.closing(sqlite3.connect(f"file:{output / 'mlflow.db'}?mode=ro", uri=True)) as store:
            for folder, status in store.execute("SELECT coalesce(value, ''), status FROM runs LEFT JOIN tags "
                                                "ON tags.run_uuid = runs.run_uuid AND tags.key = 'folder'"):
                found.setdefault(folder.rsplit("__", 1)[0], []).append(status)
    return found


def metrics_of(output: Path, name: str) -> bytes:
    return (run_folders(output)[name] / "metrics.csv").read_bytes()


# --- signals, kills, two at once -----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def straight(place) -> Path:
    """Three epochs of TCN, undisturbed."""
    status, text = Forked(place, "--variants", "tcn", "--output", str(place / "straight")).end()
    assert status == 0, text
    return place / "straight"


def test_sigterm_marks_the_run_and_its_run_and_a_killed_call_is_closed_by_sync(place, straight, run, command):
    """SIGTERM, then kill -9 in the same folder, then --sync, then the end: no digit and no run differs."""
    output = place / "ended"
    process = Forked(place, "--variants", "tcn", "--output", str(output))
    wait_for(lambda: list(output.glob("runs/*/epoch-0001.pt")))
    status, text = process.end(signal.SIGTERM)
    assert status == 143 and "goes on from the last finished epoch" in text and "Traceback" not in text
    folder = run_folders(output)[TCN]
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "interrupted" and status["epochs_done"] >= 1
    assert runs(output) == {"": ["KILLED"], TCN: ["KILLED"]}
    process = Forked(place, "--variants", "tcn", "--output", str(output))
    wait_for(lambda: runs(output)[TCN] == ["RUNNING"])
    assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert runs(output) == {"": ["RUNNING"], TCN: ["RUNNING"]}
    code, out, _ = command("--sync", "--output", str(output))
    assert code == 0 and "1 brought up to date" in out
    assert runs(output) == {"": ["KILLED"], TCN: ["KILLED"]}
    status, text = Forked(place, "--variants", "tcn", "--output", str(output)).end()
    assert status == 0, text
    assert runs(output) == {"": ["FINISHED"], TCN: ["FINISHED"]}
    assert metrics_of(output, TCN) == metrics_of(straight, TCN)
    assert (folder / "checkpoint.pt").read_bytes() == (run_folders(straight)[TCN] / "checkpoint.pt").read_bytes()


def test_two_calls_at_once_share_the_work(place, straight):
    output = place / "shared"
    both = [Forked(place, "--variants", "tcn", "untrained-svd", "hws", "--output", str(output), epochs=2) for _ in range(2)]
    ends = [process.end() for process in both]
    assert [status for status, _ in ends] == [0, 0], ends
    counts = [tuple(int(part.split()[0]) for part in line.split(", ")) for _, text in ends for line in text.splitlines()
              if "already finished" in line]
    assert len(counts) == 2 and sum(ran for ran, _, _ in counts) == 3, ends
    assert all(ran + there == 3 and failed == 0 for ran, there, failed in counts)
    assert runs(output) == {
        "": ["FINISHED"], **{f"quickdraw-1__{v}__seed3": ["FINISHED"] for v in ("tcn", "untrained-svd", "hws")}}


def test_a_held_run_is_named_with_its_holder_and_taken_over_when_the_holder_dies(run, tmp_path, monkeypatch):
    """The holder is a real process; it is killed with its lock in hand, once the call waits for it."""
    code, _, _ = run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "out"))
    folder = run_folders(tmp_path / "out")[UNTRAINED]
    (folder / "status.json").unlink()
    code = ("import sys, time; from pathlib import Path; from tcn.files.locks import lock\n"
            "with lock(Path(sys.argv[1]), 'another call'):\n    print('held', flush=True)\n    time.sleep(60)")
    hold = subprocess.Popen([sys.executable, "-c", code, str(folder / ".lock")], stdout=subprocess.PIPE, text=True)
    assert hold.stdout.readline() == "held\n"
    waited = []

    def waiting(seconds):
        waited.append(seconds)
        hold.kill()
        hold.wait()

    monkeypatch.setattr(local, "time", SimpleNamespace(sleep=waiting, perf_counter=time.perf_counter))
    code, out, _ = run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "out"))
    assert code == 0 and f"left to process {hold.pid} on" in out and "(another call)" in out and "1 run done" in out
    assert len(waited) == 1


# --- results that are not as they were written ---------------------------------------------------------------

def test_a_damaged_result_is_set_aside_and_run_again_with_the_same_run(run, tmp_path):
    output = tmp_path / "out"
    arguments = (*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))
    assert run(*arguments)[0] == 0
    folder = run_folders(output)[UNTRAINED]
    metrics = folder / "metrics.csv"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole.replace(b"0.1", b"0.9", 1))
    code, out, err = run(*arguments)
    assert code == 0 and "1 run done" in out
    assert "not as it was written: metrics.csv" in err and "set aside as" in err
    assert metrics.read_bytes() == whole
    assert (output / "damaged" / f"{folder.name}-1" / "metrics.csv").read_bytes() != whole
    assert runs(output) == {"": ["FINISHED"], UNTRAINED: ["FINISHED"]}
    (folder / "status.json").write_bytes(b"\0" * 20)
    code, out, err = run(*arguments)
    assert code == 0 and "status.json is damaged" in err and "1 run done" in out and metrics.read_bytes() == whole


def test_checksums_are_of_the_form_that_other_tools_read(run, tmp_path):
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "out"))[0] == 0
    folder = run_folders(tmp_path / "out")[UNTRAINED]
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "metrics.csv: OK" in done.stdout and "features.npz: OK" in done.stdout
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there - listed == {"status.json", "mlflow.json", ".lock", "SHA256SUMS"}


def test_a_damaged_list_of_runs_is_named_and_made_anew_once_it_is_moved_away(run, tmp_path):
    output = tmp_path / "out"
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))[0] == 0
    (output / "suite.json").write_bytes((output / "suite.json").read_bytes()[:40])
    code, _, err = run(*ONE, "--variants", "untrained-svd-permodality", "--no-report", "--output", str(output))
    assert code == 2 and "suite.json is damaged" in err and "move it away" in err
    (output / "suite.json").rename(output / "suite.json.old")
    code, out, _ = run(*ONE, "--variants", "untrained-svd-permodality", "--no-report", "--output", str(output))
    assert (code == 0
            and {f.run.variant for f in SuiteFolder.open(output).folders()} == {"untrained-svd", "untrained-svd-permodality"})


# --- MLflow --------------------------------------------------------------------------------------------------

def test_results_made_without_mlflow_are_mirrored_by_sync(run, command, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    started_at = time.monotonic()
    code, out, err = run_all_main(run, "--output", str(output))
    assert code == 0 and "MLflow is not available" in err and "--sync --output" in err and "1 run done" in out
    assert time.monotonic() - started_at < 120  # it was not waited for at every call
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, out, _ = command("--sync", "--output", str(output))
    assert code == 0 and "1 brought up to date" in out
    assert runs(output) == {"": ["FINISHED"], UNTRAINED: ["FINISHED"]}
    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    mirrored = next(r for r in client.search_runs(["1"]) if r.data.tags["kind"] == "run")
    assert mirrored.data.metrics["unseen/real/released/mAP_at_all"] > 0 and mirrored.inputs.dataset_inputs
    code, out, _ = command("--sync", "--output", str(output))
    assert code == 0 and "0 brought up to date" in out and len(runs(output)[UNTRAINED]) == 1


@pytest.fixture
def soon(monkeypatch) -> None:
    """MLflow tries a server as often as it does for users, with shorter pauses."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.1")


def run_all_main(run, *arguments: str) -> tuple[int, str, str]:
    """`run` takes MLFLOW_TRACKING_URI away once; here it stays as the test set it."""
    return run(*ONE, "--variants", "untrained-svd", "--no-report", *arguments)


def test_a_store_that_another_process_locks_is_told_in_one_line(tables, tmp_path, capfd):
    """MLflow itself logs the error with its traceback, and raises it as well."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def soon(connection, cursor, statement, parameters, *_):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 1"), parameters

    store = tmp_path / "mlflow.db"
    shutil.copyfile(tables, store)
    client = mirror.import_mlflow().MlflowClient(tracking_uri=f"sqlite:///{store}")
    client.search_experiments()
    event.listen(Engine, "before_cursor_execute", soon, retval=True)
    try:
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Exception, match="database is locked"):
                client.create_experiment("late")
    finally:
        event.remove(Engine, "before_cursor_execute", soon)
    assert "Traceback" not in capfd.readouterr().err


def test_a_store_that_is_no_store_costs_no_result_and_is_named(place, command, tmp_path):
    """Each call in a process of its own: MLflow keeps connections to a store's file for as long as it lives."""
    output = tmp_path / "out"
    code, text = Forked(place, "--variants", "untrained-svd", "--output", str(output), epochs=0).end()
    assert code == 0, text
    (output / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    code, text = Forked(place, "--variants", "untrained-svd", "untrained-svd-permodality", "--output", str(output),
                        epochs=0).end()
    assert code == 0 and "1 run done, 1 already finished" in text and "mlflow.db is damaged: move it away" in text
    (output / "mlflow.db").unlink()
    assert command("--sync", "--output", str(output))[0] == 0
    assert runs(output) == {"": ["FINISHED"], UNTRAINED: ["FINISHED"], UNTRAINED.replace("svd", "svd-permodality"): ["FINISHED"]}


def test_a_store_whose_tables_were_cut_short_is_no_store(run, tmp_path, monkeypatch):
    """The call ends while MLflow makes its tables: what is there then has another name, and goes with the next call."""
    output = tmp_path / "out"
    arguments = (*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))

    def ended(store):
        store.write_bytes(b"SQLite format 3\0 and the first tables")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "make_tables", ended)
        assert run(*arguments)[0] == 130
    assert [path.suffix for path in output.glob("mlflow.db*")] == [".partial"]
    assert run(*arguments)[0] == 0
    assert [path.name for path in output.glob("mlflow.db*")] == ["mlflow.db"]
    assert runs(output) == {"": ["FINISHED"], UNTRAINED: ["FINISHED"]}


def test_an_empty_address_is_none(run, tmp_path, monkeypatch, soon):
    output = tmp_path / "a folder's name"
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))[0] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))[0] == 0
    assert runs(output) == {"": ["FINISHED"], UNTRAINED: ["FINISHED"]}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))
    assert code == 0 and f"--sync --output {shlex.quote(str(output))}`" in err


def test_sync_without_a_suite_or_a_server_says_so(run, command, tmp_path, monkeypatch, soon):
    code, _, err = command("--sync", "--output", str(tmp_path))
    assert code == 2 and "holds no suite" in err
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "out"))[0] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = command("--sync", "--output", str(tmp_path / "out"))
    assert code == 2 and "nothing was mirrored" in err and "start its server" in err


@pytest.mark.slow
def test_a_server_killed_in_the_middle_and_back_later(place, tmp_path):
    """A real server on the loopback address, killed while a run trains; --sync when it is back."""
    def serve() -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "5917",
                                    "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination",
                                    str(tmp_path / "artifacts")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        client = mlflow.MlflowClient("http://127.0.0.1:5917")

        def answers() -> bool:
            with contextlib.suppress(Exception):
                client.search_experiments()
                return True
            return False

        wait_for(answers)
        return process

    def end(process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:5917", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                   "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    server = serve()
    output = tmp_path / "out"
    process = started(place, "--variants", "tcn", "untrained-svd", "--output", str(output), epochs=4, env=environment)
    wait_for(lambda: list(output.glob("runs/*/epoch-0002.pt")))
    end(server)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0 and "MLflow is not available" in err and "2 runs done" in out
    server = serve()
    try:
        done = subprocess.run([sys.executable, "benchmarks/run_all.py", "--sync", "--output", str(output)], cwd=ROOT,
                              env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "2 brought up to date" in done.stdout, done.stderr
        client = mlflow.MlflowClient("http://127.0.0.1:5917")
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert sorted(r.data.tags["kind"] for r in found) == ["run", "run", "suite"]
        assert {r.info.status for r in found} == {"FINISHED"}
        trained = next(r for r in found if r.data.tags.get("variant") == "tcn")
        steps = list(csv.DictReader(open(run_folders(output)[TCN] / "steps.csv")))
        assert [m.step for m in client.get_metric_history(trained.info.run_id, "step/total")] == [int(r["step"]) for r in steps]
    finally:
        end(server)


# --- disk, memory, losses, clock -----------------------------------------------------------------------------

def test_a_disk_that_fills_up_while_training_costs_an_epoch_at_the_most(run, tmp_path):
    more, hws = ("--set", "training.epochs=3"), TCN.replace("tcn", "hws")
    with small_disk(tmp_path / "disk", "300m") as disk:
        output = disk / "out"
        arguments = (*ONE, "--variants", "hws", "untrained-svd", "--no-report", "--output", str(output), *more)
        original, filler = checkpoints.keep, disk / "filler"

        def keep(state, folder):
            if state["epoch"] == 3 and not filler.exists():
                with contextlib.suppress(OSError), open(filler, "wb") as out:  # to the last byte
                    while True:
                        out.write(b"x" * 1_000_000)
                        out.flush()
            original(state, folder)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "keep", keep)
            code, out, err = run(*arguments)
        assert code == 1 and "no space left on device" in err and "free some space" in err and "Traceback" not in err
        assert list(run_folders(output)[hws].glob("epoch-*.pt"))
        filler.unlink()
        code, out, err = run(*arguments)
        assert code == 0 and "resumed after epoch" in out
        assert run(*ONE, "--variants", "hws", "--no-report", "--output", str(tmp_path / "straight"), *more)[0] == 0
        assert metrics_of(output, hws) == metrics_of(tmp_path / "straight", hws)
        assert runs(output) == {"": ["FINISHED"], hws: ["FINISHED"], UNTRAINED: ["FINISHED"]}


def test_too_small_a_disk_is_said_before_training(run, tmp_path):
    with small_disk(tmp_path / "disk", "20m") as disk:
        code, _, err = run(*ONE, "--variants", "tcn", "--no-report", "--output", str(disk / "out"))
        assert code == 1 and "no room for this run's checkpoints" in err


def test_a_read_only_output_is_named_before_anything_runs(run, tmp_path):
    output = tmp_path / "out"
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))[0] == 0
    with read_only(output):
        code, _, err = run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))
    assert code == 2 and f"the output folder {output} can't be used" in err and "pass another --output" in err


def test_a_read_only_data_folder_works(place, run, tmp_path):
    with read_only(place / "data"):
        code, out, _ = run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(tmp_path / "out"), "--cache",
                           str(tmp_path / "cache"))
    assert code == 0 and "1 run done" in out



def test_a_divergence_stops_the_run_and_keeps_the_evidence(run, tmp_path):
    output = tmp_path / "out"
    code, _, err = run(*ONE, "--variants", "tcn", "untrained-svd", "--no-report", "--output", str(output), "--set",
                       "training.head_rate=1e30", "training.epochs=2")
    assert code == 1 and f"failed: {TCN}: " in err
    folder = run_folders(output)[TCN]
    evidence = json.loads((folder / "diverged.json").read_text())
    steps = list(csv.DictReader(open(folder / "steps.csv")))
    assert evidence["epoch"] == 1 and evidence["step"] >= len(steps) >= 1 and "not finite" in evidence["reason"]
    assert runs(output)[TCN] == ["FAILED"] and json.loads((folder / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_comes_with_advice_and_may_be_tried_again(place, run, tmp_path, monkeypatch, error):
    def step(*arguments):
        raise error

    monkeypatch.setattr(loop, "train_step", step)
    code, _, err = run(*ONE, "--variants", "tcn", "--no-report", "--output", str(tmp_path / "out"))
    assert code == 1 and "out of memory on this machine" in err and "--runs-per-gpu" in err and "data.batch_pairs" in err
    monkeypatch.undo()  # room again: the same command takes the run up
    code, _, _ = run(*ONE, "--variants", "tcn", "--no-report", "--output", str(tmp_path / "out"))
    assert code == 0


def test_a_clock_that_jumps_changes_no_number(place, straight, run, tmp_path, monkeypatch):
    """Each look at the clock is an hour before the last one."""
    moments = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    monkeypatch.setattr(time, "time_ns", lambda: next(moments) * 10**9)
    output = tmp_path / "out"
    code, out, err = run(*ONE, "--variants", "tcn", "--no-report", "--output", str(output), "--set", "training.epochs=3")
    assert code == 0 and "MLflow is not available" not in err
    assert metrics_of(output, TCN) == metrics_of(straight, TCN)
    monkeypatch.undo()
    assert runs(output) == {"": ["FINISHED"], TCN: ["FINISHED"]}


# --- pieces --------------------------------------------------------------------------------------------------

def test_a_folder_of_another_run_is_not_taken_for_its_name(run, tmp_path):
    assert run(*ONE, "--variants", "untrained-svd", "untrained-svd-permodality", "--no-report",
               "--output", str(tmp_path / "out"))[0] == 0
    first, second = sorted((tmp_path / "out" / "runs").iterdir())
    (first / "config.json").write_bytes((second / "config.json").read_bytes())
    with pytest.raises(InputError, match="another run's"):
        RunFolder.read(first)
    assert [f.path for f in SuiteFolder.open(tmp_path / "out").folders()] == [second]


def test_a_mirror_leaves_the_suite_open_while_another_call_works(run, tmp_path):
    output = tmp_path / "out"
    assert run(*ONE, "--variants", "untrained-svd", "--no-report", "--output", str(output))[0] == 0
    opened = Mirror(SuiteFolder.open(output), "a test")
    folder = SuiteFolder.open(output).folders()[0]
    with folder.claim("another call"):
        opened.close("FINISHED")
        assert runs(output)[""] == ["RUNNING"]
    opened.close("FINISHED")
    assert runs(output)[""] == ["FINISHED"]


def test_workers_and_driver_end_with_the_status_of_the_signal(place, tmp_path):
    process = Forked(place, "--variants", "tcn", "--output", str(tmp_path / "out"), "--launcher", "processes", "--threads", "1",
                     epochs=30)
    wait_for(lambda: list((tmp_path / "out").glob("runs/*/epoch-0001.pt")))
    # A shell may have left SIGINT ignored for what it runs in the background.
    number = signal.SIGINT if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else signal.SIGTERM
    status, text = process.end(number)
    assert status == 128 + number and "Traceback" not in text
    assert json.loads((run_folders(tmp_path / "out")[TCN] / "status.json").read_text())["state"] == "interrupted"
    assert runs(tmp_path / "out") == {"": ["KILLED"], TCN: ["KILLED"]}


@pytest.mark.parametrize("launcher", ["local", "processes"])
def test_a_slip_in_the_number_of_threads_is_bad_input(run, tmp_path, launcher):
    code, _, err = run(*ONE, "--variants", "untrained-svd", "--output", str(tmp_path / "out"), "--launcher", launcher,
                       "--threads", "999999")
    assert code == 2 and "999,999 threads" in err and not (tmp_path / "out").exists()
