"""Result folders, the truth, written first and atomically; then mirrored into MLflow (the only mlflow import).

A `CellFolder` is one cell's plain files. A `Mirror` repeats them in an MLflow store; when MLflow fails, results
stay whole and a line says so.
"""
from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from baselines import ledger
from benchmarks.experiments import Cell
from tcn.config import InputError, flatten, to_dict

# No usage data leaves the machine; set before mlflow is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")

STEP_TERMS = ("step", "epoch", "class_sketch", "class_photo", "distillation", "sharing", "semantic", "total")
EPOCH_TERMS = ("epoch", "encoder_rate", "head_rate", "total", "class_sketch", "class_photo", "distillation", "sharing",
               "semantic", "seen_accuracy", "validation_map", "seconds", "pairs_per_second")
MIRRORED = ("config.json", "provenance.json", "status.json", "history.csv", "steps.csv", "metrics.csv", "per_query.csv",
            "per_query.npz", "ledger.csv", "singular_values.csv", "precision_recall.csv", "distances.npz", "examples.json",
            "diff.patch")


EXTENSION = "extension"
"""Folder of benchmarks/digits.py beside the cells; it may be there before them."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary neighbour, flush to disk, rename: no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


def read_json(path: Path) -> Any:
    """A JSON file's value; InputError naming the file where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}); delete its folder to run that cell again") from error


class CellFolder:
    """The files of one cell."""

    def __init__(self, output: Path, cell: Cell, identity: str) -> None:
        self.cell, self.identity = cell, identity
        self.path = output / "cells" / f"{cell.name}__{identity[:8]}"

    @property
    def state(self) -> str:
        """`finished`, `failed`, `interrupted`, `running` (or killed while so), or `new`."""
        if not (self.path / "status.json").exists():
            return "new"
        return read_json(self.path / "status.json")["state"]

    @property
    def epochs_done(self) -> int:
        """Epochs trained so far."""
        return read_json(self.path / "status.json")["epochs_done"] if self.state != "new" else 0

    def set_state(self, state: str, reason: str | None = None, epochs_done: int = 0, best_epoch: int | None = None
                  ) -> None:
        """Write status.json."""
        write_json(self.path / "status.json", {"state": state, "reason": reason, "epochs_done": epochs_done,
                                               "epochs": self.cell.config.training.epochs, "best_epoch": best_epoch})

    def write_config(self) -> None:
        """Write config.json: the settings that were hashed, and the variant's name."""
        write_json(self.path / "config.json", {**to_dict(self.cell.config), "variant": self.cell.variant,
                                               "identity": self.identity})


class Suite:
    """An output folder: one profile's cells and its MLflow store."""

    def __init__(self, output: Path, profile: str, smoke: bool, as_released: bool = False) -> None:
        self.output, self.profile, self.smoke, self.as_released = output, profile, smoke, as_released
        path = output / "suite.json"
        if path.exists():
            known = read_json(path)
            if (known["profile"], known["smoke"], known.get("as_released", False)) != (profile, smoke, as_released):
                there, here = (f"{'a smoke run' if s else 'a full run'} of profile '{p}'{' as released' if r else ''}"
                               for p, s, r in ((known["profile"], known["smoke"], known.get("as_released", False)),
                                               (profile, smoke, as_released)))
                raise InputError(f"the output folder {output} holds {there}, this is {here}; pass another --output, "
                                 f"nothing there was touched")
        elif output.exists() and not output.is_dir():
            raise InputError(f"--output {output} is a file; pass a folder")
        elif output.exists() and any(path.name != EXTENSION for path in output.iterdir()):
            raise InputError(f"the output folder {output} holds other files and no suite; pass another --output, "
                             f"nothing there was touched")
        try:
            output.mkdir(parents=True, exist_ok=True)
            if not os.access(output, os.W_OK):
                raise PermissionError(13, "not writable")
        except OSError as error:
            raise InputError(f"the output folder {output} can't be used ({error.strerror}); pass another --output") from error

    def write(self, folders: Sequence[CellFolder], missing: Mapping[str, str], created: str, command: str) -> None:
        """Record this call's cells beside those of earlier calls."""
        path = self.output / "suite.json"
        old = read_json(path) if path.exists() else {"cells": [], "created": created}
        entries = {entry["folder"]: entry for entry in old["cells"]}
        for folder in folders:
            cell = folder.cell
            name = str(folder.path.relative_to(self.output))
            entries[name] = {"dataset": cell.dataset, "split": cell.split, "variant": cell.variant, "seed": cell.seed,
                             "folder": name, "identity": folder.identity}
        write_json(path, {"profile": self.profile, "smoke": self.smoke, "as_released": self.as_released,
                          "created": old["created"], "command": command, "missing_datasets": dict(missing),
                          "cells": list(entries.values()), "ledger": ledger.entries()})


