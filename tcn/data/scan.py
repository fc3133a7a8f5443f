"""What lies in a data set's folders: classes, image files and their sizes, and whatever does not belong there.

In: a data set's folder and its split's `Plan`. Out: a `Tree` for each folder of class folders, and `Findings`: problems,
which stop a strict load, and notes. Files are listed, not opened.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from tcn.data.locate import Place, entry_is
from tcn.data.specs import Builder, Plan
from tcn.data.words import normal_form
from tcn.files.text import shown, some

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_NOT_CLASSES = ("__macosx",)

Listings = dict[str, tuple[list[tuple[str, int]], list[str]]]
"""Class folder -> sorted (file name, bytes) of its images, and the names of everything else in it."""
Entry = tuple[str, str, str]
"""Folder as the spec calls it, class, file name. The same on every machine, however the class folder is spelt there."""


@dataclass
class Findings:
    """What differs from the expectation. Filled while a data set is read."""

    problems: list[str] = field(default_factory=list)
    """Errors where the load is strict."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """What one folder of class folders holds."""

    folder: str
    """Its name in the spec. Digests hold this name, so that they do not depend on the layout."""
    where: str
    """Its name on disk."""
    on_disk: Mapping[str, str]
    """Class -> name of its folder on disk."""
    files: Mapping[str, list[tuple[str, int]]]
    """Class -> sorted (file name, bytes) of its images."""
    stray: Sequence[str]
    """Paths that are no images of a class, relative to this folder."""
    hollow: Sequence[str]
    """Images of 0 bytes, relative to this folder."""


def entries(trees: Sequence[Tree], classes: Iterable[str]) -> list[Entry]:
    """All images of `classes`, ordered by class, then folder, then file name."""
    return [(tree.folder, name, file)
            for name in classes for tree in trees for file, _ in tree.files.get(name, ())]


def scan(place: Place, folder: str, plan: Plan, findings: Findings, listings: Listings, progress: bool,
         sample: int | None = None) -> Tree:
    """List one folder of class folders. `folder` is its name in the spec; `listings` is read and filled. `sample`: only the first
    so many images of each class by name count."""
    where = place.layout[folder]
    path = place.root / where
    on_disk, stray = _class_folders(path, where, plan, findings)
    files: dict[str, list[tuple[str, int]]] = {}
    hollow: list[str] = []
    for name in tqdm([name for name in (*plan.roles, *plan.left_out) if name in on_disk], desc=f"list {where}", unit="class",
                     disable=not progress, leave=False):
        images, others = _images(path / on_disk[name], listings)
        files[name] = images[:sample]
        stray += [f"{on_disk[name]}/{file}" for file in others]
        hollow += [f"{on_disk[name]}/{file}" for file, size in files[name] if size == 0]
    unwritable = [one for one in stray if not _is_text(one) and one.lower().endswith(_IMAGE_ENDINGS)]
    if unwritable:
        findings.problems.append(
            f"{where}: {len(unwritable)} image{'s' if len(unwritable) > 1 else ''} with a name that is not UTF-8, "
            f"which results can't hold: {some(sorted(unwritable))}; rename {'them' if unwritable[1:] else 'it'}")
    empty = [name for name, images in files.items() if not images]
    if empty:
        findings.problems.append(f"{where}: {len(empty)} class folder{'s' if len(empty) > 1 else ''} without any "
                                 f"image: {_expected(empty, plan)}")
    if hollow:
        findings.problems.append(f"{where}: {len(hollow)} file{'s' if len(hollow) > 1 else ''} of 0 bytes: {some(hollow)}")
    if stray:
        findings.notes.append(f"{where}: ignored {len(stray)} stray file{'s' if len(stray) > 1 else ''}: {some(sorted(stray))}")
    return Tree(folder, where, on_disk, files, stray, hollow)


def may_be_class(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder of class folders may be the folder of a class."""
    hidden = entry.name.startswith(".") or entry.name.casefold() in _NOT_CLASSES
    return not hidden and entry_is(entry.is_dir)


def _class_folders(path: Path, where: str, plan: Plan, findings: Findings) -> tuple[dict[str, str], list[str]]:
    """Class -> the name of its folder in `path`, and the names of entries that are no folders of classes at all."""
    on_disk: dict[str, str] = {}
    extra: list[str] = []
    stray: list[str] = []
    for entry in sorted(os.scandir(path), key=lambda one: one.name):
        if not may_be_class(entry):
            stray.append(entry.name)
            continue
        name = plan.class_of(entry.name)
        if name is None:
            extra.append(entry.name)
        elif name in on_disk:
            findings.problems.append(f"{where}: folders '{shown(on_disk[name])}' and '{shown(entry.name)}' are both class "
                                     f"'{name}'; merge them or remove one")
        else:
            on_disk[name] = entry.name
    aliased = [f"'{shown(its)}' as '{name}'" for name, its in on_disk.items() if normal_form(its) != normal_form(name)]
    if aliased:
        findings.notes.append(f"{where}: {len(aliased)} class folder{'s' if len(aliased) > 1 else ''} with a known misspelling "
                              f"taken for the class: {some(aliased, 20)}")
    lacking = [name for name in plan.roles if name not in on_disk]  # a class that is left out may be missing
    if lacking:
        findings.problems.append(f"{where}: {len(lacking)} of {len(plan.roles) + len(plan.left_out)} classes missing: "
                                 f"{_expected(lacking, plan)}{_did_you_mean(lacking, extra)}")
    if extra:
        findings.problems.append(f"{where}: {len(extra)} unexpected class folder{'s' if len(extra) > 1 else ''}: "
                                 f"{some(extra, 20)}; move {'them' if len(extra) > 1 else 'it'} elsewhere")
    return on_disk, stray


def _images(path: Path, listings: Listings) -> tuple[list[tuple[str, int]], list[str]]:
    """Sorted (file name, bytes) of a class folder's images, and the names of all other entries; kept in `listings`.

    One thread only: asking for a size takes so little time that several threads wait for Python's lock, twice as long in all.
    """
    key = os.fspath(path)
    if key not in listings:
        images, others = [], []
        with os.scandir(key) as found:
            for entry in found:
                name = entry.name
                if (not name.startswith(".") and name.lower().endswith(_IMAGE_ENDINGS) and _is_text(name)
                        and entry_is(entry.is_file)):
                    images.append((name, entry.stat().st_size))
                else:
                    others.append(name)
        images.sort()
        listings[key] = images, others
    return listings[key]


def _is_text(name: str) -> bool:
    """Whether a file name can be written into a table: Python keeps bytes outside UTF-8 as lone surrogates."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _did_you_mean(lacking: Sequence[str], extra: Sequence[str]) -> str:
    """A hint for every missing class whose name an unexpected folder nearly spells. Such a folder is only named, never used."""
    forms = [(folder, normal_form(folder)) for folder in extra]
    hints = [f"'{shown(folder)}' for '{name}'" for name in lacking for folder, form in forms
             if _near(normal_form(name), form, 1 if len(name) < 6 else 2)]
    return f"; did you mean {', '.join(hints)}? Then rename" if hints else ""


def _near(one: str, other: str, most: int) -> bool:
    """Whether at most `most` edits turn one name into the other. Cheap tests come first, since a wrong folder may hold tens of
    thousands of names: each edit changes the length by at most one, and the set of letters by at most two."""
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:
        return False
    return _edit_distance(one, other) <= most


def _edit_distance(one: str, other: str) -> int:
    """Number of letters to insert, delete or replace to turn `one` into `other` (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row = row, [i]
        for j, right in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right)))
    return row[-1]


def _expected(names: Sequence[str], plan: Plan) -> str:
    """Class names, each with the number of files expected where it is known."""
    parts = []
    for name in names:
        counts = [f"{counts[name]} {kind}" for kind, counts in plan.counts.items() if name in counts]
        parts.append(f"{name} ({', '.join(counts)} expected)" if counts else name)
    return some(parts, 20)


# --- against the table and the builder's manifest ----------------------------------------------------------------------

def compare_counts(trees: Sequence[Tree], plan: Plan, kind: str) -> list[str]:
    """Notes on the differences between the files found and the table: of single classes, and of the total."""
    where = " + ".join(tree.where for tree in trees)
    counts = {name: sum(len(tree.files.get(name, ())) for tree in trees) for name in plan.roles}
    different = [name for name, expected in plan.counts[kind].items() if counts[name] != expected]
    notes = []
    if different:
        worst = sorted(different, key=lambda name: -abs(counts[name] - plan.counts[kind][name]))
        worst_first = some([f"{name} {counts[name]} of {plan.counts[kind][name]}" for name in worst])
        notes.append(f"{where}: {len(different)} class{'es' if len(different) > 1 else ''} with other counts "
                     f"than in the published lists: {worst_first}")
    total, expected = sum(counts.values()), plan.totals.get(kind)
    if expected is not None:
        allowed = expected // 100 if plan.totals_rounded else 0
        if abs(total - expected) > allowed:
            notes.append(f"{where}: {total:,} {kind} in all, {'about ' if allowed else ''}{expected:,} expected")
    return notes


def compare_with_manifest(builder: Builder, root: Path, trees: Sequence[Tree], findings: Findings) -> None:
    """Compare the number of pictures of each publisher with the manifest that the builder left."""
    counts: dict[str, int] = {}
    for file, _ in (one for tree in trees for images in tree.files.values() for one in images):
        publisher = os.path.splitext(file)[0]
        counts[publisher] = counts.get(publisher, 0) + 1
    listed = builder.read_manifest(root)["per_publisher"]
    for publisher in sorted(counts.keys() | listed.keys()):
        there, built = counts.get(publisher, 0), listed.get(publisher, 0)
        if there != built:
            findings.problems.append(f"{there} pictures by {publisher}, {built} were built; delete {root} and run "
                                     f"again, so that it is built anew")
