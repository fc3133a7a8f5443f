"""One folder of a run -> a checked run, and the contents of its further files.

In: the folder of one run of one variant with one seed. Out: a FinishedRun whose four core files are sound, or a ReportError that
names the file and what is wrong with it. What can't be trusted is never guessed.
"""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.read.escaping import slug, visible
from reports.read.files import (
    MOST_COUNT,
    MOST_NUMBER,
    ReportError,
    array_shape,
    check_picture,
    read_arrays,
    read_frame,
    read_json,
    shown,
)
from reports.read.schema import (
    DISTANCE_ARRAYS,
    FEATURE_ARRAYS,
    FRAMES,
    LIST_ARRAYS,
    METRIC_LATER,
    METRIC_TEXT,
    Example,
    Examples,
    Hit,
    Provenance,
    Settings,
    Status,
    Task,
    parse,
)
from tcn.files import earlier
from tcn.files.checksums import SUMS, file_digest, read_sums
from tcn.files.inside import is_inside

FOLDER_NAME = re.compile(r"^(?P<dataset>[^-]+)-(?P<split>.+?)__(?P<variant>.+)__seed(?P<seed>\d+)__(?P<identity>\w+)$")
CLASS_TOLERANCE = 1e-6
"""How far the mean over classes of per_query.npz may be from the number in metrics.csv, which may be rounded there."""


@dataclass(frozen=True)
class Score:
    """Which number: the columns of metrics.csv that pick one row of a run."""

    metric: str
    protocol: str = "released"
    features: str = "real"
    classes: str = "unseen"
    source: str = "all"
    gallery: str = "all"
    duplicates: str = "as-published"


@dataclass(frozen=True)
class FinishedRun:
    """One finished run whose four core files are sound."""

    folder: Path
    task: Task
    variant: str
    seed: int
    config: dict[str, Any]
    """All settings as config.json holds them."""
    status: Status
    provenance: Provenance
    metrics: pd.DataFrame
    dim: int | None
    """Length of its feature vectors; None where neither its features nor its settings say it."""
    sent: Path | None = None
    """The bundle that it came in, sent by somebody else; None for a run of this results folder."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @property
    def anchor(self) -> str:
        """Fragment identifier of its provenance entry on the page."""
        return "run-" + slug(self.name)

    @property
    def group_anchor(self) -> str:
        """Fragment identifier of all runs of its row: same task and variant, any seed."""
        return f"runs-{self.task.slug}-{slug(self.variant)}"

    @property
    def trained(self) -> bool:
        """Whether it was trained at all; untrained baselines are not."""
        return setting(self.config, "training.optimizer", "adam") != "none" and bool(self.status.epochs)

    @property
    def smoke(self) -> bool:
        """Whether it was run to check that the chain works; for runs from before this was recorded, their command tells."""
        recorded = self.provenance.smoke
        return "--quick" in self.provenance.command.split() if recorded is None else recorded

    def settings(self) -> str:
        """Everything that must agree between seeds of one row: settings without the seed, data, split."""
        config = {key: value for key, value in self.config.items() if key not in ("seed", "identity")}
        parts = [config, self.provenance.data_digest, self.provenance.split_digest]
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True)
class Unfinished:
    """A planned run without numbers, and why."""

    name: str
    task: Task
    variant: str
    seed: int
    state: str
    reason: str


def setting(config: dict[str, Any], dotted: str, default: Any = None) -> Any:
    """A value of nested settings by dotted name.

    >>> setting({"training": {"epochs": 3}}, "training.epochs"), setting({}, "training.epochs", 0)
    (3, 0)
    """
    node: Any = config
    for key in dotted.split("."):
        if not isinstance(node, dict) or key not in node:
            return default
        node = node[key]
    return node


def rows_of(run: FinishedRun) -> dict[Score, dict[str, Any]]:
    """The rows of a run's metrics.csv."""
    return {Score(row["metric"], row["protocol"], row["features"], row["classes"], row["query_source"], row["gallery"],
                  row["duplicates"]): row for row in run.metrics.to_dict("records")}


