"""Files that are whole or not there, and locks that say who holds them.

In: paths and bytes. Out: files that appear under their name only when they are complete and on the disk; locks that the system
takes back from a process that dies. Everything that a later start reads is written here.
"""
from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tcn.config import InputError

try:
    import fcntl
except ImportError:  # not on Windows: two processes at once are then not kept apart
    fcntl = None

PARTIAL = ".partial"
"""Ending of a file that is being written."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class StorageError(InputError):
    """A file can't be written: no room, no permission, a broken disk. The message names the file and the way out."""


class Held(Exception):
    """Somebody else holds a lock; `holder` says who, as far as the lock file tells."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{holder} holds {path}")
        self.path, self.holder = path, holder


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to tell the user about a file that can't be written."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _NO_ROOM:
        free = ""
        with contextlib.suppress(OSError):
            free = f", {shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free"
        return StorageError(f"writing {path} failed ({reason}{free}); free some space and give the same command again: what was "
                            f"finished is kept")
    return StorageError(f"writing {path} failed ({reason}); make its folder writable, or choose another one, and give the same "
                        f"command again: what was finished is kept")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to: it takes the place of `path` when the block ends, flushed to disk before, and is removed
    where the block raises. A process killed in it leaves a neighbour ending in `.partial`, which nobody reads.

    Raises StorageError where it can't be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The new name itself must outlive a power cut; where folders can't be flushed, the file's own flush has to do.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """A whole file in one go; StorageError where it can't be written."""
    with writing(path) as out:
        out.write(content)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written directly in `folder`; only where no other process writes there."""
    for partial in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):
            partial.unlink()


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
        file = open(path, "a+b")
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
    # Who holds it is a courtesy to others: a full disk must not stop the holder.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(text.encode())
        file.flush()


def holder(path: Path) -> str | None:
    """Who holds a lock now; None where nobody does, also where a dead process's name still stands in the file."""
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


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())


def writable(folder: Path, what: str, option: str) -> None:
    """InputError where `folder`, called `what`, is a file, or neither it nor the nearest folder above it can be written."""
    try:
        there = existing_parent(folder)
        if not there.is_dir():
            raise NotADirectoryError(20, f"{there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(13, f"{there} can't be written")
    except OSError as error:  # also a name too long, a closed folder above
        raise InputError(f"{what} {folder} can't be used ({error.strerror}); pass another {option}") from error


def amount(size: float) -> str:
    """Bytes as people read them: "1.2 GB", "34 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def room(folder: Path, needed: int, what: str) -> None:
    """StorageError, said before hours are spent, where `folder` has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(f"no room for {what}: {needed / 1e6:,.0f} MB are needed in {folder}, {free / 1e6:,.0f} MB are free; "
                           f"free some space and give the same command again")


def complain(line: str) -> None:
    """A line to standard error, so that what had to be done differently is not done silently."""
    print(line, file=sys.stderr, flush=True)
