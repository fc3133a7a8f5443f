"""Where data sets and their list files lie.

In: a data set's `DatasetSpec` and the data root that the user names. Out: a `Place` (the data set's own folder, and the
folder that stands for each one of the spec), the list directory of a split, or the reason why there is none.
"""
from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcn.config import InputError
from tcn.data import lists as list_files
from tcn.data.specs import GENERIC_FOLDERS, SPECS, DatasetSpec, sample_name, spec
from tcn.files.text import shown, some

DATA_ROOT_VARIABLE = "TCN_DATA"


def available(data_root: Path | None, names: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Which data sets can be loaded, and for each other one the reason.

    `data_root` None: the folder in `$TCN_DATA`, if set. `names` None: all. A data set with a builder counts as
    present, since it is built on demand. Any other is missing unless all its folders exist; `splits.load` checks its
    classes. Raises InputError for an unknown name, or a data root that is not a folder.
    """
    root = checked_root(data_root)
    present: list[str] = []
    missing: dict[str, str] = {}
    for name in SPECS if names is None else names:
        found, _ = spec(name)
        where = None if found.builder else find_place(found, root)
        if isinstance(where, str):
            missing[name] = where
        else:
            present.append(name)
    return present, missing


def folders_there(dataset: str, data_root: Path | None) -> tuple[str, ...]:
    """Which of a data set's folders lie in the data root, by their names on disk. Some but not all mean an incomplete copy."""
    found, root = spec(dataset)[0], checked_root(data_root)
    if root is None or not found.folder_names:
        return ()
    places = [_place(found, one) for one in [root, *_named_after(found, root)]]
    return max((tuple(place.layout.values()) for place in places), key=len)


def checked_root(data_root: Path | None) -> Path | None:
    """The data root, by default `$TCN_DATA`; None where neither is given. Raises InputError where it is not a folder."""
    origin = "--data-root"
    if data_root is None and os.environ.get(DATA_ROOT_VARIABLE):
        data_root, origin = Path(os.environ[DATA_ROOT_VARIABLE]), f"${DATA_ROOT_VARIABLE}"
    if data_root is None:
        return None
    data_root = Path(data_root).expanduser()
    try:
        there = data_root.is_dir()
    except OSError:  # the name is too long, or a folder above it is closed to us
        there = False
    if not there:
        raise InputError(f"data root {shown(data_root)} (from {origin}) is not a folder that can be opened; pass the folder that "
                         f"holds the data sets")
    return data_root


def part_there(name: str, data_root: Path | None) -> str | None:
    """The part of a data set that lies there without the photos of its extension: `NAME-original`, or where its classes hold
    fewer photos, the sample of as many. None where all or nothing of it is there."""
    whole, root = SPECS[name], checked_root(data_root)
    if not whole.original_photos or root is None or not isinstance(find_place(whole, root), str):
        return None
    part = spec(f"{name}-original")[0]
    place = find_place(part, root)
    if isinstance(place, str):
        return None
    folders = [place.root / place.layout[folder] for folder in part.photo_folders]
    most = max((len(os.listdir(one)) for folder in folders for one in folder.iterdir() if one.is_dir()), default=0)
    assert whole.original_photos_per_class  # wherever there are original photos
    return sample_name(name, most) if 0 < most < whole.original_photos_per_class else part.name


@dataclass(frozen=True)
class Place:
    """Where a data set lies."""

    root: Path
    layout: Mapping[str, str]
    """Folder of the spec -> folder on disk that stands for it, both relative to `root`."""
    notes: tuple[str, ...] = ()


def find_place(found: DatasetSpec, root: Path | None) -> Place | str:
    """The data set's own folder and layout, or the reason why there is none. Raises InputError where there are several."""
    wanted = ", ".join(found.folders)
    if found.root is not None:
        lacking = [where for where in found.layout.values() if not (found.root / where).is_dir()]
        return f"{found.root} holds no folder {', '.join(lacking)}" if lacking else Place(found.root, found.layout)
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
            f"{', '.join(lacking)}" + (f"; without it, give {found.name}-original, or {found.name}-firstN (--sample N) for the "
                                       "first N files of each class" if set(lacking) <= set(found.extension) else ""))


