"""Checked cells -> tables, each as Markdown, LaTeX (booktabs), CSV and HTML from one object.

A table is built from numbers with their seeds; text is escaped only on the way out, once per format.
"""
from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from reports import lint, paper
from reports.read.escaping import csv_text, html, markdown
from reports.read.cells import Cell, Score, setting
from reports.read.schema import Task
from reports.read.suite import Measured, Suite, paired
from reports.tables.latex import PACKAGES, Layout, latex, layout

NOT_MEASURED = "not measured"
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


def comparison(suite: Suite, task: Task, classes: str = "unseen") -> Table:
    """TCN, HWS, NWS and the floors under both rules, real-valued and binary, with chance and ceiling."""
    where = "unseen classes" if classes == "unseen" else "validation classes, never trained on"
    return _measured_table(suite, task, f"{task.slug}-{'comparison' if classes == 'unseen' else classes}",
                           f"{paper.task_title(task)}: retrieval on {where} (measured)", paper.headline(task),
                           classes, decimals=3)


def cutoffs(suite: Suite, task: Task) -> Table:
    """The metrics that don't head the task; on emoji Prec@100 with its ceiling."""
    there = {score.metric for score in suite.scores(task)}
    # Without a finished cell nothing is known of the metrics; then all of them read "not measured".
    metrics = [m for m in paper.secondary(task) if m in there] or list(paper.secondary(task))
    table = _measured_table(suite, task, f"{task.slug}-cutoffs",
                            f"{paper.task_title(task)}: secondary cut-offs on unseen classes (measured)", metrics,
                            "unseen", decimals=4)
    if paper.is_paper(task) or "Prec@100" not in metrics:
        return table
    note = ("A class has only a handful of photos here, so Prec@100 and Prec@200 can't come near 1: read them "
            "against the ceiling row.")
    return Table(table.name, table.title, table.columns, table.rows, (note, *table.notes))


def per_publisher(suite: Suite, task: Task) -> Table | None:
    """mAP by publisher of the query drawing, also with a publisher's own pictures left out; None without sources."""
    metric = paper.retrieval_metric(task)
    views = publisher_views(suite, task)
    if len(views) < 2:
        return None
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    for source, gallery in views:
        columns += [Column(rule, view_label(source, gallery), True) for rule in paper.RULES]
    rows, chance, counts = [], [], []
    variants = [*paper.main_variants(suite, task), *(v for v in paper.LEAVE_ONE_OUT if v in suite.variants(task))]
    for variant in variants:
        measured = [suite.measure(task, variant, Score(metric, rule, source=source, gallery=gallery))
                    for source, gallery in views for rule in paper.RULES]
        rows.append(Row((Entry(paper.label(variant)), dim_entry(suite, task, variant), *(measured_entry(m) for m in measured),
                         seeds_entry(measured[0]))))
    for source, gallery in views:
        pair = [_union(suite, task, variants, Score(metric, rule, source=source, gallery=gallery)) for rule in paper.RULES]
        chance += [reference_entry(m.chance, runs=m.runs) for m in pair]
        counts.append(f"{view_label(source, gallery)}: {pair[0].queries} queries, {pair[0].photos} photos")
    rows.append(Row((Entry("chance"), Entry(""), *chance, Entry("")), "reference"))
    return Table(f"{task.slug}-publishers", f"{paper.task_title(task)}: {metric} by publisher of the query drawing, "
                 "unseen classes, real-valued features (measured)", (*columns, Column("Seeds")), tuple(rows),
                 ("; ".join(counts) + ".",))


def publisher_views(suite: Suite, task: Task) -> list[tuple[str, str]]:
    """(query source, gallery) pairs at hand: all drawings, then each publisher, one with a reduced gallery last."""
    there = {(s.source, s.gallery) for s in suite.scores(task) if s.classes == "unseen"}
    reduced = {source for source, gallery in there if gallery != "all"}
    return sorted(there, key=lambda v: (v[0] != "all", v[0] in reduced, paper.publisher(v[0]), v[1] != "all", v[1]))


def view_label(source: str, gallery: str) -> str:
    """Heading of a publisher's column.

    >>> view_label("openmoji", "all"), view_label("emojione-monotone", "without emojione-v1")
    ('OpenMoji black', 'EmojiOne monotone, without EmojiOne v1 pictures')
    """
    name = paper.publisher(source)
    return name if gallery == "all" else f"{name}, {gallery.replace('emojione-v1', 'EmojiOne v1')} pictures"


