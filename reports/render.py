"""`python reports/render.py`: every table, figure and the page, from result folders alone.

In: an output folder of run_all.py. Out: tables/*.md .tex .csv, figures/*.png .pdf .csv, index.html.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

from reports import figure_data, figures, page, paper, tables
from reports.figure_data import FigureData
from reports.results import ReportError, Suite, Task, read_suite
from reports.tables import Table

DPI = 200


def render(results: Path, out: Path) -> Path:
    """Render everything of the suite in `results` into `out`; returns the HTML page.

    Raises ReportError where there is nothing to report on. A broken cell is named on the page and left out.
    """
    suite = read_suite(results)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    shown: dict[Task, tuple[list[FigureData], list[Table]]] = {}
    for task in suite.tasks():
        pictures = _figures(suite, task, out / "cache")
        for picture in pictures:
            _save_figure(picture, out / "figures", results)
        shown[task] = pictures, _tables(suite, task)
    general = [t for t in (tables.paper_comparison(suite), tables.unfinished(suite), tables.left_out(suite),
                           tables.provenance(suite)) if t is not None]
    if any(paper.is_paper(task) for task in suite.tasks()):
        general.insert(1, tables.contradictions())
    for table in [t for _, of_task in shown.values() for t in of_task] + general:
        for ending, text in ((".md", table.to_markdown()), (".tex", table.to_latex()), (".csv", table.to_csv())):
            (out / "tables" / f"{table.name}{ending}").write_text(text, encoding="utf-8")
    target = out / "index.html"
    target.write_text(page.page(suite, shown, general, out / "figures"), encoding="utf-8")
    return target


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
    import matplotlib.pyplot as plt

    with figures.style():
        figure = getattr(figures, data.kind)(data.frame)
        # Without dates in the files, the same results give the same bytes.
        figure.savefig(folder / f"{data.name}.png", dpi=DPI)
        figure.savefig(folder / f"{data.name}.pdf", metadata={"CreationDate": None})
        plt.close(figure)
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
        print(render(results, options.out or results / "report"))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
