"""Result folders, the truth: one cell's plain files, and the suite that lists the cells. Written whole or not at all.

A `CellFolder` is one cell's files, with a lock that says who works on it and checksums once it is finished. A `Suite` is an
output folder. benchmarks/mirror.py repeats both in MLflow.
"""
from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines import ledger, method_named
from benchmarks.experiments import Cell
from tcn.config import InputError, from_dict, to_dict
from tcn.files.atomic import complain, sweep, writable, write_bytes
from tcn.files.checksums import SUMS, file_digest, read_sums, write_line
from tcn.files.locks import Held, holder, lock
from tcn.train import checkpoints

STEP_TERMS = ("step", "epoch", "class_sketch", "class_photo", "distillation", "sharing", "semantic", "total")
EPOCH_TERMS = ("epoch", "encoder_rate", "head_rate", "total", "class_sketch", "class_photo", "distillation", "sharing",
               "semantic", "seen_accuracy", "validation_map", "seconds", "pairs_per_second")
EXTENSION = "extension"
"""Folder of benchmarks/digits.py beside the cells; it may be there before them."""
LOCK = ".lock"
"""Held by the process that works on a cell, or writes what belongs to all of them."""
CHECKPOINT = "checkpoint.pt"
CHECKED_BYTES = 8_000_000
"""Files up to this size are compared with their checksum whenever a finished cell is met; larger ones (features, checkpoint)
carry checksums of their own, which are compared when they are read."""
_UNSEALED = re.compile(rf"status\.json|mlflow\.json|error\.txt|\.lock|{SUMS}|.*\.partial|epoch-\d+\.pt")
"""Files that change, or go, after a cell is sealed."""


