"""`python -m tcn data check`: is what lies on disk what was published?

In: a data root and a cache. Out: per data set and split a `Report` (counts, duplicates, damage, leaks between training and
test), and a manifest in the cache that a run's provenance can cite. The data root is only read. Paper: data sets.
"""
from __future__ import annotations

import itertools
import json
import os
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tcn.config import InputError
from tcn.data import datasets
from tcn.data.contents import TRAITS, Content, content_digest, read_contents
from tcn.data.datasets import SPECS, Listings, Split, Survey

OVERLAP = Path(datasets.__file__).parent / "splits" / "imagenet_overlap.yaml"
WORDS = ("Word vectors (not checked here): word2vec, GoogleNews-vectors-negative300.bin, from "
         "code.google.com/archive/p/word2vec; or GloVe text files from nlp.stanford.edu/projects/glove.")
_EXAMPLES = 5


@dataclass
class Report:
    """What was found for one split. Paths are relative to `where`; None stands for what was not looked at."""

    dataset: str
    split: str
    title: str
    state: str = "missing"
    """`whole`, `problems`, or `missing`: not there at all."""
    where: str | None = None
    layout: dict[str, str] = field(default_factory=dict)
    """Folder as published -> folder found."""
    lists: dict[str, Any] | None = None
    """`path`, `used` and `absent` list files; None where the folders alone were gone by."""
    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """List -> `entries`, `distinct` (class, file name), `expected`, `expected_distinct`."""
    totals: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """`sketches`, `photos` -> `files` on disk and `expected`."""
    duplicates: dict[str, Any] = field(default_factory=dict)
    """`by_name`: pictures in both photo folders; `by_name_other_bytes`: of these, with other contents; `by_content`:
    further files with the bytes of another; `by_content_across_classes`; `examples`."""
    overlaps: list[dict[str, Any]] = field(default_factory=list)
    """`lists` (two), `by` (path or content), `count`, `examples`."""
    unreadable: dict[str, Any] | None = None
    """`count` and `examples`."""
    hollow: dict[str, Any] | None = None
    """Files of 0 bytes: `count` and `examples`; the same for `stray`, files that are no image of a class."""
    stray: dict[str, Any] | None = None
    pictures: dict[str, dict[str, Any]] | None = None
    """What readers treat differently (`tcn.data.contents.TRAITS`) -> `count` and `examples`; only what is there."""
    imagenet: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """`inside`, `near`: unseen class -> ImageNet categories, by our reading."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    data_digest: str | None = None
    split_digest: str | None = None
    content_digest: str | None = None
    manifest: str | None = None


# --- one split --------------------------------------------------------------------------------------------------------

def check(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path, lists: Path | str | None = "auto",
          fast: bool = False, progress: bool = True, contents: dict[str, Content] | None = None,
          listings: Listings | None = None) -> Report:
    """Check one split that is there (`datasets.available`), and write its manifest into `cache`.

    contents, listings: filled by the first check of a data set and used by further ones of other splits of it. `fast` reads
    no file: no content digest, no duplicates by content, no decoding. Raises InputError where the data set can't be listed.
    """
    spec, split = datasets.spec(dataset, split)
    report = Report(dataset, split, spec.title, source=spec.origin)
    options = {"data_root": data_root, "cache": cache, "progress": progress, "listings": {} if listings is None else listings}
    try:
        found = datasets.survey(dataset, split, lists=lists, **options)
    except InputError as error:
        if lists in (None, "none") or not spec.list_folders:
            raise
        found = datasets.survey(dataset, split, lists=None, **options)  # damaged lists must not hide the rest
        report.problems.append(str(error))
    report.where = str(found.root)
    report.layout = dict(found.layout)
    if found.listing is not None:
        report.lists = {"path": str(found.listing.path), "used": sorted(found.listing.used.values()),
                        "absent": sorted(found.listing.absent.values())}
    report.data_digest, report.split_digest = found.split.data_digest, found.split.split_digest
    report.problems += found.problems
    report.notes += found.notes
    report.hollow, report.stray = ({"count": len(some), "examples": list(some[:_EXAMPLES])}
                                   for some in (found.hollow, found.stray))
    _count(found, report)
    read: Mapping[str, Content] | None = None
    if not fast:
        contents = {} if contents is None else contents
        if contents.keys() != found.files.keys():
            contents.clear()
            contents.update(read_contents(found.root, found.files, spec.title, progress))
        read = contents
        report.content_digest = content_digest(read)
        _damage(found, read, report)
    _duplicates(found, read, report)
    _overlaps(found, read, report)
    report.imagenet = imagenet_overlap(dataset, split)
    report.state = "problems" if report.problems else "whole"
    try:
        report.manifest = str(_write_manifest(report, cache))
    except OSError as error:
        report.problems.append(f"the manifest could not be written in {cache} ({error.strerror}); pass another --cache")
        report.state = "problems"
    return report


def _count(found: Survey, report: Report) -> None:
    expected = found.plan.expected()
    for name, files in found.split.lists().items():
        if not len(files) and name not in expected:
            continue
        distinct = len({path[path.rindex("/", 0, path.rindex("/")):] for path in files.paths})
        report.counts[name] = {"entries": len(files), "distinct": distinct, "expected": expected.get(name),
                               "expected_distinct": found.plan.distinct.get(name)}
        its = report.counts[name]
        if its["expected"] not in (None, len(files)):
            report.problems.append(f"{name}: {len(files):,} entries, {its['expected']:,} expected")
        if its["expected_distinct"] not in (None, distinct):  # a file renamed in one folder is no damage
            report.notes.append(f"{name}: {distinct:,} distinct files, {its['expected_distinct']:,} expected")
    in_folder = {tree.folder: sum(map(len, tree.files.values())) for tree in found.trees}
    for kind, folders in (("sketches", found.spec.sketch_folders), ("photos", found.spec.photo_folders)):
        there = sum(in_folder[folder] for folder in folders)
        wanted = found.plan.totals.get(kind)
        report.totals[kind] = {"files": there, "expected": wanted}
        if wanted is None or there == wanted:
            continue
        if found.plan.totals_rounded and abs(there - wanted) <= wanted // 100:
            continue
        if there in found.plan.totals_also.get(kind, ()):
            report.notes.append(f"{kind}: {there:,} is also the count of the archive in circulation, whole as it is")
        else:
            report.problems.append(f"{kind}: {there:,} files in all, {'about ' if found.plan.totals_rounded else ''}"
                                   f"{wanted:,} expected")


def _damage(found: Survey, contents: Mapping[str, Content], report: Report) -> None:
    broken = [f"{found.files[name][0]} ({content.error})" for name, content in sorted(contents.items()) if content.error]
    report.unreadable = {"count": len(broken), "examples": broken[:4 * _EXAMPLES]}
    odd: dict[str, list[str]] = {trait: [] for trait in TRAITS}
    for name, content in sorted(contents.items()):
        for trait in content.traits:
            # what is drawn on this machine is drawn at the size that was asked for
            if trait != "size" or not found.spec.builder:
                odd[trait].append(found.files[name][0])
    report.pictures = {trait: {"count": len(some), "examples": some[:_EXAMPLES]} for trait, some in odd.items() if some}
    if broken:
        report.problems.append(f"{len(broken):,} unreadable image{'s' if len(broken) > 1 else ''}: "
                               f"{'; '.join(broken[:_EXAMPLES])}{' ...' if len(broken) > _EXAMPLES else ''}; replace with "
                               f"intact copies")


def _picture(name: str) -> tuple[str, str, str]:
    """The folder a file lies in; its class and stem, which are the picture's in either photo folder."""
    folder, its, file = name.rsplit("/", 2)
    return folder, its, file[:file.rindex(".")]  # every image's name has an ending


