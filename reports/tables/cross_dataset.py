"""Drawings of another data set as queries -> a table that compares them (cross-domain) with the run's own sketches (in-domain).

In: the folder `cross-dataset` beside a suite's runs, as benchmarks/cross_dataset.py writes it, and the suite. Out: a Table for
each set of drawings with which finished runs of a task were scored.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports import naming, paper
from reports.read.files import ReportError, read_json
from reports.read.measured import Measured, paired
from reports.read.runs import FinishedRun
from reports.read.schema import CrossDataset, DomainRow, Task, parse
from reports.read.suite import Suite
from reports.tables.entries import dim_entry, measured_entry, reference_entry, seeds_entry, signed_entry
from reports.tables.table import Column, Entry, Row, Table
from reports.wording import listed

FOLDER = "cross-dataset"
DOMAINS = {"in-domain": "in domain", "cross-domain": "across"}
GROUPS = {"unseen": "Queries of unseen classes", "seen": "Queries of seen classes", "all": "Queries of all of these classes"}
METRICS = 2
"""Number of a task's headline metrics that are shown."""


@dataclass(frozen=True)
class Scored:
    """One run's numbers with one set of drawings."""

    run: FinishedRun
    found: CrossDataset
    rows: tuple[DomainRow, ...]

    def row(self, domain: str, protocol: str, metric: str, classes: str = "unseen") -> DomainRow | None:
        """The row of one number; None if there is none."""
        return next((row for row in self.rows
                     if (row.domain, row.protocol, row.metric, row.classes) == (domain, protocol, metric, classes)), None)


def read(suite: Suite) -> tuple[list[Scored], list[tuple[str, str]]]:
    """The numbers of the suite's finished runs, ordered by file name; and (file, reason) of each file that is left out."""
    runs = {run.name: run for run in suite.runs}
    scored, left_out = [], []
    files = [path for folder in (*reversed(suite.further), suite.root) for path in (folder / FOLDER).glob("*.json")]
    for _, path in sorted({path.name: path for path in files}.items()):
        try:
            found = parse(CrossDataset, read_json(path), path.name)
            rows = tuple(parse(DomainRow, row, f"{path.name}, row {number}") for number, row in enumerate(found.rows, 1))
            if found.run not in runs:
                raise ReportError("its run is not among the finished ones that are used")
            run = runs[found.run]
            if (found.identity, found.seed) != (run.provenance.identity, run.seed):
                raise ReportError("it was scored with another run of this name; give the same command again")
            if len({(row.domain, row.protocol, row.metric, row.classes) for row in rows}) < len(rows):
                raise ReportError("it holds a number twice")
            scored.append(Scored(run, found, rows))
        except ReportError as error:
            left_out.append((f"{FOLDER}/{path.name}", str(error)))
    return scored, left_out


def tables(suite: Suite, task: Task) -> list[Table]:
    """A table for each set of drawings, distinguished by their digests, and for each gallery: unseen photos, or all."""
    kinds: dict[tuple[bool, str], list[Scored]] = {}
    for one in read(suite)[0]:
        if one.run.task == task:
            kinds.setdefault((one.found.gallery == "all", one.found.drawings.digest), []).append(one)
    return [_table(suite, task, own, number) for number, (_, own) in enumerate(sorted(kinds.items()), 1)]


def _table(suite: Suite, task: Task, scored: Sequence[Scored], number: int) -> Table:
    metrics = paper.headline(task)[:METRICS]
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    for metric in metrics:
        columns += [Column(name, f"{metric}, {rule}", True) for rule in paper.RULES for name in (*DOMAINS.values(), "difference")]
    main = paper.main_variants(suite, task)
    there = {one.run.variant for one in scored}
    variants = [v for v in (*main, *(v for v in suite.variants(task) if v not in main)) if v in there]
    groups = [group for group in GROUPS if any(row.classes == group for one in scored for row in one.rows)]
    rows: list[Row] = []
    for group in groups:
        rows += [Row((Entry(GROUPS[group]),), "section")] * (len(groups) > 1)
        for variant in variants:
            entries, lines = [], []
            for metric in metrics:
                for rule in paper.RULES:
                    pair = [_measured(suite, task, variant, scored, domain, rule, metric, group) for domain in DOMAINS]
                    entries += [*map(measured_entry, pair), signed_entry(paired(pair[1], pair[0]))]
                    lines += pair
            rows.append(Row((Entry(naming.label(variant)), dim_entry(suite, task, variant), *entries,
                             seeds_entry(max(lines, key=lambda m: m.n)))))
        chance: list[Entry] = []
        for metric in metrics:
            for rule in paper.RULES:
                chance += [*(_chance(scored, domain, rule, metric, group) for domain in DOMAINS), Entry("")]
        rows.append(Row((Entry("chance"), Entry(""), *chance, Entry("")), "reference"))
    drawings = scored[0].found.drawings
    where = ", all photos" * (scored[0].found.gallery == "all")
    return Table(f"{task.slug}-cross-dataset" + f"-{number}" * (number > 1),
                 f"{naming.task_title(task)}: queries drawn elsewhere, {drawings.name}{where} (measured)",
                 (*columns, Column("Seeds")), tuple(rows), _notes(scored, drawings.settings))


