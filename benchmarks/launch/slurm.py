"""SLURM's jobs, one for each run, through submitit (the only file that imports it).

In: the resources that a job asks for. Out: a `Launcher`. Runs that may start together are queued by one call, as a job array. A
job that is preempted, or reaches its time limit, is queued again and goes on from its last epoch. All machines must see the
output folder, the data and the project at the same paths.
"""
from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.launch.jobs import Ended, Job, Share, work
from benchmarks.resources import asks_gpus, wishes
from benchmarks.threads import check_threads
from tcn.config import InputError

MOST_JOBS = 64
"""Number of jobs in the queue at once, unless `--workers` is given."""
ARRAY = "tcn-runs"
SBATCH_AGAIN = 20.0
"""Seconds before jobs that sbatch did not take are tried again, a few times: its controller may just be starting."""
REQUEUES = 100
"""How many times a job may reach its time limit; each time it goes on from the last epoch before."""


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
        queued = cluster == "slurm"
        if queued and "time" not in found:
            raise InputError("--launcher slurm needs a time limit that holds an epoch or more; add time=24h to --slurm (without "
                             "one, submitit asks for 5 minutes)")
        gpus = asks_gpus(found)
        if device == "cuda" and not gpus:
            raise InputError("--device cuda needs jobs with a GPU; add gpus=1 to --slurm")
        its = gpus_per_run or 1
        if its > 1 and device == "auto" and not gpus:
            raise InputError(f"--gpus-per-run {its} needs jobs with as many GPUs; write gpus={its} in --slurm, or pass "
                             "--device cpu to try it without")
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
            cpus = found.get("cpus_per_task", each * its)
            if queued:  # srun of SLURM 22.05 to 23.02 does not take over what the job has
                others["slurm_srun_args"] = [f"--cpus-per-task={cpus}"]
            self._executor.update_parameters(slurm_array_parallelism=self.share.workers, slurm_cpus_per_task=cpus, **others)
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

    def _queue(self) -> list[Ended]:
        """Put what is new into the queue; returns it as lost where sbatch takes no job, which may be so for a while only."""
        new, self._new = self._new, []
        if new:
            self._executor.update_parameters(name=new[0].run.name if len(new) == 1 else ARRAY)
            try:
                with self._executor.batch() if len(new) > 1 else contextlib.nullcontext():
                    handles = [self._executor.submit(self._resumable, job) for job in new]
            except (*self._failed, OSError, subprocess.SubprocessError) as error:
                return [Ended(job, lost=f"sbatch took no job ({' '.join(str(error).split())[:300]})") for job in new]
            self._running |= {job.run.name: (job, handle) for job, handle in zip(new, handles)}
        return []

    def poll(self, seconds: float) -> list[Ended]:
        """Queue what is new; then jobs that ended, with an outcome or without one."""
        if refused := self._queue():
            time.sleep(SBATCH_AGAIN)
            return refused
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