def _duplicates(found: Survey, contents: Mapping[str, Content] | None, report: Report) -> None:
    """The same picture more than once: by name in both photo folders, and by bytes under different names."""
    by_name: dict[tuple[str, str], list[str]] = defaultdict(list)
    if len(found.spec.photo_folders) > 1:
        for tree in found.trees:
            for its, images in tree.files.items() if tree.folder in found.spec.photo_folders else ():
                for file, _ in images:
                    by_name[its, file[:file.rindex(".")]].append(f"{tree.folder}/{its}/{file}")
    # two folders: a.jpg and a.png of one folder are two files, not one picture twice
    twice = [names for names in by_name.values() if len(names) > 1 and len({_picture(name)[0] for name in names}) > 1]
    report.duplicates = {"by_name": len(twice), "by_name_other_bytes": None, "by_content": None,
                         "by_content_across_classes": None, "examples": []}
    if contents is None:
        return
    report.duplicates["by_name_other_bytes"] = sum(len({contents[name].sha256 for name in names}) > 1 for names in twice)
    by_bytes: dict[bytes, list[str]] = defaultdict(list)
    for name in sorted(found.files):
        if found.files[name][1]:  # files of 0 bytes are named as such
            by_bytes[contents[name].sha256].append(name)
    pictures = [({_picture(name)[1:]: name for name in reversed(names)}, names) for names in by_bytes.values() if len(names) > 1]
    copies = [its for its, _ in pictures if len(its) > 1]
    report.duplicates |= {
        "by_content": sum(len(its) - 1 for its in copies),
        "by_content_across_classes": sum(len({name for name, _ in its}) > 1 for its in copies),
        "examples": [" = ".join(found.files[name][0] for name in sorted(its.values())[:3]) for its in copies[:_EXAMPLES]]}


