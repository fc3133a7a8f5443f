"""Several workers: the same bits as one, a killed worker's run goes on, retries end, progress is told in one place."""
from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import signal
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch
from support import warm
from support.seen_by_workers import told
from support.small_suite import ONE, SMALL, common, places, run_folders, run_here

from benchmarks import preflight, prepared, run_all, runner
from benchmarks.launch import chosen, cluster, driver, jobs, local, processes
from benchmarks.launch.board import Board, Progress, seconds_left
from benchmarks.launch.jobs import Ended, Failure, Job, share
from benchmarks.material import Material
from benchmarks.mirror import NoMirror
from benchmarks.records import write_table
from benchmarks.store import RunFolder
from tcn.config import Config, InputError
from tcn.train import checkpoints

VARIANTS = ("--variants", "untrained-svd", "tcn", "--no-report", "--threads", "1")
ONE_EPOCH_MORE = ("--set", "training.epochs=2")


@pytest.fixture(scope="module")
def alone(place) -> Path:
    """The grid by one worker: this process."""
    run_here([*common(place), *ONE, *VARIANTS, *ONE_EPOCH_MORE, "--output", str(place / "alone")])
    return place / "alone"


def assert_same_bits(first: Path, second: Path, count: int) -> None:
    """Metrics, per-query values, features, losses and weights of all runs are equal, digit by digit."""
    here, there = run_folders(first), run_folders(second)
    assert here.keys() == there.keys() and len(here) == count
    for name, folder in here.items():
        twin = there[name]
        assert (folder / "metrics.csv").read_bytes() == (twin / "metrics.csv").read_bytes()
        for file in ("per_query.npz", "features.npz"):
            with np.load(folder / file) as a, np.load(twin / file) as b:
                assert a.files == b.files and all(np.array_equal(a[key], b[key]) for key in a.files)
        if (folder / "checkpoint.pt").exists():
            a, b = (torch.load(f / "checkpoint.pt", weights_only=True)["model"] for f in (folder, twin))
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
            rows = [[{k: v for k, v in row.items() if k not in ("seconds", "pairs_per_second")}
                     for row in csv.DictReader(open(f / file))] for f in (folder, twin) for file in ("history.csv", "steps.csv")]
            assert rows[:2] == rows[2:]


def kill_after_first_epoch(output: Path, ids) -> threading.Thread:
    """A thread that sends SIGKILL to the worker of the trained run once that run has finished an epoch."""
    def watch() -> None:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            for status in output.glob("runs/*__tcn__*/status.json"):
                if json.loads(status.read_text())["epochs_done"] >= 1 and (found := ids()):
                    os.kill(found, signal.SIGKILL)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_two_workers_one_of_them_killed_give_the_bits_of_one(place, alone, warm_workers, monkeypatch, capsys):
    """Two worker processes; the one that trains is killed after an epoch: nothing but that epoch's successor is lost."""
    made = []
    original = processes.Processes.__init__
    monkeypatch.setattr(processes.Processes, "__init__", lambda self, *args: (original(self, *args), made.append(self))[0])
    output = place / "two"
    watcher = kill_after_first_epoch(output, lambda: next((i for n, i in made[0].process_ids().items() if "__tcn__" in n), None))
    status = run_all.main([*common(place), *ONE, *VARIANTS, *ONE_EPOCH_MORE, "--output", str(output), "--launcher", "processes",
                           "--workers", "2"])
    watcher.join(5)
    out = capsys.readouterr().out
    assert status == 0 and "2 worker processes; 1 CPU thread a run" in out and "2 runs done" in out
    assert "again (1 of 3): tcn seed 3 on quickdraw 1: the worker process was killed by SIGKILL" in out
    assert_same_bits(alone, output, 2)
    record = json.loads((run_folders(output)["quickdraw-1__tcn__seed3"] / "provenance.json").read_text())
    assert record["resumed_from_epoch"] >= 1 and record["threads"] == 1
    own, twin = (json.loads((run_folders(o)["quickdraw-1__untrained-svd__seed3"] / "provenance.json").read_text())["command"]
                 for o in (output, alone))
    assert own == twin
    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tcn-paper-smoke").experiment_id])
    assert len(runs) == 3 and all(run.info.status == "FINISHED" for run in runs)
    run = next(run for run in runs if run.data.tags.get("variant") == "tcn")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "epoch/total")] == [1, 2]
    assert "unseen/real/released/mAP_at_all" in run.data.metrics


