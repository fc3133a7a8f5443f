"""What is in a data set's image files: their bytes, whether they decode, and what readers treat differently.

In: files below a root. Out: a `Content` for each, and one digest over all.
"""
from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tcn.config import Data
from tcn.data.decode import opened, orientation

TRAITS: Mapping[str, str] = {
    "turned": "with an EXIF orientation, {}: by default read as they are stored; the released code's reader turns them",
    "size": f"of another size than {Data().stored_size} x {Data().stored_size}, {{}}: brought to it first; the released code "
            f"augments them at their own size",
    "transparent": "with transparent parts, {}: by default put on white; in the released code the colour beneath shows, mostly "
                   "black",
    "deep": "of 16 bits a channel, {}: read by the upper 8",
    "cmyk": "in CMYK, {}: converted to RGB",
    "misnamed": "of another format than the name says, {}: read by their contents",
}
"""Property of an image that readers treat differently -> its sentence in a report, where {} is the count."""
_FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".png": ("PNG",)}
_CHUNK = 64
"""Files that a thread reads at once: few enough for a smooth progress bar, many enough to keep tasks few."""


@dataclass(frozen=True)
class Content:
    """One file, read once."""

    sha256: bytes
    error: str
    """Why the file cannot be decoded; empty where it can."""
    traits: tuple[str, ...] = ()
    """The `TRAITS` of the image."""


def read_contents(root: Path, files: Mapping[str, tuple[str, int]], label: str, progress: bool) -> dict[str, Content]:
    """Hash and decode every file of `files` (name -> path below `root`, bytes), in threads."""
    names = list(files)
    chunks = [names[start:start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    found: dict[str, Content] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, \
            tqdm(total=len(names), desc=f"read {label}", unit="file", disable=not progress, leave=False) as bar:
        try:
            jobs = [pool.submit(lambda chunk: {name: _content(root / files[name][0]) for name in chunk}, chunk)
                    for chunk in chunks]
            for job in as_completed(jobs):
                found |= job.result()
                bar.update(len(job.result()))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _content(path: Path) -> Content:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Content(b"", f"can't be read: {error.strerror}")
    traits: tuple[str, ...] = ()
    try:
        with opened(io.BytesIO(data)) as image:
            # read before `load`, which drops it; only in PNG does 16 mean bits of a channel
            sixteen = any("16" in str(tile.args) for tile in getattr(image, "tile", ()))
            deep = image.mode.startswith("I") or (image.format == "PNG" and sixteen)
            image.load()
            traits = _traits(image, path.suffix.casefold(), deep)
        wrong = ""
    except (OSError, MemoryError) as failure:
        wrong = str(failure) or "out of memory"
    return Content(hashlib.sha256(data).digest(), wrong, traits)


def _traits(image: Image.Image, ending: str, deep: bool) -> tuple[str, ...]:
    has = {"turned": orientation(image) > 1, "size": image.size != (Data().stored_size, Data().stored_size),
           "transparent": _transparent(image), "deep": deep, "cmyk": image.mode == "CMYK",
           "misnamed": image.format not in _FORMATS.get(ending, (image.format,))}
    return tuple(trait for trait in TRAITS if has[trait])


def _transparent(image: Image.Image) -> bool:
    """Whether any pixel is transparent, not only may be."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        return isinstance(key, int) and bool((np.asarray(image) == key).any())
    if key is None and image.mode not in ("RGBA", "LA", "PA"):
        return False
    return int(np.asarray(image.convert("RGBA").getchannel("A")).min()) < 255


def content_digest(contents: Mapping[str, Content]) -> str:
    """sha256 over the sorted lines `folder/class/file<tab>sha256 of the bytes`, joined by line feeds.

    Folder and class as the data set's spec and table spell them, so that the same pictures give the same digest in
    every layout.
    """
    lines = (f"{name}\t{contents[name].sha256.hex()}" for name in sorted(contents))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
