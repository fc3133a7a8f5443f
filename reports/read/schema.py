"""What must stand in each file of a folder of results.

In: the object that a JSON file holds. Out: a typed record of it, or a ReportError that names the file and the field. For tables:
the columns that must be there.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from reports.read.escaping import slug
from reports.read.files import MOST_COUNT, MOST_NUMBER, ReportError, shown

METRIC_TEXT = ("classes", "features", "protocol", "metric", "query_source", "gallery")
METRIC_NUMBERS = ("value", "chance", "ceiling", "queries", "photos")
METRIC_LATER = {"duplicates": "as-published", "ties": "expected", "standard_error": "0"}
"""Columns that older metrics.csv files lack, and the value that holds for those files."""
FRAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "metrics.csv": (METRIC_TEXT, METRIC_NUMBERS),
    "history.csv": ((), ("epoch", "class_sketch", "class_photo", "seen_accuracy", "validation_map")),
    "steps.csv": ((), ("step", "epoch", "class_sketch", "class_photo")),
    "singular_values.csv": (("set", "modality"), ("index", "value")),
    "ledger.csv": (("deviation", "arm", "features", "protocol", "metric", "note"), ("value",)),
    "precision_recall.csv": (("features",), ("recall", "precision")),
}
"""File -> (text columns, number columns) that must be there; further columns are kept as text."""
FEATURE_ARRAYS = ("query", "gallery", "query_labels", "gallery_labels")
LIST_ARRAYS = ("query_paths", "gallery_paths")
"""Further arrays of features.npz, which features that were brought along, and older folders, lack."""
DISTANCE_ARRAYS = ("steps", "layers", "parts", "kinds", "start_norm", "between", "sketch", "photo")


@dataclass(frozen=True, order=True)
class Task:
    """A data set and its split: numbers are compared within a task, never across tasks."""

    dataset: str
    split: str

    @property
    def slug(self) -> str:
        """Name for files and anchors: letters, digits, dots and hyphens only."""
        return slug(self.dataset, self.split)


def _kind(name: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """A check of a field whose error message says which kind of value is expected there."""
    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("kind", "expected {name}", {"name": name})
        return value
    return BeforeValidator(check)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER


Text = Annotated[str, _kind("text", lambda value: isinstance(value, str))]
Name = Annotated[str, _kind("a name", lambda value: isinstance(value, str) and bool(value.strip()))]
Count = Annotated[int, _kind("a whole number from 0", lambda value: isinstance(value, int) and not isinstance(value, bool)
                             and 0 <= value < MOST_COUNT)]
Amount = Annotated[float, _kind("a number from 0", lambda value: _is_number(value) and value >= 0)]
Share = Annotated[float, _kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)]
Flag = Annotated[bool, _kind("true or false", lambda value: isinstance(value, bool))]
Group = Annotated[dict[str, Any], _kind("a group of settings", lambda value: isinstance(value, dict))]
List = Annotated[list[Any], _kind("a list", lambda value: isinstance(value, list))]
Texts = Annotated[tuple[str, ...], BeforeValidator(lambda values: tuple(map(str, values))),
                  _kind("a list", lambda value: isinstance(value, list))]
DEVIATION_KINDS = ("training", "scoring", "pictures", "data", "fixed", "remaining")


class Record(BaseModel):
    """Checked fields of a file. Fields that it does not name are left aside; null counts as not given."""

    model_config = ConfigDict(frozen=True)
    null_tells: ClassVar[frozenset[str]] = frozenset()
    """Fields whose null tells something else than their absence."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, found: Any) -> Any:
        if not isinstance(found, Mapping):
            raise PydanticCustomError("kind", "expected a group of settings")
        return {key: value for key, value in found.items() if value is not None or key in cls.null_tells}


R = TypeVar("R", bound=Record)


