"""The pictures that the page may show and search: ordered lists of files, which the page addresses only by number.

In: a split's lists, or a folder of the user's own photos. Out: names of classes, thumbnails, digests of contents. The page never
sends a path.
"""
from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tcn.config import InputError
from tcn.data.decode import opened
from tcn.data.splits import Files
from tcn.files.checksums import file_digest
from tcn.files.text import shown

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
THUMBNAIL = 160
"""Longer side of a thumbnail in pixels."""


@dataclass(frozen=True)
class PictureSet:
    """A list of picture files of a data set, or of a folder without classes."""

    files: Files
    classes: tuple[str, ...] = ()
    """Names of the classes that the labels of `files` index; empty if the classes are not known."""
    seen: Collection[str] = ()
    """The classes that the networks were trained on."""

    def __len__(self) -> int:
        return len(self.files)

    @functools.cached_property
    def names(self) -> np.ndarray | None:
        """The class of each picture [N]; None if the classes are not known."""
        return np.array(self.classes)[self.files.labels] if self.classes else None

    def name(self, number: int) -> str | None:
        """The class of one picture; None if it is not known."""
        return self.classes[self.files.labels[number]] if self.classes else None

    def thumbnail(self, number: int) -> bytes:
        """The picture with this number as a small JPEG. IndexError where there is none, OSError where it can't be read."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return _thumbnail(self.files.root / self.files.paths[number])


@functools.lru_cache(maxsize=4096)
def _thumbnail(path: Path) -> bytes:
    target = io.BytesIO()
    with opened(path) as stored:
        stored.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # decodes a large JPEG at a lower resolution
        image = stored.convert("RGBA")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").save(target, "JPEG", quality=85)
    return target.getvalue()


def photos_below(folder: Path) -> Files:
    """Every picture file below a folder, by path; hidden ones are left out. InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"--gallery {folder} is no folder; give a folder of photos")
    root = folder.resolve()
    found = []
    for place, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [(Path(place) / name).relative_to(root).as_posix() for name in names
                  if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    if not found:
        raise InputError(f"--gallery {folder} holds no photo ({', '.join(ENDINGS)}); give a folder that holds some, at any depth")
    return Files(root, tuple(sorted(found)), np.zeros(len(found), np.int64), ("",) * len(found))


def contents_digest(files: Files, progress: bool) -> str:
    """sha256 over the names and contents of all files. InputError where one can't be opened."""
    total = hashlib.sha256()
    for path in tqdm(files.paths, desc="look at gallery", unit="photo", disable=not progress, leave=False):
        try:
            total.update(f"{path}\0{file_digest(files.root / path)}\n".encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise InputError(f"{shown(files.root / path)} can't be read ({error.strerror or error}); make it readable, or "
                             f"move it out of the gallery") from error
    return total.hexdigest()
