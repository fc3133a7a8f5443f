"""List files in circulation: where they lie, what they name, and whether they contradict themselves.

In: a list directory such as SAKE's or ZSE-SBIR's `Sketchy/zeroshot1`. Out: checked lines: folder, class, file.
Knows nothing of what lies on disk. Paper: data sets (the splits are published as such files).
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tcn.config import InputError
from tcn.words import normal_form

SEEN_NAMES, UNSEEN_NAMES = "cname_cid.txt", "cname_cid_zero.txt"
"""Class names of a directory: a `name index` a line; the labels of its lists count in these."""
PARTS: Mapping[str, tuple[str, str]] = {
    "train_sketches": ("seen", "sketches"), "heldout_sketches": ("seen", "sketches"), "query": ("unseen", "sketches"),
    "train_photos": ("seen", "photos"), "gallery": ("unseen", "photos")}
"""The lists that can be published: the role of their classes, and what they name."""
_LABEL_DIGITS = 9
_CHECKOUTS = ("", "dataset", "datasets", "data")
"""Where a checkout of such a repository keeps its data sets' folders."""


class Line(NamedTuple):
    """One line of a list, its class checked. A tuple: lists hold hundreds of thousands."""

    number: int
    """Counted from 1, as an editor shows it."""
    folder: str
    """Folder of class folders, under the name that the data set's spec gives it."""
    name: str
    """Class, as the split's table spells it."""
    written: str
    """Class folder as the list spells it."""
    file: str
    prefix: str
    """Folder of class folders as the list spells it."""


@dataclass(frozen=True)
class ListDirectory:
    """What one list directory says of one split."""

    path: Path
    used: Mapping[str, str]
    """List -> the file it was read from."""
    absent: Mapping[str, str]
    """List -> the file that would have held it."""
    lines: Mapping[str, tuple[Line, ...]]
    notes: tuple[str, ...]


# --- reading --------------------------------------------------------------------------------------------------------

def read_list(path: Path) -> tuple[list[str], np.ndarray]:
    """A list file in circulation: one `path label` a line, the label being the integer after the last space.

    Returns N paths as written (class names in them may hold spaces) and labels, int64 [N]. Blank lines are
    skipped. A path that stands twice is returned twice, as published. Raises InputError naming file and line
    where a line has no path or no whole number from 0 as its label, and where the file is missing, empty or
    not UTF-8.
    """
    lines = read_lines(path)
    return [name for _, name, _ in lines], np.array([label for _, _, label in lines], dtype=np.int64)


