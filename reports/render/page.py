"""One self-contained HTML page to read top to bottom: the report's sections, then every run in full.

In: a checked suite and the report's sections. Out: the page's text; pictures are embedded, nothing is fetched. The HTML stands in
templates/; whatever a template prints is made visible and escaped on its way out.
"""
from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from reports.figure_kinds import FigureData
from reports.read.escaping import visible
from reports.read.means import Recomputed
from reports.read.measured import NOT_MEASURED
from reports.read.suite import Suite
from reports.render import provenance, story
from reports.render.explorer import Explorer
from reports.render.story import Points, Section
from reports.stats.verdicts import Verdict
from reports.tables.entries import duration
from reports.tables.table import Column, Entry, Table

TEMPLATES = Path(__file__).with_name("templates")
PIXELS = 0.72
"""Page pixels per pixel of a 200-dpi picture: text in figures comes out a little smaller than the page's."""
RUNS_IN_TIP = 6
"""Most runs that the tip of a linked number names; the table's `.runs.csv` names all."""


def page(suite: Suite, shown: Sequence[Section], folder: Path, checked: Mapping[str, Recomputed], figures: Path,
         explored: Explorer) -> str:
    """The whole page.

    shown: the report's sections. folder: where the page will be. checked: run -> its means worked out again. figures: where the
    pictures are now. explored: what its script shows of single queries. Nothing is read from disk but these pictures and the
    small files that the runs' entries show.
    """
    return ENVIRONMENT.get_template("page.html.j2").render(
        title=story.TITLE, subject=f"TCN on {story.profile_name(suite)}", opening=story.opening(suite), sections=shown,
        groups=provenance.groups(suite, folder, checked), figures=figures, explored=explored)


def _printed(value: object) -> object:
    """What a template prints: text with its hidden characters made visible. Markup, which only we make, stays as it is."""
    return value if isinstance(value, Markup) else visible(value)


def code(text: str) -> Markup:
    """Text with what stands between backquotes as code."""
    parts = text.split("`") if text.count("`") % 2 == 0 else [text]
    return Markup("").join(escape(visible(part)) if i % 2 == 0 else Markup("<code>{}</code>").format(visible(part))
                           for i, part in enumerate(parts))


def breakable(text: str) -> Markup:
    """The dotted name of a setting, which may break where its words are joined."""
    return Markup(re.sub(r"(?<=\w)([._])(?=\w)", r"\1<wbr>", str(escape(visible(text)))))


@dataclass(frozen=True)
class EmbeddedPicture:
    """A PNG to embed."""

    width: int
    """In pixels of the page."""
    data: Markup
    """Its bytes in base64."""


@pass_context
def picture(context: Context, data: FigureData) -> EmbeddedPicture:
    """The picture of a figure."""
    content = (context["figures"] / f"{data.name}.png").read_bytes()
    width = int.from_bytes(content[16:20], "big")  # where PNG keeps its width
    return EmbeddedPicture(round(width * PIXELS), Markup(base64.b64encode(content).decode()))


def dense(table: Table) -> bool:
    """Whether a table has so much to show that it is set smaller."""
    numbers, texts = sum(column.numeric for column in table.columns), sum(column.wrap for column in table.columns)
    return numbers > 7 or texts > 3 or len(table.columns) > 11 or any(column.wide for column in table.columns) and numbers > 3


def classes(column: Column, entry: Entry | None = None) -> list[str]:
    """CSS classes of a column's heading, or of an entry in it."""
    names = ["number"] if column.numeric else ["wrap"] if column.wrap else []
    names += ["wide"] if column.wide else []
    if entry is not None and entry.text == NOT_MEASURED:
        names.append("absent")
    if entry is not None and column.name == "Seeds" and "/" in entry.text and len(set(entry.text.split("/"))) > 1:
        names.append("short")
    return names


def parts(entry: Entry) -> tuple[str, str]:
    """The text of an entry, and what is shown smaller behind it: its spread, or the name of its only seed."""
    if found := re.fullmatch(r"(.*?) (± .*)|(\S+) (\(s\d.*\))", entry.text, flags=re.DOTALL):
        return found[1] or found[3], found[2] or found[4]
    return entry.text, ""


@dataclass(frozen=True)
class RowOfRuns:
    """All runs of one task and variant behind an entry."""

    anchor: str
    names: tuple[str, ...]


def rows_of_runs(entry: Entry) -> tuple[RowOfRuns | None, RowOfRuns | None]:
    """The rows whose runs are behind an entry: the first one, and a second where there are just two."""
    groups: dict[str, list[str]] = {}
    for run in entry.runs:
        groups.setdefault(run.group_anchor, []).append(run.name)
    rows = [RowOfRuns(anchor, tuple(names)) for anchor, names in groups.items()]
    return rows[0] if rows else None, rows[1] if len(rows) == 2 else None


def tip(entry: Entry) -> str:
    """Names of the runs behind an entry, not all where they are many."""
    names = [run.name for run in entry.runs]
    more = f" and {len(names) - RUNS_IN_TIP} more" if len(names) > RUNS_IN_TIP else ""
    return "; ".join(names[:RUNS_IN_TIP]) + more


def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=_printed, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)
    made.filters |= {f.__name__: f for f in (code, breakable, picture, classes, parts, rows_of_runs, tip, duration, zip)}
    kinds: dict[str, type[Any]] = {"table": Table, "figure": FigureData, "verdict": Verdict, "points": Points}
    made.tests |= {name: lambda value, kind=kind: isinstance(value, kind) for name, kind in kinds.items()}
    made.tests["dense"] = dense
    made.globals |= {name: Markup((TEMPLATES / file).read_text(encoding="utf-8"))
                     for name, file in (("style", "page.css"), ("script", "page.js"), ("explorer_style", "explorer.css"),
                                        ("explorer_script", "explorer.js"))}
    return made


ENVIRONMENT = _environment()
"""Renders templates: escapes all that they print, and raises an error for a name that was not passed."""
