"""Which files on disk the lines of published lists mean.

In: the checked lines of a list directory and the `Tree` of each folder. Out: for each list its files in the lines'
order, and `Findings` on lines without a file, classes without a line, and spellings that differ.
"""
from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tcn.data.lists import PARTS, Line, ListDirectory
from tcn.data.scan import Entry, Findings, Tree, entries
from tcn.data.specs import DatasetSpec, Plan
from tcn.files.text import some

_INSTEAD = {"train_photos": "all photos of seen classes", "gallery": "all photos of unseen classes",
            "query": "all sketches of unseen classes", "train_sketches": "the sketches of seen classes not held out"}
"""List -> what stands for it where its file is absent."""


def folders_in_lists(found: DatasetSpec) -> dict[str, dict[str, str]]:
    """`sketches`, `photos` -> every way in which lists write a folder -> its name in the spec.

    MA-ZS-SBIR's table of TU-Berlin writes `.../tuberlin-ext/test/photo`: its copy parts the classes by role.
    """
    known = {kind: {name: folder for folder in folders for name in (folder, *found.alternatives.get(folder, ()))}
             for kind, folders in (("sketches", found.sketch_folders), ("photos", found.photo_folders))}
    if len(found.folders) == 2:  # with one folder of each kind there is no doubt which one is meant
        known["sketches"] |= dict.fromkeys(("train/sketch", "test/sketch"), found.sketch_folders[0])
        known["photos"] |= dict.fromkeys(("train/photo", "test/photo"), found.photo_folders[0])
    return known


def match(listing: ListDirectory, trees: Sequence[Tree], plan: Plan, findings: Findings) -> dict[str, list[Entry]]:
    """List -> the files on disk that its lines name, in the lines' order."""
    disk = _OnDisk(trees)
    found: dict[str, list[Entry]] = {}
    for part, lines in listing.lines.items():
        source = listing.used[part]
        found[part], missing, endings = _matched(lines, disk)
        if missing:
            examples = some([f"line {one.number} ({one.prefix}/{one.written}/{one.file})" for one in missing], 5)
            findings.problems.append(
                f"{listing.path / source}: {len(missing):,} of {len(lines):,} listed files are not on disk: "
                f"{examples}; restore them, or make the split from the folders with --lists none")
        unnamed = sorted(set(plan.of(PARTS[part][0])) - {line.name for line in lines})
        if unnamed:
            findings.problems.append(
                f"{listing.path / source}: no line for {len(unnamed)} class{'es' if len(unnamed) > 1 else ''}: "
                f"{some(unnamed)}; is the file cut off?")
        if endings:
            findings.notes.append(f"{source}: {len(endings):,} file{'s' if len(endings) > 1 else ''} spelt otherwise on disk, "
                                  f"such as {endings[0][0]} as {endings[0][1]}")
        findings.notes += _other_spellings(source, lines, missing, disk)
    return found


class _OnDisk:
    """What the trees hold, for looking up hundreds of thousands of lines."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.files = {(tree.folder, name): {file for file, _ in images} for tree in trees for name, images in tree.files.items()}
        self.spelt = {(tree.folder, name): its for tree in trees for name, its in tree.on_disk.items()}
        self.where = {tree.folder: tree.where for tree in trees}
        self._loose: dict[tuple[str, str], dict[str, list[str]]] = {}

    def near(self, key: tuple[str, str], file: str) -> str | None:
        """The one file of a class folder whose name differs from `file` only as `_loose` allows. None where there is none, or
        where several differ from each other only in their endings."""
        if key not in self._loose:
            self._loose[key] = {}
            for one in self.files.get(key, ()):
                self._loose[key].setdefault(_loose(one), []).append(one)
        found = self._loose[key].get(_loose(file), [])
        return found[0] if len(found) == 1 else None


def _matched(lines: Iterable[Line], disk: _OnDisk) -> tuple[list[Entry], list[Line], list[tuple[str, str]]]:
    """The files of the lines, the lines without a file, and (as listed, on disk) for file names that differ."""
    its: list[Entry] = []
    missing: list[Line] = []
    endings: list[tuple[str, str]] = []
    for line in lines:
        _, folder, name, _, file, _ = line
        if file not in disk.files.get((folder, name), ()):
            near = disk.near((folder, name), file)
            if near is None:
                missing.append(line)
                continue
            endings.append((file, near))
            file = near
        its.append((folder, name, file))
    return its, missing, endings


def _other_spellings(source: str, lines: Iterable[Line], missing: Sequence[Line], disk: _OnDisk) -> list[str]:
    """Notes on class folders and folders that the list spells otherwise than the disk."""
    absent = {line.number for line in missing}
    spelt = {(folder, name, written, prefix): None for number, folder, name, written, _, prefix in lines if number not in absent}
    classes = {written: disk.spelt[folder, name] for folder, name, written, _ in spelt if disk.spelt[folder, name] != written}
    prefixes = {prefix: disk.where[folder] for folder, _, _, prefix in spelt if disk.where[folder] != prefix}
    return [f"{source}: {len(pairs)} {text}{'s' if len(pairs) > 1 else ''} spelt otherwise on disk: "
            f"{some([f'{one} as {other}' for one, other in pairs.items()], 5)}"
            for text, pairs in (("class folder", classes), ("folder", prefixes)) if pairs]


def _loose(file: str) -> str:
    """A file name without what archives and scripts change: Unicode composition, and the ending's case and spelling."""
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", file))
    return stem + {".jpeg": ".jpg"}.get(ending.casefold(), ending.casefold())


def list_notes(listing: ListDirectory, root: Path, parts: Mapping[str, Sequence[Entry]], trees: Sequence[Tree],
               classes: Iterable[str]) -> list[str]:
    """Notes on which list files were used, which are absent and what stands for them, and which files no list names."""
    # never an absolute path: notes go into provenance and manifests
    path = listing.path.resolve()
    place = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else Path(*path.parts[-2:])
    notes = [f"lists: from {place}: {', '.join(dict.fromkeys(listing.used.values()))}"]
    for part, file in listing.absent.items():
        if part != "heldout_sketches":  # `splits` says where those come from
            notes.append(f"lists: {file} is not there; {_INSTEAD[part]} instead ({len(parts[part]):,} files)")
    if "heldout_sketches" in listing.absent and "train_sketches" in listing.absent:
        notes.append(f"lists: {listing.absent['heldout_sketches']} is not there; our rule picks the held-out sketches "
                     f"({len(parts['heldout_sketches']):,} files)")
    named = set(itertools.chain.from_iterable(parts.values()))
    unnamed = list(itertools.filterfalse(named.__contains__, entries(trees, classes)))
    if unnamed:
        notes.append(f"lists: {len(unnamed):,} file{'s' if len(unnamed) > 1 else ''} on disk in no list: "
                     f"{some(['/'.join(one) for one in unnamed], 5)}")
    return [*listing.notes, *notes]
