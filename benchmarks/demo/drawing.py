"""Strokes from a page or a file -> the picture that networks are given, with the line width and margin of training sketches.

In: strokes in the form of QuickDraw's files. Out: uint8 pixels, or an InputError that says what to do. The line width and margin
are `tcn.data.strokes.Rendering`'s defaults, which were measured on Sketchy's own sketches. The place and size of the drawing on
the page make no difference.
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
"""Largest number of points in a drawing; a minute with a fast pen gives some 15,000."""
SMALLEST = 4.0
"""Smallest extent of a drawing in the page's pixels. A shaky click is smaller, and would be enlarged to a drawing."""


def picture_of(found: Any) -> np.ndarray:
    """A drawing as uint8 [256, 256], black on white. found: parsed JSON, a list of strokes, each a list of x and one of y.
    InputError, a sentence for the person who drew it, if the drawing can't be used."""
    if isinstance(found, list) and not found:
        raise InputError("The canvas is empty: draw something with a mouse, a pen or a finger.")
    if isinstance(found, list) and sum(len(one[0]) for one in found if isinstance(one, list) and one and isinstance(one[0], list)
                                       ) > MOST_POINTS:
        raise InputError(f"The drawing has more than {MOST_POINTS:,} points: clear the canvas and draw it with fewer lines.")
    strokes = read_strokes(found, "the drawing that was sent")
    points = np.concatenate(strokes)
    if not np.isfinite(points).all():
        raise InputError("The drawing has a point that is not a number: clear the canvas and draw it again.")
    if float(np.ptp(points, axis=0).max()) < SMALLEST:
        raise InputError("That is a single dot: draw lines, such as the outline of an object.")
    return rasterise(strokes)


def pixels_of(picture: np.ndarray, size: int) -> Pixels:
    """A picture [S, S] decoded to `size` pixels as if it had been read from a file (`tcn.data.decode`)."""
    image = Image.fromarray(picture).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return unnamed(np.asarray(image)[None])


def unnamed(pictures: np.ndarray) -> Pixels:
    """Decoded pictures, uint8 [N, S, S, 3], without classes and without a list of files."""
    return Pixels(pictures, Files(Path(), ("",) * len(pictures), np.zeros(len(pictures), np.int64), ("",) * len(pictures)))
