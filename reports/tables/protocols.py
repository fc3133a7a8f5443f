"""The numbers that six protocols give for the same ranking under the same names, and the effect of photos listed twice.

In: a checked suite. Out: tables; every number of a block comes from the same rankings of the same runs.
"""
from __future__ import annotations

from reports import naming, paper
from reports.read.measured import Measured, paired
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables.entries import dim_entry, measured_entry, reference_entry, seeds_entry, signed_entry
from reports.tables.table import Column, Entry, Row, Table

METRICS = ("mAP@all", "mAP@200", "Prec@100", "Prec@200")
KINDS = {"real": "real-valued features", "binary": "binary codes, Hamming distance"}
NOT_DEFINED = "not defined"


def table(suite: Suite, task: Task) -> Table | None:
    """Rows: the six protocols, for each trained variant, real and binary; None if only the two usual protocols were recorded."""
    there = {s.protocol for s in suite.scores(task) if s.classes == "unseen" and s.source == s.gallery == "all"}
    if there & set(paper.PROTOCOLS) <= set(paper.RULES):
        return None
    columns = (Column("Rule"), Column("Whose code counts so", wrap=True), *(Column(m, numeric=True) for m in METRICS),
               Column("Seeds"))
    rows: list[Row] = []
    chance: dict[str, list[tuple[str, list[Entry]]]] = {}
    for variant in (*paper.TRAINED, *paper.brought(suite, task)):
        if not suite.runs_of(task, variant):
            continue
        for kind, name in KINDS.items():
            grid = {rule: [suite.measure(task, variant, Score(metric, rule, kind)) for metric in METRICS]
                    for rule in paper.PROTOCOLS}
            rows.append(Row((Entry(f"{naming.label(variant)}, {name}"),), "section"))
            for rule, line in grid.items():
                entries = [_entry(rule, metric, m) for metric, m in zip(METRICS, line)]
                rows.append(Row((Entry(rule), Entry(paper.PROTOCOLS[rule]), *entries, seeds_entry(max(line, key=lambda m: m.n)))))
            spreads = [_spread([line[i] for line in grid.values()]) for i in range(len(METRICS))]
            rows.append(Row((Entry("spread"), Entry("highest minus lowest rule"), *map(measured_entry, spreads),
                             seeds_entry(max(spreads, key=lambda m: m.n))), "reference"))
            if variant == paper.TRAINED[0]:
                chance[name] = [(rule, [reference_entry(m.chance, runs=m.runs) if (rule, metric) not in paper.NOT_DEFINED
                                        else Entry(NOT_DEFINED) for metric, m in zip(METRICS, line)])
                                for rule, line in grid.items()]
    for name, lines in chance.items():
        rows.append(Row((Entry(f"Chance: a random ranking ({name})"),), "section"))
        rows += [Row((Entry(rule), Entry(""), *entries, Entry("")), "reference") for rule, entries in lines]
    return Table(f"{task.slug}-protocols", f"{naming.task_title(task)}: the same rankings under six rules (measured)", columns,
                 tuple(rows),
                 (("All rows of a block count the same rankings of unseen classes; only the rule differs. Mean ± standard "
                   "deviation over seeds; the spread is taken within each seed first."),
                  ("cvpr19's Prec@K is the relevance of the photo at rank K + 1 alone, and its mAP@K ranks the top K alone; it "
                   "defines no mAP@all."),
                  ("mAP@K divides by: released, zse, standard: min(K, R); cvpr19, sem-pcyc: the hits in the top K; cvae: K. "
                   "released is the mean over classes, all others over queries; released and zse interpolate precision. zse "
                   "divides Prec@K by min(K, R).")))


def duplicates(suite: Suite, task: Task) -> Table | None:
    """Numbers with the gallery as published, in which photos are listed twice, and with each photo once; None without such
    photos."""
    if not any(score.duplicates == "distinct" for score in suite.scores(task)):
        return None
    metrics = paper.headline(task)
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    for metric in metrics:
        columns += [Column(name, f"{metric}, {rule}", True) for rule in paper.RULES
                    for name in ("listed", "distinct", "difference")]
    rows: list[Row] = []
    counts: set[tuple[int, int]] = set()
    for kind, name in KINDS.items():
        block = []
        for variant in paper.main_variants(suite, task):
            entries, lines = [], []
            for metric in metrics:
                for rule in paper.RULES:
                    pair = [suite.measure(task, variant, Score(metric, rule, kind, duplicates=which))
                            for which in ("as-published", "distinct")]
                    entries += [*map(measured_entry, pair), signed_entry(paired(*pair))]
                    lines.append(pair[1])
                    if all(m.n for m in pair):
                        counts.add((pair[0].photos, pair[1].photos))
            best = max(lines, key=lambda m: m.n)
            if best.n:
                block.append(Row((Entry(naming.label(variant)), dim_entry(suite, task, variant, kind), *entries,
                                  seeds_entry(best))))
        if block:
            rows += [Row((Entry(name[:1].upper() + name[1:]),), "section"), *block]
    photos = "; ".join(f"{listed:,} entries, {once:,} photos" for listed, once in sorted(counts))
    return Table(f"{task.slug}-duplicates", f"{naming.task_title(task)}: photos listed twice (measured)",
                 (*columns, Column("Seeds")), tuple(rows),
                 (f"Gallery: {photos or 'sizes unknown'}.",
                  ("listed: as published, every entry of the gallery's list counts; distinct: a photo that stands twice counts "
                   "once. Difference: listed minus distinct, paired by seed.")))


def _entry(rule: str, metric: str, measured: Measured) -> Entry:
    return Entry(NOT_DEFINED) if not measured.n and (rule, metric) in paper.NOT_DEFINED else measured_entry(measured)


def _spread(line: list[Measured]) -> Measured:
    """Highest minus lowest of several protocols, seed by seed, over the seeds that all measured ones share."""
    found = [m for m in line if m.n]
    if len(found) < 2:
        return Measured({}, ())
    seeds = sorted(set.intersection(*(set(m.values) for m in found)))
    runs = {run.name: run for m in found for run in m.runs if run.seed in seeds}
    return Measured({seed: max(m.values[seed] for m in found) - min(m.values[seed] for m in found) for seed in seeds},
                    found[0].expected, runs=tuple(runs.values()))
