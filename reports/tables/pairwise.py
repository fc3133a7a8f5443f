"""Sides compared pair by pair, as tables: one with marks of significance, one of the pairs behind the marks, and one by class.

In: sides and their pairs. Out: tables.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from reports.stats.pairwise import SIGNIFICANT, WHY, MetricGap, Side
from reports.stats.uncertainty import LEVEL, best_p
from reports.tables.table import Column, Entry, Row, Table
from reports.wording import counted, signed

MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
"""Raised letters of sides, in order; Unicode has no raised q."""
LETTERS = "abcdefghijklmnoprstuvwxyz"


def sides_table(sides: Sequence[Side], found: Sequence[MetricGap], metrics: Sequence[str], protocol: str) -> Table:
    """A row for each side: means by class and by query, marked with the letters of the sides that it is significantly above."""
    columns = [Column("", ""), Column("Side", wrap=True), Column("Seeds", numeric=True)]
    columns += [Column(name, metric, True) for metric in metrics for name in ("by class", "by query")]
    place = {side.name: at for at, side in enumerate(sides)}
    above: dict[tuple[str, str], list[int]] = {}
    for pair in (pair for pair in found if pair.significant):
        better, worse = (pair.first, pair.second) if pair.comparison.difference > 0 else (pair.second, pair.first)
        above.setdefault((better, pair.metric), []).append(place[worse])
    rows = []
    for at, side in enumerate(sides):
        entries = [Entry(LETTERS[at]), Entry(side.name), Entry(str(len(side.seeds(metrics[0]))))]
        for metric in metrics:
            value, marks = side.by_class(metric), "".join(MARKS[i] for i in sorted(above.get((side.name, metric), [])))
            entries += [Entry(f"{value:.4f}{marks}", value), Entry(f"{side.by_query(metric):.4f}", side.by_query(metric))]
        rows.append(Row(tuple(entries)))
    return Table("compared", f"Compared under the rules of {protocol}", tuple(columns), tuple(rows), tuple(_notes(found)))


def _notes(found: Sequence[MetricGap]) -> list[str]:
    classes, tests = min(pair.comparison.classes for pair in found), sum(not math.isnan(pair.p) for pair in found)
    notes = [(f"A raised letter names a side that this one is significantly above: sign-flip test over classes, Holm-corrected "
              f"over {counted(tests, 'test')}, p < {SIGNIFICANT}."), WHY]
    if tests * best_p(classes) >= SIGNIFICANT:
        notes.append(f"Over {classes} class{'es' * (classes != 1)} no corrected test of {tests} can fall below {SIGNIFICANT}, "
                     "whatever the values.")
    if all(pair.comparison.seeds == 1 for pair in found):
        notes.append("One seed a side: this tells whether these features differ, not whether the methods behind them do; "
                     "trained again, each may come out elsewhere. Give several seeds under one name to see that.")
    return notes


def pairs_table(found: Sequence[MetricGap]) -> Table:
    """A row for each pair and metric: the difference by class with its interval and tests, and by query for comparison."""
    level = f"{LEVEL:.0%}"
    columns = (Column("Pair", wrap=True), Column("Difference", "by class", True), Column(f"{level} interval", "by class", True),
               Column("p", "by class", True), Column("p, corrected", "by class", True), Column("Effect", "by class", True),
               Column("Classes above", "by class", True), Column("p over seeds", "by class", True),
               Column("Difference", "by query, description only", True),
               Column(f"{level} interval", "by query, description only", True),
               Column("Above / equal / below", "by query, description only", True))
    rows = []
    for metric in dict.fromkeys(pair.metric for pair in found):
        rows.append(Row((Entry(metric),), "section"))
        for pair in (pair for pair in found if pair.metric == metric):
            c = pair.comparison
            rows.append(Row((
                Entry(f"{pair.first} − {pair.second}"), Entry(signed(c.difference, 4) + "*" * pair.significant, c.difference),
                Entry(span(c.interval.low, c.interval.high)), Entry(_p(c.p_classes), c.p_classes), Entry(_p(pair.p), pair.p),
                Entry("–" if math.isnan(c.effect) else f"{c.effect:.2f}", c.effect), Entry(f"{c.share:.0%} of "
                                                                                           f"{c.classes}", c.share),
                Entry(_p(c.p_seeds) + f" ({c.seeds})" if c.seeds > 1 else "–"),
                Entry(signed(pair.of_queries, 4), pair.of_queries), Entry(span(pair.low, pair.high)),
                Entry(f"{pair.above:,} / {pair.queries - pair.above - pair.below:,} / {pair.below:,}"))))
    method = found[0].comparison.interval.method
    return Table("pairs", "Pair by pair", columns, tuple(rows), (
        f"* significant by class. Interval by class: {method}. Effect: mean over standard deviation of the differences of "
        "classes. p over seeds: sign-flip test over the seeds that both have, with their number.",
        "The interval by query takes all queries for independent: it is too narrow, and no mark rests on it."))


def classes_table(found: Sequence[MetricGap]) -> Table:
    """For each pair and metric a row for each class, the largest gains first."""
    columns = (Column("Class"), Column("Queries", numeric=True), Column("First", numeric=True), Column("Second", numeric=True),
               Column("Difference", numeric=True), Column(f"{LEVEL:.0%} interval over its queries", numeric=True))
    rows = []
    for pair in found:
        rows.append(Row((Entry(f"{pair.metric}: {pair.first} − {pair.second}"),), "section"))
        for c in sorted(pair.classes, key=lambda c: c.second - c.first):
            rows.append(Row((Entry(c.name), Entry(f"{c.queries:,}", c.queries), Entry(f"{c.first:.4f}", c.first),
                             Entry(f"{c.second:.4f}", c.second), Entry(signed(c.first - c.second, 4), c.first - c.second),
                             Entry(span(c.low, c.high)))))
    return Table("classes", "Class by class", columns, tuple(rows), (
        "The interval is over the queries of the class, paired, and not corrected for the number of classes: it shows where the "
        "difference comes from, and is no finding about a single class.",))


def span(low: float, high: float) -> str:
    """An interval as text.

    >>> span(-0.1, 0.25), span(float("nan"), 1.0)
    ('[−0.1000, +0.2500]', '–')
    """
    return "–" if math.isnan(low) or math.isnan(high) else f"[{signed(low, 4)}, {signed(high, 4)}]"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