@pytest.mark.slow
def test_two_ray_workers_one_of_them_killed_give_the_bits_of_one(place, alone, capsys):
    pytest.importorskip("ray")
    import psutil

    def trainer() -> int | None:
        """The Ray worker with most CPU time: the one that trains."""
        workers = [p for p in psutil.Process().children(recursive=True) if "ray::" in " ".join(p.cmdline())
                   and "work" in " ".join(p.cmdline())]
        return max(workers, key=lambda p: sum(p.cpu_times()[:2])).pid if workers else None

    output = place / "ray"
    watcher = kill_after_first_epoch(output, trainer)
    status = run_all.main([*common(place), *ONE, *VARIANTS, *ONE_EPOCH_MORE, "--output", str(output), "--launcher", "ray",
                           "--workers", "2"])
    watcher.join(5)
    out = capsys.readouterr().out
    assert status == 0 and "again (1 of 3)" in out and "the Ray worker was lost" in out
    assert_same_bits(alone, output, 2)
    assert json.loads((run_folders(output)["quickdraw-1__tcn__seed3"] / "provenance.json").read_text())["resumed_from_epoch"] >= 1


# --- the driver, with a launcher that ends jobs as it is told -------------------------------------------------

class Scripted:
    """A launcher without workers: each start of a run ends as the next item of its script says."""

    about, share, device = "a script", share(1, 0), "cpu"

    def __init__(self, **scripts) -> None:
        self.scripts, self.running, self.started, self.closed, self.stopped = scripts, [], [], False, False

    def free(self) -> int:
        return 1 - len(self.running)

    def start(self, job: Job) -> None:
        self.started.append(job.run.variant)
        self.running.append(job)

    def poll(self, seconds: float) -> list[Ended]:
        job = self.running.pop()
        end = self.scripts[job.run.variant.replace("-", "_")].pop(0)
        if end == "interrupt":
            self.running.append(job)
            job.folder.set_state("running", epochs_done=1)
            raise KeyboardInterrupt
        if end is None:
            job.folder.set_state("finished")
        return [Ended(job, end if isinstance(end, Failure) else None, end if isinstance(end, str) else "")]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


class Remembered:
    """Stands for the mirror: which runs were brought up to date, and in what state."""

    def __init__(self) -> None:
        self.settled = []

    def settle(self, folder) -> None:
        assert folder.holder() is None  # the mirror claims the run for itself
        self.settled.append((folder.run.variant, folder.state))


@pytest.fixture
def folders(place, tmp_path):
    """Run folders of four variants in an empty output, and the material they are run with."""
    options = run_all.parser().parse_args([*common(place), *ONE])
    from benchmarks import experiments

    planned = experiments.plan(experiments.PROFILES["paper"], ["quickdraw"], ["untrained-svd", "tcn", "hws", "nws"], [3],
                               prepared.overrides_of(options.overrides), True)
    material = Material(replace(prepared.places_of(options, options.data_root, preflight.Checks()), progress=False))
    return [RunFolder(tmp_path, one_run, f"{i:064x}") for i, one_run in enumerate(planned)], material


def drive(folders, launcher, in_order: bool = False) -> tuple[dict[str, str], Remembered, str, tuple[int, int]]:
    failures, mirror, out = {}, Remembered(), io.StringIO()
    counts = driver.execute_all(folders[0], folders[1], mirror, launcher, failures, out, in_order)
    return failures, mirror, out.getvalue(), counts


def test_lost_runs_are_retried_three_times_and_final_failures_never(folders):
    lost, passing, final = "the worker vanished", Failure("OSError: disk", False), Failure("loss is not finite", True)
    script = Scripted(untrained_svd=[None], tcn=[lost, passing, None], hws=[final], nws=[lost] * 4)
    failures, mirror, out, counts = drive(folders, script)
    assert script.started == ["tcn"] * 3 + ["hws"] + ["nws"] * 4 + ["untrained-svd"] and script.closed
    assert counts == (2, 0)
    assert failures == {"quickdraw-1__hws__seed3": "loss is not finite",
                        "quickdraw-1__nws__seed3": "the worker vanished; given up after 3 retries"}
    states = {f.run.variant: (f.state, json.loads((f.path / "status.json").read_text())["reason"]) for f in folders[0]}
    assert states["hws"] == ("failed", "loss is not finite") and states["nws"] == ("failed", failures["quickdraw-1__nws__seed3"])
    assert states["tcn"][0] == states["untrained-svd"][0] == "finished"
    assert sorted(mirror.settled) == [("hws", "failed"), ("nws", "failed"), ("tcn", "finished"), ("untrained-svd", "finished")]
    assert "again (3 of 3): nws" in out and "again (4" not in out


