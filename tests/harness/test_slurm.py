"""Runs as SLURM jobs, by submitit's local executor: the same bits as one process, a queued job that goes on, errors in one line."""
from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest
from support.small_suite import ONE, cells, common

from benchmarks.launch import chosen, slurm
from benchmarks.launch.jobs import Failure
from tcn.config import InputError


def outcome(job: str) -> Failure | None:
    """In place of a run, by its name: fails, dies, or is preempted once."""
    if job == "dies":
        os._exit(3)
    return Failure("loss is not finite", True) if job == "fails" else None


@dataclasses.dataclass
class Named:
    """In place of a Cell."""

    name: str


@dataclasses.dataclass
class Task:
    """In place of a Job."""

    cell: Named


def by_name(task: Task) -> Failure | None:
    return outcome(task.cell.name)


@pytest.mark.parametrize("text, expected", [
    ("", {}), ("partition=a,gpus=2,cpus=8", {"partition": "a", "gpus_per_node": 2, "cpus_per_task": 8}),
    ("mem=32GB, time=90m,mem-per-cpu=4", {"mem": "32GB", "time": 90, "mem_per_cpu": 4})])
def test_what_a_job_asks_for(text, expected):
    assert slurm.wishes(text) == expected


@pytest.mark.parametrize("text, expected", [("5", 5), ("2d", 2880), ("30:00", 30), ("30:01", 31), ("1:00:00", 60), ("0-1", 60),
                                            ("2-03:04", 3064), ("2-03:04:05", 3065)])
def test_time_limits_are_sbatchs(text, expected):
    """man sbatch, --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, ...:seconds."""
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize("text", ["time=soon", "time=0", "gpus", "=3", "time=1-"])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(InputError, match="--slurm"):
        slurm.wishes(text)


def local(monkeypatch) -> None:
    """submitit's local executor in the place of SLURM."""
    pytest.importorskip("submitit", reason="submitit is an optional extra, and not installed here")
    plain = slurm.SlurmLauncher
    monkeypatch.setattr(slurm, "SlurmLauncher", lambda *a, **k: plain(*a, **k, cluster="local"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]),
                                                      os.environ.get("PYTHONPATH", "")]))


def test_outcomes_failures_and_lost_jobs_are_told_apart(tmp_path, monkeypatch):
    local(monkeypatch)
    launcher = slurm.SlurmLauncher("auto", "cpus=1", tmp_path / "logs", workers=3, run=by_name)
    assert (launcher.free(), launcher.device, launcher.share.threads) == (3, "cpu", 1)
    for name in ("well", "fails", "dies"):
        launcher.start(Task(Named(name)))
    assert launcher.free() == 0
    ended, until = {}, time.monotonic() + 120
    while len(ended) < 3 and time.monotonic() < until:
        ended |= {one.job.cell.name: one for one in launcher.poll(1.0)}
    assert (ended["well"].failure, ended["well"].lost) == (None, "")
    assert ended["fails"].failure.reason == "loss is not finite" and ended["fails"].failure.final
    assert "gave no result" in ended["dies"].lost and ended["dies"].failure is None
    assert launcher.free() == 3 and launcher.poll(0.1) == []


def test_a_queued_job_calls_the_same_run_again(monkeypatch):
    local(monkeypatch)
    again = slurm._Resumable(by_name).checkpoint(Task(Named("fails")))
    assert again.result().reason == "loss is not finite"


def test_jobs_give_cells_like_one_process(place, command, monkeypatch, tmp_path):
    local(monkeypatch)
    arguments = (*common(place), *ONE, "--variants", "floor-svd", "nws", "--no-report", "--threads", "1")
    assert command(*arguments, "--output", str(tmp_path / "one"))[0] == 0
    status, out, err = command(*arguments, "--output", str(tmp_path / "jobs"), "--launcher", "slurm", "--slurm", "cpus=1")
    assert status == 0, err
    assert "SLURM by submitit" in out and "2 cells run" in out
    here, there = cells(tmp_path / "one"), cells(tmp_path / "jobs")
    assert here.keys() == there.keys()
    for name in here:
        assert (here[name] / "metrics.csv").read_bytes() == (there[name] / "metrics.csv").read_bytes()
    assert list((tmp_path / "jobs" / "slurm").glob("*.err"))


@pytest.mark.parametrize("arguments, words", [
    (["--slurm", "gpus=1"], "--slurm belongs to --launcher slurm"),
    (["--launcher", "slurm", "--cells-per-gpu", "2"], "takes what a cell gets from --slurm"),
    (["--launcher", "slurm", "--everything", "--budget", "2h"], "leave it out with --launcher slurm"),
    (["--reproduce", "x", "--slurm", "gpus=1"], "leave out --set, --slurm")])
def test_options_that_do_not_go_together_are_named(place, command, tmp_path, arguments, words):
    arguments = [*arguments, *([] if "--everything" in arguments else ["--variants", "floor-svd"])] if "x" not in arguments else arguments
    status, _, err = command(*[a for a in common(place) if a != "--quick"], "--datasets", "quickdraw", "--output", str(tmp_path / "bad"),
                             *arguments) if "x" not in arguments else command(
        "--set", "data.image_size=32", *arguments)
    assert status == 2 and words in err and not (tmp_path / "bad").exists()


def test_without_submitit_or_slurm_the_command_names_the_way_out(place, command, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    status, _, err = command(*common(place), *ONE, "--variants", "floor-svd", "--output", str(tmp_path / "out"), "--launcher", "slurm")
    assert status == 2 and "pip install 'submitit" in err and chosen.launcher is not None
