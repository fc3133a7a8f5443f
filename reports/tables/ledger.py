"""The ledger: the measured effect of each deviation of the released code, tie orders, and runs that were reproduced.

In: a checked suite whose suite.json names the deviations. Out: tables; the numbers come from paired runs (training deviations) or
from one trained network scored twice (scoring deviations).
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from reports import naming, paper
from reports.read.measured import NOT_MEASURED, Measured, paired
from reports.read.runs import FinishedRun, Score
from reports.read.schema import Deviation, Task
from reports.read.suite import Suite
from reports.tables.entries import measured_entry, seeds_entry, signed_entry
from reports.tables.table import Column, Entry, Row, Table

SECTIONS = {"training": "Changes training", "scoring": "Changes scoring only", "pictures": "Changes how picture files are read",
            "data": "Data", "fixed": "Mended, nothing to switch", "remaining": "Not as released, even with --as-released"}
ALL = "all"
"""Id of the entry for all deviations at once."""
VARIANT = "tcn"
"""The variant on whose trained networks the scoring deviations are measured."""
TIE_ORDERS = {
    "expected": "expected over random order (what the tables here hold)",
    "best": "best order: relevant photos first", "worst": "worst order: relevant photos last",
    "gallery-order": "order of the gallery's list", "scikit-learn": "scikit-learn: ties share one threshold",
    "released": "unstable sort, as the released code (here: this processor's)",
}
"""Arm of the `ties` deviation -> what it is, in the table's order."""
TIE_METRICS = ("mAP@all", "mAP@200", "Prec@100", "Prec@200", "Prec@R")


@dataclass(frozen=True)
class Worth:
    """The measured effect of one deviation on one task, for one kind of features and one metric."""

    corrected: Measured
    released: Measured
    gap: Measured
    """released - corrected, seed by seed."""

    def reading(self, same_network: bool) -> str:
        """Whether the difference exceeds the spread over seeds, in words.

        For one network scored twice, this is the spread of the differences. For paired runs it is the larger of that and the
        spread of the corrected runs, since two runs differ for many reasons.
        """
        gap = self.gap
        if not gap.n:
            return ""
        if not any(gap.values.values()):
            return "exactly none"
        if gap.n == 1:
            return "one seed: no spread known"
        spread = gap.sd if same_network else max(gap.sd, self.corrected.sd)
        return "within the seeds' spread" if abs(gap.mean) <= spread else "beyond the seeds' spread"


def measure_arm(suite: Suite, task: Task, deviation: str, arm: str, features: str, metric: str) -> Measured:
    """One number of ledger.csv over the seeds of TCN."""
    found = [(run, value) for run in suite.runs_of(task, VARIANT)
             if (value := _values(suite, run).get((deviation, arm, features, metric))) is not None]
    return Measured({run.seed: value for run, value in found}, tuple(sorted(suite.planned.get((task, VARIANT), ()))),
                    runs=tuple(run for run, _ in found))


def worth(suite: Suite, task: Task, deviation: Deviation, metric: str) -> tuple[Worth, str]:
    """The effect of a deviation, and on which features: real-valued, or binary if only codes show it."""
    if deviation.kind == "training":
        arms = [suite.measure(task, variant, Score(metric)) if (variant := deviation.arms.get(arm)) else Measured({}, ())
                for arm in ("corrected", "released")]
        return _worth(*arms), "real"
    if deviation.kind == "scoring":
        for features in ("real", "binary"):
            found = _worth(*(measure_arm(suite, task, deviation.deviation, arm, features, metric)
                             for arm in ("corrected", "released")))
            if any(found.gap.values.values()):
                return found, features
        # If neither kind shows a difference, take the first one that was measured.
        for features in ("real", "binary"):
            found = _worth(*(measure_arm(suite, task, deviation.deviation, arm, features, metric)
                             for arm in ("corrected", "released")))
            if found.gap.n:
                return found, features
    return _worth(Measured({}, ()), Measured({}, ())), ""


