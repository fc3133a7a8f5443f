"""What a data set is: its layout on disk, its classes and their roles, and the file lists of a split.

In: a data root (or, for emoji, a cache folder), a split's table of classes in `splits/`, and published list files
where there are any. Out: a `Split` of ordered `Files`, checked against what was expected, with digests that never hold
an absolute path. Paper: data sets.
"""
from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import yaml
from tqdm import tqdm

from tcn.config import InputError
from tcn.data import emoji
from tcn.data import lists as list_files
from tcn.data.lists import ListDirectory, read_list
from tcn.data.words import normal_form

__all__ = ["SPECS", "DatasetSpec", "Files", "Plan", "Split", "Survey", "available", "folders_there", "held_out", "load",
           "read_list", "read_plan", "shown", "spec", "survey"]

DATA_ROOT_VARIABLE = "TCN_DATA"
ROLES = ("seen", "validation", "unseen")
_SPLITS = Path(__file__).parent / "splits"
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_NOT_CLASSES = ("__macosx",)
_LISTS = ("train_sketches", "train_photos", "heldout_sketches", "validation_sketches", "validation_photos",
          "query", "gallery")


class Builder(Protocol):
    """A module that makes a data set on this machine, such as `tcn.data.emoji`; its functions are looked up when they are called."""

    def build(self, cache: Path, tarballs: Path | None = None, *, progress: bool = True) -> Path:
        """The data set's folder in `cache`, made there if need be, from the packages in `tarballs` or over the network."""

    def find_built(self, cache: Path) -> Path | None:
        """The finished and undamaged folder in `cache`, or None."""

    def read_manifest(self, folder: Path) -> dict[str, Any]:
        """What was made: `digest` of the contents, and `per_publisher`, the number of pictures by publisher."""


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: where its files lie below a data root, its splits, what its numbers are called, and all that is special to it."""

    name: str
    title: str
    folder_names: tuple[str, ...]
    """Names its own folder goes by, compared without case, spaces and punctuation."""
    sketch_folders: tuple[str, ...]
    """Folders of class folders, relative to the data set's own folder."""
    photo_folders: tuple[str, ...]
    splits: tuple[str, ...]
    """Names of the splits; the first is the default."""
    headline: Mapping[str, tuple[str, ...]]
    """Split -> the two metrics the paper reports for it (emoji: ours)."""
    source: str
    """One sentence: where the class names, roles and counts come from."""
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Folder -> the names it also goes by: as the archives unpack, or as other code's scripts rename it."""
    list_folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> names that the folder of its list files goes by, the published one first; "." for the data set's own folder,
    where lists are looked for only when asked for."""
    list_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """List (`tcn.data.lists.PARTS`) -> names that its file in that folder goes by."""
    origin: str = ""
    """Where the field gets the files."""
    builder: Builder | None = None
    """What makes the data set in a cache folder; None where its files lie in a data root."""
    named_by_publisher: bool = False
    """Whether a file's name, without its ending, names the publisher of the picture (`Files.sources`)."""
    same_hand: Mapping[str, str] = field(default_factory=dict)
    """Publisher of sketches -> publisher whose photos repeat the same drawings: its queries are also scored without these photos."""
    words: Path | None = None
    """Table of word vectors of its classes that comes with the project; None where the user brings them."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder of class folders."""
        return self.sketch_folders + self.photo_folders


_ALL = ("mAP@all", "Prec@100")
_GENERIC = ("sketch/tx_000000000000", "photo/tx_000000000000", "extended_photo", "png", "sketches", "images")
"""Folder names that say nothing of a data set: they count only in a folder named after it."""
SPECS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in (
    DatasetSpec("emoji", "Emoji", (), ("sketch",), ("photo",), ("fixed",), {"fixed": ("mAP@all", "Prec@R")},
                "Built on this machine from published emoji drawings; the split is committed with the code.",
                origin="Built on this machine by `make bench` or `python benchmarks/run_all.py`; this check never downloads.",
                builder=emoji, named_by_publisher=True,
                same_hand={"emojione-monotone": "emojione-v1"},  # EmojiOne drew both
                words=_SPLITS / "emoji_words.csv"),
    DatasetSpec("sketchy", "Sketchy Extended", ("sketchy", "sketchyextended"),
                ("256x256/sketch/tx_000000000000_ready",),
                ("256x256/photo/tx_000000000000_ready", "EXTEND_image_sketchy_ready"),
                ("1", "2"), {"1": _ALL, "2": ("mAP@200", "Prec@200")},
                "Classes, roles and counts of the list files released with the paper; split 2 as published "
                "for classes outside ImageNet's 1,000.",
                # as the official archive unpacks, and as the download scripts of SEM-PCYC and Doodle2Search rename
                {"256x256/sketch/tx_000000000000_ready": (
                    "256x256/sketch/tx_000000000000", "rendered_256x256/256x256/sketch/tx_000000000000_ready",
                    "rendered_256x256/256x256/sketch/tx_000000000000", "sketch/tx_000000000000"),
                 "256x256/photo/tx_000000000000_ready": (
                     "256x256/photo/tx_000000000000", "rendered_256x256/256x256/photo/tx_000000000000_ready",
                     "rendered_256x256/256x256/photo/tx_000000000000", "photo/tx_000000000000"),
                 "EXTEND_image_sketchy_ready": ("EXTEND_image_sketchy", "256x256/EXTEND_image_sketchy", "extended_photo")},
                {"1": ("zeroshot1",), "2": ("zeroshot0", "zeroshot2", ".")},  # CMCA calls it zeroshot2
                list_files.names_of(("sketch_tx_000000000000_ready_filelist_{}.txt",), ("all_photo_filelist_{}.txt",),
                                    "sketchy"),
                origin="Sketches and original photos: sketchy.eye.gatech.edu (its rendered 256x256 archive). The extended photos and "
                       "prepared copies with list files: archives linked from the READMEs of SAKE (qliu24/SAKE), DSH and ZSIH."),
    DatasetSpec("tuberlin", "TU-Berlin Extended", ("tuberlin", "tuberlinextended"), ("png_ready",),
                ("ImageResized_ready",), ("1",), {"1": _ALL},
                "Classes, roles and counts of the list files released with the paper; the counts of seen classes' photos "
                "are in a list that was not at hand.",
                {"png_ready": ("png", "sketches"), "ImageResized_ready": ("ImageResized", "images")},
                {"1": ("zeroshot", ".")},
                list_files.names_of(("png_ready_filelist_{}.txt",), ("ImageResized_ready_filelist_{}.txt",), "tuberlin"),
                origin="Sketches: cybertron.cg.tu-berlin.de/eitz/projects/classifysketch (png archive). The extended photos and "
                       "prepared copies with list files: archives linked from the READMEs of SAKE (qliu24/SAKE), DSH and ZSIH."),
    DatasetSpec("quickdraw", "QuickDraw Extended", ("quickdraw", "quickdrawextended"),
                ("QuickDraw_sketches_final",), ("QuickDraw_images_final",), ("1",), {"1": _ALL},
                "Class names released with the paper; counts of ZSE-SBIR's lists of its unseen classes.",
                {"QuickDraw_sketches_final": ("sketches",), "QuickDraw_images_final": ("QuickDraw_images", "images")},
                {"1": ("zeroshot", ".")},
                list_files.names_of(("sketch_{}.txt", "sketch_filelist_{}.txt"),
                                    ("all_photo_{}.txt", "all_photo_filelist_{}.txt", "photo_filelist_{}.txt"), "quickdraw"),
                origin="QuickDraw Extended, sketches and photos: Doodle2Search (sounakdey/doodle2search), hosted at "
                       "datasets.cvc.uab.es/QuickDraw."),
)})


