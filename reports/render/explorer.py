"""Every query of every run, for the page to be looked at: what it finds, as compact data beside the tables and figures.

In: a checked suite, and where figures show points. Out: texts of `<script type="application/json">` elements, or files beside the
page where these would take more than BUDGET bytes; sentences that say what can be looked at, and what is missing.
templates/explorer.js shows them. Arrays are base64 of little-endian numbers; NONE stands for what is not there.
"""
from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from reports import naming
from reports.figure_kinds import FigureData
from reports.read.escaping import visible
from reports.read.files import ReportError
from reports.read.pictures import FOLDER, Sheets, read_sheets
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.stats.nearest import nearest
from reports.wording import listed

BUDGET = 8_000_000
"""Bytes that pictures and data may add to the page; where they need more, all of them are files beside it."""
SHOWN = 10
"""Photos kept for a query."""
NONE = 0xFFFFFFFF
SCALE = 10_000
"""Average precision and places in a figure are kept as whole numbers of so many parts."""
LEAD = ("In a browser, index.html shows here every query of every run: by class, from the hardest to the easiest, or where two "
        "runs differ most; a query leads to the photos that each run finds first.")

Lists = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Classes and paths of queries, classes and paths of photos."""


@dataclass
class Explorer:
    """What the page's script needs, and what the page says of it."""

    index: Markup = Markup("")
    """JSON: tasks with their classes, lists, runs and figures. Empty where no run kept features."""
    parts: dict[str, Markup] = field(default_factory=dict)
    """id of an element -> its text: a sheet in base64, or the JSON of a run."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name beside the page -> contents."""
    sentences: list[str] = field(default_factory=list)


