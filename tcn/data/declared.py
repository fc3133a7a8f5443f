"""A data set of one's own: a YAML file beside two folders of class folders, read into the spec that a built-in data set has.

In: a file (docs/own-dataset.md shows a whole one) and the names of the class folders. Out: a `DatasetSpec` with its one split,
whose `declared` is a digest of what the file says of classes, roles and held-out files: where anything lies, and in which order
it is written, is no part of it. Pictures are neither opened nor counted here. The paper has no such data sets.
"""
from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tcn.config import OWN_NAME, OWN_SPLIT, SPLITS, InputError
from tcn.data import specs
from tcn.data.scan import may_be_class
from tcn.data.specs import ROLES, DatasetSpec, Plan
from tcn.data.words import normal_form
from tcn.files import text
from tcn.files.text import shown, some

ENDINGS = (".yaml", ".yml")
GUIDE = "docs/own-dataset.md shows a whole file"
KEPT = "dataset.yaml"
"""Name in a run's folder of the copy of the file."""
SKETCHES, PHOTOS = "sketch", "photo"
"""The two folders as digests call them, whatever they are called on disk."""
LEAST = 2
"""Seen classes, and unseen ones, of any split: photos of a single class are always ranked without a fault."""


def _one_line(name: str) -> str:
    if name != name.strip() or not name.isprintable() or "/" in name or not normal_form(name):
        raise ValueError("a class name is one line without slashes, and no blank at its ends")
    return name


def _below(folder: str) -> str:
    path = Path(folder)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError("give a folder below root, such as photos; root says where both lie")
    return path.as_posix()