def read_run(folder: Path) -> FinishedRun | Unfinished:
    """The run that a folder holds. Raises ReportError where one of its core files is missing, broken or of another run."""
    config = read_json(folder / "config.json")
    settings, status = parse(Settings, config, "config.json"), parse(Status, read_json(folder / "status.json"), "status.json")
    task, variant, seed = Task(settings.data.dataset, settings.data.split), settings.variant, settings.seed
    match = FOLDER_NAME.match(folder.name)
    if match and not folder.name.startswith(f"{task.dataset}-{task.split}__{variant}__seed{seed}__"):
        raise ReportError(f"config.json is of {task.dataset}-{task.split}, {variant}, seed {seed}, the folder's name of another "
                          "run: one was copied or edited")
    variant = earlier.name(variant)
    if status.state != "finished":
        epochs = "unknown" if status.epochs is None else status.epochs
        reason = status.reason or f"stopped after {status.epochs_done} of {epochs} epochs"
        return Unfinished(folder.name, task, variant, seed, status.state, reason)
    provenance = parse(Provenance, read_json(folder / "provenance.json"), "provenance.json")
    identity = provenance.identity
    if match and not identity.startswith(match["identity"]):
        raise ReportError(f"provenance.json is of run {identity[:8] or 'unknown'}, the folder's name of "
                          f"{match['identity']}: one was copied or edited")
    if settings.identity and identity != settings.identity:
        raise ReportError(f"provenance.json is of run {identity[:8] or 'unknown'}, config.json of {settings.identity[:8]}: one "
                          "was copied or edited")
    for name in ("config.json", "metrics.csv"):
        check_digest(folder, name)
    return FinishedRun(folder, task, variant, seed, config, status, provenance, _read_metrics(folder / "metrics.csv"),
                _feature_length(folder / "features.npz", settings))


def read_finished(folder: Path) -> FinishedRun:
    """As `read_run`, of a run that must be finished: ReportError with the reason where it is not."""
    run = read_run(folder)
    if isinstance(run, Unfinished):
        raise ReportError(f"not finished ({run.reason})")
    return run


def check_digest(folder: Path, name: str) -> None:
    """ReportError where a file is not as the run wrote it, by the run's SHA256SUMS.

    Files that are not listed there are taken as they are, as are all files of older runs, which have no such list.
    """
    if not (folder / SUMS).is_file() or not (folder / name).is_file():
        return
    try:
        wanted = next((digest for digest, listed in read_sums(folder) if listed == name), None)
        if wanted is None:
            return
        found = file_digest(folder / name)
    except (OSError, ValueError) as error:
        raise ReportError(f"{name} can't be compared with {SUMS} ({type(error).__name__})") from None
    if found != wanted:
        raise ReportError(f"{name} is not as the run wrote it (SHA-256 {found[:8]}, {SUMS} says "
                          f"{visible(wanted)[:8]}): it was damaged or edited")


