"""JSON and CSV files of results: written whole, and read with errors that name the file, the line and the cure.

In: objects and rows, or a path. Out: a file, or what it holds.
"""
from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tcn.config import InputError
from tcn.files import foreign
from tcn.files.atomic import write_bytes


def write_json(path: Path, value: Any) -> None:
    """A JSON file, readable by people."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A CSV with `columns` first and any further keys after them; absent values are empty."""
    extra = dict.fromkeys(key for row in rows for key in row if key not in columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: ("" if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode())


def read_json(path: Path, cure: str = "move its folder away to run that run again") -> dict[str, Any]:
    """The object in a JSON file; InputError naming the file, and the `cure`, where it is missing, damaged or holds no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({type(error).__name__}: {error}){foreign.of(path)}; {cure}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} can't be read (it holds a {type(found).__name__} in place of an object); {cure}")
    return found


def count(text: str) -> int:
    """A whole number from 0 that every reader can hold; ValueError for others."""
    if not 0 <= (number := int(text)) < 1 << 53:
        raise ValueError(f"{text} is not a count")
    return number


def word(text: str) -> str:
    """A name as this project gives them, fit for a column or a metric; ValueError for others."""
    if not re.fullmatch(r"[\w@.-]{1,80}", text):
        raise ValueError(f"{text!r} is not a name")
    return text


def read_rows(path: Path, columns: Mapping[str, Callable[[str], Any]] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file, none where there is no file. InputError naming file and line where it can't be read, a line has
    another number of fields than the header, or a field of `columns` is not what its function (`float`, `count`, `word`)
    takes."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as source:
            rows = list(csv.DictReader(source))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} can't be read ({error}){foreign.of(path)}; move its folder away to run that run "
                         "again") from error
    if rows and (odd := [name for name in rows[0] if name is not None and not re.fullmatch(r"[\w@.-]{1,80}", name)]):
        raise InputError(f"{path}, line 1: {odd[0]!r:.60} is no name of a column")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f"{path}, line {line}: another number of fields than the header has")
        for name, kind in (columns or {}).items():
            try:
                kind(row[name])
            except (KeyError, ValueError) as error:
                raise InputError(f"{path}, line {line}: '{name}' is {row.get(name)!r:.60}, no {kind.__name__}") from error
    return rows