def _named_after(found: DatasetSpec, root: Path) -> list[Path]:
    """Folders in `root` that are named after the data set."""
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries
                      if _compact(entry.name) in found.folder_names and entry_is(entry.is_dir))


def _place(found: DatasetSpec, root: Path) -> Place:
    """Which folder in `root` stands for each one of the spec: the one of the same name, else the only alternative there."""
    named = {_compact(root.name), _compact(root.resolve().name)} & set(found.folder_names)
    layout: dict[str, str] = {}
    notes: list[str] = []
    for folder in found.folders:
        others = [name for name in found.alternatives.get(folder, ()) if named or name not in GENERIC_FOLDERS]
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
    return Place(root, layout, tuple(notes))


def _compact(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def entry_is(kind: Callable[[], bool]) -> bool:
    """The answer of a directory entry's `is_file` or `is_dir`. Links that form a circle are neither, as links to nothing are."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


# --- list directories -------------------------------------------------------------------------------------------------

def find_lists(found: DatasetSpec, split: str, root: Path, data_root: Path | None, lists: Path | str,
               notes: list[str]) -> Path | None:
    """The list directory of a split, as `lists` asks for it (see `splits.load`).

    root: the data set's own folder. Returns None when `lists` is "auto" and no list files lie beside the data; adds a note if
    a folder has the right name but holds none. Raises InputError where the user names a folder without lists of this split, and
    where several directories would do.
    """
    folders = found.list_folders[split]
    files = tuple(dict.fromkeys(name for names in found.list_files.values() for name in names))
    if lists == "auto":
        places = _beside_the_data(found, folders, files, root, data_root or root, notes)
    else:
        places = _asked_for(found, split, files, Path(lists).expanduser())
    if len({place.resolve() for place in places}) > 1:
        raise InputError(f"list files of {found.title}, split {split}, are there more than once: "
                         f"{', '.join(map(str, places))}; pass one of them with --lists")
    return places[0] if places else None


def _beside_the_data(found: DatasetSpec, folders: Sequence[str], files: Sequence[str], root: Path, data_root: Path,
                     notes: list[str]) -> list[Path]:
    own = [root / folder for folder in folders if folder != "."]
    beside = [its / folder for its in _named_after(found, data_root) for folder in folders if folder != "."]
    places = [one for one in own if list_files.holds(one, files)] or [one for one in beside if list_files.holds(one, files)]
    others = {place.name for place in places} - {places[0].name} if places else set()
    if others:
        notes.append(f"lists: {places[0].name} is used; {', '.join(sorted(others))} there too and left aside")
        places = [place for place in places if place.name not in others]
    for folder in own if not places else ():
        if folder.is_dir():
            notes.append(f"lists: {folder.name} holds none of {some(files)}, but {some(list_files.texts(folder))}; the "
                         f"split is made from the folders")
    return places


def _asked_for(found: DatasetSpec, split: str, files: Sequence[str], asked: Path) -> list[Path]:
    folders = found.list_folders[split]
    if not asked.is_dir():
        raise InputError(f"--lists {asked} is not a folder; pass a list directory such as {folders[0]}, a folder that holds "
                         f"such directories, or 'none'")
    another = {name for its in found.list_folders.values() for name in its} - set(folders)
    looked = [asked] if list_files.holds(asked, files) else [
        asked, *list_files.below(asked, folders, lambda base: _named_after(found, base))]
    places = [one for one in looked if list_files.holds(one, files) and one.resolve().name not in another]
    if not places:
        there = "; ".join(f"{one}: {some(list_files.texts(one)) or 'no text file'}" for one in looked)
        raise InputError(f"--lists {asked} holds no list of {found.title}, split {split}, there or in folders such as "
                         f"{found.title.split()[0]}/{folders[0]} below it. Looked for: {', '.join(files)}. Found in {there}"
                         f"{' (the folder of another split)' if asked.resolve().name in another else ''}. Leave this data "
                         f"set out, make its split from its folders with --lists none, or lay the lists of those that have any "
                         f"beside the data, where they are found without --lists")
    return places
