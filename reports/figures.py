"""Tidy frames -> Figures, in one style: colour-blind-safe, readable in grey and at column width.

A function takes a frame of `figure_data` and returns a Figure; naming and saving happen in `render`.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from reports import paper

COLUMN, PAGE = 3.4, 7.0
"""Widths of a journal's column and page, in inches."""
INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
RIGHT, WRONG = "#007a55", "#d55e00"
"""Bluish green and vermilion: told apart by all common forms of colour blindness; line style and glyph differ too."""
LOOKS: dict[str, tuple[str, str, str, str]] = {
    "tcn": ("#0072b2", "o", "-", ""),
    "hws": ("#d55e00", "s", "--", "////"),
    "nws": ("#009e73", "^", "-.", "...."),
    "floor-imagenet": ("#8c8c8c", "D", ":", "xx"),
    "floor-imagenet-permodality": ("#595959", "D", ":", "xx"),
    "floor-svd": ("#c084b0", "v", ":", "++"),
    "floor-svd-permodality": ("#8a4b75", "v", ":", "++"),
}
"""Variant -> colour, marker, line style, hatch; Okabe-Ito colours for the trained three."""
TRAP_LOOKS = {"training": ("#0072b2", "", "o"), "scoring": ("#e69f00", "////", "s"), "all": ("#595959", "xx", "D")}
"""Kind of trap -> colour, hatch, marker."""
TRAP_NAMES = {"training": "changes training (paired runs)", "scoring": "changes scoring (one network)",
              "all": "all at once (paired runs)"}
CLASS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")
MOTIVATION = {
    "class loss, sketches": ("Class loss: sketches", "Iteration", "Cross-entropy"),
    "class loss, photos": ("Class loss: photos", "Iteration", "Cross-entropy"),
    "seen-class accuracy": ("Seen classes, held-out sketches", "Epoch", "Class accuracy"),
    "validation mAP": ("Validation classes", "Epoch", "mAP@all"),
}
"""Quantity -> title and axes of its panel, in order."""

Drawing = Callable[[pd.DataFrame], Figure]


def style() -> AbstractContextManager[Any]:
    """The one style of all figures, as a context; saving must happen inside it too."""
    return matplotlib.rc_context({
        "font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK, "text.parse_math": False,
        "axes.titlesize": 8, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 7.5,
        "axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.linewidth": 0.7, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
        "grid.linewidth": 0.6, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK,
        "ytick.labelcolor": INK, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
        "legend.frameon": False, "legend.handlelength": 2.2, "lines.linewidth": 1.4, "lines.markersize": 4,
        "hatch.linewidth": 0.6, "figure.facecolor": "white", "savefig.facecolor": "white", "pdf.fonttype": 42,
        "figure.constrained_layout.use": True, "figure.dpi": 100,
    })


def _styled(draw: Drawing) -> Drawing:
    @functools.wraps(draw)
    def inside(frame: pd.DataFrame) -> Figure:
        with style():
            return draw(frame)
    return inside


def look(variant: str) -> tuple[str, str, str, str]:
    """Colour, marker, line style and hatch of a variant; unknown ones get a steady look of their own."""
    if variant in LOOKS:
        return LOOKS[variant]
    number = sum(map(ord, variant))
    return (("#e69f00", "#56b4e9", "#7a5195", "#8a6d00")[number % 4], "PX*h"[number % 4], "-", "\\\\\\")


