"""What MLflow's own pages show of runs and of a suite: a description, a table of queries, example retrievals, units in names.

In: result folders and the report. Out: Markdown, tables and pictures for benchmarks/mirror.py, which logs them. What can't be
read is left out: it is the mirror's wrapping, and no run depends on it.
"""
from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageDraw

from baselines import VARIANTS
from benchmarks.experiments import PlannedRun
from benchmarks.records import read_json
from benchmarks.result_folder import CHECKED_BYTES, is_own
from benchmarks.store import RunFolder, SuiteFolder
from tcn.config import InputError
from tcn.files.text import shown

MOST_NOTE = 7_000
"""Letters of a description; MLflow cuts a tag at 8,000."""
NOTE, TABLES = "mlflow.note.content", "mlflow.loggedArtifacts"
"""Tags that MLflow's pages read: the description, and which JSON files are tables to be compared between runs."""
PER_QUERY = "per_query.json"
SHOWN_FIGURES = ("overview", "retrieval", "tsne")
"""Endings of the figures that a suite's description shows, and in which order."""
TILE, GAP, RIGHT, WRONG = 96, 4, (0, 122, 85), (213, 94, 0)
UNITS = {"train_seconds": "cost/train_seconds", "total_seconds": "cost/total_seconds", "optimizer_steps": "cost/optimizer_steps"}
"""Entry of provenance.json -> the metric that it becomes. Names say their unit; scores are shares from 0 to 1 and have none."""


def report_address(experiment: str, parent: str) -> str:
    """The report among the artifacts of a suite's run, as a link within MLflow's pages."""
    return f"#/experiments/{experiment}/runs/{parent}/artifacts/report/index.html"


def log(client: Any, entities: Any, run_id: str | None, folder: RunFolder, values: Mapping[str, float], stamp: int,
        report: str) -> None:
    """Log what MLflow's pages show of a finished run. A second time replaces the first, but for the pictures,
    which are logged once.

    client, entities: MLflow's own; values: metrics by name; stamp: their time in milliseconds since 1970;
    report: `report_address`.
    """
    record, table = read_json(folder.path / "provenance.json"), per_query_table(folder.path)
    tags = {NOTE: run_note(folder.run, values, record, report)}
    if table is not None:
        client.log_text(run_id, table, PER_QUERY)
        tags[TABLES] = json.dumps([{"path": PER_QUERY, "type": "table"}])
    client.log_batch(run_id, metrics=[entities.Metric(name, value, stamp, 0) for name, value in costs(record).items()],
                     tags=[entities.RunTag(name, text) for name, text in tags.items()])
    if not client.list_artifacts(run_id, "images"):
        for number, picture in example_strips(folder.path):
            client.log_image(run_id, picture, key="retrieval", step=number, timestamp=stamp, synchronous=True)


def run_note(run: PlannedRun, values: Mapping[str, float], record: Mapping[str, Any], report: str) -> str:
    """A run's description in Markdown: one sentence, and a link to the report. record: provenance.json; the rest as in `log`."""
    score = values.get("unseen/real/released/mAP_at_all")
    found = ("" if score is None
             else f" finds unseen classes with an mAP@all of **{score:.3f}** (released rule, real-valued features)")
    steps, brought = record.get("optimizer_steps"), bool(record.get("brought"))
    how = (", by features made elsewhere and scored here" if brought
           else f", after {steps:,} optimiser steps" if steps and _counts(steps) else ", untrained" if not run.trained else "")
    where = f", on {_plain(shown(record['device'][:80]))}" if isinstance(record.get("device"), str) and not brought else ""
    title = str(record.get("title") or (VARIANTS[run.variant].title if run.variant in VARIANTS else run.variant))[:200]
    smoke = " A smoke run: its numbers say nothing about the method." if record.get("smoke") is True else ""
    return (f"**{_plain(title)}** (`{run.variant}`) on {_plain(run.dataset)}, split {_plain(run.split)}, "
            f"seed {run.seed}{found}{how}{where}.{smoke}\n\n"
            f"[The report of all runs]({report}). Metrics are named CLASSES/FEATURES/RULE/METRIC and "
            f"are shares from 0 to 1; what has a unit says it in its name.")


