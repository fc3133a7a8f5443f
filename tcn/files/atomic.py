"""Write files atomically: a file appears under its name only when it is complete and on the disk.

In: paths and bytes. Out: whole files, or a StorageError that names the file and the cure. Everything that a later start
reads is written through this file.
"""
from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tcn.config import InputError

PARTIAL = ".partial"
"""Ending of a file that is being written."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(InputError):
    """A file cannot be written: no room, no permission, a broken disk. The message names the file and the way out.

    fault: the message without the way out, for commands whose way out is another one. full: whether room is what is missing.
    """

    def __init__(self, message: str, fault: str = "", full: bool = False) -> None:
        super().__init__(message)
        self.fault, self.full = fault or message, full


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to tell the user about a file that cannot be written."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in _NO_ROOM
    if full:
        with contextlib.suppress(OSError):
            reason += f", {shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free"
    fault = f"writing {path} failed ({reason})"
    cure = "free some space" if full else "make its folder writable, or choose another one,"
    return StorageError(f"{fault}; {cure} and give the same command again: what was finished is kept", fault, full)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to. When the block ends, the file is flushed to disk and replaces `path`.

    If the block raises, the file is removed. A process that is killed inside the block leaves a file ending in `.partial`, which
    nobody reads. Raises StorageError where the file cannot be written.
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
    # The new name must survive a power cut too. Not every system can flush a folder; there the file's own flush must do.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file. Raises StorageError where it cannot be written."""
    with writing(path) as out:
        out.write(content)


def remove_partial(folder: Path) -> None:
    """Remove half-written files that a killed process left directly in `folder`. No other process may be writing there."""
    for partial in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):
            partial.unlink()


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())


def writable(folder: Path, what: str, option: str) -> None:
    """Raise InputError where `folder` (called `what` in the message) is a file, or cannot be written or created."""
    try:
        there = existing_parent(folder)
        if not there.is_dir():
            raise NotADirectoryError(20, f"{there} is a file")
        with tempfile.TemporaryFile(dir=there):  # leaves nothing; some folders take no file though their mode says so
            pass
    except OSError as error:  # also a name too long, a closed folder above
        raise InputError(f"{what} {folder} can't be used ({error.strerror}); pass another {option}") from error


def writable_file(path: Path, option: str) -> None:
    """Raise InputError where the file that `option` names can't be written. Called before the work whose result it takes."""
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise InputError(f"{option} {path} can't be written ({error.strerror}); pass another file") from error
    if folder or there and not os.access(path, os.W_OK):
        raise InputError(f"{option} {path} {'is a folder' if folder else 'is not to be written to'}; pass another file")
    if not there:
        writable(path.parent, f"{option} {path}: its folder", option)


def amount(size: float) -> str:
    """A number of bytes for people: "1.2 GB", "34 MB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def room(folder: Path, needed: int, what: str) -> None:
    """Raise StorageError where `folder` has no room for `needed` bytes. Called before hours are spent on them."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(f"no room for {what}: {needed / 1e6:,.0f} MB are needed in {folder}, {free / 1e6:,.0f} MB are free; "
                           f"free some space and give the same command again")


def warn(line: str) -> None:
    """Print one line to standard error."""
    print(line, file=sys.stderr, flush=True)
