"""Bundles: finished runs in one file, as somebody else may have sent it. `tcn bundle` writes them (benchmarks/bundle.py).

In: a zip file that nobody vouches for. Out: its runs as folders, each with what is wrong with its files; a suite that shows them
beside the runs of a results folder. Sizes are bounded before anything is unpacked, and only files of known names are, each below
the folder of its run.
"""
from __future__ import annotations

import dataclasses
import hashlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.read.comparable import one_protocol_version, one_setting_per_row
from reports.read.files import FREE_BYTES, MOST_RATIO, ReportError, read_json, shown
from reports.read.runs import FOLDER_NAME, FinishedRun, read_finished
from reports.read.schema import Count, List, Name, Record, parse
from reports.read.suite import NoResults, Suite
from tcn.files import foreign
from tcn.files.checksums import SUMS

FORMAT = 1
MANIFEST = "bundle.json"
NEEDED = ("config.json", "status.json", "provenance.json", "metrics.csv")
FILES = (*NEEDED, "per_query.npz", "per_query.csv", SUMS, "features.npz")
"""What a bundle holds of a run, where the run has it; features on request."""
MEMBER = re.compile(rf"runs/([A-Za-z0-9][\w.+-]{{0,199}})/({'|'.join(map(re.escape, FILES))})", re.ASCII)
MOST_MEMBERS = 10_000
SENT = "sent:"
"""Begins the variant of a run that came in a bundle, `sent:BUNDLE:VARIANT`: it shares a row with no run of the results folder."""


class Listed(Record):
    """A run in bundle.json."""

    folder: Name
    files: dict[str, str] = {}
    """Name -> SHA-256 in hex."""


class Manifest(Record):
    """bundle.json; `runs` holds the fields of a Listed each."""

    format: Count
    runs: List = []


@dataclass(frozen=True)
class SentRun:
    """A run of a bundle, unpacked."""

    bundle: Path
    folder: Path
    problems: tuple[str, ...]
    """Its files that are missing, or not as bundle.json lists them."""


def unpack(path: Path, into: Path) -> list[SentRun]:
    """Unpack a bundle below the new folder `into`. Raises ReportError, naming the file, where it is no bundle, holds names or
    sizes that none has, or can't be read."""
    try:
        if path.exists() and not path.is_file():
            raise ReportError("it is no file")
        with zipfile.ZipFile(path) as archive:
            listed = _manifest(archive, _members(archive, path.stat().st_size), into)
            return [SentRun(path, into / "runs" / run.folder, tuple(_unpacked(archive, run, into))) for run in listed]
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file") from None
    except ReportError as error:
        raise ReportError(f"{path}: no bundle that can be used: {error}") from None
    except Exception as error:  # zipfile and zlib raise many kinds for a damaged file
        raise ReportError(f"{path}: no bundle that can be read, which is a zip file that tcn bundle wrote "
                          f"({type(error).__name__}: {shown(str(error), 200)}){foreign.of(path)}; have it sent again") from None


