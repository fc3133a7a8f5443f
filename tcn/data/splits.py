"""From a data set on disk to the file lists of a split.

In: the name of a data set and split, a data root (or the cache folder of a data set that is built here), and published list
files where there are any. Out: a `Split` of ordered `Files`, checked against its table, with digests that never hold an
absolute path. Source: the paper's section on data sets.
"""
from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcn.config import InputError
from tcn.data import lists as list_files
from tcn.data.lists import ListDirectory
from tcn.data.locate import Place, checked_root, find_lists, find_place
from tcn.data.matching import folders_in_lists, list_notes, match
from tcn.data.scan import Entry, Findings, Listings, Tree, compare_counts, compare_with_manifest, entries, scan
from tcn.data.specs import ROLES, DatasetSpec, Plan, held_out_of, read_plan, spec
from tcn.data.words import normal_form
from tcn.files.text import shown

_LISTS = ("train_sketches", "train_photos", "heldout_sketches", "validation_sketches", "validation_photos",
          "query", "gallery")


@dataclass(frozen=True)
class Files:
    """One ordered list of N images of one modality."""

    root: Path
    paths: tuple[str, ...]
    """Relative to `root`, with forward slashes, ordered by class, then folder, then file name. Where a published list is used,
    ordered by class, then as listed."""
    labels: np.ndarray
    """int64 [N], index into `Split.classes`."""
    sources: tuple[str, ...]
    """Publisher of each file where file names say it (`DatasetSpec.named_by_publisher`); empty strings elsewhere."""
    groups: tuple[str, ...] = ()
    """Files with the same value are the same picture. Sketchy's lists name its 12,500 original photos in both photo folders."""
    instances: tuple[str, ...] = ()
    """The photo that each sketch was drawn from, and which photo each photo is, as "class/name without ending"; an empty string
    for a sketch whose name does not tell. Empty for data sets whose names never do (`DatasetSpec.drawn_from`)."""

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Split:
    """The classes of one split by role, and the files that each step of a run may see."""

    dataset: str
    name: str
    seen: tuple[str, ...]
    validation: tuple[str, ...]
    """Classes never trained on that choose settings and checkpoints (emoji). The paper's data sets have none."""
    unseen: tuple[str, ...]
    train_sketches: Files
    """Of seen classes, without the held-out ones."""
    train_photos: Files
    """Of seen classes, all but those that a data set of the user's own holds out."""
    heldout_sketches: Files
    """Of seen classes, never trained on: they measure the class accuracy."""
    validation_sketches: Files
    validation_photos: Files
    query: Files
    """Sketches of unseen classes."""
    gallery: Files
    """Photos of unseen classes, as published: duplicates stay. Before them those of seen classes, where it is generalised."""
    data_digest: str
    """sha256 over the names and sizes of all files of the data set; over the contents where the data set is built here."""
    split_digest: str
    """sha256 over the classes by role and the files of every list."""
    notes: tuple[str, ...] = ()
    """What differs from the expectation without being an error (counts, stray files), and which lists were used."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Seen, validation, unseen: seen classes are labels 0..C-1, as the class head needs."""
        return self.seen + self.validation + self.unseen

    @property
    def images(self) -> int:
        """Number of images in all lists."""
        return sum(map(len, self.lists().values()))

    def lists(self) -> dict[str, Files]:
        """The seven file lists by name."""
        return {name: getattr(self, name) for name in _LISTS}


@dataclass(frozen=True)
class Survey:
    """What was found on disk for one split: the split that can be made of it, and what is wrong with it."""

    spec: DatasetSpec
    plan: Plan
    root: Path
    layout: Mapping[str, str]
    """Folder of the spec -> folder on disk, both relative to `root`."""
    trees: tuple[Tree, ...]
    """What each folder of class folders holds, in the spec's order."""
    stray: tuple[str, ...]
    """Paths relative to `root` that are no images of a class."""
    hollow: tuple[str, ...]
    """Images of 0 bytes."""
    listing: ListDirectory | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    split: Split
    """Made of whatever is there. Where there are problems, its notes hold them too."""

    @functools.cached_property
    def files(self) -> Mapping[str, tuple[str, int]]:
        """Every image: "folder/class/file" as the spec and the table spell it -> path relative to `root`, and bytes."""
        found: dict[str, tuple[str, int]] = {}
        for tree in self.trees:
            for name, images in tree.files.items():
                key, path = f"{tree.folder}/{name}/", f"{tree.where}/{tree.on_disk[name]}/"
                for file, size in images:
                    found[key + file] = path + file, size
        return found

    def as_error(self) -> str:
        """All problems in one message."""
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return (f"{self.spec.title} in {shown(self.root)} is not as expected ({len(self.problems)} "
                f"problem{'s' if len(self.problems) > 1 else ''}); nothing was changed:\n{lines}")


