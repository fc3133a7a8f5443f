"""Draws the frames of `feature_frames`: singular values, t-SNE, retrieved photos, distances of the encoders' layers.

In: tidy frames. Out: Figures in the one style of `style`.
"""
from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from reports import naming
from reports.figures.style import (
    COLUMN,
    GRID,
    INK,
    PAGE,
    RIGHT,
    SOFT,
    WRONG,
    finish,
    look,
    plain,
    powers,
    styled,
    wrapped,
)

CLASS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00")
TSNE_TITLES = {"nws": "Without sharing (NWS)", "hws": "Hard sharing (HWS)", "tcn": "With sharing and metric (TCN)",
               "tcn-no-semantic": "Without semantic metric"}
CURVES = {("training", "photo"): ("training, photos", "#d55e00", "-", "o"),
          ("training", "sketch"): ("training, sketches", "#0072b2", "-", "s"),
          ("unseen", "photo"): ("unseen, photos", "#d55e00", "--", "o"),
          ("unseen", "sketch"): ("unseen, sketches", "#0072b2", "--", "s")}
LABEL, GAP, STEP, ROW, HEAD, BETWEEN, TOP = 2.35, 0.3, 1.04, 1.12, 0.62, 0.25, 0.45
"""Geometry of retrieval examples, in units of a picture's side: width of the labels, gap after the query, columns, rows,
headings."""
PLACES = 13
PIXELS = 150
"""Side of a picture in a figure, in inches."""
SHARES = (1e-5, 1.0)
"""Range of shares of the start's norm on a map of distances; smaller values are drawn like the smallest."""


@styled
def singular_values(frame: pd.DataFrame) -> Figure:
    """Frame of `feature_frames.singular_values` -> one panel per variant with four curves."""
    variants = list(dict.fromkeys(frame["variant"]))
    across = len(variants) if len(variants) <= 4 else 3
    down = math.ceil(len(variants) / across)
    spare = across * down - len(variants)
    figure = Figure(figsize=(PAGE if across > 1 else COLUMN, (0.15 if spare else 0.5) + (2.05 if across > 2 else 2.6) * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for panel, variant in zip(panels.flat, variants):
        part = frame[frame["variant"] == variant]
        for offset, ((where, modality), (label, colour, line, marker)) in enumerate(CURVES.items()):
            curve = part[(part["set"] == where) & (part["modality"] == modality)]
            if len(curve):
                panel.plot(curve["index"], curve["relative"], color=colour, linestyle=line, marker=marker,
                           markevery=(offset, 6), markersize=3.5, markerfacecolor=colour if line == "-" else "white",
                           label=label)
        soft = f"Soft, weight {part['weight'].iloc[0]:g}" + (" (TCN)" if part["own"].iloc[0] else "")
        finish(panel, {"nws": "Without (NWS)", "hws": "Hard (HWS)"}.get(variant, soft), "", "", legend=False)
        panel.set_ylim(0, 1.03)
    for panel in panels.flat[len(variants):]:
        panel.set_axis_off()
    for place, panel in enumerate(panels.flat[:len(variants)]):
        if spare or place >= len(variants) - across:
            panel.set_xlabel("Singular value, by size")
            panel.tick_params(labelbottom=True)
    for panel in panels[:, 0]:
        panel.set_ylabel("Value / largest")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if spare:
        panels.flat[-1].legend(handles, labels, loc="center")
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=4 if across > 1 else 2)
    return figure


@styled
def tsne(frame: pd.DataFrame, examples: pd.DataFrame | None = None) -> Figure:
    """Frame of `feature_frames.tsne` -> one panel per variant; dots photos, crosses sketches, numbers name the classes.

    `examples`, with the columns of `feature_frames.retrieval`, are drawn below.
    """
    variants = list(dict.fromkeys(frame["variant"]))
    width = PAGE if len(variants) > 1 else COLUMN
    left, gap, title, foot = 0.2, 0.12, 0.24, 0.2
    side = (width - left - gap * len(variants)) / len(variants)
    legend = 0.42 if len(variants) > 1 else 1.0
    below = width * _height(examples) / _width() if examples is not None else 0.0
    height = title + side + foot + legend + below
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    classes = sorted(frame.loc[frame["shown"], "class"].unique())
    for place, variant in enumerate(variants):
        panel = figure.add_axes(((left + place * (side + gap)) / width, 1 - (title + side) / height, side / width,
                                 side / height))
        _embedding(panel, frame[frame["variant"] == variant], classes)
        panel.set_title(TSNE_TITLES.get(variant, naming.short_label(variant)))
        panel.set_ylabel("" if place else "t-SNE 2", labelpad=3)
    handles = [Line2D([], [], linestyle="", marker="o", color=colour, label=f"{number} {plain(name)}")
               for number, (name, colour) in enumerate(zip(classes, CLASS_COLOURS), start=1)]
    handles += [Line2D([], [], linestyle="", marker="o", color=SOFT, label="photo"),
                Line2D([], [], linestyle="", marker="x", color=SOFT, label="sketch")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - (title + side + foot - 0.04) / height),
                  ncols=5 if len(variants) > 1 else 2, columnspacing=1.4, handletextpad=0.2)
    if examples is not None:
        axes = figure.add_axes((0.004, 0.0, 0.992, below / height))
        _examples(axes, examples)
    return figure


