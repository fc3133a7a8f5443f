"""A table and its formats: Markdown, CSV and LaTeX (booktabs) from one object; `render.page` shows it as HTML.

In: entries, columns and rows. Out: text. The text of an entry is escaped only when it is written, once for each format.
"""
from __future__ import annotations

import csv
import io
import math
import textwrap
from dataclasses import dataclass, field, replace
from typing import Literal

from reports.read.escaping import csv_text, markdown, visible
from reports.read.runs import FinishedRun
from reports.tables.latex import PACKAGES, Layout, latex, layout


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its text, and for a measured mean the numbers behind it."""

    text: str
    value: float = math.nan
    sd: float = math.nan
    seeds: str = ""
    strong: bool = False
    runs: tuple[FinishedRun, ...] = field(default=(), repr=False)
    """The runs that the number was measured in: the page links to them, `to_runs_csv` lists them."""


@dataclass(frozen=True)
class Column:
    """A column's heading; neighbours of one `group` share a spanning heading above."""

    name: str
    group: str = ""
    numeric: bool = False
    wrap: bool = False
    """The column holds sentences or long names, which may break into lines on the page."""
    wide: bool = False
    """The column holds the longest sentences and keeps room for them."""

    @property
    def full(self) -> str:
        return f"{self.group}, {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Row:
    """A row; `section` rows carry one spanning text, `reference` rows (chance, ceiling) are set apart."""

    entries: tuple[Entry, ...]
    kind: Literal["data", "section", "reference"] = "data"