def _tells(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    if pattern and not groups:
        raise ValueError("it needs a group, such as (.+)-[0-9]+, that holds the photo's name")
    return pattern


Names = Annotated[list[Annotated[str, AfterValidator(_one_line)]], Field(default_factory=list)]
Folder = Annotated[str, AfterValidator(_below)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", regex_engine="python-re")


class Drawn(_Record):
    """Roles drawn by a seed: the classes with the smallest sha256 of "seed/class" (in normal form) are unseen,
    the next validation."""

    unseen: Annotated[int, Field(ge=LEAST)]
    seed: Annotated[int, Field(ge=0)]
    validation: Annotated[int, Field(ge=0)] = 0


class HeldOut(_Record):
    """Files of each seen class that are kept from training, by the rule of `tcn.data.splits.held_out`;
    a fifth where that is fewer."""

    sketches: Annotated[int, Field(ge=1)] = 10
    photos: Annotated[int, Field(ge=0)] = 0


class Declaration(_Record):
    """What a file may say."""

    name: Annotated[str, StringConstraints(pattern=f"^{OWN_NAME}$")]
    root: str = "."
    """The folder that holds both others, by default the file's own."""
    sketches: Folder
    photos: Folder
    seen: Names
    validation: Names
    unseen: Names
    left_out: Names
    split: Drawn | None = None
    """In place of roles by name."""
    held_out: HeldOut = HeldOut()
    words: str | None = None
    """A file of word vectors, as --words takes it."""
    drawn_from: Annotated[str, AfterValidator(_tells)] = ""
    sample: Annotated[int, Field(ge=1)] | None = None


def is_file(name: str) -> bool:
    """Whether a name on the command line means a file that declares a data set."""
    return name.casefold().endswith(ENDINGS)


def named(name: str) -> str:
    """The name of the data set that a name on the command line means: a file is read, and its data set known to `specs.spec` from
    then on. InputError where the file can't be used."""
    if not is_file(name):
        return name
    found = read(Path(name))
    specs.add(found)
    return found.name


def all_named(names: Sequence[str]) -> list[str]:
    """`named` for each. InputError too where two files declare data sets of one name."""
    files: dict[str, str] = {}
    for name in names:
        other = files.setdefault(named(name), name)
        if other != name and is_file(name):
            raise InputError(f"{other} and {name} both declare '{named(name)}'; rename one of them")
    return list(files)


def read(path: Path) -> DatasetSpec:
    """The data set that a file declares.

    Raises InputError, one line that names file and field: where the file can't be read, holds unknown keys or values, names
    folders or words that are not there, gives a class two roles or none, or asks for more classes than there are.
    """
    path = path.expanduser()
    content = text.read(path, "data set file")
    said = _parsed(path, content)
    try:
        root = (path.parent / Path(said.root).expanduser()).resolve()
        folders = {where: _class_folders(path, field, root / where) for field, where in (("sketches", said.sketches),
                                                                                         ("photos", said.photos))}
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: root: {getattr(error, 'strerror', None) or error}; give the folder that holds "
                         "sketches and photos") from error
    if said.name in SPLITS:
        raise InputError(f"{path}: name is '{said.name}', which is built in; choose another")
    if len(folders) < 2:
        raise InputError(f"{path}: photos: {said.photos} is the folder of the sketches too; give each its own")
    roles = _by_name(path, said, folders) if said.split is None else _by_seed(path, said, said.split, folders)
    for role in ("seen", "unseen"):
        if (number := list(roles.values()).count(role)) < LEAST:
            raise InputError(f"{path}: {number} {role} class{'' if number == 1 else 'es'}, and at least {LEAST} are needed"
                             + (f" ({len(roles)} classes in all)" if said.split else f"; name them under {role}"))
    words = path.parent / Path(said.words).expanduser() if said.words else None
    if words is not None and not words.is_file():
        raise InputError(f"{path}: words: {words} is not a file; give a file of word vectors, or leave the key out")
    left_out = sorted(said.left_out, key=normal_form)
    plan = Plan(said.name, OWN_SPLIT, roles, {"sketches": {}, "photos": {}}, held_out_per_class=said.held_out.sketches,
                held_out_photos=said.held_out.photos, left_out=tuple(left_out))
    matters = [list(roles.items()), left_out, said.held_out.model_dump(), said.drawn_from, said.sample]
    return DatasetSpec(
        name=said.name, title=said.name, folder_names=(), sketch_folders=(SKETCHES,), photo_folders=(PHOTOS,),
        splits=(OWN_SPLIT,), headline={OWN_SPLIT: ("mAP@all", "Prec@R")},
        source=f"Classes and roles as {path.name} declares them.",
        drawn_from=said.drawn_from, words=words, sample=said.sample, plan=plan, root=root,
        declared=f"file:{hashlib.sha256(json.dumps(matters).encode()).hexdigest()}",
        layout={SKETCHES: said.sketches, PHOTOS: said.photos}, kept=content.encode())


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice in one mapping, where YAML's loaders take the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:  # noqa: D102
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name = str(key.value)
            if name in lines:
                said = f"the key '{shown(name)}' stands in line {lines[name]} already"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node


def _parsed(path: Path, content: str) -> Declaration:
    try:
        found = yaml.load(content, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path}{f', line {mark.line + 1}' if mark else ''} is no YAML "
                         f"({getattr(error, 'problem', None) or error}); {GUIDE}".replace("\n", " ")) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__} in place of keys and values; {GUIDE}")
    try:
        return Declaration.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    *above, key = map(str, first["loc"])
    name = ".".join([*above, key])
    if first["type"] == "missing":
        raise InputError(f"{path} names no {name}; {GUIDE}")
    if first["type"] == "extra_forbidden":
        records: dict[str, type[BaseModel]] = {"": Declaration, "split": Drawn, "held_out": HeldOut}
        raise InputError(f"{path}: unknown key '{shown(name)}'; known there are "
                         f"{', '.join(records['.'.join(above)].model_fields)}")
    if name == "name":
        raise InputError(f"{path}: name is {_short(first['input'])}; give lower-case letters, digits and single underscores, "
                         f"at most 40, a letter first")
    quotes = "; put it into quotes" if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)) else ""
    what = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    raise InputError(f"{path}: {name} is {_short(first['input'])}: {what}{quotes}")


def _short(value: object) -> str:
    """A value for a message; of one that YAML's references nest a thousandfold no more is looked at than is shown."""
    shortened = reprlib.Repr()
    shortened.maxstring = 60
    return shortened.repr(value)