def test_a_plan_with_an_order_keeps_it(folders):
    script = Scripted(untrained_svd=[None], tcn=[None], hws=[None], nws=[None])
    drive(folders, script, in_order=True)
    assert script.started == ["untrained-svd", "tcn", "hws", "nws"]


def test_finished_runs_are_skipped_and_mirrored(folders):
    for folder in folders[0][:3]:
        folder.set_state("finished")
    failures, mirror, _, counts = drive(folders, Scripted(nws=[None]))
    assert counts == (1, 3) and not failures and len(mirror.settled) == 4


def test_ctrl_c_stops_the_workers_and_marks_their_runs(folders):
    script = Scripted(tcn=["interrupt"])
    mirror = Remembered()
    with pytest.raises(KeyboardInterrupt):
        driver.execute_all(*folders, mirror, script, {}, io.StringIO())
    tcn = next(f for f in folders[0] if f.run.variant == "tcn")
    assert script.stopped and script.closed and tcn.state == "interrupted" and tcn.epochs_done == 1
    assert mirror.settled == [("tcn", "interrupted")]
    assert {f.state for f in folders[0] if f is not tcn} == {"new"}


def test_a_worker_that_sees_other_data_says_so(folders):
    folder = folders[0][1]
    job = Job(folder.run, folder.path.parent.parent, folder.identity, folders[1].places, "cpu", torch.get_num_threads(), "x")
    failure = jobs.work(job)
    assert failure.final and "other data" in failure.reason and "00000000" in failure.reason and folder.state == "new"
    failure = jobs.work(replace(job, places=replace(job.places, data_root=Path("/none/at/all"))))
    assert failure.final and "/none/at/all" in failure.reason


def test_ctrl_c_while_a_checkpoint_is_written_is_no_failure(place, tmp_path, monkeypatch):
    """torch closes the half-written file and raises an error of its own then."""
    def half_written(value, path):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoints, "save", half_written)
    status = run_all.main([*common(place), *ONE, "--variants", "tcn", "--no-report", "--output", str(tmp_path / "out")])
    assert status == 130
    assert (json.loads((run_folders(tmp_path / "out")["quickdraw-1__tcn__seed3"] / "status.json").read_text())["state"]
            == "interrupted")


def test_a_run_held_by_another_process_is_left_alone(folders, monkeypatch):
    folder, material = folders[0][0], folders[1]
    with folder.claim("a test"):
        assert f"process {os.getpid()} on " in folder.holder() and "(a test)" in folder.holder()
        failure = runner.attempt(folder.run, folder, material, NoMirror(), torch.device("cpu"), "", "x")
    assert not failure.final and failure.holder and "is running this run" in failure.reason and folder.state == "new"
    assert folder.holder() is None  # let go, it is free again


