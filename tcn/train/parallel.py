"""One run on several devices: a process for each, that train one model together through torch.distributed.

In: devices, and a function that further processes call. Out: `Ranks` for the process at hand, which leads: it alone validates and
writes, so that a run is resumed from the same files as on one device. Whatever ends one process ends all of them, with the first
error's message. Source of the form: the released code trains on two GPUs (nn.DataParallel).
"""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from tcn.config import Config, InputError
from tcn.model.ranks import Ranks
from tcn.model.synchronised import check_draws, check_norms
from tcn.train.method import Method, TcnModel

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others in an exchange. The others wait while the first validates; that one of them has died is
noticed otherwise, and at once."""
SOON = 10.0
"""Seconds after the death of a process in which an exchange that waits for it should fail by itself; then it is aborted, and if
that does not help either, this process ends too."""
ENDED_BY_OTHERS = 75
"""Exit status in that case (EX_TEMPFAIL: another attempt may succeed)."""
_HELD_BACK = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that a terminal or a queue sends to all processes of a run, of which the first alone decides what they mean."""


class RankLost(RuntimeError):
    """A process of the run died without a word. Another attempt goes on from the last epoch."""


class _Reported(Exception):
    """The traceback of an error in another process, as the cause of that error here."""


def check(config: Config, method: Method[Any], count: int) -> None:
    """InputError where a run can't be trained by `count` processes, with what to change.

    `network.batch_norm_split` says what batch norms see: 1, all pairs of a batch (synchronised); `count`, a process's own.
    """
    way = "; use one GPU for each run (leave out --gpus-per-run)"
    if not method.parallel:
        raise InputError(f"method '{method.name}' does not say that it can be trained on several GPUs "
                         "(Method.parallel, docs/cluster.md)" + way)
    split, pairs = config.network.batch_norm_split, config.data.batch_pairs
    if split not in (1, count):
        raise InputError(f"setting 'network.batch_norm_split' is {split}, and a run has {count} GPUs: it must be 1 (batch "
                         f"norms over the whole batch) or {count} (each GPU alone){way}")
    if pairs < 2 * count:
        raise InputError(f"setting 'data.batch_pairs' is {pairs}, which gives some of {count} GPUs fewer than 2 pairs{way}")
    for name in ("compile", "graphs"):
        if (value := getattr(config.execution, name)) != "none":
            raise InputError(f"setting 'execution.{name}' is '{value}', which does not go with several GPUs for a run; set "
                             f"execution.{name}=none{way}")


def check_model(model: object, synchronised: bool) -> None:
    """InputError where a model can't be trained by several processes, whose batch norms may be `synchronised`."""
    if not isinstance(model, TcnModel):
        raise InputError("several GPUs for a run need a model of the kind TcnModel, and the method gives a "
                         f"{type(model).__name__}; use one GPU for each run (leave out --gpus-per-run)")
    check_draws(model.encoders)
    if synchronised:
        check_norms(model.network)


def devices_of(first: torch.device, count: int) -> list[torch.device]:
    """The devices of a run whose first process has `first`: the GPUs cuda:0, cuda:1, ..., or as often the CPU (to try it; nothing
    is gained). InputError where there are not so many, where another device than the first GPU is named, or for another kind."""
    if count == 1 or first.type == "cpu":
        return [first] * count
    if first.type != "cuda":
        raise InputError(f"--gpus-per-run {count} needs CUDA devices, not {first.type}; leave it out")
    if first.index:
        raise InputError(f"--device {first} names one GPU, and --gpus-per-run {count} asks for more; pass --device cuda, and "
                         "name the GPUs in CUDA_VISIBLE_DEVICES")
    if torch.cuda.device_count() < count:
        raise InputError(f"--gpus-per-run {count}: {torch.cuda.device_count()} GPUs are visible; pass a smaller number")
    return [torch.device("cuda", index) for index in range(count)]


@contextlib.contextmanager
def together(devices: Sequence[torch.device], synchronised: bool, work: Callable[..., object],
             *arguments: Any) -> Iterator[Ranks]:
    """In this block, this process trains with one further process for each of `devices` but the first, which is its own.

    Each of these calls `work(ranks, device, *arguments)`, a function that can be imported, and is killed at the end of the block.
    They end when this process dies. If one of them fails or is killed, the exchange that waits for it fails here, and its error
    is raised out of the block; RankLost if it died without one.
    """
    with (tempfile.TemporaryDirectory(prefix="tcn-ranks-") as folder,
          _Others(devices, synchronised, work, arguments, folder) as others):
        ranks = Ranks(0, len(devices), synchronised)
        others.wait_until_here()
        with ranks.exchange():
            others.watch(ranks)
            _open_group(Path(folder), 0, devices)
        try:
            yield ranks
        except BaseException:
            _abort_group()
            raise
        # NCCL's orderly end waits for all processes, and the further ones stay in theirs until they are killed.
        if devices[0].type == "cuda":
            _abort_group()
        else:
            dist.destroy_process_group()