@dataclass(frozen=True)
class Files:
    """One ordered list of N images of one modality."""

    root: Path
    paths: tuple[str, ...]
    """Relative to `root`, with forward slashes, ordered by class, then folder, then file name; where a published list
    rules, by class, then as listed."""
    labels: np.ndarray
    """int64 [N], index into `Split.classes`."""
    sources: tuple[str, ...]
    """Publisher of each file (emoji); empty strings elsewhere."""
    groups: tuple[str, ...] = ()
    """Same value = same picture. Sketchy's lists name its 12,500 original photos in both photo folders."""

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Split:
    """The classes of one split by role, and the files each step of a run may see."""

    dataset: str
    name: str
    seen: tuple[str, ...]
    validation: tuple[str, ...]
    """Classes never trained on that choose settings and checkpoints (emoji); none in the paper's sets."""
    unseen: tuple[str, ...]
    train_sketches: Files
    """Of seen classes, without the held-out ones."""
    train_photos: Files
    """Of seen classes, all."""
    heldout_sketches: Files
    """Of seen classes, never trained on: class accuracy."""
    validation_sketches: Files
    validation_photos: Files
    query: Files
    """Sketches of unseen classes."""
    gallery: Files
    """Photos of unseen classes, as published: duplicates stay."""
    data_digest: str
    """sha256 over the names and sizes of all files of the data set (emoji: over its contents)."""
    split_digest: str
    """sha256 over the classes by role and the files of every list."""
    notes: tuple[str, ...] = ()
    """What differs from the expectation without being an error (counts, stray files), and which lists were used."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Seen, validation, unseen: seen classes are labels 0..C-1, as the class head needs."""
        return self.seen + self.validation + self.unseen

    def lists(self) -> dict[str, Files]:
        """The seven file lists by name."""
        return {name: getattr(self, name) for name in _LISTS}


@dataclass(frozen=True)
class Plan:
    """A split's committed table: what should be there."""

    dataset: str
    split: str
    roles: Mapping[str, str]
    """Class -> `seen`, `validation` or `unseen`, in the table's order."""
    counts: Mapping[str, Mapping[str, int]]
    """Modality folder kind (`sketches`, `photos`) -> class -> files expected, where the lists give them."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """The same over all classes; empty where unknown."""
    totals_also: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Other totals that intact copies in circulation have."""
    totals_rounded: bool = False
    """Totals are published as round figures: compared to one per cent."""
    held_out_per_class: int = 0
    held_out: Mapping[str, str] = field(default_factory=dict)
    """Seen class -> publisher of its held-out drawing (emoji)."""
    left_out: tuple[str, ...] = ()
    """Classes that are there and belong to no list: another class stands for the same thing (emoji)."""
    folder_aliases: Mapping[str, str] = field(default_factory=dict)
    """Misspelt class folder of a published archive -> class."""
    distinct: Mapping[str, int] = field(default_factory=dict)
    """List -> distinct (class, file name) expected in it, where known and fewer than its entries."""

    def of(self, role: str) -> tuple[str, ...]:
        """The classes of one role, in order."""
        return tuple(name for name, its in self.roles.items() if its == role)

    def spellings(self) -> dict[str, str]:
        """Normal form of every name a class folder may have -> class."""
        return {**{normal_form(alias): name for alias, name in self.folder_aliases.items()},
                **{normal_form(name): name for name in (*self.roles, *self.left_out)}}

    def expected(self) -> dict[str, int]:
        """List -> entries in the published lists; only those that follow from the table's counts."""
        found: dict[str, int] = {}
        for part, (role, kind) in list_files.PARTS.items():
            names, counts = self.of(role), self.counts[kind]
            if names and part != "heldout_sketches" and all(name in counts for name in names):
                found[part] = sum(counts[name] for name in names)
        if "train_sketches" in found:
            found["heldout_sketches"] = self.held_out_per_class * len(self.of("seen"))
            found["train_sketches"] -= found["heldout_sketches"]
        return found


