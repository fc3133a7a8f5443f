"""A report's files: written aside, and put in place together once all of them are whole.

In: a folder for the report. Out: `Staged`, a new folder in it to write to; `publish` moves its files to their places, the
page last. Until then an earlier report stays as it was: a full disk or a killed process costs nothing of it.
"""
from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from reports.read.files import ReportError

try:
    import fcntl
except ImportError:  # not on Windows: two renders at once are then not kept apart
    fcntl = None

STAGED = ".unfinished-"
"""Beginning of the name of a folder that a report is written to."""
LOCK = ".lock"
WAIT_SECONDS = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_error(path: Path, error: OSError) -> ReportError:
    """What to tell the user about a file or folder that can't be written."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        free = ""
        with contextlib.suppress(OSError):
            free = f", {shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free"
        return ReportError(f"writing {path} failed ({reason}{free}); free some space, or name another folder with --out. "
                           "An earlier report there is as it was")
    return ReportError(f"writing {path} failed ({reason}); make the folder writable, or name another one with --out")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it takes the place of `path` when the block ends, and is removed where it raises.

    Raises ReportError, naming `path`, where it can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as written:
            os.fsync(written)  # else the name may outlive a power cut without its contents
        os.replace(partial, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A whole UTF-8 file or none; a letter that UTF-8 has not, half of a pair, stands as its code point."""
    with writing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


class Staged:
    """A new report that nobody sees yet. `folder`: where its files are written to, under their names in the report."""

    def __init__(self, out: Path, folder: Path, alive: IO[bytes]) -> None:
        self.out, self.folder, self._alive = out, folder, alive

    def publish(self, files: Iterable[str], last: Iterable[str], afterwards: Callable[[], None]) -> None:
        """Put the named files in their places, `last` after all others; one call at a time does this and what comes after."""
        with _locked(self.out):
            for name in [*files, *last]:
                path = self.out / name
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.folder / name, path)
                except OSError as error:
                    raise write_error(path, error) from error
            afterwards()


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Staged]:
    """A folder in `out` for a new report; it is gone when the block ends, and what killed calls left behind is gone too."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            _sweep(out)
            folder = Path(tempfile.mkdtemp(prefix=STAGED, dir=out))
            alive = open(folder / LOCK, "wb")
            _take(alive)
    except OSError as error:
        raise write_error(out, error) from error
    try:
        yield Staged(out, folder, alive)
    finally:
        alive.close()
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove the folders of calls that were killed: the system has let go of their locks."""
    for folder in out.glob(f"{STAGED}*"):
        if fcntl is None or not folder.is_dir() or folder.is_symlink():
            continue
        try:
            with open(folder / LOCK, "ab") as file:
                dead = _take(file)
        except OSError:
            dead = False
        if dead:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the report's folder for a moment. ReportError where another call holds it for WAIT_SECONDS, which none should."""
    try:
        file = open(out / LOCK, "ab")
    except OSError as error:
        raise write_error(out / LOCK, error) from error
    with file:
        until = time.monotonic() + WAIT_SECONDS
        while not _take(file):
            if time.monotonic() > until:
                raise ReportError(f"another call writes a report to {out} and does not end; stop it, or name another folder "
                                  "with --out")
            time.sleep(0.05)
        yield


def _take(file: IO[bytes]) -> bool:
    """Whether the lock is ours now; true as well where the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
