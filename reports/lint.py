"""Checks whether published numbers can be right: rules on rows of published.csv, or of any file with the same columns.

In: a CSV file. Out: findings, each with its rule and whether it is a proof or a hint. `python reports/lint.py [FILE.csv]`
prints them. Exit status 0: no findings, 1: findings, 2: the file can't be read.

The arithmetic behind the proofs: a query with R relevant photos, h of them among the first K, has
AP@K <= h / min(K, R) under every divisor that is at least min(K, R), since no precision exceeds 1; and Prec@K = h / K. So
where R >= K, AP@K <= Prec@K for each query, and for any mean over queries or classes that both take alike. (That mAP@all
lies above mAP@200, or below, proves nothing: either can happen.)
"""
from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import published
from reports.published import Published
from reports.read.escaping import shortened
from reports.read.files import ReportError

KINDS = {"proof": "Proofs: not every number of these rows can be right as labelled",
         "hint": "Hints: unusual or incomplete, worth a look at the source"}
RULES = {
    "range": "every metric here lies between 0 and 1; a value above 1 is likely per cent",
    "map-above-prec": ("where each query has at least K relevant photos, mAP@K with divisor min(K, R) can't exceed Prec@K; a row "
                       "that breaks this was computed by other rules than its table says"),
    "prec-cutoffs": ("K2 ranks hold the first K1: K1 Prec@K1 <= K2 Prec@K2 <= K1 Prec@K1 + (K2 - K1)"),
    "map-all-too-small": ("the first K ranks alone give mAP@all at least mAP@K times K / R, with R at most the largest class of "
                          "the gallery"),
    "two-values": "one method, feature length, data set and metric has two values: they can't both be its number",
    "prec-rises": "a longer list is rarely more precise: Prec at a later cut-off above Prec at an earlier one",
    "binary-above-real": "codes made from features lose information, so they rarely retrieve better",
    "other-split": ("measured on other classes than its column, or its source doesn't say on which: not to be compared with the "
                    "other numbers of the column, and no rule about their gallery applies"),
    "doubled": "the same number from the same source stands in two rows",
    "no-dimension": "without its feature length a number can't be placed beside others",
    "unknown-name": "a metric, data set, split or kind of features that no rule here knows, so none could check it",
    "no-citation": "a number needs a source that can be looked up: a known key, or an address, DOI or arXiv number",
    "noted": "noted by hand when the number was read",
}


@dataclass(frozen=True)
class GallerySize:
    """Number of photos per unseen class of a data set's gallery, counted as entries of the lists in circulation."""

    smallest: int
    smallest_class: str
    largest: int
    smallest_distinct: int
    """The same with each photo counted once: Sketchy lists 100 original photos of each class in both photo folders."""
    loss_at_200: float = 0.0
    """How far mAP@200 could exceed Prec@200 in a gallery without the repeats, if a class then has fewer than 200 photos:
    the sum over such classes of (200 - R) / 200 times the class's share of the mean, by classes or by queries."""


GALLERIES = {
    ("sketchy", "100/25"): GallerySize(378, "wheelchair", 800, 278),
    # skyscraper keeps 161 distinct photos: 39 / 200 of 1 / 21, the larger of its shares by classes and by queries
    ("sketchy", "104/21"): GallerySize(261, "skyscraper", 850, 161, 39 / 200 / 21),
    ("tuberlin", "220/30"): GallerySize(401, "trombone", 2922, 401),
    ("quickdraw", "80/30"): GallerySize(1304, "campfire", 2726, 1304),
}
"""(data set, split) -> sizes, counted in the released image lists, as tcn/data/splits/*.yaml keeps them by class."""
KNOWN = {**dict.fromkeys(GALLERIES, re.compile(r"(mAP|Prec)@(all|[1-9]\d*)")),
         ("mnist->mnist-m", ""): re.compile("accuracy on the target")}
"""(data set, split) -> metrics known for it."""
CITATION = re.compile(r"https?://\S+\.\S+|\b10\.\d{4,}/\S+|arxiv\W{0,2}\d{4}\.\d{4,}", re.IGNORECASE)


@dataclass(frozen=True)
class PublishedRow:
    """One row of the file."""

    number: int
    fact: Published
    half_unit: float
    """Half a unit of the last digit that the source gives; the value before rounding differs by at most this."""

    def says(self) -> str:
        f = self.fact
        value = f"{f.value:.3f}" if self.half_unit >= 0.0005 else f"{f.value:g}"
        return f"{f.metric} {value} ({published.SHORT_SOURCES.get(f.source, f.source or 'no source')})"


@dataclass(frozen=True)
class BrokenRule:
    """A rule that a line breaks. others: the lines with which the rule compares it."""

    rule: str
    kind: str
    line: PublishedRow
    text: str
    others: tuple[PublishedRow, ...] = ()
    shows_value: bool = True
    """False if the finding is about a whole group of rows."""


