"""Jobs: a run with all that a worker needs for it, how many jobs at once, and the outcome of a job.

In: a planned run and the places of data and results. Out: the run's folder as `runner.attempt` leaves it, and an `Ended` for the
driver. Workers share nothing else, so a `Job` can be sent to another process or machine.
"""
from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

import baselines
from benchmarks.experiments import PlannedRun
from benchmarks.material import Material, Places
from benchmarks.mirror import NoMirror
from benchmarks.runner import Failure, attempt
from benchmarks.store import RunFolder
from benchmarks.threads import check_threads, limit_threads
from tcn.config import InputError
from tcn.model.execution import keep_memory, same_products

GRACE_SECONDS = 20.0
"""Time that workers have to record the state of their runs when the user stops them."""


@dataclass(frozen=True)
class Share:
    """How a machine or cluster is divided: the number of runs at once, of CPU threads for each process of a run, of runs on one
    GPU, and of GPUs for one run, each of which has a process of its own."""

    workers: int
    threads: int
    runs_per_gpu: int = 1
    gpus_per_run: int = 1


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(cpus: int, gpus: int, *, workers: int | None = None, threads: int | None = None, runs_per_gpu: int | None = None,
          cpus_per_run: int | None = None, gpus_per_run: int | None = None) -> Share:
    """The number of runs at once and of threads for each, from what the machine has and what was asked for. `gpus`: 0 for runs on
    the CPU.

    The number of threads never depends on the number of runs, since results depend on it. InputError if runs_per_gpu is given
    without a GPU, or for more threads than MOST_THREADS.

    >>> share(2, 0), share(32, 4, runs_per_gpu=2)
    (Share(workers=2, threads=1, runs_per_gpu=1, gpus_per_run=1), Share(workers=8, threads=4, runs_per_gpu=2, gpus_per_run=1))
    >>> share(32, 4, gpus_per_run=2)
    Share(workers=2, threads=8, runs_per_gpu=1, gpus_per_run=2)
    """
    if runs_per_gpu and not gpus:
        raise InputError("--runs-per-gpu needs runs that run on a GPU; leave it out, or pass --device cuda")
    processes = gpus_per_run or 1
    per_run = cpus_per_run or (threads or 1) * processes
    natural = gpus // processes * (runs_per_gpu or 1) if gpus else cpus // per_run
    chosen = workers or max(1, natural)
    each = threads or max(1, (cpus_per_run or cpus // chosen) // processes)
    check_threads(each)
    return Share(chosen, each, runs_per_gpu or 1, processes)


@dataclass(frozen=True)
class Job:
    """All that a worker needs to do one run; it can be sent to another process or machine."""

    run: PlannedRun
    output: Path
    identity: str
    places: Places
    device: str
    threads: int
    command: str
    gpus: int = 1
    """Devices of the run: `device` and the next ones that the worker sees."""

    @property
    def folder(self) -> RunFolder:
        """Where the run's files go."""
        return RunFolder(self.output, self.run, self.identity)


@dataclass(frozen=True)
class Ended:
    """The outcome of a job: finished (neither field set), failed, or lost with its worker."""

    job: Job
    failure: Failure | None = None
    lost: str = ""
    """How the worker was lost; empty if it reported the outcome itself."""


class Launcher(Protocol):
    """Runs jobs somewhere, several at once."""

    about: str
    """A description of the workers in one line."""
    share: Share
    """How the machine is divided; every run gets `share.threads` threads."""
    device: str
    """The device of the runs; a launcher with several GPUs may replace it by one of them."""

    def free(self) -> int:
        """The number of jobs that may be started now."""

    def start(self, job: Job) -> None:
        """Start a job and return at once."""

    def poll(self, seconds: float) -> list[Ended]:
        """Jobs that ended since the last call; waits at most `seconds` for one."""

    def stop(self) -> None:
        """End all running jobs; each has GRACE_SECONDS to record the state of its run."""

    def close(self) -> None:
        """End the workers and close connections; called when no job runs any more."""


@functools.lru_cache(maxsize=1)
def _material(places: Places) -> Material:
    return Material(places)


def work(job: Job) -> Failure | None:
    """Run one job in this process, as every worker does. Returns None if the run finished."""
    keep_memory()
    same_products()
    limit_threads(job.threads)
    try:
        if job.run.place:
            baselines.load(job.run.place, job.run.config.method_source)
        material = _material(dataclasses.replace(job.places, progress=False))
        here = material.identity(job.run.config)
        if here != job.identity:
            return Failure(f"this worker sees other data, words or code than the driver (identity {here[:8]}, expected "
                           f"{job.identity[:8]}); every machine needs the same files at the same paths", True)
        return attempt(job.run, job.folder, material, NoMirror(), torch.device(job.device), "", job.command, job.gpus)
    except InputError as error:
        return Failure(str(error), True)
    except Exception as error:  # an error of this machine must reach the driver as a failure
        return Failure(f"{type(error).__name__}: {error}", False)
