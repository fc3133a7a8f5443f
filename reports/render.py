"""`python reports/render.py`: every table, figure and the page, from result folders alone.

In: an output folder of run_all.py. Out: tables/*.md .tex .csv, figures/*.png .pdf .csv, index.html.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import figure_data, figures, page, tables
from reports.figure_data import FigureData
from reports.results import ReportError, Suite, Task, read_suite
from reports.tables import Table

DPI = 200
TABLE_FILES = (".md", ".tex", ".csv")
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
    (out / "tables").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    shown: dict[Task, tuple[list[FigureData], list[Table]]] = {}
    for task in suite.tasks():
        pictures = _figures(suite, task, out / "cache")
        for picture in pictures:
            _save_figure(picture, out / "figures", results)
        shown[task] = pictures, _tables(suite, task)
    beside = tables.paper_comparison(suite)
    general = [] if beside is None else [beside, tables.contradictions()]
    general += [t for t in (tables.unfinished(suite), tables.left_out(suite)) if t is not None]
    written = [*(t for _, of_task in shown.values() for t in of_task), *general, tables.provenance(suite)]
    for table in written:
        for ending, text in zip(TABLE_FILES, (table.to_markdown(), table.to_latex(), table.to_csv())):
            (out / "tables" / f"{table.name}{ending}").write_text(text, encoding="utf-8")
    target = out / "index.html"
    text = page.page(suite, shown, [*general, tables.provenance(suite, compact=True)], out / "figures")
    partial = target.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    _forget_older(out, [f"tables/{t.name}{e}" for t in written for e in TABLE_FILES]
                  + [f"figures/{f.name}{e}" for drawn, _ in shown.values() for f in drawn for e in FIGURE_FILES])
    return target


def _forget_older(out: Path, files: list[str]) -> None:
    """Remove what an earlier call wrote here and this one did not; nothing but files that it listed itself."""
    listing = out / "files.txt"
    older = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    for name in set(older) - set(files):
        path = out / name
        if path.parent.parent == out and ".." not in name:
            path.unlink(missing_ok=True)
    listing.write_text("\n".join(files) + "\n", encoding="utf-8")


def _tables(suite: Suite, task: Task) -> list[Table]:
    found = [tables.comparison(suite, task), tables.ablation(suite, task), tables.sharing_weights(suite, task),
             tables.per_publisher(suite, task), tables.cutoffs(suite, task)]
    if any(score.classes == "validation" for score in suite.scores(task)):
        found.insert(1, tables.comparison(suite, task, "validation"))
    return [table for table in found if table is not None]


def _figures(suite: Suite, task: Task, cache: Path) -> list[FigureData]:
    made = [figure_data.overview(suite, task), figure_data.motivation(suite, task),
            figure_data.singular_values(suite, task), figure_data.tsne(suite, task, cache),
            figure_data.retrieval(suite, task), figure_data.publishers(suite, task),
            figure_data.sharing_weight(suite, task)]
    return [figure for figure in made if figure is not None]


def _save_figure(data: FigureData, folder: Path, results: Path) -> None:
    with figures.style():
        figure = figures.DRAWINGS[data.kind](data.frame)
        # without dates in the files, the same results give the same bytes
        figure.savefig(folder / f"{data.name}.png", dpi=DPI)
        figure.savefig(folder / f"{data.name}.pdf", metadata={"CreationDate": None})
    frame = data.frame.copy()
    for column in ("file", "query_file"):
        if column in frame:
            frame[column] = [Path(file).relative_to(results).as_posix() for file in frame[column]]
    frame.to_csv(folder / f"{data.name}.csv", index=False)


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