def suite_note(suite: SuiteFolder, report: Path, address: str, parent: str) -> str:
    """A suite's description in Markdown: one sentence, a link to the report, its main tables and figures as far as they fit.

    report: the folder of the report; address: `report_address`; parent: id of the suite's run, whose artifacts the figures are.
    """
    runs = len(suite.head()["runs"])
    smoke = " (a smoke run: these numbers say nothing about the method)" if suite.smoke else ""
    lost = any((report / "pictures").glob("*"))  # MLflow shows a page without the files beside it
    text = (f"{runs:,} run{'s' * (runs != 1)} of the profile `{suite.profile}`{smoke}. [Open the report]({address}): every "
            f"table{' and figure' if lost else ', figure and query'}, and where each number comes from.\n")
    figures = "".join(f"\n![{path.stem}](get-artifact?path={quote(f'report/figures/{path.name}', safe='')}&run_uuid={parent})\n"
                      for ending in SHOWN_FIGURES for path in sorted((report / "figures").glob(f"*-{ending}.png")))
    for path in sorted((report / "tables").glob("*-comparison.md")):
        table = path.read_text(encoding="utf-8", errors="replace")
        if len(text) + len(table) + len(figures) < MOST_NOTE:
            text += f"\n{table}"
    return (text + figures)[:MOST_NOTE]


def per_query_table(folder: Path) -> str | None:
    """per_query.csv as MLflow keeps tables: JSON with `columns` and `data`. None where it is missing, large or damaged."""
    path = folder / "per_query.csv"
    try:
        if not is_own(path, folder) or path.stat().st_size > CHECKED_BYTES:
            return None
        with path.open(newline="", encoding="utf-8") as source:
            columns, *rows = csv.reader(source)
        number = [name.startswith(("AP_", "Prec")) for name in columns]
        data = [[float(text) if numeric else text for text, numeric in zip(row, number, strict=True)] for row in rows]
        return json.dumps({"columns": columns, "data": data}, allow_nan=False)
    except (OSError, ValueError, csv.Error):
        return None


def example_strips(folder: Path) -> Iterator[tuple[int, Image.Image]]:
    """Example retrievals as pictures, by number: the query, then its photos, right ones framed in green. The same number is the
    same query in every run of a split, but for the last one, which is the run's own worst."""
    if not is_own(folder / "examples.json", folder):
        return
    try:
        examples = json.loads((folder / "examples.json").read_text(encoding="utf-8"))["examples"]
        strips = [_strip(folder, example) for example in examples]
    except Exception:  # decoders raise many kinds of errors for a damaged picture
        return
    yield from enumerate(strips)


def _strip(folder: Path, example: Mapping[str, Any]) -> Image.Image:
    hits, pictures = example["retrieved"], folder / "examples"
    strip = Image.new("RGB", ((len(hits) + 1) * (TILE + 2 * GAP) + 2 * GAP, TILE + 2 * GAP), "white")
    pen = ImageDraw.Draw(strip)
    for place, (one, colour) in enumerate([(example["query"], None),
                                           *((hit, RIGHT if hit["correct"] else WRONG) for hit in hits)]):
        left = place * (TILE + 2 * GAP) + (2 * GAP if place else 0)
        if colour:
            pen.rectangle((left, 0, left + TILE + 2 * GAP - 1, TILE + 2 * GAP - 1), outline=colour, width=GAP - 1)
        path = pictures / Path(str(one["file"])).name
        if not is_own(path, folder):
            raise InputError(f"{path} is no file of the run")
        with Image.open(path) as found:
            picture = found.convert("RGB")
        picture.thumbnail((TILE, TILE))
        strip.paste(picture, (left + GAP, GAP))
    return strip


def costs(record: Mapping[str, Any]) -> dict[str, float]:
    """What a run cost, by metric."""
    return {name: float(record[key]) for key, name in UNITS.items() if _counts(record.get(key))}


def _counts(value: object) -> bool:
    """Whether this is a number to reckon with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


def _plain(text: str) -> str:
    """Text that begins no Markdown of its own."""
    return "".join("\\" + sign if sign in "\\`*_[]<>!#|" else " " if sign in "\r\n" else sign for sign in text)
