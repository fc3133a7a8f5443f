"""Drawings of another data set as queries of a finished run: which count, what they score, what is refused."""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_suite import ONE, common, places, run_folders

from benchmarks import preflight, prepared, run_all, runner
from benchmarks.extension import cross_dataset
from benchmarks.extraction import Encoder
from benchmarks.material import Material
from benchmarks.store import RunFolder
from tcn.config import Modality
from tcn.data import strokes

CLASSES = ("bat", "cow", "palm tree", "windmill")
FOLDERS = {"bat": "bat", "cow": "Cow", "palm tree": "palm_tree", "windmill": "windmill"}


@pytest.fixture(scope="module")
def suite(place) -> Path:
    """A suite with a trained network, and an untrained baseline whose features are standardised on training images."""
    output = place / "crossed"
    assert run_all.main([*common(place), *ONE, "--variants", "hws", "untrained-svd-permodality", "--output", str(output),
                         "--no-report"]) == 0
    return output


@pytest.fixture(scope="module")
def own_sketches(place) -> Path:
    """The run's own query sketches of four unseen classes, unequally many, and a seen class, as if drawn elsewhere."""
    source, target = place / "data" / "QuickDraw" / "QuickDraw_sketches_final", place / "own sketches"
    for number, (name, folder) in enumerate({**FOLDERS, "airplane": "airplane"}.items()):
        (target / folder).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:1 + number % 3]:
            shutil.copy(path, target / folder / path.name)
    return target


def cross(place: Path, *arguments: object) -> int:
    return cross_dataset.main([*places(place), "--no-report", *map(str, arguments)])


def naive(folder: Path, chosen: Iterable[tuple[str, str]]) -> tuple[float, float]:
    """mAP@all by the standard rule, and Prec@5, of the run's own queries (file, class to count as) from its saved features."""
    data = np.load(folder / "features.npz")
    q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (data["query"].astype(float), data["gallery"].astype(float)))
    precisions, fives = [], []
    for file, name in chosen:
        row = next(i for i, path in enumerate(data["query_paths"]) if path.endswith(file))
        hits = data["gallery_labels"][np.argsort(((g - q[row]) ** 2).sum(1), kind="stable")] == name
        precisions.append(np.mean([hits[:i + 1].mean() for i in np.flatnonzero(hits)]))
        fives.append(hits[:5].mean())
    return float(np.mean(precisions)), float(np.mean(fives))


def number(found: dict, domain: str, metric: str) -> float:
    return next(row["value"] for row in found["rows"]
                if (row["domain"], row["protocol"], row["metric"]) == (domain, "standard", metric))


