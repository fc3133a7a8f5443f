"""What each data set is: its layout on disk, its splits, where its lists lie, and all that is special to it.

In: the committed tables in `splits/`. Out: a `DatasetSpec` for each data set, and for each split a `Plan`: its
classes by role and the number of files expected. Nothing here looks at the user's files. A new data set is one entry of
`SPECS`, one table, and its name in `tcn.config`; a user's own is a spec of the same type, read from a file (`tcn.data.declared`).
Source: the paper's section on data sets, and the list files released with it.
"""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import yaml

from tcn.config import BUILT_IN, GENERALISED, PART_NAME, InputError, whole_of
from tcn.data import emoji
from tcn.data import lists as list_files
from tcn.data.words import normal_form

SPLITS_FOLDER = Path(__file__).parent / "splits"
"""The committed tables: classes by role and counts, word vectors, the overlap with ImageNet."""
ROLES = ("seen", "validation", "unseen")


class Builder(Protocol):
    """A module that makes a data set on this machine, such as `tcn.data.emoji`."""

    def build(self, cache: Path, tarballs: Path | None = None, *, progress: bool = True) -> Path:
        """The data set's folder in `cache`, made first if need be, from the packages in `tarballs` or over the network."""

    def find_built(self, cache: Path) -> Path | None:
        """The finished and undamaged folder in `cache`, or None."""

    def read_manifest(self, folder: Path) -> dict[str, Any]:
        """What was made: `digest` of the contents, and `per_publisher`, the number of pictures by publisher."""


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: where its files lie below a data root, its splits, its metrics, and all that is special to it."""

    name: str
    title: str
    folder_names: tuple[str, ...]
    """Names of the data set's own folder, compared without case, spaces and punctuation."""
    sketch_folders: tuple[str, ...]
    """Folders that hold one folder per class, relative to the data set's own folder."""
    photo_folders: tuple[str, ...]
    splits: tuple[str, ...]
    """Names of the splits; the first is the default."""
    headline: Mapping[str, tuple[str, ...]]
    """Split -> the two metrics that the paper reports for it. For emoji, the paper has none: these are our choice."""
    source: str
    """One sentence: where the class names, roles and counts come from."""
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Folder -> its other names: as the archives unpack, or as other projects' scripts rename it."""
    list_folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> names of the folder that holds its list files, the published one first. "." is the data set's own folder, which is
    searched only when the user asks for it."""
    list_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """List (`tcn.data.lists.PARTS`) -> names of its file in that folder."""
    origin: str = ""
    """Where the field gets the files."""
    builder: Builder | None = None
    """What makes the data set in a cache folder. None where its files lie in a data root."""
    named_by_publisher: bool = False
    """Whether a file's name, without its ending, names the publisher of the picture (`Files.sources`)."""
    same_hand: Mapping[str, str] = field(default_factory=dict)
    """Publisher of sketches -> publisher whose photos repeat its drawings. Queries are also scored without these photos."""
    drawn_from: str = ""
    """Regular expression that the whole name of a sketch, without its ending, fits; its first group is the name, without its
    ending, of the photo of the same class that it was drawn from. Empty where names do not tell."""
    words: Path | None = None
    """Table of word vectors of its classes that comes with the project. None where the user brings them."""
    original_photos: tuple[str, ...] = ()
    """Those of the photo folders that hold the data set as first published.
    Parts of the data set take their photos from there."""
    original_photos_per_class: int | None = None
    """Photos of each class in `original_photos`, where they are equally many."""
    sample: int | None = None
    """Only the first so many sketches and photos of each class by name belong to it. None: all."""
    declared: str = BUILT_IN
    """As `tcn.config.Data.declared`: `built-in`, or a digest of what the user's file says."""
    plan: Plan | None = None
    """Its one split, where the file that declares it says that too. None: a committed table does."""
    root: Path | None = None
    """The data set's own folder, where the file that declares it says so. None: it is looked for below the data root."""
    layout: Mapping[str, str] = field(default_factory=dict)
    """Folder of class folders -> folder below `root` that stands for it."""
    generalised: bool = False
    """Whether photos of seen classes are in the gallery too: those that training did not use, or all where it used all."""
    kept: bytes = b""
    """That file, as each run's folder keeps it."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder that holds one folder per class."""
        return self.sketch_folders + self.photo_folders

    @property
    def extension(self) -> tuple[str, ...]:
        """Photo folders that were added to the original ones; none where the spec names no original ones."""
        return tuple(name for name in self.photo_folders if name not in self.original_photos) if self.original_photos else ()


_AS_IN_THE_PAPER = ("mAP@all", "Prec@100")
GENERIC_FOLDERS = ("sketch/tx_000000000000", "photo/tx_000000000000", "extended_photo", "png", "sketches", "images")
"""Folder names that do not tell which data set they belong to. They count only in a folder named after the data set."""
_PREPARED = ("The extended photos and prepared copies with list files: archives linked from the READMEs of SAKE (qliu24/SAKE), "
             "DSH and ZSIH.")