def tsne_places(figure: Figure, frame: pd.DataFrame) -> np.ndarray:
    """Where a drawn figure of `tsne` shows each row of its frame: shares of its width and height from the top left, [N, 2]."""
    places = np.full((len(frame), 2), np.nan)
    for panel, variant in zip(figure.axes, dict.fromkeys(frame["variant"])):
        own = (frame["variant"] == variant).to_numpy()
        points = panel.transData.transform(frame.loc[own, ["x", "y"]].to_numpy())
        places[own] = points / (figure.bbox.width, figure.bbox.height)
    places[:, 1] = 1 - places[:, 1]
    return places


def _embedding(panel: Axes, part: pd.DataFrame, classes: list[str]) -> None:
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
        panel.annotate(str(number), (nearest["x"], nearest["y"]), xytext=(5, 5), textcoords="offset points", color=colour,
                       fontsize=7.5, fontweight="bold", ha="center", va="center", zorder=3,
                       path_effects=[patheffects.withStroke(linewidth=2, foreground="white")])
    panel.set_aspect("equal", adjustable="datalim")
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel("t-SNE 1", labelpad=2)
    panel.grid(visible=False)
    panel.spines[["top", "right"]].set_visible(True)
    for spine in panel.spines.values():
        spine.set_color("#bdbdbd")


@styled
def retrieval(frame: pd.DataFrame) -> Figure:
    """Frame of `feature_frames.retrieval` -> a page of queries, each with one row of 13 photos per variant."""
    figure = Figure(figsize=(PAGE, PAGE * _height(frame) / _width()))
    figure.set_layout_engine("none")
    _examples(figure.add_axes((0.004, 0.0, 0.992, 1.0)), frame)
    return figure


def _width() -> float:
    return LABEL + 1.1 + GAP + PLACES * STEP


def _height(frame: pd.DataFrame) -> float:
    return TOP + sum(HEAD + ROW * part["variant"].nunique() + BETWEEN for _, part in frame.groupby("block"))


def _examples(axes: Axes, frame: pd.DataFrame) -> None:
    """Queries with one row per variant; right: solid green frame and ✓, wrong: dashed vermilion frame and ✗."""
    axes.set(xlim=(0, _width()), ylim=(_height(frame), 0))
    axes.set_axis_off()
    first = LABEL + 1.1 + GAP
    for rank in range(1, PLACES + 1):
        axes.text(first + (rank - 1) * STEP + 0.5, 0.3, str(rank), ha="center", va="center", fontsize=6.5, color=SOFT)
    axes.text(first - 0.12, 0.3, "rank", ha="right", va="center", fontsize=6.5, color=SOFT)
    top = TOP
    for number, (_, part) in enumerate(frame.groupby("block", sort=True)):
        one = part.iloc[0]
        if number:
            axes.plot([0, _width()], [top - BETWEEN / 2] * 2, color=GRID, linewidth=0.8)
        source = f" ({naming.publisher(one['query_source'])})" if one["query_source"] else ""
        failure = "Failure: " if one["kind"] == "failure" else ""
        axes.text(0, top + HEAD / 2, f"{failure}{plain(one['query_class'])}{source}", va="center", fontsize=7.5,
                  fontweight="bold", color=WRONG if failure else INK)
        top += HEAD
        for variant in dict.fromkeys(part["variant"]):
            _answer(axes, part[part["variant"] == variant].sort_values("rank"), top, first)
            top += ROW
        top += BETWEEN


