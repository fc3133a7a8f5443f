"""Several runs at once: the queue, retries, and runs that other calls of the command work on.

In: the folders of planned runs and a `Launcher`. Out: the folders as `runner.attempt` leaves them. Only this process copies them
into MLflow. A worker that dies is replaced, and its run goes on from its last epoch.
"""
from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from benchmarks import interrupts, provenance
from benchmarks.launch.board import Board, title
from benchmarks.launch.jobs import Ended, Job, Launcher
from benchmarks.material import Material
from benchmarks.mirror import Mirror
from benchmarks.runner import lacks_ledger
from benchmarks.store import RunFolder
from tcn.config import InputError
from tcn.files.atomic import StorageError
from tcn.files.locks import Held

RETRIES = 3
"""How many times a run is started again after its worker died or met an error that another attempt may not meet."""
ROLES = ("train_sketches", "train_photos", "heldout_sketches", "validation_sketches", "validation_photos", "query", "gallery")


def execute_all(folders: Sequence[RunFolder], material: Material, mirror: Mirror, launcher: Launcher,
              failures: dict[str, str], out: TextIO | None = None, in_order: bool = False) -> tuple[int, int]:
    """Compute all runs that are not finished; failures are added to `failures`. Returns how many ran well and how many were
    skipped.

    `in_order`: runs start in the order of `folders`, else the long ones first. KeyboardInterrupt stops the workers, marks
    their runs as interrupted and is raised again.
    """
    waiting, skipped = [], 0
    for folder in folders:
        if folder.whole() and not lacks_ledger(folder):
            skipped += 1
            mirror.settle(folder)
        else:
            waiting.append(folder)
    ready = _with_images(waiting, material, failures)
    if not in_order:  # the long runs first, so that short ones fill the gaps at the end
        ready.sort(key=lambda folder: not folder.run.trained)
    jobs = [Job(f.run, f.path.parent.parent, f.identity, material.places, launcher.device, launcher.share.threads,
                provenance.command(), launcher.share.gpus_per_run) for f in ready]
    board = Board(len(folders), skipped, len(waiting) - len(ready), out or sys.stdout)
    driver = _Driver(jobs, material, mirror, launcher, failures, board)
    try:
        driver.run()
    except KeyboardInterrupt:
        board.say("stopping the workers")
        launcher.stop()
        driver.mark_interrupted()
        raise
    finally:
        board.clear()
        launcher.close()
    return driver.finished, skipped + driver.finished_elsewhere


def _with_images(folders: Sequence[RunFolder], material: Material, failures: dict[str, str]) -> list[RunFolder]:
    """Fill the image cache before the workers start, so that each picture is decoded once. Runs whose pictures can't be read fail
    here; the others are returned."""
    ready = []
    for folder in folders:
        config = folder.run.config
        split = material.split_of(config)
        try:
            for role in ROLES:
                if len(getattr(split, role)):
                    material.pixels(config, role)
            ready.append(folder)
        except InputError as error:
            _mark_failed(folder, str(error))
            failures[folder.run.name] = str(error)
    return ready


def _mark_failed(folder: RunFolder, reason: str) -> None:
    """Mark a run as failed in its folder, unless another process works on it by now."""
    with contextlib.suppress(Held, StorageError), folder.claim("marking a failed run"):
        folder.write_config()
        folder.set_state("failed", reason, folder.epochs_done)


class _Driver:
    """The queue: starts jobs when a worker is free, starts lost ones again, and mirrors those that ended into MLflow. A run that
    another call of the command works on is put aside until that call is done with it."""

    def __init__(self, jobs: Sequence[Job], material: Material, mirror: Mirror, launcher: Launcher, failures: dict[str, str],
                 board: Board) -> None:
        self.waiting = collections.deque(jobs)
        self.running: dict[str, Job] = {}
        self.material, self.mirror, self.launcher = material, mirror, launcher
        self.failures, self.board = failures, board
        self.attempts: collections.Counter[str] = collections.Counter()
        self.finished = self.finished_elsewhere = 0
        self.elsewhere: dict[str, tuple[Job, str]] = {}
        """Name of a run that another call works on -> its job, and which process that is."""

    def run(self) -> None:
        """Work until no run waits or is computed, here or in other calls."""
        while self.waiting or self.running or self.elsewhere:
            interrupts.check()
            while self.waiting and self.launcher.free() > 0:
                job = self.waiting.popleft()
                if holder := job.folder.holder():
                    self._put_aside(job, holder)
                else:
                    self._start(job)
            self._take_back()
            if not self.running and not self.waiting:
                time.sleep(1.0)
            self.board.show([job.folder for job in self.running.values()], [job.folder for job in self.waiting])
            for ended in self.launcher.poll(1.0):
                self._end(ended)

    def _put_aside(self, job: Job, holder: str) -> None:
        if self.elsewhere.get(job.run.name, (None, ""))[1] != holder:
            self.board.say(f"elsewhere: {title(job.run)}: {holder}")
        self.elsewhere[job.run.name] = job, holder

    def _take_back(self) -> None:
        """Look at the runs that other calls are done with: finished or failed ones are counted, unfinished ones go on here."""
        for name, (job, _) in list(self.elsewhere.items()):
            folder = job.folder
            if folder.holder():
                continue
            del self.elsewhere[name]
            status = folder.status
            if folder.whole():
                self.finished_elsewhere += 1
                self.board.skipped += 1
                self.board.say(f"finished elsewhere: {title(job.run)}")
                self.mirror.settle(folder)
            elif status["state"] == "failed":
                self.failures[name] = f"{status['reason']} (in another call of the command)"
                self.board.failed += 1
                self.board.say(f"failed elsewhere: {title(job.run)}: {status['reason']}")
            else:
                self.waiting.append(job)

    def _start(self, job: Job) -> None:
        self.running[job.run.name] = job
        done = job.folder.epochs_done
        self.board.say(f"started: {title(job.run)}" + (f", resumed after epoch {done}" if done else ""))
        self.launcher.start(job)

    def _end(self, ended: Ended) -> None:
        job = self.running.pop(ended.job.run.name)
        name, folder = job.run.name, job.folder
        if ended.failure and ended.failure.holder:
            self._put_aside(job, ended.failure.holder)
            return
        reason = ended.lost or (ended.failure.reason if ended.failure else "")
        if reason and not (ended.failure and ended.failure.final):
            self.attempts[name] += 1
            if self.attempts[name] <= RETRIES:
                self.board.say(f"again ({self.attempts[name]} of {RETRIES}): {title(job.run)}: {reason}")
                self.waiting.appendleft(job)
                return
            reason = f"{reason}; given up after {RETRIES} retries"
        if reason:
            # The worker may have died, or failed before it could write to the run's folder.
            _mark_failed(folder, reason)
            self.failures[name] = reason
            self.board.failed += 1
            self.board.say(f"failed: {title(job.run)}: {reason}")
        else:
            self.finished += 1
            self.board.finished += 1
            self.board.say(f"finished: {title(job.run)}")
        self.mirror.settle(folder)

    def mark_interrupted(self) -> None:
        """Mark the runs whose workers had no time to do so themselves, in their folders and in MLflow."""
        for job in self.running.values():
            folder = job.folder
            with contextlib.suppress(Held, StorageError), folder.claim("marking an interrupted run", seconds=2.0):
                if folder.state == "running":
                    folder.set_state("interrupted", "stopped by the user; the next call goes on from the last epoch",
                                     folder.epochs_done)
            self.mirror.settle(folder)
