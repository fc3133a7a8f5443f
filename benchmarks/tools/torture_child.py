"""Starts the command of the kill test in a child process, counts its writes, and kills it.

In: arguments of run_all.py. Out: process ids and exit statuses.
"""
from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WRITES = ("replace", "fsync", "unlink", "rename")
"""Functions of the os module through which files appear, are flushed to the disk, or disappear."""


def _count_writes(at: int | None, after: bool, counter: Path | None) -> None:
    """Count this process's writes, and kill the process before or after the write with number `at`."""
    done = itertools.count(1)

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            number = next(done)
            if number == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if counter is not None:
                counter.write_text(str(number))
            return result
        return counted

    for name in WRITES:
        setattr(os, name, wrapped(getattr(os, name)))


def child(arguments: Sequence[str], log: Path, fresh: bool, at: int | None = None, after: bool = False,
          counter: Path | None = None) -> int:
    """Start the command in its own process group; returns its process id. With `fresh` it is a new interpreter, else a fork of
    this process, which has everything imported already."""
    if fresh:
        with open(log, "ab") as out:
            return subprocess.Popen([sys.executable, "benchmarks/run_all.py", *arguments], cwd=ROOT, stdout=out, stderr=out,
                                    start_new_session=True).pid
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        # The caller, such as pytest, may have replaced both streams.
        sys.stdout = sys.stderr = open(  # noqa: SIM115 - open as long as the process lives
            2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        # Imported before writes are counted, since run_all would import them only later.
        from benchmarks import prepared, run_all  # noqa: F401

        if at is not None or counter is not None:
            _count_writes(at, after, counter)
        status = run_all.main(list(arguments))
    except BaseException:  # the child must end here, or there would be two copies of the parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int) -> int | None:
    """The exit status of a child, negative if a signal ended it, or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return None if not found else os.waitstatus_to_exitcode(status)


def wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while (status := ended(pid)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return status


def kill(pid: int, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