def table(suite: Suite, task: Task) -> Table | None:
    """One row per deviation, grouped by kind; the row for all at once comes last. None if the results have no ledger."""
    if not suite.deviations:
        return None
    first, second = paper.headline(task)[:2]
    columns = (Column("The released code", wrap=True, wide=True), Column("Setting: released → corrected", wrap=True),
               Column("How measured", wrap=True), Column("corrected", first, True), Column("released", first, True),
               Column("difference", first, True), Column("above 0", first), Column("difference", second, True),
               Column("Reading", wrap=True), Column("Seeds"))
    rows: list[Row] = []
    for kind, heading in SECTIONS.items():
        block = [_row(suite, task, deviation, first, second) for deviation in suite.deviations
                 if deviation.kind == kind and deviation.deviation != ALL]
        if block:
            rows += [Row((Entry(heading),), "section"), *block]
    whole = [_row(suite, task, deviation, first, second) for deviation in suite.deviations if deviation.deviation == ALL]
    if whole:
        rows += [Row((Entry("All at once"),), "section"), *whole]
    notes = [(f"Difference: released minus corrected {first} on unseen classes, released rule, paired by seed, mean ± standard "
              "deviation over seeds; “above 0” counts the seeds in which the deviation raises the number."),
             ("Training deviations: two runs with the same seeds and one setting changed. A difference within the seeds' spread "
              "(the larger of its own and that of the corrected runs) can't be told from chance. Scoring deviations: the same "
              "trained network scored twice, so that its own spread is the yardstick. Real-valued features; binary codes where "
              "said, since only they show that deviation.")]
    if not paper.is_paper(task):
        notes.append(f"{naming.numbers_of(task)}: they say what a deviation does to this small task, not what it did to the "
                     "published numbers.")
    error = _sampling_error(suite, task)
    if error > 0:
        notes.append(f"Where ties make a number a mean over sampled orders, its standard error is at most {error:.2g}.")
    notes += _starts(suite, task, first)
    notes += [f"{deviation.title[:1].upper()}{deviation.title[1:]}: {deviation.note}" for deviation in suite.deviations
              if deviation.note]
    return Table(f"{task.slug}-ledger", f"{naming.task_title(task)}: what each deviation of the released code is worth "
                                        "(measured)",
                 columns, tuple(rows), tuple(notes))


def ties(suite: Suite, task: Task) -> Table | None:
    """Binary codes under every order of equal Hamming distances; None if that was not measured."""
    grid = {arm: [measure_arm(suite, task, "ties", arm, "binary", metric) for metric in TIE_METRICS] for arm in TIE_ORDERS}
    if not any(m.n for m in grid["expected"]):
        # The corrected arm is the same computation.
        grid["expected"] = [measure_arm(suite, task, "ties", "corrected", "binary", metric) for metric in TIE_METRICS]
    grid = {arm: line for arm, line in grid.items() if any(m.n for m in line)}
    if not grid:
        return None
    used = [i for i in range(len(TIE_METRICS)) if any(line[i].n for line in grid.values())]
    columns = [Column("Order of photos at equal distance", wrap=True)]
    for i in used:
        columns += [Column("value", TIE_METRICS[i], True), Column("to expected", TIE_METRICS[i], True)]
    rows = []
    for arm, line in grid.items():
        entries: list[Entry] = []
        for i in used:
            gap = signed_entry(paired(line[i], grid["expected"][i])) if arm != "expected" and "expected" in grid else Entry("–")
            entries += [measured_entry(line[i]), gap]
        rows.append(Row((Entry(TIE_ORDERS[arm]), *entries, seeds_entry(max(line, key=lambda m: m.n)))))
    title = f"{naming.task_title(task)}: {naming.label(VARIANT)}, binary codes, by tie order (measured)"
    return Table(f"{task.slug}-ties", title, (*columns, Column("Seeds")), tuple(rows),
                 (("The same codes and the same Hamming distances in every row: many photos share a distance, and the order "
                   "among them is nobody's choice. Released rule, unseen classes, mean ± standard deviation over seeds."),))


