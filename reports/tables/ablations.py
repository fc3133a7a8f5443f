"""Tables beside the main comparison: ablation, coupled parts, sharing weights, dimensions, other methods, time.

Rows that were not measured have a table of their own. In: a checked suite. Out: tables. A row without runs says "not measured";
each mean names its seeds (s0–5: seeds 0 to 5).
"""
from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reports import naming, paper, published
from reports.read.measured import NOT_MEASURED, Measured, paired
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables.entries import (
    difference_entry,
    dim_entry,
    duration,
    duration_entry,
    measured_entry,
    reference_entry,
    seed_names,
    seeds_entry,
    signed_entry,
)
from reports.tables.table import Column, Entry, Row, Table

SEEDS = "Mean ± standard deviation over seeds; in brackets the seeds it rests on (s0–5: seeds 0 to 5), one seed without spread."
DIFFERENCE = "The difference to TCN is taken seed by seed, over the seeds that both rows have, and then averaged."
HOW = {"hard": "one", "soft": "tied", "none": "apart", "joint": "one batch", "separate": "two calls"}
"""Value of a coupling setting -> its word in the table."""
_TCN = {**dict.fromkeys(("stem", "stage1", "stage2", "stage3", "stage4"), "soft"), "batch_norm_affine": "none",
        "batch_norm_statistics": "none", "embedding": "hard", "call": "separate"}
_STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
COUPLED: dict[str, dict[str, str]] = {
    "tcn": _TCN,
    "nws": {**_TCN, **dict.fromkeys(_STAGES, "none")},
    **{f"couple-{last}": {**_TCN, **dict.fromkeys(_STAGES[_STAGES.index(last) + 1:], "none")} for last in _STAGES[:-1]},
    "couple-norms": {**_TCN, "batch_norm_affine": "soft"},
    "tcn-shared-bn": {**_TCN, "batch_norm_affine": "hard", "batch_norm_statistics": "hard"},
    "hws-separate": dict.fromkeys(_TCN, "hard") | {"call": "separate"},
    "hws": dict.fromkeys(_TCN, "hard") | {"call": "joint"},
    "tcn-own-embedding": {**_TCN, "embedding": "none"},
}
"""How the parts of a variant's encoders are meant to be coupled; used for variants without runs."""


@dataclass(frozen=True)
class Extra:
    """A table beyond the plain report: its name on the command line, its title, and the rows that only it asks for."""

    group: str
    title: str
    variants: tuple[str, ...]


def extras(suite: Suite, task: Task) -> list[Extra]:
    """The tables that need runs beyond TCN, HWS, NWS and the untrained baselines, each with those runs' variants."""
    main = (*paper.PAPER_ORDER, *paper.UNTRAINED_BASELINES)
    rows = {
        "ablation": [row.variant for row in paper.ABLATION],
        "coupling": [*paper.COUPLING, *paper.COUPLING_BESIDE],
        "weights": [variant for _, variant in paper.weights(suite, task)],
        "dimensions": [variant for _, variant in paper.dimensions(suite, task)],
        "methods": paper.METHODS,
        "controls": paper.CONTROLS,
    }
    titles = {name: title for name, title, _ in paper.GROUPS}
    return [Extra(name, titles[name], tuple(v for v in dict.fromkeys(variants) if v not in main))
            for name, variants in rows.items()]


def asked_for(suite: Suite, task: Task, group: str) -> bool:
    """Whether any row that only this table asks for was planned or found, and the task has a finished run."""
    there = set(suite.variants(task))
    extra = next(e for e in extras(suite, task) if e.group == group)
    return any(run.task == task for run in suite.runs) and any(v in there for v in extra.variants)