def _notes(scored: Sequence[Scored], settings: dict[str, object]) -> tuple[str, ...]:
    photos = max((row.photos for one in scored for row in one.rows), default=0)
    which = _all_photos(scored, photos) if scored[0].found.gallery == "all" else _unseen_photos(scored, photos)
    how = ", ".join(f"{name} {value}" for name, value in settings.items() if name in ("size", "line", "margin"))
    some = "with" if settings.get("unrecognised", True) else "without"
    return (which,
            ("Difference: across minus in domain, paired by seed. Real-valued features. Mean ± standard deviation over seeds. "
             "Nothing was trained on such drawings, and nothing chosen by these numbers."),
            *([f"Pictures drawn from strokes, in pixels: {how}; {some} drawings that the game did not "
               "recognise."] if how else []))


def _unseen_photos(scored: Sequence[Scored], photos: int) -> str:
    classes = sorted({name for one in scored for name in one.found.classes})
    counts = _queries(scored, "unseen")
    return (f"{len(classes)} unseen classes that both data sets have: {listed(classes)}. Queries: {counts['in-domain']:,} in "
            f"domain (the data set's own sketches), {counts['cross-domain']:,} across; gallery: all {photos:,} photos of unseen "
            "classes, the same for both.")


def _all_photos(scored: Sequence[Scored], photos: int) -> str:
    classes = {name for one in scored for name in one.found.classes}
    unseen = classes & {name for one in scored for name in one.found.unseen}
    (own, across), (held_out, seen_across) = (_queries(scored, group).values() for group in ("unseen", "seen"))
    return (f"{len(classes)} classes that both data sets have, {len(unseen)} of them unseen: {listed(sorted(unseen))}. Queries "
            f"in domain: {own:,} of unseen classes, and {held_out:,} of seen ones that were held out from training; across: "
            f"{across:,} and {seen_across:,}. "
            f"Gallery: all {photos:,} photos, those of seen classes among them, which the networks were trained on; the same for "
            f"every query. Where all classes are counted, {own / max(own + held_out, 1):.0%} of the queries in domain are of "
            f"unseen ones, and {across / max(across + seen_across, 1):.0%} of those across: a mean over queries (standard) holds "
            "that in its difference, too, a mean over classes (released) does not.")


def _queries(scored: Sequence[Scored], group: str) -> dict[str, int]:
    return {domain: max((row.queries for one in scored for row in one.rows if (row.domain, row.classes) == (domain, group)),
                        default=0) for domain in DOMAINS}


def _measured(suite: Suite, task: Task, variant: str, scored: Sequence[Scored], domain: str, rule: str, metric: str, group: str
              ) -> Measured:
    found = {one.run.seed: (one.run, row) for one in scored
             if one.run.variant == variant and (row := one.row(domain, rule, metric, group)) is not None}
    return Measured({seed: row.value for seed, (_, row) in found.items()}, tuple(sorted(suite.planned.get((task, variant), ()))),
                    runs=tuple(run for run, _ in found.values()),
                    standard_error=max((row.standard_error for _, row in found.values()), default=0.0))


def _chance(scored: Sequence[Scored], domain: str, rule: str, metric: str, group: str) -> Entry:
    rows = [(one.run, row) for one in scored if (row := one.row(domain, rule, metric, group)) is not None]
    levels = sorted({round(row.chance, 9) for _, row in rows if not math.isnan(row.chance)})
    return reference_entry(tuple(levels), runs=tuple(run for run, _ in rows))
