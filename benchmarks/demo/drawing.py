"""Strokes from a page or a file -> the picture that networks are given: as wide a line and as much margin as training sketches have.

In: strokes in the form of QuickDraw's files. Out: uint8 pixels, or an InputError that says what to do. The look is
`tcn.data.strokes.Rendering`'s default, which was measured on Sketchy's own sketches; where and how large one draws makes no
difference.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tcn.config import InputError
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.data.strokes import rasterise, read_strokes

MOST_POINTS = 50_000
"""Points of a drawing; a minute with a fast pen gives some 15,000."""
SMALLEST = 4.0
"""Least extent of a drawing in the page's pixels: less is the trembling of a click, which would be enlarged to a drawing."""


def picture_of(found: Any) -> np.ndarray:
    """A drawing as uint8 [256, 256], black on white. found: parsed JSON, a list of strokes, each a list of x and one of y.
    InputError, a sentence for who drew it, where nothing can be searched with it."""
    if isinstance(found, list) and not found:
        raise InputError("The canvas is empty: draw something with a mouse, a pen or a finger.")
    if isinstance(found, list) and sum(len(one[0]) for one in found if isinstance(one, list) and one and isinstance(one[0], list)
                                       ) > MOST_POINTS:
        raise InputError(f"The drawing has more than {MOST_POINTS:,} points: clear the canvas and draw it with fewer lines.")
    strokes = read_strokes(found, "the drawing that was sent")
    points = np.concatenate(strokes)
    if not np.isfinite(points).all():
        raise InputError("The drawing has a point that is no number: clear the canvas and draw it again.")
    if float(np.ptp(points, axis=0).max()) < SMALLEST:
        raise InputError("That is a single dot: draw lines, such as the outline of a thing.")
    return rasterise(strokes)


def pixels_of(picture: np.ndarray, size: int) -> Pixels:
    """A picture [S, S] as the cache would keep it at `size` pixels (`tcn.data.decode`), had it come as a file."""
    image = Image.fromarray(picture).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return unnamed(np.asarray(image)[None])


def unnamed(pictures: np.ndarray) -> Pixels:
    """Decoded pictures, uint8 [N, S, S, 3], of no class and no list."""
    return Pixels(pictures, Files(Path(), ("",) * len(pictures), np.zeros(len(pictures), np.int64), ("",) * len(pictures)))