def spec(dataset: str, split: str | None = None) -> tuple[DatasetSpec, str]:
    """The spec of `dataset` and the checked name of `split`, by default its first. Raises InputError."""
    if dataset not in SPECS:
        raise InputError(f"unknown data set '{dataset}': choose one of {', '.join(SPECS)}")
    found = SPECS[dataset]
    if split is None:
        return found, found.splits[0]
    if split not in found.splits:
        raise InputError(f"unknown split '{split}' of {dataset}: choose one of {', '.join(found.splits)}")
    return found, split


@functools.cache
def read_plan(dataset: str, split: str | None = None) -> Plan:
    """The committed table of a split. Raises InputError for an unknown name."""
    found, split = spec(dataset, split)
    stem = f"{dataset}-{split}" if len(found.splits) > 1 else dataset
    text = (_SPLITS / f"{stem}.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    classes = table["classes"]
    return Plan(
        dataset, split,
        roles={name: entry["role"] for name, entry in classes.items()},
        counts={kind: {name: entry[kind] for name, entry in classes.items() if kind in entry}
                for kind in ("sketches", "photos")},
        totals=table.get("totals", {}),
        totals_also=table.get("totals_also", {}),
        totals_rounded=table.get("totals_rounded", False),
        held_out_per_class=table.get("held_out_per_class", 0),
        held_out=table.get("heldout", {}),
        left_out=tuple(table.get("left_out", ())),
        folder_aliases=table.get("folder_aliases", {}),
        distinct=table.get("distinct", {}),
    )


# --- where the data sets are --------------------------------------------------------------------------------

def available(data_root: Path | None, names: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Which data sets can be loaded, and for each other one the reason.

    `data_root` None: the folder in `$TCN_DATA`, if set. `names` None: all. A data set with a builder counts as
    present, since it is built on demand. A data set is missing unless all its folders exist; its classes are checked by `load`.
    Raises InputError for an unknown name, or a data root that is not a folder.
    """
    root = _data_root(data_root)
    present: list[str] = []
    missing: dict[str, str] = {}
    for name in SPECS if names is None else names:
        found, _ = spec(name)
        where = "" if found.builder else _locate(found, root)
        if isinstance(where, _Place) or not where:
            present.append(name)
        else:
            missing[name] = where
    return present, missing


def folders_there(dataset: str, data_root: Path | None) -> tuple[str, ...]:
    """Which of a data set's folders lie in the data root, as called on disk: some of them mean an incomplete copy."""
    found, root = spec(dataset)[0], _data_root(data_root)
    if root is None or not found.folder_names:
        return ()
    places = [_place(found, one) for one in [root, *_named_after(found, root)]]
    return max((tuple(place.layout.values()) for place in places), key=len)


def _data_root(data_root: Path | None) -> Path | None:
    origin = "--data-root"
    if data_root is None and os.environ.get(DATA_ROOT_VARIABLE):
        data_root, origin = Path(os.environ[DATA_ROOT_VARIABLE]), f"${DATA_ROOT_VARIABLE}"
    if data_root is None:
        return None
    data_root = Path(data_root).expanduser()
    try:
        there = data_root.is_dir()
    except OSError:  # a name too long, a folder above it closed
        there = False
    if not there:
        raise InputError(f"data root {shown(data_root)} (from {origin}) is not a folder that can be opened; pass the folder that "
                         f"holds the data sets")
    return data_root


@dataclass(frozen=True)
class _Place:
    """Where a data set lies."""

    root: Path
    layout: Mapping[str, str]
    """Folder of the spec -> the one that stands for it here, both relative to `root`."""
    notes: tuple[str, ...] = ()


def _locate(found: DatasetSpec, root: Path | None) -> _Place | str:
    """The data set's own folder and layout, or the reason why there is none."""
    wanted = ", ".join(found.folders)
    if root is None:
        return f"no data root: pass --data-root or set {DATA_ROOT_VARIABLE} to the folder that holds {wanted}"
    try:
        places = [_place(found, one) for one in [root, *_named_after(found, root)]]
    except OSError as error:
        raise InputError(f"{shown(error.filename or root)} can't be listed: {error.strerror}") from error
    whole = [place for place in places if len(place.layout) == len(found.folders)]
    if len({place.root.resolve() for place in whole}) > 1:
        raise InputError(f"{found.title} is there more than once: {', '.join(str(one.root) for one in whole)}; leave one, "
                         f"or pass one of them as the data root")
    if whole:
        return whole[0]
    place = max(places, key=lambda one: len(one.layout))
    looked = " and ".join(str(one.root) for one in places)
    if not place.layout:
        return f"no {found.title}: looked in {looked} for {wanted}"
    lacking = [folder for folder in found.folders if folder not in place.layout]
    return (f"{found.title} is incomplete: {place.root} holds {', '.join(place.layout.values())} but not "
            f"{', '.join(lacking)}")


def _named_after(found: DatasetSpec, root: Path) -> list[Path]:
    """Folders in `root` that are named after the data set."""
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries
                      if _compact(entry.name) in found.folder_names and _is(entry.is_dir))


def _place(found: DatasetSpec, root: Path) -> _Place:
    """Which folder stands for each of the spec's in `root`: its own name, or else the one alternative there."""
    named = {_compact(root.name), _compact(root.resolve().name)} & set(found.folder_names)
    layout: dict[str, str] = {}
    notes: list[str] = []
    for folder in found.folders:
        others = [name for name in found.alternatives.get(folder, ()) if named or name not in _GENERIC]
        there = {(root / name).resolve(): name for name in [*others[::-1], folder] if (root / name).is_dir()}
        names = list(there.values())[::-1]
        if len(names) > 1 and names[0] != folder:
            raise InputError(f"{found.title} in {root}: {' and '.join(names)} could each be {folder}; leave one, or call the "
                             f"right one {folder}")
        if names:
            layout[folder] = names[0]
        if names and names[0] != folder:
            notes.append(f"layout: {names[0]} stands for {folder}")
        elif len(names) > 1:
            notes.append(f"layout: {folder} is used; {', '.join(names[1:])} there too and left aside")
    return _Place(root, layout, tuple(notes))


def _compact(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


# --- loading ------------------------------------------------------------------------------------------------

Listings = dict[str, tuple[list[tuple[str, int]], list[str]]]
"""Class folder -> sorted (file name, bytes) of its images, and the names of everything else in it."""


def load(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path,
         progress: bool = True, emoji_tarballs: Path | None = None, strict: bool = True,
         lists: Path | str | None = "auto", listings: Listings | None = None) -> Split:
    """The file lists of one split, checked against its table.

    `data_root` as in `available`; `cache` is where emoji is built (from `emoji_tarballs`, a folder of package
    tarballs, or over the network). `lists` says where published list files lie: "auto" takes the split's list
    directory if one lies in the data set's folder or in one named after it in the data root; None or "none" goes by
    the folders alone; a path is that directory, or a folder that holds `Sketchy/zeroshot1` and the like (also a
    checkout with `dataset/` or `datasets/`), and an error where it holds no list of this split. What a list names is
    taken exactly as listed, duplicates included; for a list that is not there the folders are gone by, and a note says
    so. `listings`: what class folders hold, filled by one call and used by the next, so that the splits of a data set
    list its folders once; by default each call lists.

    Held-out sketches of the paper's data sets: as listed; or, where the training list leaves out just
    `held_out_per_class` sketches of every seen class, those (so in ZSE-SBIR's lists); else per seen class the
    `held_out_per_class` files with the smallest sha256 of "class/file name" (class in normal form); where a
    class has fewer than five times as many, a fifth of it, at least one.

    Raises InputError with every problem at once: folders or classes missing, empty or unexpected, two folders
    of one class, files of 0 bytes, image names that are not UTF-8, listed files that are not there. With `strict`
    False these become notes, and classes without both sketches and photos are left out. Other counts than expected,
    and stray files, are always notes. Lists that contradict themselves or belong to another split are an error in any
    case.
    """
    found = survey(dataset, split, data_root=data_root, cache=cache, progress=progress, emoji_tarballs=emoji_tarballs,
                   lists=lists, listings=listings)
    if found.problems and strict:
        raise InputError(found.as_error())
    return found.split


@dataclass(frozen=True)
class Survey:
    """What was found on disk for one split: the split that can be made of it, and what is wrong with it."""

    spec: DatasetSpec
    plan: Plan
    root: Path
    layout: Mapping[str, str]
    """Folder of the spec -> folder on disk, both relative to `root`."""
    trees: tuple[_Tree, ...]
    """What each folder of class folders holds, in the spec's order."""
    stray: tuple[str, ...]
    """Paths relative to `root` that are no images of a class."""
    hollow: tuple[str, ...]
    """Images of 0 bytes."""
    listing: ListDirectory | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    split: Split
    """Made leniently where there are problems: its notes then hold them too."""

    @functools.cached_property
    def files(self) -> Mapping[str, tuple[str, int]]:
        """"folder/class/file" as the spec and table spell it -> path relative to `root`, and bytes: every image."""
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


def survey(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path, progress: bool = True,
           emoji_tarballs: Path | None = None, lists: Path | str | None = "auto",
           listings: Listings | None = None) -> Survey:
    """As `load`, but problems are returned instead of raised. Raises InputError where there is nothing to survey."""
    found, split = spec(dataset, split)
    if lists not in (None, "none", "auto") and not found.list_folders:
        raise InputError(f"--lists {lists}: {found.title} has no published lists; leave the option out")
    plan = read_plan(dataset, split)
    root_of_all = None
    if found.builder:
        place = _Place(found.builder.build(cache, emoji_tarballs, progress=progress), {name: name for name in found.folders})
    else:
        root_of_all = _data_root(data_root)
        where = _locate(found, root_of_all)
        if isinstance(where, str):
            raise InputError(f"data set {dataset} is not available. {where}")
        place = where

    root = place.root
    problems: list[str] = []
    notes: list[str] = []
    try:
        trees = [_scan(root, folder, place.layout[folder], plan, problems, notes, progress, {} if listings is None else listings)
                 for folder in found.folders]
    except OSError as error:
        raise InputError(f"{shown(error.filename or root)} can't be listed: {error.strerror}") from error
    if found.builder:
        _compare_with_manifest(found.builder, root, trees, problems)
    sketches, photos = trees[:len(found.sketch_folders)], trees[len(found.sketch_folders):]
    listing, listed = None, {}
    if found.list_folders and lists not in (None, "none"):
        where_lists = _find_lists(found, split, root, root_of_all, lists, notes)
        if where_lists is not None:
            listing = list_files.read_directory(where_lists, found.list_files, plan.roles, _class_of(plan),
                                                _folders_in_lists(found))
            listed = _entries_of(listing, trees, plan, problems, notes)
    counted = _compare_counts(sketches, plan, "sketches") + _compare_counts(photos, plan, "photos")
    all_notes = problems + list(place.notes) + notes + counted
    made = _assemble(found, plan, root, sketches, photos, all_notes, listing, listed)
    return Survey(found, plan, root, place.layout, tuple(trees), tuple(f"{t.where}/{one}" for t in trees for one in t.stray),
                  tuple(f"{t.where}/{one}" for t in trees for one in t.hollow), listing, tuple(problems),
                  made.notes[len(problems):], made)


def _class_of(plan: Plan) -> Callable[[str], str | None]:
    """A class folder's spelling -> the class."""
    spellings = plan.spellings()
    return lambda name: spellings.get(normal_form(name))


@dataclass(frozen=True)
class _Tree:
    """One folder of class folders: class -> its name on disk, and -> sorted (file name, bytes)."""

    folder: str
    """As the spec calls it; digests hold this name, so that they don't depend on the layout."""
    where: str
    """As it is called on disk."""
    on_disk: dict[str, str]
    files: dict[str, list[tuple[str, int]]]
    stray: list[str]
    hollow: list[str]


def _scan(root: Path, folder: str, where: str, plan: Plan, problems: list[str], notes: list[str],
          progress: bool, listings: Listings) -> _Tree:
    """List one folder of class folders; problems and notes are added to the lists given."""
    classes = (*plan.roles, *plan.left_out)
    by_form = plan.spellings()
    on_disk: dict[str, str] = {}
    extra: list[str] = []
    stray: list[str] = []
    for entry in sorted(os.scandir(root / where), key=lambda one: one.name):
        hidden = entry.name.startswith(".") or entry.name.casefold() in _NOT_CLASSES
        if hidden or not _is(entry.is_dir):
            stray.append(entry.name)
            continue
        name = by_form.get(normal_form(entry.name))
        if name is None:
            extra.append(entry.name)
        elif name in on_disk:
            problems.append(f"{where}: folders '{shown(on_disk[name])}' and '{shown(entry.name)}' are both class "
                            f"'{name}'; merge them or remove one")
        else:
            on_disk[name] = entry.name
    aliased = [f"'{shown(its)}' as '{name}'" for name, its in on_disk.items() if normal_form(its) != normal_form(name)]
    if aliased:
        notes.append(f"{where}: {len(aliased)} class folder{'s' if len(aliased) > 1 else ''} with a known misspelling taken "
                     f"for the class: {', '.join(aliased)}")
    lacking = [name for name in classes if name not in on_disk]
    if lacking:
        problems.append(f"{where}: {len(lacking)} of {len(classes)} classes missing: "
                        f"{_expected(lacking, plan)}{_did_you_mean(lacking, extra)}")
    if extra:
        problems.append(f"{where}: {len(extra)} unexpected class folder{'s' if len(extra) > 1 else ''}: "
                        f"{_some(extra, 20)}; move {'them' if len(extra) > 1 else 'it'} elsewhere")

    files: dict[str, list[tuple[str, int]]] = {}
    hollow: list[str] = []
    for name in tqdm([name for name in classes if name in on_disk], desc=f"list {where}", unit="class",
                     disable=not progress, leave=False):
        files[name], others = _class_folder(root / where / on_disk[name], listings)
        stray += [f"{on_disk[name]}/{file}" for file in others]
        hollow += [f"{on_disk[name]}/{file}" for file, size in files[name] if size == 0]
    unwritable = [one for one in stray if not _is_text(one) and one.lower().endswith(_IMAGE_ENDINGS)]
    if unwritable:
        problems.append(f"{where}: {len(unwritable)} image{'s' if len(unwritable) > 1 else ''} with a name that is not UTF-8, "
                        f"which results can't hold: {_some(sorted(unwritable))}; rename {'them' if unwritable[1:] else 'it'}")
    empty = [name for name, images in files.items() if not images]
    if empty:
        problems.append(f"{where}: {len(empty)} class folder{'s' if len(empty) > 1 else ''} without any "
                        f"image: {_expected(empty, plan)}")
    if hollow:
        problems.append(f"{where}: {len(hollow)} file{'s' if len(hollow) > 1 else ''} of 0 bytes: "
                        f"{_some(hollow)}")
    if stray:
        notes.append(f"{where}: ignored {len(stray)} stray file{'s' if len(stray) > 1 else ''}: "
                     f"{_some(sorted(stray))}")
    return _Tree(folder, where, on_disk, files, stray, hollow)


def _class_folder(path: Path, listings: Listings) -> tuple[list[tuple[str, int]], list[str]]:
    """Sorted (file name, bytes) of a class folder's images, and the names of what is none; kept in `listings`.

    One thread: the sizes come from calls so short that several threads only wait for Python's lock, twice as long in all.
    """
    key = os.fspath(path)
    if key not in listings:
        images, others = [], []
        with os.scandir(key) as entries:
            for entry in entries:
                name = entry.name
                if (not name.startswith(".") and name.lower().endswith(_IMAGE_ENDINGS) and _is_text(name)
                        and _is(entry.is_file)):
                    images.append((name, entry.stat().st_size))
                else:
                    others.append(name)
        images.sort()
        listings[key] = images, others
    return listings[key]


def _is_text(name: str) -> bool:
    """Whether a file name can be written into a table: Python keeps bytes that are not UTF-8 as lone surrogates."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is(kind: Callable[[], bool]) -> bool:
    """`is_file` or `is_dir` of an entry; False for links in a circle, as for those that lead nowhere."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _did_you_mean(lacking: Sequence[str], extra: Sequence[str]) -> str:
    """A hint for every missing class that an unexpected folder nearly spells; nothing is taken for it unasked."""
    forms = [(folder, normal_form(folder)) for folder in extra]
    hints = [f"'{shown(folder)}' for '{name}'" for name in lacking for folder, form in forms
             if _near(normal_form(name), form, 1 if len(name) < 6 else 2)]
    return f"; did you mean {', '.join(hints)}? Then rename" if hints else ""


def _near(one: str, other: str, most: int) -> bool:
    """Whether `most` edits make one into the other. What differs in more letters than that is told apart without trying: a
    wrong folder may hold tens of thousands."""
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:
        return False
    return _edit_distance(one, other) <= most


def _edit_distance(one: str, other: str) -> int:
    """Letters to insert, delete or replace to make `one` into `other` (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row = row, [i]
        for j, right in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right)))
    return row[-1]


def _expected(names: list[str], plan: Plan) -> str:
    """Class names with the files expected of each, where known."""
    parts = []
    for name in names:
        counts = [f"{counts[name]} {kind}" for kind, counts in plan.counts.items() if name in counts]
        parts.append(f"{name} ({', '.join(counts)} expected)" if counts else name)
    return ", ".join(parts)


def shown(name: object) -> str:
    """A file name or path for a message: line feeds, control characters, direction marks, bytes that are not UTF-8 as escapes."""
    text = str(name)
    return text if text.isprintable() else "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)


def _some(items: Sequence[str], limit: int = 10) -> str:
    """The first few items, and how many more."""
    more = len(items) - limit
    return ", ".join(map(shown, items[:limit])) + (f" and {more} more" if more > 0 else "")


def _compare_counts(trees: list[_Tree], plan: Plan, kind: str) -> list[str]:
    """One note per difference between the files found and the table: classes, then the total."""
    where = " + ".join(tree.where for tree in trees)
    counts = {name: sum(len(tree.files.get(name, ())) for tree in trees) for name in plan.roles}
    different = [name for name, expected in plan.counts[kind].items() if counts[name] != expected]
    notes = []
    if different:
        worst = sorted(different, key=lambda name: -abs(counts[name] - plan.counts[kind][name]))
        worst_first = _some([f"{name} {counts[name]} of {plan.counts[kind][name]}" for name in worst])
        notes.append(f"{where}: {len(different)} class{'es' if len(different) > 1 else ''} with other counts "
                     f"than in the published lists: {worst_first}")
    total, expected = sum(counts.values()), plan.totals.get(kind)
    allowed = 0 if expected is None or not plan.totals_rounded else expected // 100
    if expected is not None and abs(total - expected) > allowed:
        notes.append(f"{where}: {total:,} {kind} in all, {'about ' if allowed else ''}{expected:,} expected")
    return notes


def _compare_with_manifest(builder: Builder, root: Path, trees: list[_Tree], problems: list[str]) -> None:
    """Compare the pictures of each publisher with the manifest that the builder left."""
    counts: dict[str, int] = {}
    for file, _ in (one for tree in trees for images in tree.files.values() for one in images):
        publisher = os.path.splitext(file)[0]
        counts[publisher] = counts.get(publisher, 0) + 1
    listed = builder.read_manifest(root)["per_publisher"]
    for publisher in sorted(counts.keys() | listed.keys()):
        there, built = counts.get(publisher, 0), listed.get(publisher, 0)
        if there != built:
            problems.append(f"{there} pictures by {publisher}, {built} were built; delete {root} and run "
                            f"again, so that it is built anew")


def held_out(label: str, names: Sequence[str], count: int) -> set[str]:
    """The files of one class that are kept from training: the same answer on every machine.

    `label` is the class, `names` its file names. Takes the `count` names with the smallest sha256 of
    "class/file name" (class in normal form), or a fifth of them (at least one) where that is fewer; a class
    of one file keeps it for training.

    >>> sorted(held_out("Palm_Tree", ["1.png", "2.png", "3.png", "4.png"], 1)) == sorted(
    ...     held_out("palm tree", ["4.png", "3.png", "2.png", "1.png"], 1))
    True
    """
    if len(names) < 2 or count < 1:
        return set()
    form = normal_form(label)
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{form}/{name}".encode("utf-8", "surrogateescape")).digest())
    return set(ranked[:min(count, max(1, len(names) // 5))])


def _assemble(found: DatasetSpec, plan: Plan, root: Path, sketches: list[_Tree], photos: list[_Tree],
              notes: list[str], listing: ListDirectory | None = None,
              listed: Mapping[str, list[_Entry]] = MappingProxyType({})) -> Split:
    def has_files(name: str) -> bool:
        return all(any(tree.files.get(name) for tree in trees) for trees in (sketches, photos))

    roles = {role: tuple(name for name in plan.of(role) if has_files(name)) for role in ROLES}
    label_of = {name: label for label, name in enumerate(name for role in ROLES for name in roles[role])}
    by_class = {part: _by_class(entries, label_of) for part, entries in listed.items()}
    train, held = _training_sketches(found, plan, root, roles["seen"], sketches, by_class, notes)
    parts = {
        "train_sketches": train,
        "train_photos": _entries(photos, roles["seen"]),
        "heldout_sketches": held,
        "validation_sketches": _entries(sketches, roles["validation"]),
        "validation_photos": _entries(photos, roles["validation"]),
        "query": _entries(sketches, roles["unseen"]),
        "gallery": _entries(photos, roles["unseen"]),
    } | {part: entries for part, entries in by_class.items() if part not in ("train_sketches", "heldout_sketches")}
    if listing is not None:
        notes += _list_notes(listing, root, parts, sketches + photos, label_of)
    disk = {tree.folder: tree for tree in sketches + photos}
    lists = {key: _files(found, root, entries, label_of, disk) for key, entries in parts.items()}
    # by folder, class, then file: each class's files are in order already
    data_digest = found.builder.read_manifest(root)["digest"] if found.builder else _digest(
        f"{folder}/{name}/{file}\t{size}" for folder, tree in sorted(disk.items())
        for name, images in sorted(tree.files.items()) for file, size in images)
    split_digest = _digest([
        *(f"{role}\t{name}" for role in ROLES for name in roles[role]),
        *(f"{key}\t{folder}/{name}/{file}" for key, entries in parts.items() for folder, name, file in entries)])
    return Split(found.name, plan.split, roles["seen"], roles["validation"], roles["unseen"], **lists,
                 data_digest=data_digest, split_digest=split_digest, notes=tuple(notes))


def _training_sketches(found: DatasetSpec, plan: Plan, root: Path, seen: Sequence[str], sketches: list[_Tree],
                       listed: Mapping[str, list[_Entry]], notes: list[str]) -> tuple[list[_Entry], list[_Entry]]:
    """Sketches of seen classes to train on and to hold out, by the lists or by our rule."""
    on_disk = _entries(sketches, seen)
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

    kept: dict[str, set[str]] = {}
    files: dict[str, list[str]] = {name: [] for name in seen}
    for _, name, file in pool:
        files[name].append(file)
    short = 0
    for name, names in files.items():
        if plan.held_out:
            kept[name] = {f"{plan.held_out[name]}.png"} if name in plan.held_out else set()
            if not kept[name] <= set(names):
                raise InputError(f"{root}: the held-out drawing {name}/{plan.held_out[name]}.png is not "
                                 f"there; delete that folder and run again, so that it is built anew")
        else:
            kept[name] = held_out(name, names, plan.held_out_per_class)
            short += len(kept[name]) < plan.held_out_per_class
    if short:
        notes.append(f"{short} seen class{'es' if short > 1 else ''} with fewer than "
                     f"{5 * plan.held_out_per_class} sketches: a fifth is held out instead of "
                     f"{plan.held_out_per_class}")
    return [one for one in pool if one[2] not in kept[one[1]]], [one for one in pool if one[2] in kept[one[1]]]


_Entry = tuple[str, str, str]
"""Folder, class, file name: the same on every machine, however the class folder is spelt."""


def _entries(trees: list[_Tree], classes: Sequence[str]) -> list[_Entry]:
    return [(tree.folder, name, file)
            for name in classes for tree in trees for file, _ in tree.files.get(name, ())]


def _files(found: DatasetSpec, root: Path, entries: list[_Entry], label_of: Mapping[str, int],
           disk: Mapping[str, _Tree]) -> Files:
    stems = len(found.photo_folders) > 1  # a photo in two folders may end in .jpg here and .JPEG there
    where = {(folder, name): f"{tree.where}/{its}" for folder, tree in disk.items() for name, its in tree.on_disk.items()}
    return Files(
        root=root,
        paths=tuple([f"{where[folder, name]}/{file}" for folder, name, file in entries]),
        labels=np.array([label_of[name] for _, name, _ in entries], dtype=np.int64),
        sources=tuple([Path(file).stem for _, _, file in entries]) if found.named_by_publisher else ("",) * len(entries),
        # every image's name has an ending, and a character before it
        groups=tuple([f"{name}/{file[:file.rindex('.')] if stems else file}" for _, name, file in entries]),
    )


def _digest(lines: Iterable[str]) -> str:
    """sha256 of the lines joined by line feeds; file names that are not UTF-8 keep their bytes."""
    # A line feed in a file name must not pass for the end of a line. No line begins with a quote, so no two give the same.
    lines = (repr(line) if "\n" in line else line for line in lines)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


# --- published lists ----------------------------------------------------------------------------------------

def _find_lists(found: DatasetSpec, split: str, root: Path, data_root: Path | None, lists: Path | str,
                notes: list[str]) -> Path | None:
    """The split's list directory. None, if need be with a note, where none lies beside the data and none was asked for."""
    folders = found.list_folders[split]
    files = tuple(dict.fromkeys(name for names in found.list_files.values() for name in names))
    if lists == "auto":
        own = [root / folder for folder in folders if folder != "."]
        beside = [its / folder for its in _named_after(found, data_root or root) for folder in folders if folder != "."]
        places = [one for one in own if list_files.holds(one, files)] or [one for one in beside if list_files.holds(one, files)]
        others = {place.name for place in places} - {places[0].name} if places else set()
        if others:
            notes.append(f"lists: {places[0].name} is used; {', '.join(sorted(others))} there too and left aside")
            places = [place for place in places if place.name not in others]
        for folder in own if not places else ():
            if folder.is_dir():
                notes.append(f"lists: {folder.name} holds none of {_some(files)}, but {_some(list_files.texts(folder))}; the "
                             f"folders are gone by")
    else:
        asked = Path(lists).expanduser()
        if not asked.is_dir():
            raise InputError(f"--lists {asked} is not a folder; pass a list directory such as {folders[0]}, a folder that holds "
                             f"such directories, or 'none'")
        another = {name for its in found.list_folders.values() for name in its} - set(folders)
        looked = [asked] if list_files.holds(asked, files) else [
            asked, *list_files.below(asked, folders, lambda base: _named_after(found, base))]
        places = [one for one in looked if list_files.holds(one, files) and one.resolve().name not in another]
        if not places:
            there = "; ".join(f"{one}: {_some(list_files.texts(one)) or 'no text file'}" for one in looked)
            raise InputError(f"--lists {asked} holds no list of {found.title}, split {split}, there or in folders such as "
                             f"{found.title.split()[0]}/{folders[0]} below it. Looked for: {', '.join(files)}. Found in {there}"
                             f"{' (the folder of another split)' if asked.resolve().name in another else ''}. Leave this data "
                             f"set out, go by its folders with --lists none, or lay the lists of those that have any beside the "
                             f"data, where they are found without --lists")
    if len({place.resolve() for place in places}) > 1:
        raise InputError(f"list files of {found.title}, split {split}, are there more than once: "
                         f"{', '.join(map(str, places))}; pass one of them with --lists")
    return places[0] if places else None


def _folders_in_lists(found: DatasetSpec) -> dict[str, dict[str, str]]:
    """`sketches`, `photos` -> every way to write a folder -> its name in the spec."""
    return {kind: {name: folder for folder in folders for name in (folder, *found.alternatives.get(folder, ()))}
            for kind, folders in (("sketches", found.sketch_folders), ("photos", found.photo_folders))}


def _entries_of(listing: ListDirectory, trees: Sequence[_Tree], plan: Plan, problems: list[str],
                notes: list[str]) -> dict[str, list[_Entry]]:
    """List -> the files on disk that its lines name, in the lines' order; problems and notes are added."""
    there = {(tree.folder, name): {file for file, _ in images} for tree in trees for name, images in tree.files.items()}
    spelt = {(tree.folder, name): its for tree in trees for name, its in tree.on_disk.items()}
    where = {tree.folder: tree.where for tree in trees}
    loose: dict[tuple[str, str], dict[str, list[str]]] = {}
    found: dict[str, list[_Entry]] = {}
    for part, lines in listing.lines.items():
        its, missing, endings = [], [], []
        classes: dict[str, str] = {}
        prefixes: dict[str, str] = {}
        for line in lines:
            _, folder, name, written, file, prefix = line
            key = (folder, name)
            if file not in there.get(key, ()):
                if key not in loose:
                    loose[key] = {}
                    for one in there.get(key, ()):
                        loose[key].setdefault(_loose(one), []).append(one)
                near = loose[key].get(_loose(file), [])
                if len(near) != 1:  # none, or several that only their endings tell apart
                    missing.append(line)
                    continue
                endings.append((file, near[0]))
                file = near[0]
            if spelt[key] != written:
                classes[written] = spelt[key]
            if where[folder] != prefix:
                prefixes[prefix] = where[folder]
            its.append((folder, name, file))
        found[part] = its
        source = listing.used[part]
        if missing:
            examples = _some([f"line {one.number} ({one.prefix}/{one.written}/{one.file})" for one in missing], 5)
            problems.append(f"{listing.path / source}: {len(missing):,} of {len(lines):,} listed files are not on disk: "
                            f"{examples}; restore them, or go by the folders with --lists none")
        unnamed = sorted(set(plan.of(list_files.PARTS[part][0])) - {line.name for line in lines})
        if unnamed:
            problems.append(f"{listing.path / source}: no line for {len(unnamed)} class{'es' if len(unnamed) > 1 else ''}: "
                            f"{_some(unnamed)}; is the file cut off?")
        if endings:
            notes.append(f"{source}: {len(endings):,} file{'s' if len(endings) > 1 else ''} spelt otherwise on disk, such as "
                         f"{endings[0][0]} as {endings[0][1]}")
        for text, pairs in (("class folder", classes), ("folder", prefixes)):
            if pairs:
                notes.append(f"{source}: {len(pairs)} {text}{'s' if len(pairs) > 1 else ''} spelt otherwise on disk: "
                             f"{_some([f'{one} as {other}' for one, other in pairs.items()], 5)}")
    return found


def _loose(file: str) -> str:
    """A file name without what archives and scripts change: Unicode composition, and the ending's case and spelling."""
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", file))
    return stem + {".jpeg": ".jpg"}.get(ending.casefold(), ending.casefold())


def _by_class(entries: list[_Entry], label_of: Mapping[str, int]) -> list[_Entry]:
    """In the split's order of classes, within a class as listed; classes that were left out go."""
    return sorted((one for one in entries if one[1] in label_of), key=lambda one: label_of[one[1]])


def _list_notes(listing: ListDirectory, root: Path, parts: Mapping[str, list[_Entry]], trees: Sequence[_Tree],
                label_of: Mapping[str, int]) -> list[str]:
    """Which list files were used, which were not there and what stands for them, and what no list names."""
    # never an absolute path: notes go into provenance and manifests
    path = listing.path.resolve()
    place = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else Path(*path.parts[-2:])
    notes = [f"lists: from {place}: {', '.join(dict.fromkeys(listing.used.values()))}"]
    instead = {"train_photos": "all photos of seen classes", "gallery": "all photos of unseen classes",
               "query": "all sketches of unseen classes", "train_sketches": "the sketches of seen classes not held out"}
    for part, file in listing.absent.items():
        if part == "heldout_sketches":
            continue  # _training_sketches says where those come from
        notes.append(f"lists: {file} is not there; {instead[part]} instead ({len(parts[part]):,} files)")
    if "heldout_sketches" in listing.absent and "train_sketches" in listing.absent:
        notes.append(f"lists: {listing.absent['heldout_sketches']} is not there; our rule picks the held-out sketches "
                     f"({len(parts['heldout_sketches']):,} files)")
    named = set(itertools.chain.from_iterable(parts.values()))
    unnamed = list(itertools.filterfalse(named.__contains__, _entries(list(trees), list(label_of))))
    if unnamed:
        notes.append(f"lists: {len(unnamed):,} file{'s' if len(unnamed) > 1 else ''} on disk in no list: "
                     f"{_some(['/'.join(one) for one in unnamed], 5)}")
    return [*listing.notes, *notes]