SPECS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in (
    DatasetSpec(
        name="emoji", title="Emoji", folder_names=(),
        sketch_folders=("sketch",), photo_folders=("photo",), splits=("fixed",), headline={"fixed": ("mAP@all", "Prec@R")},
        source="Built on this machine from published emoji drawings; the split is committed with the code.",
        origin="Built on this machine by `make bench` or `python benchmarks/run_all.py`; this check never downloads.",
        builder=emoji, named_by_publisher=True,
        same_hand={"emojione-monotone": "emojione-v1"},  # EmojiOne drew both
        words=SPLITS_FOLDER / "emoji_words.csv"),
    DatasetSpec(
        name="sketchy", title="Sketchy Extended", folder_names=("sketchy", "sketchyextended"),
        sketch_folders=("256x256/sketch/tx_000000000000_ready",),
        photo_folders=("256x256/photo/tx_000000000000_ready", "EXTEND_image_sketchy_ready"),
        splits=("1", "2"), headline={"1": _AS_IN_THE_PAPER, "2": ("mAP@200", "Prec@200")},
        original_photos=("256x256/photo/tx_000000000000_ready",), original_photos_per_class=100,
        source="Classes, roles and counts of the list files released with the paper; split 2 as published "
               "for classes outside ImageNet's 1,000.",
        alternatives={  # as the official archive unpacks, and as the download scripts of SEM-PCYC and Doodle2Search rename
            "256x256/sketch/tx_000000000000_ready": (
                "256x256/sketch/tx_000000000000", "rendered_256x256/256x256/sketch/tx_000000000000_ready",
                "rendered_256x256/256x256/sketch/tx_000000000000", "sketch/tx_000000000000"),
            "256x256/photo/tx_000000000000_ready": (
                "256x256/photo/tx_000000000000", "rendered_256x256/256x256/photo/tx_000000000000_ready",
                "rendered_256x256/256x256/photo/tx_000000000000", "photo/tx_000000000000"),
            "EXTEND_image_sketchy_ready": ("EXTEND_image_sketchy", "256x256/EXTEND_image_sketchy", "extended_photo")},
        list_folders={"1": ("zeroshot1",), "2": ("zeroshot0", "zeroshot2", ".")},  # CMCA calls it zeroshot2
        list_files=list_files.names_of(
            ("sketch_tx_000000000000_ready_filelist_{}.txt",), ("all_photo_filelist_{}.txt",), "sketchy"),
        drawn_from=r"(.+)-\d+",  # n02691156_10151-3.png is the third drawing of n02691156_10151.jpg
        origin=f"Sketches and original photos: sketchy.eye.gatech.edu (its rendered 256x256 archive). {_PREPARED}"),
    DatasetSpec(
        name="tuberlin", title="TU-Berlin Extended", folder_names=("tuberlin", "tuberlinextended"),
        sketch_folders=("png_ready",), photo_folders=("ImageResized_ready",), splits=("1",), headline={"1": _AS_IN_THE_PAPER},
        source="Classes, roles and counts of the list files released with the paper; the counts of seen classes' photos "
               "are in a list that was not at hand.",
        alternatives={"png_ready": ("png", "sketches"), "ImageResized_ready": ("ImageResized", "images")},
        list_folders={"1": ("zeroshot", ".")},
        list_files=list_files.names_of(
            ("png_ready_filelist_{}.txt",), ("ImageResized_ready_filelist_{}.txt",), "tuberlin"),
        origin=f"Sketches: cybertron.cg.tu-berlin.de/eitz/projects/classifysketch (png archive). {_PREPARED}"),
    DatasetSpec(
        name="quickdraw", title="QuickDraw Extended", folder_names=("quickdraw", "quickdrawextended"),
        sketch_folders=("QuickDraw_sketches_final",), photo_folders=("QuickDraw_images_final",),
        splits=("1",), headline={"1": _AS_IN_THE_PAPER},
        source="Class names released with the paper; counts of ZSE-SBIR's lists of its unseen classes.",
        alternatives={"QuickDraw_sketches_final": ("sketches",), "QuickDraw_images_final": ("QuickDraw_images", "images")},
        list_folders={"1": ("zeroshot", ".")},
        list_files=list_files.names_of(
            ("sketch_{}.txt", "sketch_filelist_{}.txt"),
            ("all_photo_{}.txt", "all_photo_filelist_{}.txt", "photo_filelist_{}.txt"), "quickdraw"),
        origin="QuickDraw Extended, sketches and photos: Doodle2Search (sounakdey/doodle2search), hosted at "
               "datasets.cvc.uab.es/QuickDraw."),
)})