def ablation(suite: Suite, task: Task) -> Table | None:
    """The paper's 13 rows in its three groups, on the paper's data sets beside its numbers; None if no row was asked for."""
    facts = {(p.method, p.metric): p.value for p in published.facts()
             if p.table == "ablation" and Task(p.dataset, p.split) == paper.paper_task(task)}
    if not facts and not asked_for(suite, task, "ablation"):
        return None
    metrics = paper.headline(task)[:2]
    columns = [Column("Row", wrap=True), Column("D", numeric=True)]
    for metric in metrics:
        columns += [Column(rule, f"{metric}, measured", True) for rule in paper.RULES]
        if facts:
            columns.append(Column("published", f"{metric}, {published.SHORT_SOURCES['tcn-ablation']}", True))
    columns += [Column("difference to TCN", f"{metrics[0]}, same seeds", True), Column("Seeds")]
    rows: list[Row] = []
    for group in dict.fromkeys(row.group for row in paper.ABLATION):
        rows.append(Row((Entry(group),), "section"))
        for row in (row for row in paper.ABLATION if row.group == group):
            entries = [Entry(row.label), dim_entry(suite, task, row.variant)]
            for metric in metrics:
                entries += _by_rule(suite, task, row.variant, metric)
                if facts:
                    value = facts.get((row.method, metric))
                    entries.append(Entry("–") if value is None else Entry(f"{value:.3f}", value))
            first = suite.measure(task, row.variant, Score(metrics[0]))
            rows.append(Row((*entries, difference_entry(suite, task, row.variant, metrics[0]), seeds_entry(first))))
    chance = [entry for metric in metrics for entry in
              (*_chance(suite, task, [Score(metric, rule) for rule in paper.RULES]), *[Entry("")] * bool(facts))]
    rows.append(Row((Entry("chance"), Entry(""), *chance, Entry(""), Entry("")), "reference"))
    notes = [f"Real-valued features, unseen classes. {SEEDS} {DIFFERENCE}",
             ("BHT: batch-hard triplet on the features; SR: a separate regression to the word vectors; SBHT: the paper's "
              "semantic metric. The last row of each group is TCN itself."),
             ("hard a:b is not explained where we could read it; our reading: a weighs the class loss of the sketches, b that of "
              "the photos.")]
    if facts:
        notes.append("Published values are the paper's, from one seed; it does not state the feature length of this "
                     "table, and 64 is an inference.")
    return Table(f"{task.slug}-ablation", f"{naming.task_title(task)}: ablation, the paper's 13 rows"
                 + ("" if facts else " (measured)"), tuple(columns), tuple(rows), tuple(notes))


def coupling(suite: Suite, task: Task) -> Table | None:
    """Which parts of the two encoders are one, tied or apart, from nothing coupled to everything; None if no row was asked
    for."""
    if not asked_for(suite, task, "coupling"):
        return None
    metric = paper.retrieval_metric(task)
    columns = [Column("Variant", wrap=True), *(Column(name, "how the two encoders' parts stand")
                                               for name in paper.COUPLED_PARTS.values()),
               *(Column(rule, metric, True) for rule in paper.RULES),
               Column("difference to TCN", f"{metric}, same seeds", True), Column("Seeds")]
    rows: list[Row] = []
    for heading, variants in (("From nothing coupled to everything", paper.COUPLING),
                              ("Beside them: the embedding apart too", paper.COUPLING_BESIDE)):
        rows.append(Row((Entry(heading),), "section"))
        for variant in variants:
            parts = [Entry(HOW.get(how, how), strong=how in ("hard", "soft")) for how in coupled_parts(suite, task, variant)]
            first = suite.measure(task, variant, Score(metric))
            rows.append(Row((Entry(naming.label(variant)), *parts, *_by_rule(suite, task, variant, metric),
                             difference_entry(suite, task, variant, metric), seeds_entry(first))))
    rows.append(Row((Entry("chance"), *(Entry("") for _ in paper.COUPLED_PARTS),
                     *_chance(suite, task, [Score(metric, rule) for rule in paper.RULES]), Entry(""), Entry("")), "reference"))
    return Table(f"{task.slug}-coupling", f"{naming.task_title(task)}: what is coupled, from nothing to everything (measured)",
                 tuple(columns), tuple(rows),
                 (("The paper's criterion: couple what holds knowledge common to both modalities, keep apart what is specific to "
                   "one. one: a single set of parameters; tied: two sets, held together by the sharing loss; apart: two free "
                   "sets."),
                  ("BN: batch norms of the encoders. calls: sketches and photos pass in one batch, or each in a call of its own, "
                   "normalised by its own batch."),
                  ("One set of batch norms with two calls is trained on the statistics of each modality's own batches and tested "
                   "on the mean of both: the two rows of hard sharing, which differ in the calls alone, show what that costs, "
                   "and a row with shared batch norms pays it too."),
                  f"Real-valued features, unseen classes. {SEEDS} {DIFFERENCE}"))


def coupled_parts(suite: Suite, task: Task, variant: str) -> list[str]:
    """The setting of every coupled part in the order of `paper.COUPLED_PARTS`: that of the runs, or, without runs, the intended
    one."""
    runs = suite.runs_of(task, variant)
    meant = COUPLED.get(variant, {})
    return [str(setting(runs[0].config, f"coupling.{part}", meant.get(part, "?")) if runs else meant.get(part, "?"))
            for part in paper.COUPLED_PARTS]