def reproductions(suite: Suite) -> Table | None:
    """Runs that were reproduced with `--reproduce`, and how much their numbers changed; None if there are none."""
    by_name = {run.name: run for run in suite.runs}
    rows = []
    for r in suite.reproductions:
        run = by_name.get(r.run)
        runs = (run,) if run else ()
        task = Task(r.dataset, r.split)
        largest = Entry("–") if math.isnan(r.largest_difference) else Entry(
            f"{r.largest_difference:.2g}", r.largest_difference, runs=runs)
        tolerance = Entry("–") if math.isnan(r.tolerance) else Entry(f"{r.tolerance:.2g}", r.tolerance)
        rows.append(Row((Entry(f"{naming.task_title(task)}: {naming.short_label(r.variant)}", runs=runs),
                         Entry(str(r.seed), r.seed), Entry(r.verdict, strong=r.verdict in ("differs", "failed")),
                         Entry(str(r.compared), r.compared), largest, tolerance, Entry(r.where or "–"),
                         Entry("same" if r.same_environment else "not the same"), Entry("; ".join(r.differences) or "–"),
                         Entry(r.date[:10]))))
    columns = (Column("Run"), Column("Seed", numeric=True), Column("Verdict"), Column("Compared", numeric=True),
               Column("Largest difference", numeric=True), Column("Tolerance", numeric=True), Column("Where", wrap=True),
               Column("Environment"), Column("What differs", wrap=True), Column("Date"))
    return Table("reproductions", "Reproduced runs", columns, tuple(rows),
                 (("`python benchmarks/run_all.py --reproduce FOLDER`: a run is trained and scored again from its recorded "
                   "settings, and every number is compared with the recorded one. Bit for bit is promised only in the same "
                   "environment, threads included."),)) if rows else None


def measured_deviations(suite: Suite, task: Task) -> list[tuple[Deviation, Worth, str]]:
    """(deviation, its effect on the headline mAP, features) of every deviation with a measured difference; the entry for all at
    once comes last."""
    metric = paper.retrieval_metric(task)
    order = sorted(suite.deviations, key=lambda t: (t.deviation == ALL, list(SECTIONS).index(t.kind)))
    found = [(deviation, *worth(suite, task, deviation, metric)) for deviation in order]
    return [(deviation, w, features) for deviation, w, features in found if w.gap.n]


def _row(suite: Suite, task: Task, deviation: Deviation, first: str, second: str) -> Row:
    found, features = worth(suite, task, deviation, first)
    other = _on(suite, task, deviation, second, features)
    same_network = deviation.kind == "scoring"
    n = found.gap.n
    positive = Entry(f"{sum(v > 0 for v in found.gap.values.values())} of {n}") if n else Entry("–")
    what = deviation.title[:1].upper() + deviation.title[1:] + (f": {deviation.consequence}" if deviation.consequence else "")
    setting = f"{deviation.setting}: " if deviation.setting else ""
    if deviation.released or deviation.corrected:
        setting += f"{deviation.released or '–'} → {deviation.corrected or '–'}"
    common = [Entry(what), Entry(setting.removesuffix(": ") or "–"), Entry(_how(suite, task, deviation, found, features))]
    if not n:
        reading = "" if _applies(deviation, task) else f"the released code does so on {_names(deviation.datasets)} only"
        return Row((*common, *(Entry("–") for _ in range(5)), Entry(reading), Entry("–")))
    reading = found.reading(same_network)
    if not _applies(deviation, task):
        reading += f"; the released code does so on {_names(deviation.datasets)} only"
    return Row((*common, measured_entry(_over(found.corrected, found.gap)),
                measured_entry(_over(found.released, found.gap)), signed_entry(found.gap), positive, signed_entry(other.gap),
                Entry(reading), Entry(found.gap.seeds, runs=_over(found.released, found.gap).runs)))


def _on(suite: Suite, task: Task, deviation: Deviation, metric: str, features: str) -> Worth:
    """`worth` of another metric, on features that are already chosen."""
    if deviation.kind == "scoring" and features:
        return _worth(*(measure_arm(suite, task, deviation.deviation, arm, features, metric)
                        for arm in ("corrected", "released")))
    return worth(suite, task, deviation, metric)[0]


