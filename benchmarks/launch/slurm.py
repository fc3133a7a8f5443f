"""SLURM's jobs, one for each run, through submitit (the only file that imports it).

In: the resources that a job asks for. Out: a `Launcher`. Runs that may start together are queued by one call, as a job array. A
job that is preempted, or reaches its time limit, is queued again and goes on from its last epoch. All machines must see the
output folder, the data and the project at the same paths.
"""
from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.launch.jobs import Ended, Job, Share, work
from benchmarks.threads import check_threads
from tcn.config import InputError

SHORT = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}
"""Our name of a resource -> submitit's. All other names are sbatch's own with underscores: partition, account, mem, qos."""
MOST_JOBS = 64
"""Number of jobs in the queue at once, unless `--workers` is given."""
ARRAY = "tcn-runs"
REQUEUES = 100
"""How many times a job may reach its time limit; each time it goes on from the last epoch before."""


def wishes(text: str) -> dict[str, Any]:
    """The resources that `--slurm` asks for. InputError if the text can't be read.

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
    """A time limit in minutes. It is written as sbatch takes it (minutes, H:M:S, D-H, D-H:M:S), or as 90m, 24h, 2d. InputError
    for any other text.

    >>> minutes("90"), minutes("2:30:00"), minutes("1-6"), minutes("24h")
    (90, 150, 1800, 1440)
    """
    if match := re.fullmatch(r"(\d+)([mhd]?)", text, re.ASCII):
        total = int(match[1]) * {"": 1, "m": 1, "h": 60, "d": 1440}[match[2]]
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+)(?::(\d+))?)?", text, re.ASCII):
        days, *parts = (int(part or 0) for part in match.groups())
        # Two numbers without days are minutes and seconds.
        if match[1] is None and match[4] is None:
            parts = [0, *parts[:2]]
        total = days * 1440 + parts[0] * 60 + parts[1] + (parts[2] > 0)
    else:
        total = 0
    if not total:
        raise InputError(f"--slurm time={text} is no time limit; give minutes, H:M:S or D-H:M:S")
    return total


class _Resumable:
    """The callable of a job; submitit calls `checkpoint` to learn what to call when the job is queued again."""

    def __init__(self, run: Callable[[Job], Any]) -> None:
        self.run = run

    def __call__(self, job: Job) -> Any:
        return self.run(job)

    def checkpoint(self, job: Job) -> Any:
        """The same call again: a run goes on from the files in its folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


class SlurmLauncher:
    """Launcher of SLURM jobs, one for each run, and a log of each in `logs` by its number. In the queue a job that is alone has
    its run's name, and an array the name ARRAY."""

    def __init__(self, device: str, asked: str, logs: Path, *, workers: int | None = None, threads: int | None = None,
                 gpus_per_run: int | None = None, run: Callable[[Job], Any] = work, cluster: str = "slurm") -> None:
        """`device`: auto, cpu or cuda. `cluster`: submitit's executor. InputError if submitit or SLURM is missing, or refuses
        what a job asks for."""
        try:
            import submitit
        except ImportError as error:
            raise InputError("--launcher slurm needs submitit, which is not installed; "
                             "run pip install 'submitit>=1.5,<2'") from error
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device} can't be used with --launcher slurm, which hands out GPUs itself; "
                             "pass cpu or cuda")
        found = wishes(asked)
        gpus = bool(found.keys() & {"gpus_per_node", "gpus_per_task", "num_gpus", "gres"})
        if device == "cuda" and not gpus:
            raise InputError("--device cuda needs jobs with a GPU; add gpus=1 to --slurm")
        its = gpus_per_run or 1
        each = threads or max(1, found.get("cpus_per_task", 1) // its)
        check_threads(each)
        self.share, self.device = (Share(workers or MOST_JOBS, each, gpus_per_run=its),
                                   "cuda" if gpus and device != "cpu" else "cpu")
        there = found.get("gpus_per_node", found.get("gpus_per_task"))
        if self.device == "cuda" and isinstance(there, int) and there < its:
            raise InputError(f"--gpus-per-run {its} needs jobs with as many GPUs; write gpus={its} in --slurm")
        try:
            logs.mkdir(parents=True, exist_ok=True)
            self._executor = submitit.AutoExecutor(logs, cluster=cluster, slurm_max_num_timeout=REQUEUES)
            others = {f"slurm_{key}": value for key, value in found.items() if key != "cpus_per_task"}
            self._executor.update_parameters(slurm_array_parallelism=self.share.workers,
                                             slurm_cpus_per_task=found.get("cpus_per_task", each * its), **others)
        except (RuntimeError, ValueError, NameError, OSError, TypeError) as error:
            raise InputError(f"--launcher slurm can't be used so: {' '.join(str(error).split())[:300]}") from error
        self._failed = submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError
        self._resumable, self._running, self._new = _Resumable(run), dict[str, tuple[Job, Any]](), list[Job]()
        self.about = f"SLURM by submitit {submitit.__version__}, up to {self.share.workers} jobs in the queue, logs in {logs}"

    def free(self) -> int:
        """The number of jobs that may be put into the queue; SLURM itself waits for the resources."""
        return self.share.workers - len(self._running) - len(self._new)

    def start(self, job: Job) -> None:
        """Keep the run for the next `poll`, which puts all that are new into the queue by one call."""
        self._new.append(job)

    def _queue(self) -> None:
        new, self._new = self._new, []
        if new:
            self._executor.update_parameters(name=new[0].run.name if len(new) == 1 else ARRAY)
            with self._executor.batch() if len(new) > 1 else contextlib.nullcontext():
                handles = [self._executor.submit(self._resumable, job) for job in new]
            self._running |= {job.run.name: (job, handle) for job, handle in zip(new, handles)}

    def poll(self, seconds: float) -> list[Ended]:
        """Queue what is new; then jobs that ended, with an outcome or without one."""
        self._queue()
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
        """Cancel all jobs; their runs keep what they trained up to the last epoch."""
        for _, handle in self._running.values():
            handle.cancel(check=False)
        self._running.clear()
        self._new.clear()

    def close(self) -> None:
        """Do nothing: there are no workers or connections to close."""