def _read_metrics(path: Path) -> pd.DataFrame:
    metrics = read_frame(path, *FRAMES["metrics.csv"])
    for name, meaning in METRIC_LATER.items():
        metrics[name] = metrics[name].replace("", meaning) if name in metrics else meaning
    try:
        metrics["standard_error"] = metrics["standard_error"].astype(float)
    except ValueError as error:
        raise ReportError(f"metrics.csv, column standard_error: {error}") from None
    keys = metrics[[*METRIC_TEXT, "duplicates"]]
    if keys.duplicated().any():
        raise ReportError(f"metrics.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    counts = metrics[["queries", "photos"]]
    bad = metrics[~metrics["value"].between(0, 1) | counts.isna().any(axis=1) | (counts < 0).any(axis=1)
                  | (counts % 1 != 0).any(axis=1)]
    if len(bad):
        row = bad.iloc[0]
        raise ReportError(f"metrics.csv, line {bad.index[0] + 2}: {row['metric']} is {row['value']} over "
                          f"{row['queries']} queries and {row['photos']} photos; expected a value from 0 to 1 and counts")
    for name in ("chance", "ceiling", "standard_error"):
        bad = metrics[~metrics[name].between(0, 1) & (metrics[name].notna() | (name == "standard_error"))]
        if len(bad):
            raise ReportError(f"metrics.csv, line {bad.index[0] + 2}, column {name}: {bad[name].iloc[0]} is not within 0 to 1")
    return metrics


def read_ledger(folder: Path) -> pd.DataFrame:
    """Rows of ledger.csv, each once, with values from 0 to 1."""
    frame = read_frame(folder / "ledger.csv", *FRAMES["ledger.csv"], {earlier.LEDGER_COLUMN: "deviation"})
    keys = frame[["deviation", "arm", "features", "protocol", "metric"]]
    if keys.duplicated().any():
        raise ReportError(f"ledger.csv holds a row twice: {' '.join(keys[keys.duplicated()].iloc[0])}")
    bad = frame[~(frame["value"].between(0, 1) | frame["value"].isna())]
    if len(bad):
        raise ReportError(f"ledger.csv, line {bad.index[0] + 2}: {bad['value'].iloc[0]} is not within 0 to 1")
    return frame


def _feature_length(path: Path, settings: Settings) -> int | None:
    """D from the header of the stored array, without reading it; else from the settings."""
    shape = array_shape(path, "query")  # None for a broken file, which is named once a figure asks for it
    if shape is not None and len(shape) == 2 and shape[1] < MOST_COUNT:
        return shape[1] or None
    return settings.network.dim or None if settings.evaluation.features == "embedding" else None


def read_features(path: Path) -> dict[str, np.ndarray]:
    """Arrays of features.npz: query [Nq, D], gallery [Ng, D], finite, their labels [Nq], [Ng], and the files they are of,
    `query_paths` [Nq] and `gallery_paths` [Ng], where both are told."""
    arrays = read_arrays(path, (*FEATURE_ARRAYS, *LIST_ARRAYS))
    if absent := [name for name in FEATURE_ARRAYS if name not in arrays]:
        raise ReportError(f"{path.name} lacks the array{'s' * (len(absent) > 1)} {', '.join(absent)}")
    for side in ("query", "gallery"):
        values, labels = arrays[side], arrays[f"{side}_labels"]
        if values.ndim != 2 or labels.ndim != 1 or not values.size or len(values) != len(labels) or not _finite(values):
            raise ReportError(f"{path.name}, {side}: {values.dtype} {values.shape} for {labels.shape} labels, "
                              "or values that are not finite; expected numbers [N, D] and N labels")
        if labels.dtype.kind != "U":
            raise ReportError(f"{path.name}, {side}_labels: expected names of classes, found {labels.dtype}")
    if arrays["query"].shape[1] != arrays["gallery"].shape[1]:
        raise ReportError(f"{path.name}: queries of {arrays['query'].shape[1]} numbers, photos of {arrays['gallery'].shape[1]}")
    told = all(name in arrays and arrays[name].shape == arrays[name.replace("paths", "labels")].shape
               and arrays[name].dtype.kind == "U" for name in LIST_ARRAYS)
    return arrays if told else {name: arrays[name] for name in FEATURE_ARRAYS}


def _finite(values: np.ndarray) -> bool:
    """Whether these are floats or integers, none of them NaN, infinite or beyond MOST_NUMBER."""
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all()) and bool((np.abs(values) <= MOST_NUMBER).all())


def read_classes(run: FinishedRun, score: Score, expected: float | None) -> pd.Series | None:
    """Class -> mean of one number over the class's queries, from per_query.npz; None where it holds no such number.

    expected: the number in metrics.csv, with which the mean over classes must agree under the `released` rule.
    """
    key, all_ranks = (f"{score.features}/{score.protocol}/{metric}" for metric in (score.metric, "mAP@all"))
    arrays = read_arrays(run.folder / "per_query.npz", ("class", key, all_ranks))
    if key not in arrays:
        return None
    values, names = arrays[key], arrays.get("class", np.array([]))
    if values.ndim != 1 or values.shape != names.shape or not values.size or not _finite(values) or names.dtype.kind != "U":
        raise ReportError(f"per_query.npz, {key}: {values.dtype} {values.shape} for {names.dtype} {names.shape} of classes, or "
                          "values that are not finite; expected a number for each query and the name of its class")
    means = pd.Series(values, index=pd.Index(names, name="class")).groupby(level=0).mean()
    skipped = setting(run.config, "evaluation.missing_classes") == "as-released" and score.metric.startswith("mAP")
    if skipped and all_ranks in arrays and arrays[all_ranks].shape == names.shape:
        # only a class without photos has an AP of 0 over all ranks, and the released code leaves such a class out
        means = means[pd.Series(arrays[all_ranks], index=names).groupby(level=0).max().reindex(means.index) > 0]
    if score.protocol == "released" and expected is not None and not abs(means.mean() - expected) <= CLASS_TOLERANCE:
        raise ReportError(f"per_query.npz, {key}: its classes average to {means.mean():.6f}, metrics.csv says {expected:.6f}; "
                          "one of the two was copied or edited")
    return means


