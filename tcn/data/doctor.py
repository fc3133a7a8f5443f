"""`python -m tcn data check`: is what lies on disk what was published?

In: a data root and a cache. Out: for each data set and split a `Report` (counts, duplicates, damage, leaks between training and
test), and a manifest in the cache that a run's provenance can cite. The data root is only read.
"""
from __future__ import annotations

import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tcn.config import GENERALISED, InputError
from tcn.data import locate, specs, splits
from tcn.data.contents import TRAITS, Content, content_digest, read_contents
from tcn.data.report import Report
from tcn.data.scan import Listings
from tcn.data.specs import SPECS, SPLITS_FOLDER
from tcn.data.splits import Split, Survey
from tcn.data.words import load_words

OVERLAP = SPLITS_FOLDER / "imagenet_overlap.yaml"
_EXAMPLES = 5


# --- one split --------------------------------------------------------------------------------------------------------

def check(dataset: str, split: str | None = None, *, data_root: Path | None, cache: Path, lists: Path | str | None = "auto",
          words: Path | None = None, fast: bool = False, progress: bool = True, contents: dict[str, Content] | None = None,
          listings: Listings | None = None) -> Report:
    """Check one split of a data set that is there (`locate.available`), and write its manifest into `cache`.

    contents, listings: filled by the first check of a data set and used by the checks of its other splits. `fast` reads
    no picture: no content digest, no duplicates by content, no decoding. `words` is a file of word vectors, by default the
    data set's own, if it has one. Raises InputError where the data set cannot be listed.
    """
    spec, split = specs.spec(dataset, split)
    report = Report(dataset, split, spec.title, source=spec.origin)
    listings = {} if listings is None else listings

    def surveyed(by: Path | str | None) -> Survey:
        return splits.survey(dataset, split, lists=by, data_root=data_root, cache=cache, progress=progress, listings=listings)

    try:
        found = surveyed(lists)
    except InputError as error:
        if lists in (None, "none") or not spec.list_folders:
            raise
        found = surveyed(None)  # damaged lists must not hide the rest
        report.problems.append(str(error))
    report.where = str(found.root)
    report.layout = {there if spec.root else name: there for name, there in found.layout.items()}
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
    _words(found, words or spec.words, report)
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


def _words(found: Survey, source: Path | None, report: Report) -> None:
    """Whether every seen class has a word vector, as training needs, and which classes share one."""
    if source is None:
        return
    try:
        words = load_words(source, found.plan.of("seen"), unit=False)
    except InputError as error:
        report.problems.append(str(error))
        return
    report.words = {"description": words.description, "alike": [list(group) for group in words.alike]}
    if words.note:
        report.notes.append(f"{Path(source).name}: {words.note}")


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
    """Write the manifest in one step. A fast check does not replace the manifest of a full check of the same lists."""
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
    """The manifest that a check left in `cache` for the same files (by `data_digest`), or None.

    Its `split_digest` is that of the lists checked then, which may differ from this split's. Raises InputError
    where the manifest is damaged.
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

def _wanted(names: Sequence[str] | None, data_root: Path | None, sample: int | None) -> list[str]:
    """The data sets to check, parts among them, each once."""
    asked = list(dict.fromkeys(SPECS if names is None else [name.removesuffix(GENERALISED) for name in names]))
    if sample is not None:
        return [specs.sample_name(name, sample) for name in asked if names is not None or SPECS[name].builder is None]
    return [locate.part_there(name, data_root) or name for name in asked] if names is None else asked


def check_all(names: Sequence[str] | None, *, data_root: Path | None, cache: Path, lists: Path | str | None = "auto",
              words: Path | None = None, fast: bool = False, progress: bool = True, sample: int | None = None
              ) -> tuple[list[Report], int]:
    """A report for each split of the data sets in `names` (None: all), and the exit status. `sample`: of the first so many
    sketches and photos of each class. Where only the original photos of Sketchy are there and nothing was named, the part that
    they make up is checked: Sketchy without its extension, or its sample of as many photos as a class has.

    Status 0: everything asked for is whole. Status 1: there are problems, or a data set asked for by name, or every one, is
    missing. Raises InputError for a bad name, data root, `lists` or `words`, and where no data root is given.
    """
    wanted = _wanted(names, data_root, sample)
    _, missing = locate.available(data_root, wanted)
    if lists not in (None, "none", "auto") and not Path(lists).expanduser().is_dir():
        raise InputError(f"--lists {lists} is not a folder; pass a folder of list files, or 'none'")
    if words is not None and not words.is_file():
        raise InputError(f"--words {words} is not a file; pass a file of word vectors")
    built_here = {name: builder for name in wanted if (builder := specs.spec(name)[0].builder)}
    for name, builder in built_here.items():
        if builder.find_built(cache) is None:
            missing[name] = f"{name} is not built in {cache}"
    rootless = data_root is None and not os.environ.get(locate.DATA_ROOT_VARIABLE)
    rooted = [name for name in wanted if name not in built_here and specs.spec(name)[0].root is None]
    if rootless and rooted and (names is not None or built_here.keys() & missing.keys()):
        raise InputError(missing[rooted[0]])
    reports: list[Report] = []
    listed = any(specs.spec(name)[0].list_folders for name in wanted)
    for name in wanted:
        spec = specs.spec(name)[0]
        contents: dict[str, Content] = {}
        listings: Listings = {}
        for split in spec.splits:
            if name not in missing:
                try:
                    reports.append(check(name, split, data_root=data_root, cache=cache, words=words, fast=fast, progress=progress,
                                         lists=lists if spec.list_folders or not listed else "auto", contents=contents,
                                         listings=listings))
                except InputError as error:
                    reports.append(Report(name, split, spec.title, "problems", problems=[str(error)],
                                          source=spec.origin))
                continue
            report = Report(name, split, spec.title, notes=[missing[name]], source=spec.origin)
            if names is not None or locate.folders_there(name, data_root):
                report.state, report.problems, report.notes = "problems", [missing[name]], []
            reports.append(report)
    bad = any(report.state == "problems" for report in reports)
    return reports, int(bad or all(report.state == "missing" for report in reports))