def _overlaps(found: Survey, contents: Mapping[str, Content] | None, report: Report) -> None:
    """Files or pictures that two lists share though they must be apart: training, held out, validation, test."""
    key_of = {} if contents is None else {path: name for name, (path, _) in found.files.items()}
    lists = found.split.lists()
    for kind in (("train_sketches", "heldout_sketches", "validation_sketches", "query"),
                 ("train_photos", "validation_photos", "gallery")):
        for one, other in itertools.combinations(kind, 2):
            shared = sorted(set(lists[one].paths) & set(lists[other].paths))
            _add_overlap(report, one, other, "path", shared, shared)
            if contents is None:
                continue
            first, second = ({contents[key_of[path]].sha256: path for path in reversed(lists[name].paths)
                              if found.files[key_of[path]][1]} for name in (one, other))
            pairs = sorted(f"{first[its]} = {second[its]}" for its in first.keys() & second.keys()
                           if first[its] != second[its])
            _add_overlap(report, one, other, "content", pairs, pairs)


def _add_overlap(report: Report, one: str, other: str, by: str, shared: Sequence[str], examples: Sequence[str]) -> None:
    if not shared:
        return
    report.overlaps.append({"lists": [one, other], "by": by, "count": len(shared), "examples": list(examples[:_EXAMPLES])})
    what = "the same file" if by == "path" else "the same picture, byte for byte"
    report.problems.append(f"leak: {one} and {other} share {what} {len(shared):,} time{'s' if len(shared) > 1 else ''}: "
                           f"{'; '.join(examples[:3])}{' ...' if len(shared) > 3 else ''}")


def imagenet_overlap(dataset: str, split: str) -> dict[str, dict[str, list[str]]]:
    """Unseen classes that ImageNet's 1,000 categories hold (`inside`) or touch (`near`): our reading, a committed table."""
    table = yaml.safe_load(OVERLAP.read_text(encoding="utf-8"))
    key = f"{dataset}-{split}" if f"{dataset}-{split}" in table["inside"] else dataset
    inside = table["inside"].get(key, {})
    return {"inside": {name: its for name, its in inside.items() if its},
            "near": {name: table["near"][name] for name in inside if name in table["near"]}}


# --- manifest -----------------------------------------------------------------------------------------------------------

def _manifest_path(dataset: str, split: str, data_digest: str, cache: Path) -> Path:
    return Path(cache) / "manifests" / f"{dataset}-{split}-{data_digest[:16]}.json"


def _write_manifest(report: Report, cache: Path) -> Path:
    """Write it in one step; a full check's manifest is not replaced by a fast one of the same lists."""
    assert report.data_digest is not None
    path = _manifest_path(report.dataset, report.split, report.data_digest, cache)
    if report.content_digest is None and path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if before.get("content_digest") and before.get("split_digest") == report.split_digest:
            report.notes.append(f"the manifest of the full check of {before['checked']} stays")
            return path
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({
        "dataset": report.dataset, "split": report.split, "data_digest": report.data_digest,
        "split_digest": report.split_digest, "content_digest": report.content_digest, "counts": report.counts,
        "totals": report.totals, "duplicates": report.duplicates, "overlaps": report.overlaps,
        "unreadable": report.unreadable, "pictures": report.pictures, "problems": report.problems, "notes": report.notes,
        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, indent=1)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def manifest_for(split: Split, cache: Path) -> dict[str, Any] | None:
    """The manifest that a check left in `cache` for these very files (by `data_digest`), or None.

    Its `split_digest` is that of the lists checked then; the files are the same, the lists need not be. Raises InputError
    where the file is damaged.
    """
    path = _manifest_path(split.dataset, split.name, split.data_digest, cache)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"manifest {path} can't be read ({error}); delete it, or check again with "
                         f"`python -m tcn data check`") from error
    if not isinstance(found, dict) or found.get("data_digest") != split.data_digest:
        return None
    return found


# --- all of them --------------------------------------------------------------------------------------------------------