class _Others:
    """The further processes of a run, as the first sees them."""

    def __init__(self, devices: Sequence[torch.device], synchronised: bool, work: Callable[..., object], arguments: Sequence[Any],
                 folder: str) -> None:
        self.devices = devices
        self.pipes: list[connection.Connection] = []
        self.processes: list[Any] = []
        self.failure: BaseException | None = None
        self._failed, self._aborted, self._left = threading.Event(), threading.Event(), threading.Event()
        self._watcher: threading.Thread | None = None
        self._given = [(rank, list(devices), synchronised, work, arguments, folder) for rank in range(1, len(devices))]

    def __enter__(self) -> _Others:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads and a GPU context may hang
        resource_tracker.ensure_running()  # its start unblocks SIGINT and SIGTERM, so it comes before they are held back
        try:
            for given in self._given:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, *given), daemon=True)
                self.pipes.append(ours)
                with _signals_held_back():
                    process.start()
                self.processes.append(process)
                theirs.close()
        except BaseException:
            self._end()
            raise
        return self

    def wait_until_here(self) -> None:
        """Wait until all have started. Raises the error of one that could not."""
        waiting = list(self.pipes)
        while waiting:
            for pipe in connection.wait(waiting):
                assert isinstance(pipe, connection.Connection)
                waiting.remove(pipe)
                if error := self._word_of(pipe):
                    raise error

    def watch(self, ranks: Ranks) -> None:
        """From now on, note the first process that fails, and see to it that this one does not wait for it in a step."""
        self._watcher = threading.Thread(target=self._watch, args=(ranks,), daemon=True)
        self._watcher.start()

    def _word_of(self, pipe: connection.Connection) -> BaseException | None:
        """What a process says: None if it is well, its error, or RankLost if it died without one."""
        try:
            said: tuple[BaseException, str] | None = pipe.recv()
            if said is not None:
                said[0].__cause__ = _Reported(said[1])
            return said and said[0]
        except (EOFError, OSError):
            rank = self.pipes.index(pipe) + 1
            process = self.processes[rank - 1]
            process.join(SOON)
            return RankLost(f"process {rank + 1} of {len(self.devices)} of this run ({self.devices[rank]}) "
                            f"{end_of(process.exitcode)}")

    def _watch(self, ranks: Ranks) -> None:
        waiting = list(self.pipes)
        while waiting and not self.failure and not self._left.is_set():
            for pipe in connection.wait(waiting, 1.0):
                assert isinstance(pipe, connection.Connection)
                if self._left.is_set():
                    return
                waiting.remove(pipe)
                self.failure = self.failure or self._word_of(pipe)
        if not self.failure:
            return
        self._failed.set()
        if self._left.wait(SOON):
            return
        self._aborted.set()
        _abort_group()  # NCCL does not notice that a process on the same machine is gone
        while not self._left.wait(SOON):
            if ranks.exchanging:  # else it validates or writes, and its next exchange will fail
                sys.stderr.write(f"{self.failure}; this process waits for it in vain and ends too\n")
                sys.stderr.flush()
                os._exit(ENDED_BY_OTHERS)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # The exchange may fail a moment before its reason is known.
        if error is not None and _of_exchange(error) and self.processes:
            self._failed.wait(SOON / 2)
        self._left.set()
        self._end()
        failure = self.failure
        # What this process met is a consequence: an exchange that failed, or one that was aborted and gave no numbers.
        if failure is not None and isinstance(error, Exception) and (_of_exchange(error) or self._aborted.is_set()):
            raise failure from failure.__cause__

    def _end(self) -> None:
        for process in self.processes:
            process.kill()  # they write nothing
            process.join()
        if self._watcher is not None:
            self._watcher.join()
        for pipe in self.pipes:
            pipe.close()


def _of_exchange(error: BaseException) -> bool:
    """Whether an error may be that of an exchange whose other side is gone."""
    return type(error) is RuntimeError or isinstance(error, dist.DistError)


def end_of(code: int | None) -> str:
    """How a process ended, by its exit code; None where it is not known.

    >>> end_of(3), end_of(-15)
    ('ended with status 3', 'was killed by SIGTERM')
    """
    if code is None or code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes started in this block never get the signals of _HELD_BACK; this one gets them at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _HELD_BACK})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _open_group(folder: Path, rank: int, devices: Sequence[torch.device]) -> None:
    """Join torch.distributed's default group of all processes of a run. They meet by a file in `folder`."""
    cuda = devices[0].type == "cuda"
    if cuda:
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")  # it would end a process before the reason is known
    elif sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl" if cuda else "gloo", init_method=(folder / "meeting").as_uri(), rank=rank,
                            world_size=len(devices), timeout=PATIENCE, device_id=devices[rank] if cuda else None)


def _abort_group() -> None:
    """Leave the group without a word to the others; an exchange that waits for them fails. NCCL's way out may itself wait for
    them, so it is not waited for longer than SOON."""
    def leave() -> None:
        with contextlib.suppress(Exception):  # it may have failed already
            dist.distributed_c10d._abort_process_group()

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(SOON)


def _serve(pipe: connection.Connection, rank: int, devices: Sequence[torch.device], synchronised: bool,
           work: Callable[..., object], arguments: Sequence[Any], folder: str) -> None:
    """A further process: say that it is here, work, and say how it ended."""
    threading.Thread(target=_end_with_first, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is shared between processes, and one that is killed would leave it behind
    try:
        if devices[rank].type == "cuda":
            torch.cuda.set_device(devices[rank])
            torch.zeros(1, device=devices[rank])  # if it can't be used, that is said before the others wait
        pipe.send(None)
        _open_group(Path(folder), rank, devices)
        work(Ranks(rank, len(devices), synchronised), devices[rank], *arguments)
    except BaseException as error:
        if _of_exchange(error):
            time.sleep(1.0)  # most likely the consequence of another process's end, whose reason must come first
        pipe.send(_sendable(error, f"process {rank + 1} of {len(devices)} ({devices[rank]})"))
        os._exit(1)
    threading.Event().wait()  # killed by the first, or ended with it


def _sendable(error: BaseException, where: str) -> tuple[BaseException, str]:
    """The error, or where it can't be sent to another process one that says the same, and its traceback as a text."""
    text = f"in {where}:\n{''.join(traceback.format_exception(error))}"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return error, text


def _end_with_first() -> None:
    first = multiprocessing.parent_process()
    assert first is not None
    connection.wait([first.sentinel])
    os._exit(1)
