"""What was measured on a run, written as plain files into its folder.

In: `RunFeatures`, `RunScores`, the split. Out: features.npz, per_query.npz and .csv, metrics.csv, ledger.csv, and what the
report draws: singular_values.csv, precision_recall.csv, examples.json with its pictures.
"""
from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.extraction import RunFeatures, SetFeatures
from benchmarks.records import write_json, write_table
from benchmarks.scoring import HEADLINE, LEDGER_COLUMNS, METRIC_COLUMNS, LedgerRow, RunScores, repeats
from tcn.data.decode import decode
from tcn.data.splits import Files, Split
from tcn.files.atomic import write_bytes
from tcn.scoring import retrieve
from tcn.seeding import numpy_stream

SHOWN = 13
"""Photos shown for an example query."""
THUMBNAIL = 96
FIXED_EXAMPLES = 4


def write_run(folder: Path, split: Split, features: RunFeatures, scores: RunScores) -> None:
    """Write all but the ledger. `features.unseen` has to be of the lists of `split`."""
    write_numbers(folder, split.classes, features.unseen, scores)
    _write_examples(folder, split, features.unseen, scores.per_query["real/released/mAP@all"])


def write_numbers(folder: Path, classes: Sequence[str], unseen: SetFeatures, scores: RunScores) -> None:
    """Write features and every number, but no pictures. `classes`: what the labels of the files count."""
    _write_features(folder / "features.npz", classes, unseen)
    write_table(folder / "singular_values.csv", _singular_values(scores), ("set", "modality", "index", "value"))
    write_table(folder / "precision_recall.csv", [{"features": "real", "recall": float(r), "precision": float(p)}
                                                  for r, p in zip(retrieve.RECALLS.round(2), scores.precision)],
                ("features", "recall", "precision"))
    write_table(folder / "per_query.csv", _per_query(classes, unseen.query_files, scores),
                ("query", "class", "source", "features", "AP_released", "AP_standard", "Prec@R"))
    files = unseen.query_files
    write_arrays(folder / "per_query.npz", {"query": np.array(files.paths), "class": np.array(classes)[files.labels],
                                            **scores.per_query})
    write_table(folder / "metrics.csv", [vars(row) for row in scores.metrics], METRIC_COLUMNS)


def write_ledger(folder: Path, rows: Sequence[LedgerRow]) -> None:
    """Write ledger.csv."""
    write_table(folder / "ledger.csv", [vars(row) for row in rows], LEDGER_COLUMNS)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed .npz file of arrays by name."""
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **named)
    write_bytes(path, buffer.getvalue())


def _write_features(path: Path, classes: Sequence[str], unseen: SetFeatures) -> None:
    names, queries, photos = np.array(classes), unseen.query_files, unseen.gallery_files
    arrays = {"query": unseen.query, "gallery": unseen.gallery, "query_labels": names[queries.labels],
              "gallery_labels": names[photos.labels], "query_paths": np.array(queries.paths),
              "gallery_paths": np.array(photos.paths), "query_sources": np.array(queries.sources)}
    if repeats(photos):
        arrays["gallery_group"] = np.array(photos.groups)
    if any(queries.instances):
        arrays |= {"query_instance": np.array(queries.instances), "gallery_instance": np.array(photos.instances)}
    write_arrays(path, arrays)


def _singular_values(scores: RunScores) -> list[dict[str, object]]:
    return [{"set": name, "modality": modality.value, "index": i, "value": float(value)}
            for name, own in scores.singular_values.items() for modality, values in own.items()
            for i, value in enumerate(values, 1)]


def _per_query(classes: Sequence[str], files: Files, scores: RunScores) -> list[dict[str, object]]:
    kinds = dict.fromkeys(name.partition("/")[0] for name in scores.per_query)
    rows: list[dict[str, object]] = []
    for kind in kinds:
        released, standard = (scores.per_query[f"{kind}/{protocol}/mAP@all"] for protocol in HEADLINE)
        rows += [{"query": path, "class": classes[label], "source": source, "features": kind, "AP_released": float(a),
                  "AP_standard": float(b), "Prec@R": float(c)} for path, label, source, a, b, c in
                 zip(files.paths, files.labels, files.sources, released, standard, scores.per_query[f"{kind}/released/Prec@R"])]
    return rows


def example_queries(split: Split, average_precision: np.ndarray) -> list[tuple[int, str]]:
    """Indices of the queries to show: the same few for every variant, of different classes (`fixed`), and this run's worst
    one (`failure`)."""
    rng = numpy_stream(0, "examples")
    order = rng.permutation(len(split.query.paths))
    fixed: list[int] = []
    for index in order.tolist():
        if split.query.labels[index] not in split.query.labels[fixed]:
            fixed.append(index)
        if len(fixed) == FIXED_EXAMPLES:
            break
    worst = [i for i in np.argsort(average_precision, kind="stable").tolist() if i not in fixed][:1]
    return [(i, "fixed") for i in fixed] + [(i, "failure") for i in worst]


def _write_examples(folder: Path, split: Split, unseen: SetFeatures, precision: np.ndarray) -> None:
    """Pictures of a few queries and of what they retrieve; `precision`: the queries' average precision [Nq]."""
    queries, photos, examples = unseen.query_files, unseen.gallery_files, []

    def thumbnail(files: Files, index: int, name: str) -> str:
        picture, source = io.BytesIO(), files.root / files.paths[index]
        lossy = source.suffix.casefold() != ".png"  # photographs take five times the room without loss
        Image.fromarray(decode(source, THUMBNAIL)).save(picture, "JPEG" if lossy else "PNG", **{"quality": 90} if lossy else {})
        name = f"examples/{name}.{'jpg' if lossy else 'png'}"
        write_bytes(folder / name, picture.getvalue())
        return name

    for number, (index, kind) in enumerate(example_queries(split, precision)):
        top = retrieve.rank(unseen.query[index:index + 1], unseen.gallery, min(SHOWN, len(unseen.gallery)))[0]
        examples.append({
            "query": {"class": split.classes[queries.labels[index]], "source": queries.sources[index],
                      "file": thumbnail(queries, index, f"q{number}")},
            "average_precision": float(precision[index]), "kind": kind,
            "retrieved": [{"rank": rank, "class": split.classes[photos.labels[j]],
                           "file": thumbnail(photos, int(j), f"q{number}-{rank}"),
                           "correct": bool(photos.labels[j] == queries.labels[index])}
                          for rank, j in enumerate(np.asarray(top).tolist(), 1)]})
    write_json(folder / "examples.json", {"examples": examples})
