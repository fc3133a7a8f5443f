"""Copy what result folders say into an MLflow store: while runs are computed, and later from the files alone.

In: a `Suite` and its `RunFolder`s. Out: one parent run for each suite and one child run for each folder, in the state that the
folder is in. When MLflow fails, the result folders stay complete, a message says so, and `run_all.py --sync` copies them later.
The file is long because `Mirror` and `RunMirror` share one client, its retries and its state after a failure, and because no
other file imports MLflow.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import exhibits
from benchmarks.moved import STORE, address, artifact_root, set_addresses
from benchmarks.records import count, read_json, read_rows, word, write_json
from benchmarks.result_folder import LOCK, is_own
from benchmarks.store import RunFolder, SuiteFolder
from tcn.config import InputError, flatten, to_dict
from tcn.files import earlier
from tcn.files.atomic import PARTIAL, remove_partial
from tcn.files.locks import Held, holder

# MLflow reads these when it is imported. No usage data leaves the machine. A server that no longer answers must not delay
# training: with MLflow's defaults every call would try for minutes.
for _name, _value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true"),
                      ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
                      ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"), ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")):
    os.environ.setdefault(_name, _value)

MIRRORED = ("config.json", "provenance.json", "status.json", "history.csv", "steps.csv", "metrics.csv", "per_query.csv",
            "per_query.npz", "ledger.csv", "singular_values.csv", "precision_recall.csv", "distances.npz", "examples.json",
            "diverged.json", "diff.patch", "method.py", "method.zip", "dataset.yaml")
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "running": "KILLED"}
"""State of a folder that no process works on -> status of its MLflow run. A folder that still says `running` lost its process."""
BATCH = 1000
"""Number of metrics in one call, the most that MLflow accepts."""
LOCKED_TRIES = 5
"""How many times a write is tried while another process writes to the same SQLite store."""


def import_mlflow() -> Any:
    """Import MLflow without its log messages. This takes seconds, so it happens when MLflow is first needed."""
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs an error of the database with its traceback before it raises it; what is raised is told in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


def make_tables(store: Path) -> None:
    """Write an SQLite file with MLflow's empty tables. This takes some seconds."""
    client = import_mlflow().MlflowClient(tracking_uri=address(store))
    client.search_experiments(max_results=1)
    with contextlib.suppress(AttributeError):  # close its connections, which nothing uses any more
        client._tracking_client.store.engine.dispose()


