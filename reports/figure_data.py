"""Checked cells -> one tidy frame and one caption per figure.

What a figure shows is decided here (which runs, which classes, how smoothed) and said in its caption; how it looks is
decided in `figures`. A builder returns None where there is nothing to draw.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reports import ledger, paper, tables
from reports.results import Cell, Score, Suite, Task, digest, setting

TSNE_CLASSES = 8
TSNE_SEED = 2021
"""Draws the classes and starts the embedding; fixed before any result was seen."""
TSNE_POINTS = 100
"""Most points of one class and modality that are embedded."""
FEW_POINTS = 30
"""Below this many points a class, all unseen classes are embedded and 8 of them coloured."""
RETRIEVAL_ROWS = 18
"""Rows that fit one printed page."""
SINGULAR_VALUES = 30


@dataclass(frozen=True)
class FigureData:
    """What one figure shows: `kind` names the drawing function, `frame` is saved beside it as CSV."""

    kind: str
    name: str
    title: str
    caption: str
    frame: pd.DataFrame


def overview(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, dim, classes, seed, value, chance: one row per seed."""
    rows = []
    metric = paper.retrieval_metric(task)
    for variant in paper.main_variants(suite, task):
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
                      f"{metric} (released rule, real-valued) of every variant and floor. "
                      + ("Small marks: seeds; large marks: their mean. " if several else "One seed. ")
                      + "Dotted line: chance. Filled marks are trained, open ones are floors without training.", frame)


def motivation(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, quantity, at, value, smoothed: per iteration and per epoch, in one long frame."""
    rows: list[pd.DataFrame] = []
    seeds: dict[str, int] = {}
    window = 1
    for variant in ("tcn", "hws", "nws"):
        for cell in suite.cells_of(task, variant):
            history = suite.frame(cell, "history.csv")
            if history is not None:
                rows += [_long(cell, quantity, history["epoch"], history[column]) for quantity, column in
                         (("seen-class accuracy", "seen_accuracy"), ("validation mAP", "validation_map"))]
            if variant == "nws" or variant in seeds:
                continue
            steps = suite.frame(cell, "steps.csv")
            if steps is not None:
                seeds[variant] = cell.seed
                window = max(5, len(steps) // 25)
                rows += [_long(cell, quantity, steps["step"], steps[column], window) for quantity, column in
                         (("class loss, sketches", "class_sketch"), ("class loss, photos", "class_photo"))]
    rows = [frame for frame in rows if len(frame)]
    if not rows:
        return None
    shown = ", ".join(f"{paper.short_label(v)} seed {s}" for v, s in seeds.items())
    frame = pd.concat(rows, ignore_index=True)
    several = frame[frame["quantity"] == "seen-class accuracy"].groupby("variant")["seed"].nunique().max() > 1
    told = [text for quantity, text in (
        ("seen-class accuracy", "class accuracy on held-out sketches of seen classes"),
        ("validation mAP", "mAP@all on validation classes, which are never trained on")) if quantity in set(frame["quantity"])]
    caption = ""
    if shown:
        caption = (f"Per iteration: class loss (cross-entropy, unweighted) of every training batch, faint, and its mean over "
                   f"{window} iterations, strong ({shown}). ")
    if told:
        caption += (f"Per epoch: {' and '.join(told)}; epoch 0 is before training."
                    + (" Lines: means over seeds; bands: lowest to highest seed." if several else " One seed."))
    return FigureData("motivation", f"{task.slug}-motivation", "Learning curves: hard against soft sharing", caption, frame)


def singular_values(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, set, modality, index, value, relative: the first finished seed of each variant."""
    rows, seeds = [], []
    own = {setting(cell.config, "losses.sharing") for cell in suite.cells_of(task, "tcn")}
    # the paper's panels: none, hard, soft with weight 10 and with weight 1000
    softer = [v for v in ("tcn-weight-10", "tcn-weight-1000") if paper.grid_weight(v) not in own]
    for variant in ("nws", "hws", "tcn", *softer):
        for cell in suite.cells_of(task, variant)[:1]:
            values = suite.frame(cell, "singular_values.csv")
            if values is None:
                continue
            for (where, modality), curve in values.groupby(["set", "modality"]):
                curve = curve.sort_values("index").head(SINGULAR_VALUES)
                top = curve["value"].max()
                if not top > 0:
                    suite.left_out.append((f"{cell.name}/singular_values.csv", "a curve without a positive value"))
                    continue
                rows += [(variant, cell.seed, where, modality, int(i), v, v / top,
                          float(setting(cell.config, "losses.sharing", math.nan)))
                         for i, v in zip(curve["index"], curve["value"])]
            seeds.append(f"{paper.short_label(variant)} seed {cell.seed}")
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "seed", "set", "modality", "index", "value", "relative", "weight"])
    return FigureData("singular_values", f"{task.slug}-singular-values", "How the features spread over directions",
                      f"The {SINGULAR_VALUES} largest singular values of the retrieval features, each curve divided by its "
                      "own largest. A slower fall means that more directions carry the features. "
                      f"Runs: {', '.join(seeds)}.", frame)


def tsne(suite: Suite, task: Task, cache: Path) -> FigureData | None:
    """Columns: variant, seed, class, modality, x, y, shown: 2-d embeddings, cached by the digest of the features."""
    loaded: list[tuple[Cell, dict[str, np.ndarray]]] = []
    for variant in ("nws", "hws", "tcn", "tcn-no-semantic"):
        for cell in suite.cells_of(task, variant)[:1]:
            arrays = suite.features(cell)
            if arrays is not None:
                loaded.append((cell, arrays))
    if not loaded:
        return None
    common = set.intersection(*(set(a["query_labels"]) & set(a["gallery_labels"]) for _, a in loaded))
    if not common:
        return None
    drawn = sorted(np.random.default_rng(TSNE_SEED).permutation(sorted(common))[:TSNE_CLASSES])
    sizes = [np.isin(loaded[0][1][f"{side}_labels"], drawn).sum() for side in ("query", "gallery")]
    few = sum(sizes) / len(drawn) < FEW_POINTS
    kept = sorted(common) if few else drawn
    frames = []
    for cell, arrays in loaded:
        points = _embedding_points(arrays, kept)
        if len(points) < 10:
            return None
        perplexity = float(np.clip(len(points) / len(kept), 3, min(30, (len(points) - 1) / 3)))
        xy = _embed(np.stack(points.pop("vector").to_list()), perplexity, cache)
        frames.append(points.assign(variant=cell.variant, seed=cell.seed, x=xy[:, 0], y=xy[:, 1],
                                    shown=points["class"].isin(drawn)))
    frame = pd.concat(frames, ignore_index=True)
    shown = ", ".join(f"{paper.short_label(c.variant)} seed {c.seed}" for c, _ in loaded)
    if few:
        how = (f"A class has only about {sum(sizes) / len(drawn):.0f} pictures here, too few to embed alone: all "
               f"{len(kept)} unseen classes are embedded together (perplexity {perplexity:.0f}), {len(drawn)} drawn by a "
               "fixed seed are coloured and numbered, the others are grey")
    else:
        how = (f"{len(drawn)} unseen classes drawn by a fixed seed, at most {TSNE_POINTS} sketches and {TSNE_POINTS} "
               f"photos of each (perplexity {perplexity:.0f})")
    return FigureData("tsne", f"{task.slug}-tsne", "Unseen classes in the feature space",
                      f"t-SNE of the L2-normalised retrieval features. {how}; dots are photos, crosses sketches. A number "
                      f"stands at the middle of its class's photos. Distances between clusters mean little. Runs: {shown}.",
                      frame[["variant", "seed", "class", "modality", "x", "y", "shown"]])


def retrieval(suite: Suite, task: Task) -> FigureData | None:
    """Columns: block, query_class, query_source, query_file, kind, variant, ap, rank, class, file, correct."""
    blocks: dict[tuple[str, str], list[tuple[str, dict]]] = {}
    kinds: dict[tuple[str, str], str] = {}
    seeds = []
    for variant in (*paper.TRAINED, *_reference_floor(suite, task)):
        for cell in suite.cells_of(task, variant)[:1]:
            examples = suite.examples(cell)
            if not examples:
                continue
            seeds.append(f"{paper.short_label(variant)} seed {cell.seed}")
            for example in examples:
                # the same drawing has the same thumbnail, whatever a run called its file
                key = (str(example["query"].get("class", "")), digest(example["query"]["file"].read_bytes()))
                blocks.setdefault(key, []).append((variant, example))
                if example["kind"] == "failure" or key not in kinds:
                    kinds[key] = example["kind"]
    if not blocks:
        return None
    chosen, used = [], 0
    # a failure first of all, then the fixed queries that most variants answered, as far as the page goes
    failures = [key for key in blocks if kinds[key] == "failure"]
    fixed = sorted((key for key in blocks if kinds[key] != "failure"), key=lambda key: -len(blocks[key]))
    for key in [*failures[:1], *fixed, *failures[1:]]:
        if used + len(blocks[key]) <= RETRIEVAL_ROWS:
            chosen.append(key)
            used += len(blocks[key])
    chosen.sort(key=lambda key: (kinds[key] == "failure", list(blocks).index(key)))
    rows = [(number, key[0], example["query"].get("source", ""), str(example["query"]["file"]), kinds[key], variant,
             example["average_precision"], hit["rank"], str(hit.get("class", "")), str(hit["file"]), hit["correct"])
            for number, key in enumerate(chosen) for variant, example in blocks[key] for hit in example["retrieved"][:13]]
    frame = pd.DataFrame(rows, columns=["block", "query_class", "query_source", "query_file", "kind", "variant", "ap",
                                        "rank", "class", "file", "correct"])
    left = len(blocks) - len(chosen)
    return FigureData("retrieval", f"{task.slug}-retrieval", "Retrieval examples",
                      "Each query and the 13 photos that each variant ranks first, one row a variant. Right: solid green "
                      "frame and ✓; wrong: dashed vermilion frame and ✗. AP: the query's average precision. The queries are "
                      "the same for every variant, except that each may add a failure of its own. "
                      f"Runs: {', '.join(seeds)}." + (f" {left} further examples are in the result folders." if left else ""),
                      frame)


def publishers(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, view, seed, value, chance: one row per seed; None where queries have one source."""
    metric = paper.retrieval_metric(task)
    views = tables.publisher_views(suite, task)
    if len(views) < 2:
        return None
    variants = [v for v in (*paper.TRAINED, *_reference_floor(suite, task)) if suite.cells_of(task, v)]
    rows = []
    for variant in variants:
        for source, gallery in views:
            measured = suite.measure(task, variant, Score(metric, source=source, gallery=gallery))
            chance = measured.chance[0] if measured.chance else math.nan
            rows += [(variant, tables.view_label(source, gallery), seed, value, chance, metric)
                     for seed, value in measured.values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "view", "seed", "value", "chance", "metric"])
    several = frame.groupby("variant")["seed"].nunique().max() > 1
    return FigureData("publishers", f"{task.slug}-publishers", "Whose drawings are found",
                      f"{metric} (released rule, real-valued, unseen classes) by publisher of the query drawing, for the "
                      "trained variants and the floor that is best on the validation classes. "
                      + ("Bars: means over seeds; whiskers: ± one standard deviation; dots: seeds. " if several
                         else "One seed. ") + "Short dotted lines: chance.", frame)


def sharing_weight(suite: Suite, task: Task) -> FigureData | None:
    """Columns: weight, classes, seed, value, used: the grid of sharing weights; None below two weights."""
    metric = paper.retrieval_metric(task)
    rows = []
    own = {setting(cell.config, "losses.sharing") for cell in suite.cells_of(task, "tcn")}
    for variant in suite.variants(task):
        weight = paper.grid_weight(variant)
        if weight is None:
            continue
        for classes in ("validation", "unseen"):
            measured = suite.measure(task, variant, Score(metric, classes=classes))
            rows += [(weight, classes, seed, value, weight in own, metric) for seed, value in measured.values.items()]
    frame = pd.DataFrame(rows, columns=["weight", "classes", "seed", "value", "used", "metric"])
    if frame["weight"].nunique() < 2:
        return None
    epochs = sorted({setting(c.config, "training.epochs") for v in suite.variants(task)
                     if paper.grid_weight(v) is not None for c in suite.cells_of(task, v)})
    several = frame.groupby("weight")["seed"].nunique().max() > 1
    return FigureData("sharing_weight", f"{task.slug}-sharing-weight", "How strong soft sharing should be",
                      f"{metric} over the weight of the sharing loss, {' or '.join(map(str, epochs))} epochs"
                      f"{', means over seeds; bands: lowest to highest seed' if several else ', one seed'}. "
                      "The weight is chosen on the validation classes; "
                      "the unseen classes are shown for the reader and chose nothing.", frame)


def ledger_bars(suite: Suite, task: Task) -> FigureData | None:
    """Columns: trap, title, kind, features, seed, points, metric: one row per trap and seed; None without the ledger."""
    metric = paper.retrieval_metric(task)
    # an untrained network in place of a trained one is no setting of the same run, and would dwarf all others
    measured = ledger.measured_traps(suite, task)
    untrained = [item for item in measured if str(item[0].arms.get("released")).startswith("floor-")]
    rows = [(trap.trap, trap.title, "all" if trap.trap == ledger.ALL else trap.kind, features, seed, 100 * value, metric)
            for trap, worth, features in measured if trap not in [t for t, _, _ in untrained]
            for seed, value in worth.gap.values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["trap", "title", "kind", "features", "seed", "points", "metric"])
    several = frame.groupby("trap")["seed"].nunique().max() > 1
    return FigureData("ledger_bars", f"{task.slug}-ledger", "What each trap of the released code is worth",
                      f"Released minus corrected {metric} in points (100 times the difference), unseen classes, released rule. "
                      "Solid bars and circles: two runs with the same seeds that differ in training; hatched bars and squares: "
                      "one trained network scored twice; “codes”: on binary codes, else real-valued features. "
                      + ("Bars: means over seeds; whiskers: ± one standard deviation; small dots: seeds." if several
                         else "One seed: no spread known.")
                      + "".join(f" Not drawn: “{trap.title}” ({100 * worth.gap.mean:+.1f})".replace("-", "−") + "."
                                for trap, worth, _ in untrained)
                      + "".join(f" “{trap.title[:1].upper()}{trap.title[1:]}”: {trap.note}" for trap, _, _ in measured
                                if trap.note and trap.datasets and task.dataset not in trap.datasets), frame)


def _reference_floor(suite: Suite, task: Task) -> list[str]:
    """The floor that is best on the validation classes; none where nothing tells."""
    score = Score(paper.retrieval_metric(task), classes="validation")
    means = {v: suite.measure(task, v, score) for v in paper.main_variants(suite, task) if v.startswith("floor-")}
    means = {v: m.mean for v, m in means.items() if m.n}
    return [max(means, key=means.__getitem__)] if means else []


def _long(cell: Cell, quantity: str, at: pd.Series, value: pd.Series, window: int = 1) -> pd.DataFrame:
    frame = pd.DataFrame({"variant": cell.variant, "seed": cell.seed, "quantity": quantity, "at": at, "value": value})
    frame = frame.dropna(subset="value")
    frame["smoothed"] = frame["value"].rolling(window, center=True, min_periods=max(1, window // 4)).mean()
    return frame


def _embedding_points(arrays: dict[str, np.ndarray], classes: list[str]) -> pd.DataFrame:
    """Unit vectors of the given classes, at most TSNE_POINTS of a class and modality, picked by a fixed seed."""
    rng = np.random.default_rng(TSNE_SEED)
    parts = []
    for side, modality in (("gallery", "photo"), ("query", "sketch")):
        labels = arrays[f"{side}_labels"]
        for name in classes:
            at = np.flatnonzero(labels == name)
            at = np.sort(rng.permutation(at)[:TSNE_POINTS])
            vectors = arrays[side][at].astype(np.float64)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            parts.append(pd.DataFrame({"class": str(name), "modality": modality, "vector": list(vectors)}))
    return pd.concat(parts, ignore_index=True)


def _embed(vectors: np.ndarray, perplexity: float, cache: Path) -> np.ndarray:
    """t-SNE [n, 2] of vectors [n, D]; read from `cache` where the same vectors were embedded before."""
    path = cache / f"tsne-{digest(vectors, perplexity, TSNE_SEED)[:24]}.npy"
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == (len(vectors), 2):
            return found
    except (OSError, ValueError, EOFError):
        pass  # not there, or cut short: work it out again
    from openTSNE import TSNE  # slow to import, and only needed where the cache has nothing

    xy = np.asarray(TSNE(perplexity=perplexity, initialization="pca", neighbors="exact" if len(vectors) < 3000 else "auto",
                         random_state=TSNE_SEED, n_jobs=1).fit(vectors))
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, xy)
    return xy