def parse(record: type[R], found: Any, file: str) -> R:
    """The record that `found`, the contents of the file or entry called `file`, holds.

    Raises ReportError naming the first field that is missing or holds a value of another kind.
    """
    try:
        return record.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        raise ReportError(f"{file} names no {field}")
    raise ReportError(f"{file}{', ' * bool(field)}{field}: {first['msg']}, found {shown(first['input'])}")


# --- config.json, status.json, provenance.json, mlflow.json of a run -------------------------------------------------


class Data(Record):
    """Below `data` in config.json."""

    dataset: Name
    split: Name


class Network(Record):
    """Below `network`."""

    backbone: Text = ""
    dim: Count = 0


class Losses(Record):
    """Below `losses`."""

    sharing: Amount = math.nan


class Training(Record):
    """Below `training`."""

    epochs: Count = 0
    optimizer: Text = "adam"


class Evaluation(Record):
    """Below `evaluation`."""

    features: Text = "embedding"
    missing_classes: Text = ""


class Settings(Record):
    """config.json, as far as the report relies on it; further settings are shown as they stand."""

    data: Data
    variant: Name
    seed: Count
    identity: Text = ""
    network: Network = Network()
    losses: Losses = Losses()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    coupling: Group = {}
    execution: Group = {}


class Status(Record):
    """status.json: how far a run is."""

    state: Name
    reason: Text = ""
    epochs: Count | None = None
    epochs_done: Count = 0
    best_epoch: Count | None = None


class Provenance(Record):
    """provenance.json: what a run was made of. An empty text stands for what the run did not record."""

    null_tells = frozenset({"manifest"})

    identity: Text = ""
    commit: Text = ""
    """Empty outside a checkout, too."""
    dirty: Flag = False
    diff_sha256: Text = ""
    versions: Group = {}
    python: Text = ""
    device: Text = ""
    threads: Any = ""
    gpus_per_run: Any = 1
    """Devices, and processes, that trained it together; `device` is the first's, `threads` those of each."""
    platform: Text = ""
    protocol_version: Count = 1
    """Of the scoring rules (tcn/scoring/protocols.py); runs from before it was recorded are of version 1."""
    data_digest: Text = ""
    split_digest: Text = ""
    manifest: Group | None = None
    """What a check of the data's contents found; null where there was no check. Runs before such checks don't name it."""
    words_digest: Text = ""
    words: Text = ""
    weights: Text = ""
    selected_by: Text = ""
    optimizer_steps: Count | None = None
    command: Text = ""
    smoke: Flag | None = None
    """None for runs from before it was recorded."""
    started: Text = ""
    finished: Text = ""
    train_seconds: Amount | None = None
    total_seconds: Amount | None = None
    notes: Texts = ()
    brought: Group = {}
    """Where the features came from that were brought along (benchmarks/add.py); empty for runs of this project."""
    title: Text = ""
    """Of a variant that a file of the user's own declares, as are the next two; empty for built-in ones."""
    shows: Text = ""
    declared_in: Text = ""


class Mirrored(Record):
    """mlflow.json: the run's place in MLflow."""

    run_id: Text
    uri: Text


# --- examples.json ---------------------------------------------------------------------------------------------------


class Picture(Record):
    """A picture of an example. `file` is its name below the run's folder."""

    file: Name
    class_name: Text = Field("", alias="class")
    source: Text = ""


class Hit(Picture):
    """A retrieved photo."""

    rank: Count
    correct: Flag


class Example(Record):
    """A query; `retrieved` holds the fields of a Hit for each photo that was retrieved for it, the nearest first."""

    query: Picture
    average_precision: Share
    kind: Name
    retrieved: List


class Examples(Record):
    """The file itself; `examples` holds the fields of an Example each."""

    examples: List = []


# --- pictures/*/index.json --------------------------------------------------------------------------------------------