@_styled
def overview(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.overview` -> dot plot, one panel per class set, variants down the side."""
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
            floor = variant.startswith("floor-")
            panel.plot([0, values.mean()], [y, y], color=GRID, linewidth=1.2, zorder=1)
            if len(values) > 1:
                panel.scatter(values, [y] * len(values), s=14, marker="|", color=colour, linewidths=1, zorder=2)
            panel.scatter(values.mean(), y, s=34, marker=marker, zorder=3, linewidths=1.3, edgecolors=colour,
                          facecolors="white" if floor else colour)
            panel.annotate(f"{values.mean():.3f}", (values.max(), y), xytext=(7, 0), textcoords="offset points",
                           va="center", fontsize=7)
        chance = part["chance"].dropna()
        if len(chance):
            panel.axvline(chance.iloc[0], color=INK, linestyle=":", linewidth=1)
        panel.set_title("Unseen classes" if classes == "unseen" else "Validation classes")
        panel.set_xlabel(f"{frame['metric'].iloc[0]}, released rule")
        panel.grid(axis="y", visible=False)
    dims = frame.groupby("variant")["dim"].first()
    axes[0].set_yticks(range(len(variants)), [
        f"{paper.short_label(v)}, {dims[v]:.0f}-d" if pd.notna(dims.get(v)) else paper.short_label(v) for v in variants])
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, frame["value"].max() * 1.24)
    return figure


@_styled
def motivation(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.motivation` -> a panel per quantity: two of losses, then accuracy and mAP where known."""
    known = [q for q in MOTIVATION if (frame["quantity"] == q).any()]
    across = len(known) if len(known) < 4 else 2
    down = math.ceil(len(known) / across)
    figure = Figure(figsize=(PAGE if across > 1 else COLUMN, 2.25 * down))
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
                panel.plot(part["at"], part["value"], color=colour, alpha=0.25, linewidth=0.5)
                panel.plot(part["at"], part["smoothed"], color=colour, linestyle=line, linewidth=1.7,
                           label=paper.short_label(variant))
                continue
            by_epoch = part.groupby("at")["value"]
            mean = by_epoch.mean()
            if part["seed"].nunique() > 1:
                panel.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, linewidth=0)
            panel.plot(mean.index, mean, color=colour, linestyle=line, marker=marker, markersize=3.5,
                       label=paper.short_label(variant))
        _finish(panel, title, x, y)
        if x == "Iteration":
            losses.append(panel)
        else:
            panel.xaxis.get_major_locator().set_params(integer=True)
    if losses:
        top = max(panel.get_ylim()[1] for panel in losses)
        for panel in losses:
            panel.set_ylim(0, top)
    return figure


@_styled
def singular_values(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.singular_values` -> one panel per variant with four curves."""
    variants = list(dict.fromkeys(frame["variant"]))
    across = len(variants) if len(variants) <= 4 else math.ceil(len(variants) / 2)
    down = math.ceil(len(variants) / across)
    figure = Figure(figsize=(PAGE if across > 1 else COLUMN, 0.5 + (2.05 if across > 2 else 2.6) * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    looks = {("training", "photo"): ("#d55e00", "-", "o"), ("training", "sketch"): ("#0072b2", "-", "s"),
             ("unseen", "photo"): ("#d55e00", "--", "o"), ("unseen", "sketch"): ("#0072b2", "--", "s")}
    for panel, variant in zip(panels.flat, variants):
        part = frame[frame["variant"] == variant]
        for offset, ((where, modality), (colour, line, marker)) in enumerate(looks.items()):
            curve = part[(part["set"] == where) & (part["modality"] == modality)]
            if len(curve):
                panel.plot(curve["index"], curve["relative"], color=colour, linestyle=line, marker=marker,
                           markevery=(offset, 6), markersize=3.5, markerfacecolor=colour if line == "-" else "white",
                           label=f"{where}, {modality}s" if modality == "photo" else f"{where}, sketches")
        weight = part["weight"].iloc[0]
        title = {"nws": "NWS (none)", "hws": "HWS (hard)"}.get(variant, f"TCN (soft, weight {weight:g})")
        _finish(panel, title, "", "", legend=False)
        panel.set_ylim(0, 1.03)
    for panel in panels.flat[len(variants):]:
        panel.set_visible(False)
    for column in range(across):
        lowest = panels.flat[max(n for n in range(len(variants)) if n % across == column)]
        lowest.set_xlabel("Singular value, by size")
        lowest.tick_params(labelbottom=True)
    for panel in panels[:, 0]:
        panel.set_ylabel("Value / largest")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if across > 1 else 2)
    return figure


@_styled
def tsne(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.tsne` -> one panel per variant; dots photos, crosses sketches, numbers name the classes."""
    variants = list(dict.fromkeys(frame["variant"]))
    across = min(len(variants), 3) if len(variants) != 4 else 2
    down = math.ceil(len(variants) / across)
    width = PAGE if across > 1 else COLUMN
    figure = Figure(figsize=(width, width / across * down + (0.65 if across > 1 else 1.0)))
    panels = figure.subplots(down, across, squeeze=False)
    classes = sorted(frame.loc[frame["shown"], "class"].unique())
    for panel, variant in zip(panels.flat, variants):
        part = frame[frame["variant"] == variant]
        for modality, marker, size in (("photo", "o", 14), ("sketch", "x", 19)):
            rest = part[~part["shown"] & (part["modality"] == modality)]
            panel.scatter(rest["x"], rest["y"], s=size * 0.25, marker=marker, color="#d2d2d2", linewidths=0.5, zorder=1)
            for name, colour in zip(classes, CLASS_COLOURS):
                own = part[(part["class"] == name) & (part["modality"] == modality)]
                edge = {"edgecolors": "white", "linewidths": 0.3} if marker == "o" else {"linewidths": 1.1}
                panel.scatter(own["x"], own["y"], s=size, marker=marker, color=colour, zorder=2, **edge)
        for number, (name, colour) in enumerate(zip(classes, CLASS_COLOURS), start=1):
            own = part[(part["class"] == name) & (part["modality"] == "photo")]
            middle = own[["x", "y"]].median()
            nearest = own.loc[((own[["x", "y"]] - middle) ** 2).sum(axis=1).idxmin()]
            panel.annotate(str(number), (nearest["x"], nearest["y"]), xytext=(5, 5), textcoords="offset points",
                           color=colour, fontsize=7.5, fontweight="bold", ha="center", va="center", zorder=3,
                           path_effects=[patheffects.withStroke(linewidth=2, foreground="white")])
        panel.set_title(paper.short_label(variant))
        panel.set_aspect("equal", adjustable="datalim")
        panel.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2" if panel in panels[:, 0] else "")
        panel.grid(visible=False)
        panel.spines[["top", "right"]].set_visible(True)
        for spine in panel.spines.values():
            spine.set_color(GRID)
    for panel in panels.flat[len(variants):]:
        panel.set_visible(False)
    handles = [Line2D([], [], linestyle="", marker="o", color=colour, label=f"{number} {_plain(name)}")
               for number, (name, colour) in enumerate(zip(classes, CLASS_COLOURS), start=1)]
    handles += [Line2D([], [], linestyle="", marker="o", color=SOFT, label="photo"),
                Line2D([], [], linestyle="", marker="x", color=SOFT, label="sketch")]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if across > 1 else 2, columnspacing=1.4,
                  handletextpad=0.2)
    return figure


@_styled
def retrieval(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.retrieval` -> a page of queries, each with one row of 13 photos per variant."""
    label_width, query_gap, row_height, head_height, block_gap = 2.35, 0.3, 1.12, 0.62, 0.25
    blocks = [part for _, part in frame.groupby("block", sort=True)]
    height = sum(head_height + row_height * part["variant"].nunique() + block_gap for part in blocks) + 0.45
    width = label_width + 1.1 + query_gap + 13 * 1.04
    figure = Figure(figsize=(PAGE, PAGE * height / width))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.004, 0.0, 0.992, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    first = label_width + 1.1 + query_gap
    for rank in range(1, 14):
        axes.text(first + (rank - 1) * 1.04 + 0.5, 0.3, str(rank), ha="center", va="center", fontsize=6, color=SOFT)
    axes.text(first - 0.12, 0.3, "rank", ha="right", va="center", fontsize=6, color=SOFT)
    top = 0.45
    for number, part in enumerate(blocks):
        one = part.iloc[0]
        if number:
            axes.plot([0, width], [top - block_gap / 2] * 2, color=GRID, linewidth=0.8)
        source = f" ({paper.publisher(one['query_source'])})" if one["query_source"] else ""
        failure = "Failure: " if one["kind"] == "failure" else ""
        axes.text(0, top + head_height / 2, f"{failure}{_plain(one['query_class'])}{source}", va="center", fontsize=7.5,
                  fontweight="bold", color=WRONG if failure else INK)
        top += head_height
        for variant in dict.fromkeys(part["variant"]):
            row = part[part["variant"] == variant].sort_values("rank")
            axes.text(0, top + 0.36, _wrapped(paper.short_label(variant)), va="center", fontsize=6.5, linespacing=1.05)
            axes.text(0, top + 0.80, f"AP {row['ap'].iloc[0]:.2f}", va="center", fontsize=6, color=SOFT)
            _picture(axes, row["query_file"].iloc[0], label_width, top, 1.0)
            axes.add_patch(Rectangle((label_width, top), 1, 1, fill=False, edgecolor=SOFT, linewidth=0.8))
            for _, hit in row.iterrows():
                left = first + (hit["rank"] - 1) * 1.04
                _picture(axes, hit["file"], left, top, 1.0)
                colour = RIGHT if hit["correct"] else WRONG
                axes.add_patch(Rectangle((left + 0.02, top + 0.02), 0.96, 0.96, fill=False, edgecolor=colour,
                                         linewidth=1.4 if hit["correct"] else 1.0,
                                         linestyle="-" if hit["correct"] else (0, (2.2, 1.6))))
                axes.text(left + 0.83, top + 0.83, "✓" if hit["correct"] else "✗", color=colour, fontsize=6.5,
                          fontweight="bold", ha="center", va="center",
                          bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": "none"})
            top += row_height
        top += block_gap
    return figure


@_styled
def publishers(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.publishers` -> grouped bars, one group per publisher."""
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
                      linewidth=0, label=paper.short_label(variant) if at == 0 else None)
            if len(values) > 1:
                panel.errorbar(x, values.mean(), values.std(ddof=1), color=INK, capsize=2, linewidth=0.9)
                panel.scatter(np.linspace(x - width / 4, x + width / 4, len(values)), values, s=7, facecolors="white",
                              edgecolors=INK, linewidths=0.6, zorder=3)
    for at, view in enumerate(views):
        chance = frame.loc[frame["view"] == view, "chance"].dropna()
        if len(chance):
            panel.plot([at - 0.43, at + 0.43], [chance.iloc[0]] * 2, color=INK, linestyle=":", linewidth=1.1,
                       label="chance" if at == 0 else None)
    panel.set_xticks(range(len(views)), [_wrapped(view, 22) for view in views])
    panel.tick_params(axis="x", length=0)
    _finish(panel, "", "Publisher of the query drawing", frame["metric"].iloc[0], legend=False)
    panel.grid(axis="x", visible=False)
    named = sorted(zip(*panel.get_legend_handles_labels()), key=lambda pair: pair[1] == "chance")
    figure.legend(*zip(*named), loc="outside upper center", ncols=len(named))
    return figure


@_styled
def sharing_weight(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.sharing_weight` -> mAP over the weight on a logarithmic axis."""
    figure = Figure(figsize=(COLUMN, 2.4))
    panel = figure.subplots()
    weights = sorted(frame["weight"].unique())
    positive = [w for w in weights if w > 0]
    # weight 0 has no place on a logarithmic axis: it stands one step left of the smallest
    place = {w: math.log10(w) if w > 0 else math.log10(positive[0]) - 1 for w in weights}
    for classes, colour, line, marker in (("validation", "#0072b2", "-", "o"), ("unseen", "#d55e00", "--", "s")):
        part = frame[frame["classes"] == classes].assign(at=lambda f: f["weight"].map(place))
        if part.empty:
            continue
        grouped = part.groupby("at")["value"]
        panel.plot(grouped.mean().index, grouped.mean(), color=colour, linestyle=line, marker=marker,
                   label=f"{classes} classes", markerfacecolor=colour if line == "-" else "white")
        if part["seed"].nunique() > 1:
            panel.fill_between(grouped.mean().index, grouped.min(), grouped.max(), color=colour, alpha=0.15, linewidth=0)
    used = [w for w in weights if frame.loc[frame["weight"] == w, "used"].any()]
    for weight, text in [(w, "used by TCN") for w in used] + [(w, "the paper's") for w in weights
                                                              if w == paper.PAPER_WEIGHT and w not in used]:
        panel.axvline(place[weight], color=SOFT, linestyle=":", linewidth=1)
        panel.annotate(text, (place[weight], 1), xycoords=("data", "axes fraction"), xytext=(2, -2), va="top",
                       textcoords="offset points", fontsize=6.5, color=SOFT, rotation=90)
    panel.margins(x=0.09)
    panel.set_xticks([place[w] for w in weights], [f"{w:g}" for w in weights])
    _finish(panel, "", "Weight of the sharing loss", frame["metric"].iloc[0])
    return figure


@_styled
def ledger_bars(frame: pd.DataFrame) -> Figure:
    """Frame of `figure_data.ledger_bars` -> horizontal bars, one per trap, training and scoring told apart by hatch."""
    traps = list(dict.fromkeys(frame["trap"]))
    figure = Figure(figsize=(PAGE, 0.75 + 0.33 * len(traps)))
    panel = figure.subplots()
    labels = []
    for y, trap in enumerate(traps):
        part = frame[frame["trap"] == trap]
        values, kind = part["points"], part["kind"].iloc[0]
        colour, hatch, marker = TRAP_LOOKS[kind]
        panel.barh(y, values.mean(), 0.62, color=colour, alpha=0.85, hatch=hatch, edgecolor="white", linewidth=0)
        panel.scatter(values.mean(), y, s=22, marker=marker, color=colour, edgecolors=INK, linewidths=0.7, zorder=4)
        low = high = values.mean()
        if len(values) > 1:
            sd = values.std(ddof=1)
            low, high = min(values.min(), low - sd), max(values.max(), high + sd)
            panel.errorbar(values.mean(), y, xerr=sd, color=INK, capsize=2, linewidth=0.9, zorder=3)
            panel.scatter(values, y + np.linspace(-0.17, 0.17, len(values)), s=6, facecolors="white", edgecolors=INK,
                          linewidths=0.6, zorder=5)
        right = values.mean() >= 0
        panel.annotate(f"{values.mean():+.1f}".replace("-", "−"), (max(high, 0) if right else min(low, 0), y),
                       xytext=(5 if right else -5, 0), textcoords="offset points", va="center",
                       ha="left" if right else "right", fontsize=7)
        codes = " (codes)" if part["features"].iloc[0] == "binary" else ""
        labels.append(_wrapped(part["title"].iloc[0] + codes, 52))
        if kind == "all" and y:
            panel.axhline(y - 0.5, color=GRID, linewidth=1)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set_yticks(range(len(traps)), labels)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.margins(x=0.16)
    _finish(panel, "", f"Released minus corrected, points of {frame['metric'].iloc[0]}", "", legend=False)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)
    handles = [Line2D([], [], linestyle="", marker=TRAP_LOOKS[kind][2], color=TRAP_LOOKS[kind][0], markeredgecolor=INK,
                      markersize=5, label=text) for kind, text in TRAP_NAMES.items() if (frame["kind"] == kind).any()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


DRAWINGS: dict[str, Drawing] = {function.__name__: function for function in (
    overview, motivation, singular_values, tsne, retrieval, publishers, sharing_weight, ledger_bars)}
"""`FigureData.kind` -> the function that draws it."""


def _finish(panel: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if legend and panel.get_legend_handles_labels()[0]:
        panel.legend()


def _picture(axes: Axes, file: str, left: float, top: float, size: float) -> None:
    """Draw a picture on white into the square at (left, top) of an axes whose y axis points down."""
    with Image.open(file) as image:
        image = image.convert("RGBA")
        image.thumbnail((160, 160))
        white = Image.new("RGBA", image.size, "white")
        pixels = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    margin = 0.07 * size
    axes.imshow(pixels, extent=(left + margin, left + size - margin, top + size - margin, top + margin), aspect="auto",
                interpolation="antialiased")
    # imshow moves the limits to its own picture
    axes.set_autoscale_on(False)


def _plain(name: str) -> str:
    """A class name as people write it."""
    return name.replace("_", " ")


def _wrapped(text: str, width: int = 16) -> str:
    """Break a label at spaces into lines of about `width` characters."""
    lines = [""]
    for word in text.split():
        lines = [*lines, word] if lines[-1] and len(lines[-1]) + len(word) >= width else \
            [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return "\n".join(lines)
