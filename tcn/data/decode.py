"""One image file to pixels.

In: a JPEG, PNG, GIF, BMP or WebP file, recognised by its contents. Out: a square of uint8 [S, S, 3], or an OSError that
says what is wrong with the file. No file is trusted: what declares more pixels than `MOST_PIXELS` is refused before memory is
taken. Two choices differ between readers in circulation (transparent parts, EXIF orientation); they are a `Reading`.
"""
from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from tcn.files import foreign

MOST_PIXELS = 89_478_485
"""Largest image that is read: where Pillow begins to warn, a quarter of a gigabyte at 3 bytes a pixel."""
LONGEST_SIDE = 65_535
"""Longest side that is read, the limit of JPEG. Resizing a strip of one pixel by millions would take 256 times its size."""
_GIF = threading.Lock()
"""Turning Pillow's warning into an error changes the filters of the whole process, so one thread at a time does it."""


@contextlib.contextmanager
def opened(source: Path | IO[bytes]) -> Iterator[Image.Image]:
    """Open a JPEG, PNG, GIF, BMP or WebP file, whatever its name; of an animation, the first picture.

    The header is read, and no memory is taken for an image that declares too many pixels. The pixels are read inside the block.
    Whatever an image library raises, there too, becomes an OSError that says what is wrong, without the file's name. No other
    kind of file is tried: Pillow would hand some of them (EPS) to other programs.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(source, "rb")) if isinstance(source, Path) else source
            image = stack.enter_context(_reader(file))
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
                raise Image.DecompressionBombError(f"{width:,} x {height:,} pixels")
            yield image
    except MemoryError:
        raise
    except Exception as error:  # image libraries raise many kinds for a bad file
        raise OSError(_what_is_wrong(error)) from error


def _reader(file: IO[bytes]) -> Image.Image:
    """Read the header, but no pixels. `Image.open` would not do: it only warns of some sizes that are too large."""
    start = file.read(64)
    file.seek(0)
    if start[:6] in (b"GIF87a", b"GIF89a"):  # a frame may exceed the size in the header, which only Pillow checks
        with _GIF, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return GifImagePlugin.GifImageFile(file)
    if start[:3] == b"\xff\xd8\xff":
        return JpegImagePlugin.jpeg_factory(file)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return PngImagePlugin.PngImageFile(file)
    if start[:2] == b"BM":
        return BmpImagePlugin.BmpImageFile(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":  # photos from the web under a .jpg name
        return WebPImagePlugin.WebPImageFile(file)
    if not start:
        raise OSError("0 bytes")
    its = foreign.named(start, _FOREIGN) or (foreign.PAGE if start.lstrip()[:1] == b"<" else "")
    raise OSError(f"not a JPEG, PNG, GIF, BMP or WebP image{' but ' if its else ''}{its}")


_FOREIGN = (
    foreign.ZIP, (0, b"%PDF", "a PDF document"), (0, b"%!PS", "PostScript"),
    (0, b"II*\0", "TIFF: save it as PNG"), (0, b"MM\0*", "TIFF: save it as PNG"),
    (4, b"ftyp", "HEIC, AVIF or a film: save it as PNG or JPEG"), (0, b"\0\0\0\x0cjP", "JPEG 2000: save it as PNG"),
    (0, bytes(16), "zeros at its start: get it again"))
"""Formats that pass for pictures."""


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        number = re.search(r"\((\d+) pixels\)", str(error))
        declared = f"{int(number[1]):,} pixels" if number else str(error)
        return (f"it declares {declared}, more than the {MOST_PIXELS:,} pixels, or {LONGEST_SIDE:,} a side, that are read; scale "
                f"it down if it is really so large")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True)
class Reading:
    """How transparent parts and the EXIF orientation of a file are treated: see `config.Data`."""

    transparent: str = "white"
    exif: str = "ignored"

    @property
    def mark(self) -> str:
        """What is appended to an image's path in a store's index. Empty for the default, the only one in older stores."""
        return "" if self == Reading() else f"\0{self.transparent},{self.exif}"


READINGS = tuple(Reading(transparent, exif) for transparent in ("white", "as-stored") for exif in ("ignored", "applied"))
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}
"""EXIF orientation -> the transposition that turns the image upright."""


def decode(path: Path, size: int, reading: Reading = Reading()) -> np.ndarray:
    """One image file as uint8 [size, size, 3]. Of 16-bit channels the upper 8 bits are kept.

    By default, transparent parts are drawn on white, and the EXIF orientation is ignored. Raises OSError that says what is wrong
    where the file is unreadable.
    """
    with opened(path) as stored:
        turn = _TURNS.get(orientation(stored)) if reading.exif == "applied" else None
        image = _in_colour(stored, reading.transparent == "white")
        image = image if turn is None else image.transpose(turn)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where the file gives none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise many kinds of error, while the image itself is intact
        return 1
    return value if value in _TURNS else 1


def _in_colour(image: Image.Image, on_white: bool) -> Image.Image:
    """The image in RGB, with transparent parts on white or in the colours stored beneath them."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips to white
        values = np.asarray(image).astype(np.int64)
        grey = np.where(values == key, 255, values >> 8) if on_white and isinstance(key, int) else values >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if isinstance(key, tuple) and any("16" in str(tile.args) for tile in getattr(image, "tile", ())):
        image.info["transparency"] = tuple(value >> 8 for value in key)  # 16-bit colour is read by its upper 8 bits
    if on_white and (image.mode in ("RGBA", "LA", "PA") or key is not None):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