@dataclass(frozen=True)
class Plan:
    """What a split should contain, by its committed table."""

    dataset: str
    split: str
    roles: Mapping[str, str]
    """Class -> `seen`, `validation` or `unseen`, in the table's order."""
    counts: Mapping[str, Mapping[str, int]]
    """`sketches` or `photos` -> class -> number of files expected, for the classes whose number the lists give."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """`sketches` or `photos` -> files expected in all; empty where unknown."""
    totals_also: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Other totals that intact copies in circulation have."""
    totals_rounded: bool = False
    """Whether the totals are published as round figures. They are then compared to one per cent."""
    held_out_per_class: int = 0
    """Sketches of each seen class that are kept from training (`tcn.data.splits.load`)."""
    held_out_photos: int = 0
    """The same for photos. The published splits train on all of them."""
    held_out: Mapping[str, str] = field(default_factory=dict)
    """Seen class -> publisher of its held-out drawing. Where there are any, they replace `held_out_per_class`."""
    left_out: tuple[str, ...] = ()
    """Classes present on disk but deliberately excluded, because another class depicts the same object."""
    folder_aliases: Mapping[str, str] = field(default_factory=dict)
    """Misspelt class folder of a published archive -> class."""
    distinct: Mapping[str, int] = field(default_factory=dict)
    """List -> number of different (class, file name) in it, where that is known and lower than the number of entries."""

    def of(self, role: str) -> tuple[str, ...]:
        """The classes of one role, in the table's order."""
        return tuple(name for name, its in self.roles.items() if its == role)

    def class_of(self, written: str) -> str | None:
        """The class that a list or a folder writes like this; None where it is no class of the split."""
        return self._class_by_form.get(normal_form(written))

    @functools.cached_property
    def _class_by_form(self) -> dict[str, str]:
        """Normal form of every name that a class folder may have -> class."""
        return {**{normal_form(alias): name for alias, name in self.folder_aliases.items()},
                **{normal_form(name): name for name in (*self.roles, *self.left_out)}}

    def expected(self) -> dict[str, int]:
        """List -> number of entries in the published list, for the lists whose number follows from the table's counts."""
        found: dict[str, int] = {}
        for part, (role, kind) in list_files.PARTS.items():
            names, counts = self.of(role), self.counts[kind]
            if names and part != "heldout_sketches" and all(name in counts for name in names):
                found[part] = sum(counts[name] for name in names)
        if "train_sketches" in found:
            found["heldout_sketches"] = sum(held_out_of(self.counts["sketches"][name], self.held_out_per_class)
                                            for name in self.of("seen"))
            found["train_sketches"] -= found["heldout_sketches"]
        return found


def sample_name(dataset: str, number: int) -> str:
    """Name of the part of a data set that holds its first `number` sketches and photos of each class by name.

    Raises InputError for a data set that has no such part, or a number outside 1 to 9,999.
    """
    name = f"{dataset}-first{number}"
    if not re.fullmatch(PART_NAME, name):
        raise InputError(f"'{name}' is no sample: take the first 1 to 9999 files of each class of sketchy, tuberlin or quickdraw")
    return name


def spec(dataset: str, split: str | None = None) -> tuple[DatasetSpec, str]:
    """The spec of `dataset` and the checked name of `split`, by default its first. Raises InputError for an unknown name.

    A part of a data set has a spec of its own: other photo folders or fewer files, no published lists (those name files that
    it lacks), and word vectors that come with the project, so that it can be tried with nothing but its pictures.

    >>> spec("sketchy-first25")[0].photo_folders, spec("sketchy-first25", "2")[1]
    (('256x256/photo/tx_000000000000_ready',), '2')
    """
    known, plain = {**SPECS, **_OWN}, dataset.removesuffix(GENERALISED)
    if plain not in known and not re.fullmatch(PART_NAME, plain):
        raise InputError(f"unknown data set '{dataset}': choose one of {', '.join(SPECS)}, a part of one, such as "
                         f"sketchy-first25 or sketchy-original, or give the YAML file that declares yours (docs/own-dataset.md)")
    found = known[plain] if plain in known else _part(plain)
    if plain != dataset:
        found = dataclasses.replace(found, name=dataset, title=f"{found.title}, generalised", generalised=True)
    if split is None:
        return found, found.splits[0]
    if split not in found.splits:
        raise InputError(f"unknown split '{split}' of {dataset}: choose one of {', '.join(found.splits)}")
    return found, split


_OWN: dict[str, DatasetSpec] = {}
"""Name -> data set that a file of the user's own declares, for all that this process has read; of one name, the last."""


def add(found: DatasetSpec) -> None:
    """Let `spec` and `read_plan` know a data set of the user's own."""
    _OWN[found.name] = found


