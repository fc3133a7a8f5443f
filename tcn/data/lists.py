"""Published list files: where they lie, what they name, and whether they contradict themselves.

In: a list directory such as SAKE's or ZSE-SBIR's `Sketchy/zeroshot1`. Out: checked lines: folder, class, file. Whether the files
exist is checked elsewhere (`tcn.data.matching`). The paper's splits are published as such lists.
"""
from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tcn.config import InputError
from tcn.data.words import normal_form
from tcn.files import text

SEEN_NAMES, UNSEEN_NAMES = "cname_cid.txt", "cname_cid_zero.txt"
"""Class names of a directory: a `name index` a line; the labels of its lists count in these."""
PARTS: Mapping[str, tuple[str, str]] = {
    "train_sketches": ("seen", "sketches"), "heldout_sketches": ("seen", "sketches"), "query": ("unseen", "sketches"),
    "train_photos": ("seen", "photos"), "gallery": ("unseen", "photos")}
"""List that may be published -> the role of its classes, and what it names."""
PATH_COLUMNS = ("img_path", "image_path", "path")
"""Names of a table's column of paths. The column of labels is called `label`."""
_LABEL_DIGITS = 9
_READ = ("read are lists of one 'path label' a line, parted by spaces or tabs, and tables with a header line that names "
         "img_path (or path) and label")
_FOREIGN = (("<", "is a page of HTML or XML (was an error page saved in its place?)"), ("{", "is JSON"), ("[", "is JSON"))
"""How text of another format begins that can't be a list, and what to tell the user."""
_CHECKOUTS = ("", "dataset", "datasets", "data")
"""Folders of a repository's checkout that may hold the data sets' folders."""


class Line(NamedTuple):
    """One line of a list, with its class checked. A tuple for speed, since lists have hundreds of thousands of lines."""

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


def names_of(sketches: Sequence[str], photos: Sequence[str], dataset: str) -> dict[str, tuple[str, ...]]:
    """List -> names of its file, the published one first.

    sketches, photos: the names with {} for train, test or zero. dataset: as MA-ZS-SBIR's tables, which hold sketches and
    photos in one, call it.
    """
    ends = {"train_sketches": "train", "heldout_sketches": "test", "query": "zero", "train_photos": "train", "gallery": "zero"}
    tables = {"train": (f"train_{dataset}.csv",), "zero": (f"test_{dataset}.csv",)}
    return {part: (*(name.format(end) for name in (sketches if PARTS[part][1] == "sketches" else photos)), *tables.get(end, ()))
            for part, end in ends.items()}


# --- reading --------------------------------------------------------------------------------------------------------

def read_list(path: Path) -> tuple[list[str], np.ndarray]:
    """A list file in circulation: one `path label` a line, the label being the integer after the last white space; or a
    table with a header line that names a column of paths (`PATH_COLUMNS`) and `label`, such as MA-ZS-SBIR's CSV files.

    Returns N paths as written (class names in them may hold spaces) and labels, int64 [N]. Blank lines are
    skipped. A path that stands twice is returned twice, as published. Raises InputError naming file and line
    where a line has no path or no whole number from 0 as its label, and where the file is missing, empty, not
    UTF-8, or of another format, which is named.
    """
    lines = read_lines(path)
    return [name for _, name, _ in lines], np.array([label for _, _, label in lines], dtype=np.int64)


def read_lines(path: Path) -> list[tuple[int, str, int]]:
    """The same as (line number from 1, path as written, label)."""
    return _read_lines(path)[0]


def _read_lines(path: Path) -> tuple[list[tuple[int, str, int]], bool]:
    """The lines, and whether the file is a table, whose labels follow its author's own order."""
    content = text.read(path, "list file")
    body = content.lstrip()
    columns = _columns(body.partition("\n")[0])
    try:
        found = _table_lines(path, content, *columns) if columns else _plain_lines(path, content)
    except InputError as error:
        foreign = next((its for start, its in _FOREIGN if body.startswith(start)), None)
        if foreign is None:
            raise
        raise InputError(f"list file {path} {foreign}; {_READ}") from error
    if not found:
        raise InputError(f"list file {path} is empty")
    return found, bool(columns)


def _plain_lines(path: Path, content: str) -> list[tuple[int, str, int]]:
    values: dict[str, int] = {}  # each label is checked once
    found: list[tuple[int, str, int]] = []
    for number, line in enumerate(content.split("\n"), 1):
        row = line.strip().rsplit(None, 1)  # at spaces or tabs, any number of them
        if len(row) == 2:
            name, label = row
            if label not in values:
                values[label] = _label(label, f"{path}, line {number}", ", after the last space,")
            found.append((number, name, values[label]))
        elif row:
            commas = " (it holds commas, and the file has no header line)" if "," in line else ""
            raise InputError(f"{path}, line {number}: '{_short(row[0])}' holds no space before a label{commas}; {_READ}")
    return found