def write_json(path: Path, value: Any) -> None:
    """A JSON file, readable by people."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A CSV with `columns` first and any further keys after them; absent values are empty."""
    extra = dict.fromkeys(key for row in rows for key in row if key not in columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: ("" if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode())


def read_json(path: Path, cure: str = "move its folder away to run that cell again") -> dict[str, Any]:
    """The object in a JSON file; InputError naming the file, and the `cure`, where it is missing, damaged or holds no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({type(error).__name__}: {error}); {cure}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} can't be read (it holds a {type(found).__name__} in place of an object); {cure}")
    return found


def count(text: str) -> int:
    """A whole number from 0 that every reader can hold; ValueError for others."""
    if not 0 <= (number := int(text)) < 1 << 53:
        raise ValueError(f"{text} is no count")
    return number


def word(text: str) -> str:
    """A name as this project gives them, fit for a column or a metric; ValueError for others."""
    if not re.fullmatch(r"[\w@.-]{1,80}", text):
        raise ValueError(f"{text!r} is no name")
    return text


def read_rows(path: Path, columns: Mapping[str, Callable[[str], Any]] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file, none where there is no file. InputError naming file and line where it can't be read, a line has
    another number of fields than the header, or a field of `columns` is not what its function (`float`, `count`, `word`)
    takes."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as source:
            rows = list(csv.DictReader(source))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} can't be read ({error}); move its folder away to run that cell again") from error
    if rows and (odd := [name for name in rows[0] if name is not None and not re.fullmatch(r"[\w@.-]{1,80}", name)]):
        raise InputError(f"{path}, line 1: {odd[0]!r:.60} is no name of a column")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f"{path}, line {line}: another number of fields than the header has")
        for name, kind in (columns or {}).items():
            try:
                kind(row[name])
            except (KeyError, ValueError) as error:
                raise InputError(f"{path}, line {line}: '{name}' is {row.get(name)!r:.60}, no {kind.__name__}") from error
    return rows


def read_config(folder: Path) -> tuple[Cell, str]:
    """The cell of a folder, by its config.json, and its identity. InputError naming the file where it can't be read."""
    path = folder / "config.json"
    settings = read_json(path)
    variant, identity = settings.pop("variant", None), settings.pop("identity", "")
    if not isinstance(variant, str) or not isinstance(identity, str):
        raise InputError(f"{path} names no variant or no identity; move its folder away to run that cell again")
    try:
        config = from_dict(settings)
        method_named(config.method)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Cell(config.data.dataset, config.data.split, variant, config), identity


class CellFolder:
    """The files of one cell."""

    def __init__(self, output: Path, cell: Cell, identity: str) -> None:
        self.cell, self.identity = cell, identity
        self.path = output / "cells" / f"{cell.name}__{identity[:8]}"

    @classmethod
    def read(cls, path: Path) -> CellFolder:
        """The cell that a folder holds, by its config.json. InputError where that can't be read."""
        cell, identity = read_config(path)
        found = cls(path.parent.parent, cell, identity)
        if found.path != path:
            raise InputError(f"{path / 'config.json'} is another cell's ({found.path.name}); move its folder away to run it "
                             f"again")
        return found

    @property
    def status(self) -> dict[str, Any]:
        """state: `finished`, `failed`, `interrupted`, `running` (or killed while so), or `new`; reason; epochs_done, epochs,
        best_epoch. A status that is damaged reads as `interrupted`: the checkpoints know how far the cell is."""
        path = self.path / "status.json"
        blank = {"state": "new", "reason": None, "epochs_done": 0, "best_epoch": None}
        if not path.exists():
            return blank
        try:
            found = read_json(path)
            return {**blank, "state": str(found["state"]), "reason": found["reason"], "epochs_done": int(found["epochs_done"]),
                    "best_epoch": found.get("best_epoch")}
        except (InputError, KeyError, TypeError, ValueError):
            complain(f"{path} is damaged; the cell is taken up at its last checkpoint")
            return {**blank, "state": "interrupted", "reason": f"{path.name} is damaged"}

    @property
    def state(self) -> str:
        """`status`' state."""
        return self.status["state"]

    @property
    def epochs_done(self) -> int:
        """Epochs trained so far."""
        return self.status["epochs_done"]

    def set_state(self, state: str, reason: str | None = None, epochs_done: int = 0, best_epoch: int | None = None
                  ) -> None:
        """Write status.json."""
        write_json(self.path / "status.json", {"state": state, "reason": reason, "epochs_done": epochs_done,
                                               "epochs": self.cell.config.training.epochs, "best_epoch": best_epoch})

    def write_config(self) -> None:
        """Write config.json: the settings that were hashed, and the variant's name."""
        write_json(self.path / "config.json", {**to_dict(self.cell.config), "variant": self.cell.variant,
                                               "identity": self.identity})

    @contextlib.contextmanager
    def claim(self, about: str, seconds: float = 0.5) -> Iterator[None]:
        """Be the only one who works on this cell. Raises tcn.files.locks.Held, which says who does, after waiting so long (half a
        second: somebody may only have looked)."""
        with lock(self.path / LOCK, about, seconds):
            for folder in (self.path, self.path / "examples"):
                sweep(folder)  # what is half-written now is a dead process's
            yield

    def holder(self) -> str | None:
        """Who works on this cell now, if anybody."""
        return holder(self.path / LOCK)

    def seal(self) -> None:
        """Write the checksums of all files: the cell is whole."""
        lines = [write_line(file_digest(path), path.relative_to(self.path).as_posix()) for path in sorted(self.path.rglob("*"))
                 if path.is_file() and not _UNSEALED.fullmatch(path.name)]
        write_bytes(self.path / SUMS, "".join(lines).encode())

    def damaged(self) -> list[str]:
        """Its files that are not as they were sealed (`damaged` of its folder)."""
        return damaged(self.path)

    def set_aside(self) -> Path:
        """Move the folder out of the way, to OUTPUT/damaged, keeping its MLflow run for the cell that takes its place."""
        base = self.path.parent.parent / "damaged"
        number = next(n for n in range(1, 10_000) if not (base / f"{self.path.name}-{n}").exists())
        target = base / f"{self.path.name}-{number}"
        with self.claim("moving a damaged cell aside"):
            base.mkdir(exist_ok=True)
            self.path.rename(target)
        note = target / "mlflow.json"
        if note.exists():
            write_bytes(self.path / "mlflow.json", note.read_bytes())
        return target

    def whole(self) -> bool:
        """Whether the cell is finished; one whose files are not as they were written is named, set aside, and not."""
        if self.state != "finished":
            return False
        if not (bad := self.damaged()):
            checkpoints.forget(self.path)  # a process that died in the moment of finishing left them
            return True
        with contextlib.suppress(Held):  # another call is at it already
            complain(f"{self.path.name}: not as it was written: {', '.join(bad)}; set aside as {self.set_aside()} and run again")
        return False


def damaged(folder: Path) -> list[str]:
    """Files of a finished cell, of CHECKED_BYTES at most, that are gone or not as they were sealed; larger ones that are gone,
    but for the checkpoint, which no table is made of. Empty for a cell of an earlier version, without checksums."""
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
    # A list that was cut between two lines would vouch for less.
    return sorted({*found, *([] if {"config.json", "metrics.csv"} <= listed else [SUMS])})


def _within(name: str) -> bool:
    """Whether a name from a file stays below the folder it is taken in."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


class Suite:
    """An output folder: one profile's cells and its MLflow store."""

    def __init__(self, output: Path, profile: str, smoke: bool, as_released: bool = False) -> None:
        self.output, self.profile, self.smoke, self.as_released = output, profile, smoke, as_released
        self.check(output, profile, smoke, as_released)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the output folder {output} can't be used ({error.strerror}); pass another --output") from error

    @staticmethod
    def check(output: Path, profile: str, smoke: bool, as_released: bool = False) -> None:
        """InputError where `output` can't become, or be written as, the folder of such a suite. Nothing is made."""
        path = output / "suite.json"
        if path.exists():
            known = _head(path)
            if (known["profile"], known["smoke"], known.get("as_released", False)) != (profile, smoke, as_released):
                there, here = (f"{'a smoke run' if s else 'a full run'} of profile '{p}'{' as released' if r else ''}"
                               for p, s, r in ((known["profile"], known["smoke"], known.get("as_released", False)),
                                               (profile, smoke, as_released)))
                raise InputError(f"the output folder {output} holds {there}, this is {here}; pass another --output, "
                                 f"nothing there was touched")
        elif output.exists() and not output.is_dir():
            raise InputError(f"--output {output} is a file; pass a folder")
        elif output.exists() and any(not _may_precede(path) for path in output.iterdir()):
            raise InputError(f"the output folder {output} holds other files and no suite; pass another --output, "
                             f"nothing there was touched")
        writable(output, "the output folder", "--output")

    @classmethod
    def open(cls, output: Path) -> Suite:
        """The suite in a folder, whatever its profile. InputError where there is none, or suite.json is damaged."""
        if not (output / "suite.json").exists():
            raise InputError(f"{output} holds no suite (no suite.json); pass the --output of an earlier call")
        known = _head(output / "suite.json")
        return cls(output, known["profile"], known["smoke"], known.get("as_released", False))

    def head(self) -> dict[str, Any]:
        """suite.json. InputError where it is damaged."""
        return _head(self.output / "suite.json")

    @property
    def id(self) -> str:
        """A name of this suite that no other has, by which its runs are found in an MLflow store."""
        return self.head()["id"]

    @contextlib.contextmanager
    def lock(self, about: str) -> Iterator[None]:
        """Be the only one who writes what belongs to all cells; waits for others."""
        with lock(self.output / LOCK, about, None):
            yield

    def folders(self) -> list[CellFolder]:
        """Every cell of the suite whose folder is there; one that can't be read is named and left out."""
        found = []
        for entry in self.head()["cells"]:
            path = self.output / entry["folder"]
            if not path.is_dir() or path.parent != self.output / "cells":
                continue
            try:
                found.append(CellFolder.read(path))
            except InputError as error:
                complain(f"left out: {error}")
        return found

    def write(self, folders: Sequence[CellFolder], missing: Mapping[str, str], created: str, command: str) -> None:
        """Record this call's cells beside those of earlier calls, and of folders that no list names."""
        with self.lock("writing suite.json"):
            sweep(self.output)
            path = self.output / "suite.json"
            old = self.head() if path.exists() else {"cells": [], "created": created}
            entries = {entry["folder"]: entry for entry in old["cells"]}
            for folder in (*self._unlisted(set(entries)), *folders):
                cell = folder.cell
                name = str(folder.path.relative_to(self.output))
                entries[name] = {"dataset": cell.dataset, "split": cell.split, "variant": cell.variant, "seed": cell.seed,
                                 "folder": name, "identity": folder.identity}
            write_json(path, {"id": old.get("id") or uuid.uuid4().hex, "profile": self.profile, "smoke": self.smoke,
                              "as_released": self.as_released, "created": old["created"], "command": command,
                              "missing_datasets": dict(missing), "cells": list(entries.values()),
                              "ledger": ledger.entries()})

    def _unlisted(self, listed: set[str]) -> list[CellFolder]:
        """Cells whose folder is there though the list lost them."""
        found = []
        for path in sorted((self.output / "cells").glob("*/config.json")):
            if f"cells/{path.parent.name}" not in listed:
                try:
                    found.append(CellFolder.read(path.parent))
                except InputError as error:
                    complain(f"left out: {error}")
        return found


def _may_precede(path: Path) -> bool:
    """What may lie in an output folder without a suite.json: the extension, and what is left where that file was lost."""
    return (path.name in (EXTENSION, LOCK, "cells", "mlflow.db", "mlflow.json", "mlartifacts", "report", "damaged", "workers")
            or path.name.startswith("suite.json."))


def _head(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(found["profile"], str) and isinstance(found["smoke"], bool) and isinstance(found["created"], str)
                and isinstance(found.get("as_released", False), bool) and isinstance(found.get("id") or "", str)
                and all(isinstance(entry["folder"], str) for entry in found["cells"])):
            raise ValueError("a field has another type")
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); move it away: the next call lists the cells anew "
                         f"from their folders") from error
