"""Drawings kept as strokes -> class folders of pictures, so that they can be queries: QuickDraw's NDJSON files.

In: files with a drawing a line, as Google publishes them (simplified or raw). Out: `DIR/<class>/<key_id>.png`, black lines on
white, and `drawings.json`, which says what was drawn and how. Classes of a data set of the project go by its own names. The
paper has no such pictures: its QuickDraw Extended comes as files.
"""
from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from tcn.config import InputError
from tcn.data.specs import read_plan
from tcn.data.words import normal_form
from tcn.files import text
from tcn.files.atomic import storage_error, writing

MANIFEST = "drawings.json"
ENDING = ".ndjson"
OTHER_NAMES = {"car": "car (sedan)", "crocodile": "crocodilian", "hot dog": "hotdog", "motorbike": "motorcycle",
               "the eiffel tower": "eiffel tower"}
"""Word of QuickDraw -> name of the same class in Sketchy or QuickDraw Extended, both in normal form, where the two differ. On
Sketchy every split trains on all of these classes."""
FINER = 8
"""Lines are drawn on a canvas so many times as large in both directions, whose mean is the grey of a pixel."""
_LARGEST = 1e6
_LONGEST_WORD = 60
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Rendering:
    """How strokes become a picture. The defaults are what Sketchy's own drawings measure: on the 2,075 sketches of the sample in
    classes that both splits train on, the median line is 2.9 pixels wide, and the median of the least margin is 25 pixels."""

    size: int = 256
    """Pixels of a side."""
    line: float = 3.0
    """Width of the lines in pixels."""
    margin: float = 25.0
    """Pixels left free on every side, to the middle of the lines."""

    def check(self) -> None:
        """InputError where nothing could be drawn so."""
        if not 8 <= self.size <= 1024:  # the finer canvas takes 64 times as many bytes
            raise InputError(f"a size of {self.size} pixels: give 8 to 1024")
        if not 0.25 <= self.line <= self.size / 4:
            raise InputError(f"a line of {self.line:g} pixels: give 0.25 to {self.size / 4:g}, a quarter of the size")
        if not 0 <= self.margin < self.size / 2:
            raise InputError(f"a margin of {self.margin:g} pixels: give 0 to below {self.size / 2:g}, half the size")


@dataclass(frozen=True)
class Drawing:
    """One line of a file."""

    key: int
    """`key_id`: the order of drawings, which has nothing to do with their quality."""
    word: str
    """What was to be drawn."""
    recognized: bool
    """Whether the game's own classifier knew it."""
    strokes: tuple[np.ndarray, ...]
    """float64 [points, 2] each: x to the right, y downwards, in units of the file."""


# --- reading ----------------------------------------------------------------------------------------------------------

