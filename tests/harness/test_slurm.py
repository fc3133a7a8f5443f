"""Runs as SLURM jobs, by submitit's local executor: the same bits as one process, a queued job that goes on,
errors in one line."""
from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from support.small_suite import ONE, common, run_folders, run_here

from benchmarks import resources
from benchmarks.launch import slurm
from benchmarks.launch.jobs import Failure
from tcn.config import InputError


def outcome(job: str) -> Failure | None:
    """In place of a run, by its name: fails or dies."""
    if job == "dies":
        os._exit(3)
    return Failure("loss is not finite", True)


@dataclasses.dataclass
class Named:
    """In place of a FinishedRun."""

    name: str


@dataclasses.dataclass
class Task:
    """In place of a Job."""

    run: Named


def by_name(task: Task) -> Failure | None:
    return outcome(task.run.name)


@pytest.mark.parametrize("text, expected", [
    ("", {}), ("partition=a,gpus=2,cpus=8", {"partition": "a", "gpus_per_node": 2, "cpus_per_task": 8}),
    ("mem=32GB, time=90m,mem-per-cpu=4", {"mem": "32GB", "time": 90, "mem_per_cpu": 4})])
def test_what_a_job_asks_for(text, expected):
    assert resources.wishes(text) == expected


@pytest.mark.parametrize("text, expected", [("5", 5), ("2d", 2880), ("30:00", 30), ("30:01", 31), ("1:00:00", 60), ("0-1", 60),
                                            ("2-03:04", 3064), ("2-03:04:05", 3065)])
def test_time_limits_are_sbatchs(text, expected):
    """man sbatch, --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, ...:seconds."""
    assert resources.minutes(text) == expected


@pytest.mark.parametrize("text", ["time=soon", "time=0", "gpus", "=3", "time=1-"])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(InputError, match="--slurm"):
        resources.wishes(text)


SIX_EPOCHS = (*ONE, "--no-report", "--threads", "1", "--set", "training.epochs=6")


@pytest.fixture(scope="module")
def alone(place) -> Path:
    """Runs of one process, to compare with."""
    run_here([*common(place), *SIX_EPOCHS, "--variants", "untrained-svd", "nws", "--output", str(place / "alone")])
    return place / "alone"


def local(monkeypatch) -> None:
    """submitit's local executor in the place of SLURM."""
    submitit = pytest.importorskip("submitit", reason="submitit is an optional extra, and not installed here")
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 1)  # how long a dead job's result may still come, over a slow network
    plain = slurm.SlurmLauncher
    monkeypatch.setattr(slurm, "SlurmLauncher", lambda *a, **k: plain(*a, **k, cluster="local"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]),
                                                      os.environ.get("PYTHONPATH", "")]))


def test_failures_and_lost_jobs_are_told_apart(tmp_path, monkeypatch):
    """Jobs that end well are in the tests below; each job here is a new interpreter."""
    local(monkeypatch)
    launcher = slurm.SlurmLauncher("auto", "cpus=1", tmp_path / "logs", workers=2, run=by_name)
    assert (launcher.free(), launcher.device, launcher.share.threads) == (2, "cpu", 1)
    for name in ("fails", "dies"):
        launcher.start(Task(Named(name)))
    assert launcher.free() == 0
    ended, until = {}, time.monotonic() + 600
    while len(ended) < 2 and time.monotonic() < until:
        ended |= {one.job.run.name: one for one in launcher.poll(1.0)}
    assert ended["fails"].failure.reason == "loss is not finite" and ended["fails"].failure.final
    assert "gave no result" in ended["dies"].lost and ended["dies"].failure is None
    assert launcher.free() == 2 and launcher.poll(0.1) == []


def test_a_queued_job_calls_the_same_run_again(monkeypatch):
    local(monkeypatch)
    again = slurm._Resumable(by_name).checkpoint(Task(Named("fails")))
    assert again.result().reason == "loss is not finite"


@pytest.mark.slow  # the preempted job's test compares the same digits
def test_jobs_give_runs_like_one_process(place, alone, command, monkeypatch, tmp_path):
    local(monkeypatch)
    arguments = (*common(place), *SIX_EPOCHS, "--variants", "untrained-svd", "nws")
    status, out, err = command(*arguments, "--output", str(tmp_path / "jobs"), "--launcher", "slurm", "--slurm", "cpus=1")
    assert status == 0, err
    assert "SLURM by submitit" in out and "2 runs done" in out
    here, there = run_folders(alone), run_folders(tmp_path / "jobs")
    assert here.keys() == there.keys()
    for name in here:
        assert (here[name] / "metrics.csv").read_bytes() == (there[name] / "metrics.csv").read_bytes()
    assert list((tmp_path / "jobs" / "slurm").glob("*.err"))


