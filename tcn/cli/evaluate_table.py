"""Scores as `evaluate` shows them: lines of text, or one row of a CSV file for each number."""
from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tcn.cli.evaluate_options import EvaluateOptions
from tcn.scoring.instances import SCOPES, InstanceScores
from tcn.scoring.protocols import PROTOCOL_VERSION
from tcn.scoring.scores import Scores

TIES = {
    "expected": "photos at equal distance in random order, the mean over all orders",
    "best": "the largest value that any order of photos at equal distance gives (a bound, not an estimate)",
    "worst": "the smallest value that any order of photos at equal distance gives (a bound, not an estimate)",
    "gallery-order": "photos at equal distance as they stand in the gallery, so the file's order counts",
    "scikit-learn": "in AP, photos at equal distance share the precision at the last of them",
    "unstable-sort": "photos at equal distance as NumPy's default sort leaves them: another machine may give another number",
    "as-released": "as each protocol's own code has them: NumPy's default sort; in AP of cvpr19 and sem-pcyc, as scikit-learn",
}
DISTANCES = {
    "euclidean": "euclidean, of features scaled to unit length",
    "cosine": "cosine (the same order as euclidean at unit length)",
    "hamming": "Hamming, of codes",
}


@dataclass(frozen=True)
class FileScores:
    """The scores of one file of features."""

    scores: list[Scores]  #: by rule for duplicates, that of --json first
    rows: list[list[dict[str, Any]]]  #: for each of them the tidy rows: protocol, metric, value, chance, ...
    metric: str  #: the distance
    made: str  #: how codes were made of real features; empty where they were not
    instances: list[InstanceScores]  #: by rule for duplicates; empty where the file does not say which photo was drawn


def report(args: EvaluateOptions, arrays: Mapping[str, np.ndarray], result: FileScores,
            names: Mapping[str, Sequence[str]], several: Mapping[str, Sequence[str]], copies: str) -> Iterator[str]:
    """The lines of the table, and of what is needed to read it."""
    first, entries = result.scores[0], len(arrays["gallery"])
    yield (f"{args.features}: {first.queries} queries of {len(first.classes)} classes, {entries} gallery "
           f"entries, {arrays['query'].shape[1]} dimensions")
    yield f"protocols   version {PROTOCOL_VERSION} of the rules"
    yield f"distance    {DISTANCES[result.metric]}" + (f"; {result.made}" if result.made else "")
    yield f"ties        {args.ties}: {TIES[args.ties]}"
    error = max(row["standard_error"] for rows in result.rows for row in rows)
    if error:
        yield (f"            ({args.draws} sampled orders where there is no closed form: standard error "
               f"up to {error:.4f})")
    if "gallery_group" in arrays:
        repeats = entries - len(set(zip(arrays["gallery_group"].tolist(), arrays["gallery_labels"].tolist())))
        yield (f"duplicates  {repeats} gallery entries repeat a photo: as-published counts all, distinct the "
               "first of each")
    else:
        yield "duplicates  as-published: every gallery entry counts (no gallery_group to tell copies)"
        if copies:
            yield f"            {copies}"
    if several:
        yield (f"spellings   {len(several)} class(es) spelt in several ways, each taken as one: "
               + "; ".join(" = ".join(map(ascii, (name, *others))) for name, others in several.items()))
    absent = first.relevant == 0
    if absent.any():
        rule = {"zero": "score 0", "as-released": "are left out of mAP and count as 0 in Prec"}
        yield (f"missing     {len(np.unique(first.query_class[absent]))} class(es) without photos: their "
               f"{int(absent.sum())} queries {rule[args.missing_classes]}")
    # metrics of all protocols once, mAP first
    every = dict.fromkeys(name for found in names.values() for name in found)
    ordered = sorted(every, key=lambda name: not name.startswith("mAP"))
    titles = {"value": "value", "chance": "chance (gallery in random order)",
              "ceiling": "ceiling (best ranking)"}
    for scores, rows in zip(result.scores, result.rows):
        yield f"\n{scores.duplicates}: {scores.photos} photos"
        for column, title in titles.items():
            cells = {(row["metric"], row["protocol"]): row[column] for row in rows}
            yield f"\n{title}"
            yield from _grid(ordered, scores.protocols, cells)
    yield from _instances(result.instances)
    if "cvpr19" in first.protocols:
        yield "\ncvpr19's Prec@K is the relevance of the photo at rank K + 1 alone, as its code has it."
    if not args.per_class:
        return
    for scores in result.scores:
        table = _by_class(scores, args.per_class, names)
        cells = {(row["class"], row["protocol"]): row["value"] for row in table}
        counts = {row["class"]: (row["queries"], row["class_photos"]) for row in table}
        yield f"\n{args.per_class} by class, {scores.duplicates}"
        columns = [name for name in scores.protocols if args.per_class in names[name]]
        yield from _grid(list(counts), columns, cells, [("queries", "photos"), *counts.values()])


