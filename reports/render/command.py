"""`python reports/render.py`: every table, figure and the report, from result folders alone.

In: output folders of run_all.py, bundles that others sent, or both. Out: index.html, report.md, latex/report.tex, tables/*.md
.tex .csv .runs.csv and figures/*.png .pdf .csv; a figure's CSV holds the data it shows. Where small pictures of all queries would
make the page too large, they are in pictures/.
"""
from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reports import lint, naming, published
from reports.figure_kinds import FigureData
from reports.figures import digits, draw, frames
from reports.figures.draw_features import tsne_places
from reports.read.bundles import with_bundles
from reports.read.escaping import csv_frame, visible
from reports.read.files import ReportError, shown
from reports.read.joined import read_suites
from reports.read.schema import Task
from reports.read.suite import Suite, read_suite
from reports.render import documents, explorer, leaderboard, page, provenance, staging, story
from reports.tables import ablations, comparison, extension, runs
from tcn.config import InputError
from tcn.files.atomic import StorageError, writable, writable_file, write_bytes, writing

DPI = 200
TABLE_FILES = (".md", ".tex", ".csv", ".runs.csv")
FIGURE_FILES = (".png", ".pdf", ".csv")
OWN_FILE = re.compile(r"report\.md|(latex|tables|figures|pictures)/[\w.-]+\.(md|tex|csv|png|pdf|webp|js)", re.ASCII)
"""Names that the list of an earlier call's files may hold: nothing else is ever removed."""


def render(results: Path, out: Path) -> Path:
    """Render everything of the suite in `results` into `out`; returns the HTML page.

    Raises ReportError where there is nothing to report on, or `out` can't be written: then an earlier report in it is as it
    was. A broken run is named on the page and left out.
    """
    return _render(read_suite(results), results, out)


def headline_text(results: Path) -> str:
    """The headline tables of all tasks as Markdown, for a terminal; raises as `render`."""
    suite = read_suite(results)
    with naming.recorded(suite.titles):
        shown = [table for task in suite.tasks() for table in (comparison.comparison(suite, task), ablations.further(suite, task))
                 if table is not None]
        return "\n".join(table.versioned().to_markdown() for table in shown)


def _render(suite: Suite, results: Path, out: Path) -> Path:
    with naming.recorded(suite.titles), staging.staged(out) as new:
        files = _write_report(suite, results, out, new.folder)
        new.publish(files, ["index.html"], lambda: _forget_older(out, files))
    return out / "index.html"


def _write_report(suite: Suite, results: Path, out: Path, new: Path) -> list[str]:
    """Write all files to `new`, as they will stand in `out`; returns their names but for the page's."""
    findings = lint.findings(lint.read(published.FILE))
    pictures: dict[Task, list[FigureData]] = {}
    widths: dict[str, float] = {}
    places: dict[str, np.ndarray] = {}
    for task in suite.tasks():
        pictures[task] = []
        for data in _figures(suite, task, out / "cache"):
            if _drawn(data, suite, widths, places, new / "figures", results):
                pictures[task].append(data)
    beyond = digits.figure(suite.holding(extension.FOLDER))
    if beyond is not None and not _drawn(beyond, suite, widths, places, new / "figures", results):
        beyond = None
    checked = {run.name: provenance.recompute(run, suite) for run in suite.runs}
    explored = explorer.build(suite, pictures, places)
    shown = story.sections(suite, pictures, checked, findings, beyond, explored.sentences)
    # people read once what all runs share; the CSV file repeats it in each row
    whole = {"provenance": runs.provenance(suite)}
    written = story.tables_of(shown)
    for table in written:
        full = whole.get(table.name, table)
        for ending, text in zip(TABLE_FILES, (table.to_markdown(), table.to_latex(), full.to_csv(), full.to_runs_csv())):
            staging.write_text(new / "tables" / f"{table.name}{ending}", text)
    staging.write_text(new / "report.md", documents.to_markdown(suite, shown))
    staging.write_text(new / "latex" / "report.tex", documents.to_latex(suite, shown, widths))
    for name, content in explored.files.items():
        write_bytes(new / name, content)
    staging.write_text(new / "index.html", page.page(suite, shown, out, checked, new / "figures", explored))
    return ["report.md", "latex/report.tex", *explored.files, *(f"tables/{t.name}{e}" for t in written for e in TABLE_FILES),
            *(f"figures/{f.name}{e}" for f in story.figures_of(shown) for e in FIGURE_FILES)]


def _forget_older(out: Path, files: list[str]) -> None:
    """Remove what an earlier call wrote here and this one did not; nothing but files that it listed itself."""
    listing = out / "files.txt"
    try:
        older = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    except (OSError, ValueError):  # the list is damaged: rather keep a file too many
        older = []
    for name in set(older) - set(files):
        if OWN_FILE.fullmatch(name):
            with contextlib.suppress(OSError):
                (out / name).unlink(missing_ok=True)
    staging.write_text(listing, "\n".join(files) + "\n")


