"""Lock files: one process at a time holds one, and others can read which process that is.

In: a path. Out: a context in which no other process holds it. The operating system releases the lock of a process that dies.
"""
from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tcn.files.atomic import storage_error

try:
    import fcntl
except ImportError:  # not on Windows: two processes at once are then not kept apart
    fcntl = None  # type: ignore[assignment]  # stands for the absent module

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Held(Exception):
    """Another process holds a lock. `holder` says which, as far as the lock file tells."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{holder} holds {path}")
        self.path, self.holder = path, holder


@contextlib.contextmanager
def lock(path: Path, about: str = "", seconds: float | None = 0.0) -> Iterator[None]:
    """Hold `path` as a lock, which it stays as a file: one process at a time, on this machine and, where the file system
    passes locks on, on others.

    about: what the holder does, for those who wait. seconds: how long to wait for another holder, None: as long as it takes.
    Raises Held where the time is over. The system lets go of a dead process's lock, whatever its file still says. Without
    locks (a file system that has none, a folder that can't be written) the block runs all the same, the former with a warning.
    """
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115 - closed by the `with` below; only opening it may fail in these ways
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES):  # nobody can write there, so nobody needs to be kept out
            yield
            return
        raise storage_error(path, error) from error
    with file:
        if not _taken(file, path, seconds):
            yield
            return
        _sign(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                                "about": about}))
        try:
            yield
        finally:
            _sign(file, "")


def _taken(file: IO[bytes], path: Path, seconds: float | None) -> bool:
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if until is not None and time.monotonic() >= until:
                raise Held(path, _holder(path)) from None
            time.sleep(0.2)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(f"{path.parent}: this file system has no locks; don't run two commands there at once", stacklevel=4)
            return False


def _sign(file: IO[bytes], text: str) -> None:
    # The signature only informs others, so a full disk must not stop the holder.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(text.encode())
        file.flush()


def holder(path: Path) -> str | None:
    """Which process holds a lock now; None where none does, even if the file still names a process that died."""
    if fcntl is None or not path.exists():
        return None
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        return _holder(path)
    except OSError:
        return None


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        about = f" ({found['about']})" if found.get("about") else ""
        return f"process {found['pid']} on {found['host']}{about}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