def _grid(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], float | None],
          extra: Sequence[tuple[Any, ...]] = ()) -> Iterator[str]:
    """A line for each row, a column for each protocol, 4 decimals; "-" where there is no value.

    extra: columns to stand before those of the protocols, their headings first, then an entry for each row.
    """
    extra = extra or [()] * (len(rows) + 1)
    # a name that would break the line is shown escaped
    shown = [row if row.isprintable() else ascii(row) for row in rows]
    width = max(map(len, shown))
    yield f"  {'':<{width}}" + "".join(f"  {text:>8}" for text in (*extra[0], *columns))
    for row, label, texts in zip(rows, shown, extra[1:]):
        values = [cells.get((row, column)) for column in columns]
        texts = (*texts, *("-" if value is None else f"{value:.4f}" for value in values))
        yield f"  {label:<{width}}" + "".join(f"  {text:>8}" for text in texts)


def _instances(found: Sequence[InstanceScores]) -> Iterator[str]:
    """Acc@K with its chance, within the class and over the whole gallery: a table for each rule for duplicates."""
    for scores in found:
        yield f"\nthe very photo that was drawn, {scores.duplicates} (photos at equal distance: mean over all orders)"
        yield "  " + " " * 6 + "".join(f"  {scope:>17}  {'chance':>8}" for scope in SCOPES)
        for k in scores.ks:
            yield f"  {f'Acc@{k}':<6}" + "".join(f"  {scores.value(scope, k):>17.4f}  {scores.chance(scope, k):>8.4f}"
                                                for scope in SCOPES)
    if found:
        yield (f"\n{found[0].queries} of {len(found[0].counted)} queries have the photo that they were drawn from in "
               "the gallery; the others are left out.")


def _by_class(
    scores: Scores, metric: str, names: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Tidy rows, one for each query class and each protocol that has the metric."""
    photos = np.zeros(len(scores.classes), dtype=int)
    photos[scores.query_class] = scores.relevant
    queries = np.bincount(scores.query_class)
    found = []
    for protocol in (name for name in scores.protocols if metric in names[name]):
        means = scores.per_class(protocol, metric)
        found += [{"protocol": protocol, "metric": metric, "class": str(label), "class_photos": int(own),
                   "value": means.get(label.item()), "queries": int(number), "photos": scores.photos}
                  for label, own, number in zip(scores.classes, photos, queries)]
    return found


def write_csv(file: Path, args: EvaluateOptions, result: FileScores, names: Mapping[str, Sequence[str]]) -> None:
    """One row for each number; `class` and `class_photos` are filled in the rows of single classes only."""
    same = {"file": str(args.features), "distance": result.metric, "codes": result.made, "ties": args.ties,
            "protocol_version": PROTOCOL_VERSION, "missing_classes": args.missing_classes}
    rows: list[dict[str, Any]] = []
    for place, (scores, own) in enumerate(zip(result.scores, result.rows)):
        if result.instances:
            own = own + [{**row, "ties": "expected"} for row in result.instances[place].rows()]
        by_class = _by_class(scores, args.per_class, names) if args.per_class else []
        rows += [{**same, "duplicates": scores.duplicates, "class": "", "class_photos": "", **row}
                 for row in own + by_class]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