class Mirror:
    """The MLflow side of a suite: one experiment for each profile, one parent run for each suite, one child run for each folder.

    After MLflow has failed once, `alive` is False and every method does nothing.
    """

    def __init__(self, suite: SuiteFolder, command: str, tags: Mapping[str, str] | None = None) -> None:
        """`tags` are added to every child run and replace the usual ones of the same name. The suite's suite.json must exist."""
        self.suite, self.tags = suite, dict(tags or {})
        self.alive = False
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or address(suite.output / STORE)
        self._local = not os.environ.get("MLFLOW_TRACKING_URI")
        try:
            self.mlflow = import_mlflow()
            # One process at a time, since two would both make the tables, the experiment and the parent run.
            with suite.lock("opening the MLflow store"):
                if self._local:
                    self._make_store()
                    set_addresses(suite.output)  # the folder may have been moved or copied from another place
                # MLflow's global address would stay in the environment after this suite, so this client gets the address itself.
                self.client = self.mlflow.MlflowClient(tracking_uri=self.uri)
                self.experiment = self._experiment()
                self.parent = self._parent(command)
                self.client.update_run(self.parent, status="RUNNING")
            self.alive = True
        except Exception as error:  # no failure of MLflow may cost results
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        text = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        if self._local and any(sign in str(error) for sign in ("malformed", "not a database")):
            text += f"; {self.suite.output / STORE} is damaged: move it away, it is made anew from the result folders"
        print(f"MLflow is not available ({type(error).__name__}: {text}); results are complete in {self.suite.output}; "
              f"`python benchmarks/run_all.py --sync --output {shlex.quote(str(self.suite.output))}` mirrors them later",
              file=sys.stderr)
        self.alive = False

    def _make_store(self) -> None:
        """Make the SQLite store under another name and rename it when its tables are complete. A process that is killed meanwhile
        leaves no half-made store behind."""
        store = self.suite.output / STORE
        if store.exists():
            return
        remove_partial(self.suite.output)
        partial = store.with_name(f"{STORE}.{os.getpid()}{PARTIAL}")
        make_tables(partial)
        os.replace(partial, store)

    def _experiment(self) -> str:
        name = f"tcn-{self.suite.profile}" + ("-smoke" if self.suite.smoke else "")
        artifacts = artifact_root(self.suite.output) if self._local else None
        found = self.client.get_experiment_by_name(name)
        if not found:
            try:
                # With this tag the UI opens on curves and parameters instead of its pages for language models.
                return self.client.create_experiment(name, artifact_location=artifacts,
                                                     tags={"mlflow.experimentKind": "custom_model_development"})
            except self.mlflow.exceptions.MlflowException:  # another suite on the same server has just made it
                found = self.client.get_experiment_by_name(name)
                if not found:
                    raise
        return found.experiment_id

    def _find(self, **tags: str) -> str | None:
        """The oldest run with these tags, or None. This finds a run whose process died before it wrote the run's id to a file."""
        text = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([self.experiment], text, order_by=["attributes.start_time ASC"], max_results=1)
        return found[0].info.run_id if found else None

    def _parent(self, command: str) -> str:
        note = self.suite.output / "mlflow.json"
        known = self._run_id(note)
        if known is None and (known := self._find(kind="suite", suite=self.suite.id)):
            self._noted(note, known)
        return known or self._new_parent(command)

    def _run_id(self, note: Path) -> str | None:
        """The id of the run that the file `note` names, or None where this store does not have that run (any more)."""
        if not note.exists():
            return None
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["uri"] not in (self.uri, self._name):
                return None
            mlflow_run = self.client.get_run(str(known["run_id"]))
        except (ValueError, KeyError, TypeError, self.mlflow.exceptions.MlflowException):
            return None
        return mlflow_run.info.run_id if mlflow_run.info.lifecycle_stage == "active" else None

    @property
    def _name(self) -> str:
        """The name of the store in the files that name runs. It does not contain the path, since a suite's own store may be
        moved with its folder."""
        return STORE if self._local else self.uri

    def _noted(self, path: Path, run_id: str) -> str:
        """Write a run's id to the file that the next call of the command reads; returns the id."""
        write_json(path, {"uri": self._name, "run_id": run_id})
        return run_id

    def _new_parent(self, command: str) -> str:
        mlflow_run = self.client.create_run(self.experiment, run_name=f"suite {self.suite.profile}",
                                     tags={"kind": "suite", "suite": self.suite.id, "profile": self.suite.profile,
                                           "command": command,
                                           "smoke": str(self.suite.smoke), "mlflow.source.name": command})
        return self._noted(self.suite.output / "mlflow.json", mlflow_run.info.run_id)

    @contextlib.contextmanager
    def run(self, folder: RunFolder) -> Iterator[RunMirror]:
        """The folder's MLflow run for the time of the block. It ends FINISHED, FAILED after an error, or KILLED after Ctrl-C."""
        view = RunMirror(self, folder)
        view.open()
        try:
            yield view
        except KeyboardInterrupt:
            view.close("KILLED")
            raise
        except BaseException:
            view.close("FAILED")
            raise
        view.close("FINISHED")

    def settle(self, folder: RunFolder) -> bool:
        """Bring a folder's MLflow run up to date if another process computed it, if this store lacks it, or if a process died and
        left it RUNNING. Does nothing while a process works on the folder. Returns whether anything was written."""
        if not self.alive or folder.state == "new":
            return False
        try:
            if self._stands(folder):  # then no file is changed, not even the lock
                return False
            with folder.claim("mirroring into MLflow"):
                if self._stands(folder):
                    return False
                status = STATUSES.get(folder.state, "KILLED")
                if status == "FINISHED" and (bad := folder.damaged()):
                    raise InputError(f"not as it was written: {', '.join(bad)}; the next call of the command sets it aside")
                rows = (read_rows(folder.path / "history.csv", {"epoch": count}),
                        read_rows(folder.path / "steps.csv", {"step": count}))
                view = RunMirror(self, folder)
                # No system metrics, since the load of this process says nothing about the run.
                view.open(monitor=False)
                view.history(*rows)
                if status == "FINISHED":
                    view.results()
                view.close(status, _last_sign(folder.path))
                return self.alive
        except Held:
            return False
        except Exception as error:  # a folder that can't be read is named, and the others are still mirrored
            print(f"not mirrored: {folder.path.name}: {error}", file=sys.stderr)
            return False

    def _stands(self, folder: RunFolder) -> bool:
        """Whether the folder's MLflow run exists and has the status that follows from the folder's state."""
        found: list[bool] = []
        run_id = self._run_id(folder.path / "mlflow.json")
        if run_id:
            status = STATUSES.get(folder.state, "KILLED")
            self._try(lambda: found.append(self.client.get_run(run_id).info.status == status))
        return found == [True]

    def close_stale(self) -> int:
        """End the runs of this suite that are RUNNING although no process works on their folders. Each is brought up to date from
        its folder, or ends KILLED at the time when its folder was last written to. Returns how many were ended."""
        closed = 0
        for mlflow_run in self._running():
            output = self.suite.output / "reproductions" if "reproduces" in mlflow_run.data.tags else self.suite.output
            path = earlier.runs_folder(output) / str(mlflow_run.data.tags.get("folder"))
            try:
                folder = RunFolder.read(path)
            except InputError:
                folder = None
            if folder is not None and folder.holder():
                continue
            if folder is None or "reproduces" in mlflow_run.data.tags or not self.settle(folder):
                end = None if folder is None else _last_sign(path)
                self._try(lambda: self.client.set_terminated(mlflow_run.info.run_id, "KILLED", end))
            closed += 1
        return closed

    def _running(self) -> list[Any]:
        found: list[Any] = []
        text = f"tags.`mlflow.parentRunId` = '{self.parent}' and attributes.status = 'RUNNING'" if self.alive else ""
        self._try(lambda: found.extend(self.client.search_runs([self.experiment], text, max_results=5000)))
        return found

    def report(self, report: Path) -> None:
        """Log tables, figures and the page as artifacts of the suite's run, and what its description says of them."""
        self._try(lambda: self.client.log_artifacts(self.parent, str(report), "report"))
        self._try(lambda: self.client.set_tag(self.parent, exhibits.NOTE, exhibits.suite_note(
            self.suite, report, exhibits.report_address(self.experiment, self.parent), self.parent)))

    def close(self, status: str) -> None:
        """End the suite's run with FINISHED, FAILED or KILLED; a later call of the command reopens it. While another process
        works on folders of this suite, the run stays open, and the last process ends it."""
        if not any(map(holder, earlier.runs_folder(self.suite.output).glob(f"*/{LOCK}"))):
            self._try(lambda: self.client.set_terminated(self.parent, status))

    def _try(self, work: Callable[[], Any]) -> None:
        for left in reversed(range(LOCKED_TRIES)):
            if not self.alive:
                return
            try:
                work()
                return
            except InputError:  # a result folder that can't be read is no failure of MLflow
                raise
            except Exception as error:
                # MLflow ignores a metric that it already has, so a second try adds nothing twice.
                if "database is locked" in str(error) and left:
                    time.sleep(1.0)
                    continue
                self._failed(error)