@pytest.mark.parametrize("variant", ["hws", "untrained-svd-permodality"])
def test_the_runs_own_sketches_score_as_the_run_saved_them(place, suite, own_sketches, variant, capsys):
    """Encoded anew from the checkpoint, against the saved gallery; in domain, all queries of the same four classes count."""
    folder = run_folders(suite)[f"quickdraw-1__{variant}__seed3"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cross(place, folder, "--drawings", own_sketches) == 0
    assert "in-domain" in capsys.readouterr().out
    (path,) = (path for path in (suite / "cross-dataset").glob(f"{folder.name}__*.json") if not path.stem.endswith("all"))
    found = json.loads(path.read_text())
    assert found["classes"] == sorted(CLASSES) and found["drawings"]["name"] == "own sketches"
    source = place / "data" / "QuickDraw" / "QuickDraw_sketches_final"
    chosen = {"cross-domain": [(f"{name}/{file.name}", name) for name in CLASSES
                               for file in (own_sketches / FOLDERS[name]).iterdir()],
              "in-domain": [(f"{name}/{file.name}", name) for name in CLASSES for file in (source / name).iterdir()]}
    for domain, queries in chosen.items():
        precision, five = naive(folder, queries)
        assert number(found, domain, "mAP@all") == pytest.approx(precision, rel=1e-4)
        assert number(found, domain, "Prec@5") == pytest.approx(five, rel=1e-6)
        assert {(row["queries"], row["photos"]) for row in found["rows"] if row["domain"] == domain} == {(len(queries), 60)}
    assert (len(chosen["in-domain"]), len(chosen["cross-domain"])) == (12, 7)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_drawing_counts_as_what_its_folder_says(place, suite, own_sketches, tmp_path):
    """Bats in the folder of cows: another number across, the same in domain."""
    shutil.copytree(own_sketches / "bat", tmp_path / "drawn" / "cow")
    shutil.copytree(own_sketches / "Cow", tmp_path / "drawn" / "bat")
    folder = run_folders(suite)["quickdraw-1__hws__seed3"]
    assert cross(place, folder, "--drawings", tmp_path / "drawn") == 0
    found = next(one for path in (suite / "cross-dataset").glob(f"{folder.name}__*.json")
                 if (one := json.loads(path.read_text()))["drawings"]["name"] == "drawn")
    swapped = [(f"{name}/{file.name}", other) for name, other in (("bat", "cow"), ("cow", "bat"))
               for file in (tmp_path / "drawn" / other).iterdir()]
    assert number(found, "cross-domain", "mAP@all") == pytest.approx(naive(folder, swapped)[0], rel=1e-4)
    assert number(found, "in-domain", "mAP@all") != number(found, "cross-domain", "mAP@all")


def test_seen_classes_are_queries_too_against_all_photos(place, suite, own_sketches, capsys):
    """The drawings are the run's own pictures: unseen queries, and a training sketch of a seen class. Every value from a naive
    ranking of the whole set of photos, which is encoded anew here."""
    folder = run_folders(suite)["quickdraw-1__hws__seed3"]
    assert cross(place, folder, "--drawings", own_sketches, "--seen-too") == 0
    assert "cross-domain, unseen " in capsys.readouterr().out
    (path,) = (suite / "cross-dataset").glob(f"{folder.name}__*__all.json")
    found = json.loads(path.read_text())
    assert found["gallery"] == "all" and found["classes"] == sorted([*CLASSES, "airplane"]) and "airplane" not in found["unseen"]

    run = RunFolder.read(folder)
    options = cross_dataset._parser().parse_args([*places(place), str(folder), "--drawings", str(own_sketches)])
    material = Material(prepared.places_of(options, prepared.data_root(options), preflight.Checks()))
    encoder = Encoder(runner.rebuilt(run, material, torch.device("cpu")), run.run.config, material, torch.device("cpu"))
    split, unit = material.split_of(run.run.config), lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    photos = {role: material.pixels(run.run.config, role) for role in ("train_photos", "gallery")}
    gallery = unit(np.concatenate([encoder(part, Modality.PHOTO) for part in photos.values()]).astype(float))
    labels = np.concatenate([np.array(split.classes)[part.files.labels] for part in photos.values()])

    def naive_of_all(role: str, names: Iterable[str]) -> tuple[float, int]:
        part = material.pixels(run.run.config, role)
        precisions = []
        for row, name in zip(unit(encoder(part, Modality.SKETCH).astype(float)), np.array(split.classes)[part.files.labels]):
            if name in names:
                hits = labels[np.argsort(((gallery - row) ** 2).sum(1), kind="stable")] == name
                precisions.append(np.mean([hits[:i + 1].mean() for i in np.flatnonzero(hits)]))
        return float(np.mean(precisions)), len(precisions)

    rows = {(row["domain"], row["classes"]): row for row in found["rows"]
            if (row["protocol"], row["metric"]) == ("standard", "mAP@all")}
    assert {row["photos"] for row in rows.values()} == {len(labels)} and len(labels) > 60
    for group, role, names in (("unseen", "query", CLASSES), ("seen", "heldout_sketches", ("airplane",))):
        value, queries = naive_of_all(role, names)
        assert rows["in-domain", group]["value"] == pytest.approx(value, rel=1e-4)
        assert rows["in-domain", group]["queries"] == queries
    for domain, counts in (("in-domain", (12, 1)), ("cross-domain", (7, 2))):
        each = [rows[domain, group] for group in ("unseen", "seen")]
        assert tuple(row["queries"] for row in each) == counts
        both = sum(row["value"] * row["queries"] for row in each) / sum(counts)
        assert rows[domain, "all"]["value"] == pytest.approx(both) and rows[domain, "all"]["queries"] == sum(counts)


def test_drawn_strokes_are_scored_by_every_run_of_an_output_folder(place, suite, tmp_path):
    lines = [{"word": word, "recognized": key % 2 == 0, "key_id": str(key), "drawing": [[[0, 9 * key, 50], [0, 40, key]]]}
             for word in ("bat", "tree", "airplane") for key in range(1, 5)]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, lines)))
    strokes.draw([tmp_path], tmp_path / "drawn", unrecognised=False, how=strokes.Rendering(size=32, margin=4),
                 names_of="quickdraw", progress=False)
    assert cross(place, suite, "--drawings", tmp_path / "drawn") == 0
    digest = strokes.read_manifest(tmp_path / "drawn")["digest"]
    made = {path.name: json.loads(path.read_text()) for path in (suite / "cross-dataset").glob(f"*__{digest[:8]}.json")}
    assert {found["variant"] for found in made.values()} == {"hws", "untrained-svd-permodality"}
    for found in made.values():
        assert found["classes"] == ["bat", "tree"] and found["drawings"]["settings"]["unrecognised"] is False
        assert {row["queries"] for row in found["rows"] if row["domain"] == "cross-domain"} == {4}
        assert {"commit", "device", "threads", "command"} <= set(found)
    (tmp_path / "drawn" / "bat" / "2.png").unlink()
    assert cross(place, suite, "--drawings", tmp_path / "drawn") == 2


def test_what_does_not_fit_is_refused(place, suite, own_sketches, tmp_path, capsys):
    folder = run_folders(suite)["quickdraw-1__hws__seed3"]

    def refused(*arguments: object) -> str:
        assert cross(place, *arguments) in (1, 2)
        return capsys.readouterr().err

    assert "is no folder" in refused(folder, "--drawings", tmp_path / "none")
    assert "no finished run" in refused(tmp_path, "--drawings", own_sketches)
    (tmp_path / "seen" / "airplane").mkdir(parents=True)
    shutil.copy(next((own_sketches / "airplane").iterdir()), tmp_path / "seen" / "airplane")
    assert "holds no picture of an unseen class of quickdraw 1" in refused(folder, "--drawings", tmp_path / "seen")

    copy = tmp_path / "copy"
    shutil.copytree(suite, copy, ignore=shutil.ignore_patterns("mlflow*", "mlartifacts", "SHA256SUMS", "cross-dataset"))
    other = run_folders(copy)["quickdraw-1__hws__seed3"]
    arrays = dict(np.load(other / "features.npz"))
    np.savez(other / "features.npz", **{**arrays, "query": arrays["query"][::-1]})
    assert "gives other features than its features.npz holds" in refused(other, "--drawings", own_sketches)
    assert not (copy / "cross-dataset").exists()
    (other / "checkpoint.pt").unlink()
    assert "checkpoint.pt" in refused(other, "--drawings", own_sketches)
