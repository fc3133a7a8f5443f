"""Files of runs -> checked contents: settings, tables, arrays and pictures that are what they claim to be.

In: paths below a folder of results, whoever wrote them. Out: plain values, or a ReportError that names the file and the field,
column or array. No file runs code, and none takes more memory than its own size justifies.
"""
from __future__ import annotations

import json
import math
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from reports.read.escaping import visible
from tcn.files import foreign

FREE_BYTES, MOST_RATIO = 64 << 20, 100
"""An array may decompress to FREE_BYTES unconditionally; beyond that, to at most MOST_RATIO times its compressed size."""
MOST_SIDE = 4096
"""Longest side, in pixels, of an example picture; runs write 96."""
MOST_DEPTH = 30
"""Deepest nesting of a JSON file."""
MOST_COUNT = 1 << 53
"""Counts and seeds must be smaller than this: below it, float64 holds whole numbers exactly."""
MOST_NUMBER = 1e30
"""Largest number that a table may hold; no axis could show larger ones."""


class ReportError(ValueError):
    """Result folders that can't be used: the message names the folder or file and says what to do."""


def shown(value: object, letters: int = 60) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= letters else text[:letters] + "…"


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ReportError where it is missing, unreadable or holds something else."""
    try:
        text = _file(path).read_text(encoding="utf-8-sig")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(value, dict):
        raise ReportError(f"{path.name} holds no settings, but a {type(value).__name__}")
    if _deeper(value, MOST_DEPTH):
        raise ReportError(f"{path.name} can't be read (nested more than {MOST_DEPTH} times)")
    return _whole_letters(value) if re.search(r"\\u[dD][89a-fA-F]", text) else value


def _whole_letters(value: Any) -> Any:
    """Replace lone surrogates, which JSON can spell but UTF-8 can't encode, by their code points."""
    if isinstance(value, dict):
        return {visible(key): _whole_letters(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_whole_letters, value))
    return visible(value) if isinstance(value, str) and not value.isascii() else value


def _deeper(value: Any, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(item, levels - 1) for item in inside)


def read_frame(path: Path, text: tuple[str, ...], numbers: tuple[str, ...],
               earlier: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A CSV file with the named columns checked; number columns become float, empty ones NaN. earlier: what earlier versions
    called a column -> its name.

    Raises ReportError where the file is missing, unreadable, empty, lacks a column or holds a word or an infinity for a number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line of too many fields would be cut
            frame = pd.read_csv(_file(path), dtype=str, keep_default_na=False, index_col=False, encoding="utf-8")
    except (OSError, ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from None
    frame = frame.rename(columns=earlier or {})
    missing = [name for name in (*text, *numbers) if name not in frame.columns]
    if missing:
        raise ReportError(f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if frame.empty:
        raise ReportError(f"{path.name} has no rows")
    if frame.isna().any(axis=None):
        line = int(np.flatnonzero(frame.isna().any(axis=1))[0]) + 2
        raise ReportError(f"{path.name}, line {line}: fewer fields than the header has columns")
    for name in numbers:
        try:
            values = pd.to_numeric(frame[name].mask(frame[name].isin(("", "nan")))).astype(float)
        except (ValueError, TypeError, OverflowError) as error:
            raise ReportError(f"{path.name}, column {name}: {error}") from None
        if (values.abs() > MOST_NUMBER).any():
            line = int(np.flatnonzero(values.abs() > MOST_NUMBER)[0])
            raise ReportError(f"{path.name}, line {line + 2}, column {name}: {shown(frame[name].iloc[line])} is no number to "
                              "reckon with")
        frame[name] = values
    return frame


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The named arrays of an npz file (all for None), without those that it lacks. Every byte of them is checked.

    Raises ReportError where it can't be read, an array holds Python objects, or it declares more than the file justifies.
    """
    wanted = None if names is None else set(names)
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(_file(path)) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if wanted is None or name in wanted:
                    try:
                        arrays[name] = _array(archive, entry)
                    except ReportError as error:
                        raise ReportError(f"{path.name}, array {name}: {error}") from None
    except ReportError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        raise _unreadable(path, error) from None
    return arrays


def array_shape(path: Path, name: str) -> tuple[int, ...] | None:
    """Shape of one array, from its header alone; None where the header can't be read."""
    try:
        with zipfile.ZipFile(_file(path)) as archive, archive.open(f"{name}.npy") as stream:
            return _header(stream)[0]
    except Exception:  # whoever reads the array itself names what is wrong
        return None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as stream:
        shape, fortran, dtype = _header(stream)
        if dtype.hasobject:
            raise ReportError("holds Python objects, which are not read; write plain numbers or text")
        size = math.prod(shape) * dtype.itemsize
        if size + stream.tell() != entry.file_size:
            raise ReportError(f"declares {dtype} values of shape {shown(shape)}, {size:,} bytes, where "
                              f"{entry.file_size - stream.tell():,} follow")
        if size > max(FREE_BYTES, MOST_RATIO * entry.compress_size):
            raise ReportError(f"would take {size / 1e9:,.1f} GB out of {entry.compress_size / 1e6:,.1f} MB; not unpacked")
        content = stream.read()
        if stream.read(1) or len(content) != size:
            raise ReportError("is cut short")
    if dtype.itemsize == 0:  # empty texts take no bytes, so the file's size says nothing
        return np.zeros(shape, dtype) if math.prod(shape) < FREE_BYTES else _refuse(shape)
    array = np.frombuffer(content, dtype).reshape(shape[::-1]).T if fortran else np.frombuffer(content, dtype).reshape(shape)
    if dtype.kind == "U":
        points = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if ((points > 0x10FFFF) | (points >= 0xD800) & (points < 0xE000)).any():
            raise ReportError("holds text with letters that don't exist")
    return array.copy()


def _refuse(shape: tuple[int, ...]) -> np.ndarray:
    raise ReportError(f"declares the shape {shown(shape)} without holding anything")


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ReportError(f"declares the shape {shown(shape)}")
    return shape, fortran, dtype


def check_picture(path: Path) -> None:
    """ReportError where a file is not a readable PNG or JPEG, or has a side longer than MOST_SIDE."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at below
            with Image.open(_file(path), formats=("PNG", "JPEG")) as image:
                if max(image.size) > MOST_SIDE:
                    raise ReportError(f"{path.name} has {image.width} × {image.height} pixels; an example has at most "
                                      f"{MOST_SIDE} a side")
                image.convert("RGBA")
    except ReportError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for a damaged picture
        raise _unreadable(path, error) from None


def _file(path: Path) -> Path:
    """The path. OSError where a folder, pipe or device is there: reading a pipe might never end."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file" + (", but a folder" if path.is_dir() else ""))
    return path


def _unreadable(path: Path, error: BaseException) -> ReportError:
    if isinstance(error, FileNotFoundError):
        return ReportError(f"{path.name} is missing")
    text = getattr(error, "strerror", None) or str(error)
    return ReportError(f"{path.name} can't be read ({type(error).__name__}: {text if len(text) < 200 else text[:200] + '…'})"
                       + foreign.of(path))
