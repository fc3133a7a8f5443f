"""Measured values beside each other and beside published ones: the main comparison, by publisher, and the paper's Table 2.

In: a checked suite, published numbers. Out: tables. Measured and published numbers meet only on the paper's own data sets.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from reports import lint, naming, paper, published
from reports.read.measured import Measured
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables.entries import dim_entry, measured_entry, reference_entry, seeds_entry
from reports.tables.table import Column, Entry, Row, Table


def comparison(suite: Suite, task: Task, classes: str = "unseen") -> Table:
    """TCN, HWS, NWS and the untrained baselines under both rules, real-valued and binary, with chance and ceiling."""
    where = "unseen classes" if classes == "unseen" else "validation classes, never trained on"
    return _measured_table(suite, task, f"{task.slug}-{'comparison' if classes == 'unseen' else classes}",
                           f"{naming.task_title(task)}: retrieval on {where} (measured)", paper.headline(task),
                           classes, decimals=3)


def cutoffs(suite: Suite, task: Task) -> Table:
    """The metrics besides the task's main ones; on emoji, Prec@100 with its ceiling."""
    there = {score.metric for score in suite.scores(task)}
    # Without a finished run the metrics are unknown, and all of them read "not measured".
    metrics = [m for m in paper.secondary(task) if m in there] or list(paper.secondary(task))
    table = _measured_table(suite, task, f"{task.slug}-cutoffs",
                            f"{naming.task_title(task)}: secondary cut-offs on unseen classes (measured)", metrics,
                            "unseen", decimals=4)
    if paper.is_paper(task) or "Prec@100" not in metrics:
        return table
    note = ("A class has only a handful of photos here, so Prec@100 and Prec@200 can't come near 1: read them "
            "against the ceiling row.")
    return Table(table.name, table.title, table.columns, table.rows, (note, *table.notes))


def per_publisher(suite: Suite, task: Task) -> Table | None:
    """mAP by publisher of the query drawing, also with a publisher's own pictures left out; None without sources."""
    metric = paper.retrieval_metric(task)
    views = publisher_views(suite, task)
    if len(views) < 2:
        return None
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    for source, gallery in views:
        columns += [Column(rule, view_label(source, gallery), True) for rule in paper.RULES]
    rows, chance, counts = [], [], []
    variants = [*paper.main_variants(suite, task), *(v for v in paper.LEAVE_ONE_OUT if v in suite.variants(task))]
    for variant in variants:
        measured = [suite.measure(task, variant, Score(metric, rule, source=source, gallery=gallery))
                    for source, gallery in views for rule in paper.RULES]
        rows.append(Row((Entry(naming.label(variant)), dim_entry(suite, task, variant), *(measured_entry(m) for m in measured),
                         seeds_entry(measured[0]))))
    for source, gallery in views:
        pair = [over_rows(suite, task, variants, Score(metric, rule, source=source, gallery=gallery)) for rule in paper.RULES]
        chance += [reference_entry(m.chance, runs=m.runs) for m in pair]
        counts.append(f"{view_label(source, gallery)}: {pair[0].queries} queries, {pair[0].photos} photos")
    rows.append(Row((Entry("chance"), Entry(""), *chance, Entry("")), "reference"))
    return Table(f"{task.slug}-publishers", f"{naming.task_title(task)}: {metric} by publisher of the query drawing, "
                 "unseen classes, real-valued features (measured)", (*columns, Column("Seeds")), tuple(rows),
                 ("; ".join(counts) + ".",))


def publisher_views(suite: Suite, task: Task) -> list[tuple[str, str]]:
    """The (query source, gallery) pairs that were measured: all drawings, each publisher, and last one with a reduced gallery."""
    there = {(s.source, s.gallery) for s in suite.scores(task) if s.classes == "unseen"}
    reduced = {source for source, gallery in there if gallery != "all"}
    return sorted(there, key=lambda v: (v[0] != "all", v[0] in reduced, naming.publisher(v[0]), v[1] != "all", v[1]))


def view_label(source: str, gallery: str) -> str:
    """Heading of a publisher's column.

    >>> view_label("openmoji", "all"), view_label("emojione-monotone", "without emojione-v1")
    ('OpenMoji black', 'EmojiOne monotone, without EmojiOne v1 pictures')
    """
    name = naming.publisher(source)
    return name if gallery == "all" else f"{name}, {gallery.replace('emojione-v1', 'EmojiOne v1')} pictures"