def load(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path,
         progress: bool = True, emoji_tarballs: Path | None = None, strict: bool = True,
         lists: Path | str | None = "auto", listings: Listings | None = None, validation: str = "own") -> Split:
    """The file lists of one split, checked against its table.

    `data_root` as in `locate.available`; `cache` is where a data set with a builder is built (emoji: from
    `emoji_tarballs`, a folder of package tarballs, or over the network). `lists` says where published list files lie:
    "auto" uses the split's list directory if one lies in the data set's folder or in one named after it in the data
    root; None or "none" makes the split from the folders alone; a path is that directory, or a folder that holds
    `Sketchy/zeroshot1` and the like (also a checkout with `dataset/` or `datasets/`), and it is an error if it holds no
    list of this split. Lists are used exactly as published, duplicates included. Where one is absent, the folders
    stand for it, and a note says so. `listings`: what class folders hold, filled by one call and used by the next, so that the
    splits of a data set list its folders once; by default each call lists them.

    Held-out sketches of the paper's data sets: as listed. Where there is no such list, but the training list leaves out
    exactly `held_out_per_class` sketches of every seen class, those (ZSE-SBIR's lists do). Else, per seen class, the
    `held_out_per_class` files with the smallest sha256 of "class/file name" (class in normal form); where a
    class has fewer than five times as many, a fifth of it, at least one.

    Raises InputError with every problem at once: folders or classes missing, empty or unexpected, two folders
    of one class, files of 0 bytes, image names that are not UTF-8, listed files that are absent. With `strict`
    False these become notes, and classes without both sketches and photos are left out. Counts that differ from the table,
    and stray files, are always notes. Lists that contradict themselves or belong to another split are always an error.
    """
    found = survey(dataset, split, data_root=data_root, cache=cache, progress=progress, emoji_tarballs=emoji_tarballs,
                   lists=lists, listings=listings, validation=validation)
    if found.problems and strict:
        raise InputError(found.as_error())
    return found.split


def survey(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path, progress: bool = True,
           emoji_tarballs: Path | None = None, lists: Path | str | None = "auto",
           listings: Listings | None = None, validation: str = "own") -> Survey:
    """As `load`, but problems are returned instead of raised. Raises InputError where there is nothing to survey."""
    found, split = spec(dataset, split)
    if lists not in (None, "none", "auto") and not found.list_folders:
        raise InputError(f"--lists {lists}: {found.title} has no published lists; leave the option out")
    plan = read_plan(dataset, split, validation)
    root_of_all = None
    if found.builder:
        place = Place(found.builder.build(cache, emoji_tarballs, progress=progress), {name: name for name in found.folders})
    else:
        root_of_all = checked_root(data_root)
        where = find_place(found, root_of_all)
        if isinstance(where, str):
            raise InputError(f"data set {dataset} is not available. {where}")
        place = where

    findings = Findings()
    try:
        trees = [scan(place, folder, plan, findings, {} if listings is None else listings, progress, found.sample)
                 for folder in found.folders]
    except OSError as error:
        raise InputError(f"{shown(error.filename or place.root)} can't be listed: {error.strerror}") from error
    if found.builder:
        compare_with_manifest(found.builder, place.root, trees, findings)
    listing, listed = None, {}
    if found.list_folders and lists is not None and lists != "none":
        where_lists = find_lists(found, split, place.root, root_of_all, lists, findings.notes)
        if where_lists is not None:
            published = read_plan(dataset, split)  # what is carved out of the seen classes is no matter of the lists
            listing = list_files.read_directory(where_lists, found.list_files, published.roles, plan.class_of,
                                                folders_in_lists(found), lists != "auto")
            listed = match(listing, trees, published, findings)
    disk = _Disk(found, plan, place.root, trees[:len(found.sketch_folders)], trees[len(found.sketch_folders):])
    counted = compare_counts(disk.sketches, plan, "sketches") + compare_counts(disk.photos, plan, "photos")
    made = _assembled(disk, [*findings.problems, *place.notes, *findings.notes, *counted], listing, listed)
    return Survey(
        found, plan, place.root, place.layout, tuple(trees),
        stray=tuple(f"{tree.where}/{one}" for tree in trees for one in tree.stray),
        hollow=tuple(f"{tree.where}/{one}" for tree in trees for one in tree.hollow),
        listing=listing, problems=tuple(findings.problems), notes=made.notes[len(findings.problems):], split=made)


