"""The report as Markdown and LaTeX: values equal the results, pictures are there, and the LaTeX compiles."""
from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.result_folders import LEDGER_VARIANTS, made_up, write_run, write_suite

from reports import naming, paper
from reports.figures import draw
from reports.read.schema import Task
from reports.render import command
from reports.tables.latex import Layout, latex, layout
from reports.tables.table import Column, Entry, Row, Table

pytestmark = pytest.mark.usefixtures("whole_fonts")

EMOJI = Task("emoji", "fixed")
NAMES = ("fire_hydrant & co", "50% #1 {x} ~ ^ \\", "猫 [cat]", "Żółw ✓", "a$b", "*starred", *(f"thing {i}" for i in range(6)))


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Rows of most tables, class names and reasons with signs that LaTeX and Markdown take for commands, a broken folder."""
    root = tmp_path_factory.mktemp("documents")
    write_suite(root, ("tcn", "hws", "nws", "untrained-svd"), seeds=(0, 1), ledger=True)
    write_suite(root, ("tcn-no-teacher", "tcn-weight-100", "tcn-dim-32", "couple-stem", "triplet", "frozen-conv",
                       *LEDGER_VARIANTS[1:]), ledger=True)
    folder = write_run(root, "siamese", 0, class_names=NAMES)
    path = folder / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "GPU_0 & 50% [odd] 猫 ± “quoted” – ≥ 2 µs"}))
    write_suite(root, ("tcn",), dataset="sketchy", split="1")
    broken = write_run(root, "sake", 0)
    (broken / "metrics.csv").write_text("no_table & %\n")
    with pytest.MonkeyPatch.context() as patch:
        # Captions are what they are; the pictures are blank, for it takes half a second to draw each.
        patch.setattr(draw, "draw", lambda data: Figure(figsize=(3.4 if data.kind == "overview" else 7.0, 3.0)))
        command.render(root, root / "report")
    return root / "report"


def test_markdown_values_equal_the_results(report):
    text = (report / "report.md").read_text()
    values = [made_up("hws", seed, "mAP@all") for seed in (0, 1)]
    shown = f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
    line = next(x for x in text.splitlines() if x.startswith(f"| {naming.label('hws')} |"))
    assert shown in line
    start = text.index("the paper's 13 rows")
    line = next(x for x in text[start:].splitlines() if x.startswith("| without |") and "s0" in x)
    assert f"{made_up('tcn-no-teacher', 0, 'mAP@all'):.3f} (s0)" in line


def test_latex_values_equal_the_results(report):
    text = (report / "tables" / "emoji-fixed-ablation.tex").read_text()
    line = next(x for x in text.splitlines() if x.startswith("without (NWS) &"))
    values = {rule: [made_up("nws", seed, "mAP@all", rule) for seed in (0, 1)] for rule in paper.RULES}
    cells = [cell.strip() for cell in line.removesuffix(r"\\").split("&")]
    assert cells[2:4] == [rf"{statistics.fmean(v):.3f} $\pm$ {statistics.stdev(v):.3f} (s0--1)" for v in values.values()]
    weights = (report / "tables" / "emoji-fixed-sharing-weight.tex").read_text()
    assert f"{made_up('tcn-weight-100', 0, 'mAP@all'):.3f} (s0)" in next(
        x for x in weights.splitlines() if x.startswith("100 &"))


def test_both_hold_every_table_and_figure_of_the_page(report):
    page = (report / "index.html").read_text()
    markdown, document = (report / "report.md").read_text(), (report / "latex" / "report.tex").read_text()
    names = re.findall(r'<figure class="table[^"]*" id="table-([^"]+)"', page)
    assert len(names) > 15 and re.findall(r"\\input\{\.\./tables/(.+?)\.tex\}", document) == names
    assert all((report / "tables" / f"{name}.tex").exists() for name in names)
    pictures = re.findall(r'<figure id="figure-([^"]+)"', page)
    assert len(pictures) > 5
    assert re.findall(r"!\[.*?\]\(figures/(.+?)\.png\)", markdown) == pictures
    assert re.findall(r"\{\.\./figures/(.+?)\.pdf\}", document) == pictures
    for link in re.findall(r"\]\(([^)#]+)\)", markdown):
        assert (report / link).exists(), link
    for table in (report / "tables").glob("*.md"):
        assert table.read_text().split("\n", 1)[0] in markdown
    titles = re.findall(r'<h[23][^>]*>([^<]+)</h[23]>', page)
    assert "Where every number comes from" in titles and "What is missing" in titles


def test_a_broken_folder_is_named_and_left_out(report):
    for text in ((report / "report.md").read_text(), (report / "index.html").read_text()):
        assert "metrics.csv lacks the columns" in text and "__sake__seed0__" in text
    assert r"\_\_sake\_\_seed0" in (report / "tables" / "left-out.tex").read_text().replace(r"\allowbreak{}", "")


def test_laptop_tables_hold_no_published_number_beside_the_papers_own(report):
    for name in ("emoji-fixed-ablation.md", "emoji-fixed-methods.md", "emoji-fixed-comparison.md"):
        assert not re.search("published [(\\d]|, published", (report / "tables" / name).read_text())
    assert "published" in (report / "tables" / "sketchy-1-ablation.md").read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_document_compiles_and_nothing_runs_off_the_page(report, tmp_path):
    for folder in ("tables", "figures", "latex"):
        shutil.copytree(report / folder, tmp_path / folder)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"], cwd=tmp_path / "latex",
                          capture_output=True, check=False)
    log = done.stdout.decode("utf-8", errors="replace")
    assert done.returncode == 0, log[-1500:]
    assert "Missing character" not in log
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \((\d+\.?\d*)pt", log)]
    assert max(too_wide, default=0.0) < 6, max(too_wide)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_one_table_alone_compiles_in_a_two_column_paper(report, tmp_path):
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx,array,longtable}\\begin{document}"
        f"\\input{{{report.as_posix()}/tables/emoji-fixed-comparison.tex}}"
        f"\\input{{{report.as_posix()}/tables/emoji-fixed-ablation.tex}}\\end{{document}}")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"], cwd=tmp_path,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:]


def test_latex_escapes_whatever_a_name_holds():
    assert latex("fire_hydrant [a] *b* 1 -- 2") == r"fire\_hydrant {[}a{]} {*}b{*} 1 -{}- 2"
    assert latex("猫 Ż é ✓ ± −") == r"{[}U+732B{]} Z é $\surd$ $\pm$ $-$"
    assert latex("`a_b` c`") == r"\`{}a\_b\`{} c\`{}" and latex("`a_b` c") == r"\texttt{a\_b} c"


def test_long_tables_break_over_pages_and_wide_ones_shrink_or_turn():
    def table(rows: int, columns: int, text: str = "0.123 ± 0.045 (s0–5)") -> Table:
        heads = (Column("Name", wrap=True), *(Column(f"c{i}", numeric=True) for i in range(columns)))
        return Table("x", "x", heads, tuple(Row((Entry("row"), *(Entry(text) for _ in range(columns)))) for _ in range(rows)))

    short, long, wide = table(5, 3), table(80, 3), table(5, 9)
    assert "begin{longtable}" not in short.to_latex() and "table*" in short.to_latex()
    assert "\\begin{longtable}" in long.to_latex() and "\\endhead" in long.to_latex()
    assert wide.layout().turned and not short.layout().turned and "resizebox" in wide.to_latex()
    # sentences share what the other columns leave, and the widths stay within the line
    found = layout((Column("a"), Column("b", wrap=True, wide=True), Column("c", wrap=True)),
                   [["x" * 10, "long words " * 30, "words " * 15]])
    assert isinstance(found, Layout) and found.breaks == (False, True, True)
    widths = [float(w) for w in re.findall(r"p\{([\d.]+)\\linewidth\}", found.columns)]
    assert len(widths) == 2 and widths[0] > widths[1] > 0.1 and sum(widths) < 0.95
