"""Checked runs -> one tidy frame and one caption per figure; `every` gives all of a task in the order of the page.

What a figure shows (which runs, which classes, how smoothed) is decided here and in `feature_frames`, and its caption says so.
How it looks is decided in `draw`. A builder returns None where there is nothing to draw.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from reports import naming, paper
from reports.figure_kinds import FigureData, reference_baseline, seed_count, with_common_seeds
from reports.figures.feature_frames import layer_distances, retrieval, singular_values, tsne
from reports.read.files import ReportError, shown
from reports.read.runs import FinishedRun, Score, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.tables import claims, comparison, ledger
from reports.wording import listed
from tcn.files.atomic import StorageError

COUPLING = {
    "nws": "nothing (NWS)",
    "couple-stem": "stem",
    "couple-stage1": "stem to stage 1",
    "couple-stage2": "stem to stage 2",
    "couple-stage3": "stem to stage 3",
    "tcn": "all convolutions (TCN)",
    "couple-norms": "and batch norms’ scale, shift",
    "tcn-shared-bn": "and batch norms, one set",
    "hws-separate": "all one, hard: two calls",
    "hws": "all one, hard: one call (HWS)",
    "tcn-own-embedding": "as TCN, embedding not shared",
}
"""Variant -> what it couples, from nothing to everything (the paper's general criterion). The last one is outside this order."""
HARDEST = 12
"""Largest number of classes that are named."""


def every(suite: Suite, task: Task, cache: Path) -> list[FigureData]:
    """All figures of a task that have something to show, in the order of BUILDERS; `cache` is for t-SNE."""
    made = (_made(build.__name__, suite, task, partial(build, suite, task, *((cache,) if build is tsne else ())))
            for build in BUILDERS)
    return [figure for figure in made if figure is not None]


def _made(kind: str, suite: Suite, task: Task, build: Callable[[], FigureData | None]) -> FigureData | None:
    """The figure; None, with a note in `left_out`, if it can't be made although its numbers passed all checks."""
    try:
        return build()
    except (ReportError, StorageError):
        raise
    except Exception as error:
        suite.left_out.append((f"figure {task.slug}, {kind}", "can't be worked out of these runs "
                               f"({type(error).__name__}: {shown(str(error), 200)})"))
        return None


def overview(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, dim, classes, seed, value, chance, metric: one row per seed."""
    rows = []
    metric = paper.retrieval_metric(task)
    # Feature lengths other than the paper's two main ones have a figure of their own.
    main = [v for v in paper.main_variants(suite, task) if not v.startswith("tcn-dim-") or v == "tcn-dim-512"]
    untrained_rows = [v for v in main if paper.is_untrained(v)]
    ablation = [row.variant for row in paper.ABLATION]
    for variant in dict.fromkeys((*(v for v in main if v not in untrained_rows), *paper.CONTROLS, *ablation, *paper.METHODS,
                                  *paper.other_variants(suite, task), *untrained_rows)):
        for classes in ("unseen", "validation"):
            measured = suite.measure(task, variant, Score(metric, classes=classes))
            chance = measured.chance[0] if measured.chance else math.nan
            rows += [(variant, suite.dim(task, variant), classes, seed, value, chance)
                     for seed, value in measured.values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "dim", "classes", "seed", "value", "chance"])
    frame["metric"] = metric
    several = frame.groupby("variant")["seed"].nunique().max() > 1
    return FigureData("overview", f"{task.slug}-overview", "Where each variant stands",
                      f"{metric} (released rule, real-valued) of every variant and untrained baseline but those that figures of "
                      f"coupling, sharing weight, feature length and the ledger show, {seed_count(frame)}. "
                      + ("Small marks: seeds; large marks: their mean. " if several else "")
                      + "Dotted line: chance. Filled marks are trained, open ones are not.", frame)


def motivation(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, quantity, at, value, smoothed: per iteration and per epoch, in one long frame."""
    rows: list[pd.DataFrame] = []
    seeds: dict[str, int] = {}
    window = 1
    for variant in paper.TRAINED:
        for run in suite.runs_of(task, variant):
            history = suite.frame(run, "history.csv")
            if history is not None:
                rows += [_long(run, quantity, history["epoch"], history[column]) for quantity, column in
                         (("seen-class accuracy", "seen_accuracy"), ("validation mAP", "validation_map"))]
            if variant == "nws" or variant in seeds:
                continue
            steps = suite.frame(run, "steps.csv")
            if steps is not None:
                seeds[variant] = run.seed
                window = max(5, len(steps) // 25)
                rows += [_long(run, quantity, steps["step"], steps[column], window) for quantity, column in
                         (("class loss, sketches", "class_sketch"), ("class loss, photos", "class_photo"))]
    rows = [frame for frame in rows if len(frame)]
    if not rows:
        return None
    shown = ", ".join(f"{naming.short_label(v)} seed {s}" for v, s in seeds.items())
    frame = pd.concat(rows, ignore_index=True)
    epochs = frame[frame["quantity"].isin(("seen-class accuracy", "validation mAP"))]
    told = [text for quantity, text in (
        ("seen-class accuracy", "class accuracy on held-out sketches of seen classes"),
        ("validation mAP", "mAP@all on validation classes, which are never trained on")) if quantity in set(frame["quantity"])]
    caption = ""
    if shown:
        caption = (f"Per iteration: class loss (cross-entropy, unweighted) of every training batch, faint, and its mean over "
                   f"{window} iterations, strong (one run each: {shown}). ")
    if told:
        several = epochs.groupby("variant")["seed"].nunique().max() > 1
        caption += (f"Per epoch: {' and '.join(told)}, {seed_count(epochs)}; epoch 0 is before training."
                    + (" Lines: means over seeds; bands: lowest to highest seed." if several else ""))
    return FigureData("motivation", f"{task.slug}-motivation", "Learning curves: hard against soft sharing", caption, frame)


def publishers(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, view, seed, value, chance, metric: one row per seed; None if all queries have the same source."""
    metric = paper.retrieval_metric(task)
    views = comparison.publisher_views(suite, task)
    if len(views) < 2:
        return None
    variants = [v for v in (*paper.TRAINED, *reference_baseline(suite, task)) if suite.runs_of(task, v)]
    rows = []
    for variant in variants:
        for source, gallery in views:
            measured = suite.measure(task, variant, Score(metric, source=source, gallery=gallery))
            chance = measured.chance[0] if measured.chance else math.nan
            rows += [(variant, comparison.view_label(source, gallery), seed, value, chance, metric)
                     for seed, value in measured.values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "view", "seed", "value", "chance", "metric"])
    several = frame.groupby("variant")["seed"].nunique().max() > 1
    return FigureData("publishers", f"{task.slug}-publishers", "Whose drawings are found",
                      f"{metric} (released rule, real-valued, unseen classes) by publisher of the query drawing, for the "
                      f"trained variants and the untrained baseline that is best on the validation classes, {seed_count(frame)}. "
                      + ("Bars: means over seeds; whiskers: ± one standard deviation; dots: seeds. " if several else "")
                      + "Short dotted lines: chance.", frame)


def precision_recall(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, recall, precision, chance: one curve per seed of the trained variants and of the best untrained
    baseline."""
    frames = []
    for variant in (*paper.TRAINED, *reference_baseline(suite, task)):
        chance = suite.measure(task, variant, Score("Prec@100")).chance
        for run in suite.runs_of(task, variant):
            curve = suite.precision_recall(run)
            if curve is not None:
                curve = curve[curve["features"] == "real"]
                frames.append(pd.DataFrame({"variant": variant, "seed": run.seed, "recall": curve["recall"],
                                            "precision": curve["precision"], "chance": chance[0] if chance else math.nan}))
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    several = frame.groupby("variant")["seed"].nunique().max() > 1
    return FigureData("precision_recall", f"{task.slug}-precision-recall", "Precision over recall",
                      "Precision at each level of recall: the highest at that recall or any above, mean over the queries of "
                      f"unseen classes; real-valued features, {seed_count(frame)}."
                      + (" Lines: means over seeds; bands: lowest to highest seed." if several else "")
                      + (" Dotted line: chance." if frame["chance"].notna().any() else ""), frame)


def class_precision(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, class, value, hardness, metric: AP of each unseen class; hardness 0 is the hardest class."""
    metric = paper.retrieval_metric(task)
    rows = []
    for variant in paper.TRAINED:
        for run in suite.runs_of(task, variant):
            means = suite.per_class(run, Score(metric))
            if means is not None:
                rows += [(variant, run.seed, str(name), float(value)) for name, value in means.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "seed", "class", "value"])
    # Seeds are averaged first, so that a variant with more seeds has no more weight in the order of hardness.
    by_variant = frame.groupby(["class", "variant"])["value"].mean().groupby("class").mean()
    order = by_variant.sort_values(kind="stable").index
    frame["hardness"] = frame["class"].map({name: place for place, name in enumerate(order)})
    frame["metric"] = metric.removeprefix("m")
    named = min(HARDEST, len(order))
    return FigureData("class_precision", f"{task.slug}-class-precision", "Which classes are hard",
                      f"Mean {metric.removeprefix('m')} of the queries of each unseen class (released rule, real-valued), "
                      f"{seed_count(frame)}. Left: all {len(order)} classes, each variant's in its own order, means over seeds. "
                      f"Right: the {named} classes that are hardest on average over the variants; marks: means over seeds; "
                      "thin lines: lowest to highest seed.", frame)


def dimensions(suite: Suite, task: Task) -> FigureData | None:
    """Columns: dim, features, seed, value, paired, metric: TCN over the length of its features; None below two lengths."""
    metric = paper.retrieval_metric(task)
    rows = []
    for variant in ("tcn", *(v for v in suite.variants(task) if paper.is_tcn(v) and v != "tcn")):
        for features in ("real", "binary"):
            measured = suite.measure(task, variant, Score(metric, features=features))
            rows += [(suite.dim(task, variant), features, seed, value) for seed, value in measured.values.items()]
    frame = pd.DataFrame(rows, columns=["dim", "features", "seed", "value"]).dropna()
    if frame["dim"].nunique() < 2:
        return None
    frame["metric"] = metric
    frame, seeds = with_common_seeds(frame, "dim")
    return FigureData("dimensions", f"{task.slug}-dimensions", "How many dimensions the features need",
                      f"{metric} of TCN (released rule, unseen classes) over the length D of the retrieval feature: real-valued, "
                      f"and as D-bit codes by Hamming distance. {seeds}", frame)


def sharing_weight(suite: Suite, task: Task) -> FigureData | None:
    """Columns: weight, classes, seed, value, used, metric, paired: the grid of sharing weights; None below two weights.

    `tcn` stands for its own weight, unless the grid has runs with that weight too.
    """
    metric = paper.retrieval_metric(task)
    own = {setting(run.config, "losses.sharing") for run in suite.runs_of(task, "tcn")} - {None}
    variants = {w: v for v in suite.variants(task) if (w := paper.weight_of(suite, task, v)) is not None}
    if len(own) == 1 and not any(suite.runs_of(task, v) for w, v in variants.items() if w in own):
        variants[float(next(iter(own)))] = "tcn"
    rows = [(weight, classes, seed, value, weight in own, metric) for weight, variant in variants.items()
            for classes in ("validation", "unseen")
            for seed, value in suite.measure(task, variant, Score(metric, classes=classes)).values.items()]
    frame = pd.DataFrame(rows, columns=["weight", "classes", "seed", "value", "used", "metric"])
    if frame["weight"].nunique() < 2:
        return None
    epochs = sorted({setting(c.config, "training.epochs") for v in variants.values() for c in suite.runs_of(task, v)})
    frame, seeds = with_common_seeds(frame, "weight")
    return FigureData("sharing_weight", f"{task.slug}-sharing-weight", "How strong soft sharing should be",
                      f"{metric} of TCN (released rule, real-valued) over the weight of the sharing loss, "
                      f"{' or '.join(map(str, epochs))} epochs. {seeds} The weight is chosen on the validation classes; "
                      "the unseen classes are shown for the reader and chose nothing.", frame)


def coupling(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, part, classes, seed, value, paired, metric, chance: from nothing coupled to all; None below two rows
    of the criterion's own beside NWS, TCN and HWS."""
    metric = paper.retrieval_metric(task)
    rows = []
    for variant, part in COUPLING.items():
        for classes in ("unseen", "validation"):
            measured = suite.measure(task, variant, Score(metric, classes=classes))
            chance = measured.chance[0] if measured.chance else math.nan
            rows += [(variant, part, classes, seed, value, metric, chance) for seed, value in measured.values.items()]
    frame = pd.DataFrame(rows, columns=["variant", "part", "classes", "seed", "value", "metric", "chance"])
    if not set(frame["variant"]) - set(paper.TRAINED):
        return None
    missing = [f"“{part}”" for variant, part in COUPLING.items() if variant not in set(frame["variant"])]
    frame, seeds = with_common_seeds(frame, "variant")
    seeds = seeds.replace("every point has", "every row has").replace("dots", "ticks")
    return FigureData("coupling", f"{task.slug}-coupling", "Which parts to couple",
                      f"{metric} (released rule, real-valued) by what the two encoders share, from nothing at the top to "
                      "everything; soft where nothing else is said, batch norms independent down to TCN. Below the rule: TCN "
                      f"with an embedding network per modality. {seeds}"
                      + (f" Not measured: {listed(missing)}." if missing else ""), frame)


def ledger_bars(suite: Suite, task: Task) -> FigureData | None:
    """Columns: deviation, title, kind, features, seed, points, metric: one row per deviation and seed; None without the
    ledger."""
    metric = paper.retrieval_metric(task)
    # An untrained network instead of a trained one is not a setting of the same run, and its bar would dwarf all others.
    measured = ledger.measured_deviations(suite, task)
    untrained = [item for item in measured if paper.is_untrained(str(item[0].arms.get("released")))]
    rows = [(deviation.deviation, deviation.title, "all" if deviation.deviation == ledger.ALL else deviation.kind, features, seed,
             100 * value, metric)
            for deviation, worth, features in measured if deviation not in [t for t, _, _ in untrained]
            for seed, value in worth.gap.values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["deviation", "title", "kind", "features", "seed", "points", "metric"])
    several = frame.groupby("deviation")["seed"].nunique().max() > 1
    return FigureData("ledger_bars", f"{task.slug}-ledger", "What each deviation of the released code is worth",
                      f"Released minus corrected {metric} in points (100 times the difference), unseen classes, released rule, "
                      f"{seed_count(frame, 'deviation')}. "
                      "Solid bars and circles: two runs with the same seeds that differ in training; hatched bars and squares: "
                      "one trained network scored twice; “codes”: on binary codes, else real-valued features. "
                      + ("Bars: means over seeds; whiskers: ± one standard deviation; small dots: seeds." if several
                         else "No spread is known from one seed.")
                      + "".join(f" Not drawn: “{deviation.title}” ({100 * worth.gap.mean:+.1f})".replace("-", "−") + "."
                                for deviation, worth, _ in untrained)
                      + "".join(f" “{deviation.title[:1].upper()}{deviation.title[1:]}”: "
                                f"{deviation.note}" for deviation, _, _ in measured
                                if deviation.note and deviation.datasets and task.dataset not in deviation.datasets), frame)


def intervals(suite: Suite, task: Task) -> FigureData | None:
    """Columns: label, difference, low, high, seeds, group, metric: paired differences as `claims` works them out."""
    frame = claims.interval_frame(suite, task)
    if frame is None or frame.empty:
        return None
    frame = frame.assign(metric=paper.retrieval_metric(task))
    one = (frame["seeds"] < 2).any()
    return FigureData("intervals", f"{task.slug}-intervals", "How sure each difference is",
                      f"Paired differences in {paper.retrieval_metric(task)} (released rule, real-valued, unseen classes) on the "
                      "same seeds and classes, with the 95 % BCa bootstrap interval over classes and seeds."
                      + (" Open marks: one seed; such an interval knows the spread over classes alone, not that of training "
                         "again." if one else ""), frame)


def _long(run: FinishedRun, quantity: str, at: pd.Series, value: pd.Series, window: int = 1) -> pd.DataFrame:
    frame = pd.DataFrame({"variant": run.variant, "seed": run.seed, "quantity": quantity, "at": at, "value": value})
    frame = frame.dropna(subset="value")
    frame["smoothed"] = frame["value"].rolling(window, center=True, min_periods=max(1, window // 4)).mean()
    return frame


BUILDERS: tuple[Callable[..., FigureData | None], ...] = (
    overview, motivation, singular_values, tsne, retrieval, layer_distances, precision_recall, class_precision, dimensions,
    sharing_weight, coupling, ledger_bars, publishers, intervals)
"""The functions that make the figures, in the order of the page; `FigureData.kind` is the function's name."""
