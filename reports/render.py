"""`python reports/render.py`: every table, figure and the page, from result folders alone.

In: an output folder of run_all.py. Out: tables/*.md .tex .csv .runs.csv, figures/*.png .pdf .csv, index.html.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import figure_data, figures, ledger, lint, page, paper, protocols, provenance, tables
from reports.figure_data import FigureData
from reports.page import Part
from reports.results import ReportError, Suite, Task, read_suite
from reports.tables import Table

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
    (out / "tables").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    findings = lint.findings(lint.read(paper.PUBLISHED_FILE))
    shown: dict[Task, list[Part]] = {task: _parts(suite, task, out / "cache") for task in suite.tasks()}
    drawn = [item for parts in shown.values() for part in parts for item in part.items if isinstance(item, FigureData)]
    for picture in drawn:
        _save_figure(picture, out / "figures", results)
    beside = tables.paper_comparison(suite)
    general = [] if beside is None else [beside, tables.contradictions()]
    general += [t for t in (ledger.reproductions(suite), tables.unfinished(suite), tables.left_out(suite)) if t is not None]
    written = [item for parts in shown.values() for part in parts for item in part.items if isinstance(item, Table)]
    written += [*general, tables.provenance(suite)]
    for table in written:
        for ending, text in zip(TABLE_FILES, (table.to_markdown(), table.to_latex(), table.to_csv(), table.to_runs_csv())):
            (out / "tables" / f"{table.name}{ending}").write_text(text, encoding="utf-8")
    target = out / "index.html"
    checked = {cell.name: provenance.recompute(cell, suite) for cell in suite.cells}
    text = page.page(suite, shown, [*general, tables.provenance(suite, compact=True)], out, checked, findings)
    partial = target.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    _forget_older(out, [f"tables/{t.name}{e}" for t in written for e in TABLE_FILES]
                  + [f"figures/{f.name}{e}" for f in drawn for e in FIGURE_FILES])
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


def _parts(suite: Suite, task: Task, cache: Path) -> list[Part]:
    """What is shown of a task, the headline first: a part without anything to show is left out."""
    pictures = {figure.kind: figure for figure in _figures(suite, task, cache)}
    validation = any(score.classes == "validation" for score in suite.scores(task))
    parts = [
        Part("", "", (tables.comparison(suite, task), protocols.duplicates(suite, task), pictures.get("overview"))),
        Part("Where paper, released code and good practice part",
             "The paper's code departs in places from what the paper says or from good practice. Each such trap is a setting "
             "here, and this is what it is worth.", (ledger.table(suite, task), pictures.get("ledger_bars"),
                                                     ledger.ties(suite, task))),
        Part("One ranking, six numbers",
             "Papers on this task print mAP and precision by at least six rules under the same names. Here all of them count the "
             "same rankings.", (protocols.table(suite, task),)),
        Part("What the parts are worth", "", (tables.ablation(suite, task), tables.sharing_weights(suite, task),
                                              pictures.get("sharing_weight"), pictures.get("motivation"))),
        Part("A look at the features and the retrieved photos", "",
             tuple(pictures.get(kind) for kind in ("retrieval", "tsne", "singular_values"))),
        Part("Other classes, sources and cut-offs", "",
             (tables.comparison(suite, task, "validation") if validation else None, tables.per_publisher(suite, task),
              pictures.get("publishers"), tables.cutoffs(suite, task))),
    ]
    parts = [Part(p.title, p.lead, tuple(item for item in p.items if item is not None)) for p in parts]
    return [part for part in parts if part.items]


def _figures(suite: Suite, task: Task, cache: Path) -> list[FigureData]:
    made = [figure_data.overview(suite, task), figure_data.ledger_bars(suite, task), figure_data.motivation(suite, task),
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