def paper_comparison(suite: Suite) -> Table | None:
    """The paper's Table 2 with measured and published rows apart; None where none of its data sets was planned."""
    tasks = {paper.paper_task(task): task for task in suite.tasks() if paper.is_paper(task)}
    tasks.pop(None, None)
    if not tasks:
        return None
    columns = [Column("Method"), Column("D", numeric=True), Column("Features"), Column("Number", wrap=True)]
    columns += [Column(metric, _paper_heading(where), True) for where, metric in paper.COMPARISON_COLUMNS]
    rows = [Row((Entry("Measured here"),), "section")]
    wanted: list[tuple[str, int, str]] = [("tcn", dim, kind) for dim, kind in paper.COMPARISON_ROWS]
    for task in tasks.values():
        for variant in (v for v in suite.variants(task) if paper.is_tcn(v)):
            dim = suite.dim(task, variant)
            for kind in ("real", "binary"):
                has = any(suite.measure(task, variant, Score(m, features=kind)).n for m in paper.headline(task))
                if dim is not None and has and ("tcn", dim, kind) not in wanted:
                    wanted.append(("tcn", dim, kind))
    for _, dim, kind in wanted:
        for rule in paper.RULES:
            entries = []
            for where, metric in paper.COMPARISON_COLUMNS:
                task = tasks.get(where)
                variants = [v for v in suite.variants(task) if paper.is_tcn(v) and suite.dim(task, v) == dim] if task else []
                best = [suite.measure(task, v, Score(metric, rule, kind)) for v in variants] if task else []
                found = next((m for m in best if m.n), Measured({}, ()))
                entries.append(measured_entry(found, with_seeds=True))
            rows.append(Row((Entry("TCN"), Entry(str(dim), dim), Entry(kind), Entry(f"measured, {rule}"), *entries)))
    facts: dict[tuple[str, str, str, str], dict[tuple[Task, str], float]] = {}
    doubtful = lint.doubtful(lint.findings(lint.read(paper.PUBLISHED_FILE)))
    against = {_kin(fact) for fact in doubtful if fact.table == "conflict"}
    marked = set()
    for p in paper.published():
        if p.table == "comparison":
            key = (p.method, p.dimension, p.features, p.source)
            facts.setdefault(key, {})[Task(p.dataset, p.split), p.metric] = p.value
            if p in doubtful or _kin(p) in against:
                marked.add((key, Task(p.dataset, p.split), p.metric))
    previous = ""
    for key in sorted(facts, key=lambda k: (list(paper.SOURCES).index(k[3]), k[2] != "real", k[0] == "TCN")):
        if key[3] != previous:
            previous = key[3]
            rows.append(Row((Entry(f"Published ({paper.SHORT_SOURCES[previous]})"),), "section"))
        entries = []
        for where, metric in paper.COMPARISON_COLUMNS:
            value = facts[key].get((where, metric))
            mark = "†" if (key, where, metric) in marked else ""
            entries.append(Entry("–") if value is None else Entry(f"{value:.3f}{mark}", value))
        method, dim, kind, _ = key
        rows.append(Row((Entry(method), Entry(dim or "–"), Entry(kind), Entry("published"), *entries)))
    notes = [("Measured: mean ± standard deviation over seeds, with the number of seeds in brackets. Published rows follow "
             "each author's own rules, which differ; – means that the source gives no number."),
             "† contradicted by another published number or by a provable rule; see the table of contradictions.",
             *(f"{paper.SHORT_SOURCES[key]}: {text}." for key, text in paper.SOURCES.items()
               if key in {k[3] for k in facts})]
    return Table("paper-comparison", "Comparison on the paper's data sets", tuple(columns), tuple(rows), tuple(notes))


