"""Result folders, the truth: one run's plain files, and the suite that lists the runs. Written whole or not at all.

A `RunFolder` is one run's files (benchmarks/result_folder.py: its lock, states, checksums). A `Suite` is an output folder.
benchmarks/mirror.py repeats both in MLflow.
"""
from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines import ledger, method_of
from benchmarks.experiments import PlannedRun
from benchmarks.records import read_json, write_json
from benchmarks.result_folder import LOCK, ResultFolder, State, differing
from tcn.config import BUILT_IN, InputError, from_dict, to_dict
from tcn.files import earlier
from tcn.files.atomic import remove_partial, warn, writable, write_bytes
from tcn.files.locks import lock

STEP_TERMS = ("step", "epoch", "class_sketch", "class_photo", "distillation", "sharing", "semantic", "total")
EPOCH_TERMS = ("epoch", "encoder_rate", "head_rate", "total", "class_sketch", "class_photo", "distillation", "sharing",
               "semantic", "seen_accuracy", "validation_map", "seconds", "pairs_per_second")
EXTENSION = "extension"
"""Folder of benchmarks/digits.py beside the runs; it may be there before them."""
CROSS_DATASET = "cross-dataset"
"""Folder of benchmarks/cross_dataset.py beside the runs."""
PICTURES = "pictures"
"""Folder of small pictures for the report beside the runs (benchmarks/picture_sheets.py)."""


def read_config(folder: Path) -> tuple[PlannedRun, str]:
    """The run of a folder, by its config.json, and its identity. InputError naming the file where it can't be read. Of a method
    of the user's own nothing is looked up, and nothing run."""
    path = folder / "config.json"
    settings = read_json(path)
    variant, identity = settings.pop("variant", None), settings.pop("identity", "")
    if not isinstance(variant, str) or not isinstance(identity, str):
        raise InputError(f"{path} names no variant or no identity; move its folder away to run that run again")
    try:
        config = from_dict(settings)
        if config.method_source == BUILT_IN:
            method_of(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return PlannedRun(config.data.dataset, config.data.split, variant, config), identity


class RunFolder(ResultFolder):
    """The files of one run."""

    required = frozenset({"config.json", "metrics.csv"})

    def __init__(self, output: Path, run: PlannedRun, identity: str) -> None:
        super().__init__(earlier.runs_folder(output) / f"{run.name}__{identity[:8]}")
        self.run, self.identity = run, identity

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """The run that a folder holds, by its config.json. InputError where that can't be read."""
        run, identity = read_config(path)
        found = cls(path.parent.parent, run, identity)
        if found.path != path:
            raise InputError(f"{path / 'config.json'} is another run's ({found.path.name}); move its folder away to run it "
                             f"again")
        return found

    def _parsed(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return super()._parsed(found) | {"epochs_done": int(found["epochs_done"]), "best_epoch": found.get("best_epoch")}

    def _blank(self) -> dict[str, Any]:
        return super()._blank() | {"epochs_done": 0, "best_epoch": None}

    @property
    def epochs_done(self) -> int:
        """Epochs trained so far."""
        return self.status["epochs_done"]

    def set_state(self, state: State, reason: str | None = None, epochs_done: int = 0, best_epoch: int | None = None
                  ) -> None:
        """Write status.json."""
        self._write_status(state, reason, epochs_done=epochs_done, epochs=self.run.config.training.epochs,
                           best_epoch=best_epoch)

    def write_config(self) -> None:
        """Write config.json: the settings that were hashed, and the variant's name."""
        settings = to_dict(self.run.config)
        for group, name in ((settings, "method_source"), (settings["data"], "declared")):
            if group[name] == BUILT_IN:  # as in the folders from before there was any other
                del group[name]
        write_json(self.path / "config.json", {**settings, "variant": self.run.variant, "identity": self.identity})

    def set_aside(self) -> Path | None:
        """Like ResultFolder's; the run that takes the folder's place keeps its MLflow run."""
        target = super().set_aside()
        if target and (note := target / "mlflow.json").exists():
            write_bytes(self.path / "mlflow.json", note.read_bytes())
        return target


def damaged(folder: Path) -> list[str]:
    """Files of a finished run that are gone or not as they were sealed (`result_folder.differing`)."""
    return differing(folder, RunFolder.required)


class SuiteFolder:
    """An output folder: one profile's runs and its MLflow store."""

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
    def open(cls, output: Path) -> SuiteFolder:
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
        """Be the only one who writes what belongs to all runs; waits for others."""
        with lock(self.output / LOCK, about, None):
            yield

    def folders(self) -> list[RunFolder]:
        """Every run of the suite whose folder is there; one that can't be read is named and left out."""
        found = []
        for entry in self.head()["runs"]:
            path = self.output / entry["folder"]
            if not path.is_dir() or path.parent != earlier.runs_folder(self.output):
                continue
            try:
                found.append(RunFolder.read(path))
            except InputError as error:
                warn(f"left out: {error}")
        return found

    def write(self, folders: Sequence[RunFolder], missing: Mapping[str, str], created: str, command: str,
              cut: Mapping[str, Any] | None = None) -> None:
        """Record this call's runs beside those of earlier calls, and of folders that no list names. `cut`: what a budget left out
        of the plan (benchmarks/everything.py), empty for nothing; None leaves the record as it is."""
        with self.lock("writing suite.json"):
            remove_partial(self.output)
            path = self.output / "suite.json"
            old: dict[str, Any] = self.head() if path.exists() else {"runs": [], "created": created}
            entries = {entry["folder"]: entry for entry in old["runs"]}
            for folder in (*self._unlisted(set(entries)), *folders):
                run = folder.run
                name = str(folder.path.relative_to(self.output))
                entries.pop(name, None)  # of several settings of a row, the report shows the one planned last
                entries[name] = {"dataset": run.dataset, "split": run.split, "variant": run.variant, "seed": run.seed,
                                 "folder": name, "identity": folder.identity}
            write_json(path, {"id": old.get("id") or uuid.uuid4().hex, "profile": self.profile, "smoke": self.smoke,
                              "as_released": self.as_released, "created": old["created"], "command": command,
                              "missing_datasets": dict(missing), "runs": list(entries.values()),
                              "ledger": ledger.entries(), "cut": old.get("cut", {}) if cut is None else dict(cut)})

    def _unlisted(self, listed: set[str]) -> list[RunFolder]:
        """Runs whose folder is there though the list lost them."""
        found = []
        for path in sorted(earlier.runs_folder(self.output).glob("*/config.json")):
            if str(path.parent.relative_to(self.output)) not in listed:
                try:
                    found.append(RunFolder.read(path.parent))
                except InputError as error:
                    warn(f"left out: {error}")
        return found


def _may_precede(path: Path) -> bool:
    """What may lie in an output folder without a suite.json: the extension, and what is left where that file was lost."""
    return (path.name in (EXTENSION, CROSS_DATASET, PICTURES, LOCK, "runs", "cells", "mlflow.db", "mlflow.json", "mlartifacts",
                          "report", "damaged", "workers", "slurm")
            or path.name.startswith("suite.json."))


def _head(path: Path) -> dict[str, Any]:
    try:
        found = earlier.head(json.loads(path.read_text(encoding="utf-8")))
        if not (isinstance(found["profile"], str) and isinstance(found["smoke"], bool) and isinstance(found["created"], str)
                and isinstance(found.get("as_released", False), bool) and isinstance(found.get("id") or "", str)
                and all(isinstance(entry["folder"], str) for entry in found["runs"])):
            raise ValueError("a field has another type")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); move it away: the next call lists the runs anew "
                         f"from their folders") from error