def read_lines(path: Path) -> list[tuple[int, str, int]]:
    """The same as (line number from 1, path as written, label)."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"list file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"list file {path} is not UTF-8 text (byte {error.start}); is it a list file at all?") from error
    found: list[tuple[int, str, int]] = []
    values: dict[str, int] = {}  # a label is checked where it is first met
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        name, _, label = line.rpartition(" ")
        name = name.rstrip()
        if not name:
            raise InputError(f"{path}, line {number}: '{_short(line)}' holds no space; expected 'path label'")
        if label not in values:
            if not (label.isascii() and label.isdigit()):
                raise InputError(f"{path}, line {number}: label '{_short(label)}', after the last space, is no number")
            if len(label) > _LABEL_DIGITS:
                raise InputError(f"{path}, line {number}: label {_short(label)} is too large; labels count classes from 0")
            values[label] = int(label)
        found.append((number, name, values[label]))
    if not found:
        raise InputError(f"list file {path} is empty")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_names(path: Path) -> list[str]:
    """Class names in the order of their indices, which must be 0..C-1, each once. Raises InputError naming the line."""
    by_index: dict[int, str] = {}
    forms: dict[str, int] = {}
    for number, name, index in read_lines(path):
        if index in by_index:
            raise InputError(f"{path}, line {number}: index {index} is also that of '{by_index[index]}'")
        if normal_form(name) in forms:
            raise InputError(f"{path}, line {number}: class '{name}' stands there twice")
        by_index[index] = name
        forms[normal_form(name)] = index
    if max(by_index) != len(by_index) - 1:
        missing = next(index for index in range(len(by_index)) if index not in by_index)
        raise InputError(f"{path}: indices go up to {max(by_index)}, but {missing} is missing; is the file cut off?")
    return [by_index[index] for index in range(len(by_index))]


def read_directory(path: Path, files: Mapping[str, str], roles: Mapping[str, str],
                   class_of: Callable[[str], str | None], folders: Mapping[str, Mapping[str, str]]) -> ListDirectory:
    """Read and check the lists of one split.

    files: list (a key of `PARTS`) -> file name. roles: class -> `seen` or `unseen`. class_of: a spelling -> the class,
    or None. folders: `sketches` and `photos` -> folder as a list may write it -> its name in the spec.

    Raises InputError naming file and line where a path is not `folder/class/file`, the class is none of the split's or
    of the other side (an unseen class in a training list), or the label contradicts the class names; where the
    directory's classes are not the split's; and where one path stands in both the training and the held-out list.
    """
    notes: list[str] = []
    names = {role: _checked_names(path / file, role, roles, class_of, notes)
             for role, file in (("seen", SEEN_NAMES), ("unseen", UNSEEN_NAMES))}
    used = {part: file for part, file in files.items() if (path / file).is_file()}
    lines = {part: _checked_lines(path / file, PARTS[part][0], names[PARTS[part][0]], roles, class_of, folders[PARTS[part][1]])
             for part, file in used.items()}
    _check_apart(path, used, lines)
    for part, its in lines.items():
        repeats = len(its) - len({(folder, name, file) for _, folder, name, _, file, _ in its})
        if repeats:
            notes.append(f"{used[part]}: {repeats} line{'s name' if repeats > 1 else ' names'} a path a second time; "
                         f"nothing is dropped")
    return ListDirectory(path, used, {part: file for part, file in files.items() if part not in used}, lines, tuple(notes))


def _checked_names(path: Path, role: str, roles: Mapping[str, str], class_of: Callable[[str], str | None],
                   notes: list[str]) -> dict[int, str]:
    """Index -> class; empty, with a note, where the file is absent."""
    if not path.is_file():
        notes.append(f"{path.name} is not among the lists: the classes are taken from the paths, labels only checked "
                     f"against each other")
        return {}
    names = {index: class_of(name) or name for index, name in enumerate(read_names(path))}
    wanted = {name for name, its in roles.items() if its == role}
    lacking, extra = sorted(wanted - set(names.values())), sorted(set(names.values()) - wanted)
    if lacking or extra:
        parts = [f"{text} {', '.join(some[:8])}{' ...' if len(some) > 8 else ''}"
                 for text, some in (("it lacks", lacking), ("it names", extra)) if some]
        raise InputError(f"{path}: these are not the split's {len(wanted)} {role} classes: {'; '.join(parts)}. Is it another "
                         f"split's directory? Pass the right one with --lists, or 'none' to go by the folders")
    return names


def _checked_lines(path: Path, role: str, names: Mapping[int, str], roles: Mapping[str, str],
                   class_of: Callable[[str], str | None], folders: Mapping[str, str]) -> tuple[Line, ...]:
    by_label = dict(names)
    by_class = {name: label for label, name in by_label.items()}
    written: dict[str, str | None] = {}
    known: dict[tuple[str, int], tuple[str, str, str, str]] = {}  # a class folder with its label: checked where first met
    found = []
    for number, text, label in read_lines(path):
        folder, _, file = text.rpartition("/")
        its = known.get((folder, label))
        if its and file:
            found.append(Line(number, its[0], its[1], its[2], file, its[3]))
            continue
        where = f"{path}, line {number}"
        pieces = re.sub(r"^(\./)+", "", text).rsplit("/", 2)
        if len(pieces) != 3 or not all(pieces):
            raise InputError(f"{where}: '{text}' is not 'folder/class/file'")
        prefix, spelling, file = pieces
        if prefix not in folders:
            raise InputError(f"{where}: folder '{prefix}' is none of {', '.join(folders)}; paths start at the data set's folder")
        if spelling not in written:
            written[spelling] = class_of(spelling)
        name = written[spelling]
        if name is None:
            raise InputError(f"{where}: '{spelling}' is no class of this split")
        if roles[name] != role:
            raise InputError(f"{where}: '{name}' is {'an unseen' if role == 'seen' else 'a seen'} class, and this list holds "
                             f"{role} ones; such a list would mix training and test")
        if names and label not in names:
            raise InputError(f"{where}: label {label}, but {SEEN_NAMES if role == 'seen' else UNSEEN_NAMES} ends at "
                             f"{len(names) - 1}")
        if by_label.setdefault(label, name) != name or by_class.setdefault(name, label) != label:
            raise InputError(f"{where}: label {label} belongs to class '{by_label[label]}', the path to '{name}'")
        known[folder, label] = folders[prefix], name, spelling, prefix
        found.append(Line(number, folders[prefix], name, spelling, file, prefix))
    return tuple(found)


def _check_apart(path: Path, used: Mapping[str, str], lines: Mapping[str, Sequence[Line]]) -> None:
    """Held-out sketches must not be trained on. (Seen and unseen classes were told apart line by line.)"""
    if not {"train_sketches", "heldout_sketches"} <= lines.keys():
        return
    trained = {(folder, name, file): number for number, folder, name, _, file, _ in lines["train_sketches"]}
    both = [(one, trained[key]) for one in lines["heldout_sketches"] if (key := (one.folder, one.name, one.file)) in trained]
    if both:
        one, number = both[0]
        raise InputError(f"{path}: {len(both)} sketch{'es stand' if len(both) > 1 else ' stands'} in both "
                         f"{used['train_sketches']} and {used['heldout_sketches']}, first {one.name}/{one.file} (lines {number} "
                         f"and {one.number}): what is held out must not be trained on")


# --- finding --------------------------------------------------------------------------------------------------------

def holds(path: Path, files: Iterable[str]) -> bool:
    """Whether `path` is a folder with at least one of `files`."""
    return any((path / file).is_file() for file in files)


def below(path: Path, folder: str, dataset_folders: Callable[[Path], Sequence[Path]], files: Iterable[str]) -> list[Path]:
    """List directories called `folder` under `path`: in it, in a data set's folder in it, or in a checkout's.

    dataset_folders: a folder -> the folders in it that are named after the data set.
    """
    files = tuple(files)
    bases = [path / name for name in _CHECKOUTS if (path / name).is_dir()]
    places = [base / folder for base in bases] + [its / folder for base in bases for its in dataset_folders(base)]
    return list({place.resolve(): place for place in places if holds(place, files)}.values())