# --- from entries to lists --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Disk:
    """A data set as it lies on disk."""

    spec: DatasetSpec
    plan: Plan
    root: Path
    sketches: Sequence[Tree]
    photos: Sequence[Tree]

    @property
    def trees(self) -> list[Tree]:
        return [*self.sketches, *self.photos]

    def has_files(self, name: str) -> bool:
        """Whether a class has both sketches and photos."""
        return all(any(tree.files.get(name) for tree in trees) for trees in (self.sketches, self.photos))

    def digest(self) -> str:
        """What `Split.data_digest` says."""
        if self.spec.builder:
            return str(self.spec.builder.read_manifest(self.root)["digest"])
        # by folder, class, then file: each class's files are in order already
        return _digest(f"{tree.folder}/{name}/{file}\t{size}" for tree in sorted(self.trees, key=lambda one: one.folder)
                       for name, images in sorted(tree.files.items()) for file, size in images)


def _assembled(disk: _Disk, notes: list[str], listing: ListDirectory | None, listed: Mapping[str, list[Entry]]) -> Split:
    """The split of what lies on disk and what the lists name. Adds to `notes`, which become the split's."""
    roles = {role: tuple(name for name in disk.plan.of(role) if disk.has_files(name)) for role in ROLES}
    label_of = {name: label for label, name in enumerate(name for role in ROLES for name in roles[role])}
    by_class = {part: _by_class((one for one in its if disk.plan.roles[one[1]] == list_files.PARTS[part][0]), label_of)
                for part, its in listed.items()}
    train, held = _training_sketches(disk, roles["seen"], by_class, notes)
    photos = entries(disk.photos, roles["seen"])
    apart = {name: held_out(name, [file for _, its, file in photos if its == name], disk.plan.held_out_photos)
             for name in (roles["seen"] if disk.plan.held_out_photos else ())}
    parts = {
        "train_sketches": train,
        "train_photos": [one for one in photos if one[2] not in apart.get(one[1], ())],
        "heldout_sketches": held,
        "validation_sketches": entries(disk.sketches, roles["validation"]),
        "validation_photos": entries(disk.photos, roles["validation"]),
        "query": entries(disk.sketches, roles["unseen"]),
        "gallery": entries(disk.photos, roles["unseen"]),
    } | {part: its for part, its in by_class.items() if part not in ("train_sketches", "heldout_sketches")}
    if disk.spec.generalised:
        trained = set(parts["train_photos"])
        seen = [one for one in photos if one not in trained] or parts["train_photos"]
        notes.append(f"generalised: the gallery holds {len(parts['gallery']):,} photos of unseen classes and {len(seen):,} "
                     f"of seen ones, which training {'used too' if seen is parts['train_photos'] else 'did not use'}")
        parts["gallery"] = [*seen, *parts["gallery"]]
    if listing is not None:
        notes += list_notes(listing, disk.root, parts, disk.trees, label_of)
    split_digest = _digest([
        *(f"{role}\t{name}" for role in ROLES for name in roles[role]),
        *(f"{key}\t{folder}/{name}/{file}" for key, its in parts.items() for folder, name, file in its)])
    return Split(disk.spec.name, disk.plan.split, roles["seen"], roles["validation"], roles["unseen"],
                 **{key: _files(disk, its, label_of) for key, its in parts.items()},
                 data_digest=disk.digest(), split_digest=split_digest, notes=tuple(notes))


def _training_sketches(disk: _Disk, seen: Sequence[str], listed: Mapping[str, list[Entry]], notes: list[str]
                       ) -> tuple[list[Entry], list[Entry]]:
    """Sketches of seen classes to train on, and to hold out: by the lists, or by our rule (see `load`)."""
    plan, on_disk = disk.plan, entries(disk.sketches, seen)
    if "heldout_sketches" in listed:
        apart = set(listed["heldout_sketches"])
        return (listed.get("train_sketches") or [one for one in on_disk if one not in apart]), listed["heldout_sketches"]
    pool = listed.get("train_sketches", on_disk)
    if "train_sketches" in listed:
        named = set(pool)
        left = [one for one in on_disk if one not in named]
        counts = dict.fromkeys(seen, 0)
        for one in left:
            counts[one[1]] += 1
        if left and set(counts.values()) == {plan.held_out_per_class}:
            notes.append(f"lists: the training list leaves out just {plan.held_out_per_class} sketches of every seen class; "
                         f"those are held out")
            return pool, left
        notes.append(f"lists: the training list leaves out {len(left)} sketches of seen classes, not {plan.held_out_per_class} "
                     f"of each; our rule picks the held-out ones from those it names")
    files: dict[str, list[str]] = {name: [] for name in seen}
    for _, name, file in pool:
        files[name].append(file)
    kept = _held_out_by_rule(disk, files, notes)
    return [one for one in pool if one[2] not in kept[one[1]]], [one for one in pool if one[2] in kept[one[1]]]