def contradictions() -> Table:
    """What the lint of published.csv found: published numbers that can't all be right, or that ask for a look."""
    findings = lint.findings(lint.read(paper.PUBLISHED_FILE))
    columns = (Column("Method"), Column("D", numeric=True), Column("Features"), Column("Data set"), Column("Metric"),
               Column("Value", numeric=True), Column("Source", wrap=True), Column("Rule", wrap=True),
               Column("What was found", wrap=True))
    rows = []
    for kind, heading in lint.KINDS.items():
        block = []
        for f in (f for f in findings if f.kind == kind):
            line = f.line.fact
            value = line.value if f.shows_value else math.nan
            source = paper.SHORT_SOURCES.get(line.source, line.source or "no source")
            block.append(Row((
                Entry(line.method), Entry(line.dimension or "–"), Entry(line.features),
                Entry(_paper_heading(Task(line.dataset, line.split))), Entry(line.metric if f.shows_value else "–"),
                Entry("–" if math.isnan(value) else f"{value:.3f}", value), Entry(f"published ({source})"), Entry(f.rule),
                Entry(f.text))))
        if block:
            rows += [Row((Entry(heading),), "section"), *block]
    return Table("paper-contradictions", "Published numbers that contradict each other or a rule", columns, tuple(rows),
                 ("None is averaged, corrected or dropped.",
                  *(f"{rule}: {text}" for rule, text in lint.RULES.items() if rule in {f.rule for f in findings}),
                  "`python reports/lint.py FILE.csv` applies the same rules to a file of your own."))


def provenance(suite: Suite, compact: bool = False) -> Table:
    """One row per finished run: where its numbers come from; `compact` says what all runs share once, in a note."""
    rows = []
    for cell in suite.cells:
        p = cell.provenance
        shown = [f"Python {p.python or '?'}", *(f"{k} {p.versions[k]}" for k in ("torch", "torchvision", "timm")
                                                if k in p.versions)]
        best = cell.status.best_epoch
        rows.append(Row((
            Entry(f"{paper.task_title(cell.task)}: {paper.short_label(cell.variant)}", runs=(cell,)),
            Entry(str(cell.seed), cell.seed), Entry(p.identity[:8] or "?"),
            Entry((p.commit[:8] or "?") + (" + changes" if p.dirty else "")),
            Entry(f"{p.device or '?'}, {p.threads or '?'} threads"), Entry(", ".join(shown)),
            Entry(p.data_digest[:8] or "?"), Entry(p.split_digest[:8] or "?"),
            _count(p.optimizer_steps), Entry("–" if best is None else str(best)),
            Entry(p.selected_by or "?"), Entry(duration(p.train_seconds)),
            Entry(duration(p.total_seconds)), Entry(p.command or "?"))))
    columns = (Column("Run"), Column("Seed", numeric=True), Column("Identity"), Column("Commit"),
               Column("Device", wrap=True), Column("Versions", wrap=True), Column("Data"), Column("Split"),
               Column("Steps", numeric=True), Column("Best epoch", numeric=True), Column("Selected by"),
               Column("Training", numeric=True), Column("In all", numeric=True), Column("Command", wrap=True))
    table = Table("provenance", "Finished runs", columns, tuple(rows),
                  ("Identity, data and split are the first 8 digits of their digests.",))
    return _without_repetition(table) if compact else table


def _without_repetition(table: Table) -> Table:
    """Move what is the same in every row into notes, and commands, which are long, too: each gets a letter."""
    shared = {i: table.rows[0].entries[i].text for i, column in enumerate(table.columns)
              if not column.numeric and len({row.entries[i].text for row in table.rows}) == 1} if len(table.rows) > 1 else {}
    at = [column.name for column in table.columns].index("Command")
    letters = {command: _letter(k) for k, command in enumerate(dict.fromkeys(row.entries[at].text for row in table.rows))}
    rows = tuple(Row(tuple(Entry(letters[e.text]) if i == at else e for i, e in enumerate(row.entries) if i not in shared),
                     row.kind) for row in table.rows)
    notes = [f"The same for all: {table.columns[i].name.lower()}: {text}." for i, text in shared.items()]
    if at not in shared:
        notes += [f"Command {letter}: `{command}`" for command, letter in letters.items()]
    return Table(table.name, table.title, tuple(c for i, c in enumerate(table.columns) if i not in shared), rows,
                 (*table.notes, *notes))


