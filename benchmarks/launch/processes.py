"""Worker processes on this machine: one for each job that runs at once.

In: jobs. Out: what became of them. A worker that died is noticed by its closed pipe, and started anew for the next job.
"""
from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from benchmarks import interrupts, provenance
from benchmarks.launch.jobs import GRACE_SECONDS, Ended, Job, Share, work
from benchmarks.runner import Failure

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOST_DEVICE = 75
"""Exit status of a worker whose device answers no more (EX_TEMPFAIL: another attempt may do)."""


class Processes:
    """Launcher of worker processes on this machine."""

    def __init__(self, devices: Sequence[str], share: Share, logs: Path, run: Callable[[Job], Failure | None] = work) -> None:
        """`devices`: handed to the workers in turn; each worker sees its own alone, as cuda:0. `logs`: folder for what they print. `run`: what a worker does with a job."""
        self.share, self.device = share, devices[0]
        self._slots = [_Slot(devices[i % len(devices)], logs / f"worker-{i}.log", run) for i in range(share.workers)]
        self.about = f"{share.workers} worker process{'' if share.workers == 1 else 'es'}" + (
            f" on {len(devices)} GPUs" if len(devices) > 1 else "")

    def free(self) -> int:
        """Workers without a job."""
        return sum(slot.job is None for slot in self._slots)

    def start(self, job: Job) -> None:
        """Hand a job to an idle worker, started anew where there is none yet or it died."""
        next(slot for slot in self._slots if slot.job is None).send(job)

    def poll(self, seconds: float) -> list[Ended]:
        """Jobs that ended; a worker that died is found by its closed pipe."""
        busy = [slot for slot in self._slots if slot.job]
        ready = connection.wait([slot.pipe for slot in busy], seconds) if busy else []
        return [slot.receive() for slot in busy if slot.pipe in ready]

    def process_ids(self) -> dict[str, int]:
        """Name of each running run -> its worker's process id."""
        return {slot.job.run.name: slot.process.pid for slot in self._slots if slot.job}

    def stop(self) -> None:
        """SIGTERM, which a worker takes like Ctrl-C; after the grace, SIGKILL."""
        busy = [slot for slot in self._slots if slot.job]
        for slot in busy:
            slot.process.terminate()
        until = time.monotonic() + GRACE_SECONDS
        for slot in busy:
            slot.process.join(max(0.0, until - time.monotonic()))
            slot.end()

    def close(self) -> None:
        """End the idle workers."""
        for slot in self._slots:
            slot.end()


class _Slot:
    """One worker process, started when it gets its first job and kept for the next ones."""

    def __init__(self, device: str, log: Path, run: Callable[[Job], Failure | None]) -> None:
        self.device, self.log, self.run = device, log, run
        self.job: Job | None = None
        self.process: Any = None
        self.pipe: Any = None

    def send(self, job: Job) -> None:
        if self.process is None or not self.process.is_alive():
            self._spawn()
        self.job = dataclasses.replace(job, device="cuda:0" if self.device.startswith("cuda") else self.device)
        # Where the worker died just now, the closed pipe says so at the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self.job)

    def _spawn(self) -> None:
        self.end()
        # Spawned, not forked: a fork of a process with threads and a GPU context may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.log, self.run))
        # Set before the process starts: what its imports do is not known here, and CUDA reads it once.
        with _interrupts_ignored(), _variable(VISIBLE, visible(self.device, os.environ.get(VISIBLE))):
            self.process.start()
        theirs.close()

    def receive(self) -> Ended:
        job, self.job = self.job, None
        assert job is not None
        try:
            failure = self.pipe.recv()
            if failure and failure.device_lost:
                self.end()  # a new process gets a device that answers
            return Ended(job, failure)
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.end()
            return Ended(job, lost=f"the worker process {_end_of(code)}")

    def end(self) -> None:
        if self.process is not None:
            self.pipe.close()
            self.process.join(2)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
        self.process = self.job = None


def _end_of(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")


def visible(device: str, those: str | None) -> str | None:
    """What CUDA_VISIBLE_DEVICES must say for a process that sees one device alone, `those` being what it says here. None: as it is.

    >>> visible("cuda:1", None), visible("cuda:1", "2,GPU-5f"), visible("cuda", "3"), visible("cpu", "3")
    ('1', 'GPU-5f', '3', '3')
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return those
    listed = [name.strip() for name in those.split(",")] if those else []
    return listed[int(index or 0)] if listed else index or "0"


@contextlib.contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """An environment variable for processes that are started here; None leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started here ignores Ctrl-C, which a terminal sends to all; the driver decides what becomes of workers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: connection.Connection, log: Path, run: Callable[[Job], Failure | None]) -> None:
    """A worker process: jobs in, outcomes out, until the driver closes the pipe, stops it, or dies, or its device is lost."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal: the driver decides
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    provenance.commit()  # now: a checkout edited before the first job arrives is not the code in memory
    # KeyboardInterrupt: the driver stops this worker. EOFError: there is nothing left to do.
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError), interrupts.caught(signal.SIGTERM):
        while True:
            failure = run(pipe.recv())
            pipe.send(failure)
            if failure and failure.device_lost:
                sys.stderr.flush()
                os._exit(LOST_DEVICE)  # an orderly end would ask the device for more


def _end_with_driver() -> None:
    # An orphan would go on writing to a folder that the next call of the command takes up.
    driver = multiprocessing.parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os._exit(1)
