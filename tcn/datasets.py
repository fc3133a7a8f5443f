"""What a data set is: its layout on disk, its classes and their roles, and the file lists of a split.

In: a data root (or, for emoji, a cache folder) and a split's table of classes in `splits/`. Out: a `Split` of
ordered `Files`, checked against what was expected, with digests that never hold an absolute path.
Paper: data sets.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import yaml
from tqdm import tqdm

from tcn import emoji
from tcn.config import InputError
from tcn.words import normal_form

DATA_ROOT_VARIABLE = "TCN_DATA"
ROLES = ("seen", "validation", "unseen")
_SPLITS = Path(__file__).parent / "splits"
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_NOT_CLASSES = ("__macosx",)
_LISTS = ("train_sketches", "train_photos", "heldout_sketches", "validation_sketches", "validation_photos",
          "query", "gallery")


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: where its files lie below a data root, its splits, and what its numbers are called."""

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

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder of class folders."""
        return self.sketch_folders + self.photo_folders


_ALL = ("mAP@all", "Prec@100")
SPECS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in (
    DatasetSpec("emoji", "Emoji", (), ("sketch",), ("photo",), ("fixed",), {"fixed": ("mAP@all", "Prec@R")},
                "Built on this machine from published emoji drawings; the split is committed with the code."),
    DatasetSpec("sketchy", "Sketchy Extended", ("sketchy", "sketchyextended"),
                ("256x256/sketch/tx_000000000000_ready",),
                ("256x256/photo/tx_000000000000_ready", "EXTEND_image_sketchy_ready"),
                ("1", "2"), {"1": _ALL, "2": ("mAP@200", "Prec@200")},
                "Classes, roles and counts of the list files released with the paper; split 2 as published "
                "for classes outside ImageNet's 1,000."),
    DatasetSpec("tuberlin", "TU-Berlin Extended", ("tuberlin", "tuberlinextended"), ("png_ready",),
                ("ImageResized_ready",), ("1",), {"1": _ALL},
                "Classes, roles and counts of the list files released with the paper."),
    DatasetSpec("quickdraw", "QuickDraw Extended", ("quickdraw", "quickdrawextended"),
                ("QuickDraw_sketches_final",), ("QuickDraw_images_final",), ("1",), {"1": _ALL},
                "Class names released with the paper; counts of the published lists of its unseen classes."),
)})


@dataclass(frozen=True)
class Files:
    """One ordered list of N images of one modality."""

    root: Path
    paths: tuple[str, ...]
    """Relative to `root`, with forward slashes, ordered by class, then folder, then file name."""
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
    """What differs from the expectation without being an error: counts, stray files."""

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
    totals_rounded: bool = False
    """Totals are published as round figures: compared to one per cent."""
    held_out_per_class: int = 0
    held_out: Mapping[str, str] = field(default_factory=dict)
    """Seen class -> publisher of its held-out drawing (emoji)."""
    left_out: tuple[str, ...] = ()
    """Classes that are there and belong to no list: another class stands for the same thing (emoji)."""

    def of(self, role: str) -> tuple[str, ...]:
        """The classes of one role, in order."""
        return tuple(name for name, its in self.roles.items() if its == role)


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
        totals_rounded=table.get("totals_rounded", False),
        held_out_per_class=table.get("held_out_per_class", 0),
        held_out=table.get("heldout", {}),
        left_out=tuple(table.get("left_out", ())),
    )


# --- where the data sets are --------------------------------------------------------------------------------

def available(data_root: Path | None, names: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Which data sets can be loaded, and for each other one the reason.

    `data_root` None: the folder in `$TCN_DATA`, if set. `names` None: all. Emoji counts as present, since it
    is built on demand. A data set is missing unless all its folders exist; its classes are checked by `load`.
    Raises InputError for an unknown name, or a data root that is not a folder.
    """
    root = _data_root(data_root)
    present: list[str] = []
    missing: dict[str, str] = {}
    for name in SPECS if names is None else names:
        found, _ = spec(name)
        where = "" if name == "emoji" else _locate(found, root)
        if isinstance(where, Path) or not where:
            present.append(name)
        else:
            missing[name] = where
    return present, missing