def paper_comparison(suite: Suite) -> Table | None:
    """The paper's Table 2, with measured rows apart from published ones; None if none of its data sets was planned."""
    tasks = {paper.paper_task(task): task for task in suite.tasks() if paper.is_paper(task)}
    tasks.pop(None, None)
    if not tasks:
        return None
    columns = [Column("Method"), Column("D", numeric=True), Column("Features"), Column("Number", wrap=True)]
    columns += [Column(metric, _paper_heading(where), True) for where, metric in paper.COMPARISON_COLUMNS]
    rows = [Row((Entry("Measured here"),), "section"), *_measured_rows(suite, tasks), *_published_rows()]
    sources = {fact.source for fact in published.facts() if fact.table == "comparison"}
    notes = [("Measured: mean ± standard deviation over seeds, with the number of seeds in brackets. Published rows follow "
             "each author's own rules, which differ; – means that the source gives no number."),
             "† contradicted by another published number or by a provable rule; see the table of contradictions.",
             "‡ on other classes than the column's, or the source does not say on which.",
             *(f"{published.SHORT_SOURCES[key]}: {text}." for key, text in published.SOURCES.items() if key in sources)]
    return Table("paper-comparison", "Comparison on the paper's data sets", tuple(columns), tuple(rows), tuple(notes))


def _measured_rows(suite: Suite, tasks: Mapping[Task | None, Task]) -> Iterator[Row]:
    """TCN's rows: the paper's feature lengths and kinds first, then others that have runs; then features brought along.

    tasks: a task as the paper names it -> the same task as the suite names it.
    """
    wanted: list[tuple[int, str]] = list(paper.COMPARISON_ROWS)
    wanted += [row for row in _lengths(suite, tasks, paper.is_tcn) if row not in wanted]
    yield from (row for dim, kind in wanted for row in _rows_of(suite, tasks, "TCN", paper.is_tcn, dim, kind))
    for name in dict.fromkeys(v for task in tasks.values() for v in paper.brought(suite, task)):
        for dim, kind in _lengths(suite, tasks, name.__eq__):
            yield from _rows_of(suite, tasks, naming.label(name), name.__eq__, dim, kind)


def _lengths(suite: Suite, tasks: Mapping[Task | None, Task], belongs: Callable[[str], bool]) -> list[tuple[int, str]]:
    """The (feature length, kind of features) pairs of the measured variants that belong to a row, each once."""
    found = []
    for task in tasks.values():
        for variant in filter(belongs, suite.variants(task)):
            dim = suite.dim(task, variant)
            found += [(dim, kind) for kind in ("real", "binary") if dim is not None
                      and any(suite.measure(task, variant, Score(m, features=kind)).n for m in paper.headline(task))]
    return list(dict.fromkeys(found))


def _rows_of(suite: Suite, tasks: Mapping[Task | None, Task], title: str, belongs: Callable[[str], bool], dim: int, kind: str
             ) -> Iterator[Row]:
    for rule in paper.RULES:
        entries = []
        for where, metric in paper.COMPARISON_COLUMNS:
            ours = tasks.get(where)
            best = [suite.measure(ours, v, Score(metric, rule, kind)) for v in filter(belongs, suite.variants(ours))
                    if suite.dim(ours, v) == dim] if ours else []
            found = next((m for m in best if m.n), Measured({}, ()))
            entries.append(measured_entry(found, with_seeds=True))
        yield Row((Entry(title), Entry(str(dim), dim), Entry(kind), Entry(f"measured, {rule}"), *entries))


def _published_rows() -> Iterator[Row]:
    """Published rows by source; numbers that are contradicted, or on another split than their column's, are marked."""
    facts: dict[tuple[str, str, str, str], dict[tuple[Task, str], float]] = {}
    doubtful = lint.doubtful(lint.findings(lint.read(published.FILE)))
    against = {_kin(fact) for fact in doubtful if fact.table == "conflict"}
    marks: dict[tuple[tuple[str, ...], Task, str], str] = {}
    for p in published.facts():
        if p.table == "comparison":
            key = (p.method, p.dimension, p.features, p.source)
            facts.setdefault(key, {})[Task(p.dataset, p.column), p.metric] = p.value
            marks[key, Task(p.dataset, p.column), p.metric] = (
                "†" * (p in doubtful or _kin(p) in against) + "‡" * (p.split != p.column))
    previous = ""
    for key in sorted(facts, key=lambda k: (list(published.SOURCES).index(k[3]), k[2] != "real", k[0] == "TCN")):
        if key[3] != previous:
            previous = key[3]
            yield Row((Entry(f"Published ({published.SHORT_SOURCES[previous]})"),), "section")
        entries = []
        for where, metric in paper.COMPARISON_COLUMNS:
            value = facts[key].get((where, metric))
            entries.append(Entry("–") if value is None else Entry(f"{value:.3f}{marks[key, where, metric]}", value))
        method, length, features, _ = key
        yield Row((Entry(method), Entry(length or "–"), Entry(features), Entry("published"), *entries))


