"""Tidy frames -> Figures, in one style: colour-blind-safe, readable in grey and at column width.

In: FigureData. Out: Figures; they are named and saved in `render`. Features and retrieved photos are drawn in `draw_features`,
differences in `draw_differences`; `style` holds what all drawings have in common.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import naming, paper
from reports.figure_kinds import FigureData
from reports.figures.draw_differences import intervals, ledger_bars
from reports.figures.draw_features import layer_distances, retrieval, singular_values, tsne
from reports.figures.style import (
    COLUMN,
    GRID,
    INK,
    PAGE,
    RIGHT,
    SETS,
    SOFT,
    WRONG,
    finish,
    look,
    over_seeds,
    plain,
    style,
    styled,
    wrapped,
)
from reports.read.escaping import shortened

__all__ = ["DRAWINGS", "RIGHT", "WRONG", "draw", "look", "style"]

MOTIVATION = {
    "class loss, sketches": ("Class loss: sketches", "Iteration", "Cross-entropy"),
    "class loss, photos": ("Class loss: photos", "Iteration", "Cross-entropy"),
    "seen-class accuracy": ("Seen classes, held-out sketches", "Epoch", "Class accuracy"),
    "validation mAP": ("Validation classes", "Epoch", "mAP@all"),
}
"""Quantity -> title and axes of its panel, in order."""
RAW_BINS = 1200
"""Number of bins of a raw curve. The lowest and the highest value of each bin are drawn, which looks the same as drawing all."""
HARDEST = 12

Drawing = Callable[[pd.DataFrame], Figure]


def draw(data: FigureData) -> Figure:
    """Draw a figure of any kind, with its examples below if it has some."""
    if data.examples is not None:
        return tsne(data.frame, data.examples)
    return DRAWINGS[data.kind](data.frame)


@styled
def overview(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.overview` -> dot plot, one panel per class set, variants down the side."""
    sets = [c for c in ("unseen", "validation") if (frame["classes"] == c).any()]
    variants = list(dict.fromkeys(frame["variant"]))
    figure = Figure(figsize=(PAGE if len(sets) > 1 else PAGE * 0.6, 0.62 + 0.24 * len(variants)))
    axes = figure.subplots(1, len(sets), sharey=True, sharex=True, squeeze=False)[0]
    for panel, classes in zip(axes, sets):
        part = frame[frame["classes"] == classes]
        for y, variant in enumerate(variants):
            values = part.loc[part["variant"] == variant, "value"]
            if values.empty:
                continue
            colour, marker, _, _ = look(variant)
            untrained = paper.is_untrained(variant)
            panel.plot([0, values.mean()], [y, y], color=GRID, linewidth=1.2, zorder=1)
            if len(values) > 1:
                panel.scatter(values, [y] * len(values), s=14, marker="|", color=colour, linewidths=1, zorder=2)
            panel.scatter(values.mean(), y, s=34, marker=marker, zorder=3, linewidths=1.3, edgecolors=colour,
                          facecolors="white" if untrained else colour)
            panel.annotate(f"{values.mean():.3f}", (values.max(), y), xytext=(7, 0), textcoords="offset points",
                           va="center", fontsize=7)
        chance = part["chance"].dropna()
        if len(chance):
            panel.axvline(chance.iloc[0], color=INK, linestyle=":", linewidth=1)
        panel.set_title("Unseen classes" if classes == "unseen" else "Validation classes")
        panel.set_xlabel(f"{frame['metric'].iloc[0]}, released rule")
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
    dims = frame.groupby("variant")["dim"].first()
    axes[0].set_yticks(range(len(variants)), [_with_length(naming.short_label(v), dims.get(v)) for v in variants])
    axes[0].set_ylim(len(variants) - 0.5, -0.5)  # the first on top; also of two rows, whole marks lie inside
    axes[0].set_xlim(0, frame["value"].max() * 1.24)
    return figure


@styled
def motivation(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.motivation` -> a panel per quantity: two of losses, then accuracy and mAP if they are known."""
    known = [q for q in MOTIVATION if (frame["quantity"] == q).any()]
    across = len(known) if len(known) < 4 else 2
    down = math.ceil(len(known) / across)
    figure = Figure(figsize=(PAGE if across > 1 else COLUMN, 2.25 * down))
    figure.set_layout_engine("constrained", w_pad=0.07, h_pad=0.06)
    panels = figure.subplots(down, across, squeeze=False)
    losses = []
    for panel, quantity in zip(panels.flat, known):
        title, x, y = MOTIVATION[quantity]
        for variant in paper.TRAINED:
            part = frame[(frame["variant"] == variant) & (frame["quantity"] == quantity)]
            if part.empty:
                continue
            colour, marker, line, _ = look(variant)
            if x == "Iteration":
                raw = _envelope(part)
                panel.plot(raw["at"], raw["value"], color=colour, alpha=0.3, linewidth=0.5)
                every = max(1, len(part) // (2 * RAW_BINS))
                panel.plot(part["at"][::every], part["smoothed"][::every], color=colour, linestyle=line, linewidth=1.7,
                           label=naming.short_label(variant))
                continue
            by_epoch = part.groupby("at")["value"]
            mean = by_epoch.mean()
            if part["seed"].nunique() > 1:
                panel.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, linewidth=0)
            panel.plot(mean.index, mean, color=colour, linestyle=line, marker=marker, markersize=3.5,
                       label=naming.short_label(variant))
        finish(panel, wrapped(title, 24) if across > 2 else title, x, y)
        if x == "Iteration":
            losses.append(panel)
        else:
            panel.xaxis.get_major_locator().set_params(integer=True)
    if losses:
        top = max(panel.get_ylim()[1] for panel in losses)
        for panel in losses:
            panel.set_ylim(0, top)
    return figure


@styled
def publishers(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.publishers` -> grouped bars, one group per publisher."""
    views, variants = list(dict.fromkeys(frame["view"])), list(dict.fromkeys(frame["variant"]))
    figure = Figure(figsize=(PAGE, 2.6))
    panel = figure.subplots()
    width = 0.82 / len(variants)
    for number, variant in enumerate(variants):
        colour, _, _, hatch = look(variant)
        for at, view in enumerate(views):
            values = frame.loc[(frame["variant"] == variant) & (frame["view"] == view), "value"]
            if values.empty:
                continue
            x = at + (number - (len(variants) - 1) / 2) * width
            panel.bar(x, values.mean(), width * 0.92, color=colour, alpha=0.85, hatch=hatch, edgecolor="white",
                      linewidth=0, label=naming.short_label(variant) if at == 0 else None)
            if len(values) > 1:
                panel.errorbar(x, values.mean(), values.std(ddof=1), color=INK, capsize=2, linewidth=0.9)
                panel.scatter(np.linspace(x - width / 4, x + width / 4, len(values)), values, s=7, facecolors="white",
                              edgecolors=INK, linewidths=0.6, zorder=3)
    for at, view in enumerate(views):
        chance = frame.loc[frame["view"] == view, "chance"].dropna()
        if len(chance):
            panel.plot([at - 0.43, at + 0.43], [chance.iloc[0]] * 2, color=INK, linestyle=":", linewidth=1.1,
                       label="chance" if at == 0 else None)
    panel.set_xticks(range(len(views)), [wrapped(view, 22) for view in views])
    panel.tick_params(axis="x", length=0)
    finish(panel, "", "Publisher of the query drawing", frame["metric"].iloc[0], legend=False)
    panel.grid(axis="x", visible=False)
    named = sorted(zip(*panel.get_legend_handles_labels()), key=lambda pair: pair[1] == "chance")
    figure.legend(*zip(*named), loc="outside upper center", ncols=len(named))
    return figure


@styled
def sharing_weight(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.sharing_weight` -> mAP over the weight on a logarithmic axis."""
    figure = Figure(figsize=(COLUMN, 2.4))
    panel = figure.subplots()
    weights = sorted(frame["weight"].unique())
    positive = [w for w in weights if w > 0]
    # A logarithmic axis has no 0, so weight 0 is drawn one step left of the smallest weight.
    place = {w: math.log10(w) if w > 0 else math.log10(positive[0]) - 1 for w in weights}
    for classes in ("validation", "unseen"):
        part = frame[frame["classes"] == classes].assign(at=lambda f: f["weight"].map(place))
        if len(part):
            over_seeds(panel, part, *SETS[classes], f"{classes} classes")
    used = [w for w in weights if frame.loc[frame["weight"] == w, "used"].any()]
    for weight, text in [(w, "used by TCN") for w in used] + [(w, "the paper's") for w in weights
                                                              if w == paper.PAPER_WEIGHT and w not in used]:
        panel.axvline(place[weight], color=SOFT, linestyle=":", linewidth=1, zorder=1)
        panel.annotate(text, (place[weight], 1), xycoords=("data", "axes fraction"), xytext=(0, 2), va="bottom", ha="center",
                       textcoords="offset points", fontsize=6.5, color=SOFT)
    panel.margins(x=0.09, y=0.12)
    panel.set_xticks([place[w] for w in weights], [f"{w:,.0f}" if w >= 1 else f"{w:g}" for w in weights])
    finish(panel, "", "Weight of the sharing loss", frame["metric"].iloc[0])
    return figure


@styled
def dimensions(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.dimensions` -> mAP over the length of the features, real-valued and binary."""
    figure = Figure(figsize=(COLUMN, 2.4))
    panel = figure.subplots()
    for features, label, colour, line, marker in (("real", "real-valued, D numbers", "#0072b2", "-", "o"),
                                                  ("binary", "binary, D bits", "#d55e00", "--", "s")):
        part = frame[frame["features"] == features]
        if len(part):
            over_seeds(panel, part.assign(at=np.log2(part["dim"].astype(float))), colour, line, marker, label)
    lengths = sorted(frame["dim"].astype(int).unique())
    panel.set_xticks(np.log2(lengths), list(map(str, lengths)))
    panel.margins(x=0.06, y=0.12)
    finish(panel, "", "Dimensions D of the feature", frame["metric"].iloc[0])
    return figure


@styled
def coupling(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.coupling` -> dot plot from nothing coupled, at the top, to everything; one panel per class set."""
    sets = [c for c in ("unseen", "validation") if (frame["classes"] == c).any()]
    rows = frame.drop_duplicates("variant")[["variant", "part"]]
    beside = rows["variant"].iloc[-1] == "tcn-own-embedding"
    places = {variant: y + (0.35 if beside and y == len(rows) - 1 else 0) for y, variant in enumerate(rows["variant"])}
    figure = Figure(figsize=(PAGE, 0.66 + 0.225 * len(rows)))
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for panel, classes in zip(panels, sets):
        part = frame[frame["classes"] == classes]
        colour, _, marker = SETS[classes]
        paired = part[part["paired"]].groupby("variant", sort=False)["value"].agg(["mean", "min", "max"])
        ladder = paired[[variant != "tcn-own-embedding" for variant in paired.index]]
        panel.plot(ladder["mean"], [places[v] for v in ladder.index], color=colour, linewidth=0.9, alpha=0.5, zorder=1)
        for variant, value in paired.iterrows():
            panel.plot([value["min"], value["max"]], [places[variant]] * 2, color=colour, linewidth=2.2, alpha=0.35, zorder=2)
            named = variant in paper.TRAINED
            panel.scatter(value["mean"], places[variant], s=26, marker=marker, color=colour, zorder=4, linewidths=1.1,
                          facecolors=colour if named else "white")
        rest = part[~part["paired"]]
        panel.scatter(rest["value"], rest["variant"].map(places), s=8, marker="|", color=colour, linewidths=0.9, zorder=3)
        panel.set_title("Unseen classes" if classes == "unseen" else "Validation classes")
        panel.set_xlabel(f"{frame['metric'].iloc[0]}, released rule")
        panel.margins(x=0.08)
        panel.tick_params(axis="y", length=0)
        if beside:
            panel.axhline(places["tcn-own-embedding"] - 0.67, color=SOFT, linewidth=0.7)
    panels[0].set_yticks(list(places.values()), rows["part"])
    panels[0].set_ylim(max(places.values()) + 0.5, -0.5)
    panels[0].set_ylabel("What the encoders share")
    return figure


@styled
def precision_recall(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.precision_recall` -> one curve per variant, mean over seeds with the band of seeds."""
    figure = Figure(figsize=(COLUMN, 2.7))
    panel = figure.subplots()
    for variant in dict.fromkeys(frame["variant"]):
        part = frame[frame["variant"] == variant]
        colour, marker, line, _ = look(variant)
        grouped = part.groupby("recall")["precision"]
        mean = grouped.mean()
        if part["seed"].nunique() > 1:
            panel.fill_between(mean.index, grouped.min(), grouped.max(), color=colour, alpha=0.15, linewidth=0)
        panel.plot(mean.index, mean, color=colour, linestyle=line, marker=marker, markevery=(0.05, 0.2), markersize=3.5,
                   label=naming.short_label(variant))
    chance = frame["chance"].dropna()
    if len(chance):
        panel.axhline(chance.iloc[0], color=INK, linestyle=":", linewidth=1, label="chance")
    panel.set(xlim=(0, 1), ylim=(0, None))
    finish(panel, "", "Recall", "Precision")
    return figure


@styled
def class_precision(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.class_precision` -> all classes as sorted curves, and the hardest ones by name."""
    variants = list(dict.fromkeys(frame["variant"]))
    hardest = frame[frame["hardness"] < HARDEST].sort_values("hardness", kind="stable")
    names = list(dict.fromkeys(hardest["class"]))
    figure = Figure(figsize=(PAGE, max(2.4, 0.75 + 0.19 * len(names))))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for number, variant in enumerate(variants):
        colour, marker, line, _ = look(variant)
        means = frame[frame["variant"] == variant].groupby("class")["value"].mean().sort_values()
        left.plot(range(1, len(means) + 1), means, color=colour, linestyle=line, marker=marker, markersize=3.5,
                  markevery=(number * 2, max(1, len(means) // 8)), label=naming.short_label(variant))
        values = hardest[hardest["variant"] == variant].groupby("class")["value"].agg(["mean", "min", "max"]).reindex(names)
        y = np.arange(len(names)) + (number - (len(variants) - 1) / 2) * 0.22
        right.hlines(y, values["min"], values["max"], color=colour, linewidth=0.8, alpha=0.7)
        right.plot(values["mean"], y, color=colour, linestyle="", marker=marker, markersize=3.8,
                   clip_on=False)
    finish(left, "All unseen classes", "Class, from hardest to easiest", frame["metric"].iloc[0])
    left.set_ylim(0, 1)
    finish(right, f"The {len(names)} hardest", frame["metric"].iloc[0], "", legend=False)
    right.set_yticks(range(len(names)), [shortened(plain(name), 28) for name in names])
    right.set_ylim(len(names) - 0.4, -0.6)
    right.set_xlim(left=0)
    right.tick_params(axis="y", length=0)
    right.grid(axis="y", visible=False)
    for band in range(0, len(names), 2):
        right.axhspan(band - 0.5, band + 0.5, color="#f5f5f5", linewidth=0, zorder=0)
    return figure


DRAWINGS: dict[str, Drawing] = {function.__name__: function for function in (
    overview, motivation, singular_values, tsne, retrieval, layer_distances, precision_recall, class_precision, dimensions,
    sharing_weight, coupling, ledger_bars, publishers, intervals)}
"""`FigureData.kind` -> the function that draws it."""


def _envelope(part: pd.DataFrame) -> pd.DataFrame:
    """A raw curve reduced to at most 2 x RAW_BINS points: the lowest and highest of each bin, in their order."""
    if len(part) <= 2 * RAW_BINS:
        return part
    part = part.reset_index(drop=True)
    values = part["value"].groupby(np.arange(len(part)) * RAW_BINS // len(part))
    return part.loc[np.unique(np.concatenate([values.idxmin(), values.idxmax()]))]


def _with_length(label: str, dim: float | None) -> str:
    """A label with the length of the feature, unless it ends with that already."""
    length = "" if dim is None or math.isnan(dim) else f", {dim:.0f}-d"
    return label if label.endswith(length) else label + length
