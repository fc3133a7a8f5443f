"""What the check of a data set found, as text and as JSON.

In: the findings of `tcn.data.doctor`, one `Report` for each split. Out: lines for people, and one JSON object for programs.
"""
from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tcn.data.contents import TRAITS
from tcn.data.specs import spec

WORDS = ("Word vectors (checked with --words FILE): word2vec, GoogleNews-vectors-negative300.bin, from "
         "code.google.com/archive/p/word2vec; or GloVe text files from nlp.stanford.edu/projects/glove.")


@dataclass
class Report:
    """What was found for one split. Paths are relative to `where`. None: not looked at."""

    dataset: str
    split: str
    title: str
    state: str = "missing"
    """`whole`, `problems`, or `missing`: not there at all."""
    where: str | None = None
    layout: dict[str, str] = field(default_factory=dict)
    """Folder as published -> folder found."""
    lists: dict[str, Any] | None = None
    """`path`, `used` and `absent` list files. None where the split is made from the folders."""
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
    """Files of 0 bytes: `count` and `examples`. `stray` gives the same for files that are not an image of a class."""
    stray: dict[str, Any] | None = None
    pictures: dict[str, dict[str, Any]] | None = None
    """Property that readers treat differently (`tcn.data.contents.TRAITS`) -> `count` and `examples`; found ones only."""
    imagenet: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """`inside`, `near`: unseen class -> ImageNet categories, by our reading."""
    words: dict[str, Any] | None = None
    """Word vectors of the seen classes: `description`, and `alike`, the groups of classes that share one vector. None where
    there are none to check."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    data_digest: str | None = None
    split_digest: str | None = None
    content_digest: str | None = None
    manifest: str | None = None


def render(reports: Sequence[Report]) -> Iterator[str]:
    """The reports as text, a line at a time."""
    # the splits of an absent data set miss the same files, which is said once
    for _, group in itertools.groupby(reports, lambda one: (one.dataset, one.where and one.split, one.problems, one.notes)):
        report, *others = group
        splits = ", ".join(one.split for one in (report, *others))
        yield f"{report.title}, split{'s' if others else ''} {splits}: {report.state}"
        yield from _place_and_counts(report)
        yield from _pictures(report)
        if report.words:
            yield from _wrapped(f"words   {report.words['description']}", "  ")
        for text, lines in (("problem", report.problems), ("note", report.notes)):
            for line in lines:
                yield from _wrapped(f"{text}: {line}", "  ")
        if report.state != "whole" and report.source:
            yield from _wrapped(f"where the field gets it: {report.source}", "  ")
        if report.manifest:
            yield f"  manifest {report.manifest}"
        yield ""
    if any(spec(report.dataset)[0].words is None and report.words is None for report in reports):
        yield WORDS
    states = [report.state for report in reports]
    words = {"whole": "whole", "problems": "with problems", "missing": "missing"}
    yield "splits: " + ", ".join(f"{states.count(state)} {text}" for state, text in words.items() if state in states)


def _place_and_counts(report: Report) -> Iterator[str]:
    if report.where:
        yield f"  in {report.where}"
        yield from (f"  layout  {there}" + (f"  (published as {name})" if there != name else "")
                    for name, there in report.layout.items())
    if report.lists:
        yield f"  lists   {report.lists['path']}"
    if report.counts:
        yield f"  {'list':<20}{'entries':>10}{'expected':>10}{'distinct':>10}{'expected':>10}"
        for name, counts in report.counts.items():
            yield f"  {name:<20}" + "".join(f"{_number(counts[key]):>10}" for key in
                                            ("entries", "expected", "distinct", "expected_distinct"))
        for kind, totals in report.totals.items():
            yield f"  {kind + ' on disk':<20}{_number(totals['files']):>10}{_number(totals['expected']):>10}"


def _pictures(report: Report) -> Iterator[str]:
    """Duplicates, pictures that readers treat differently, and classes that ImageNet holds."""
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
    for trait, found in (report.pictures or {}).items():
        count = f"{found['count']:,}"
        yield from _wrapped(f"pictures {TRAITS[trait].format(count)}; such as {found['examples'][0]}", "  ")
    inside = report.imagenet.get("inside", {})
    if inside:
        whole = "; ".join(f"{name} ({', '.join(categories)})" for name, categories in inside.items())
        yield from _wrapped(f"unseen classes inside ImageNet's 1,000 categories by our reading, {len(inside)}: {whole}", "  ")


def as_json(reports: Sequence[Report], status: int) -> str:
    """One JSON object: `status`, `words`, and `reports` with the fields of `Report`."""
    return json.dumps({"status": status, "words": WORDS, "reports": [asdict(report) for report in reports]}, indent=1)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
                         break_on_hyphens=False)
