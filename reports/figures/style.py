"""The common style of all figures: widths, colours that colour-blind readers can distinguish, line styles that differ in grey.

In: variants and panels. Out: their looks. What a figure shows is decided elsewhere.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.read.escaping import shortened, visible

COLUMN, PAGE = 3.4, 7.0
"""Widths of a journal's column and page, in inches."""
INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
RIGHT, WRONG = "#007a55", "#d55e00"
"""Bluish green and vermilion, which readers with any common colour blindness can distinguish; line style and glyph differ too."""
Dashes = str | tuple[int, tuple[float, ...]]
LOOKS: dict[str, tuple[str, str, Dashes, str]] = {
    "tcn": ("#0072b2", "o", "-", ""),
    "hws": ("#d55e00", "s", "--", "////"),
    "nws": ("#009e73", "^", "-.", "...."),
    "class-only": ("#000000", "P", (0, (5, 1)), "\\\\\\\\"),
    "siamese": ("#e69f00", "X", (0, (3, 1, 1, 1, 1, 1)), "||||"),
    "triplet": ("#56b4e9", "<", (0, (1, 1)), "----"),
    "sake": ("#cc79a7", "*", (0, (6, 2, 1, 2)), "oo"),
    "teacher-pca": ("#8c8c8c", ">", ":", "**"),
    "tcn-weight-10": ("#56b4e9", "v", (0, (4, 1.5)), ""),
    "tcn-weight-1000": ("#cc79a7", "D", (0, (7, 1.5, 1.5, 1.5)), ""),
    "l2-sp": ("#e69f00", "P", (0, (1, 1)), ""),
    "l2-sp-weight-1000": ("#a06a00", "p", (0, (4, 1, 1, 1, 1, 1)), ""),
    "frozen-conv": ("#8c8c8c", "<", ":", ""),
    "hard-conv": ("#000000", "X", (0, (5, 1)), ""),
    "squared": ("#7a5195", "*", (0, (3, 1, 1, 1)), ""),
    "hard-conv-slow": ("#444444", "d", (0, (1, 2)), ""),
    "hws-slow": ("#8c3b00", "h", (0, (2, 1)), ""),
    "untrained-imagenet": ("#8c8c8c", "D", ":", "xx"),
    "untrained-imagenet-permodality": ("#595959", "D", ":", "xx"),
    "untrained-svd": ("#c084b0", "v", ":", "++"),
    "untrained-svd-permodality": ("#8a4b75", "v", ":", "++"),
}
"""Variant -> colour, marker, line style, hatch; Okabe-Ito colours for what is trained."""
SETS = {"unseen": ("#d55e00", "--", "s"), "validation": ("#0072b2", "-", "o")}
"""Class set -> colour, line style, marker."""

P = ParamSpec("P")


def style() -> AbstractContextManager[Any]:
    """The style as a context; saving must happen inside it too."""
    return matplotlib.rc_context({
        "font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK, "text.parse_math": False,
        "axes.titlesize": 8, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 7.5,
        "axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.linewidth": 0.7, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
        "grid.linewidth": 0.6, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK,
        "ytick.labelcolor": INK, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
        "legend.frameon": False, "legend.handlelength": 2.6, "lines.linewidth": 1.4, "lines.markersize": 4,
        "hatch.linewidth": 0.6, "figure.facecolor": "white", "savefig.facecolor": "white", "pdf.fonttype": 42,
        "figure.constrained_layout.use": True, "figure.dpi": 100,
    })


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style, and lay out the figure once; otherwise saving it as PNG and saving it as PDF would each lay it out."""
    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            figure = draw(*args, **kwargs)
            engine = figure.get_layout_engine()
            if engine is not None:
                engine.execute(figure)
                figure.set_layout_engine("none")
            return figure
    return inside


def look(variant: str) -> tuple[str, str, Any, str]:
    """Colour, marker, line style and hatch of a variant; unknown ones get a steady look of their own."""
    if variant in LOOKS:
        return LOOKS[variant]
    number = sum(map(ord, variant))
    return (("#e69f00", "#56b4e9", "#7a5195", "#8a6d00")[number % 4], "PX*h"[number % 4], "-", "\\\\\\")


def finish(panel: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    """Set title and axis labels, and add a legend if anything has a label."""
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if legend and panel.get_legend_handles_labels()[0]:
        # Opaque, so that no line runs through the text.
        panel.legend(frameon=True, framealpha=1, edgecolor="white", borderpad=0.2)


def over_seeds(panel: Axes, part: pd.DataFrame, colour: str, line: Any, marker: str, label: str) -> None:
    """Draw the line of means over the `paired` rows (columns at, value, seed) with their band, and other seeds as small dots."""
    grouped = part[part["paired"]].groupby("at")["value"]
    mean = grouped.mean()
    panel.plot(mean.index, mean, color=colour, linestyle=line, marker=marker, label=label,
               markerfacecolor=colour if line == "-" else "white")
    if part.loc[part["paired"], "seed"].nunique() > 1:
        panel.fill_between(mean.index, grouped.min(), grouped.max(), color=colour, alpha=0.15, linewidth=0)
    rest = part[~part["paired"]]
    if len(rest):
        panel.scatter(rest["at"], rest["value"], s=7, marker=marker, facecolors="white", edgecolors=colour, linewidths=0.6)


def powers(axis: Axis, decades: int = 1) -> None:
    """Label a logarithmic axis at every `decades`-th power of ten, without formulas, which this style can't typeset."""
    axis.set_major_locator(LogLocator(10.0 ** decades, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """A power of ten as people write it.

    >>> power(1000.0), power(1.0), power(0.01), power(1e-4)
    ('1,000', '1', '0.01', '10⁻⁴')
    """
    exponent = round(math.log10(value))
    if exponent < -2:
        return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:,.0f}" if exponent >= 0 else f"{value:g}"


def plain(name: str) -> str:
    """A class name as people write it, cut if it is too long for a figure.

    >>> plain("hot_dog"), len(plain("x" * 1000))
    ('hot dog', 40)
    """
    return shortened(name.replace("_", " "))


def wrapped(text: str, width: int = 16) -> str:
    """Break a label at spaces into lines of about `width` characters."""
    lines = [""]
    for word in visible(text).split():
        lines = [*lines, word] if lines[-1] and len(lines[-1]) + len(word) >= width else \
            [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return "\n".join(lines)