def _figures(suite: Suite, task: Task, cache: Path) -> list[FigureData]:
    return frames.every(suite, task, cache)


def _drawn(data: FigureData, suite: Suite, widths: dict[str, float], places: dict[str, np.ndarray], folder: Path,
           results: Path) -> bool:
    """Whether the figure could be written; if not, it is named among what was left out, and the report does without it."""
    try:
        figure = _save_figure(data, folder, results)
        widths[data.name] = float(figure.get_figwidth())
        if data.kind == "tsne":
            places[data.name] = tsne_places(figure, data.frame)
    except StorageError:
        raise
    except Exception as error:  # some numbers pass every check and still fit on no axis
        suite.left_out.append((f"figure {data.name}", f"can't be drawn ({type(error).__name__}: {shown(str(error), 200)})"))
        return False
    return True


def _save_figure(data: FigureData, folder: Path, results: Path) -> Figure:
    """Write a figure and its data; returns the figure as it was drawn."""
    with draw.style():
        figure = digits.draw(data.frame) if data.kind == "digits" else draw.draw(data)
        # without dates in the files, the same results give the same bytes
        with writing(folder / f"{data.name}.png") as file:
            figure.savefig(file, dpi=DPI, format="png")
        figure.set_layout_engine("none")  # it is laid out by now; a second time could differ
        with writing(folder / f"{data.name}.pdf") as file:
            figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    staging.write_text(folder / f"{data.name}.csv", csv_frame(data.saved(results)).to_csv(index=False))
    return figure


def latest(root: Path) -> Path:
    """The suite written last among `root` and its folders; `root` itself where there is none."""
    found = [path for path in (root / "suite.json", *root.glob("*/suite.json")) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else root


def _suite(options: argparse.Namespace, unpacked: Path) -> Suite:
    """The runs that the options name, once what would stop the report from being written is ruled out."""
    if options.leaderboard and options.out:
        raise ReportError(f"--leaderboard {options.leaderboard} is written in place of the report, which would go to --out "
                          f"{options.out}; leave one of them out")
    try:
        if options.leaderboard:
            writable_file(options.leaderboard, "--leaderboard")
        if options.out:
            writable(options.out, "the folder of the report", "--out")
    except InputError as error:
        raise ReportError(str(error)) from None
    if options.bundles and options.results is None:
        return with_bundles(None, options.bundles, unpacked)
    if options.results and len(options.results) > 1 and not (options.out or options.leaderboard):
        raise ReportError("a report of several results folders belongs to none of them; name a folder for it with --out")
    suite = read_suites(options.results or [latest(Path(__file__).resolve().parents[2] / "results")])
    return with_bundles(suite, options.bundles, unpacked) if options.bundles else suite


def _written(suite: Suite, options: argparse.Namespace) -> Path:
    """The page that was asked for, once it is written."""
    if options.leaderboard:
        with naming.recorded(suite.titles):
            try:
                staging.write_text(options.leaderboard, leaderboard.page(suite, options.leaderboard.parent))
            except OSError as error:
                raise ReportError(f"{options.leaderboard} can't be written ({error.strerror or error}); "
                                  "name another file") from error
        return Path(options.leaderboard)
    if options.out is None and options.bundles and options.results is None:
        raise ReportError("bundles alone have no folder for the report; name one with --out, or a page with "
                          "--leaderboard FILE.html")
    return _render(suite, suite.root, options.out or suite.root / "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 2 where there is nothing to report on or nowhere to write it, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python reports/render.py", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, nargs="+", metavar="DIR",
                        help="an output folder of run_all.py (default: the one written last below results/), or several of one "
                             "profile, whose runs are shown and judged together")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: report/ in the one folder")
    parser.add_argument("--bundles", type=Path, nargs="+", metavar="FILE",
                        help="runs that others sent (tcn bundle), or folders of such files: rows of their own, marked; "
                             "without --results the report holds them alone")
    parser.add_argument("--leaderboard", type=Path, metavar="FILE.html",
                        help="write one page of sortable tables there, in place of the report")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="bundles-") as unpacked:
            suite = _suite(options, Path(unpacked))
            print(_line(_written(suite, options)))
        for name, reason in suite.left_out:
            print(_line(f"left out: {name}: {reason}"), file=sys.stderr)
        for run in suite.unfinished:
            print(_line(f"without numbers: {run.name}: {run.state}: {run.reason}"), file=sys.stderr)
    except ReportError as error:
        print(_line(f"error: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; an earlier report is as it was", file=sys.stderr)
        return 130
    return 0


def _line(text: object) -> str:
    """One line for a terminal; control characters in names from results are shown as code points."""
    return visible(text).replace("\r", " ").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
