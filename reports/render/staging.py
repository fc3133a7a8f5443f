"""A report's files are written aside, and put in place together once all of them are whole.

In: a folder for the report. Out: a new folder inside it to write to; `Staged.publish` moves the files to their places, the page
last. Until then an earlier report stays as it was: neither a full disk nor a killed process damages it.
"""
from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reports.read.files import ReportError
from tcn.files.atomic import StorageError, remove_partial, storage_error, write_bytes
from tcn.files.locks import Held, holder, lock

STAGED = ".unfinished-"
"""Beginning of the name of a folder that a report is written to."""
LOCK = ".lock"
WAIT_SECONDS = 60.0
"""How long a call waits for another one that puts its files in place."""


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none. A lone surrogate, which UTF-8 can't encode, is written as its code point."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Staged:
    """A new report that nobody sees yet."""

    out: Path
    folder: Path
    """Where its files are written to, under the names that they have in the report."""

    def publish(self, files: Iterable[str], last: Iterable[str], afterwards: Callable[[], None]) -> None:
        """Put the named files in their places, those of `last` after all others, and then call `afterwards`.

        Only one process at a time does this for a report.
        """
        with _locked(self.out):
            for name in [*files, *last]:
                path = self.out / name
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.folder / name, path)
                except OSError as error:
                    raise storage_error(path, error) from error
            afterwards()


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Staged]:
    """A folder inside `out` for a new report. It is removed when the block ends, as is what killed calls left behind.

    Raises ReportError, naming the file and the option --out, where a file can't be written within the block or here.
    """
    with contextlib.ExitStack() as stack:
        try:
            try:
                out.mkdir(parents=True, exist_ok=True)
                with _locked(out):
                    _remove_partial(out)
                    folder = Path(tempfile.mkdtemp(prefix=STAGED, dir=out))
                    stack.callback(shutil.rmtree, folder, ignore_errors=True)
                    stack.enter_context(lock(folder / LOCK, "writing a report"))  # says that this call is alive
            except OSError as error:
                raise storage_error(out, error) from error
            yield Staged(out, folder)
        except StorageError as error:
            cure = ("free some space, or name another folder with --out. An earlier report there is as it was" if error.full
                    else "make the folder writable, or name another one with --out")
            raise ReportError(f"{error.fault}; {cure}") from error


def _remove_partial(out: Path) -> None:
    """Remove what killed calls left behind: the system has released their locks."""
    if os.name != "posix":
        return  # without locks, a call that is alive can't be told from a killed one
    remove_partial(out)
    for folder in out.glob(f"{STAGED}*"):
        if folder.is_dir() and not folder.is_symlink() and holder(folder / LOCK) is None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the report's folder for a moment. ReportError where another call holds it for longer than WAIT_SECONDS."""
    try:
        with lock(out / LOCK, "putting a report in place", WAIT_SECONDS):
            yield
    except Held as held:
        raise ReportError(f"another call writes a report to {out} and does not end ({held.holder}); stop it, or name another "
                          "folder with --out") from None
