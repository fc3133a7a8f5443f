"""Drawings of differences: paired comparisons with their intervals, and the deviations of the released code.

In: tidy frames. Out: Figures in the one style of `style`.
"""
from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.figures.style import GRID, INK, PAGE, SOFT, finish, styled, wrapped
from reports.wording import signed

DEVIATION_LOOKS = {"training": ("#0072b2", "", "o"), "scoring": ("#e69f00", "////", "s"), "all": ("#595959", "xx", "D")}
"""Kind of deviation -> colour, hatch, marker."""
DEVIATION_NAMES = {"training": "changes training (paired runs)", "scoring": "changes scoring (one network)",
                   "all": "all at once (paired runs)"}


@styled
def intervals(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.intervals` -> forest plot: each row has a difference and its interval, under the heading of its group."""
    lines: list[tuple[str, pd.Series | None]] = []
    for group, part in frame.groupby("group", sort=False):
        lines += [(str(group), None)] * bool(str(group)) + [(str(row["label"]), row) for _, row in part.iterrows()]
    figure = Figure(figsize=(PAGE, 0.62 + 0.185 * len(lines)))
    panel = figure.subplots()
    for y, (_, row) in enumerate(lines):
        if row is None:
            continue
        value, low, high = row["difference"], row["low"], row["high"]
        if not math.isnan(low):
            panel.plot([low, high], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt", zorder=2)
        panel.scatter(value, y, s=20, marker="s", linewidths=1.1, zorder=3, edgecolors="#0072b2",
                      facecolors="#0072b2" if row["seeds"] > 1 else "white")
        span = f" [{signed(low, 3)}, {signed(high, 3)}]" if not math.isnan(low) else ""
        panel.annotate(f"{signed(value, 3)}{span}", (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
                       textcoords="offset points", va="center", fontsize=6.5, annotation_clip=False)
        seeds = int(row["seeds"])
        panel.annotate("1 seed" if seeds == 1 else f"{seeds} seeds", (1, y), xycoords=("axes fraction", "data"),
                       xytext=(106, 0), textcoords="offset points", va="center", fontsize=6.5, color=SOFT)
    panel.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    panel.set_yticks(range(len(lines)), [text for text, _ in lines])
    for tick, (_, row) in zip(panel.get_yticklabels(), lines):
        tick.set_fontweight("bold" if row is None else "normal")
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(len(lines) - 0.4, -0.6)
    panel.margins(x=0.05)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)
    finish(panel, "", f"Difference in {frame['metric'].iloc[0]}, first minus second", "", legend=False)
    return figure


@styled
def ledger_bars(frame: pd.DataFrame) -> Figure:
    """Frame of `frames.ledger_bars` -> horizontal bars, one per deviation; the hatch distinguishes training from scoring."""
    deviations = list(dict.fromkeys(frame["deviation"]))
    figure = Figure(figsize=(PAGE, 0.75 + 0.33 * len(deviations)))
    panel = figure.subplots()
    labels = []
    for y, deviation in enumerate(deviations):
        part = frame[frame["deviation"] == deviation]
        values, kind = part["points"], part["kind"].iloc[0]
        colour, hatch, marker = DEVIATION_LOOKS[kind]
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
        labels.append(wrapped(part["title"].iloc[0] + codes, 52))
        if kind == "all" and y:
            panel.axhline(y - 0.5, color=GRID, linewidth=1)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set_yticks(range(len(deviations)), labels)
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.margins(x=0.16)
    finish(panel, "", f"Released minus corrected, points of {frame['metric'].iloc[0]}", "", legend=False)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)
    handles = [Line2D([], [], linestyle="", marker=DEVIATION_LOOKS[kind][2], color=DEVIATION_LOOKS[kind][0], markeredgecolor=INK,
                      markersize=5, label=text) for kind, text in DEVIATION_NAMES.items() if (frame["kind"] == kind).any()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handlelength=1)
    return figure
