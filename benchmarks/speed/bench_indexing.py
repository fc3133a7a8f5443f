"""Listing a tree of Sketchy's size: 160,983 files of one byte under the published classes, with the published counts.

Ours: `tcn.datasets.load` of one split (checked folders, classes and counts, all seven lists, both digests), and of both
splits as a run loads them. Reference: the plain lists of the same files, unchecked. Ceiling: naming and measuring every
file, nothing else. The system has the folders in memory: a disk's own speed is not in it.
"""
from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

from benchmarks.speed.reference_indexing import list_classes
from tcn import datasets

SPEC = datasets.SPECS["sketchy"]
ONE, BOTH = "Sketchy, one split", "Sketchy, both splits"


@lru_cache(maxsize=1)
def tree() -> tempfile.TemporaryDirectory[str]:
    """A data root with Sketchy in it; its first 100 photos of each class lie in both photo folders, as published."""
    kept = tempfile.TemporaryDirectory()
    plan = datasets.read_plan("sketchy", "1")
    for index, name in enumerate(plan.roles):
        photos = plan.counts["photos"][name] - 200
        both = [f"n{index:08d}_{i}.jpg" for i in range(100)]
        files = ([f"n{index:08d}_{i // 6}-{i % 6 + 1}.png" for i in range(plan.counts["sketches"][name])], both,
                 both + [f"ext_{i}.jpg" for i in range(photos)])
        for folder, names in zip(SPEC.folders, files):
            place = Path(kept.name) / "Sketchy" / folder / name
            place.mkdir(parents=True)
            for file in names:
                (place / file).write_bytes(b"x")
    return kept


def root() -> Path:
    return Path(tree().name)


def ours(splits: tuple[str, ...]) -> list[datasets.Split]:
    listings: datasets.Listings = {}
    options = {"data_root": root(), "cache": root() / "cache", "progress": False, "lists": None, "listings": listings}
    return [datasets.load("sketchy", split, **options) for split in splits]


def plain(splits: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """Per split: the paths of each side's seen and unseen classes."""
    found = []
    for split in splits:
        plan = datasets.read_plan("sketchy", split)
        found.append({f"{kind} {role}": list_classes(str(root() / "Sketchy"), folders, plan.of(role))[0]
                      for kind, folders in (("sketches", SPEC.sketch_folders), ("photos", SPEC.photo_folders))
                      for role in ("seen", "unseen")})
    return found


def names_and_sizes() -> int:
    total = 0
    for folder in SPEC.folders:
        for place in os.scandir(root() / "Sketchy" / folder):
            with os.scandir(place.path) as entries:
                total += sum(entry.stat().st_size for entry in entries)
    return total


@pytest.mark.parametrize("role", ("reference", "ours", "ceiling"))
@pytest.mark.parametrize("work, splits", [(ONE, ("1",)), (BOTH, ("1", "2"))])
def bench_indexing(timed, work, splits, role):
    run = {"ours": lambda: ours(splits), "reference": lambda: plain(splits), "ceiling": names_and_sizes}[role]
    files = 160_983
    found = timed("indexing", work, role, files * len(splits), "file", run, rounds=3, warmup=1, threads=1,
                  note={"ours": "", "reference": "no checks, no digests", "ceiling": "names and sizes, listed once"}[role])
    if role == "ceiling":
        assert found == files
    elif role == "reference":
        for split, theirs in zip(ours(splits), found):
            assert theirs["sketches unseen"] == list(split.query.paths)
            assert theirs["photos seen"] == list(split.train_photos.paths)
            assert sorted(theirs["sketches seen"]) == sorted(split.train_sketches.paths + split.heldout_sketches.paths)
            assert theirs["photos unseen"] == list(split.gallery.paths)