def test_what_a_dead_process_left_half_written_goes_with_the_next_claim(folders):
    folder = folders[0][0]
    left = [folder.path / "metrics.csv.77.partial", folder.path / "examples" / "q0-1.png.77.partial"]
    kept = [folder.path / "metrics.csv", folder.path / "examples" / "q0-1.png"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with folder.claim("a test"):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


# --- resources and progress ----------------------------------------------------------------------------------

@pytest.mark.parametrize("there, asked, expected", [
    ((2, 0), {}, (2, 1, 1)), ((2, 0), {"workers": 1}, (1, 2, 1)), ((16, 0), {"cpus_per_run": 4}, (4, 4, 1)),
    ((16, 0), {"threads": 8}, (2, 8, 1)), ((16, 0), {"workers": 3}, (3, 5, 1)), ((64, 8), {}, (8, 8, 1)),
    ((64, 8), {"gpus_per_run": 4}, (2, 8, 1)), ((16, 0), {"gpus_per_run": 2, "threads": 2}, (4, 2, 1)),
    ((16, 0), {"gpus_per_run": 2, "cpus_per_run": 8}, (2, 4, 1)), ((64, 8), {"runs_per_gpu": 4}, (32, 2, 4)),
    ((4, 8), {}, (8, 1, 1)), ((64, 2), {"workers": 1, "threads": 3}, (1, 3, 1))])
def test_share_of_a_machine(there, asked, expected):
    found = share(*there, **asked)
    assert (found.workers, found.threads, found.runs_per_gpu) == expected


def test_several_runs_on_a_gpu_need_one():
    with pytest.raises(InputError, match="--runs-per-gpu"):
        share(8, 0, runs_per_gpu=2)


def test_time_left_by_hand(folders):
    """Three runs, two at once: 3 epochs of 10 s, 4 of 20 s, and one without epochs of its own at the median, 4 of 15 s."""
    one, two, three = (replace(f.run, config=replace(f.run.config, training=replace(f.run.config.training, epochs=4)))
                       for f in folders[0][1:])
    untrained_row = folders[0][0].run
    unfinished = [(one, Progress(1, 4, 5.0, 10.0)), (two, Progress(0, 4, 5.0, 20.0)), (three, Progress(0, 4)),
                  (untrained_row, Progress(0, 0))]
    known = {"quickdraw": [10.0, 20.0]}
    assert seconds_left(unfinished, 2, known) == (30 + 80 + 60) / 2
    assert seconds_left(unfinished, 100, known) == 80, "the longest run bounds it"
    assert seconds_left(unfinished, 2, {}) is None
    assert seconds_left([(untrained_row, Progress(0, 0))], 1, {}) == 0


def test_the_board_tells_every_run_in_lines_or_repaints_a_terminal(folders):
    untrained_row, tcn, hws, _ = folders[0]
    write_table(tcn.path / "history.csv", [{"epoch": 0}, {"epoch": 1, "seconds": 2.0, "pairs_per_second": 80.0}],
                ("epoch", "seconds", "pairs_per_second"))
    clock = [0.0]
    out = io.StringIO()
    board = Board(6, 2, 1, out, lambda: clock[0])
    board.show([untrained_row], [])
    assert out.getvalue() == "", "elsewhere than on a terminal, a block every half minute"
    clock[0] = 31.0
    board.show([untrained_row, tcn], [hws])
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("6 runs: 2 done, 2 running, 1 to do, 1 failed; about 0 min 0")
    assert lines[1:] == ["  untrained-svd seed 3 on quickdraw 1: scoring",
                         "  tcn seed 3 on quickdraw 1: trained, epoch 1/1; scoring"]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    board = Board(6, 2, 1, screen, lambda: clock[0])
    board.show([hws], [])
    board.say("finished: x")
    text = screen.getvalue()
    assert "hws seed 3 on quickdraw 1: epoch 1/1" in text and text.endswith("\x1b[2A\x1b[Jfinished: x\n")


@pytest.mark.parametrize("arguments, words", [
    (["--workers", "2"], "--workers belongs to --launcher"), (["--ray-address", "h:1"], "--launcher ray"),
    (["--launcher", "processes", "--runs-per-gpu", "2"], "--runs-per-gpu needs"), (["--calibrate"], "--dry-run"),
    (["--reproduce", "x", "--workers", "2"], "set, --workers"),
    (["--reproduce", "x", "--launcher", "ray"], "set, --launcher")])
def test_options_that_do_not_go_together_are_named(place, capsys, arguments, words):
    status = run_all.main([*places(place), *SMALL, *ONE, "--variants", "untrained-svd", "--output",
                           str(place / "bad"), *arguments])
    err = capsys.readouterr().err
    assert status == 2 and words in err and not (place / "bad").exists()


def test_without_ray_the_command_names_the_way_out(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    status = run_all.main([*common(place), *ONE, "--variants", "untrained-svd", "--output", str(tmp_path / "out"),
                           "--launcher", "ray"])
    err = capsys.readouterr().err
    assert status == 2 and "pip install" in err and "--launcher processes" in err


# --- a device that answers no more (CUDA refuses every call after an illegal access) ---------------------------

GPU = torch.device("cuda")
DEAD = "CUDA error: an illegal memory access was encountered"


def _raise(*_) -> None:
    raise RuntimeError(DEAD)


@pytest.mark.parametrize("broken", ("synchronize", "empty_cache"))
def test_a_device_that_answers_no_more_is_asked_for_and_its_error_stands_in_place_of_none(broken, monkeypatch):
    asked = []
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, _raise if name == broken else lambda *_, name=name: asked.append(name))
    failure = runner.settled(Failure("loss is not finite", True), GPU)
    assert failure.device_lost and not failure.final, "another process may well end it"
    assert failure.reason.startswith("loss is not finite; cuda answers this process no more") and DEAD not in failure.reason
    monkeypatch.setattr(torch.cuda, broken, lambda *_: asked.append(broken))
    asked.clear()
    assert runner.settled(Failure("loss is not finite", True), GPU) == Failure("loss is not finite", True)
    assert asked == ["synchronize", "empty_cache"]
    assert runner.settled(Failure("x", False), torch.device("cpu")) == Failure("x", False) and len(asked) == 2


def test_what_a_failed_run_held_is_let_go_before_memory_is_given_back(folders, monkeypatch):
    """The traceback holds the model until the error is gone: memory given back before that is not the model's."""
    class Model:
        pass

    held, seen = [], []

    def train(self, view):
        model = Model()
        held.append(weakref.ref(model))
        raise RuntimeError("out of luck")

    monkeypatch.setattr(runner._Attempt, "_train_and_score", train)
    monkeypatch.setattr(runner._Attempt, "_record", lambda *_: {})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(held[0]()))
    folder = folders[0][1]
    failure = runner.attempt(folder.run, folder, folders[1], NoMirror(), GPU, "", "x")
    assert failure == Failure("RuntimeError: out of luck", False) and seen == [None]
    assert folder.state == "failed" and "out of luck" in (folder.path / "error.txt").read_text()