def _class_folders(path: Path, field: str, folder: Path) -> dict[str, str]:
    """Normal form -> name on disk of each class folder in `folder`."""
    if not folder.is_dir():
        raise InputError(f"{path}: {field}: {folder} is not a folder; give the folder that holds one folder a class, "
                         "relative to root")
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries if may_be_class(entry)):
            first = found.setdefault(normal_form(name), name)
            if first != name:
                raise InputError(f"{path}: {field}: the folders '{shown(first)}' and '{shown(name)}' in {folder} are one "
                                 "class; merge them")
    if not found:
        raise InputError(f"{path}: {field}: {folder} holds no folder; it has to hold one folder a class")
    return found


def _by_name(path: Path, said: Declaration, folders: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Class -> role as written, by normal form. Each class folder must have one role, or be left out."""
    known: dict[str, tuple[str, str]] = {}
    for role in (*ROLES, "left_out"):
        for name in getattr(said, role):
            if normal_form(name) in known:
                other, its = known[normal_form(name)]
                same = f"'{name}' stands" if other == name else f"'{other}' and '{name}' are one class, which stands"
                raise InputError(f"{path}: {same} under {its} and {role}; a class has one role" if its != role else
                                 f"{path}: {same} under {role} twice; name it once")
            known[normal_form(name)] = name, role
    for where, there in folders.items():
        for form, (name, role) in known.items():
            if form not in there and role != "left_out":
                near = difflib.get_close_matches(form, set(there) - set(known), 1)
                raise InputError(f"{path}: {role}: '{name}' has no folder in {where}"
                                 + (f"; did you mean '{shown(there[near[0]])}'?" if near else "; add it, or take the class out"))
        if extra := [its for form, its in there.items() if form not in known]:
            raise InputError(f"{path}: {len(extra)} class folder{'s' if len(extra) > 1 else ''} in {where} without a role: "
                             f"{some(extra)}; name each under seen, validation, unseen or left_out")
    return {name: role for _, (name, role) in sorted(known.items()) if role != "left_out"}


def _by_seed(path: Path, said: Declaration, split: Drawn, folders: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Class, as its folder of sketches is called -> role by the seed, by normal form."""
    if given := [role for role in ROLES if getattr(said, role)]:
        raise InputError(f"{path}: split draws the roles, and {' and '.join(given)} name{'s' if len(given) == 1 else ''} "
                         f"some; keep one of the two")
    out = set(map(normal_form, said.left_out))
    (first, one), (second, other) = folders.items()
    for where, there, lacking in ((first, one, set(one) - set(other) - out), (second, other, set(other) - set(one) - out)):
        if lacking:
            raise InputError(f"{path}: {some([there[form] for form in sorted(lacking)])} in {where} "
                             f"ha{'ve' if len(lacking) > 1 else 's'} no folder in "
                             f"{second if where == first else first}; add it, or name the class under left_out")
    ranked = _ranked(sorted(set(one) - out), split.seed)
    if split.unseen + split.validation + LEAST > len(ranked):
        raise InputError(f"{path}: split: {split.unseen} "
                         f"unseen{f' and {split.validation} validation' if split.validation else ''} classes of {len(ranked)} "
                         f"leave {max(0, len(ranked) - split.unseen - split.validation)} seen ones, and at least {LEAST} are "
                         "needed; ask for fewer")
    roles = dict.fromkeys(ranked, "seen") | dict.fromkeys(ranked[:split.unseen], "unseen") | dict.fromkeys(
        ranked[split.unseen:split.unseen + split.validation], "validation")
    for name in one.values():
        try:
            _one_line(name)
        except ValueError as error:
            raise InputError(f"{path}: sketches: the folder '{shown(name)}' can't be a class: {error}; rename it") from None
    return {one[form]: roles[form] for form in sorted(roles)}


def _ranked(forms: Sequence[str], seed: int) -> list[str]:
    return sorted(forms, key=lambda form: hashlib.sha256(f"{seed}/{form}".encode("utf-8", "surrogateescape")).digest())
