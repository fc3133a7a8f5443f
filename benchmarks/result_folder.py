"""The folder of one run, whatever the run is: who works on it, how far it is, and whether its files are as they were written.

In: a path. Out: status.json, a lock, SHA256SUMS once the run is finished. A finished run whose files were changed since is set
aside, and counts as not run.
"""
from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from benchmarks.records import read_json, write_json
from tcn.config import InputError
from tcn.files.atomic import remove_partial, warn, write_bytes
from tcn.files.checksums import SUMS, file_digest, read_sums, write_line
from tcn.files.inside import is_inside
from tcn.files.locks import Held, holder, lock
from tcn.train import checkpoints

State = Literal["running", "finished", "failed", "interrupted"]
"""What set_state writes; a folder without status.json is `new`."""
LOCK = ".lock"
"""Held by the process that works on a run, or writes what belongs to all of them."""
CHECKPOINT = "checkpoint.pt"
CHECKED_BYTES = 8_000_000
"""Files up to this size are compared with their checksum whenever a finished run is met; larger ones (features, checkpoint)
carry checksums of their own, which are compared when they are read."""
_UNSEALED = re.compile(rf"status\.json|mlflow\.json|error\.txt|\.lock|{SUMS}|.*\.partial|epoch-\d+\.pt")
"""Files that change, or go, after a run is sealed."""


def is_own(path: Path, folder: Path) -> bool:
    """Whether this is a file of a folder: no link, and nothing that lies elsewhere."""
    return is_inside(path, folder) and not path.is_symlink()


class ResultFolder:
    """The files of one run, in OUTPUT/KIND/NAME."""

    required: frozenset[str] = frozenset({"config.json"})
    """Files that the checksums of a finished run have to name: a list that was cut between two lines would vouch for less."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def status(self) -> dict[str, Any]:
        """state: `finished`, `failed`, `interrupted`, `running` (or killed while so), or `new`; reason; and what a subclass adds.
        A status that is damaged reads as `interrupted`: the checkpoints know how far the run is."""
        path = self.path / "status.json"
        if not path.exists():
            return self._blank()
        try:
            return self._parsed(read_json(path))
        except (InputError, KeyError, TypeError, ValueError):
            warn(f"{path} is damaged; the run is taken up at its last checkpoint")
            return {**self._blank(), "state": "interrupted", "reason": f"{path.name} is damaged"}

    def _parsed(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of status.json. KeyError, TypeError or ValueError where it is damaged."""
        return {"state": str(found["state"]), "reason": found["reason"]}

    def _blank(self) -> dict[str, Any]:
        """The status of a folder without status.json."""
        return {"state": "new", "reason": None}

    @property
    def state(self) -> str:
        """`status`' state."""
        return self.status["state"]

    def _write_status(self, state: State, reason: str | None, **more: Any) -> None:
        write_json(self.path / "status.json", {"state": state, "reason": reason, **more})

    @contextlib.contextmanager
    def claim(self, about: str, seconds: float | None = 0.5) -> Iterator[None]:
        """Be the only one who works on this run. Raises tcn.files.locks.Held, which says who does, after waiting so long (half a
        second: somebody may only have looked; None: as long as it takes)."""
        with lock(self.path / LOCK, about, seconds):
            for folder in (self.path, self.path / "examples"):
                remove_partial(folder)  # what is half-written now is a dead process's
            yield

    def holder(self) -> str | None:
        """Who works on this run now, if anybody."""
        return holder(self.path / LOCK)

    def seal(self) -> None:
        """Write the checksums of all files: the run is whole."""
        lines = [write_line(file_digest(path), path.relative_to(self.path).as_posix()) for path in sorted(self.path.rglob("*"))
                 if path.is_file() and not _UNSEALED.fullmatch(path.name)]
        write_bytes(self.path / SUMS, "".join(lines).encode())

    def damaged(self) -> list[str]:
        """Its files that are not as they were sealed (`differing`)."""
        return differing(self.path, self.required)

    def set_aside(self) -> Path | None:
        """Move a damaged run's folder out of the way, to OUTPUT/damaged. Raises Held where somebody works on it; None where
        another process has set it aside meanwhile, and perhaps begun it anew."""
        base = self.path.parent.parent / "damaged"
        number = next(n for n in range(1, 10_000) if not (base / f"{self.path.name}-{n}").exists())
        target = base / f"{self.path.name}-{number}"
        with self.claim("moving a damaged run aside"):
            if self.state != "finished" or not self.damaged():
                return None
            base.mkdir(exist_ok=True)
            self.path.rename(target)
        return target

    def whole(self) -> bool:
        """Whether the run is finished. One whose files are not as they were written is named, set aside, and does not count."""
        if self.state != "finished":
            return False
        if not (bad := self.damaged()):
            checkpoints.forget(self.path)  # a process that died in the moment of finishing left them
            return True
        with contextlib.suppress(Held):  # another call is at it already
            if target := self.set_aside():
                warn(f"{self.path.name}: not as it was written: {', '.join(bad)}; set aside as {target} and run again")
        return False


def differing(folder: Path, required: Collection[str]) -> list[str]:
    """Files of a finished run, of CHECKED_BYTES at most, that are gone or not as they were sealed; larger ones that are gone,
    except the checkpoint, which no table is made of. Empty for a run of an earlier version, without checksums.

    required: names that the list of checksums has to hold; where one is missing, the list itself is damaged.
    """
    path = folder / SUMS
    if not path.exists():
        return []
    found, listed = [], set()
    try:
        lines = read_sums(folder)
    except (OSError, ValueError):
        return [SUMS]
    for digest, name in lines:
        file = folder / name
        listed.add(name)
        try:
            if not re.fullmatch("[0-9a-f]{64}", digest) or not name or not _within(name):
                found.append(SUMS)
            elif not file.is_file() and name == CHECKPOINT:
                continue  # the user may have wanted the room
            elif not file.is_file() or (file.stat().st_size <= CHECKED_BYTES and file_digest(file) != digest):
                found.append(name)
        except (OSError, ValueError):  # ValueError: a name that no file can have
            found.append(name)
    return sorted({*found, *([] if listed >= set(required) else [SUMS])})


def _within(name: str) -> bool:
    """Whether a name from a file stays below the folder it is taken in."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts
