"""Stored features, retrieval examples and parameter distances -> one tidy frame and one caption per figure.

In: runs' features.npz, singular_values.csv, examples.json, distances.npz. Out: the paper's figures of singular values, of
t-SNE and of retrieved photos, and one that the paper lacks: how far each layer of the two encoders moved, and apart.
A builder returns None where there is nothing to draw.
"""
from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports import naming, paper
from reports.figure_kinds import FigureData, reference_baseline
from reports.read.runs import FinishedRun, setting
from reports.read.schema import Task
from reports.read.suite import Suite
from reports.wording import listed
from tcn.files.atomic import write_bytes

TSNE_CLASSES = 8
TSNE_SEED = 2021
"""Seed by which classes are drawn and the embedding starts; fixed before any result was seen."""
TSNE_POINTS = 100
"""Largest number of points of one class and modality that are embedded."""
FEW_POINTS = 30
"""If classes have fewer points than this, all unseen classes are embedded, and 8 of them are coloured."""
TSNE_EXAMPLES = 2
RETRIEVED = 13
RETRIEVAL_ROWS = 18
"""Number of rows that fit one printed page."""
SINGULAR_VALUES = 30
DISTANCE_STEPS = 64
"""Number of a run's readings that are drawn, evenly spread over the logarithm of the step."""
MAPPED = 4
"""Largest number of variants whose layers are drawn one by one."""
SOFT_WEIGHTS = ("tcn", "tcn-weight-10", "tcn-weight-1000")
MOVED = ("nws", *SOFT_WEIGHTS, "hws", "hard-conv", "l2-sp", "l2-sp-weight-1000", "squared", "frozen-conv", "hws-slow",
         "hard-conv-slow")
"""Variants whose distances are drawn; those of SOFT_WEIGHTS are drawn in the order of their weights."""

Blocks = dict[tuple[str, str], list[tuple[str, dict[str, Any]]]]
"""(class, digest of the drawing) of a query -> the variants that answered it, each with its example."""


def singular_values(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, set, modality, index, value, relative, weight, own. Each variant is shown by its first finished
    seed."""
    rows, seeds = [], []
    for variant in ("nws", "hws", *_by_weight(suite, task)):
        for run in suite.runs_of(task, variant)[:1]:
            values = suite.frame(run, "singular_values.csv")
            if values is None:
                continue
            weight = float(setting(run.config, "losses.sharing", math.nan))
            for (where, modality), curve in values.groupby(["set", "modality"]):
                curve = curve.sort_values("index").head(SINGULAR_VALUES)
                top = curve["value"].max()
                if not top > 0:
                    suite.left_out.append((f"{run.name}/singular_values.csv", "a curve without a positive value"))
                    continue
                rows += [(variant, run.seed, where, modality, int(i), v, v / top, weight, variant == "tcn")
                         for i, v in zip(curve["index"], curve["value"])]
            seeds.append(f"{naming.short_label(variant)} seed {run.seed}")
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["variant", "seed", "set", "modality", "index", "value", "relative", "weight", "own"])
    return FigureData("singular_values", f"{task.slug}-singular-values", "How the features spread over directions",
                      f"The {SINGULAR_VALUES} largest singular values of the retrieval features, each curve divided by its "
                      "own largest. A slower fall means that more directions carry the features. "
                      f"One run each: {', '.join(seeds)}.", frame)


def tsne(suite: Suite, task: Task, cache: Path) -> FigureData | None:
    """Columns: variant, seed, class, modality, number, x, y, shown: 2-d embeddings, cached by the digest of the features.

    number: position of the sketch among the run's queries, or of the photo in its gallery.

    `examples` holds the first queries that TCN and NWS both answered.
    """
    loaded: list[tuple[FinishedRun, dict[str, np.ndarray]]] = []
    # Side by side: without sharing, TCN, without the semantic metric; hard sharing only if one of these is missing.
    whole = suite.runs_of(task, "tcn-no-semantic")
    for variant in ("nws", "tcn", "tcn-no-semantic") if whole else ("nws", "hws", "tcn"):
        for run in suite.runs_of(task, variant)[:1]:
            arrays = suite.features(run)
            if arrays is not None:
                loaded.append((run, arrays))
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
    for run, arrays in loaded:
        points = _embedding_points(arrays, kept)
        if len(points) < 10:
            return None
        perplexity = float(np.clip(len(points) / len(kept), 3, min(30, (len(points) - 1) / 3)))
        vectors = np.stack(points.pop("vector").to_list())
        if np.ptp(vectors, axis=0).max() < 1e-9:
            suite.left_out.append((f"{run.name}/features.npz", "all features of these classes are one point: no t-SNE of it"))
            continue
        xy = _embed(vectors, perplexity, cache)
        frames.append(points.assign(variant=run.variant, seed=run.seed, x=xy[:, 0], y=xy[:, 1],
                                    shown=points["class"].isin(drawn)))
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    if few:
        how = (f"A class has only about {sum(sizes) / len(drawn):.0f} pictures here, too few to embed alone: all "
               f"{len(kept)} unseen classes are embedded together (perplexity {perplexity:.0f}), {len(drawn)} drawn by a "
               "fixed seed are coloured and numbered, the others are grey")
    else:
        how = (f"{len(drawn)} unseen classes drawn by a fixed seed, at most {TSNE_POINTS} sketches and {TSNE_POINTS} "
               f"photos of each (perplexity {perplexity:.0f})")
    examples = _first_examples(suite, task)
    below = ""
    if examples is not None:
        below = (f" Below: the first {examples['block'].nunique()} of the fixed example queries, each with the {RETRIEVED} "
                 "photos ranked first with (TCN) and without sharing (NWS); ✓ and a solid frame: right, ✗ and a dashed one: "
                 "wrong.")
    shown = ", ".join(f"{naming.short_label(c.variant)} seed {c.seed}" for c, _ in loaded if c.variant in set(frame["variant"]))
    return FigureData("tsne", f"{task.slug}-tsne", "Unseen classes in the feature space",
                      f"t-SNE of the L2-normalised retrieval features. {how}; dots are photos, crosses sketches. A number "
                      f"stands at the middle of its class's photos. Distances between clusters mean little.{below} "
                      f"One run each: {shown}.",
                      frame[["variant", "seed", "class", "modality", "number", "x", "y", "shown"]], examples)


def retrieval(suite: Suite, task: Task) -> FigureData | None:
    """Columns: block, query_class, query_source, query_file, kind, variant, ap, rank, class, file, correct."""
    blocks, kinds, seeds = _blocks(suite, task, (*paper.TRAINED, *reference_baseline(suite, task)))
    if not blocks:
        return None
    chosen, used = [], 0
    # One failure first, then the fixed queries that most variants answered, until the page is full.
    failures = [key for key in blocks if kinds[key] == "failure"]
    fixed = sorted((key for key in blocks if kinds[key] != "failure"), key=lambda key: -len(blocks[key]))
    for key in [*failures[:1], *fixed, *failures[1:]]:
        if used + len(blocks[key]) <= RETRIEVAL_ROWS:
            chosen.append(key)
            used += len(blocks[key])
    chosen.sort(key=lambda key: (kinds[key] == "failure", list(blocks).index(key)))
    left = len(blocks) - len(chosen)
    return FigureData("retrieval", f"{task.slug}-retrieval", "Retrieval examples",
                      f"Each query and the {RETRIEVED} photos that each variant ranks first, one row a variant. Right: solid "
                      "green frame and ✓; wrong: dashed vermilion frame and ✗. AP: the query's average precision. The queries "
                      "are the same for every variant, except that each may add a failure of its own. "
                      f"One run each: {', '.join(seeds)}."
                      + (f" {left} further examples are in the result folders." if left else ""),
                      _rows_of(blocks, kinds, chosen))


def layer_distances(suite: Suite, task: Task) -> FigureData | None:
    """Columns: variant, seed, weight, level, kind, part, layer, depth, step, between, start; shares of the start's norm.

    level `layer`: one convolution, `between` alone, for at most MAPPED variants; `part`: the convolutions of one part as one
    vector; `whole`: all of them, and all batch norms. `between`: distance of the two encoders; `start`: root mean square
    of the two distances from the ImageNet start. Distances at the start are 0 and left out.
    """
    frames, seeds, still = [], [], []
    mapped = 0
    for variant in _by_weight(suite, task, MOVED):
        found = next(((run, arrays) for run in suite.runs_of(task, variant)
                      if (arrays := suite.distances(run)) is not None and (arrays["steps"] > 0).any()), None)
        if found is None:
            continue
        run, arrays = found
        one_by_one = mapped < MAPPED and (variant == "nws" or variant in SOFT_WEIGHTS)
        mapped += one_by_one
        frame = _distance_rows(arrays, one_by_one)
        frames.append(frame.assign(variant=variant, seed=run.seed,
                                   weight=float(setting(run.config, "losses.sharing", math.nan))))
        seeds.append(f"{naming.short_label(variant)} seed {run.seed}")
        zero = [text for column, text in (("between", "from each other"), ("start", "from the start"))
                if (frame.loc[(frame["level"] == "whole") & (frame["kind"] == "convolution"), column] == 0).all()]
        if zero:
            still.append(f"{naming.short_label(variant)}’s convolutions {listed(zero)}")
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    caption = ("Top: distance between the sketch and the photo encoder, convolution by convolution in order of depth, over "
               "the optimiser steps. Middle: all convolutions as one vector, from each other and from their ImageNet start "
               "(root mean square of both encoders), and all batch norms' scales and shifts. Bottom: the same at the last "
               "step by part; the batch norms stand apart on the right. Frobenius norms, as a share of the start's own; all "
               "axes but depth and part are logarithmic. ")
    if still:
        caption += f"A distance of exactly 0 has no place there; it is that of {'; '.join(still)}. "
    return FigureData("layer_distances", f"{task.slug}-layer-distances", "How far the encoders move, and apart",
                      f"{caption}One run each: {', '.join(seeds)}.",
                      frame[["variant", "seed", "weight", "level", "kind", "part", "layer", "depth", "step", "between", "start"]])


def _by_weight(suite: Suite, task: Task, variants: tuple[str, ...] = SOFT_WEIGHTS) -> list[str]:
    """The variants, with TCN and its two other weights in order of weight, without the row of the grid that has TCN's own
    weight."""
    own = {setting(run.config, "losses.sharing") for run in suite.runs_of(task, "tcn")}

    def weight(variant: str) -> float:
        recorded = paper.weight_of(suite, task, variant)
        return recorded if recorded is not None else max((float(w) for w in own if w is not None), default=math.inf)
    soft = sorted((v for v in SOFT_WEIGHTS if v == "tcn" or paper.weight_of(suite, task, v) not in own), key=weight)
    at = variants.index(SOFT_WEIGHTS[0])
    return [*variants[:at], *soft, *(v for v in variants[at:] if v not in SOFT_WEIGHTS)]


def _distance_rows(arrays: dict[str, np.ndarray], one_by_one: bool) -> pd.DataFrame:
    """One run's distances as shares of the start's norm, thinned to DISTANCE_STEPS steps, by layer, part and whole."""
    steps = arrays["steps"]
    wanted = np.geomspace(1, max(steps.max(), 1), DISTANCE_STEPS)
    at = np.unique(np.minimum(np.searchsorted(steps, wanted - 1e-6), len(steps) - 1))
    at = at[steps[at] > 0]
    between = arrays["between"][at].astype(np.float64)
    squares = (arrays["sketch"][at].astype(np.float64) ** 2 + arrays["photo"][at].astype(np.float64) ** 2) / 2
    norm, kinds, parts = arrays["start_norm"].astype(np.float64), arrays["kinds"], arrays["parts"]
    convolution = kinds == "convolution"
    groups = [("part", "convolution", str(part), convolution & (parts == part)) for part in dict.fromkeys(parts[convolution])]
    groups += [("whole", "convolution", "all", convolution), ("whole", "batch norm", "all", kinds == "batch norm")]
    frames = []
    for level, kind, part, members in groups:
        total = math.sqrt(float((norm[members] ** 2).sum()))
        if total > 0:
            frames.append(pd.DataFrame({
                "level": level, "kind": kind, "part": part, "layer": "", "depth": -1, "step": steps[at],
                "between": np.sqrt((between[:, members] ** 2).sum(1)) / total,
                "start": np.sqrt(squares[:, members].sum(1)) / total}))
    if one_by_one:
        for depth, layer in enumerate(np.flatnonzero(convolution & (norm > 0))):
            frames.append(pd.DataFrame({
                "level": "layer", "kind": "convolution", "part": str(parts[layer]), "layer": str(arrays["layers"][layer]),
                "depth": depth, "step": steps[at], "between": between[:, layer] / norm[layer],
                "start": np.sqrt(squares[:, layer]) / norm[layer]}))
    frame = pd.concat(frames, ignore_index=True)
    # The stored float32 has seven digits.
    return frame.astype({"between": np.float32, "start": np.float32})


def _blocks(suite: Suite, task: Task, variants: tuple[str, ...]) -> tuple[Blocks, dict[tuple[str, str], str], list[str]]:
    """Queries with the variants that answered them, in the order of the files; the kind of each query; the names of the runs."""
    blocks: Blocks = {}
    kinds: dict[tuple[str, str], str] = {}
    seeds = []
    for variant in variants:
        for run in suite.runs_of(task, variant)[:1]:
            examples = suite.examples(run)
            if not examples:
                continue
            seeds.append(f"{naming.short_label(variant)} seed {run.seed}")
            for example in examples:
                # The same drawing has the same thumbnail, even if runs gave its file different names.
                key = (str(example["query"]["class"]), _digest(example["query"]["file"].read_bytes()))
                blocks.setdefault(key, []).append((variant, example))
                if example["kind"] == "failure" or key not in kinds:
                    kinds[key] = example["kind"]
    return blocks, kinds, seeds


def _rows_of(blocks: Blocks, kinds: dict[tuple[str, str], str], chosen: list[tuple[str, str]]) -> pd.DataFrame:
    rows = [(number, key[0], example["query"]["source"], example["query"]["file"], kinds[key], variant,
             example["average_precision"], hit["rank"], str(hit["class"]), hit["file"], hit["correct"])
            for number, key in enumerate(chosen) for variant, example in blocks[key]
            for hit in example["retrieved"][:RETRIEVED]]
    return pd.DataFrame(rows, columns=["block", "query_class", "query_source", "query_file", "kind", "variant", "ap", "rank",
                                       "class", "file", "correct"])


def _first_examples(suite: Suite, task: Task) -> pd.DataFrame | None:
    """The first fixed queries that both TCN and NWS answered, in the order of the files, so that they are not hand-picked."""
    blocks, kinds, _ = _blocks(suite, task, ("tcn", "nws"))
    chosen = [key for key, answers in blocks.items() if kinds[key] != "failure" and len(answers) == 2][:TSNE_EXAMPLES]
    return _rows_of(blocks, kinds, chosen) if chosen else None


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
            parts.append(pd.DataFrame({"class": str(name), "modality": modality, "number": at, "vector": list(vectors)}))
    return pd.concat(parts, ignore_index=True)


def _embed(vectors: np.ndarray, perplexity: float, cache: Path) -> np.ndarray:
    """t-SNE [n, 2] of vectors [n, D], read from `cache` if the same vectors were embedded before."""
    path = cache / f"tsne-{_digest(vectors, perplexity, TSNE_SEED)[:24]}.npy"
    found = _kept(path)
    if found is not None and found.shape == (len(vectors), 2):
        return found
    from openTSNE import TSNE  # slow to import, and not needed if the cache has the embedding

    if vectors.shape[1] < 2:  # the embedding starts from two principal directions
        vectors = np.pad(vectors, ((0, 0), (0, 1)))
    xy = np.asarray(TSNE(perplexity=perplexity, initialization="pca", neighbors="exact" if len(vectors) < 3000 else "auto",
                         random_state=TSNE_SEED, n_jobs=1).fit(vectors))
    content = io.BytesIO()
    np.save(content, xy, allow_pickle=False)
    write_bytes(path, content.getvalue() + hashlib.sha256(content.getvalue()).digest())
    return xy


def _digest(*parts: Any) -> str:
    """Hex digest of arrays and plain values: the name of a cached computation."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).tobytes())
        else:
            state.update(repr(part).encode())
    return state.hexdigest()


def _kept(path: Path) -> np.ndarray | None:
    """A cached embedding. None if there is none or the file is damaged; the embedding is then computed."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[:-32]).digest() != content[-32:]:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)