def read_distances(path: Path) -> dict[str, np.ndarray]:
    """Arrays of distances.npz: steps [T]; layers, parts, kinds, start_norm [L]; between, sketch, photo [T, L]."""
    arrays = read_arrays(path, DISTANCE_ARRAYS)
    if absent := [name for name in DISTANCE_ARRAYS if name not in arrays]:
        raise ReportError(f"{path.name} lacks the array{'s' * (len(absent) > 1)} {', '.join(absent)}")
    steps, layers = arrays["steps"].size, arrays["layers"].size
    shapes = {"steps": (steps,), "layers": (layers,), "parts": (layers,), "kinds": (layers,), "start_norm": (layers,),
              "between": (steps, layers), "sketch": (steps, layers), "photo": (steps, layers)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not steps or not layers:
            raise ReportError(f"{path.name}, {name}: shape {arrays[name].shape} for {steps} steps and {layers} layers")
    for name in ("start_norm", "between", "sketch", "photo"):
        if not (arrays[name].dtype.kind == "f" and _finite(arrays[name]) and (arrays[name] >= 0).all()):
            raise ReportError(f"{path.name}, {name}: distances that are negative or not finite")
    for name in ("layers", "parts", "kinds"):
        if arrays[name].dtype.kind != "U":
            raise ReportError(f"{path.name}, {name}: expected names, found {arrays[name].dtype}")
    # compared, not subtracted: differences of unsigned numbers are never negative
    numbers = arrays["steps"]
    rising = numbers.dtype.kind in "iu" and not (numbers[1:] <= numbers[:-1]).any()
    if not (rising and int(numbers[0]) >= 0 and int(numbers[-1]) < MOST_COUNT):
        raise ReportError(f"{path.name}, steps: expected whole numbers from 0 in increasing order")
    return arrays


def read_precision_recall(path: Path) -> pd.DataFrame:
    """Columns features, recall and precision, the latter two from 0 to 1."""
    frame = read_frame(path, *FRAMES[path.name])
    for name in ("recall", "precision"):
        if not frame[name].between(0, 1).all():
            raise ReportError(f"{path.name}, column {name}: a value that is missing or not within 0 to 1")
    return frame


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """Contents of examples.json, each `file` as an existing path.

    One dictionary per query: `query` (`class`, `source`, `file`), `average_precision`, `kind`, `retrieved` (`class`, `source`,
    `file`, `rank`, `correct`), the nearest photo first.
    """
    found = parse(Examples, read_json(folder / "examples.json"), "examples.json")
    return [_example(folder, f"examples.json, entry {number}", entry) for number, entry in enumerate(found.examples, 1)]


def _example(folder: Path, where: str, entry: Any) -> dict[str, Any]:
    example = parse(Example, entry, where)
    hits = [parse(Hit, hit, f"{where}, photo {place}") for place, hit in enumerate(example.retrieved, 1)]
    query, *retrieved = ({**picture.model_dump(by_alias=True), "file": _picture(folder, picture.file)}
                         for picture in (example.query, *hits))
    return {"query": query, "average_precision": example.average_precision, "kind": example.kind, "retrieved": retrieved}


def _picture(folder: Path, name: str) -> Path:
    """Path of a readable picture below the run's examples/; ReportError for any other name."""
    for path in (folder / "examples" / name, folder / name):
        if is_inside(path, folder / "examples"):
            check_picture(path)
            return path
    raise ReportError(f"examples.json names {shown(name)}, which is not under examples/")


def read_run_frame(path: Path) -> pd.DataFrame:
    """One of the tables named in FRAMES, with whole steps and epochs, and singular values from 0."""
    frame = read_frame(path, *FRAMES[path.name])
    if path.name == "singular_values.csv":
        _check_singular_values(frame)
    for column in {"steps.csv": ("step", "epoch"), "history.csv": ("epoch",)}.get(path.name, ()):
        _check_over(frame, column, path.name)
    return frame


def _check_singular_values(frame: pd.DataFrame) -> None:
    bad = frame[~(frame["value"].between(0, MOST_NUMBER) & frame["index"].between(1, MOST_COUNT) & (frame["index"] % 1 == 0))]
    if len(bad):
        row = bad.iloc[0]
        raise ReportError(f"singular_values.csv, line {bad.index[0] + 2}: value {row['value']} of index {row['index']}; expected "
                          "a number from 0 and a whole index from 1")


def _check_over(frame: pd.DataFrame, column: str, file: str) -> None:
    bad = frame[~(frame[column].between(0, MOST_COUNT) & (frame[column] % 1 == 0))]
    if len(bad):
        raise ReportError(f"{file}, line {bad.index[0] + 2}, column {column}: {bad[column].iloc[0]} is no whole number from 0")