def _answer(axes: Axes, row: pd.DataFrame, top: float, first: float) -> None:
    """One variant's row: its name, the query, the photos with their marks."""
    axes.text(0, top + 0.36, wrapped(naming.short_label(row["variant"].iloc[0])), va="center", fontsize=6.5, linespacing=1.05)
    axes.text(0, top + 0.80, f"AP {row['ap'].iloc[0]:.2f}", va="center", fontsize=6.5, color=SOFT)
    _pictures(axes, [row["query_file"].iloc[0]], LABEL, top)
    _pictures(axes, list(row["file"]), first, top)
    axes.add_patch(Rectangle((LABEL, top), 1, 1, fill=False, edgecolor=SOFT, linewidth=0.8))
    for place, right in enumerate(row["correct"]):
        left = first + place * STEP
        colour = RIGHT if right else WRONG
        axes.add_patch(Rectangle((left + 0.02, top + 0.02), 0.96, 0.96, fill=False, edgecolor=colour,
                                 linewidth=1.4 if right else 1.0, linestyle="-" if right else (0, (2.2, 1.6))))
        axes.text(left + 0.83, top + 0.83, "✓" if right else "✗", color=colour, fontsize=6.5, fontweight="bold",
                  ha="center", va="center")
    # One collection of white discs under the marks, since a box around each text would take as long as all else on the page.
    axes.scatter(first + np.arange(len(row)) * STEP + 0.83, np.full(len(row), top + 0.83), s=80, color="white", linewidths=0,
                 zorder=2)


