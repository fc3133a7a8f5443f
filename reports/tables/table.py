"""A table and its formats: Markdown, CSV, LaTeX (booktabs) and HTML from one object.

In: entries, columns and rows. Out: text. Whatever stands in an entry is escaped only on the way out, once per format.
"""
from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, field

from reports.read.cells import Cell
from reports.read.escaping import csv_text, html, markdown
from reports.read.suite import NOT_MEASURED
from reports.tables.latex import PACKAGES, Layout, latex, layout

RUNS_IN_TIP = 6
"""Most runs that the tip of a linked number names; the table's `.runs.csv` names all."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its text, and for a measured mean the numbers behind it."""

    text: str
    value: float = math.nan
    sd: float = math.nan
    seeds: str = ""
    strong: bool = False
    runs: tuple[Cell, ...] = field(default=(), repr=False)
    """The runs that the number was measured in: the HTML form links to them, `to_runs_csv` lists them."""


@dataclass(frozen=True)
class Column:
    """A column's heading; neighbours of one `group` share a spanning heading above."""

    name: str
    group: str = ""
    numeric: bool = False
    wrap: bool = False
    """Holds sentences or long names: may break into lines on the page."""
    wide: bool = False
    """Holds the longest sentences: keeps room for them."""

    @property
    def full(self) -> str:
        return f"{self.group}, {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Row:
    """A row; `section` rows carry one spanning text, `reference` rows (chance, ceiling) are set apart."""

    entries: tuple[Entry, ...]
    kind: str = "data"


@dataclass(frozen=True)
class Table:
    """A titled table with notes below it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

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
                                            " ".join(cell.name for cell in entry.runs)))
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
            for group, width in self._groups():
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
        """How it is set in LaTeX."""
        return layout(self.columns, [[e.text for e in row.entries] for row in self.rows if row.kind != "section"],
                      sum(row.kind == "section" for row in self.rows))

    def to_html(self) -> str:
        """A `<figure>` with the table and its notes; run links point at provenance anchors of the page."""
        numbers, texts = (sum(flags) for flags in zip(*((c.numeric, c.wrap) for c in self.columns)))
        crowded = (numbers > 7 or texts > 3 or len(self.columns) > 11
                   or any(column.wide for column in self.columns) and numbers > 3)
        dense = " dense" if crowded else ""
        parts = [f'<figure class="table{dense}" id="table-{html(self.name)}">',
                 f"<figcaption>{html(self.title)}</figcaption>", '<div class="scroll"><table>', "<thead>"]
        if any(column.group for column in self.columns):
            parts.append("<tr>" + "".join(
                f'<th class="span" colspan="{width}" scope="colgroup">{html(group)}</th>' if group
                else f'<td colspan="{width}"></td>' for group, width in self._groups()) + "</tr>")
        parts.append("<tr>" + "".join(f'<th scope="col"{_css(column)}>{html(column.name)}</th>'
                                      for column in self.columns) + "</tr></thead><tbody>")
        for row in self.rows:
            if row.kind == "section":
                parts.append(f'<tr class="section"><th colspan="{len(self.columns)}" scope="rowgroup">'
                             f"{html(row.entries[0].text)}</th></tr>")
                continue
            parts.append(f'<tr class="{row.kind}">' + "".join(
                f"<td{_css(column, entry)}>{_html_entry(column, entry)}</td>"
                for column, entry in zip(self.columns, row.entries)) + "</tr>")
        parts.append("</tbody></table></div>")
        if self.notes:
            parts.append('<ul class="notes">' + "".join(f"<li>{html(note)}</li>" for note in self.notes) + "</ul>")
        return "\n".join([*parts, "</figure>"])

    def _groups(self) -> list[tuple[str, int]]:
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def _css(column: Column, entry: Entry | None = None) -> str:
    names = ["number"] if column.numeric else ["wrap"] if column.wrap else []
    names += ["wide"] if column.wide else []
    if entry is not None and entry.text == NOT_MEASURED:
        names.append("absent")
    if entry is not None and column.name == "Seeds" and "/" in entry.text and len(set(entry.text.split("/"))) > 1:
        names.append("short")
    return f' class="{" ".join(names)}"' if names else ""


def _html_entry(column: Column, entry: Entry) -> str:
    text = html(entry.text)
    if column.name.startswith("Setting"):
        return re.sub(r"(?<=\w)([._])(?=\w)", r"\1<wbr>", text)  # dotted keys break where they are joined
    if column.name == "Run" and entry.runs:
        return f'<a href="#{entry.runs[0].anchor}">{text}</a>'
    if column.name == "Seeds":
        links = "".join(f'<a href="#{cell.anchor}" title="run {html(cell.name)}">s{cell.seed}</a>'
                        for cell in entry.runs)
        return f'{text} <span class="runs">{links}</span>' if links else text
    mean, plus_minus, spread = text.partition(" ± ")
    if not plus_minus and (found := re.fullmatch(r"(\S+) (\(s\d.*\))", text)):  # one seed, named
        mean, spread = found[1], f' <span class="sd">{found[2]}</span>'
    else:
        spread = f' <span class="sd">± {spread}</span>' if plus_minus else ""
    if entry.strong:
        mean = f"<strong>{mean}</strong>"
    groups: dict[str, list[str]] = {}
    for cell in entry.runs:
        groups.setdefault(cell.group_anchor, []).append(cell.name)
    if not groups:
        return mean + spread
    first, *others = groups
    names = [cell.name for cell in entry.runs]
    more = f" and {len(names) - RUNS_IN_TIP} more" if len(names) > RUNS_IN_TIP else ""
    text = f'<a class="cell" href="#{first}" title="{html("; ".join(names[:RUNS_IN_TIP]) + more)}">{mean}</a>'
    if len(others) == 1:
        text += f'<a class="also" href="#{others[0]}" title="{html("; ".join(groups[others[0]]))}">↗</a>'
    return text + spread