@pytest.mark.parametrize("arguments, words", [
    (["--slurm", "gpus=1"], "--slurm belongs to --launcher slurm"),
    (["--launcher", "slurm", "--runs-per-gpu", "2"], "takes what a run gets from --slurm"),
    (["--launcher", "slurm", "--everything", "--budget", "2h"], "leave it out with --launcher slurm"),
    (["--reproduce", "x", "--slurm", "gpus=1"], "leave out --slurm")])
def test_options_that_do_not_go_together_are_named(place, command, tmp_path, arguments, words):
    places = () if "--reproduce" in arguments else (*common(place), "--datasets", "quickdraw", "--output", str(tmp_path / "bad"))
    status, _, err = command(*places, *arguments)
    assert status == 2 and words in err and not (tmp_path / "bad").exists()


def test_without_submitit_or_slurm_the_command_names_the_way_out(place, command, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    status, _, err = command(*common(place), *ONE, "--variants", "untrained-svd", "--output", str(tmp_path / "out"),
                             "--launcher", "slurm")
    assert status == 2 and "pip install 'submitit" in err


SBATCH = """#!/bin/sh
left=$(cat {here}/refuse 2>/dev/null || echo 0)
if [ $left -gt 0 ]; then echo $(( left - 1 )) > {here}/refuse; echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi
number=$(( $(cat {here}/count 2>/dev/null || echo 0) + 1 )); echo $number > {here}/count
cp "$1" {here}/$number.sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
for task in $(seq 0 ${{last:-0}}); do
  if [ -n "$last" ]; then export SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$(( last + 1 )); fi
  SLURM_JOB_ID=$(( number + task )) setsid sh {here}/$number.sh </dev/null >/dev/null 2>&1 &
done
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/sh
while :; do
  case "$1" in
    --unbuffered) shift;; --cpus-per-task=*) echo "$1" >> {here}/cpus; shift;; --output|--error) shift 2;; *) break;;
  esac
done
echo $$ > {here}/$SLURM_JOB_ID.pid
exec "$@"
"""
SCONTROL = """#!/bin/sh
[ "$1" = requeue ] || exit 1
echo $2 >> {here}/requeued
pid=$(cat {here}/$2.pid)
( while kill -0 $pid; do sleep 0.1; done; SLURM_RESTART_COUNT=1 SLURM_JOB_ID=$2 sh {here}/$2.sh ) </dev/null >/dev/null 2>&1 &
"""
SACCT = "#!/bin/sh\nexit 0\n"


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """A SLURM of shell scripts: sbatch starts a job at once, scontrol requeue does so again when the job has ended."""
    pytest.importorskip("submitit", reason="submitit is an optional extra, and not installed here")
    here = tmp_path / "queue"
    here.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL), ("sacct", SACCT), ("scancel", SACCT)):
        (here / name).write_text(text.format(here=here))
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SBATCH_AGAIN", 0.01)
    return here


def test_a_job_that_is_preempted_is_queued_again_and_gives_the_same_digits(place, alone, command, queue, tmp_path):
    """SIGUSR2 is what SLURM sends before a preemption, and before the time limit."""
    arguments = (*common(place), *SIX_EPOCHS, "--variants", "nws")
    output, sent = tmp_path / "jobs", []

    def preempt() -> None:
        until = time.monotonic() + 600
        while time.monotonic() < until and not sent:
            for status in output.glob("runs/*/status.json"):
                if 1 <= json.loads(status.read_text())["epochs_done"] < 6:
                    os.kill(int((queue / "1.pid").read_text()), signal.SIGUSR2)
                    sent.append(status)
                    return
            time.sleep(0.005)

    watcher = threading.Thread(target=preempt, daemon=True)
    watcher.start()
    status, out, err = command(*arguments, "--output", str(output), "--launcher", "slurm", "--slurm", "partition=long,time=1-12")
    watcher.join(5)
    assert status == 0, err + out
    assert sent and (queue / "requeued").read_text().split() == ["1"] and (queue / "count").read_text().strip() == "1"
    text = (queue / "1.sh").read_text()
    assert all(f"#SBATCH --{line}\n" in text for line in ("partition=long", "time=2160", "cpus-per-task=1",
                                                          "job-name=quickdraw-1__nws__seed3"))
    here, there = run_folders(alone), run_folders(output)
    [name] = there
    assert json.loads((there[name] / "provenance.json").read_text())["resumed_from_epoch"] >= 1
    assert not (there[name] / "error.txt").exists(), "a preemption is no failure"
    assert (here[name] / "metrics.csv").read_bytes() == (there[name] / "metrics.csv").read_bytes()