def _data_root(data_root: Path | None) -> Path | None:
    origin = "--data-root"
    if data_root is None and os.environ.get(DATA_ROOT_VARIABLE):
        data_root, origin = Path(os.environ[DATA_ROOT_VARIABLE]), f"${DATA_ROOT_VARIABLE}"
    if data_root is None:
        return None
    data_root = Path(data_root).expanduser()
    if not data_root.is_dir():
        raise InputError(f"data root {data_root} (from {origin}) is not a folder; pass the folder that holds "
                         f"the data sets")
    return data_root


def _locate(found: DatasetSpec, root: Path | None) -> Path | str:
    """The data set's own folder, or the reason why there is none."""
    wanted = ", ".join(found.folders)
    if root is None:
        return f"no data root: pass --data-root or set {DATA_ROOT_VARIABLE} to the folder that holds {wanted}"
    places = [root] + sorted(Path(entry.path) for entry in os.scandir(root)
                             if _compact(entry.name) in found.folder_names and entry.is_dir())
    held = {place: [folder for folder in found.folders if (place / folder).is_dir()] for place in places}
    whole = [place for place in places if len(held[place]) == len(found.folders)]
    if len({place.resolve() for place in whole}) > 1:
        raise InputError(f"{found.title} is there more than once: {', '.join(map(str, whole))}; leave one, "
                         f"or pass one of them as the data root")
    if whole:
        return whole[0]
    place = max(places, key=lambda one: len(held[one]))
    looked = " and ".join(map(str, places))
    if not held[place]:
        return f"no {found.title}: looked in {looked} for {wanted}"
    lacking = [folder for folder in found.folders if folder not in held[place]]
    return f"{found.title} is incomplete: {place} holds {', '.join(held[place])} but not {', '.join(lacking)}"