class Mirror:
    """Result folders repeated in MLflow: an experiment per profile, a parent run per suite, a child per cell."""

    def __init__(self, suite: Suite, command: str, tags: Mapping[str, str] | None = None) -> None:
        """`tags` are put on every cell's run, over the usual ones."""
        self.suite, self.tags = suite, dict(tags or {})
        self.alive = False
        try:
            import mlflow

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            logging.getLogger("alembic").setLevel(logging.ERROR)
            self.mlflow = mlflow
            self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(suite.output / 'mlflow.db').resolve()}"
            # A client of its own: MLflow's global address would outlive this suite in the environment.
            self.client = mlflow.MlflowClient(tracking_uri=self.uri)
            name = f"tcn-{suite.profile}" + ("-smoke" if suite.smoke else "")
            local = "MLFLOW_TRACKING_URI" not in os.environ
            experiment = self.client.get_experiment_by_name(name)
            self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(
                name, artifact_location=(suite.output / "mlartifacts").resolve().as_uri() if local else None,
                # The UI opens on curves and parameters instead of its pages for language models.
                tags={"mlflow.experimentKind": "custom_model_development"})
            self.parent = self._run_id(suite.output / "mlflow.json") or self._new_parent(command)
            self.client.update_run(self.parent, status="RUNNING")
            self.alive = True
        except Exception as error:  # any failure of the mirror must leave the results whole
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        print(f"MLflow is not available ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
              f"results are complete in {self.suite.output}", file=sys.stderr)
        self.alive = False

    def _run_id(self, note: Path) -> str | None:
        """The run recorded in `note`, if this store still has it."""
        if not note.exists():
            return None
        known = json.loads(note.read_text())
        if known.get("uri") != self.uri:
            return None
        try:
            run = self.client.get_run(known["run_id"])
        except self.mlflow.exceptions.MlflowException:
            return None
        return run.info.run_id if run.info.lifecycle_stage == "active" else None

    def _note(self, path: Path, run_id: str) -> str:
        write_json(path, {"uri": self.uri, "run_id": run_id})
        return run_id

    def _new_parent(self, command: str) -> str:
        run = self.client.create_run(self.experiment, run_name=f"suite {self.suite.profile}",
                                     tags={"kind": "suite", "profile": self.suite.profile, "command": command,
                                           "smoke": str(self.suite.smoke), "mlflow.source.name": command})
        return self._note(self.suite.output / "mlflow.json", run.info.run_id)

    def has(self, folder: CellFolder) -> bool:
        """True where the cell's run stands finished in this store."""
        run_id = self._run_id(folder.path / "mlflow.json") if self.alive else None
        return bool(run_id) and self.client.get_run(run_id).info.status == "FINISHED"

    @contextlib.contextmanager
    def cell(self, folder: CellFolder, datasets: Sequence[tuple[str, str, str]] = ()) -> Iterator["CellMirror"]:
        """The cell's MLflow run while it trains; closed as FINISHED, FAILED or KILLED by what happens inside."""
        view = CellMirror(self, folder)
        view.open(datasets)
        try:
            yield view
        except KeyboardInterrupt:
            view.close("KILLED")
            raise
        except BaseException:
            view.close("FAILED")
            raise
        view.close("FINISHED")

    def copy(self, folder: CellFolder, datasets: Sequence[tuple[str, str, str]] = (), status: str = "FINISHED") -> None:
        """Mirror a cell from its files: one that another process ran, or that this store does not have yet.

        `status`: FINISHED, FAILED or KILLED; results are mirrored where they are whole.
        """
        view = CellMirror(self, folder)
        # What this process uses of the machine says nothing about the cell.
        view.open(datasets, monitor=False)
        view.history(_read_rows(folder.path / "history.csv"), _read_rows(folder.path / "steps.csv"))
        if status == "FINISHED":
            view.results()
        view.close(status)

    def report(self, report: Path) -> None:
        """Tables, figures and the page as artifacts of the suite's run."""
        self._try(lambda: self.client.log_artifacts(self.parent, str(report), "report"))

    def close(self, status: str) -> None:
        """End the suite's run with FINISHED, FAILED or KILLED; a later call reopens it."""
        self._try(lambda: self.client.set_terminated(self.parent, status))

    def _try(self, work: Callable[[], Any]) -> None:
        if not self.alive:
            return
        try:
            work()
        except Exception as error:
            self._failed(error)


class NoMirror:
    """For processes that leave MLflow to another: the same calls as `Mirror.cell`, without effect."""

    alive = False

    @contextlib.contextmanager
    def cell(self, folder: CellFolder, datasets: Sequence[tuple[str, str, str]] = ()) -> Iterator[NoMirror]:
        """Itself, for a cell."""
        yield self

    def history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        """Nothing; the rows are in the cell's folder."""

    def results(self) -> None:
        """Nothing; the results are in the cell's folder."""


class CellMirror:
    """One cell's MLflow run; every call is a no-op once MLflow has failed."""

    def __init__(self, mirror: Mirror, folder: CellFolder) -> None:
        self.mirror, self.folder = mirror, folder
        self.run_id: str | None = None
        self._monitor: Any = None
        self._logged = [0, 0]

    def open(self, datasets: Sequence[tuple[str, str, str]], monitor: bool = True) -> None:
        """Make or reopen the run: params, tags, data sets as inputs, and where `monitor`, system metrics."""
        self.mirror._try(lambda: self._open(datasets, monitor))

    def _open(self, datasets: Sequence[tuple[str, str, str]], monitor: bool) -> None:
        mirror, folder, cell = self.mirror, self.folder, self.folder.cell
        client, mlflow = mirror.client, mirror.mlflow
        note = folder.path / "mlflow.json"
        self.run_id = mirror._run_id(note)
        if self.run_id:
            client.update_run(self.run_id, status="RUNNING")
            finished = client.get_metric_history(self.run_id, "epoch/total")
            self._logged[0] = max((int(m.step) for m in finished), default=-1) + 1
            self._logged[1] = max((int(m.step) for m in client.get_metric_history(self.run_id, "step/total")), default=0)
        else:
            provenance = read_json(folder.path / "provenance.json") if (folder.path / "provenance.json").exists() else {}
            tags = {"mlflow.parentRunId": mirror.parent, "kind": "cell", "dataset": cell.dataset, "split": cell.split,
                    "variant": cell.variant, "seed": str(cell.seed), "identity": folder.identity,
                    "trained": str(cell.trained), "smoke": str(mirror.suite.smoke), "folder": folder.path.name,
                    "commit": str(provenance.get("commit")), "device": str(provenance.get("device")), **mirror.tags}
            marks = ["smoke"] * mirror.suite.smoke + ["again"] * ("reproduces" in mirror.tags)
            run = client.create_run(mirror.experiment, tags=tags, run_name=" · ".join(
                [cell.variant, f"{cell.dataset} {cell.split}", f"seed {cell.seed}", *marks]))
            self.run_id = mirror._note(note, run.info.run_id)
            params = [mlflow.entities.Param(k, str(v)) for k, v in flatten(to_dict(cell.config)).items()]
            client.log_batch(self.run_id, params=params)
            if datasets:
                client.log_inputs(self.run_id, [mlflow.entities.DatasetInput(
                    mlflow.entities.Dataset(name=name, digest=digest[:36], source_type="local",
                                            source=json.dumps({"data set": name}), profile=about),
                    [mlflow.entities.InputTag("mlflow.data.context", name.rsplit(" ", 1)[-1])])
                    for name, digest, about in datasets])
        if not monitor:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=mirror.uri)
            self._monitor.start()
        except Exception:  # an extra: a run without it is a whole run
            self._monitor = None

    def history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        """Log the rows that are not there yet."""
        self.mirror._try(lambda: self._history(epochs, steps))

    def _history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        metric, stamp = self.mirror.mlflow.entities.Metric, int(time.time() * 1000)
        points = []
        for row in epochs:
            if int(row["epoch"]) >= self._logged[0]:
                points += [metric(f"epoch/{k}", float(v), stamp, int(row["epoch"])) for k, v in row.items()
                           if k != "epoch" and _number(v)]
        for row in steps:
            if int(row["step"]) > self._logged[1]:
                points += [metric(f"step/{k}", float(v), stamp, int(row["step"])) for k, v in row.items()
                           if k not in ("step", "epoch") and _number(v)]
        for start in range(0, len(points), 1000):
            self.mirror.client.log_batch(self.run_id, metrics=points[start:start + 1000])
        self._logged = [max([self._logged[0], *(int(r["epoch"]) + 1 for r in epochs)]),
                        max([self._logged[1], *(int(r["step"]) for r in steps)])]

    def results(self) -> None:
        """Final metrics and the plain files as artifacts."""
        self.mirror._try(self._results)

    def _results(self) -> None:
        metric, stamp = self.mirror.mlflow.entities.Metric, int(time.time() * 1000)
        points = []
        for row in _read_rows(self.folder.path / "metrics.csv"):
            if row["query_source"] == "all" and row["gallery"] == "all":
                name = "/".join([row["classes"], row["features"], row["protocol"], row["metric"].replace("@", "_at_")])
                if row.get("duplicates") == "distinct":
                    name += "/distinct"
                points.append(metric(name, float(row["value"]), stamp, 0))
        self.mirror.client.log_batch(self.run_id, metrics=points)
        for name in MIRRORED:
            if (self.folder.path / name).exists():
                self.mirror.client.log_artifact(self.run_id, str(self.folder.path / name))
        if (self.folder.path / "examples").is_dir():
            self.mirror.client.log_artifacts(self.run_id, str(self.folder.path / "examples"), "examples")

    def close(self, status: str) -> None:
        """End the run with FINISHED, FAILED or KILLED."""
        if self._monitor:
            with contextlib.suppress(Exception):
                self._monitor.finish()
        self.mirror._try(lambda: self.mirror.client.set_terminated(self.run_id, status))


def _number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))