@dataclass(frozen=True)
class Table:
    """A titled table with notes below it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def versioned(self) -> Table:
        """The same; where it holds measured numbers, a note says under which version of the rules."""
        versions = {run.provenance.protocol_version for row in self.rows for entry in row.entries for run in entry.runs}
        note = f"Measured under protocol version {', '.join(map(str, sorted(versions)))}."
        return replace(self, notes=(*self.notes, note)) if versions else self

    def to_markdown(self) -> str:
        """GitHub-flavoured Markdown with title and notes."""
        lines = [f"**{markdown(self.title)}**", "",
                 "| " + " | ".join(markdown(column.full) for column in self.columns) + " |",
                 "|" + "|".join("---:" if column.numeric else "---" for column in self.columns) + "|"]
        for row in self.rows:
            if row.kind == "section":
                cells = [f"**{markdown(row.entries[0].text)}**"] + [""] * (len(self.columns) - 1)
            else:
                cells = [f"**{markdown(e.text)}**" if e.strong else f"*{markdown(e.text)}*" if row.kind == "reference" and e.text
                         else markdown(e.text) for e in row.entries]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", *(f"- {markdown(note)}" for note in self.notes)]).rstrip() + "\n"

    def to_text(self, width: int = 120) -> str:
        """Aligned columns for a terminal; headings in two lines where columns have groups; notes wrapped at `width` letters."""
        lines = [[column.name for column in self.columns],
                 *([e.text for e in row.entries] for row in self.rows if row.kind != "section")]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        out = [self.title]
        if any(column.group for column in self.columns):
            heading, at = "", 0
            for group, span in self.groups():
                room = sum(widths[at:at + span]) + 2 * (span - 1)
                if len(group) > room:  # widen the last column of the group
                    widths[at + span - 1] += len(group) - room
                    room = len(group)
                heading, at = heading + "  " + f"{group:>{room}}", at + span
            out.append(heading.rstrip())
        for row in (None, *self.rows):
            if row is not None and row.kind == "section":
                out.append(row.entries[0].text)
                continue
            texts = [column.name for column in self.columns] if row is None else [e.text for e in row.entries]
            out.append("".join(f"  {visible(text):{'>' if column.numeric else '<'}{room}}"
                               for column, text, room in zip(self.columns, texts, widths)).rstrip())
        return "\n".join([*out, *(textwrap.fill(visible(note), width) for note in self.notes)]) + "\n"

    def to_csv(self) -> str:
        """Plain numbers: a measured column becomes three (mean, sd, seeds), a section its own first column."""
        measured = [any(row.kind == "data" and row.entries[i].seeds for row in self.rows if row.kind != "section")
                    for i in range(len(self.columns))]
        header = ["section"]
        for column, spread in zip(self.columns, measured):
            header += [column.full, f"{column.full} (sd)", f"{column.full} (seeds)"] if spread else [column.full]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(csv_text, header))
        section = ""
        for row in self.rows:
            if row.kind == "section":
                section = row.entries[0].text
                continue
            line = [section]
            for entry, spread in zip(row.entries, measured):
                line.append(entry.text if math.isnan(entry.value) else repr(entry.value))
                if spread:
                    line += ["" if math.isnan(entry.sd) else repr(entry.sd), entry.seeds]
            writer.writerow(map(csv_text, line))
        return stream.getvalue()

    def to_runs_csv(self) -> str:
        """Every measured entry with the folders of its runs: section, row, column, runs separated by spaces."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("section", "row", "column", "runs"))
        section = ""
        for row in self.rows:
            if row.kind == "section":
                section = row.entries[0].text
                continue
            writer.writerows(map(csv_text, (section, row.entries[0].text, column.full,
                                            " ".join(run.name for run in entry.runs)))
                             for column, entry in zip(self.columns, row.entries) if entry.runs)
        return stream.getvalue()

    def to_latex(self) -> str:
        r"""A `table*` in booktabs style, or a `longtable` where it is longer than a page; needs PACKAGES.

        Columns of sentences break into lines; a table still too wide for the page shrinks to its width.
        """
        form = self.layout()
        head = [" & ".join(latex(column.name) for column in self.columns) + r" \\", "\\midrule"]
        if any(column.group for column in self.columns):
            spans, rules, at = [], [], 1
            for group, width in self.groups():
                spans.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(group)}}}" if group else "&" * (width - 1))
                if group:
                    rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
                at += width
            head = [" & ".join(spans) + r" \\", " ".join(rules), *head]
        body, previous = [], "head"
        for row in self.rows:
            if row.kind != previous and row.kind in ("section", "reference") and previous != "head":
                body.append("\\midrule" if row.kind == "section" else "\\addlinespace")
            previous = row.kind
            if row.kind == "section":
                body.append(f"\\multicolumn{{{len(self.columns)}}}{{l}}{{\\emph{{{latex(row.entries[0].text)}}}}} \\\\"
                            + "*" * form.long)
            else:
                texts = [latex(e.text, breaks=breaks) for e, breaks in zip(row.entries, form.breaks)]
                body.append(" & ".join(f"\\textbf{{{t}}}" if e.strong else t for e, t in zip(row.entries, texts)) + r" \\")
        caption = f"\\caption{{{latex(self.title)}.}}\\label{{tab:{self.name}}}"
        notes = [f"{{\\scriptsize {' '.join(map(latex, self.notes))}\\par}}"] if self.notes else []
        uses = f"% needs \\usepackage{{{','.join(PACKAGES)}}}"
        if form.long:
            again = f"\\multicolumn{{{len(self.columns)}}}{{l}}{{\\emph{{continued}}}} \\\\"
            uses += "; longer than a page, for one-column text" + ", best on a page in landscape" * form.turned
            return "\n".join([uses, f"{{{form.size}\\setlength{{\\tabcolsep}}{{3pt}}",
                              f"\\begin{{longtable}}{{{form.columns}}}", caption + r" \\", "\\toprule", *head, "\\endfirsthead",
                              again, "\\toprule", *head, "\\endhead", "\\bottomrule", "\\endfoot", *body, "\\end{longtable}}",
                              *notes]) + "\n"
        return "\n".join([uses, "\\begin{table*}[tb]", "\\centering", caption, f"{form.size}\\setlength{{\\tabcolsep}}{{4pt}}",
                          "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
                          f"\\begin{{tabular}}{{{form.columns}}}", "\\toprule", *head, *body, "\\bottomrule", "\\end{tabular}}",
                          *(f"\\par\\smallskip\\parbox{{\\linewidth}}{note}" for note in notes), "\\end{table*}"]) + "\n"

    def layout(self) -> Layout:
        """The layout of the table in LaTeX."""
        return layout(self.columns, [[e.text for e in row.entries] for row in self.rows if row.kind != "section"],
                      sum(row.kind == "section" for row in self.rows))

    def groups(self) -> list[tuple[str, int]]:
        """Spanning headings with the number of columns below each; the heading is empty above columns without one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans
