"""Small pictures of every query and photo of a split, in sheets that the report shows beside what was retrieved.

In: a split's lists of files. Out: OUTPUT/pictures/DATASET-SPLIT with sheets of tiles (000.webp, ...) and index.json, which says
which file each tile shows. The sheets belong to the output folder, since all runs of a split share them; no run's folder changes,
and no number depends on them.
"""
from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.material import Material
from benchmarks.records import read_json, write_json
from benchmarks.store import PICTURES, RunFolder
from tcn.config import InputError
from tcn.data.decode import decode
from tcn.data.prefetch import prefetch
from tcn.data.splits import Files, Split
from tcn.files.atomic import warn, write_bytes

SIDE = 56
"""Width and height of a tile in pixels."""
COLUMNS, ROWS = 20, 20
"""Tiles of a full sheet; the last one of a split has only as many rows as it needs."""
QUALITY = 62
"""Of WebP: a photo's tile takes about a kilobyte."""
UNREADABLE = 224
"""Grey of the tile of a file that can't be read."""


def write_all(output: Path, folders: Sequence[RunFolder], material: Material) -> None:
    """Write the sheets of every split that finished runs were scored on, where they are missing or of other files. A failure is
    told, and costs nothing else: the report then shows no small pictures."""
    done = set()
    for folder in folders:
        config = folder.run.config
        name = f"{config.data.dataset}-{config.data.split}"
        if name in done or folder.state != "finished":
            continue
        done.add(name)
        try:
            write(output / PICTURES / name, material.split_of(config), material.places.progress)
        except (InputError, OSError, ValueError) as error:  # ValueError: a file's name that is no text
            warn(f"no small pictures of {name} for the report: {error}")


def write(folder: Path, split: Split, progress: bool = False) -> bool:
    """Write a split's sheets to a folder, index.json last. Returns False if they are there already. Raises StorageError."""
    index = {"side": SIDE, "columns": COLUMNS, "rows": ROWS, "data_digest": split.data_digest,
             "queries": list(split.query.paths), "photos": list(split.gallery.paths)}
    if _known(folder / "index.json") == index:
        return False
    (folder / "index.json").unlink(missing_ok=True)  # while it is missing, nobody takes the old sheets for the new ones
    listed = [(files, number) for files in (split.query, split.gallery) for number in range(len(files))]
    tiles = [listed[start:start + COLUMNS * ROWS] for start in range(0, len(listed), COLUMNS * ROWS)]
    workers = os.cpu_count() or 1
    with (tqdm(total=len(listed), desc="small pictures for the report", unit="picture", leave=False, disable=not progress) as bar,
          contextlib.closing(prefetch(iter(tiles), _sheet, 2 * workers, workers)) as sheets):
        for number, sheet in enumerate(sheets):
            write_bytes(folder / f"{number:03d}.webp", sheet)
            bar.update(len(tiles[number]))
    write_json(folder / "index.json", index)
    return True


def _known(path: Path) -> dict[str, Any] | None:
    """The index of an earlier call; None if there is none or it is damaged."""
    try:
        return read_json(path) if path.exists() else None
    except InputError:
        return None


def _sheet(tiles: Sequence[tuple[Files, int]]) -> bytes:
    """A sheet of at most COLUMNS x ROWS pictures as WebP, row by row."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.full((rows * SIDE, COLUMNS * SIDE, 3), 255, np.uint8)
    for place, (files, number) in enumerate(tiles):
        top, left = place // COLUMNS * SIDE, place % COLUMNS * SIDE
        try:
            sheet[top:top + SIDE, left:left + SIDE] = decode(files.root / files.paths[number], SIDE)
        except OSError:
            sheet[top:top + SIDE, left:left + SIDE] = UNREADABLE
    target = io.BytesIO()
    Image.fromarray(sheet).save(target, "WEBP", quality=QUALITY)
    return target.getvalue()
