"""Retrieval of the very photo from which a sketch was drawn: Acc@K, for data sets whose file names tell which photo that is.

In: a checked suite. Out: a Table; None if no run recorded such numbers.
"""
from __future__ import annotations

from reports import naming, paper
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables.comparison import over_rows
from reports.tables.entries import dim_entry, measured_entry, reference_entry, seeds_entry
from reports.tables.protocols import KINDS
from reports.tables.table import Column, Entry, Row, Table

SCOPES = {"instance-in-class": "among photos of its class", "instance": "in the whole gallery"}
"""Name that metrics.csv has in place of a protocol -> the photos that are ranked."""
METRICS = ("Acc@1", "Acc@5", "Acc@10")
COUNTED = {"as-published": "", "distinct": ", each photo once"}


def table(suite: Suite, task: Task) -> Table | None:
    """Acc@K within the class and over the whole gallery, real-valued and binary, with chance. The rows are those of the main
    comparison, then all others that have such numbers."""
    there = {score for score in suite.scores(task) if score.classes == "unseen" and score.protocol in SCOPES}
    if not there:
        return None
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    columns += [Column(metric, heading, True) for heading in SCOPES.values() for metric in METRICS]
    main = paper.main_variants(suite, task)
    variants = [*main, *(v for v in suite.variants(task) if v not in main and not paper.is_ledger(suite, v))]
    rows: list[Row] = []
    queries = photos = 0
    for kind, name in KINDS.items():
        for duplicates, counted in COUNTED.items():
            if not any((score.features, score.duplicates) == (kind, duplicates) for score in there):
                continue
            scores = [Score(metric, scope, kind, duplicates=duplicates) for scope in SCOPES for metric in METRICS]
            rows.append(Row((Entry(f"{name[:1].upper()}{name[1:]}{counted}"),), "section"))
            for variant in variants:
                line = [suite.measure(task, variant, score) for score in scores]
                if variant in main or any(m.n for m in line):
                    rows.append(Row((Entry(naming.label(variant)), dim_entry(suite, task, variant, kind),
                                     *map(measured_entry, line), seeds_entry(max(line, key=lambda m: m.n)))))
            every = [over_rows(suite, task, variants, score) for score in scores]
            rows.append(Row((Entry("chance"), Entry(""), *(reference_entry(m.chance, runs=m.runs) for m in every), Entry("")),
                            "reference"))
            queries, photos = max(queries, every[0].queries), max(photos, every[0].photos)
    asked = over_rows(suite, task, variants, Score(paper.retrieval_metric(task))).queries
    left_out = f"; {asked - queries:,} others, whose photo is not there, are left out" if asked > queries else ""
    return Table(f"{task.slug}-instances", f"{naming.task_title(task)}: the very photo that a sketch was drawn from (measured)",
                 (*columns, Column("Seeds")), tuple(rows),
                 (f"{queries:,} queries of unseen classes with their photo in the gallery of {photos:,} entries{left_out}.",
                  ("Acc@K: share of sketches with the photo that they were drawn from among the K nearest; of a photo that is "
                   "listed twice the nearer entry counts. Mean ± standard deviation over seeds."),
                  ("Photos at equal distance stand in random order (mean over all orders). Chance: photos in random order, "
                   "exactly; a perfect ranking scores 1. Nothing here was trained to find the very photo.")))