def sharing_weights(suite: Suite, task: Task) -> Table | None:
    """mAP over the grid of sharing weights, on validation and unseen classes; None if no row of the grid was asked for."""
    if not asked_for(suite, task, "weights"):
        return None
    metric = paper.retrieval_metric(task)
    own = paper.own_weight(suite, task)
    items = paper.weights(suite, task)
    validation = {weight: suite.measure(task, variant, Score(metric, classes="validation")) for weight, variant in items}
    best, over = _highest({w: m for w, m in validation.items() if m.n})
    rows = []
    for weight, variant in items:
        remarks = (["the paper's"] if weight == paper.PAPER_WEIGHT else []) + \
                  ([f"highest on validation{over}"] if weight == best else []) + \
                  (["used by TCN"] if weight == own else [])
        epochs = sorted({str(setting(c.config, "training.epochs", "?")) for c in suite.runs_of(task, variant)})
        rows.append(Row((Entry(f"{weight:g}", weight), Entry(", ".join(epochs) or "–"), dim_entry(suite, task, variant),
                         measured_entry(validation[weight], name_seeds=True), *_by_rule(suite, task, variant, metric),
                         difference_entry(suite, task, variant, metric),
                         seeds_entry(suite.measure(task, variant, Score(metric))), Entry(", ".join(remarks)))))
    chance = _chance(suite, task, [Score(metric, classes="validation"), *(Score(metric, rule) for rule in paper.RULES)])
    rows.append(Row((Entry("chance"), Entry(""), Entry(""), *chance, Entry(""), Entry(""), Entry("")), "reference"))
    columns = (Column("Weight", numeric=True), Column("Epochs", numeric=True), Column("D", numeric=True),
               Column("released", f"{metric}, validation classes", True),
               *(Column(rule, f"{metric}, unseen classes", True) for rule in paper.RULES),
               Column("difference to TCN", f"{metric}, unseen, same seeds", True), Column("Seeds"), Column("Remark", wrap=True))
    return Table(f"{task.slug}-sharing-weight", f"{naming.task_title(task)}: weight of the sharing loss (measured)",
                 columns, tuple(rows),
                 (("The weight is chosen on the validation classes. The unseen columns are shown for the reader and "
                  "chose nothing."),
                  (f"Real-valued features. {SEEDS} Which weight is highest on validation is told over seeds that all measured "
                  "weights have, where there are any. The row at TCN's own weight holds TCN's own runs.")))


def dimensions(suite: Suite, task: Task) -> Table | None:
    """TCN at every length of its features, real-valued and binary, under both protocols; None if no row was asked for."""
    if not asked_for(suite, task, "dimensions"):
        return None
    metrics = paper.headline(task)[:2]
    columns = [Column("Features"), *(Column(rule, metric, True) for metric in metrics for rule in paper.RULES),
               Column("difference to TCN", f"{metrics[0]}, same seeds", True), Column("Seeds")]
    rows: list[Row] = []
    for kind, heading, unit in (("real", "Real-valued features", "dimensions"),
                                ("binary", "Binary codes (ITQ), Hamming distance", "bits")):
        rows.append(Row((Entry(heading),), "section"))
        for dimension, variant in paper.dimensions(suite, task):
            own = suite.measure(task, variant, Score(metrics[0], features=kind))
            gap = paired(own, suite.measure(task, "tcn", Score(metrics[0], features=kind)))
            rows.append(Row((Entry(f"{dimension} {unit}", dimension),
                             *(entry for metric in metrics for entry in _by_rule(suite, task, variant, metric, kind)),
                             Entry("–") if variant == "tcn" else signed_entry(gap), seeds_entry(own))))
        chance = _chance(suite, task, [Score(metric, rule, kind) for metric in metrics for rule in paper.RULES])
        rows.append(Row((Entry("chance"), *chance, Entry(""), Entry("")), "reference"))
    return Table(f"{task.slug}-dimensions", f"{naming.task_title(task)}: TCN by the length of its features (measured)",
                 tuple(columns), tuple(rows),
                 (f"Unseen classes. {SEEDS} {DIFFERENCE}",
                  "The difference is to TCN's own length and the same kind of features. Everything but the length is TCN's own."))