def read(path: Path) -> list[PublishedRow]:
    """Rows of a CSV file. Raises ReportError naming line and field.

    Spreadsheets drop trailing zeros, so all numbers of a source are taken to have as many digits as its most precise one.
    """
    rows = published.read(path)
    digits: dict[str, int] = {}
    for _, written, fact in rows:
        mantissa, _, exponent = written.lower().partition("e")
        own = min(300, max(-300, len(mantissa.partition(".")[2]) - int(exponent or 0)))
        digits[fact.source] = max(own, digits.get(fact.source, own))
    return [PublishedRow(number, fact, 0.5 * 10.0 ** -digits[fact.source]) for number, _, fact in rows]


def findings(lines: Sequence[PublishedRow]) -> list[BrokenRule]:
    """All findings of the rules, proofs first, in the order of lines."""
    found = [*_single(lines), *_within_a_row(lines), *_across_rows(lines), *_without_dimension(lines)]
    order = list(KINDS)
    return sorted(found, key=lambda f: (order.index(f.kind), list(RULES).index(f.rule), f.line.number))


def doubtful(found: Iterable[BrokenRule]) -> set[Published]:
    """Facts that a proof or a handwritten note contradicts."""
    return {f.line.fact for f in found if f.kind == "proof" or f.rule == "noted"}


def _single(lines: Iterable[PublishedRow]) -> Iterator[BrokenRule]:
    """Rules that need one row."""
    for line in lines:
        f = line.fact
        if not 0 <= f.value <= 1:
            per_cent = f"; it looks like per cent: {f.value / 100:g}?" if 1 < f.value <= 100 else ""
            yield BrokenRule("range", "proof", line, f"{f.value:g} is outside 0 to 1{per_cent}")
        if (f.dataset, f.column) not in KNOWN:
            known = ", ".join(f"{d} {s}".strip() for d, s in KNOWN)
            yield BrokenRule("unknown-name", "hint", line, f"data set '{f.dataset}', split '{f.split}'; known: {known}")
        elif not KNOWN[f.dataset, f.column].fullmatch(f.metric) or f.metric == "Prec@all":
            yield BrokenRule("unknown-name", "hint", line, f"metric '{f.metric}'")
        if f.split != f.column:
            yield BrokenRule("other-split", "hint", line, f.note or f.split)
        if f.features not in ("real", "binary"):
            yield BrokenRule("unknown-name", "hint", line, f"features '{f.features}'; known: real, binary")
        if not (published.SOURCES.get(f.source) or CITATION.search(f.source)):
            yield BrokenRule("no-citation", "hint", line, f"source '{f.source}'" if f.source else "no source is given")
        if f.table == "conflict":
            yield BrokenRule("noted", "hint", line, f.note or "no reason is given")


def _within_a_row(lines: Iterable[PublishedRow]) -> Iterator[BrokenRule]:
    """Rules over the metrics that one source gives for one method on one data set."""
    rows: dict[tuple[str, ...], dict[str, PublishedRow]] = {}
    for line in lines:
        f = line.fact
        if 0 <= f.value <= 1:  # a value that is not a share can't be compared
            rows.setdefault((f.method, f.dimension, f.features, f.dataset, f.split, f.source), {}).setdefault(f.metric, line)
    for (_, _, _, dataset, split, _), metrics in rows.items():
        gallery = GALLERIES.get((dataset, split))
        means, precisions = _cutoffs(metrics, "mAP"), _cutoffs(metrics, "Prec")
        for k in sorted(set(means) & set(precisions)):
            if finding := _above_precision(k, means[k], precisions[k], gallery):
                yield finding
        whole = metrics.get("mAP@all")
        for k, line in means.items():
            if whole and gallery and gallery.smallest >= k:
                least = (line.fact.value - line.half_unit) * k / gallery.largest
                if whole.fact.value + whole.half_unit < least:
                    yield BrokenRule("map-all-too-small", "proof", whole, f"{line.says()} alone makes it at least {least:.3f}",
                                  (line,))
        for (k1, first), (k2, second) in _pairs(precisions):
            a, b = first.fact.value * k1, second.fact.value * k2
            room = first.half_unit * k1 + second.half_unit * k2
            if not a - room <= b <= a + k2 - k1 + room:
                yield BrokenRule("prec-cutoffs", "proof", second,
                              f"{first.says()} leaves only {a / k2:.3f} to {(a + k2 - k1) / k2:.3f}", (first,))


def _above_precision(k: int, mean: PublishedRow, precision: PublishedRow, gallery: GallerySize | None) -> BrokenRule | None:
    excess = mean.fact.value - precision.fact.value - mean.half_unit - precision.half_unit
    if excess <= 1e-12:
        return None
    text = f"above its own {precision.says()}: computed by other rules than the table says"
    if gallery is None:
        return BrokenRule("map-above-prec", "hint", mean, f"{text}; no proof, since nothing is known of this "
                                                          "gallery", (precision,))
    if gallery.smallest < k:
        return BrokenRule("map-above-prec", "hint", mean, f"{text}; no proof, since {gallery.smallest_class} has only "
                                                       f"{gallery.smallest} photos", (precision,))
    if gallery.smallest_distinct < k and (k != 200 or excess <= gallery.loss_at_200):
        return BrokenRule("map-above-prec", "hint", mean, f"{text}; no proof for a gallery without repeated photos, where "
                                                       f"{gallery.smallest_class} has only {gallery.smallest_distinct}",
                       (precision,))
    return BrokenRule("map-above-prec", "proof", mean, f"{text} (every class has at least {gallery.smallest} "
                                                       "photos)", (precision,))