def build(suite: Suite, figures: Mapping[Task, Sequence[FigureData]], places: Mapping[str, np.ndarray]) -> Explorer:
    """The explorer of a suite. figures: those of each task that could be drawn; places: figure -> where it shows each row of its
    frame, [N, 2] as shares of its width and height from the top left."""
    made = Explorer()
    tasks: list[dict[str, Any]] = []
    texts: dict[str, str | bytes] = {}
    for number, task in enumerate(suite.tasks()):
        found, alike = _task(suite, task, number, texts, made.sentences)
        maps = [_map(data, places[data.name], alike) for data in figures.get(task, ()) if data.name in places]
        if found is None and not maps:
            continue
        tasks.append((found or _blank(task)) | {"maps": maps})
    if not tasks:
        return made
    sheets = [text for text in texts.values() if isinstance(text, bytes)]
    size = sum(-(-len(text) // 3) * 4 if isinstance(text, bytes) else len(text) for text in texts.values())
    beside = size > BUDGET
    for name, text in texts.items():
        if beside:
            made.files[_file(name)] = text if isinstance(text, bytes) else f"tcnQueries({json.dumps(name)}, {text});\n".encode()
        else:
            made.parts[name] = Markup(text if isinstance(text, str) else base64.b64encode(text).decode())
    if texts:
        made.sentences.insert(0, LEAD)
        where = f"stand in {FOLDER}/ beside this page" if beside else "stand in this page"
        made.sentences.append("Small pictures and ranks take "
                              f"{f'{size / 1e6:,.1f} MB' if size > 99_999 else f'{size / 1e3:,.0f} kB'} and {where}"
                              + ("." if sheets else "; no pictures are among them: classes are named instead."))
    made.index = as_json({"tasks": tasks, "none": NONE, "scale": SCALE, "shown": SHOWN, "folder": f"{FOLDER}/" if beside else ""})
    return made


def as_json(value: object) -> Markup:
    r"""JSON that can stand in a `<script>` element: no tag begins or ends in it, and hidden characters are visible.

    >>> print(as_json(["</script>", "a&b"]))
    ["\u003c/script\u003e","a\u0026b"]
    """
    text = json.dumps(_shown(value), separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def packed(values: np.ndarray, bits: int = 16) -> str:
    """Whole numbers from 0 as base64 of little-endian ones of 16 or 32 bits."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<u{bits // 8}").tobytes()).decode()


def _file(name: str) -> str:
    """Name of the file that holds a part: sheets are pictures, runs are scripts, which a page opened from a disk may load."""
    return f"{FOLDER}/{name}.{'webp' if name.startswith('sheet') else 'js'}"


def _blank(task: Task) -> dict[str, Any]:
    return {"title": naming.task_title(task), "slug": task.slug, "classes": [], "queries": "", "photos": "", "sheets": None,
            "runs": []}


def _task(suite: Suite, task: Task, number: int, texts: dict[str, str | bytes], sentences: list[str]
          ) -> tuple[dict[str, Any] | None, set[tuple[str, int]]]:
    """What the index says of a task, None where no run can be looked at; and variant and seed of the runs that can, whose lists
    of files are the same. Sheets and runs are added to `texts`."""
    lists: Lists | None = None
    alike: set[tuple[str, int]] = set()
    runs: list[dict[str, str]] = []
    without: list[str] = []
    variants = sorted(suite.variants(task), key=lambda v: (v not in naming.SHORT_LABELS, list(naming.LABELS).index(v)
                                                            if v in naming.LABELS else 0, v))
    for run in (run for variant in variants for run in suite.runs_of(task, variant)):
        arrays = suite.features(run)
        own = None if arrays is None or "query_paths" not in arrays else (
            arrays["query_labels"], arrays["query_paths"], arrays["gallery_labels"], arrays["gallery_paths"])
        if arrays is None or own is None or lists is not None and not all(map(np.array_equal, own, lists)):
            without.append(run.name)
            continue
        lists = own
        alike.add((run.variant, run.seed))
        precisions = suite.precisions(run, own[0])
        name = f"run-{number}-{len(runs)}"
        wide = 32 if len(own[2]) > 0xFFFF else 16
        texts[name] = str(as_json({
            "nearest": packed(nearest(arrays["query"], arrays["gallery"], SHOWN), wide), "bits": wide,
            "ap": None if precisions is None else packed(np.round(precisions * SCALE))}))
        runs.append({"name": f"{naming.label(run.variant)}, seed {run.seed}", "row": naming.label(run.variant),
                     "anchor": run.anchor, "part": name})
    title = naming.task_title(task)
    if without:
        sentences.append(f"{title}: {len(without)} run{'s' * (len(without) != 1)} kept no features with their files, or of "
                         f"other files, and can't be looked at here: {listed(without[:3])}{' and others' * (len(without) > 3)}.")
    if lists is None:
        return None, alike
    classes = sorted({*lists[0].tolist(), *lists[2].tolist()})
    place = {name: at for at, name in enumerate(classes)}
    digests = {run.provenance.data_digest for run in suite.runs if run.task == task and (run.variant, run.seed) in alike}
    sheets = _sheets(suite, task, digests - {""}, title, sentences)
    sentences.append(f"{title}: each of {len(lists[0]):,} query sketches under each of {len(runs):,} runs, with the "
                     f"{min(SHOWN, len(lists[2]))} photos that it finds first among {len(lists[2]):,}.")
    return {"title": title, "slug": task.slug, "classes": classes,
            "queries": packed(np.array([place[name] for name in lists[0].tolist()]), 32),
            "photos": packed(np.array([place[name] for name in lists[2].tolist()]), 32), "runs": runs,
            "sheets": None if sheets is None else _tiles(sheets, lists, number, texts)}, alike


def _sheets(suite: Suite, task: Task, digests: Collection[str], title: str, sentences: list[str]) -> Sheets | None:
    try:
        return read_sheets(suite.holding(f"{FOLDER}/{task.dataset}-{task.split}"), task, digests)
    except ReportError as error:
        sentences.append(f"{title}: no small pictures ({error}). The command that made the runs writes them when it is "
                         "given again where the data are.")
        return None


def _tiles(sheets: Sheets, lists: Lists, number: int, texts: dict[str, str | bytes]) -> dict[str, Any]:
    """Where each query and photo is shown; the sheets are added to `texts`."""
    parts = [f"sheet-{number}-{at}" for at in range(len(sheets.contents))]
    texts.update(zip(parts, sheets.contents))
    return {"side": sheets.side, "columns": sheets.columns, "each": sheets.each, "parts": parts,
            "queries": packed(np.array([sheets.queries.get(path, NONE) for path in lists[1].tolist()]), 32),
            "photos": packed(np.array([sheets.photos.get(path, NONE) for path in lists[3].tolist()]), 32)}


def _map(data: FigureData, places: np.ndarray, alike: Collection[tuple[str, int]]) -> dict[str, Any]:
    """The points of a figure: where each is, and what it shows. Its frame has the columns of `feature_frames.tsne`, with one
    seed of a variant. alike: variant and seed of the runs whose lists of files are those of the task."""
    frame: pd.DataFrame = data.frame
    names = sorted(frame["class"].unique())
    runs = list(dict.fromkeys(zip(frame["variant"], frame["seed"])))
    variants = [variant for variant, _ in runs]
    inside = ((places >= 0) & (places <= 1)).all(axis=1)
    kept = frame[inside]
    return {"figure": f"figure-{data.name}", "classes": names, "panels": [naming.label(variant) for variant in variants],
            "lists": [run in alike for run in runs],
            "x": packed(np.round(places[inside, 0] * SCALE)), "y": packed(np.round(places[inside, 1] * SCALE)),
            "class": packed(kept["class"].map(names.index).to_numpy(), 32),
            "panel": packed(kept["variant"].map(variants.index).to_numpy()),
            "photo": packed((kept["modality"] == "photo").to_numpy()), "number": packed(kept["number"].to_numpy(), 32)}