def methods(suite: Suite, task: Task) -> Table | None:
    """Other methods under the same harness, beside TCN, HWS and the untrained baselines: what each is, and how it differs from
    its source. None if no row was asked for.
    """
    if not asked_for(suite, task, "methods"):
        return None
    first, second = paper.headline(task)[:2]
    columns = (Column("Method", wrap=True), Column("What it is, and what is not faithful to its source", wrap=True, wide=True),
               Column("D", numeric=True), *(Column(rule, first, True) for rule in paper.RULES), Column("released", second, True),
               Column("released", f"{first}, binary", True), Column("difference to TCN", f"{first}, same seeds", True),
               Column("Seeds"))
    untrained_rows = [v for v in paper.UNTRAINED_BASELINES if v in suite.variants(task)]
    rows: list[Row] = []
    for heading, variants in (("Trained", ("tcn", "hws", *(v for v in paper.METHODS if v not in paper.UNTRAINED))),
                              ("Not trained", (*(v for v in paper.METHODS if v in paper.UNTRAINED), *untrained_rows))):
        rows.append(Row((Entry(heading),), "section"))
        for variant in variants:
            what, missing = naming.METHOD_TEXTS.get(variant, ("No training: an untrained baseline.", ""))
            text = what + (f" Not faithful: {missing[:1].lower()}{missing[1:]}" if missing else "")
            scores = [Score(second), Score(first, features="binary")]
            rows.append(Row((Entry(naming.label(variant)), Entry(text), dim_entry(suite, task, variant),
                             *_by_rule(suite, task, variant, first),
                             *(measured_entry(suite.measure(task, variant, score), name_seeds=True) for score in scores),
                             difference_entry(suite, task, variant, first),
                             seeds_entry(suite.measure(task, variant, Score(first))))))
    chance = _chance(suite, task, [*(Score(first, rule) for rule in paper.RULES), Score(second), Score(first, features="binary")])
    rows.append(Row((Entry("chance"), Entry(""), Entry(""), *chance, Entry(""), Entry("")), "reference"))
    return Table(f"{task.slug}-methods", f"{naming.task_title(task)}: other methods under the same harness (measured)",
                 columns, tuple(rows),
                 (("Every method has the same encoder, data, pairs, number of steps and protocol as TCN and is trained here; "
                   "none of these numbers is its authors', and none was tuned as TCN was."),
                  f"Real-valued features unless said otherwise, unseen classes. {SEEDS} {DIFFERENCE}"))


def further(suite: Suite, task: Task) -> Table | None:
    """Variants that no other table names; None if there are none."""
    variants = paper.other_variants(suite, task)
    if not variants:
        return None
    metrics = paper.headline(task)
    columns = (Column("Variant", wrap=True), Column("D", numeric=True),
               *(Column(rule, metric, True) for metric in metrics for rule in paper.RULES),
               Column("difference to TCN", f"{metrics[0]}, same seeds", True), Column("Seeds"))
    rows = [Row((Entry(naming.label(v)), dim_entry(suite, task, v),
                 *(entry for metric in metrics for entry in _by_rule(suite, task, v, metric)),
                 difference_entry(suite, task, v, metrics[0]), seeds_entry(suite.measure(task, v, Score(metrics[0])))))
            for v in variants]
    chance = _chance(suite, task, [Score(metric, rule) for metric in metrics for rule in paper.RULES])
    rows.append(Row((Entry("chance"), Entry(""), *chance, Entry(""), Entry("")), "reference"))
    return Table(f"{task.slug}-further", f"{naming.task_title(task)}: further variants (measured)", columns, tuple(rows),
                 (f"Real-valued features, unseen classes. {SEEDS} {DIFFERENCE}",))


def not_measured(suite: Suite, task: Task) -> Table | None:
    """The tables without any planned or existing row of their own, and the commands that measure them; None if there are none."""
    missing = [e for e in extras(suite, task) if not asked_for(suite, task, e.group)]
    if not missing:
        return None
    whole_set, part = naming.part_of(task.dataset)
    profile = "paper" if paper.is_paper(task) else suite.profile
    where = f"--profile {profile} --datasets {whole_set}/{task.split} " if paper.is_paper(task) or part else ""
    where += f"--sample {size} " if (size := naming.sample_size(task.dataset)) else ""
    seeds = "" if paper.is_paper(task) else f" --seeds {min((run.seed for run in suite.runs if run.task == task), default=0)}"
    rows = [Row((Entry(e.title), Entry("; ".join(naming.short_label(v) for v in e.variants)), Entry(NOT_MEASURED),
                 Entry(f"python benchmarks/run_all.py {where}--variants {e.group}{seeds}"))) for e in missing]
    whole = () if paper.is_paper(task) or part else (
        "`make paper-on-a-laptop` measures all of them; it takes hours and may be interrupted and called again.",)
    return Table(f"{task.slug}-not-measured", f"{naming.task_title(task)}: not measured here",
                 (Column("Table"), Column("Its own rows", wrap=True, wide=True), Column("State"), Column("Command", wrap=True)),
                 tuple(rows), (*whole, "Each command, with the --data-root, --words and --output of the runs here, adds its rows "
                               "to the same results; what is there is not run again."))


