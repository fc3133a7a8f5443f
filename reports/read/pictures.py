"""Small pictures of a split's queries and photos, as benchmarks/picture_sheets.py writes them beside the runs.

In: OUTPUT/pictures/DATASET-SPLIT. Out: checked sheets, and the tile of each file;
or a ReportError that says what is missing or wrong.
"""
from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reports.read.files import ReportError, read_json
from reports.read.schema import SheetIndex, Task, parse

FOLDER = "pictures"
MOST_BYTES = 16 << 20
"""Largest file of a sheet that is read; written ones take half a megabyte."""


@dataclass(frozen=True)
class Sheets:
    """The sheets of a split."""

    side: int
    """Width and height of a tile in pixels."""
    columns: int
    each: int
    """Tiles of a full sheet."""
    contents: tuple[bytes, ...]
    """WebP files."""
    queries: Mapping[str, int]
    """Path of a query's file -> its tile, counted through all sheets."""
    photos: Mapping[str, int]


def read_sheets(root: Path, task: Task, digests: Collection[str] = ()) -> Sheets:
    """The sheets of a task below `root`. digests: those of the data of its runs, as far as they are recorded. Raises ReportError
    where there are no sheets, where they show other data, or where one is not what the index says."""
    name = f"{task.dataset}-{task.split}"
    folder = root / FOLDER / name
    if Path(name).name != name or not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
        raise ReportError(f"there is no folder {FOLDER}/{name if Path(name).name == name else '…'} beside the runs")
    index = parse(SheetIndex, read_json(folder / "index.json"), "index.json")
    if index.data_digest and digests and index.data_digest not in digests:
        raise ReportError(f"those in {FOLDER}/{name} are of other data than the runs: SHA-256 {index.data_digest[:8]}, not "
                          f"{', '.join(sorted(digest[:8] for digest in digests))}")
    each, total = index.columns * index.rows, len(index.queries) + len(index.photos)
    contents = tuple(_sheet(folder / f"{start // each:03d}.webp", index, min(each, total - start))
                     for start in range(0, total, each))
    return Sheets(index.side, index.columns, each, contents, {path: tile for tile, path in enumerate(index.queries)},
                  {path: tile for tile, path in enumerate(index.photos, len(index.queries))})


def _sheet(path: Path, index: SheetIndex, tiles: int) -> bytes:
    """A sheet's bytes, once it is known to be a picture of so many tiles."""
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > MOST_BYTES:
            raise ReportError(f"{path.name} is missing, or no file of a sheet")
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
            if image.size != (index.columns * index.side, -(-tiles // index.columns) * index.side):
                raise ReportError(f"{path.name} has {image.width} × {image.height} pixels, which is no sheet of {tiles} tiles")
            image.load()
    except ReportError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for a damaged picture
        raise ReportError(f"{path.name} can't be read ({type(error).__name__})") from None
    return content