def test_a_device_without_a_name_hides_no_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", _raise)
    assert runner._reason(torch.OutOfMemoryError("no room"), GPU, Config()).startswith("out of memory on this machine; do fewer")


def test_one_process_stops_where_its_device_answers_no_more(folders, monkeypatch, capsys):
    tried = []

    def attempt(one_run, folder, *_):
        tried.append(one_run.variant)
        if one_run.variant == "tcn":
            return Failure(DEAD, False, device_lost=True)
        folder.set_state("finished")
        return None

    monkeypatch.setattr(local, "attempt", attempt)
    failures: dict[str, str] = {}
    assert local.run_in_turn(folders[0], folders[1], Remembered(), GPU, failures) == (1, 0)
    assert tried == ["untrained-svd", "tcn"]
    assert failures["quickdraw-1__tcn__seed3"] == DEAD
    assert "Give the same command again" in failures["cuda"] and "--launcher processes" in failures["cuda"]


def test_a_worker_whose_device_answers_no_more_ends_and_the_next_job_gets_a_new_one(warm_workers):
    from benchmarks.speed import gpu_processes

    found = gpu_processes.broken(gpu_processes.Scale(True))
    assert found["ok"] and found["status"] == processes.LOST_DEVICE and "out of bounds" in found["reason"]


def test_a_worker_sees_its_own_gpu_alone(folders, tmp_path, monkeypatch):
    """The second of the devices that the driver may use; `visible` shows by example what holds where all may be used."""
    monkeypatch.setenv(processes.VISIBLE, "5,GPU-8a")
    launcher = processes.Processes(["cuda:1"], share(1, 1), tmp_path / "logs", told)
    found = []
    try:
        folder = folders[0][0]
        launcher.start(Job(folder.run, tmp_path, folder.identity, folders[1].places, "cuda:0", 1, "x"))
        until = time.monotonic() + 600
        while not found and time.monotonic() < until:
            found = [ended.failure.reason for ended in launcher.poll(1.0)]
    finally:
        launcher.close()
    assert found == ["GPU-8a cuda:0 False"] and os.environ[processes.VISIBLE] == "5,GPU-8a"


def test_runs_of_a_lost_device_are_taken_up_again(folders):
    lost = Failure(DEAD, False, device_lost=True)
    script = Scripted(untrained_svd=[None], tcn=[lost, lost, None], hws=[None], nws=[None])
    failures, _, out, counts = drive(folders, script)
    assert counts == (4, 0) and not failures and f"again (2 of 3): tcn seed 3 on quickdraw 1: {DEAD}" in out