def _letter(number: int) -> str:
    """A, B, ... Z, A1, B1, ...

    >>> _letter(0), _letter(27)
    ('A', 'B1')
    """
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def unfinished(suite: Suite) -> Table | None:
    """Planned runs without numbers, with their reasons; None where there are none."""
    rows = [Row((Entry(f"{paper.task_title(u.task)}: {paper.short_label(u.variant)}"), Entry(str(u.seed), u.seed),
                 Entry(u.state), Entry(u.reason), Entry(u.name))) for u in suite.unfinished]
    columns = (Column("Run"), Column("Seed", numeric=True), Column("State"), Column("Reason", wrap=True),
               Column("Folder", wrap=True))
    return Table("unfinished", "Runs without numbers", columns, tuple(rows)) if rows else None


def left_out(suite: Suite) -> Table | None:
    """Folders and files that were found and not used, with reasons; None where there are none."""
    rows = [Row((Entry(name), Entry(reason))) for name, reason in suite.left_out]
    return Table("left-out", "Found and not used", (Column("Folder or file", wrap=True), Column("Why", wrap=True)),
                 tuple(rows)) if rows else None


def duration(seconds: object) -> str:
    """Seconds for people.

    >>> duration(42.31), duration(754), duration(7560), duration(None)
    ('42 s', '12 min 34 s', '2 h 06 min', '–')
    """
    if not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _measured_table(suite: Suite, task: Task, name: str, title: str, metrics: Iterable[str], classes: str,
                    decimals: int) -> Table:
    metrics = list(metrics)
    columns = [Column("Variant", wrap=True), Column("D", numeric=True)]
    columns += [Column(rule, metric, True) for metric in metrics for rule in paper.RULES] + [Column("Seeds")]
    variants = paper.main_variants(suite, task)
    rows, counts, error = [], (0, 0), 0.0
    orders: set[str] = set()
    for kind, heading in (("real", "Real-valued features"), ("binary", "Binary codes (ITQ), Hamming distance")):
        scores = [Score(metric, rule, kind, classes) for metric in metrics for rule in paper.RULES]
        grid = [[suite.measure(task, variant, score) for score in scores] for variant in variants]
        best = [max((m.mean for m in column if m.n), default=math.nan) for column in zip(*grid)]
        rows.append(Row((Entry(heading),), "section"))
        for variant, line in zip(variants, grid):
            alike = len({m.seeds for m in line}) == 1
            entries = [measured_entry(m, decimals, not alike, strong=m.mean == top) for m, top in zip(line, best)]
            rows.append(Row((Entry(paper.label(variant)), dim_entry(suite, task, variant, kind), *entries,
                             seeds_entry(max(line, key=lambda m: m.n)))))
        union = [_union(suite, task, variants, score) for score in scores]
        if any(m.n for m in union):
            counts = (max(m.queries for m in union), max(m.photos for m in union))
            error = max(error, *(m.standard_error for m in union))
            orders.update(name for m in union for name in m.ties)
            for text, levels in (("chance", [m.chance for m in union]), ("ceiling", [m.ceiling for m in union])):
                rows.append(Row((Entry(text), Entry(""),
                                 *(reference_entry(level, decimals, m.runs) for level, m in zip(levels, union)), Entry("")),
                                "reference"))
    notes = [f"{counts[0]:,} queries, {counts[1]:,} photos. " if any(counts) else "",
             ("Mean ± standard deviation over seeds; the seeds column says how many of the planned ones are in it. "
             "Bold: highest mean of its block, without a claim of significance.")]
    ties = ["Ties: expected value over random orders of photos at equal distance"
            + (f"; where that is sampled, its standard error is at most {error:.2g}." if error > 0 else ".")]
    if orders:
        ties = [f"Some rows break ties otherwise: {', '.join(sorted(orders))}."]
    return Table(name, title, tuple(columns), tuple(rows), (
        "".join(notes), ("released: interpolated precision, mean over classes, as the paper's code counts; standard: raw "
                        "precision, mean over queries. Ceiling: what a perfect ranking would score."), *ties))


def _union(suite: Suite, task: Task, variants: Iterable[str], score: Score) -> Measured:
    """Chance, ceiling, counts and runs over all rows; its values mean nothing but "some"."""
    found = [m for m in (suite.measure(task, v, score) for v in variants) if m.n]
    return Measured({i: m.mean for i, m in enumerate(found)}, (),
                    tuple(sorted({round(c, 9) for m in found for c in m.chance})),
                    tuple(sorted({round(c, 9) for m in found for c in m.ceiling})),
                    max((m.queries for m in found), default=0), max((m.photos for m in found), default=0),
                    tuple(cell for m in found for cell in m.runs), max((m.standard_error for m in found), default=0.0),
                    tuple(sorted({name for m in found for name in m.ties})))