def _across_rows(lines: Iterable[PublishedRow]) -> Iterator[BrokenRule]:
    """Rules over rows of different sources or kinds of features."""
    cells: dict[tuple[str, ...], list[PublishedRow]] = {}
    for line in lines:
        f = line.fact
        cells.setdefault((f.method, f.dimension, f.features, f.dataset, f.split, f.metric), []).append(line)
    for same in cells.values():
        for at, line in enumerate(same):
            others = tuple(o for o in same if abs(o.fact.value - line.fact.value) > o.half_unit + line.half_unit + 1e-12)
            if others:
                yield BrokenRule("two-values", "proof", line, "elsewhere " + ", ".join(o.says() for o in others), others)
            twins = tuple(o for o in same[:at] if o.fact.source == line.fact.source and o not in others)
            if twins:
                yield BrokenRule("doubled", "hint", line, f"also in line {twins[0].number}", twins)
    rows: dict[tuple[str, ...], dict[str, PublishedRow]] = {}
    for (method, dimension, features, dataset, split, metric), same in cells.items():
        if metric.startswith("Prec@"):
            rows.setdefault((method, dimension, features, dataset, split), {})[metric] = same[0]
    for metrics in rows.values():
        for (_, first), (_, second) in _pairs(_cutoffs(metrics, "Prec")):
            if second.fact.value > first.fact.value:
                yield BrokenRule("prec-rises", "hint", second, f"above {first.says()}", (first,))
    yield from _binary_above_real(lines)


def _binary_above_real(lines: Iterable[PublishedRow]) -> Iterator[BrokenRule]:
    kinds: dict[tuple[str, ...], dict[str, list[PublishedRow]]] = {}
    for line in lines:
        f = line.fact
        kinds.setdefault((f.method, f.dataset, f.split, f.metric), {}).setdefault(f.features, []).append(line)
    for pair in kinds.values():
        for line in pair.get("binary", ()):
            below = [o for o in pair.get("real", ()) if o.fact.value < line.fact.value]
            if below and len(below) == len(pair["real"]):
                yield BrokenRule("binary-above-real", "hint", line, "above the real-valued " + ", ".join(
                    f"{o.says()} with {o.fact.dimension or 'an unknown number of'} dimensions" for o in below), tuple(below))


def _without_dimension(lines: Iterable[PublishedRow]) -> Iterator[BrokenRule]:
    """One finding per method, features and source, since the length is missing for all their numbers."""
    groups: dict[tuple[str, ...], list[PublishedRow]] = {}
    for line in lines:
        f = line.fact
        if not f.dimension and f.metric.startswith(("mAP@", "Prec@")):
            groups.setdefault((f.method, f.features, f.source), []).append(line)
    for group in groups.values():
        places = dict.fromkeys(f"{line.fact.dataset} {line.fact.split}" for line in group)
        yield BrokenRule("no-dimension", "hint", group[0], f"feature length missing for {len(group)} "
                      f"number{'s' * (len(group) > 1)} on {', '.join(places)}", tuple(group[1:]), False)


def _cutoffs(metrics: dict[str, PublishedRow], kind: str) -> dict[int, PublishedRow]:
    """K -> line of the metrics `kind@K`, by K."""
    found = {int(m[1]): line for name, line in metrics.items() if (m := re.fullmatch(rf"{kind}@([1-9]\d*)", name))}
    return dict(sorted(found.items()))


def _pairs(by_k: dict[int, PublishedRow]) -> Iterator[tuple[tuple[int, PublishedRow], tuple[int, PublishedRow]]]:
    items = list(by_k.items())
    return ((items[i], items[j]) for i in range(len(items)) for j in range(i + 1, len(items)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python reports/lint.py", description=__doc__.splitlines()[0],
                                     epilog="exit status 0: nothing found, 1: findings, 2: the file can't be read. Columns: "
                                            f"{', '.join(published.COLUMNS)}; where wanted table, note.")
    parser.add_argument("file", type=Path, nargs="?", default=published.FILE, metavar="FILE.csv",
                        help="default: the project's own list, reports/published.csv")
    file = parser.parse_args(arguments).file
    try:
        lines = read(file)
    except ReportError as error:
        print(shortened(f"error: {error}", 2000), file=sys.stderr)
        return 2
    found = findings(lines)
    for f in found:
        fact = f.line.fact
        what = f", {fact.dataset} {fact.split}".rstrip() + f", {fact.metric} {fact.value:g}" if f.shows_value else ""
        print(shortened(f"{file.name}, line {f.line.number}: {f.kind}: {f.rule}: {fact.method}{what}: {f.text}", 2000))
    proofs = sum(f.kind == "proof" for f in found)
    print(f"{len(lines)} rows: {proofs} findings by proof, {len(found) - proofs} hints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