def _columns(header: str) -> tuple[int, int, str] | None:
    """The columns of paths and labels in a table's header (-1 if absent), and the separator; None if this is not a header."""
    for mark in ",;\t":
        names = [name.strip().strip('"').casefold() for name in header.split(mark)]
        paths = next((names.index(name) for name in PATH_COLUMNS if name in names), -1)
        labels = names.index("label") if "label" in names else -1
        if len(names) > 1 and max(paths, labels) >= 0:
            return paths, labels, mark
    return None


def _table_lines(path: Path, content: str, paths: int, labels: int, mark: str) -> list[tuple[int, str, int]]:
    rows = csv.reader(content.split("\n"), delimiter=mark)
    header = next(row for row in rows if any(map(str.strip, row)))
    if -1 in (paths, labels):
        raise InputError(f"list file {path} is a table with the columns {_short(', '.join(header))}; {_READ}")
    found: list[tuple[int, str, int]] = []
    values: dict[str, int] = {}
    try:
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise InputError(f"{where}: {len(row)} columns, {len(header)} in the header")
            name, label = row[paths].strip(), row[labels].strip()
            if not name:
                raise InputError(f"{where}: the path is empty")
            if label not in values:
                values[label] = _label(label, where, "")
            found.append((rows.line_num, name, values[label]))
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: no row of a table ({error})") from error
    return found


def _label(written: str, where: str, place: str) -> int:
    if not (written.isascii() and written.isdigit()):
        raise InputError(f"{where}: label '{_short(written)}'{place} is no number")
    if len(written) > _LABEL_DIGITS:
        raise InputError(f"{where}: label {_short(written)} is too large; labels count classes from 0")
    return int(written)


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


def read_directory(path: Path, files: Mapping[str, Sequence[str]], roles: Mapping[str, str],
                   class_of: Callable[[str], str | None], folders: Mapping[str, Mapping[str, str]], asked: bool = False
                   ) -> ListDirectory:
    """Read and check the lists of one split.

    files: list (a key of `PARTS`) -> names of its file, the published one first; a file that names both
    sketches and photos is divided by folder. roles: class -> `seen` or `unseen`. class_of: a spelling -> the class,
    or None. folders: `sketches` and `photos` -> folder as a list may write it -> its name in the spec. asked: whether the user
    named this directory.

    Raises InputError naming file and line where a path is not `folder/class/file`, the class is none of the split's or
    of the other side (an unseen class in a training list), or the label contradicts the class names; where the
    directory's classes are not the split's; where one path stands in both the training and the held-out list; and, if the
    directory was asked for, where a list is absent that a file by an unknown name may be.
    """
    notes: list[str] = []
    names = {role: _checked_names(path / file, role, roles, class_of, notes)
             for role, file in (("seen", SEEN_NAMES), ("unseen", UNSEEN_NAMES))}
    used: dict[str, str] = {}
    for part, known in files.items():
        there = [file for file in known if (path / file).is_file()]
        if there:
            used[part] = there[0]
        if there[1:]:
            notes.append(f"{there[0]} is used; {', '.join(there[1:])} there too and left aside")
    lines: dict[str, tuple[Line, ...]] = {}
    for file in dict.fromkeys(used.values()):
        parts = [part for part, its in used.items() if its == file]
        role = PARTS[parts[0]][0]
        found = _checked_lines(path / file, role, names[role], roles, class_of,
                               {part: folders[PARTS[part][1]] for part in parts})
        lines |= {part: its for part, its in found.items() if its}
    used = {part: file for part, file in used.items() if part in lines}
    lines = {part: lines[part] for part in used}
    _check_apart(path, used, lines)
    for part, its in lines.items():
        repeats = len(its) - len({(folder, name, file) for _, folder, name, _, file, _ in its})
        if repeats:
            notes.append(f"{used[part]}: {repeats} line{'s name' if repeats > 1 else ' names'} a path a second time; "
                         f"nothing is dropped")
    known_names = {SEEN_NAMES, UNSEEN_NAMES, *(file for known in files.values() for file in known)}
    other = [file for file in texts(path) if file not in known_names]
    absent = [part for part in files if part not in used]
    unread = [file for file in other if asked and _may_be(path / file, absent, roles, class_of, folders)]
    if unread:
        raise InputError(f"--lists {path}: {text.some(unread)} may be of this split, and no list goes by such a name, while "
                         f"{', '.join(files[part][0] for part in absent)} is not there; rename what should be read")
    if other and absent:
        notes.append(f"not read, since no list goes by these names: {', '.join(other[:8])}{' ...' if len(other) > 8 else ''}")
    return ListDirectory(path, used, {part: known[0] for part, known in files.items() if part not in used}, lines, tuple(notes))