def time_taken(suite: Suite) -> Table | None:
    """Runs, seeds and seconds per group of rows, from each run's provenance; None without finished runs."""
    if not suite.runs:
        return None
    columns = (Column("Data set"), Column("Rows"), Column("Variants", numeric=True), Column("Runs", numeric=True),
               Column("Seeds"),
               Column("Steps of a run", numeric=True), Column("Training of a run, median", numeric=True),
               Column("Training in all", numeric=True), Column("With data and scoring", numeric=True))
    titles = {name: title for name, title, _ in paper.GROUPS}
    rows = []
    for task in suite.tasks():
        for group, title in titles.items():
            runs = [c for c in suite.runs if c.task == task and paper.group_of(suite, c.variant) == group]
            if runs:
                rows.append(Row((Entry(naming.task_title(task)), Entry(title), *_spent(runs))))
    if len(rows) > 1:
        rows.append(Row((Entry("all"), Entry(""), *_spent(suite.runs)), "reference"))
    unknown = sum(c.provenance.train_seconds is None for c in suite.runs)
    notes = [("Sums of what each run took by itself; with several runs at once, less time passes on the "
             "clock. A variant counts under the first table that names it.")]
    devices = sorted({c.provenance.device or "?" for c in suite.runs})
    notes.append(f"Devices: {'; '.join(devices)}.")
    if unknown:
        notes.append(f"{unknown} runs do not say how long they took.")
    return Table("time", "The time it took", columns, tuple(rows), tuple(notes))


def time_sentence(suite: Suite) -> str:
    """One sentence: runs, training time and whole time over all finished runs; empty without runs."""
    if not suite.runs:
        return ""
    trained = sum(c.trained for c in suite.runs)
    return (f"{len(suite.runs)} finished runs, {trained} of them trained: {duration(_total(suite.runs, 'train_seconds'))} of "
            f"training and {duration(_total(suite.runs, 'total_seconds'))} in all, added up over runs.")


def _spent(runs: Sequence[FinishedRun]) -> list[Entry]:
    trained = [c for c in runs if c.trained]
    steps = sorted({steps for c in trained if (steps := c.provenance.optimizer_steps)})
    seeds = Measured(dict.fromkeys((c.seed for c in runs), 0.0), ())
    seconds = [taken for c in trained if (taken := c.provenance.train_seconds) is not None]
    median = statistics.median(seconds) if seconds else None
    variants = len({c.variant for c in runs})
    whole = [_total(runs, "train_seconds"), _total(runs, "total_seconds")]
    shown = "–" if not steps else f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,}–{steps[-1]:,}"
    return [Entry(str(variants), variants), Entry(str(len(runs)), len(runs)), Entry(seed_names(seeds)),
            Entry(shown, float(steps[0])) if len(steps) == 1 else Entry(shown),
            duration_entry(median), *map(duration_entry, whole)]


def _total(runs: Iterable[FinishedRun], key: Literal["train_seconds", "total_seconds"]) -> float:
    return float(sum(getattr(run.provenance, key) or 0.0 for run in runs))


def _by_rule(suite: Suite, task: Task, variant: str, metric: str, kind: str = "real") -> list[Entry]:
    """One entry per rule, naming its seeds."""
    return [measured_entry(suite.measure(task, variant, Score(metric, rule, kind)), name_seeds=True) for rule in paper.RULES]


def _chance(suite: Suite, task: Task, scores: Sequence[Score]) -> list[Entry]:
    """Chance level of each score, over all finished rows of the task."""
    entries = []
    for score in scores:
        found = [m for m in (suite.measure(task, v, score) for v in suite.variants(task)) if m.n]
        levels = tuple(sorted({round(c, 9) for m in found for c in m.chance}))
        entries.append(reference_entry(levels, runs=tuple(run for m in found for run in m.runs)))
    return entries


def _highest(measured: dict[float, Measured]) -> tuple[float | None, str]:
    """The row with the highest mean over the seeds that all rows have (over all seeds if they have none in common), and a
    remark."""
    if not measured:
        return None, ""
    common = set.intersection(*(set(m.values) for m in measured.values()))
    if common:
        means = {key: statistics.fmean(m.values[seed] for seed in common) for key, m in measured.items()}
        alike = all(set(m.values) == common for m in measured.values())
        return max(means, key=means.__getitem__), "" if alike else f" (seed{'s' * (len(common) > 1)} " \
            f"{', '.join(map(str, sorted(common)))})"
    return max(measured, key=lambda key: measured[key].mean), " (not of the same seeds)"

