"""Writes folders of finished runs whose numbers follow from features, by the code that scores every run,
under their true identity.

The data are lopsided: classes, publishers and galleries of unequal size, photos listed twice, sketches whose photo is known.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments import PlannedRun
from benchmarks.extraction import RunFeatures, SetFeatures
from benchmarks.records import write_json
from benchmarks.run_artifacts import write_numbers
from benchmarks.scoring import score_run
from benchmarks.store import RunFolder
from tcn.config import Config, Modality, change, identity
from tcn.data.splits import Files
from tcn.scoring.protocols import PROTOCOL_VERSION

CLASSES = {"ant": (1, 7), "bee": (6, 2), "cow": (2, 5), "dog": (4, 3)}
"""Class -> how many queries and photos."""


def write_scored_run(root: Path, seed: int = 0, variant: str = "tcn", noise: float = 1.0, settings: dict[str, Any] | None = None,
                     **record: Any) -> Path:
    """One finished run of Sketchy's split 1; `record`: further fields of its provenance.json."""
    rng = np.random.default_rng([seed, len(variant)])
    names, centres = list(CLASSES), np.random.default_rng(5).normal(size=(len(CLASSES), 6))

    def side(at: int, sources: tuple[str, ...]) -> tuple[np.ndarray, Files]:
        labels = np.repeat(np.arange(len(names)), [counts[at] for counts in CLASSES.values()])
        values = (centres[labels] + noise * rng.normal(size=(len(labels), 6))).astype(np.float32)
        paths = tuple(f"{names[label]}/{'qp'[at]}{row}.png" for row, label in enumerate(labels))
        # the last photo of a class is listed twice;
        # a sketch was drawn from the photo of its class with its number, if there is one
        repeated = [at == 1 and row > 0 and labels[row] == labels[row - 1]
                    and (row + 1 == len(labels) or labels[row + 1] != labels[row]) for row in range(len(labels))]
        groups = tuple(f"{paths[row - again]}" for row, again in enumerate(repeated)) if at else ()
        numbers = [int((labels[:row] == label).sum()) for row, label in enumerate(labels)]
        instances = tuple(f"{names[label]}-{number}" for label, number in zip(labels, numbers))
        return values, Files(Path(), paths, labels, tuple(sources[row % len(sources)] for row in range(len(labels))),
                             groups, instances)

    query, queries = side(0, ("east", "east", "west"))
    gallery, photos = side(1, ("",))
    features = RunFeatures({m: rng.normal(size=(40, 6)).astype(np.float32) for m in Modality},
                           SetFeatures(query, gallery, queries, photos),
                           SetFeatures(query[::-1].copy(), gallery[::-1].copy(), queries, photos))
    config = change(Config(), {"data.dataset": "sketchy", "data.split": "1", "seed": seed, "training.optimizer": "none",
                               "training.epochs": 0, **(settings or {})})
    digests = {"data_digest": "d" * 64, "split_digest": "e" * 64, "words_digest": "f" * 64}
    folder = RunFolder(root, PlannedRun("sketchy", "1", variant, config), identity(config, *digests.values()))
    folder.path.mkdir(parents=True)
    folder.write_config()
    write_numbers(folder.path, names, features.unseen, score_run(features, config))
    write_json(folder.path / "provenance.json", {
        **digests, "identity": folder.identity, "commit": "c0ffee" + "0" * 34, "dirty": False, "versions": {"torch": "0.0.1"},
        "device": "made-up device", "protocol_version": PROTOCOL_VERSION, "seed": seed, "smoke": False,
        "command": "python made up", "started": "2000-01-01T00:00:00", "finished": "2000-01-01T00:10:00", **record})
    folder.seal()
    folder.set_state("finished")
    return folder.path


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