def _may_be(path: Path, parts: Sequence[str], roles: Mapping[str, str], class_of: Callable[[str], str | None],
            folders: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a file is a list that names pictures as one of these lists would."""
    try:
        places = {name.rpartition("/")[0] for _, name, _ in read_lines(path)}
    except InputError:
        return False
    for prefix, _, spelling in (re.sub(r"^(\./)+", "", place).rpartition("/") for place in places):
        role = roles.get(class_of(spelling) or "")
        if any(PARTS[part][0] == role and _place_of(prefix, {part: folders[PARTS[part][1]]})[0] for part in parts):
            return True
    return False


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
                         f"split's directory? Pass the right one with --lists, or 'none' to make the split from the folders")
    return names


def _checked_lines(path: Path, role: str, names: Mapping[int, str], roles: Mapping[str, str],
                   class_of: Callable[[str], str | None], folders: Mapping[str, Mapping[str, str]]
                   ) -> dict[str, tuple[Line, ...]]:
    """The lines of a file's lists. folders: list -> folder as it may be written -> its name in the spec."""
    read, table = _read_lines(path)
    if table:  # its labels follow its author's own order
        names = {}
    by_label = dict(names)
    by_class = {name: label for label, name in by_label.items()}
    written: dict[str, str | None] = {}
    # each class folder with its label is checked once
    known: dict[tuple[str, int], tuple[Callable[[Line], None], str, str, str, str]] = {}
    parts: dict[str, list[Line]] = {part: [] for part in folders}
    make = tuple.__new__  # takes half the time of calling Line, which counts for hundreds of thousands of lines
    for number, line, label in read:
        folder, _, file = line.rpartition("/")
        its = known.get((folder, label))
        if its and file:
            its[0](make(Line, (number, its[1], its[2], its[3], file, its[4])))
            continue
        where = f"{path}, line {number}"
        pieces = re.sub(r"^(\./)+", "", line).rsplit("/", 2)
        if len(pieces) != 3 or not all(pieces):
            raise InputError(f"{where}: '{line}' is not 'folder/class/file'")
        prefix, spelling, file = pieces
        part, place = _place_of(prefix, folders)
        if part is None:
            every = ", ".join(name for its in folders.values() for name in its)
            raise InputError(f"{where}: folder '{prefix}' is none of {every}; paths start at the data set's folder, or are "
                             f"absolute and end in one of these, a class and a file")
        if spelling not in written:
            written[spelling] = class_of(spelling)
        name = written[spelling]
        if name is None:
            raise InputError(f"{where}: '{spelling}' is no class of this split")
        if roles[name] != role:
            raise InputError(f"{where}: '{name}' is {'an unseen' if role == 'seen' else 'a seen'} class, and this list holds "
                             f"{role} ones; such a list would mix training and test. Is it another split's?")
        if names and label not in names:
            raise InputError(f"{where}: label {label}, but {SEEN_NAMES if role == 'seen' else UNSEEN_NAMES} ends at "
                             f"{len(names) - 1}")
        if by_label.setdefault(label, name) != name or by_class.setdefault(name, label) != label:
            raise InputError(f"{where}: label {label} belongs to class '{by_label[label]}', the path to '{name}'")
        known[folder, label] = parts[part].append, place, name, spelling, prefix
        parts[part].append(Line(number, place, name, spelling, file, prefix))
    return {part: tuple(lines) for part, lines in parts.items()}


def _place_of(prefix: str, folders: Mapping[str, Mapping[str, str]]) -> tuple[str | None, str]:
    """The list to which a folder of class folders belongs (None: no list), and the folder's name in the spec.

    An absolute path is recognised by its end, the longest one that fits.
    """
    known = {name: (part, place) for part, its in folders.items() for name, place in its.items()}
    ends = [name for name in known if prefix == name or (prefix.startswith("/") and prefix.endswith(f"/{name}"))]
    return known[max(ends, key=len)] if ends else (None, "")


def _check_apart(path: Path, used: Mapping[str, str], lines: Mapping[str, Sequence[Line]]) -> None:
    """Raise InputError where a held-out sketch is also in the training list."""
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


def texts(path: Path) -> list[str]:
    """Names of the text files in a folder that may be lists."""
    return sorted(one.name for one in path.iterdir() if one.suffix.casefold() in (".txt", ".csv") and one.is_file())


def below(path: Path, folders: Sequence[str], dataset_folders: Callable[[Path], Sequence[Path]]) -> list[Path]:
    """Folders called one of `folders` under `path`: in it, in a data set's folder in it, or in a checkout's.

    dataset_folders: a folder -> the folders in it that are named after the data set. A folder "." is the data set's own.
    """
    bases = [path / name for name in _CHECKOUTS if (path / name).is_dir()]
    places = [base / folder for base in bases for folder in folders if folder != "."]
    places += [its / folder for base in bases for its in dataset_folders(base) for folder in folders]
    return list({place.resolve(): place for place in places if place.is_dir()}.values())