def _pictures(axes: Axes, files: list[str], left: float, top: float) -> None:
    """Draw pictures on white squares, side by side from (left, top), as one image, so that not each of hundreds is resampled."""
    step = round(STEP * PIXELS)
    strip = Image.new("RGB", (step * (len(files) - 1) + PIXELS, PIXELS), "white")
    inner = round(0.86 * PIXELS)
    for place, file in enumerate(files):
        with Image.open(file) as found:
            image = found.convert("RGBA")
        scale = inner / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
        corner = (place * step + (PIXELS - image.width) // 2, (PIXELS - image.height) // 2)
        strip.paste(image, corner, image)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(np.asarray(strip), extent=(left, left + strip.width / PIXELS, top + 1, top), aspect="auto",
                interpolation="antialiased")
    axes.set(xlim=limits[0], ylim=limits[1])  # imshow has set the limits to its own picture


@styled
def layer_distances(frame: pd.DataFrame) -> Figure:
    """Frame of `feature_frames.layer_distances` -> maps of layer over step, curves over steps, and parts at the last step."""
    mapped = list(dict.fromkeys(frame.loc[frame["level"] == "layer", "variant"]))
    figure = Figure(figsize=(PAGE, (2.15 if mapped else 0.0) + 4.55))
    ratios = [*([2.15] if mapped else []), 2.05, 2.5]
    rows = np.atleast_1d(np.asarray(figure.subfigures(len(ratios), 1, height_ratios=ratios)))
    if mapped:
        _layer_maps(rows[0], frame, mapped)
    over, at_end = rows[-2].subplots(1, 3, sharey=True), rows[-1].subplots(1, 2, sharey=True)
    whole = frame[frame["level"] == "whole"]
    for panel, (title, kind, column) in zip(over, (
            ("Between the encoders", "convolution", "between"), ("From the ImageNet start", "convolution", "start"),
            ("Batch norms, between", "batch norm", "between"))):
        for variant, part in _positive(whole[whole["kind"] == kind], column):
            colour, _, line, _ = look(variant)
            panel.plot(part["step"], part[column], color=colour, linestyle=line, label=_named(variant, part))
        panel.set(xscale="log", yscale="log")
        powers(panel.xaxis)
        powers(panel.yaxis)
        finish(panel, title, "Optimiser step", "", legend=False)
    over[0].set_ylabel("Share of the start’s norm")
    last = frame[(frame["level"] != "layer") & (frame["step"] == frame.groupby("variant")["step"].transform("max"))]
    parts = list(dict.fromkeys(last.loc[last["level"] == "part", "part"]))
    for panel, (title, column) in zip(at_end, (("At the last step: between the encoders", "between"),
                                               ("At the last step: from the ImageNet start", "start"))):
        for variant, part in _positive(last, column):
            colour, marker, line, _ = look(variant)
            by_part = part[part["level"] == "part"].set_index("part")[column].reindex(parts)
            panel.plot(range(len(parts)), by_part, color=colour, marker=marker, linestyle=line, label=_named(variant, part))
            norms = part.loc[part["kind"] == "batch norm", column]
            panel.plot([len(parts) + 0.5] * len(norms), norms, color=colour, marker=marker, linestyle="")
        panel.axvline(len(parts) - 0.25, color=GRID, linewidth=1)
        panel.set_yscale("log")
        powers(panel.yaxis)
        panel.set_xticks([*range(len(parts)), len(parts) + 0.5], [*map(_part_name, parts), "batch\nnorms"])
        panel.grid(axis="x", visible=False)
        finish(panel, title, "", "", legend=False)
    at_end[0].set_ylabel("Share of the start’s norm")
    named = {label: handle for panel in (*over, *at_end) for handle, label in zip(*panel.get_legend_handles_labels())}
    rows[-1].legend(named.values(), named.keys(), loc="outside lower center", ncols=5)
    return figure


def _layer_maps(row: Figure, frame: pd.DataFrame, mapped: list[str]) -> None:
    """One map per variant: layers from the stem down, steps on a logarithmic axis, colour the share of the start's norm."""
    panels = row.subplots(1, len(mapped), sharey=True, squeeze=False)[0]
    layers = frame[frame["level"] == "layer"]
    # The colour scale starts at a value at which the map with the smallest distances is still visible.
    least = layers.loc[layers["between"] > 0, "between"]
    low = max(SHARES[0], 10 ** math.floor(math.log10(least.quantile(0.02)))) if len(least) else SHARES[0]
    for panel, variant in zip(panels, mapped):
        part = layers[layers["variant"] == variant]
        table = part.pivot(index="depth", columns="step", values="between")
        steps = table.columns.to_numpy(dtype=float)
        # Cells of equal width on the logarithm of the step; each shows the last reading before it.
        grid = np.linspace(0, math.log10(max(steps[-1], 10)), 96)
        at = np.clip(np.searchsorted(np.log10(steps), grid + 1e-9, side="right") - 1, 0, len(steps) - 1)
        panel.imshow(np.clip(table.to_numpy()[:, at], low, None), norm=LogNorm(low, SHARES[1]), cmap="cividis", aspect="auto",
                     extent=(0, grid[-1], len(table) - 0.5, -0.5), interpolation="none")
        decades = range(int(grid[-1]) + 1)
        panel.set_xticks(list(decades), [f"{10 ** d:,}" for d in decades])
        places = part.groupby("part", sort=False)["depth"].agg(["min", "max"])
        panel.set_yticks((places["min"] + places["max"]) / 2, [_part_name(name) for name in places.index])
        panel.tick_params(axis="y", length=0)
        for edge in places["min"].iloc[1:]:
            panel.axhline(edge - 0.5, color="white", linewidth=0.6)
        panel.grid(visible=False)
        finish(panel, _named(variant, part), "Optimiser step", "", legend=False)
    panels[0].set_ylabel("Convolutions by depth")
    bar = row.colorbar(panels[-1].images[0], ax=list(panels), fraction=0.05, pad=0.015, extend="min")
    powers(bar.ax.yaxis)
    bar.ax.minorticks_off()
    bar.set_label("Distance of the encoders,\nshare of the start’s norm", fontsize=7)
    bar.outline.set_linewidth(0.5)


def _positive(frame: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """The variants with a value above 0; others can't be drawn on a logarithmic axis."""
    above = frame[frame[column] > 0]
    return [(variant, above[above["variant"] == variant]) for variant in dict.fromkeys(above["variant"])]


def _named(variant: str, part: pd.DataFrame) -> str:
    return f"TCN, weight {part['weight'].iloc[0]:g}" if variant == "tcn" else naming.short_label(variant)


def _part_name(part: str) -> str:
    """`stage2` -> `stage 2`."""
    return part.replace("stage", "stage ")