def _members(archive: zipfile.ZipFile, size: int) -> list[str]:
    """The names of all members, within bounds. size: of the whole file, in bytes."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    total, most = sum(entry.file_size for entry in entries), max(FREE_BYTES, MOST_RATIO * size)
    if len(entries) > MOST_MEMBERS or total > most:
        raise ReportError(f"{len(entries):,} files of {total:,} bytes in all; at most {MOST_MEMBERS:,} files and {most:,} bytes "
                          "are unpacked")
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ReportError("a name stands there twice")
    if odd := [name for name in names if name != MANIFEST and not MEMBER.fullmatch(name)]:
        raise ReportError(f"{shown(odd[0])} is no file of a run; a bundle holds runs/RUN/{{{','.join(FILES)}}} and "
                          f"{MANIFEST} alone")
    if MANIFEST not in names:
        raise ReportError(f"it holds no {MANIFEST}; `tcn bundle` writes one")
    return names


def _manifest(archive: zipfile.ZipFile, names: Sequence[str], into: Path) -> list[Listed]:
    _copy(archive, MANIFEST, into / MANIFEST)
    found = parse(Manifest, read_json(into / MANIFEST), MANIFEST)
    if found.format != FORMAT:
        raise ReportError(f"{MANIFEST} is of format {found.format}, this version of the project reads {FORMAT}")
    runs = [parse(Listed, entry, f"{MANIFEST}, run {number}") for number, entry in enumerate(found.runs, 1)]
    listed = [f"runs/{run.folder}/{name}" for run in runs for name in run.files]
    if odd := [name for name in listed if not MEMBER.fullmatch(name)] or sorted(set(names) - {MANIFEST} - set(listed)):
        raise ReportError(f"{shown(odd[0])} is not both a file of a run and listed in {MANIFEST}")
    if not runs or any(not FOLDER_NAME.match(run.folder) for run in runs) or len({run.folder for run in runs}) < len(runs):
        raise ReportError(f"{MANIFEST} lists no run, one twice, or one whose folder is not called as runs are")
    return runs


def _unpacked(archive: zipfile.ZipFile, run: Listed, into: Path) -> list[str]:
    """Write the files of a run; what is wrong with them."""
    there, problems = set(archive.namelist()), [f"{name} is missing" for name in NEEDED if name not in run.files]
    for name, wanted in run.files.items():
        member = f"runs/{run.folder}/{name}"
        if member not in there:
            problems.append(f"{name} is missing")
        elif (found := _copy(archive, member, into / member)) != wanted:
            problems.append(f"{name} is not as it was bundled (SHA-256 {found[:8]}, {MANIFEST} says {shown(wanted[:8])}): it was "
                            "damaged or edited")
    return problems


def _copy(archive: zipfile.ZipFile, member: str, target: Path) -> str:
    """Unpack one member, piece by piece and no longer than its entry says; its SHA-256 in hex."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), archive.getinfo(member).file_size
    with archive.open(member) as source, target.open("xb") as file:
        while piece := source.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise ReportError(f"{member} is longer than its entry says")
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def bundles_in(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and those that end in .zip in the folders that are. ReportError for a folder without any."""
    found: list[Path] = []
    for path in given:
        inside = sorted(path.glob("*.zip")) if path.is_dir() else [path]
        if not inside:
            raise ReportError(f"{path}: no bundle in this folder (no file that ends in .zip)")
        found += inside
    return found


def with_bundles(suite: Suite | None, given: Sequence[Path], into: Path) -> Suite:
    """The suite, or an empty one, with the runs of bundles as rows of their own. Unpacks below `into`,
    which the suite needs to last.

    A run that the suite has, or an earlier bundle, is named and left out, as is all that can't be used. Raises ReportError where
    a folder holds no bundle, and NoResults where nothing remains to be shown.
    """
    left_out: list[tuple[str, str]] = []
    runs: list[FinishedRun] = []
    own = suite.runs if suite else []
    known = {key: "a run of your own" for run in own for key in _keys(run)}
    for number, path in enumerate(bundles_in(given)):
        try:
            sent = unpack(path, into / str(number))
        except ReportError as error:
            left_out.append((path.name, str(error)))
            continue
        for each in sent:
            where = f"{path.name}: {each.folder.name}"
            try:
                run = _read(each)
                if there := next((known[key] for key in _keys(run) if key in known), None):
                    raise ReportError(f"{there} has the same identity, and is shown")
            except ReportError as error:
                left_out.append((where, str(error)))
                continue
            known |= dict.fromkeys(_keys(run), f"a run in {path.name}")
            runs.append(dataclasses.replace(run, sent=path, variant=f"{SENT}{path.stem.replace(':', '_')}:{run.variant}"))
    runs = one_protocol_version(runs, left_out, own[0].provenance.protocol_version if own else None)
    runs = one_setting_per_row(runs, {}, left_out)
    if not own and not runs:
        raise NoResults("no usable run in these bundles: " + "; ".join(f"{name}: {reason}" for name, reason in left_out[:3]))
    made = suite or Suite(into, "bundles", False, "", "", {}, [], [], [], {})
    planned = {row: set(seeds) for row, seeds in made.planned.items()}
    for run in runs:
        planned.setdefault((run.task, run.variant), set()).add(run.seed)
    fresh: dict[str, Any] = {name: {} for name in ("memory", "_index", "_scores", "_ledgers", "_classes")}
    return dataclasses.replace(made, runs=[*own, *runs], left_out=[*made.left_out, *left_out], planned=planned, **fresh)


def _read(sent: SentRun) -> FinishedRun:
    if sent.problems:
        raise ReportError("; ".join(sent.problems))
    return read_finished(sent.folder)


def _keys(run: FinishedRun) -> list[str]:
    """What makes two runs the same."""
    return [key for key in (run.name, run.provenance.identity) if key]
