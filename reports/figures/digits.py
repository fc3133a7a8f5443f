"""The extension's results -> a figure: example digits, and accuracy over training.

In: the folder `extension` beside a suite's runs. Out: a FigureData and its drawing.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from reports.figure_kinds import FigureData
from reports.figures.style import PAGE, finish, styled
from reports.read.files import ReportError, check_picture, read_frame
from reports.tables.extension import FOLDER, ORDER, read

LOOKS = {"source-only": ("#8c8c8c", "D", ":"), "dann": ("#d55e00", "s", "--"), "dann-own-norms": ("#009e73", "^", "-."),
         "dann-coupled": ("#0072b2", "o", "-")}


def figure(root: Path) -> FigureData | None:
    """Columns: method, title, seed, step, set, accuracy, file (path of the example picture); None without runs."""
    found = read(root)
    rows, without = [], []
    for run in found.runs:
        try:
            history = read_frame(run.folder / "history.csv", (), ("step", "source_accuracy", "target_accuracy"))
            whole = history["step"].between(0, run.steps) & (history["step"] % 1 == 0)
            within = [history[f"{which}_accuracy"].between(0, 1) for which in ("source", "target")]
            if not (whole & within[0] & within[1]).all():
                line = int(np.flatnonzero(~(whole & within[0] & within[1]))[0]) + 2
                raise ReportError(f"history.csv, line {line}: no step of this run, or an accuracy not within 0 to 1")
        except ReportError as error:
            without.append(f"{run.folder.name} ({error})")  # the table has the run's numbers all the same
            continue
        for which in ("target", "source"):
            rows += [(run.method, run.title, run.seed, int(step), which, value)
                     for step, value in zip(history["step"], history[f"{which}_accuracy"])]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["method", "title", "seed", "step", "set", "accuracy"])
    picture = root / FOLDER / "examples.png"
    shown = _opens(picture)
    if shown:
        frame["file"] = picture
    several = frame.groupby("method")["seed"].nunique().max() > 1
    examples = "Left: a digit of each class as the source has it, and one of the target's. Right: accuracy" \
        if shown else "Accuracy"
    return FigureData("digits", "extension", "The coupled idea in domain adaptation",
                      f"{found.runs[0].data}. {examples} on test digits of both domains over training"
                      + ("; lines: means over seeds, bands: lowest to highest seed." if several else "; one seed.")
                      + " Nothing was chosen by these curves: the last step counts."
                      + (f" Without curves: {'; '.join(without)}." if without else "")
                      + (f" {picture.name} can't be read and is left out." if picture.exists() and not shown else ""), frame)


def _opens(picture: Path) -> bool:
    """Whether the file is a picture of examples as digits.py writes it: ten columns of two square tiles."""
    try:
        check_picture(picture)
        with Image.open(picture) as image:
            return image.width == 5 * image.height > 0
    except (ReportError, OSError):
        return False


@styled
def draw(frame: pd.DataFrame) -> Figure:
    """Frame of `figure` -> example digits, then a panel for the target's and one for the source's accuracy."""
    drawing = Figure(figsize=(PAGE, 2.5))
    with_examples = "file" in frame
    *examples, target, source = drawing.subplots(1, 3 if with_examples else 2,
                                                 width_ratios=(0.55, 1, 1) if with_examples else (1, 1))
    for left in examples:
        left.set_axis_off()
        with Image.open(frame["file"].iloc[0]) as image:
            pixels = np.asarray(image.convert("RGB"))
        # The picture's ten columns of two rows are too wide; arranged as five rows of two pairs it fits beside the curves.
        side = pixels.shape[0] // 2
        tiles = [pixels[row * side:(row + 1) * side, at * side:(at + 1) * side] for at in range(10) for row in range(2)]
        tiles = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles]
        rows = [np.concatenate([*tiles[2 * n:2 * n + 2], *tiles[2 * n + 10:2 * n + 12]], axis=1) for n in range(5)]
        left.imshow(np.concatenate(rows), interpolation="nearest")
        left.set_title("source, target (twice)", fontsize=7, fontweight="normal", loc="center")
    for panel, which in ((target, "target"), (source, "source")):
        for method in (m for m in ORDER if (frame["method"] == m).any()):
            part = frame[(frame["method"] == method) & (frame["set"] == which)]
            colour, marker, line = LOOKS[method]
            grouped = part.groupby("step")["accuracy"]
            panel.plot(grouped.mean().index, grouped.mean(), color=colour, linestyle=line, marker=marker, markevery=4,
                       markersize=3.5, label=part["title"].iloc[0])
            if part["seed"].nunique() > 1:
                panel.fill_between(grouped.mean().index, grouped.min(), grouped.max(), color=colour, alpha=0.13, linewidth=0)
        finish(panel, f"{which.capitalize()} digits", "Optimiser step", "Accuracy" if which == "target" else "", legend=False)
    handles, labels = target.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return drawing
