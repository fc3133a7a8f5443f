"""Measure how similar EmojiOne's monotone drawings (v2) are to its own pictures (v1), compared with other publishers.

`python benchmarks/tools/shared_hand.py` prints, for each publisher of drawings, how well their silhouettes overlap with the
pictures of the same class by each other publisher (intersection over union at 64 pixels), and how often each picture is the
closest one.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_fill_holes

from benchmarks.provenance import ROOT
from tcn.config import Modality
from tcn.data import emoji, emoji_packages

INK = 245
"""Grey levels below this count as drawn."""


def silhouette(path: Path) -> np.ndarray:
    """The area that a drawing's outline encloses, cropped to its bounding box and stretched to 64 x 64 pixels (bool). So size,
    position, and whether areas are filled or only outlined make no difference."""
    grey = np.asarray(Image.open(path).convert("L"))
    rows, columns = (np.flatnonzero((grey < INK).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((64, 64), bool)
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    ink = np.asarray(Image.open(path).convert("L").resize((64, 64), Image.Resampling.BILINEAR, box=box)) < INK
    return binary_fill_holes(ink)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty.

    >>> overlap(np.array([True, True, False]), np.array([True, False, False]))
    0.5
    """
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def measure(folder: Path) -> pd.DataFrame:
    """One row for each pair of a drawing and a picture of the same class: class, drawing, picture, overlap."""
    by_side = {m: [s.publisher for s in emoji_packages.SOURCES if s.modality is m] for m in Modality}
    rows = []
    for name in emoji.read_manifest(folder)["classes"]:
        masks = {(m, p): silhouette(path) for m in Modality for p in by_side[m]
                 if (path := folder / m.value / name / f"{p}.png").exists()}
        rows += [(name, d, p, overlap(masks[m, d], masks[n, p])) for m, d in masks for n, p in masks
                 if m is Modality.SKETCH and n is Modality.PHOTO]
    return pd.DataFrame(rows, columns=["class", "drawing", "picture", "overlap"])


def main() -> int:
    """Print the two tables."""
    rows = measure(emoji.build(ROOT / ".cache"))
    print("median overlap of silhouettes (rows: drawings, columns: pictures)")
    print(rows.pivot_table(index="drawing", columns="picture", values="overlap", aggfunc="median").round(3).to_string())
    print("\nshare of classes where the overlap is above 0.9")
    print(rows.assign(high=rows["overlap"] > 0.9).pivot_table(index="drawing", columns="picture", values="high")
          .round(3).to_string())
    closest = rows.loc[rows.groupby(["class", "drawing"])["overlap"].idxmax()]
    print("\nshare of drawings whose closest picture is by ...")
    print(pd.crosstab(closest["drawing"], closest["picture"], normalize="index").round(3).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