@pytest.mark.parametrize("gpus, asked, calls, each", [(2, "auto", 1, 1), (2, "cpu", 0, 1), (0, "auto", 0, 1), (4, "cuda", 1, 2)])
def test_ray_takes_one_process_a_task_where_gpus_are_asked_for(gpus, asked, calls, each, monkeypatch):
    """A process keeps the GPU of its first task while Ray hands out another (Ray's `max_calls`)."""
    taken: dict = {}
    resources = {"CPU": 8.0, "GPU": float(gpus)}
    ray = SimpleNamespace(init=lambda **_: None, cluster_resources=lambda: resources, shutdown=lambda: None, __version__="0",
                          nodes=lambda: [{"Alive": True, "Resources": resources}],
                          remote=lambda **options: taken.update(options) or (lambda run: run))
    monkeypatch.setattr(cluster, "_import", lambda local: ray)
    launcher = cluster.RayLauncher(asked, None, gpus_per_run=each)
    assert taken["max_calls"] == calls and taken["num_gpus"] == (each if calls else 0)
    assert taken["num_cpus"] == launcher.share.threads * each


# --- several devices for a run ---------------------------------------------------------------------------------

def test_a_run_on_several_devices(place, alone, warm_workers, tmp_path, capsys):
    """Two processes, begun by this one and by a worker: the same bits from both, and what one process gives but for rounding."""
    arguments = [*common(place), *ONE, *VARIANTS, *ONE_EPOCH_MORE, "--gpus-per-run", "2"]
    run_here([*arguments, "--output", str(tmp_path / "here")], threads=1)
    run_here([*arguments, "--output", str(tmp_path / "worker"), "--launcher", "processes", "--workers", "1"], threads=1)
    assert "1 worker process; 1 CPU thread a process, 2 processes a run" in capsys.readouterr().out
    assert_same_bits(tmp_path / "here", tmp_path / "worker", 2)
    folders = run_folders(tmp_path / "here")
    records = {name: json.loads((folder / "provenance.json").read_text()) for name, folder in folders.items()}
    assert {name: record.get("gpus_per_run") for name, record in records.items()} == {
        "quickdraw-1__tcn__seed3": 2, "quickdraw-1__untrained-svd__seed3": None}
    one, two = (list(csv.DictReader(open(run_folders(output)["quickdraw-1__tcn__seed3"] / "steps.csv")))
                for output in (alone, tmp_path / "here"))
    assert ({f.name for f in run_folders(alone).values()}
            == {f.name for f in folders.values()}), "the number of processes is no setting"
    assert (len(one) == len(two)
            and [float(v) for v in two[0].values()] == pytest.approx([float(v) for v in one[0].values()], rel=1e-4))


@pytest.mark.parametrize("arguments, words", [
    (["--variants", "ledger-batch-norm-split", "--gpus-per-run", "3"], "must be 1 .* or 3"),
    (["--launcher", "processes", "--runs-per-gpu", "2", "--gpus-per-run", "2"], "do not go together"),
    (["--set", "data.batch_pairs=3", "--gpus-per-run", "2"], "fewer than 2 pairs"),
    (["--sync", "--gpus-per-run", "2"], "leave out .*--gpus-per-run")])
def test_what_several_devices_cannot_do_is_said_before_a_run(place, capsys, tmp_path, arguments, words):
    status = run_all.main([*places(place), *SMALL, *ONE, "--output", str(tmp_path / "bad"), *arguments])
    assert status == 2 and re.search(words, capsys.readouterr().err) and not (tmp_path / "bad").exists()


def test_warm_workers_have_imported_everything_before_they_are_asked(warm_workers):
    """Else they are right and slow, and nobody sees it. `told` lies in a module of its own for workers that are not."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert {"torch", "timm", "benchmarks.runner"} <= pool.apply(warm.imported)


def test_a_worker_sees_all_gpus_of_its_run(monkeypatch, tmp_path):
    monkeypatch.delenv(processes.VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    options = run_all.parser().parse_args(["--launcher", "processes", "--gpus-per-run", "2"])
    for device in (torch.device("cuda"), torch.device("cuda:0")):
        launcher = chosen.launcher(options, device, tmp_path)
        assert [slot.device for slot in launcher._slots] == ["cuda:0,cuda:1", "cuda:2,cuda:3"]
        assert launcher.share.gpus_per_run == 2 and launcher.about == "2 worker processes on 4 GPUs"
        assert chosen.measured_at_once(options, device) == 2
