"""`python reports/render.py`: every table, figure and the report, from result folders alone.

In: an output folder of run_all.py. Out: index.html, report.md, latex/report.tex, tables/*.md .tex .csv .runs.csv and
figures/*.png .pdf .csv; a figure's CSV holds the data it shows.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import documents, extension, figure_data, figures, lint, page, paper, provenance, story, tables
from reports.figure_data import FigureData
from reports.results import ReportError, Suite, Task, read_suite

DPI = 200
TABLE_FILES = (".md", ".tex", ".csv", ".runs.csv")
FIGURE_FILES = (".png", ".pdf", ".csv")


def render(results: Path, out: Path) -> Path:
    """Render everything of the suite in `results` into `out`; returns the HTML page.

    Raises ReportError where there is nothing to report on. A broken cell is named on the page and left out.
    """
    return _render(read_suite(results), results, out)


def headline_text(results: Path) -> str:
    """The headline tables of all tasks as Markdown, for a terminal; raises as `render`."""
    suite = read_suite(results)
    return "\n".join(tables.comparison(suite, task).to_markdown() for task in suite.tasks())


def _render(suite: Suite, results: Path, out: Path) -> Path:
    for folder in ("tables", "figures", "latex"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    findings = lint.findings(lint.read(paper.PUBLISHED_FILE))
    pictures = {task: _figures(suite, task, out / "cache") for task in suite.tasks()}
    checked = {cell.name: provenance.recompute(cell, suite) for cell in suite.cells}
    shown = story.sections(suite, pictures, checked, findings)
    drawn = story.figures_of(shown)
    widths = {picture.name: _save_figure(picture, out / "figures", results) for picture in drawn}
    # what all runs share is said once where people read, and in every row where programs do
    whole = {"provenance": tables.provenance(suite)}
    written = story.tables_of(shown)
    for table in written:
        full = whole.get(table.name, table)
        for ending, text in zip(TABLE_FILES, (table.to_markdown(), table.to_latex(), full.to_csv(), full.to_runs_csv())):
            _write(out / "tables" / f"{table.name}{ending}", text)
    _write(out / "report.md", documents.to_markdown(suite, shown))
    _write(out / "latex" / "report.tex", documents.to_latex(suite, shown, widths))
    target = out / "index.html"
    _write(target, page.page(suite, shown, out, checked))
    _forget_older(out, ["report.md", "latex/report.tex", *(f"tables/{t.name}{e}" for t in written for e in TABLE_FILES),
                        *(f"figures/{f.name}{e}" for f in drawn for e in FIGURE_FILES)])
    return target


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _forget_older(out: Path, files: list[str]) -> None:
    """Remove what an earlier call wrote here and this one did not; nothing but files that it listed itself."""
    listing = out / "files.txt"
    older = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    for name in set(older) - set(files):
        path = out / name
        if out in (path.parent, path.parent.parent) and ".." not in name:
            path.unlink(missing_ok=True)
    listing.write_text("\n".join(files) + "\n", encoding="utf-8")


def _figures(suite: Suite, task: Task, cache: Path) -> list[FigureData]:
    return figure_data.every(suite, task, cache)


def _save_figure(data: FigureData, folder: Path, results: Path) -> float:
    """Write a figure and its data; returns its width in inches."""
    with figures.style():
        figure = extension.digits(data.frame) if data.kind == "digits" else figures.draw(data)
        # without dates in the files, the same results give the same bytes
        figure.savefig(folder / f"{data.name}.png", dpi=DPI)
        figure.set_layout_engine("none")  # laid out by now: once is enough, and both files look the same
        figure.savefig(folder / f"{data.name}.pdf", metadata={"CreationDate": None})
    data.saved(results).to_csv(folder / f"{data.name}.csv", index=False)
    return float(figure.get_figwidth())


def latest(root: Path) -> Path:
    """The suite written last among `root` and its folders; `root` itself where there is none."""
    found = [path for path in (root / "suite.json", *root.glob("*/suite.json")) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 2 where there is nothing to report on."""
    parser = argparse.ArgumentParser(prog="python reports/render.py", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="an output folder of run_all.py (default: the one written last below results/)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: report/ in that folder")
    options = parser.parse_args(arguments)
    results = options.results or latest(Path(__file__).resolve().parent.parent / "results")
    try:
        suite = read_suite(results)
        print(_render(suite, results, options.out or results / "report"))
        for name, reason in suite.left_out:
            print(f"left out: {name}: {reason}", file=sys.stderr)
        for cell in suite.unfinished:
            print(f"without numbers: {cell.name}: {cell.state}: {cell.reason}", file=sys.stderr)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
