"""Which split is a number of? Classes and counts of queries and photos against the published splits, and those used elsewhere.

In: the class name of every query and of every gallery entry. Out: what differs from the split that was named, and the known split
whose unseen classes these are. Published: tables of `tcn.data.specs`; other projects': splits/elsewhere.yaml, with sources.
"""
from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from tcn.config import InputError
from tcn.data import declared
from tcn.data.specs import SPECS, SPLITS_FOLDER, Plan, read_plan, spec
from tcn.data.words import normal_form
from tcn.files.text import some

NAMED = 5
"""Classes that a sentence names at most."""


@dataclass(frozen=True)
class KnownSplit:
    """The unseen classes of one split, by the normal form of their names."""

    title: str
    dataset: str
    unseen: frozenset[str]
    source: str


@dataclass(frozen=True)
class SplitCheck:
    """Whether queries and gallery are those of a split."""

    name: str
    """`sketchy/1`: the split that was named."""
    problems: tuple[str, ...]
    """What differs from it, in sentences without a full stop; none where it is that split."""
    identity: str
    """Which known split it really is, in words."""
    queries: int
    photos: int
    notes: tuple[str, ...] = ()
    """What is right, and worth saying: a gallery that holds each photo once."""

    def text(self) -> str:
        """One line of text."""
        if not self.problems:
            return "; ".join([f"{self.name}, as published: {self.identity}, {self.queries:,} queries, "
                              f"{self.photos:,} gallery entries", *self.notes])
        return f"not {self.name} as published: {'; '.join(self.problems)}. These are {self.identity}"


def parse_name(text: str) -> tuple[str, str]:
    """(data set, split) of `sketchy/1`, or of the file that declares a data set; a data set alone means its first split. Raises
    InputError for unknown names, and a file that can't be used.

    >>> parse_name("sketchy/2"), parse_name("tuberlin"), parse_name("sketchy-first25/1")
    (('sketchy', '2'), ('tuberlin', '1'), ('sketchy-first25', '1'))
    """
    dataset, _, split = (declared.named(text), "", "") if declared.is_file(text) else text.partition("/")
    return dataset, spec(dataset, split or None)[1]


@functools.cache
def known_splits() -> tuple[KnownSplit, ...]:
    """The published splits, then those of other projects."""
    published = [KnownSplit(f"the unseen classes of {found.title}, split {split}" if len(found.splits) > 1 else
                            f"the unseen classes of {found.title}", found.name,
                            frozenset(map(normal_form, read_plan(found.name, split).of("unseen"))), found.source)
                 for found in SPECS.values() for split in found.splits]
    table = yaml.safe_load((SPLITS_FOLDER / "elsewhere.yaml").read_text(encoding="utf-8"))
    return (*published, *(KnownSplit(f"the unseen classes of {entry['title']}", entry["dataset"],
                                     frozenset(map(normal_form, entry["unseen"])), entry["source"]) for entry in table))


def identify(names: Iterable[str]) -> str:
    """Which known split has exactly these unseen classes, else the one that shares most of them, in words."""
    own = frozenset(map(normal_form, names))
    for known in known_splits():
        if own == known.unseen:
            return f"{known.title} ({len(own)} classes)"
    nearest = max(known_splits(), key=lambda known: len(own & known.unseen) / len(own | known.unseen))
    common = len(own & nearest.unseen)
    if not common:
        return f"{len(own)} classes, none of them unseen in any split known here"
    return f"{len(own)} classes of no split known here; nearest: {nearest.title}, with {common} of its {len(nearest.unseen)}"


def check(dataset: str, split: str, query_classes: np.ndarray, gallery_classes: np.ndarray) -> SplitCheck:
    """Compare the class names of queries [Nq] and gallery entries [Ng] with a split. InputError for labels that are no names, or
    where one class is spelt in two ways.

    >>> import numpy as np
    >>> found = check("sketchy", "2", np.array(["bat", "cow"]), np.array(["bat", "cow", "zebra"]))
    >>> found.identity
    '2 classes of no split known here; nearest: the unseen classes of Sketchy Extended, split 2, with 2 of its 21'
    """
    plan = read_plan(dataset, split)
    names = {"queries": query_classes, "gallery": gallery_classes}
    for side, labels in names.items():
        if labels.dtype.kind != "U":
            raise InputError(f"the labels of {side} are {labels.dtype}: a split is told by the names of its classes; store names")
    spelt: dict[str, set[str]] = {}
    for name in {*np.unique(query_classes).tolist(), *np.unique(gallery_classes).tolist()}:
        spelt.setdefault(normal_form(name), set()).add(name)
    if several := [" and ".join(map(repr, sorted(each))) for each in spelt.values() if len(each) > 1]:
        raise InputError(f"one class spelt in two ways: {some(several, NAMED)}; give each class one name")
    unseen, counted = plan.of("unseen"), {side: _counts(plan, labels) for side, labels in names.items()}
    if set(counted["queries"]) == set(counted["gallery"]):
        problems = _classes_that_differ(plan, unseen, counted["queries"], "queries and gallery")
    else:
        problems = [problem for side, found in counted.items() for problem in _classes_that_differ(plan, unseen, found, side)]
    notes: list[str] = []
    if not any(name in plan.counts["sketches"] for name in unseen):
        notes.append("its counts are not known, so only the classes were compared")
    elif not problems:
        problems += _counts_that_differ(plan.counts["sketches"], unseen, counted["queries"], "queries")
        once = plan.distinct.get("gallery")
        if once == len(gallery_classes):
            notes.append("each photo once, where the published lists name some twice")
        else:
            problems += _counts_that_differ(plan.counts["photos"], unseen, counted["gallery"], "gallery entries")
    return SplitCheck(f"{dataset}/{split}", tuple(problems), identify(np.unique(query_classes).tolist()), len(query_classes),
                      len(gallery_classes), tuple(notes))


def _counts(plan: Plan, labels: np.ndarray) -> Mapping[str, int]:
    """Rows of each class, by the split's own name where it knows the class."""
    found: Counter[str] = Counter()
    for name, number in zip(*(each.tolist() for each in np.unique(labels, return_counts=True))):
        found[plan.class_of(name) or name] += number
    return found


def _classes_that_differ(plan: Plan, unseen: Sequence[str], found: Mapping[str, int], side: str) -> list[str]:
    absent, more = [name for name in unseen if name not in found], sorted(set(found) - set(unseen))
    seen = [name for name in more if name in plan.roles]
    problems = []
    if absent:
        problems.append(f"{len(absent)} of its {len(unseen)} unseen classes are not in the {side} ({some(absent, NAMED)})")
    if seen:
        problems.append(f"classes of the {side} that are seen ones there: {len(seen)} ({some(seen, NAMED)})")
    if other := [name for name in more if name not in plan.roles]:
        problems.append(f"classes of the {side} that it does not have: {len(other)} ({some(other, NAMED)})")
    return problems


def _counts_that_differ(expected: Mapping[str, int], unseen: Sequence[str], found: Mapping[str, int], what: str) -> list[str]:
    odd = [f"{name}: {found.get(name, 0):,}, not {expected[name]:,}" for name in unseen
           if name in expected and found.get(name, 0) != expected[name]]
    if not odd:
        return []
    total = sum(expected[name] for name in unseen if name in expected)
    return [f"{sum(found.values()):,} {what}, published are {total:,}; {len(odd)} of {len(unseen)} classes differ "
            f"({some(odd, 3)})"]