def _compact(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


# --- loading ------------------------------------------------------------------------------------------------

def load(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path,
         progress: bool = True, emoji_tarballs: Path | None = None, strict: bool = True) -> Split:
    """The file lists of one split, checked against its table.

    `data_root` as in `available`; `cache` is where emoji is built (from `emoji_tarballs`, a folder of package
    tarballs, or over the network). Held-out sketches of the paper's data sets: per seen class the
    `held_out_per_class` files with the smallest sha256 of "class/file name" (class in normal form); where a
    class has fewer than five times as many, a fifth of it, at least one.

    Raises InputError with every problem at once: folders or classes missing, empty or unexpected, two folders
    of one class, files of 0 bytes. With `strict` False these become notes, and classes without both sketches
    and photos are left out. Other counts than expected, and stray files, are always notes.
    """
    found, split = spec(dataset, split)
    plan = read_plan(dataset, split)
    if dataset == "emoji":
        root = emoji.build(cache, emoji_tarballs, progress=progress)
    else:
        where = _locate(found, _data_root(data_root))
        if isinstance(where, str):
            raise InputError(f"data set {dataset} is not available. {where}")
        root = where

    problems: list[str] = []
    notes: list[str] = []
    try:
        trees = [_scan(root, folder, plan, problems, notes, progress) for folder in found.folders]
    except OSError as error:
        raise InputError(f"{error.filename or root} can't be listed: {error.strerror}") from error
    if dataset == "emoji":
        _compare_with_manifest(root, trees, problems)
    if problems and strict:
        shown = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{found.title} in {root} is not as expected ({len(problems)} "
                         f"problem{'s' if len(problems) > 1 else ''}); nothing was changed:\n{shown}")
    notes = problems + notes
    sketches, photos = trees[:len(found.sketch_folders)], trees[len(found.sketch_folders):]
    notes += _compare_counts(sketches, plan, "sketches") + _compare_counts(photos, plan, "photos")
    return _assemble(found, plan, root, sketches, photos, notes)


@dataclass(frozen=True)
class _Tree:
    """One folder of class folders: class -> its name on disk, and -> sorted (file name, bytes)."""

    folder: str
    on_disk: dict[str, str]
    files: dict[str, list[tuple[str, int]]]


def _scan(root: Path, folder: str, plan: Plan, problems: list[str], notes: list[str],
          progress: bool) -> _Tree:
    """List one folder of class folders; problems and notes are added to the lists given."""
    classes = (*plan.roles, *plan.left_out)
    by_form = {normal_form(name): name for name in classes}
    on_disk: dict[str, str] = {}
    extra: list[str] = []
    stray: list[str] = []
    for entry in sorted(os.scandir(root / folder), key=lambda one: one.name):
        hidden = entry.name.startswith(".") or entry.name.casefold() in _NOT_CLASSES
        if hidden or not entry.is_dir():
            stray.append(entry.name)
            continue
        name = by_form.get(normal_form(entry.name))
        if name is None:
            extra.append(entry.name)
        elif name in on_disk:
            problems.append(f"{folder}: folders '{on_disk[name]}' and '{entry.name}' are both class "
                            f"'{name}'; merge them or remove one")
        else:
            on_disk[name] = entry.name
    lacking = [name for name in classes if name not in on_disk]
    if lacking:
        problems.append(f"{folder}: {len(lacking)} of {len(classes)} classes missing: "
                        f"{_expected(lacking, plan)}")
    if extra:
        problems.append(f"{folder}: {len(extra)} unexpected class folder{'s' if len(extra) > 1 else ''}: "
                        f"{', '.join(extra)}; move {'them' if len(extra) > 1 else 'it'} elsewhere")

    files: dict[str, list[tuple[str, int]]] = {}
    hollow: list[str] = []
    for name in tqdm([name for name in classes if name in on_disk], desc=f"list {folder}", unit="class",
                     disable=not progress, leave=False):
        files[name] = images = []
        with os.scandir(root / folder / on_disk[name]) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(_IMAGE_ENDINGS) \
                        or not entry.is_file():
                    stray.append(f"{on_disk[name]}/{entry.name}")
                    continue
                size = entry.stat().st_size
                images.append((entry.name, size))
                if size == 0:
                    hollow.append(f"{on_disk[name]}/{entry.name}")
        images.sort()
    empty = [name for name, images in files.items() if not images]
    if empty:
        problems.append(f"{folder}: {len(empty)} class folder{'s' if len(empty) > 1 else ''} without any "
                        f"image: {_expected(empty, plan)}")
    if hollow:
        problems.append(f"{folder}: {len(hollow)} file{'s' if len(hollow) > 1 else ''} of 0 bytes: "
                        f"{_some(hollow)}")
    if stray:
        notes.append(f"{folder}: ignored {len(stray)} stray file{'s' if len(stray) > 1 else ''}: "
                     f"{_some(sorted(stray))}")
    return _Tree(folder, on_disk, files)


def _expected(names: list[str], plan: Plan) -> str:
    """Class names with the files expected of each, where known."""
    parts = []
    for name in names:
        counts = [f"{counts[name]} {kind}" for kind, counts in plan.counts.items() if name in counts]
        parts.append(f"{name} ({', '.join(counts)} expected)" if counts else name)
    return ", ".join(parts)


def _some(items: Sequence[str], limit: int = 10) -> str:
    """The first few items, and how many more."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def _compare_counts(trees: list[_Tree], plan: Plan, kind: str) -> list[str]:
    """One note per difference between the files found and the table: classes, then the total."""
    where = " + ".join(tree.folder for tree in trees)
    counts = {name: sum(len(tree.files.get(name, ())) for tree in trees) for name in plan.roles}
    different = [name for name, expected in plan.counts[kind].items() if counts[name] != expected]
    notes = []
    if different:
        worst = sorted(different, key=lambda name: -abs(counts[name] - plan.counts[kind][name]))
        shown = _some([f"{name} {counts[name]} of {plan.counts[kind][name]}" for name in worst])
        notes.append(f"{where}: {len(different)} class{'es' if len(different) > 1 else ''} with other counts "
                     f"than in the published lists: {shown}")
    total, expected = sum(counts.values()), plan.totals.get(kind)
    allowed = 0 if expected is None or not plan.totals_rounded else expected // 100
    if expected is not None and abs(total - expected) > allowed:
        notes.append(f"{where}: {total:,} {kind} in all, {'about ' if allowed else ''}{expected:,} expected")
    return notes


def _compare_with_manifest(root: Path, trees: list[_Tree], problems: list[str]) -> None:
    """Hold a build of emoji to its own manifest: pictures by publisher."""
    counts: dict[str, int] = {}
    for file, _ in (one for tree in trees for images in tree.files.values() for one in images):
        publisher = os.path.splitext(file)[0]
        counts[publisher] = counts.get(publisher, 0) + 1
    listed = emoji.read_manifest(root)["per_publisher"]
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
    ranked = sorted(names, key=lambda name: _digest([f"{form}/{name}"]))
    return set(ranked[:min(count, max(1, len(names) // 5))])


def _assemble(found: DatasetSpec, plan: Plan, root: Path, sketches: list[_Tree], photos: list[_Tree],
              notes: list[str]) -> Split:
    def has_files(name: str) -> bool:
        return all(any(tree.files.get(name) for tree in trees) for trees in (sketches, photos))

    roles = {role: tuple(name for name in plan.of(role) if has_files(name)) for role in ROLES}
    label_of = {name: label for label, name in enumerate(name for role in ROLES for name in roles[role])}
    kept: dict[str, set[str]] = {}
    short = 0
    for name in roles["seen"]:
        names = [file for tree in sketches for file, _ in tree.files.get(name, ())]
        if found.name == "emoji":
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

    seen_sketches = _entries(sketches, roles["seen"])
    parts = {
        "train_sketches": [one for one in seen_sketches if one[2] not in kept[one[1]]],
        "train_photos": _entries(photos, roles["seen"]),
        "heldout_sketches": [one for one in seen_sketches if one[2] in kept[one[1]]],
        "validation_sketches": _entries(sketches, roles["validation"]),
        "validation_photos": _entries(photos, roles["validation"]),
        "query": _entries(sketches, roles["unseen"]),
        "gallery": _entries(photos, roles["unseen"]),
    }
    disk = {tree.folder: tree.on_disk for tree in sketches + photos}
    sizes = {(tree.folder, name, file): size for tree in sketches + photos
             for name, images in tree.files.items() for file, size in images}
    lists = {key: _files(found, root, entries, label_of, disk) for key, entries in parts.items()}
    data_digest = emoji.read_manifest(root)["digest"] if found.name == "emoji" else _digest(
        f"{'/'.join(key)}\t{size}" for key, size in sorted(sizes.items()))
    split_digest = _digest([
        *(f"{role}\t{name}" for role in ROLES for name in roles[role]),
        *(f"{key}\t{'/'.join(entry)}" for key, entries in parts.items() for entry in entries)])
    return Split(found.name, plan.split, roles["seen"], roles["validation"], roles["unseen"], **lists,
                 data_digest=data_digest, split_digest=split_digest, notes=tuple(notes))


_Entry = tuple[str, str, str]
"""Folder, class, file name: the same on every machine, however the class folder is spelt."""


def _entries(trees: list[_Tree], classes: Sequence[str]) -> list[_Entry]:
    return [(tree.folder, name, file)
            for name in classes for tree in trees for file, _ in tree.files.get(name, ())]


def _files(found: DatasetSpec, root: Path, entries: list[_Entry], label_of: Mapping[str, int],
           disk: Mapping[str, Mapping[str, str]]) -> Files:
    stems = len(found.photo_folders) > 1  # a photo in two folders may end in .jpg here and .JPEG there
    return Files(
        root=root,
        paths=tuple(f"{folder}/{disk[folder][name]}/{file}" for folder, name, file in entries),
        labels=np.array([label_of[name] for _, name, _ in entries], dtype=np.int64),
        sources=tuple(Path(file).stem if found.name == "emoji" else "" for _, _, file in entries),
        groups=tuple(f"{name}/{os.path.splitext(file)[0] if stems else file}" for _, name, file in entries),
    )


def _digest(lines: Iterable[str]) -> str:
    """sha256 of the lines joined by line feeds; file names that are not UTF-8 keep their bytes."""
    total = hashlib.sha256()
    for index, line in enumerate(lines):
        total.update(b"\n" * (index > 0) + line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


# --- list files ---------------------------------------------------------------------------------------------

def read_list(path: Path) -> tuple[list[str], np.ndarray]:
    """A list file in circulation: one `path label` a line, the label being the integer after the last space.

    Returns N paths as written (class names in them may hold spaces) and labels, int64 [N]. Blank lines are
    skipped. A path that stands twice is returned twice, as published. Raises InputError naming file and line
    where a line has no path or no whole number from 0 as its label, and where the file is missing, empty or
    not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"list file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"list file {path} is not UTF-8 text (byte {error.start}); is it a list file at all?"
                         ) from error
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        name, _, label = line.rpartition(" ")
        name = name.rstrip()
        if not name:
            raise InputError(f"{path}, line {number}: '{line}' holds no space; expected 'path label'")
        if not (label.isascii() and label.isdigit()):
            raise InputError(f"{path}, line {number}: label '{label}', after the last space, is no number")
        paths.append(name)
        labels.append(int(label))
    if not paths:
        raise InputError(f"list file {path} is empty")
    return paths, np.array(labels, dtype=np.int64)