def contradictions() -> Table:
    """What the lint of published.csv found: published numbers that can't all be right, or that ask for a look."""
    findings = lint.findings(lint.read(published.FILE))
    columns = (Column("Method"), Column("D", numeric=True), Column("Features"), Column("Data set"), Column("Metric"),
               Column("Value", numeric=True), Column("Source", wrap=True), Column("Rule", wrap=True),
               Column("What was found", wrap=True))
    rows = []
    for kind, heading in lint.KINDS.items():
        block = []
        for f in (f for f in findings if f.kind == kind):
            line = f.line.fact
            value = line.value if f.shows_value else math.nan
            source = published.SHORT_SOURCES.get(line.source, line.source or "no source")
            block.append(Row((
                Entry(line.method), Entry(line.dimension or "–"), Entry(line.features),
                Entry(_paper_heading(Task(line.dataset, line.column)) if f.shows_value else "–"),
                Entry(line.metric if f.shows_value else "–"),
                Entry("–" if math.isnan(value) else f"{value:.3f}", value), Entry(f"published ({source})"), Entry(f.rule),
                Entry(f.text))))
        if block:
            rows += [Row((Entry(heading),), "section"), *block]
    return Table("paper-contradictions", "Published numbers that contradict each other or a rule", columns, tuple(rows),
                 ("None is averaged, corrected or dropped.",
                  *(f"{rule}: {text}" for rule, text in lint.RULES.items() if rule in {f.rule for f in findings}),
                  "`python reports/lint.py FILE.csv` applies the same rules to a file of your own."))


def _measured_table(suite: Suite, task: Task, name: str, title: str, metrics: Iterable[str], classes: str,
                    decimals: int) -> Table:
    metrics = list(metrics)
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    columns += [Column(rule, metric, True) for metric in metrics for rule in paper.RULES] + [Column("Seeds")]
    variants = paper.main_variants(suite, task)
    rows, counts, error = [], (0, 0), 0.0
    orders: set[str] = set()
    for kind, heading in (("real", "Real-valued features"), ("binary", "Binary codes (ITQ), Hamming distance")):
        scores = [Score(metric, rule, kind, classes) for metric in metrics for rule in paper.RULES]
        grid = [[suite.measure(task, variant, score) for score in scores] for variant in variants]
        # The highest of one row says nothing.
        best = [max(means) if len(means := [m.mean for m in column if m.n]) > 1 else math.nan for column in zip(*grid)]
        rows.append(Row((Entry(heading),), "section"))
        for variant, line in zip(variants, grid):
            alike = len({m.seeds for m in line}) == 1
            entries = [measured_entry(m, decimals, not alike, strong=m.mean == top) for m, top in zip(line, best)]
            rows.append(Row((Entry(naming.label(variant)), dim_entry(suite, task, variant, kind), *entries,
                             seeds_entry(max(line, key=lambda m: m.n)))))
        union = [over_rows(suite, task, variants, score) for score in scores]
        if any(m.n for m in union):
            counts = (max(m.queries for m in union), max(m.photos for m in union))
            error = max(error, *(m.standard_error for m in union))
            orders.update(name for m in union for name in m.ties)
            for text, levels in (("chance", [m.chance for m in union]), ("ceiling", [m.ceiling for m in union])):
                rows.append(Row((Entry(text), Entry(""),
                                 *(reference_entry(level, decimals, m.runs) for level, m in zip(levels, union)), Entry("")),
                                "reference"))
    notes = [f"{counts[0]:,} queries, {counts[1]:,} photos. " if any(counts) else "",
             ("Mean ± standard deviation over seeds; the seeds column says how many of the planned ones are in it. "
             "Bold: highest mean of its block, without a claim of significance.")]
    ties = ["Ties: expected value over random orders of photos at equal distance"
            + (f"; where that is sampled, its standard error is at most {error:.2g}." if error > 0 else ".")]
    if orders:
        ties = [f"Some rows break ties otherwise: {', '.join(sorted(orders))}."]
    return Table(name, title, tuple(columns), tuple(rows), (
        "".join(notes), ("released: interpolated precision, mean over classes, as the paper's code counts; standard: raw "
                        "precision, mean over queries. Ceiling: what a perfect ranking would score."), *ties))


def over_rows(suite: Suite, task: Task, variants: Iterable[str], score: Score) -> Measured:
    """Chance, ceiling, counts and runs over all rows. The `values` only show that something was measured."""
    found = [m for m in (suite.measure(task, v, score) for v in variants) if m.n]
    return Measured({i: m.mean for i, m in enumerate(found)}, (),
                    tuple(sorted({round(c, 9) for m in found for c in m.chance})),
                    tuple(sorted({round(c, 9) for m in found for c in m.ceiling})),
                    max((m.queries for m in found), default=0), max((m.photos for m in found), default=0),
                    tuple(run for m in found for run in m.runs), max((m.standard_error for m in found), default=0.0),
                    tuple(sorted({name for m in found for name in m.ties})))


def _kin(fact: published.Published) -> tuple[str, ...]:
    """What a number and one that contradicts it have in common: method, data set, and mAP or Prec."""
    return fact.method, fact.dimension, fact.features, fact.dataset, fact.metric.partition("@")[0]


def _paper_heading(where: Task) -> str:
    return {"tuberlin": "TU-Berlin", "quickdraw": "QuickDraw"}.get(
        where.dataset, {"100/25": "Sketchy, split 1", "104/21": "Sketchy, split 2"}.get(where.split, where.dataset))
