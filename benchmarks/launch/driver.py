"""Several cells at once: the queue, retries, one view of progress, and workers that are processes on this machine.

In: cell folders and a `Launcher`. Out: the folders as `runner.attempt` leaves them, mirrored into MLflow by this process
alone. A worker that dies is replaced and its cell goes on from its last epoch. launch_ray.py has Ray's workers.
"""
from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import functools
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from benchmarks import interrupts, provenance
from benchmarks.experiments import Cell
from benchmarks.material import Material, Places
from benchmarks.mirror import Mirror, NoMirror
from benchmarks.runner import Failure, attempt, lacks_ledger
from benchmarks.store import CellFolder
from benchmarks.threads import check_threads, limit_threads
from tcn.config import InputError
from tcn.files.atomic import StorageError
from tcn.files.locks import Held
from tcn.model.execution import keep_memory, same_products

RETRIES = 3
"""Times a cell is taken up again after its worker died or met an error that another attempt may not meet."""
GRACE_SECONDS = 20.0
"""How long workers may take to leave their cells in order when the user stops them."""
LINES_EVERY_SECONDS = 30.0
ROLES = ("train_sketches", "train_photos", "heldout_sketches", "validation_sketches", "validation_photos", "query", "gallery")


# --- how many at once ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Share:
    """How a machine or cluster is shared out: cells at once, CPU threads of each, cells on one GPU."""

    workers: int
    threads: int
    cells_per_gpu: int = 1


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(cpus: int, gpus: int, *, workers: int | None = None, threads: int | None = None, cells_per_gpu: int | None = None,
          cpus_per_cell: int | None = None) -> Share:
    """Cells at once and threads of each, by what there is and what was asked for. `gpus`: 0 where cells run on the CPU.

    Threads never depend on the number of cells, since results depend on threads. InputError where cells_per_gpu is
    given without a GPU, or for more threads than MOST_THREADS.

    >>> share(2, 0), share(32, 4, cells_per_gpu=2)
    (Share(workers=2, threads=1, cells_per_gpu=1), Share(workers=8, threads=4, cells_per_gpu=2))
    """
    if cells_per_gpu and not gpus:
        raise InputError("--cells-per-gpu needs cells that run on a GPU; leave it out, or pass --device cuda")
    per_cell = cpus_per_cell or threads
    natural = gpus * (cells_per_gpu or 1) if gpus else cpus // (per_cell or 1)
    chosen = workers or max(1, natural)
    each = threads or cpus_per_cell or max(1, cpus // chosen)
    check_threads(each)
    return Share(chosen, each, cells_per_gpu or 1)


# --- what passes between driver and workers ------------------------------------------------------------------

@dataclass(frozen=True)
class Job:
    """All that a worker needs to run one cell; it can be sent to another process or machine."""

    cell: Cell
    output: Path
    identity: str
    places: Places
    device: str
    threads: int
    command: str

    @property
    def folder(self) -> CellFolder:
        """Where the cell's files go."""
        return CellFolder(self.output, self.cell, self.identity)


@dataclass(frozen=True)
class Ended:
    """What came of a job: finished (neither field set), failed, or lost with its worker."""

    job: Job
    failure: Failure | None = None
    lost: str = ""
    """How the worker went; empty where it reported by itself."""


class Launcher(Protocol):
    """Runs jobs somewhere, several at once."""

    about: str
    """One line: what the workers are."""
    share: Share
    """How the machine is shared out; its threads are those of every cell."""
    device: str
    """Where cells run; a launcher with several GPUs may replace it by one of them."""

    def free(self) -> int:
        """Jobs that may be started now."""

    def start(self, job: Job) -> None:
        """Start a job and return at once."""

    def poll(self, seconds: float) -> list[Ended]:
        """Jobs that ended since the last call; waits at most `seconds` for one."""

    def stop(self) -> None:
        """End all running jobs, giving each GRACE_SECONDS to leave its cell in order."""

    def close(self) -> None:
        """Let go of workers and connections; nothing runs any more."""


@functools.lru_cache(maxsize=1)
def _material(places: Places) -> Material:
    return Material(places)


def work(job: Job) -> Failure | None:
    """Run one job in this process: what every worker does. None where the cell finished."""
    keep_memory()
    same_products()
    limit_threads(job.threads)
    try:
        material = _material(dataclasses.replace(job.places, progress=False))
        here = material.identity(job.cell.config)
        if here != job.identity:
            return Failure(f"this worker sees other data, words or code than the driver (identity {here[:8]}, expected "
                           f"{job.identity[:8]}); every machine needs the same files at the same paths", True)
        return attempt(job.cell, job.folder, material, NoMirror(), torch.device(job.device), "", job.command)
    except InputError as error:
        return Failure(str(error), True)
    except Exception as error:  # a fault of this machine must reach the driver as such
        return Failure(f"{type(error).__name__}: {error}", False)


# --- worker processes on this machine ------------------------------------------------------------------------

class Processes:
    """Launcher of worker processes on this machine."""

    def __init__(self, devices: Sequence[str], share: Share, logs: Path) -> None:
        """`devices`: handed to the workers in turn. `logs`: folder for what they print."""
        self.share, self.device = share, devices[0]
        self._slots = [_Slot(devices[i % len(devices)], logs / f"worker-{i}.log") for i in range(share.workers)]
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
        """Name of each running cell -> its worker's process id."""
        return {slot.job.cell.name: slot.process.pid for slot in self._slots if slot.job}

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

    def __init__(self, device: str, log: Path) -> None:
        self.device, self.log = device, log
        self.job: Job | None = None
        self.process: Any = None
        self.pipe: Any = None

    def send(self, job: Job) -> None:
        if self.process is None or not self.process.is_alive():
            self._spawn()
        self.job = dataclasses.replace(job, device=self.device)
        # Where the worker died just now, the closed pipe says so at the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self.job)

    def _spawn(self) -> None:
        self.end()
        # Spawned, not forked: a fork of a process with threads and a GPU context may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.log))
        with _interrupts_ignored():
            self.process.start()
        theirs.close()

    def receive(self) -> Ended:
        job, self.job = self.job, None
        try:
            return Ended(job, self.pipe.recv())
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


def _serve(pipe: connection.Connection, log: Path) -> None:
    """A worker process: jobs in, outcomes out, until the driver closes the pipe, stops it, or dies."""
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
            pipe.send(work(pipe.recv()))


def _end_with_driver() -> None:
    # An orphan would go on writing to a folder that the next call of the command takes up.
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


# --- the driver ----------------------------------------------------------------------------------------------

def run_cells(folders: Sequence[CellFolder], material: Material, mirror: Mirror, launcher: Launcher,
              failures: dict[str, str], out: TextIO | None = None) -> tuple[int, int]:
    """Run what is not finished; failures are added to `failures`. Returns how many ran well and how many were skipped.

    KeyboardInterrupt stops the workers, marks their cells interrupted and passes.
    """
    waiting, skipped = [], 0
    for folder in folders:
        if folder.whole() and not lacks_ledger(folder):
            skipped += 1
            mirror.settle(folder)
        else:
            waiting.append(folder)
    ready = _with_images(waiting, material, failures)
    # Long cells first: short ones fill the gaps at the end.
    jobs = [Job(f.cell, f.path.parent.parent, f.identity, material.places, launcher.device, launcher.share.threads,
                provenance.command()) for f in sorted(ready, key=lambda folder: not folder.cell.trained)]
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


def _with_images(folders: Sequence[CellFolder], material: Material, failures: dict[str, str]) -> list[CellFolder]:
    """Fill the image cache before the workers start, each picture once; cells whose pictures can't be read fail here."""
    ready = []
    for folder in folders:
        config = folder.cell.config
        split = material.split(config.data.dataset, config.data.split)
        try:
            for role in ROLES:
                if len(getattr(split, role)):
                    material.pixels(config, role)
            ready.append(folder)
        except InputError as error:
            _mark_failed(folder, str(error))
            failures[folder.cell.name] = str(error)
    return ready


def _mark_failed(folder: CellFolder, reason: str) -> None:
    """Say so in the cell's folder, unless another process is at work there by now."""
    with contextlib.suppress(Held, StorageError), folder.claim("marking a failed cell"):
        folder.write_config()
        folder.set_state("failed", reason, folder.epochs_done)


class _Driver:
    """The queue: starts jobs where there is room, takes lost ones up again, mirrors what ended. A cell that another call of the
    command works on is put aside until that one is done with it."""

    def __init__(self, jobs: Sequence[Job], material: Material, mirror: Mirror, launcher: Launcher, failures: dict[str, str],
                 board: "Board") -> None:
        self.waiting = collections.deque(jobs)
        self.running: dict[str, Job] = {}
        self.material, self.mirror, self.launcher = material, mirror, launcher
        self.failures, self.board = failures, board
        self.attempts: collections.Counter[str] = collections.Counter()
        self.finished = self.finished_elsewhere = 0
        self.elsewhere: dict[str, tuple[Job, str]] = {}
        """Cells that another call works on, by name, with who it is."""

    def run(self) -> None:
        """Until nothing waits or runs, here or in other calls."""
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
        if self.elsewhere.get(job.cell.name, (None, ""))[1] != holder:
            self.board.say(f"elsewhere: {_title(job.cell)}: {holder}")
        self.elsewhere[job.cell.name] = job, holder

    def _take_back(self) -> None:
        """Cells that others are done with: finished, failed, or to be gone on with here because they were left unfinished."""
        for name, (job, _) in list(self.elsewhere.items()):
            folder = job.folder
            if folder.holder():
                continue
            del self.elsewhere[name]
            status = folder.status
            if folder.whole():
                self.finished_elsewhere += 1
                self.board.skipped += 1
                self.board.say(f"finished elsewhere: {_title(job.cell)}")
                self.mirror.settle(folder)
            elif status["state"] == "failed":
                self.failures[name] = f"{status['reason']} (in another call of the command)"
                self.board.failed += 1
                self.board.say(f"failed elsewhere: {_title(job.cell)}: {status['reason']}")
            else:
                self.waiting.append(job)

    def _start(self, job: Job) -> None:
        self.running[job.cell.name] = job
        done = job.folder.epochs_done
        self.board.say(f"started: {_title(job.cell)}" + (f", resumed after epoch {done}" if done else ""))
        self.launcher.start(job)

    def _end(self, ended: Ended) -> None:
        job = self.running.pop(ended.job.cell.name)
        name, folder = job.cell.name, job.folder
        if ended.failure and ended.failure.holder:
            self._put_aside(job, ended.failure.holder)
            return
        reason = ended.lost or (ended.failure.reason if ended.failure else "")
        if reason and not (ended.failure and ended.failure.final):
            self.attempts[name] += 1
            if self.attempts[name] <= RETRIES:
                self.board.say(f"again ({self.attempts[name]} of {RETRIES}): {_title(job.cell)}: {reason}")
                self.waiting.appendleft(job)
                return
            reason = f"{reason}; given up after {RETRIES} retries"
        if reason:
            # The worker may have died, or not have come as far as the cell's folder.
            _mark_failed(folder, reason)
            self.failures[name] = reason
            self.board.failed += 1
            self.board.say(f"failed: {_title(job.cell)}: {reason}")
        else:
            self.finished += 1
            self.board.finished += 1
            self.board.say(f"finished: {_title(job.cell)}")
        self.mirror.settle(folder)

    def mark_interrupted(self) -> None:
        """Cells whose worker had no time to say so itself, and their runs in MLflow."""
        for job in self.running.values():
            folder = job.folder
            with contextlib.suppress(Held, StorageError), folder.claim("marking an interrupted cell", seconds=2.0):
                if folder.state == "running":
                    folder.set_state("interrupted", "stopped by the user; the next call goes on from the last epoch",
                                     folder.epochs_done)
            self.mirror.settle(folder)


# --- one view of progress ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Progress:
    """How far a cell is, by its folder: epochs trained, of how many, and the last epoch's speed (None before the first)."""

    done: int
    epochs: int
    pairs_per_second: float | None = None
    epoch_seconds: float | None = None


def progress_of(folder: CellFolder) -> Progress:
    """Read a cell's folder; a cell that has not started is at 0."""
    epochs = folder.cell.config.training.epochs
    history = folder.path / "history.csv"
    if not history.exists():
        return Progress(0, epochs)
    with open(history, newline="", encoding="utf-8") as source:
        rows = [row for row in csv.DictReader(source) if row.get("pairs_per_second")]
    if not rows:
        return Progress(0, epochs)
    last = rows[-1]
    return Progress(int(last["epoch"]), epochs, float(last["pairs_per_second"]), float(last["seconds"]))


def seconds_left(unfinished: Sequence[tuple[Cell, Progress]], running: int, known: Mapping[str, Sequence[float]]) -> float | None:
    """Seconds of training left, `running` cells at once; None until an epoch tells.

    A cell without an epoch of its own takes the median of `known`: data set -> seconds an epoch took in other cells.
    """
    each = []
    for cell, progress in unfinished:
        seconds = progress.epoch_seconds or (statistics.median(known[cell.dataset]) if known.get(cell.dataset) else None)
        left = (progress.epochs - progress.done) if cell.trained else 0
        if left and seconds is None:
            return None
        each.append(left * (seconds or 0.0))
    return max(max(each, default=0.0), sum(each) / max(1, running))


class Board:
    """Progress of all cells in one place: repainted on a terminal, a block of lines every half minute elsewhere."""

    def __init__(self, total: int, skipped: int, failed: int, out: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self.skipped, self.failed, self.out, self._now = total, skipped, failed, out, now
        self.finished = 0
        self._live = out.isatty()
        self._painted = 0
        self._last: float | None = None if self._live else now()
        self._known: dict[str, dict[str, float]] = collections.defaultdict(dict)

    def say(self, line: str) -> None:
        """An event, kept on the screen."""
        self.clear()
        print(line, file=self.out, flush=True)

    def show(self, running: Sequence[CellFolder], waiting: Sequence[CellFolder]) -> None:
        """Paint the state, where it is time to."""
        if self._last is not None and self._now() - self._last < (1.0 if self._live else LINES_EVERY_SECONDS):
            return
        self._last = self._now()
        lines = self.lines(running, waiting)
        self.clear()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in lines]
            self._painted = len(lines)
        print("\n".join(lines), file=self.out, flush=True)

    def lines(self, running: Sequence[CellFolder], waiting: Sequence[CellFolder]) -> list[str]:
        """One line for all, one for each running cell."""
        unfinished = [(folder.cell, progress_of(folder)) for folder in (*running, *waiting)]
        for cell, progress in unfinished:
            if progress.epoch_seconds:
                self._known[cell.dataset][cell.name] = progress.epoch_seconds
        known = {dataset: list(cells.values()) for dataset, cells in self._known.items()}
        left = seconds_left(unfinished, len(running), known)
        head = (f"{self.total} cells: {self.skipped + self.finished} done, {len(running)} running, {len(waiting)} to do, "
                f"{self.failed} failed; " + ("time left not known before an epoch is done" if left is None else
                                             f"about {duration(left)} of training left"))
        return [head, *(f"  {_title(cell)}: {_state(progress, cell)}" for cell, progress in unfinished[:len(running)])]

    def clear(self) -> None:
        """Take the painted block off the terminal."""
        if self._painted:
            self.out.write(f"\x1b[{self._painted}A\x1b[J")
            self.out.flush()
            self._painted = 0


def _state(progress: Progress, cell: Cell) -> str:
    if not cell.trained:
        return "scoring"
    if progress.done >= progress.epochs:
        return f"trained, epoch {progress.epochs}/{progress.epochs}; scoring"
    speed = f", {progress.pairs_per_second:,.0f} pairs/s" if progress.pairs_per_second else ""
    return f"epoch {progress.done + 1}/{progress.epochs}{speed}"


def _title(cell: Cell) -> str:
    return f"{cell.variant} seed {cell.seed} on {cell.dataset} {cell.split}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(61), duration(7260)
    ('1 min 01 s', '2 h 01 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