def check_all(names: Sequence[str] | None, *, data_root: Path | None, cache: Path, lists: Path | str | None = "auto",
              fast: bool = False, progress: bool = True) -> tuple[list[Report], int]:
    """A report per split of the data sets in `names` (None: all), and the exit status.

    Status 0: all that was asked for is whole. 1: problems; or a data set asked for by name, or every one, is missing.
    Raises InputError for a bad name, data root or `lists`, and where there is no data root to look in.
    """
    wanted = list(dict.fromkeys(SPECS if names is None else names))
    _, missing = datasets.available(data_root, wanted)
    if lists not in (None, "none", "auto") and not Path(lists).expanduser().is_dir():
        raise InputError(f"--lists {lists} is not a folder; pass a folder of list files, or 'none'")
    built_here = {name: builder for name in wanted if (builder := SPECS[name].builder)}
    for name, builder in built_here.items():
        if builder.find_built(cache) is None:
            missing[name] = f"{name} is not built in {cache}"
    rootless = data_root is None and not os.environ.get(datasets.DATA_ROOT_VARIABLE)
    if rootless and set(wanted) - built_here.keys() and (names is not None or built_here.keys() & missing.keys()):
        raise InputError(next(reason for name, reason in missing.items() if name not in built_here))
    reports: list[Report] = []
    listed = any(SPECS[name].list_folders for name in wanted)
    for name in wanted:
        spec = SPECS[name]
        contents: dict[str, Content] = {}
        listings: Listings = {}
        for split in spec.splits:
            if name not in missing:
                try:
                    reports.append(check(name, split, data_root=data_root, cache=cache, fast=fast, progress=progress,
                                         lists=lists if spec.list_folders or not listed else "auto", contents=contents,
                                         listings=listings))
                except InputError as error:
                    reports.append(Report(name, split, spec.title, "problems", problems=[str(error)],
                                          source=spec.origin))
                continue
            report = Report(name, split, spec.title, notes=[missing[name]], source=spec.origin)
            if names is not None or datasets.folders_there(name, data_root):
                report.state, report.problems, report.notes = "problems", [missing[name]], []
            reports.append(report)
    bad = any(report.state == "problems" for report in reports)
    return reports, int(bad or all(report.state == "missing" for report in reports))


def render(reports: Sequence[Report]) -> Iterator[str]:
    """The reports as text, a line at a time."""
    # the splits of a data set that is not there miss the same: said once
    for _, group in itertools.groupby(reports, lambda one: (one.dataset, one.where and one.split, one.problems, one.notes)):
        report, *others = group
        splits = ", ".join(one.split for one in (report, *others))
        yield f"{report.title}, split{'s' if others else ''} {splits}: {report.state}"
        if report.where:
            yield f"  in {report.where}"
            yield from (f"  layout  {there}" + (f"  (published as {name})" if there != name else "")
                        for name, there in report.layout.items())
        if report.lists:
            yield f"  lists   {report.lists['path']}"
        if report.counts:
            yield f"  {'list':<20}{'entries':>10}{'expected':>10}{'distinct':>10}{'expected':>10}"
            for name, its in report.counts.items():
                yield f"  {name:<20}" + "".join(f"{_number(its[key]):>10}" for key in
                                                ("entries", "expected", "distinct", "expected_distinct"))
            for kind, its in report.totals.items():
                yield f"  {kind + ' on disk':<20}{_number(its['files']):>10}{_number(its['expected']):>10}"
        if report.duplicates:
            its = report.duplicates
            if its["by_name"]:
                yield (f"  duplicates by name: {its['by_name']:,} photos lie in both photo folders"
                       + ("" if its["by_name_other_bytes"] is None else f", {its['by_name_other_bytes']:,} with other bytes"))
            if its["by_content"]:
                yield (f"  duplicates by content: {its['by_content']:,} files have the bytes of one of another name "
                       f"({its['by_content_across_classes']:,} times across classes)")
            yield from (f"    {example}" for example in its["examples"])
        if report.where and report.unreadable is None:
            yield "  not read (--fast): unreadable images, duplicates and leaks by content"
        for trait, its in (report.pictures or {}).items():
            count = f"{its['count']:,}"
            yield from _wrapped(f"pictures {TRAITS[trait].format(count)}; such as {its['examples'][0]}", "  ")
        inside = report.imagenet.get("inside", {})
        if inside:
            whole = "; ".join(f"{name} ({', '.join(its)})" for name, its in inside.items())
            yield from _wrapped(f"unseen classes inside ImageNet's 1,000 categories by our reading, {len(inside)}: {whole}", "  ")
        for text, lines in (("problem", report.problems), ("note", report.notes)):
            for line in lines:
                yield from _wrapped(f"{text}: {line}", "  ")
        if report.state != "whole" and report.source:
            yield from _wrapped(f"where the field gets it: {report.source}", "  ")
        if report.manifest:
            yield f"  manifest {report.manifest}"
        yield ""
    if any(SPECS[report.dataset].words is None for report in reports):
        yield WORDS
    states = [report.state for report in reports]
    words = {"whole": "whole", "problems": "with problems", "missing": "missing"}
    yield "splits: " + ", ".join(f"{states.count(state)} {text}" for state, text in words.items() if state in states)


def as_json(reports: Sequence[Report], status: int) -> str:
    """One JSON object: `status`, `words`, and `reports` with the fields of `Report`."""
    return json.dumps({"status": status, "words": WORDS, "reports": [asdict(report) for report in reports]}, indent=1)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
                         break_on_hyphens=False)