def test_runs_that_start_together_are_one_array(place, alone, command, queue, tmp_path):
    """One call of sbatch for both, which is not taken the first time; each task gives the files of its own run."""
    arguments = (*common(place), *SIX_EPOCHS, "--variants", "untrained-svd", "nws")
    (queue / "refuse").write_text("1")
    status, out, err = command(*arguments, "--output", str(tmp_path / "jobs"), "--launcher", "slurm", "--slurm", "time=60",
                               "--workers", "5")
    assert status == 0 and "2 runs done" in out, err + out
    assert out.count("again (1 of 3)") == 2 and "sbatch took no job" in out and "QOSMaxSubmit" in out
    assert set((queue / "cpus").read_text().split()) == {"--cpus-per-task=1"}, "not all versions of srun know what the job has"
    assert (queue / "count").read_text().strip() == "1"
    text = (queue / "1.sh").read_text()
    assert "#SBATCH --array=0-1%2\n" in text and "#SBATCH --job-name=tcn-runs\n" in text
    here, there = run_folders(alone), run_folders(tmp_path / "jobs")
    assert here.keys() == there.keys() and len(here) == 2
    for name in here:
        assert (here[name] / "metrics.csv").read_bytes() == (there[name] / "metrics.csv").read_bytes()
    assert {path.name for path in (tmp_path / "jobs" / "slurm").glob("*_result.pkl")} == {"1_0_0_result.pkl", "1_1_0_result.pkl"}


def test_a_queue_that_takes_no_job_fails_the_runs_in_its_own_words(place, command, queue, tmp_path):
    """With a precision that this machine's processor does not have: the jobs' GPUs may."""
    (queue / "refuse").write_text("99")
    status, out, err = command(*common(place), *ONE, "--variants", "nws", "hws", "--no-report", "--threads", "1",
                               "--launcher", "slurm", "--slurm", "gpus=1,time=60", "--set", "execution.precision=tf32",
                               "--output", str(tmp_path / "jobs"))
    assert status == 1 and "0 runs done, 0 already finished, 2 failed" in out, err + out
    assert err.count("QOSMaxSubmitJobPerUserLimit); given up after 3 retries") == 2
    assert (queue / "refuse").read_text().strip() == "95", "both runs in one call, four times"


def test_several_gpus_of_a_run_are_those_of_its_job(queue, tmp_path):
    for wishes in ("gpus=1,cpus=8,time=60", "cpus=8,time=60"):
        with pytest.raises(InputError, match="write gpus=2 in --slurm"):
            slurm.SlurmLauncher("auto", wishes, tmp_path / "logs", gpus_per_run=2)
    assert slurm.SlurmLauncher("cpu", "cpus=8,time=60", tmp_path / "logs", gpus_per_run=2).device == "cpu"
    launcher = slurm.SlurmLauncher("auto", "gpus=2,cpus=8,time=60", tmp_path / "logs", gpus_per_run=2)
    assert launcher.share.threads == 4 and launcher.share.gpus_per_run == 2 and launcher.device == "cuda"


def test_a_job_that_cannot_be_asked_for_is_an_error(queue, tmp_path):
    with pytest.raises(InputError, match="can't be used so: .*partitio"):
        slurm.SlurmLauncher("auto", "partitio=long,time=60", tmp_path / "logs")
    with pytest.raises(InputError, match="add time=24h to --slurm"):
        slurm.SlurmLauncher("auto", "partition=long,gpus=1", tmp_path / "logs")
    with pytest.raises(InputError, match="add gpus=1 to --slurm"):
        slurm.SlurmLauncher("cuda", "partition=long,time=60", tmp_path / "logs")
    assert slurm.SlurmLauncher("auto", "partition=long,gpus=1,time=60", tmp_path / "logs").device == "cuda"
