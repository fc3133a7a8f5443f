"""Published numbers with their sources, as published.csv lists them.

In: a CSV file. Out: facts, none averaged or corrected, or a ReportError that names line and field.
"""
from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reports.read.files import ReportError
from tcn.config import InputError
from tcn.files import text

FILE = Path(__file__).with_name("published.csv")
COLUMNS = ("method", "dimension", "features", "dataset", "split", "metric", "value", "source")
SOURCES = {
    "tcn-table-2": "TCN paper, Table 2 (image on the authors' project page, preprint of April 2021)",
    "tcn-ablation": "TCN paper, ablation table (image on the authors' project page)",
    "tcn-table-5": "TCN paper, Table 5 (image on the authors' project page)",
    "zse-sbir": "ZSE-SBIR (CVPR 2023) project page, comparison table",
    "clip-at": "\"CLIP for all things ZS-SBIR\" (CVPR 2023) project page, comparison table",
    "splip-table": "SpLIP (ECCV 2024), comparison table (image in the public repository mainaksingha01/SpLIP)",
    "sketchfusion-table-1": "SketchFusion (CVPR 2025), Table 1",
    "clip-prompt": "README of the public repository leftthomas/ClipPrompt, a re-implementation of CLIP-AT",
}
SHORT_SOURCES = {"tcn-table-2": "TCN paper, Table 2", "tcn-ablation": "TCN paper, ablation",
                 "tcn-table-5": "TCN paper, Table 5", "zse-sbir": "ZSE-SBIR page", "clip-at": "CLIP-AT page",
                 "splip-table": "SpLIP's table", "sketchfusion-table-1": "SketchFusion, Table 1",
                 "clip-prompt": "ClipPrompt README"}


@dataclass(frozen=True)
class Published:
    """One published number; `source` is a key of SOURCES."""

    table: str
    method: str
    dimension: str
    features: str
    dataset: str
    split: str
    metric: str
    value: float
    source: str
    note: str

    @property
    def column(self) -> str:
        """The split in whose column it stands: `split` without the words that say how it departs from that.

        >>> Published("", "X", "", "real", "tuberlin", "220/30 on its own 30 classes", "mAP@all", 0.5, "", "").column
        '220/30'
        """
        return self.split.partition(" ")[0]


def read(path: Path) -> tuple[tuple[int, str, Published], ...]:
    """(line number, value as written, fact) of every row of a CSV file with the columns of published.csv.

    Columns are parted by commas, semicolons or tabs; `table` and `note` may be left out. Raises ReportError naming line and
    field for what can't be read at all; whether a number makes sense is `lint`'s question.
    """
    try:
        content = text.read(path, "table")
        reader = csv.DictReader(io.StringIO(content), delimiter=text.separator(content))
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        if absent := [name for name in COLUMNS if name not in header]:
            raise ReportError(f"{path.name}, line 1: no column {', '.join(absent)}; expected "
                              f"{', '.join(COLUMNS)}, and where wanted table, note, with commas, semicolons or tabs between them")
        return tuple(_row(f"{path.name}, line {reader.line_num}", reader.line_num, row) for row in reader)
    except InputError as error:
        raise ReportError(str(error)) from None
    except csv.Error as error:
        raise ReportError(f"{path} can't be read ({type(error).__name__}: {error})") from None


def _row(where: str, number: int, row: dict[str | None, Any]) -> tuple[int, str, Published]:
    if None in row:
        raise ReportError(f"{where}: more fields than the header has columns; quote fields that hold what parts the columns")
    fields = {name: (its or "").strip() for name, its in row.items()}
    for name in ("method", "dataset", "metric", "value"):
        if not fields[name]:
            raise ReportError(f"{where}, field {name}: empty")
    try:
        value = float(fields["value"])
    except ValueError:
        raise ReportError(f"{where}, field value: '{fields['value']}' is not a number; write 0.463 for 46.3 %") from None
    if not math.isfinite(value):
        raise ReportError(f"{where}, field value: '{fields['value']}' is not a finite number; leave the row out instead")
    if fields["dimension"] and not (re.fullmatch(r"0*[1-9]\d{0,6}", fields["dimension"], re.ASCII)):
        raise ReportError(f"{where}, field dimension: '{fields['dimension']}' is no number of dimensions; "
                          "write 512, or nothing where the source doesn't say")
    texts = {name: fields.get(name, "") for name in (*COLUMNS, "note") if name != "value"}
    return number, fields["value"], Published(**texts, value=value, table=fields.get("table") or "comparison")


@lru_cache(maxsize=1)
def facts() -> tuple[Published, ...]:
    """Every published number at hand, none averaged or corrected.

    >>> next(p.value for p in facts() if p.method == "TCN" and p.features == "binary" and p.dataset == "quickdraw")
    0.11
    """
    rows = tuple(fact for _, _, fact in read(FILE))
    unknown = {row.source for row in rows} - set(SOURCES)
    if unknown:
        raise ReportError(f"{FILE.name}: no such source: {', '.join(sorted(unknown))}")
    return rows
