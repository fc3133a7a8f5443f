"""Variants declared outside this project: in a Python file of the user's own, or in an installed package that announces them.

In: a file's path, or the name of an entry point of the group `tcn_zs_sbir.variants`. Out: a checked `VariantTable`. Its source
is a digest of the content, and thereby part of a run's identity. If certain content is expected, it is checked before any of it
is executed.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import sys
import traceback
import types
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from baselines.variant import GUIDE, VariantTable, checked, sourced
from tcn.config import InputError

GROUP = "tcn_zs_sbir.variants"
"""Each entry point of this group names a tuple of `Variant`s; the command line names the entry point."""
KEPT_FILE, KEPT_PACKAGE = "method.py", "method.zip"
"""Names, in a run's folder, of the copy of a user's file and of the archive of a package's Python files."""


def is_file(name: str) -> bool:
    """Whether a name on the command line means a file."""
    return name.endswith(".py") or "/" in name or "\\" in name


def announced() -> dict[str, EntryPoint]:
    """Name -> entry point, of all installed packages. Nothing is imported."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


def read(place: str, taken: Collection[str], known: Mapping[str, VariantTable], expected: str | None = None) -> VariantTable:
    """The table that a file or an entry point declares. If its source is among the `known` ones, it is not executed again.

    InputError if it does not exist, fails when it is executed, or declares something that can't be used. With `expected`,
    InputError also if its content has another source, before any of it is executed.
    """
    if is_file(place):
        return _from_file(Path(place), taken, known, expected)
    if place not in announced():
        raise InputError(f"no installed package announces '{place}' as an entry point of {GROUP}; install it here too")
    return _from_package(announced()[place], taken, known, expected)


def held_by_package(source: str) -> str | None:
    """The name of an installed package's entry point that has this content; None if there is none."""
    for name, entry in announced().items():
        with contextlib.suppress(InputError):  # a damaged package must not hide another one
            if _source(_contents(entry)) == source:
                return name
    return None


def _from_file(path: Path, taken: Collection[str], known: Mapping[str, VariantTable], expected: str | None) -> VariantTable:
    try:
        path = path.expanduser().resolve()
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} can't be read ({getattr(error, 'strerror', None) or error}); give the Python file that "
                         "declares the variants") from error
    source = _source({path.name: content})
    _compare(path.name, source, expected)
    if source in known:
        return replace(known[source], variants=sourced(known[source].variants.values(), source, str(path)))
    # Registered, since dataclasses and pickle look up a class's module by its name.
    module = types.ModuleType(f"own_variants_{source[-16:]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; it is no valid Python") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{place_of(error, (str(path),)) or path}: {_said(error)}; the file has to run as it stands; "
                         f"{GUIDE}") from error
    if not hasattr(module, "VARIANTS"):
        raise InputError(f"{path} declares no VARIANTS; end it with VARIANTS = (Variant(name, title, shows, delta, "
                         f"method=Method(name, build, losses)),); {GUIDE}")
    variants = checked(module.VARIANTS, str(path), taken)
    return VariantTable(source, path.name, sourced(variants, source, str(path)), KEPT_FILE, content, (str(path),))


def _from_package(entry: EntryPoint, taken: Collection[str], known: Mapping[str, VariantTable], expected: str | None
                  ) -> VariantTable:
    package = entry.dist.name if entry.dist else entry.module
    about = f"package {package} {entry.dist.version if entry.dist else ''}".rstrip()
    contents = _contents(entry)
    source = _source(contents)
    _compare(about, source, expected)
    if source in known:
        return replace(known[source], variants=sourced(known[source].variants.values(), source, entry.name))
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:
        raise InputError(f"{about}, which announces '{entry.name}' as {entry.value}, can't be imported: "
                         f"{_said(error)}") from error
    variants = checked(found, f"{about}, {entry.value}", taken)
    alone = len(contents) == 1
    return VariantTable(source, about, sourced(variants, source, entry.name), KEPT_FILE if alone else KEPT_PACKAGE,
                 next(iter(contents.values())) if alone else _zipped(contents), tuple(map(str, _paths(entry).values())))


def _paths(entry: EntryPoint) -> dict[str, Path]:
    """Name -> path of the Python files of the package that holds an entry point. Its variants may depend on each of them."""
    spec = importlib.util.find_spec(entry.module.partition(".")[0])
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        return {path.relative_to(Path(root).parent).as_posix(): path for root in spec.submodule_search_locations
                for path in sorted(Path(root).rglob("*.py"))}
    return {Path(spec.origin).name: Path(spec.origin)} if spec.origin else {}


def _contents(entry: EntryPoint) -> dict[str, bytes]:
    try:
        found = {name: path.read_bytes() for name, path in _paths(entry).items()}
    except OSError as error:
        raise InputError(f"the files of the entry point '{entry.name}' can't be read ({error}); install its package "
                         "again") from error
    if not found:
        raise InputError(f"the entry point '{entry.name}' names {entry.module}, which is not there; install its package again")
    return found


def _source(contents: Mapping[str, bytes]) -> str:
    """The `Config.method_source` of these files. For a single file it is the file's SHA-256, which does not depend on its
    name."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if len(digests) == 1:
        return f"file:{next(iter(digests.values()))}"
    lines = "".join(f"{name}\n{digest}\n" for name, digest in sorted(digests.items()))
    return "file:" + hashlib.sha256(lines.encode()).hexdigest()


def _compare(about: str, source: str, expected: str | None) -> None:
    if expected not in (None, source):
        raise InputError(f"{about} is not what the run was planned with: SHA-256 {source[5:13]}… here, {str(expected)[5:13]}… "
                         "there; it was changed since, or this machine has another; a changed file is a run of its own: give "
                         "the command again")


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    """A ZIP archive of these files; the same contents give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's date is 1980
    return buffer.getvalue()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300].rstrip(": ")


def place_of(error: BaseException, files: Collection[str]) -> str:
    """`FILE, line N, in FUNCTION` of the innermost frame of an error's traceback in one of these files; empty if there is
    none."""
    frames: list[Any] = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename}, line {last.lineno}" + ("" if last.name == "<module>" else f", in {last.name}")


def blamed(error: BaseException, files: Collection[str]) -> str:
    """The message of an error, and the place in these files where it arose."""
    place = place_of(error, files)
    return f"{place}: {_said(error)}" if place else _said(error)
