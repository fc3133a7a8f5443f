"""Listing a tree of Sketchy's size: 160,983 files of one byte under the published classes, with the published counts.

Ours: `tcn.data.splits.load` of one split (checked folders, classes and counts, all seven lists, both digests) and of both
splits as a run loads them, by the folders alone and by list files as published; and `data check --fast`. Reference: the
plain lists of the same files, unchecked. With list files the reference lists no folder, while ours lists the folders too and
reads the files' sizes, for the digest and to find files that no list names. Ceiling: the name and size of every file, nothing
else. The operating system holds the folders in memory, so the speed of the disk is not measured.
"""
from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

from benchmarks.speed.conftest import Timed
from benchmarks.speed.reference_indexing import list_classes, read_list
from tcn.data import doctor, lists, scan, specs, splits

SPEC = specs.SPECS["sketchy"]
FILES = 160_983
CHECK = "Sketchy, both splits, data check --fast"
WORKS = {"Sketchy, one split": (("1",), None), "Sketchy, both splits": (("1", "2"), None),
         "Sketchy, one split by list files": (("1",), "auto"), "Sketchy, both splits by list files": (("1", "2"), "auto")}


@lru_cache(maxsize=1)
def tree() -> tempfile.TemporaryDirectory[str]:
    """A data root with Sketchy and its list files; 100 photos of each class lie in both photo folders, as published."""
    kept = tempfile.TemporaryDirectory()
    plan = specs.read_plan("sketchy", "1")
    listed: dict[str, list[list[str]]] = {}
    for index, name in enumerate(plan.roles):
        photos = plan.counts["photos"][name] - 200
        both = [f"n{index:08d}_{i}.jpg" for i in range(100)]
        files = ([f"n{index:08d}_{i // 6}-{i % 6 + 1}.png" for i in range(plan.counts["sketches"][name])], both,
                 both + [f"ext_{i}.jpg" for i in range(photos)])
        listed[name] = [[f"{folder}/{name}/{file}" for file in names] for folder, names in zip(SPEC.folders, files)]
        for paths in listed[name]:
            os.makedirs(os.path.dirname(f"{kept.name}/Sketchy/{paths[0]}"))
            for path in paths:
                with open(f"{kept.name}/Sketchy/{path}", "xb", buffering=0) as file:
                    file.write(b"x")
    for split in SPEC.splits:
        _write_lists(Path(kept.name) / "Sketchy" / SPEC.list_folders[split][0], split, listed)
    return kept


def _write_lists(folder: Path, split: str, listed: dict[str, list[list[str]]]) -> None:
    """The split's five list files and two files of class names; a seen class's first 50 sketches are held out."""
    folder.mkdir()
    plan = specs.read_plan("sketchy", split)
    lines: dict[str, list[str]] = {part: [] for part in lists.PARTS}
    for role, table in (("seen", lists.SEEN_NAMES), ("unseen", lists.UNSEEN_NAMES)):
        (folder / table).write_text("".join(f"{name} {label}\n" for label, name in enumerate(plan.of(role))))
        for label, name in enumerate(plan.of(role)):
            sketches, *photos = ([f"{path} {label}\n" for path in paths] for paths in listed[name])
            held = plan.held_out_per_class if role == "seen" else 0
            lines["heldout_sketches"] += sketches[:held]
            lines["train_sketches" if role == "seen" else "query"] += sketches[held:]
            lines["train_photos" if role == "seen" else "gallery"] += sum(photos, [])
    for part, names in SPEC.list_files.items():
        (folder / names[0]).write_text("".join(lines[part]))


def root() -> Path:
    return Path(tree().name)


def ours(names: tuple[str, ...], by: str | None) -> list[splits.Split]:
    listings: scan.Listings = {}
    return [splits.load("sketchy", split, data_root=root(), cache=root() / "cache", progress=False, lists=by, listings=listings)
            for split in names]


def plain(splits: tuple[str, ...], by: str | None) -> list[dict[str, list[str]]]:
    """For each split, the paths of each list. By the folders alone, training and held-out sketches are one list."""
    base = str(root() / "Sketchy")
    if by:
        return [{part: read_list(base, os.path.join(base, SPEC.list_folders[split][0], file[0]))[0]
                 for part, file in SPEC.list_files.items()} for split in splits]
    found = []
    for split in splits:
        plan = specs.read_plan("sketchy", split)
        folders = {"sketches": SPEC.sketch_folders, "photos": SPEC.photo_folders}
        found.append({part: list_classes(base, folders[kind], plan.of(role))[0]
                      for part, (role, kind) in lists.PARTS.items() if part != "heldout_sketches"})
    return found


def names_and_sizes() -> int:
    total = 0
    for folder in SPEC.folders:
        for place in os.scandir(root() / "Sketchy" / folder):
            with os.scandir(place.path) as entries:
                total += sum(entry.stat().st_size for entry in entries)
    return total


@pytest.mark.parametrize("role", ("reference", "ours", "ceiling"))
@pytest.mark.parametrize("work", WORKS)
def bench_indexing(timed: Timed, work: str, role: str) -> None:
    splits, by = WORKS[work]
    run = {"ours": lambda: ours(splits, by), "reference": lambda: plain(splits, by), "ceiling": names_and_sizes}[role]
    note = {"ours": "", "reference": "lists no folder: each line split, each file looked for" if by else "no checks, no digests",
            "ceiling": "names and sizes, listed once"}[role]
    found = timed("indexing", work, role, FILES * len(splits), "file", run, rounds=3, warmup=1, threads=1, note=note)
    if role == "ceiling":
        assert found == FILES
    elif role == "reference":
        agree(ours(splits, by), found, by)


def agree(made: list[splits.Split], found: list[dict[str, list[str]]], by: str | None) -> None:
    """Check that both give the same files in the same order. By the folders alone our rule holds sketches out; they are put back
    here."""
    for split, theirs in zip(made, found):
        mine = {part: list(files.paths) for part, files in split.lists().items() if len(files)}
        if not by:
            mine["train_sketches"] = sorted(mine["train_sketches"] + mine.pop("heldout_sketches"))
            theirs = theirs | {"train_sketches": sorted(theirs["train_sketches"])}
        assert mine == theirs
        assert sum(map(len, theirs.values())) == FILES


def bench_check(timed: Timed) -> None:
    reports, status = timed("indexing", CHECK, "ours", 2 * FILES, "file", lambda: doctor.check_all(
        ["sketchy"], data_root=root(), cache=root() / "cache", fast=True, progress=False), rounds=3, warmup=1, threads=1,
        note="counts, duplicates by name, leaks by path, manifests")
    assert status == 0 and [report.duplicates["by_name"] for report in reports] == [12_500, 12_500]