def files_of(sources: Sequence[Path]) -> list[Path]:
    """The files among `sources`, and those in folders among them, by name. InputError where there is none."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            there = sorted(one for one in source.iterdir() if one.name.endswith(ENDING) and one.is_file())
            if not there:
                raise InputError(f"{source} holds no {ENDING} file")
            found += there
        else:
            found.append(source)
    return list(dict.fromkeys(found))


def read_drawings(path: Path) -> Iterator[Drawing]:
    """The drawings of a file as they stand in it. Raises InputError naming the line that is none, and why."""
    number = 0
    try:
        with open(path, "rb") as stream:
            start = text.without_mark(stream.read(_BLOCK), path, "file of drawings")
            for lines in text.lines(itertools.chain([start], iter(lambda: stream.read(_BLOCK), b"")), path):
                for line in lines:
                    number += 1
                    if line.strip():
                        yield _drawing(line, f"{path}, line {number}")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error


def _drawing(line: bytes, where: str) -> Drawing:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON ({error}); one drawing stands on each line, as in QuickDraw's "
                         f"{ENDING} files") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: {type(found).__name__} in place of an object with word, key_id, recognized and drawing")
    key, word, recognized = found.get("key_id"), found.get("word"), found.get("recognized")
    if not isinstance(key, str) or not (key.isascii() and key.isdigit() and len(key) <= 20):
        raise InputError(f"{where}: key_id is {key!r:.40}; it must be a text of up to 20 digits")
    if not isinstance(word, str) or not (word.strip() and word.isprintable() and len(word) <= _LONGEST_WORD) or word[0] == "." \
            or set(word) & set("/\\"):
        raise InputError(f"{where}: word is {word!r:.60}; it must be a name that a folder can have")
    if not isinstance(recognized, bool):
        raise InputError(f"{where}: recognized is {recognized!r:.40}; it must be true or false")
    return Drawing(int(key), word, recognized, read_strokes(found.get("drawing"), where))


def read_strokes(found: Any, where: str) -> tuple[np.ndarray, ...]:
    """Strokes, float64 [points, 2] each, from parsed JSON: a stroke is a list of x and one of y; raw files have a third one, of
    times. InputError that begins with `where` for anything else."""
    if not isinstance(found, list) or not found:
        raise InputError(f"{where}: drawing is {found!r:.40}; it must be a list of strokes, at least one")
    strokes = []
    for place, stroke in enumerate(found, 1):
        if not isinstance(stroke, list) or len(stroke) not in (2, 3) or not all(isinstance(axis, list) for axis in stroke):
            raise InputError(f"{where}, stroke {place}: it must be a list of x and a list of y")
        if not stroke[0] or len(stroke[0]) != len(stroke[1]):
            raise InputError(f"{where}, stroke {place}: {len(stroke[0])} x and {len(stroke[1])} y; they must be equally many, "
                             f"at least one")
        if not all(type(value) in (int, float) and abs(value) <= _LARGEST for axis in stroke[:2] for value in axis):
            raise InputError(f"{where}, stroke {place}: coordinates must be numbers within {_LARGEST:,.0f}")
        strokes.append(np.array(stroke[:2], dtype=np.float64).T)
    return tuple(strokes)


# --- drawing ----------------------------------------------------------------------------------------------------------

def rasterise(strokes: Sequence[np.ndarray], how: Rendering = Rendering()) -> np.ndarray:
    """One drawing as uint8 [S, S]: anti-aliased black lines with round ends on white, its longer side between the margins, in
    the middle. strokes: float64 [points, 2] each. A drawing without extent is a dot.

    >>> picture = rasterise([np.array([[0.0, 7.0], [9.0, 7.0]])], Rendering(size=16, line=2, margin=3))
    >>> picture[6:10, 8].tolist(), picture[7, [1, 3, 12, 14]].tolist()  # two rows above and below the middle, at 8
    ([255, 0, 0, 255], [255, 0, 0, 255])
    """
    every = np.concatenate(list(strokes))
    low, high = every.min(0), every.max(0)
    extent = float((high - low).max())
    scale = (how.size - 2 * how.margin) / extent if extent > 0 else 1.0
    canvas = Image.new("L", (how.size * FINER, how.size * FINER), 255)
    pen, radius = ImageDraw.Draw(canvas), how.line * FINER / 2
    for stroke in strokes:
        # a pixel's middle has whole coordinates on Pillow's canvas, its edges stand at halves
        points = (how.size / 2 + (stroke - (low + high) / 2) * scale) * FINER - 0.5
        if len(points) > 1:
            pen.line([(x, y) for x, y in points.tolist()], fill=0, width=max(1, round(how.line * FINER)), joint="curve")
        for x, y in points[[0, -1]].tolist():
            pen.ellipse((x - radius + 0.5, y - radius + 0.5, x + radius - 0.5, y + radius - 0.5), fill=0)
    return np.asarray(canvas.reduce(FINER))


# --- class folders ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Drawn:
    """What lies in a folder of drawings."""

    folder: Path
    classes: Mapping[str, int]
    """Class folder -> number of pictures."""
    left_out: int
    """Drawings that were not recognised, where those were to be left out."""
    again: bool
    """Whether it was there already, made of the same files in the same way."""


def folder_names(dataset: str) -> dict[str, str]:
    """Normal form of a word -> the class of `dataset` that it means."""
    found = {normal_form(name): name for name in read_plan(dataset).roles}
    return {word: found[name] for word, name in OTHER_NAMES.items() if name in found} | found


def draw(sources: Sequence[Path], out: Path, *, first: int | None = None, unrecognised: bool = True, how: Rendering = Rendering(),
         names_of: str = "sketchy", progress: bool = True) -> Drawn:
    """Class folders of pictures in `out`, with `MANIFEST`, whole or not at all.

    sources: files, or folders of them. first: only the first so many drawings of each class by `key_id`; None: all.
    unrecognised: whether drawings that the game did not recognise are in. names_of: the data set whose class names folders bear,
    where a word means one of its classes; the other folders bear the word.

    Raises InputError for bad files or settings, a drawing that stands there twice, and an `out` that holds anything else.
    """
    how.check()
    if first is not None and first < 1:
        raise InputError(f"the first {first} drawings of each class: give a whole number from 1")
    files = files_of(sources)
    settings = {**asdict(how), "first": first, "unrecognised": unrecognised, "names_of": names_of, "finer": FINER}
    made_of = {path.name: _digest_of(path) for path in files}
    if len(made_of) < len(files):
        raise InputError("two of the files have the same name; give each once")
    if out.is_file() or out.is_dir() and any(out.iterdir()):
        return _found(out, made_of, settings)

    by_class, left_out = _by_class(files, folder_names(names_of), first, unrecognised)
    if not by_class:
        raise InputError(f"no drawing in {text.some([str(path) for path in files], 3)}"
                         + (f": all {left_out} were left out as not recognised" if left_out else ""))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise storage_error(out, error) from error
    try:
        total = hashlib.sha256()
        for name, drawings in tqdm(sorted(by_class.items()), desc="draw", unit="class", disable=not progress, leave=False):
            (building / name).mkdir()
            for drawing in drawings:
                picture = rasterise(drawing.strokes, how)
                total.update(f"{name}/{drawing.key}\n".encode() + picture.tobytes())
                Image.fromarray(picture).save(building / name / f"{drawing.key}.png")
        counts = {name: len(drawings) for name, drawings in sorted(by_class.items())}
        with writing(building / MANIFEST) as stream:
            stream.write((json.dumps({"settings": settings, "files": made_of, "classes": counts, "left_out": left_out,
                                      "digest": total.hexdigest()}, indent=1, ensure_ascii=False) + "\n").encode())
        building.chmod(0o755)
        os.rename(building, out)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Drawn(out, counts, left_out, False)


def _digest_of(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error


def _found(out: Path, made_of: Mapping[str, str], settings: Mapping[str, Any]) -> Drawn:
    """What lies in `out`, if it was made of the same files in the same way; else an InputError."""
    there = read_manifest(out)
    if there is None or (there.get("files"), there.get("settings")) != (made_of, settings):
        raise InputError(f"{out} is there already and holds something else; nothing was touched: give another --out, "
                         "or remove it")
    return Drawn(out, there["classes"], there["left_out"], True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that `draw` has made; None where there is none. InputError where it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(found["classes"], dict) and isinstance(found["settings"], dict) and isinstance(found["files"], dict)
                and isinstance(found["left_out"], int) and isinstance(found["digest"], str)):
            raise ValueError("a field has another type")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); remove the folder and draw it again") from error
    return dict(found)


def _by_class(files: Sequence[Path], names: Mapping[str, str], first: int | None, unrecognised: bool
              ) -> tuple[dict[str, list[Drawing]], int]:
    """Class folder -> its drawings by `key_id`, and how many were left out as not recognised."""
    kept: dict[str, list[tuple[int, Drawing]]] = {}  # the largest key first, so that it goes when a smaller one comes
    seen: dict[str, set[int]] = {}
    left_out = 0
    for path in files:
        for drawing in read_drawings(path):
            if not drawing.recognized and not unrecognised:
                left_out += 1
                continue
            name = names.get(normal_form(drawing.word), drawing.word)
            if drawing.key in seen.setdefault(name, set()):
                raise InputError(f"{path}: drawing {drawing.key} of '{name}' stands there twice")
            seen[name].add(drawing.key)
            own = kept.setdefault(name, [])
            if first is None or len(own) < first:
                heapq.heappush(own, (-drawing.key, drawing))
            else:
                heapq.heappushpop(own, (-drawing.key, drawing))
    return {name: [drawing for _, drawing in sorted(own, key=lambda one: -one[0])] for name, own in kept.items()}, left_out