class SheetIndex(Record):
    """Which file each tile of a split's small pictures shows: first the queries, then the photos, row by row."""

    side: Annotated[int, _kind("8 to 256 pixels", lambda value: type(value) is int and 8 <= value <= 256)]
    columns: Annotated[int, _kind("a number from 1 to 64", lambda value: type(value) is int and 1 <= value <= 64)]
    rows: Annotated[int, _kind("a number from 1 to 64", lambda value: type(value) is int and 1 <= value <= 64)]
    queries: Texts
    photos: Texts
    data_digest: Text = ""
    """Of the data that the pictures were made from."""


# --- suite.json, reproductions/*.json --------------------------------------------------------------------------------


class Head(Record):
    """suite.json; `runs` holds the fields of a Planned each, `ledger` those of a Deviation."""

    profile: Name = "unknown"
    smoke: Flag = False
    created: Text = ""
    command: Text = ""
    missing_datasets: Any = {}
    runs: List = []
    ledger: List = []
    cut: Group = {}
    """The fields of a Cut; empty where no budget left anything out."""


class Cut(Record):
    """What a budget left out of the plan; `runs` holds the fields of a Planned each."""

    budget: Text = ""
    extension: Flag = False
    runs: List = []


class Planned(Record):
    """A run of the plan."""

    dataset: Name
    split: Name
    variant: Name
    folder: Name
    seed: Count


class Deviation(Record):
    """One entry of the ledger: a place where the released code and the corrected behaviour differ."""

    deviation: Name
    title: Name
    kind: Annotated[str, _kind(f"one of {', '.join(DEVIATION_KINDS)}", lambda value: value in DEVIATION_KINDS)]
    """`training` (paired runs), `scoring` (one network scored twice), `pictures` (how files are read), `data`, `fixed` (no
    setting brings the released behaviour back), or `remaining` (this suite does the same, also under --as-released)."""
    consequence: Text = ""
    setting: Text = ""
    released: Text = ""
    corrected: Text = ""
    arms: dict[str, Annotated[str, _kind("a variant's name", lambda value: isinstance(value, str))] | None] = {}
    """`training` only: arm (`corrected`, `released`) -> variant."""
    note: Text = ""
    datasets: Texts = ()
    """Data sets on which the released code behaves so; empty: all."""


class Reproduction(Record):
    """A run that was repeated, and how far the second run's numbers are from the first's."""

    run: Name
    variant: Name
    dataset: Name
    split: Name
    seed: Count
    verdict: Name
    file: str = ""
    """The file that says so."""
    tolerance: Amount = math.nan
    largest_difference: Amount = math.nan
    where: Text = ""
    compared: Count = 0
    same_environment: Flag = False
    differences: Texts = ()
    command: Text = ""
    date: Text = ""


# --- extension/runs/*/result.json ------------------------------------------------------------------------------------


class ExtensionRun(Record):
    """One finished run of the extension."""

    data: Name
    method: Name
    title: Name
    seed: Count
    target_accuracy: Share
    source_accuracy: Share
    steps: Count
    seconds: Amount


# --- cross-dataset/*.json --------------------------------------------------------------------------------------------


class DrawingsUsed(Record):
    """Below `drawings`: which pictures were the queries."""

    name: Name
    digest: Name
    settings: Group = {}


class DomainRow(Record):
    """One number of one domain."""

    domain: Annotated[str, _kind("in-domain or cross-domain", lambda value: value in ("in-domain", "cross-domain"))]
    classes: Annotated[str, _kind("unseen, seen or all", lambda value: value in ("unseen", "seen", "all"))] = "unseen"
    protocol: Name
    metric: Name
    value: Share
    standard_error: Share = 0.0
    chance: Share = math.nan
    queries: Count
    photos: Count


class CrossDataset(Record):
    """What one finished run gave with drawings of another data set as queries; `rows` holds the fields of a DomainRow each."""

    run: Name
    identity: Name
    seed: Count
    drawings: DrawingsUsed
    gallery: Annotated[str, _kind("unseen or all", lambda value: value in ("unseen", "all"))] = "unseen"
    unseen: Texts = ()
    """Names of the unseen classes, where the gallery holds others too."""
    classes: Texts
    rows: List
