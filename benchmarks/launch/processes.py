"""Worker processes on this machine: one for each job that runs at once.

In: jobs. Out: their outcomes. A worker that died is noticed by its closed pipe, and started anew for the next job.
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
from tcn.train.parallel import end_of

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOST_DEVICE = 75
"""Exit status of a worker whose device no longer answers (EX_TEMPFAIL: another attempt may succeed)."""


class Processes:
    """Launcher of worker processes on this machine."""

    def __init__(self, devices: Sequence[str], share: Share, logs: Path, run: Callable[[Job], Failure | None] = work) -> None:
        """`devices`: assigned to the workers in turn; each worker sees only its own, as cuda:0, or where it names several, joined
        by commas, as cuda:0, cuda:1 and so on. `logs`: folder for what they print. `run`: what a worker does with a job."""
        self.share, self.device = share, devices[0]
        gpus = sum(device.count(",") + 1 for device in devices)
        self._slots = [_Slot(devices[i % len(devices)], logs / f"worker-{i}.log", run) for i in range(share.workers)]
        self.about = f"{share.workers} worker process{'' if share.workers == 1 else 'es'}" + (
            f" on {gpus} GPUs" if gpus > 1 else "")

    def free(self) -> int:
        """The number of workers without a job."""
        return sum(slot.job is None for slot in self._slots)

    def start(self, job: Job) -> None:
        """Give a job to an idle worker. Its process is started first, if there is none yet or it died."""
        next(slot for slot in self._slots if slot.job is None).send(job)

    def poll(self, seconds: float) -> list[Ended]:
        """Jobs that ended; a closed pipe shows that a worker died."""
        busy = [slot for slot in self._slots if slot.job]
        ready = connection.wait([slot.pipe for slot in busy], seconds) if busy else []
        return [slot.receive() for slot in busy if slot.pipe in ready]

    def process_ids(self) -> dict[str, int]:
        """Name of each running run -> its worker's process id."""
        return {slot.job.run.name: slot.process.pid for slot in self._slots if slot.job}

    def stop(self) -> None:
        """Send SIGTERM, which a worker handles like Ctrl-C; after GRACE_SECONDS, SIGKILL."""
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
        # If the worker has died just now, the next poll finds its pipe closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self.job)

    def _spawn(self) -> None:
        self.end()
        # Spawned, not forked: a fork of a process with threads and a GPU context may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.log, self.run))
        # Set before the process starts, since CUDA reads it only once, perhaps already during an import.
        with _interrupts_ignored(), _variable(VISIBLE, visible(self.device, os.environ.get(VISIBLE))):
            self.process.start()
        theirs.close()

    def receive(self) -> Ended:
        job, self.job = self.job, None
        assert job is not None
        try:
            failure = self.pipe.recv()
            if failure and failure.device_lost:
                self.end()  # the device answers a new process
            return Ended(job, failure)
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            self.end()
            return Ended(job, lost=f"the worker process {end_of(code)}")

    def end(self) -> None:
        if self.process is not None:
            self.pipe.close()
            self.process.join(2)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
        self.process = self.job = None


def visible(device: str, those: str | None) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES for a process that is to see only one device, or several joined by commas; None leaves
    the variable as it is.

    those: its value in this process.

    >>> visible("cuda:1", None), visible("cuda:1", "2,GPU-5f"), visible("cuda", "3"), visible("cpu", "3")
    ('1', 'GPU-5f', '3', '3')
    >>> visible("cuda:2,cuda:3", None), visible("cuda:0,cuda:1", "5,6,7")
    ('2,3', '5,6')
    """
    if not device.startswith("cuda"):
        return those
    listed = [name.strip() for name in those.split(",")] if those else []
    indices = [one.partition(":")[2] or "0" for one in device.split(",")]
    return ",".join(listed[int(index)] if listed else index for index in indices)


@contextlib.contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable for processes that are started in this block; None leaves it as it is."""
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
    """Processes started in this block ignore Ctrl-C, which a terminal sends to all of them: the driver decides when they end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: connection.Connection, log: Path, run: Callable[[Job], Failure | None]) -> None:
    """The loop of a worker process: receive a job, run it, send its outcome; until the driver closes the pipe, stops the worker
    or dies, or the device is lost."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # when the terminal is closed, the driver decides
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    provenance.commit()  # read now, since the checkout may be edited before the first job arrives, but not the code in memory
    # KeyboardInterrupt: the driver stops this worker. EOFError: the driver has closed the pipe.
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError), interrupts.caught(signal.SIGTERM):
        while True:
            failure = run(pipe.recv())
            pipe.send(failure)
            if failure and failure.device_lost:
                sys.stderr.flush()
                os._exit(LOST_DEVICE)  # a normal exit would use the device again


def _end_with_driver() -> None:
    # A worker without its driver would go on writing to a folder that the next call of the command resumes.
    driver = multiprocessing.parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os._exit(1)