def own(names: Iterable[str]) -> list[DatasetSpec]:
    """Those of these data sets that are the user's own."""
    return [_OWN[plain] for name in names if (plain := name.removesuffix(GENERALISED)) in _OWN]


@functools.cache
def _part(dataset: str) -> DatasetSpec:
    """The spec of a part, made from that of the whole."""
    whole = SPECS[whole_of(dataset)]
    number = re.fullmatch(PART_NAME, dataset)[2]  # type: ignore[index]  # the caller has compared the name with it
    title = whole.title.removesuffix(" Extended")
    photos = f", {whole.original_photos_per_class} original photos a class" if whole.original_photos_per_class else ""
    return dataclasses.replace(
        whole, name=dataset, sample=int(number) if number else None,
        title=f"{title}, first {number} of each class" if number else f"{title} without its extension",
        photo_folders=whole.original_photos or whole.photo_folders, list_folders={}, list_files={},
        headline=dict.fromkeys(whole.splits, ("mAP@all", "Prec@R")),
        source=f"Classes and roles as in {whole.title}; the first {number} sketches and photos of each class by name." if number
        else f"Classes and roles as in {whole.title}; its sketches{photos}.",
        words=SPLITS_FOLDER / "paper_words.csv")


CARVED = 0.15
"""Share of the seen classes that become validation classes with `data.validation=carved`."""


def carved(seen: Sequence[str]) -> set[str]:
    """The seen classes that choose settings when a split has no validation classes of its own, the same on every machine: those
    whose normal forms have the smallest sha256, 15 per cent of all, rounded.

    >>> sorted(carved(["cat", "hot-air_balloon", "dog", "cow", "ape", "bat", "bee"]))
    ['hot-air_balloon']
    """
    ranked = sorted(seen, key=lambda name: hashlib.sha256(normal_form(name).encode()).digest())
    return set(ranked[:round(CARVED * len(seen))])


def _counts(found: DatasetSpec, classes: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """`sketches` or `photos` -> class -> number of files expected, by the whole data set's table."""
    counts = {kind: {name: entry[kind] for name, entry in classes.items() if kind in entry} for kind in ("sketches", "photos")}
    if found.name in SPECS:
        return counts
    if found.original_photos_per_class:
        counts["photos"] = dict.fromkeys(classes, found.original_photos_per_class)
    return {kind: {name: min(number, found.sample or number) for name, number in its.items()} for kind, its in counts.items()}


def held_out_of(files: int, count: int) -> int:
    """How many of a class's sketches are kept from training: `count`, or a fifth (at least one) where that is fewer. A class of
    one file keeps it for training."""
    return min(count, max(1, files // 5)) if files > 1 else 0


def read_plan(dataset: str, split: str | None = None, validation: str = "own") -> Plan:
    """What a split should contain: by its committed table (of the whole data set for a part of it), or by the file that declares
    the data set. `validation` as in `tcn.config.Data`.

    Raises InputError for an unknown name, and where validation classes are to be carved out beside the split's own.
    """
    found, split = spec(dataset, split)
    plan = found.plan or _table(dataset.removesuffix(GENERALISED), split)
    if found.generalised:
        plan = dataclasses.replace(plan, dataset=dataset)
    if validation == "own":
        return plan
    if plan.of("validation"):
        raise InputError(f"setting 'data.validation' is 'carved'; '{dataset}' has validation classes of its own")
    chosen = carved(plan.of("seen"))
    if not chosen:
        raise InputError(f"setting 'data.validation' is 'carved', but {CARVED:.0%} of {len(plan.of('seen'))} seen classes of "
                         f"'{dataset}' are none; leave it out")
    return dataclasses.replace(plan, roles={**plan.roles, **dict.fromkeys(chosen, "validation")})


@functools.cache
def _table(dataset: str, split: str) -> Plan:
    """The committed table of a split."""
    found, whole = spec(dataset)[0], whole_of(dataset)
    stem = f"{whole}-{split}" if len(found.splits) > 1 else whole
    table = yaml.safe_load((SPLITS_FOLDER / f"{stem}.yaml").read_text(encoding="utf-8"))
    classes = table["classes"]
    if dataset != whole:
        table = {key: table[key] for key in ("held_out_per_class", "folder_aliases") if key in table}
    return Plan(
        dataset, split,
        roles={name: entry["role"] for name, entry in classes.items()},
        counts=_counts(found, classes),
        totals=table.get("totals", {}),
        totals_also=table.get("totals_also", {}),
        totals_rounded=table.get("totals_rounded", False),
        held_out_per_class=table.get("held_out_per_class", 0),
        held_out=table.get("heldout", {}),
        left_out=tuple(table.get("left_out", ())),
        folder_aliases=table.get("folder_aliases", {}),
        distinct=table.get("distinct", {}),
    )
