"""Tables of the runs themselves: the provenance of their numbers, runs without numbers, and files that were found but not
used."""
from __future__ import annotations

from reports import naming
from reports.read.measured import NOT_MEASURED
from reports.read.suite import Suite
from reports.tables.entries import duration_entry
from reports.tables.table import Column, Entry, Row, Table
from reports.wording import listed


def provenance(suite: Suite, compact: bool = False) -> Table:
    """One row per finished run with the provenance of its numbers. `compact`: values that all runs share are moved to a note."""
    rows = []
    for run in suite.runs:
        p = run.provenance
        shown = [f"Python {p.python or '?'}", *(f"{k} {p.versions[k]}" for k in ("torch", "torchvision", "timm")
                                                if k in p.versions)]
        best = run.status.best_epoch
        rows.append(Row((
            Entry(f"{naming.task_title(run.task)}: {naming.short_label(run.variant)}", runs=(run,)),
            Entry(str(run.seed), run.seed), Entry(p.identity[:8] or "?"),
            Entry((p.commit[:8] or "?") + (" + changes" if p.dirty else "")),
            Entry(("" if p.gpus_per_run == 1 else f"{p.gpus_per_run} processes on ")
                  + f"{p.device or '?'}, {p.threads or '?'} threads"),
            Entry(", ".join(shown)),
            Entry(p.data_digest[:8] or "?"), Entry(p.split_digest[:8] or "?"),
            _count(p.optimizer_steps), Entry("–" if best is None else str(best)),
            Entry(p.selected_by or "?"), duration_entry(p.train_seconds),
            duration_entry(p.total_seconds), Entry(p.command or "?"))))
    columns = (Column("Run"), Column("Seed", numeric=True), Column("Identity"), Column("Commit"),
               Column("Device", wrap=True), Column("Versions", wrap=True), Column("Data"), Column("Split"),
               Column("Steps", numeric=True), Column("Best epoch", numeric=True), Column("Selected by"),
               Column("Training", numeric=True), Column("In all", numeric=True), Column("Command", wrap=True))
    table = Table("provenance", "Finished runs", columns, tuple(rows),
                  ("Identity, data and split are the first 8 digits of their digests.",))
    return _without_repetition(table) if compact else table


def _without_repetition(table: Table) -> Table:
    """Move values that are the same in every row into notes; also commands, which are long: each is replaced by a letter."""
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
    """Planned runs without numbers, with the reasons; None if there are none."""
    rows = [Row((Entry(f"{naming.task_title(u.task)}: {naming.short_label(u.variant)}"), Entry(str(u.seed), u.seed),
                 Entry(u.state), Entry(u.reason), Entry(u.name))) for u in suite.unfinished]
    columns = (Column("Run"), Column("Seed", numeric=True), Column("State"), Column("Reason", wrap=True),
               Column("Folder", wrap=True))
    return Table("unfinished", "Runs without numbers", columns, tuple(rows)) if rows else None


def cut(suite: Suite) -> Table | None:
    """Rows and seeds that the budget of the plan left out; None if it left nothing out."""
    rows = [Row((Entry(f"{naming.task_title(task)}: {naming.short_label(variant)}"),
                 Entry(listed([str(s) for s in sorted(seeds)])),
                 Entry("some" if suite.runs_of(task, variant) else NOT_MEASURED)))
            for (task, variant), seeds in sorted(suite.cut_rows.items())]
    if suite.cut.extension:
        rows.append(Row((Entry("The extension on digits"), Entry("all"), Entry(NOT_MEASURED))))
    columns = (Column("Row", wrap=True), Column("Seeds left out", wrap=True), Column("Its other seeds"))
    return Table("cut", f"Left out by the budget of {suite.cut.budget}", columns, tuple(rows),
                 ("The plan ends where the time measured on its device ended; a larger budget takes these "
                  "up.",)) if rows else None


def left_out(suite: Suite) -> Table | None:
    """Folders and files that were found but not used, with the reasons; None if there are none."""
    rows = [Row((Entry(name), Entry(reason))) for name, reason in suite.left_out]
    return Table("left-out", "Found and not used", (Column("Folder or file", wrap=True), Column("Why", wrap=True)),
                 tuple(rows)) if rows else None


def _count(value: object) -> Entry:
    return Entry(f"{value:,}", float(value)) if isinstance(value, (int, float)) else Entry("–")