def _held_out_by_rule(disk: _Disk, files: Mapping[str, Sequence[str]], notes: list[str]) -> dict[str, set[str]]:
    """Class -> the names to hold out of `files` (class -> file names): by publisher where the table names one, else by hash."""
    plan = disk.plan
    if plan.held_out:
        for name, publisher in plan.held_out.items():
            if name in files and f"{publisher}.png" not in files[name]:
                raise InputError(f"{disk.root}: the held-out drawing {name}/{publisher}.png is not "
                                 f"there; delete that folder and run again, so that it is built anew")
        return {name: {f"{plan.held_out[name]}.png"} if name in plan.held_out else set() for name in files}
    kept = {name: held_out(name, names, plan.held_out_per_class) for name, names in files.items()}
    short = sum(len(names) < plan.held_out_per_class for names in kept.values())
    if short:
        notes.append(f"{short} seen class{'es' if short > 1 else ''} with fewer than "
                     f"{5 * plan.held_out_per_class} sketches: a fifth is held out instead of "
                     f"{plan.held_out_per_class}")
    return kept


def held_out(label: str, names: Sequence[str], count: int) -> set[str]:
    """The files of one class that are kept from training: the same on every machine.

    `label` is the class, `names` its file names. Takes the `count` names with the smallest sha256 of
    "class/file name" (class in normal form), or a fifth of them (at least one) where that is fewer; a class
    of one file keeps it for training.

    >>> sorted(held_out("Palm_Tree", ["1.png", "2.png", "3.png", "4.png"], 1)) == sorted(
    ...     held_out("palm tree", ["4.png", "3.png", "2.png", "1.png"], 1))
    True
    """
    form = normal_form(label)
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{form}/{name}".encode("utf-8", "surrogateescape")).digest())
    return set(ranked[:held_out_of(len(names), count)])


def _by_class(its: Iterable[Entry], label_of: Mapping[str, int]) -> list[Entry]:
    """Entries in the split's order of classes, within a class as listed; entries of classes that were left out are dropped."""
    return sorted((one for one in its if one[1] in label_of), key=lambda one: label_of[one[1]])


def _files(disk: _Disk, its: Sequence[Entry], label_of: Mapping[str, int]) -> Files:
    stems = len(disk.spec.photo_folders) > 1  # a photo in two folders may end in .jpg here and .JPEG there
    where = {(tree.folder, name): f"{tree.where}/{its}" for tree in disk.trees for name, its in tree.on_disk.items()}
    return Files(
        root=disk.root,
        paths=tuple([f"{where[folder, name]}/{file}" for folder, name, file in its]),
        labels=np.array([label_of[name] for _, name, _ in its], dtype=np.int64),
        sources=tuple([Path(file).stem for _, _, file in its]) if disk.spec.named_by_publisher else ("",) * len(its),
        # every image's name has an ending, and a character before it
        groups=tuple([f"{name}/{file[:file.rindex('.')] if stems else file}" for _, name, file in its]),
        instances=tuple([_instance(disk.spec, one) for one in its]) if disk.spec.drawn_from else (),
    )


def _instance(spec: DatasetSpec, one: Entry) -> str:
    """What `Files.instances` says of one image."""
    folder, name, file = one
    photo = file[:file.rindex(".")]
    if folder in spec.sketch_folders:
        told = re.fullmatch(spec.drawn_from, photo)
        if told is None:
            return ""
        photo = told[1]
    return f"{name}/{photo}"


def _digest(lines: Iterable[str]) -> str:
    """sha256 of the lines joined by line feeds; file names outside UTF-8 keep their bytes."""
    # A line feed in a file name must not pass for the end of a line. No line begins with a quote, so no two give the same.
    safe = (repr(line) if "\n" in line else line for line in lines)
    return hashlib.sha256("\n".join(safe).encode("utf-8", "surrogateescape")).hexdigest()