def _how(suite: Suite, task: Task, deviation: Deviation, found: Worth, features: str) -> str:
    seeds = f"{found.gap.n} seed{'s' * (found.gap.n != 1)}" + (", binary codes" if features == "binary" else "")
    if found.gap.n:
        if deviation.kind == "scoring":
            return f"same network, {seeds}"
        against = str(deviation.arms["corrected"])
        return f"paired runs, {seeds}" + (f", against “{naming.short_label(against)}”" if against != VARIANT else "")
    if deviation.kind == "scoring":
        reasons = dict.fromkeys(note for run in suite.runs_of(task, VARIANT)
                                for note in _rows(suite, run, deviation.deviation)["note"] if note)
        if reasons:
            return f"not on this data set: {'; '.join(reasons)}"
    other = {"data": "nothing to measure", "pictures": "hangs on the files: data check counts them", "fixed": "mended",
             "remaining": "nothing to switch"}
    return other.get(deviation.kind, NOT_MEASURED)


def _applies(deviation: Deviation, task: Task) -> bool:
    return not deviation.datasets or task.dataset in deviation.datasets


def _names(datasets: tuple[str, ...]) -> str:
    return " and ".join(naming.TITLES.get(name, name).removesuffix(" Extended") for name in datasets)


def _worth(corrected: Measured, released: Measured) -> Worth:
    return Worth(corrected, released, paired(released, corrected))


def _over(measured: Measured, gap: Measured) -> Measured:
    """The same number over only those seeds that the difference has, so that the columns add up."""
    return Measured({seed: measured.values[seed] for seed in gap.values}, gap.expected,
                    runs=tuple(run for run in measured.runs if run.seed in gap.values))


def _values(suite: Suite, run: FinishedRun) -> dict[tuple[str, str, str, str], float]:
    """(deviation, arm, features, metric) -> value under the released rule, where the run's ledger.csv holds one."""
    if ("ledger values", run.name) not in suite.memory:
        frame = suite.ledger(run)
        there = [] if frame is None else frame[(frame["protocol"] == "released") & frame["value"].notna()].to_dict("records")
        suite.memory["ledger values", run.name] = {
            (row["deviation"], row["arm"], row["features"], row["metric"]): float(row["value"]) for row in there}
    return suite.memory["ledger values", run.name]


def _rows(suite: Suite, run: FinishedRun, deviation: str) -> pd.DataFrame:
    frame = suite.ledger(run)
    if frame is None:
        return pd.DataFrame({name: [] for name in ("deviation", "arm", "features", "protocol", "metric", "note", "value")})
    return frame[frame["deviation"] == deviation]


def _starts(suite: Suite, task: Task, metric: str) -> list[str]:
    """A sentence on how much the start of ITQ alone changes a number; none if that was not measured."""
    spreads: list[float] = []
    starts = 0
    for run in suite.runs_of(task, VARIANT):
        rows = _rows(suite, run, "itq-start")
        values = rows.loc[rows["arm"].astype(str).str.startswith("start-") & (rows["metric"] == metric), "value"].dropna()
        if len(values) > 1:
            spreads.append(float(values.std()))
            starts = len(values)
    if not spreads:
        return []
    between = f"{min(spreads):.4f}" + (f" to {max(spreads):.4f}" if len(spreads) > 1 else "")
    return [f"ITQ from {starts} starts on the same features: the start alone moves {metric} of the binary codes by a standard "
            f"deviation of {between} ({len(spreads)} run{'s' * (len(spreads) != 1)}). Compare binary codes over several starts."]


def _sampling_error(suite: Suite, task: Task) -> float:
    """Largest standard error, under the released rule, of any number of the ledger's runs."""
    variants = {VARIANT, *(v for deviation in suite.deviations for v in deviation.arms.values() if v)}
    frames = [run.metrics for v in sorted(variants) for run in suite.runs_of(task, v)]
    return max((float(f.loc[f["protocol"] == "released", "standard_error"].max()) for f in frames), default=0.0)