def measured_entry(measured: Measured, decimals: int = 3, with_seeds: bool = False, strong: bool = False,
                   name_seeds: bool = False) -> Entry:
    """Mean ± sd over seeds, with its runs; the number of seeds or their names in brackets where asked for."""
    text = measured.text(decimals)
    if measured.n and (with_seeds or name_seeds):
        text += f" ({seed_names(measured) if name_seeds else measured.seeds})"
    return Entry(text, measured.mean, measured.sd, measured.seeds, strong and measured.n > 0, measured.runs)


def seed_names(measured: Measured) -> str:
    """`s0`, `s0–5`, `s0, s2, s5`: the seeds that a mean rests on.

    >>> seed_names(Measured({0: 1.0, 1: 1.0, 2: 1.0, 7: 1.0}, ())), seed_names(Measured({4: 1.0}, ()))
    ('s0–2, s7', 's4')
    """
    groups: list[list[int]] = []
    for seed in sorted(measured.values):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ", ".join(f"s{g[0]}" if len(g) == 1 else f"s{g[0]}–{g[-1]}" for g in groups)


def signed_entry(gap: Measured, decimals: int = 3, remark: str = "") -> Entry:
    """A difference with its sign, ± sd over seeds, with the runs of both sides; a dash where no seed has both."""
    if not gap.n:
        return Entry("–")
    spread = f" ± {gap.sd:.{decimals}f}" if gap.n > 1 else ""
    text = f"{gap.mean:+.{decimals}f}{spread}{remark}".replace("-", "−")
    return Entry(text, gap.mean, gap.sd, gap.seeds, runs=gap.runs)


def seeds_entry(measured: Measured) -> Entry:
    """How many of the planned seeds, with a link to each run."""
    return Entry(measured.seeds, runs=measured.runs)


def dim_entry(suite: Suite, task: Task, variant: str, kind: str = "real") -> Entry:
    """Length of the features, or of the codes: ITQ makes no more bits than the network's D (PCA before it)."""
    dim = suite.dim(task, variant)
    if kind == "binary" and dim is not None:
        dim = min([dim, *(int(setting(c.config, "network.dim", dim)) for c in suite.cells_of(task, variant))])
    return Entry("–") if dim is None else Entry(str(dim), dim)


def reference_entry(levels: tuple[float, ...], decimals: int = 3, runs: tuple[Cell, ...] = ()) -> Entry:
    """One level (chance, ceiling), or its range where `runs` saw different galleries."""
    if not levels:
        return Entry("–")
    texts = list(dict.fromkeys(f"{level:.{decimals}f}" for level in (levels[0], levels[-1])))
    return Entry("–".join(texts), levels[0] if len(levels) == 1 else math.nan, runs=runs)


def difference_entry(suite: Suite, task: Task, variant: str, metric: str) -> Entry:
    """Mean over common seeds of (row - TCN), with its sd."""
    own, tcn = (suite.measure(task, v, Score(metric)) for v in (variant, "tcn"))
    gap = paired(own, tcn)
    fewer = f" ({gap.n} seed{'s' * (gap.n > 1)})" if gap.n < max(own.n, tcn.n) else ""
    return Entry("–") if variant == "tcn" else signed_entry(gap, remark=fewer)


def _kin(fact: paper.Published) -> tuple[str, ...]:
    """What a number and one that contradicts it have in common: method, data set, and mAP or Prec."""
    return fact.method, fact.dimension, fact.features, fact.dataset, fact.metric.partition("@")[0]


def _paper_heading(where: Task) -> str:
    return {"tuberlin": "TU-Berlin", "quickdraw": "QuickDraw"}.get(
        where.dataset, {"100/25": "Sketchy, split 1", "104/21": "Sketchy, split 2"}.get(where.split, where.dataset))


def _count(value: object) -> Entry:
    return Entry(f"{value:,}", float(value)) if isinstance(value, (int, float)) else Entry("–")


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