class NoMirror:
    """Stands in for `Mirror` in processes that leave MLflow to another one: the same methods, which do nothing."""

    alive = False

    @contextlib.contextmanager
    def run(self, folder: RunFolder) -> Iterator[NoMirror]:
        """Returns itself as the view of a folder."""
        yield self

    def history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing: the rows are in the result folder."""

    def results(self) -> None:
        """Do nothing: the results are in the result folder."""


class RunMirror:
    """The MLflow run of one result folder. Once MLflow has failed, every method does nothing."""

    def __init__(self, mirror: Mirror, folder: RunFolder) -> None:
        self.mirror, self.folder = mirror, folder
        self.run_id: str | None = None
        self._monitor: Any = None
        self._logged = [0, 0]

    def open(self, monitor: bool = True) -> None:
        """Make the run, or open it again: parameters, tags, data sets as inputs, and with `monitor` system metrics.

        Raises InputError where the folder's provenance.json can't be read, which is no failure of MLflow.
        """
        path = self.folder.path / "provenance.json"
        provenance = read_json(path) if path.exists() else {}
        listed = provenance.get("datasets", [])
        if not isinstance(listed, list) or not all(isinstance(entry, list) and len(entry) == 3
                                                   and all(isinstance(text, str) for text in entry) for entry in listed):
            raise InputError(f"{path}: 'datasets' is not a list of entries with name, digest and summary")
        self.mirror._try(lambda: self._open(monitor, provenance, listed))

    def _open(self, monitor: bool, provenance: Mapping[str, Any], listed: Sequence[Sequence[str]]) -> None:
        mirror, folder, run = self.mirror, self.folder, self.folder.run
        client, mlflow = mirror.client, mirror.mlflow
        note, brought = folder.path / "mlflow.json", provenance.get("brought")
        self.run_id = mirror._run_id(note)
        if self.run_id is None and "reproduces" not in mirror.tags and (
                found := mirror._find(identity=folder.identity, **{"mlflow.parentRunId": mirror.parent})):
            self.run_id = mirror._noted(note, found)
        if self.run_id:
            client.update_run(self.run_id, status="RUNNING")
            finished = client.get_metric_history(self.run_id, "epoch/total")
            self._logged[0] = max((int(m.step) for m in finished), default=-1) + 1
            self._logged[1] = max((int(m.step) for m in client.get_metric_history(self.run_id, "step/total")), default=0)
        else:
            tags = {"mlflow.parentRunId": mirror.parent, "kind": "run", "dataset": run.dataset, "split": run.split,
                    "variant": run.variant, "seed": str(run.seed), "identity": folder.identity,
                    "trained": str(run.trained), "smoke": str(mirror.suite.smoke), "folder": folder.path.name,
                    "commit": str(provenance.get("commit")), "device": str(provenance.get("device")),
                    "protocol_version": str(provenance.get("protocol_version", 1)),
                    **{key: str(provenance[key]) for key in ("title", "declared_in") if key in provenance},
                    **({"brought": "along"} if brought else {}), **mirror.tags}
            marks = (["smoke"] * mirror.suite.smoke + ["brought along"] * bool(brought)
                     + ["again"] * ("reproduces" in mirror.tags))
            mlflow_run = client.create_run(mirror.experiment, tags=tags, run_name=" · ".join(
                [run.variant, f"{run.dataset} {run.split}", f"seed {run.seed}", *marks]))
            self.run_id = mirror._noted(note, mlflow_run.info.run_id)
        # Also for a run that exists: its process may have died right after making it. MLflow keeps equal parameters once.
        settings = flatten(to_dict(run.config))
        if brought:  # the features were only scored here, so settings of training would be misleading
            settings = {k: v for k, v in settings.items()
                        if k in ("data.dataset", "data.split", "seed") or k.startswith("evaluation.")}
        params = [mlflow.entities.Param(k, str(v)) for k, v in settings.items()]
        client.log_batch(self.run_id, params=params)
        self._log_datasets(listed)
        if not monitor:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=mirror.uri)
            self._monitor.start()
        except Exception:  # system metrics are optional: a run without them is complete
            self._monitor = None

    def _log_datasets(self, listed: Sequence[Sequence[str]]) -> None:
        if listed:
            entities = self.mirror.mlflow.entities
            self.mirror.client.log_inputs(self.run_id, [entities.DatasetInput(
                entities.Dataset(name=name, digest=digest[:36], source_type="local", source=json.dumps({"data set": name}),
                                 profile=about),
                [entities.InputTag("mlflow.data.context", name.rsplit(" ", 1)[-1])]) for name, digest, about in listed])

    def history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        """Log the rows that the run does not have yet."""
        self.mirror._try(lambda: self._history(epochs, steps))

    def _history(self, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
        metric, stamp = self.mirror.mlflow.entities.Metric, int(time.time() * 1000)
        new = [[metric(f"{kind}/{k}", float(v), stamp, int(row[kind])) for k, v in row.items()
                if k not in ("step", "epoch") and _number(v)]
               for kind, rows, first in (("epoch", epochs, self._logged[0]), ("step", steps, self._logged[1] + 1))
               for row in rows if int(row[kind]) >= first]
        # One call holds whole rows only, so that rows logged by a process that died since are complete.
        batch: list[Any] = []
        for points in new:
            if len(batch) + len(points) > BATCH:
                self.mirror.client.log_batch(self.run_id, metrics=batch)
                batch = []
            batch += points
        if batch:
            self.mirror.client.log_batch(self.run_id, metrics=batch)
        self._logged = [max([self._logged[0], *(int(r["epoch"]) + 1 for r in epochs)]),
                        max([self._logged[1], *(int(r["step"]) for r in steps)])]

    def results(self) -> None:
        """Log the final metrics, and the result files as artifacts. InputError where metrics.csv or
        provenance.json can't be read."""
        table = self.folder.path / "metrics.csv"
        found: dict[str, float] = {}
        parts = ("classes", "features", "protocol", "metric")
        for row in read_rows(table, {"value": float, **dict.fromkeys(parts, word)}):
            if row.get("query_source") == "all" and row.get("gallery") == "all":
                name = "/".join(row[part] for part in parts).replace("@", "_at_")
                found[name + "/distinct" * (row.get("duplicates") == "distinct")] = float(row["value"])
        if not found:
            raise InputError(f"{table} is missing, or holds no metric of all queries and photos")
        # Metrics get the file's time: a value that is logged again after a process died is the same metric, and is kept once.
        stamp = table.stat().st_mtime_ns // 1_000_000
        self.mirror._try(lambda: self._results(found, stamp))

    def _results(self, values: Mapping[str, float], stamp: int) -> None:
        metric = self.mirror.mlflow.entities.Metric
        self.mirror.client.log_batch(self.run_id, metrics=[metric(name, value, stamp, 0) for name, value in values.items()])
        for name in MIRRORED:
            if is_own(self.folder.path / name, self.folder.path):
                self.mirror.client.log_artifact(self.run_id, str(self.folder.path / name))
        for path in sorted((self.folder.path / "examples").glob("*")):
            if is_own(path, self.folder.path):
                self.mirror.client.log_artifact(self.run_id, str(path), "examples")
        exhibits.log(self.mirror.client, self.mirror.mlflow.entities, self.run_id, self.folder, values, stamp,
                     exhibits.report_address(self.mirror.experiment, self.mirror.parent))

    def close(self, status: str, end_time: int | None = None) -> None:
        """End the run with FINISHED, FAILED or KILLED. `end_time` is in milliseconds since 1970; the default is now."""
        if self._monitor:
            with contextlib.suppress(Exception):
                self._monitor.finish()
        self.mirror._try(lambda: self.mirror.client.set_terminated(self.run_id, status, end_time))


def _last_sign(folder: Path) -> int:
    """When a folder's history or status was last written, in milliseconds since 1970."""
    times = [path.stat().st_mtime_ns for name in ("status.json", "history.csv", "config.json")
             if (path := folder / name).exists()]
    return max(times, default=time.time_ns()) // 1_000_000


def _number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False

