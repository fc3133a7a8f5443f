"""SLURM's jobs, one for each run, through submitit (the only submitit import).

In: what a job asks for. Out: a `Launcher`. A job that is preempted, or comes to its time limit, is queued again and goes on from its
last epoch. All machines must see the output folder, the data and the project at the same paths.
"""
from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.launch.jobs import Ended, Job, Share, work
from benchmarks.threads import check_threads
from tcn.config import InputError

SHORT = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}
"""Our name of what a job asks for -> submitit's; all others are sbatch's own with underscores: partition, account, mem, qos."""
MOST_JOBS = 64
"""Jobs in the queue at once, where `--workers` does not say."""
REQUEUES = 100
"""Times that a job may come to its time limit; each goes on from the last epoch of the one before."""


def wishes(text: str) -> dict[str, Any]:
    """What `--slurm` asks for. InputError for what can't be read.

    >>> wishes("partition=long,gpus=1,time=1-12:00:00")
    {'partition': 'long', 'gpus_per_node': 1, 'time': 2160}
    """
    found: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value):
            raise InputError(f"--slurm takes KEY=VALUE,KEY=VALUE; got '{pair}'")
        name = SHORT.get(key, key.replace("-", "_"))
        found[name] = minutes(value) if key == "time" else int(value) if value.isdecimal() else value
    return found


def minutes(text: str) -> int:
    """A time limit in minutes, as sbatch takes it (minutes, H:M:S, D-H, D-H:M:S), or 90m, 24h, 2d. InputError for another text.

    >>> minutes("90"), minutes("2:30:00"), minutes("1-6"), minutes("24h")
    (90, 150, 1800, 1440)
    """
    if match := re.fullmatch(r"(\d+)([mhd]?)", text, re.ASCII):
        total = int(match[1]) * {"": 1, "m": 1, "h": 60, "d": 1440}[match[2]]
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+)(?::(\d+))?)?", text, re.ASCII):
        days, *parts = (int(part or 0) for part in match.groups())
        # Without days, two numbers are minutes and seconds.
        if match[1] is None and match[4] is None:
            parts = [0, *parts[:2]]
        total = days * 1440 + parts[0] * 60 + parts[1] + (parts[2] > 0)
    else:
        total = 0
    if not total:
        raise InputError(f"--slurm time={text} is no time limit; give minutes, H:M:S or D-H:M:S")
    return total


class _Resumable:
    """What a job calls; submitit asks `checkpoint` what to call when the job is queued again."""

    def __init__(self, run: Callable[[Job], Any]) -> None:
        self.run = run

    def __call__(self, job: Job) -> Any:
        return self.run(job)

    def checkpoint(self, job: Job) -> Any:
        """The same: a run goes on by the files in its folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


class SlurmLauncher:
    """Launcher of SLURM jobs, each with one run; logs in `logs`, by job number and named in the queue after the run."""

    def __init__(self, device: str, asked: str, logs: Path, *, workers: int | None = None, threads: int | None = None,
                 run: Callable[[Job], Any] = work, cluster: str = "slurm") -> None:
        """`device`: auto, cpu or cuda. `cluster`: submitit's executor. InputError where submitit or SLURM is missing, or a job can't
        be asked for so."""
        try:
            import submitit
        except ImportError as error:
            raise InputError("--launcher slurm needs submitit, which is not installed; run pip install 'submitit>=1.5,<2'") from error
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device} can't be used with --launcher slurm, which hands out GPUs itself; pass cpu or cuda")
        found = wishes(asked)
        gpus = bool(found.keys() & {"gpus_per_node", "gpus_per_task", "num_gpus", "gres"})
        if device == "cuda" and not gpus:
            raise InputError("--device cuda needs jobs with a GPU; add gpus=1 to --slurm")
        each = threads or found.get("cpus_per_task") or 1
        check_threads(each)
        self.share, self.device = Share(workers or MOST_JOBS, each), "cuda" if gpus and device != "cpu" else "cpu"
        try:
            logs.mkdir(parents=True, exist_ok=True)
            self._executor = submitit.AutoExecutor(logs, cluster=cluster, slurm_max_num_timeout=REQUEUES)
            self._executor.update_parameters(slurm_cpus_per_task=each, **{f"slurm_{key}": value for key, value in found.items()
                                                                          if key != "cpus_per_task"})
        except (RuntimeError, ValueError, NameError, OSError, TypeError) as error:
            raise InputError(f"--launcher slurm can't be used so: {' '.join(str(error).split())[:300]}") from error
        self._failed = submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError
        self._resumable, self._running = _Resumable(run), dict[str, tuple[Job, Any]]()
        self.about = f"SLURM by submitit {submitit.__version__}, up to {self.share.workers} jobs in the queue, logs in {logs}"

    def free(self) -> int:
        """Jobs that may be put into the queue; SLURM itself waits for the resources."""
        return self.share.workers - len(self._running)

    def start(self, job: Job) -> None:
        """Put the run into the queue."""
        self._executor.update_parameters(name=job.run.name)
        self._running[job.run.name] = job, self._executor.submit(self._resumable, job)

    def poll(self, seconds: float) -> list[Ended]:
        """Jobs that ended: with an outcome, or without one."""
        until = time.monotonic() + seconds
        while self._running:
            ended = [name for name, (_, handle) in self._running.items() if handle.done()]
            if ended or time.monotonic() >= until:
                return [self._outcome(name) for name in ended]
            time.sleep(0.2)
        return []

    def _outcome(self, name: str) -> Ended:
        job, handle = self._running.pop(name)
        try:
            return Ended(job, handle.result())
        except self._failed as error:
            return Ended(job, lost=f"SLURM job {handle.job_id} gave no result ({str(error).splitlines()[0]}); see "
                                   f"{handle.paths.stderr}")

    def stop(self) -> None:
        """Cancel all jobs; what they had trained stays, to the last epoch."""
        for _, handle in self._running.values():
            handle.cancel(check=False)
        self._running.clear()

    def close(self) -> None:
        """Nothing to let go of."""
