"""The report from made-up result folders: what its tables, figures and page say, and what they leave out."""
from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from result_folders import CEILINGS, SOURCES, made_up, write_cell, write_suite

from reports import figure_data, figures, paper, render, tables, verdicts
from reports.results import NoResults, Score, Task, read_suite

EMOJI = Task("emoji", "fixed")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Three seeds of every variant, rendered."""
    root = tmp_path_factory.mktemp("suite")
    write_suite(root, seeds=(0, 1, 2))
    render.render(root, root / "report")
    return root


@pytest.fixture
def text_only(monkeypatch):
    """Leave the figures out, for tests of what tables and page say."""
    monkeypatch.setattr(render, "_figures", lambda suite, task, cache: [])


def row_of(text: str, name: str) -> list[str]:
    """The cells of the first Markdown row that starts with `name`."""
    line = next(line for line in text.splitlines() if line.startswith((f"| {name}", f"| **{name}")))
    return [cell.strip().strip("*") for cell in line.strip("|").split("|")]


def test_comparison_table_says_mean_and_spread_of_the_cells(rendered):
    text = (rendered / "report" / "tables" / "emoji-fixed-comparison.md").read_text()
    values = [made_up("hws", seed, "mAP@all") for seed in (0, 1, 2)]
    expected = f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
    row = row_of(text, paper.label("hws"))
    assert expected in row and "3/3" in row[-1]
    standard = [made_up("hws", seed, "mAP@all", "standard") for seed in (0, 1, 2)]
    assert f"{statistics.fmean(standard):.3f} ± {statistics.stdev(standard):.3f}" in row
    assert "chance" in text.lower() and "ceiling" in text.lower()


def test_csv_holds_full_numbers(rendered):
    with open(rendered / "report" / "tables" / "emoji-fixed-comparison.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    row = next(r for r in rows if paper.label("tcn") in r.values() and "Real" in r["section"])
    column = next(c for c in row if "mAP@all" in c and "released" in c and "(" not in c)
    assert float(row[column]) == pytest.approx(statistics.fmean(made_up("tcn", s, "mAP@all") for s in (0, 1, 2)), abs=1e-12)


def test_latex_has_balanced_rows_and_escapes(rendered):
    for path in (rendered / "report" / "tables").glob("*.tex"):
        text = path.read_text()
        assert text.count("\\begin{") == text.count("\\end{") and "\\toprule" in text
    assert tables.latex("a_b & 50% #1 {x} ~ ^ \\") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}")


def test_laptop_report_holds_no_published_number(rendered):
    page = (rendered / "report" / "index.html").read_text()
    assert "published (" not in page
    assert not list((rendered / "report" / "tables").glob("paper-*"))
    everything = "".join(p.read_text() for p in (rendered / "report" / "tables").glob("*.md"))
    assert "TPAMI" not in everything and "SAKE" not in everything


def test_published_numbers_stand_beside_measured_ones_on_the_papers_data_sets(tmp_path, text_only):
    write_suite(tmp_path, ("tcn", "hws", "nws"), dataset="sketchy", split="1")
    render.render(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "tables" / "paper-comparison.md").read_text()
    facts = {(p.method, p.dimension, p.dataset, p.metric): p.value for p in paper.published() if p.table == "comparison"}
    # GN-Triplet's row of the paper's Table 2, read off published.csv by hand.
    assert facts["GN-Triplet", "1024", "sketchy", "mAP@all"] == 0.211 and "0.211" in row_of(text, "GN-Triplet")
    assert "measured" in text and "published" in text


def test_missing_seeds_and_variants_are_said(tmp_path):
    write_suite(tmp_path, ("tcn", "floor-svd"), seeds=(0, 1))
    head = json.loads((tmp_path / "suite.json").read_text())
    head["cells"].append({"dataset": "emoji", "split": "fixed", "variant": "tcn", "seed": 2, "folder": "gone", "identity": "x"})
    (tmp_path / "suite.json").write_text(json.dumps(head))
    text = tables.comparison(read_suite(tmp_path), EMOJI).to_markdown()
    assert row_of(text, paper.label("tcn"))[-1] == "2/3"
    assert "not measured" in row_of(text, paper.label("nws"))


def test_one_seed_says_so(tmp_path):
    write_suite(tmp_path)
    suite = read_suite(tmp_path)
    assert row_of(tables.comparison(suite, EMOJI).to_markdown(), paper.label("tcn"))[-1] == "1 seed"
    assert "one seed" in verdicts.sharing_order(suite, EMOJI).answer.lower()


def test_verdicts_follow_the_numbers(rendered, tmp_path):
    suite = read_suite(rendered)
    assert verdicts.beats_floor(suite, EMOJI).state == "yes"
    # Made up: TCN .30 > NWS .28 > HWS .26, while the paper says TCN > HWS > NWS.
    assert verdicts.sharing_order(suite, EMOJI).state == "no"
    folders = write_suite(tmp_path, ("tcn", "hws", "nws", "floor-svd-permodality"))
    path = folders["floor-svd-permodality", 0] / "metrics.csv"
    with open(path, newline="") as source:
        rows = list(csv.DictReader(source))
    for row in rows:
        if row["classes"] == "validation" and row["metric"] == "mAP@all":
            row["value"] = "0.9"
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert verdicts.beats_floor(read_suite(tmp_path), EMOJI).state == "no"


def test_publisher_table_has_a_view_without_emojiones_pictures(rendered):
    suite = read_suite(rendered)
    views = tables.publisher_views(suite, EMOJI)
    assert {s for s, _ in views} == {"all", *SOURCES} and any("without" in g for _, g in views)


@pytest.mark.parametrize("name, panels, labels", [
    ("motivation", 4, {"Iteration", "Epoch"}), ("singular_values", 3, {"Singular value"}), ("publishers", 1, {"mAP@all"})])
def test_figures_have_their_panels_axes_and_legends(rendered, name, panels, labels):
    suite = read_suite(rendered)
    data = getattr(figure_data, name)(suite, EMOJI)
    figure = getattr(figures, data.kind)(data.frame)
    axes = [a for a in figure.axes if a.get_visible() and a.axison]
    assert len(axes) == panels
    texts = " ".join(a.get_xlabel() + " " + a.get_ylabel() for a in axes)
    assert all(label in texts for label in labels)
    assert any(a.get_legend() for a in axes) or figure.legends
    plt.close(figure)


def test_singular_value_curves_start_at_one(rendered):
    data = figure_data.singular_values(read_suite(rendered), EMOJI)
    figure = figures.singular_values(data.frame)
    curves = [line.get_ydata() for panel in figure.axes for line in panel.lines if len(line.get_ydata()) >= 8]
    plt.close(figure)
    # Three panels of training and unseen, photo and sketch, each divided by its own maximum.
    assert len(curves) == 12 and all(curve[0] == 1 and (np.diff(curve) <= 0).all() for curve in curves)


def test_tsne_colours_eight_classes_and_marks_both_modalities(rendered, tmp_path):
    frame = figure_data.tsne(read_suite(rendered), EMOJI, tmp_path).frame
    shown = frame[frame["shown"]]
    assert shown["class"].nunique() == 8 and set(shown["modality"]) == {"sketch", "photo"}
    assert frame[["x", "y"]].notna().all().all()
    assert len({tuple(sorted(group["class"].unique())) for _, group in shown.groupby("variant")}) == 1


def test_retrieval_page_shows_a_failure_and_true_marks(rendered):
    suite = read_suite(rendered)
    frame = figure_data.retrieval(suite, EMOJI).frame
    assert "failure" in set(frame["kind"]) and frame["rank"].max() == 13
    cell = suite.cells_of(EMOJI, "tcn")[0]
    example = next(e for e in suite.examples(cell) if e["kind"] == "failure")
    drawn = frame[(frame["variant"] == "tcn") & (frame["query_file"] == str(example["query"]["file"]))].sort_values("rank")
    assert drawn["correct"].tolist() == [hit["correct"] for hit in example["retrieved"][:13]]


def test_files_of_every_figure_and_table_are_there(rendered):
    report = rendered / "report"
    for name in ("overview", "motivation", "singular-values", "tsne", "retrieval", "publishers"):
        for ending in ("png", "pdf", "csv"):
            assert (report / "figures" / f"emoji-fixed-{name}.{ending}").stat().st_size > 100
        with Image.open(report / "figures" / f"emoji-fixed-{name}.png") as picture:
            assert round(picture.info["dpi"][0]) == 200
    assert str(rendered) not in (report / "figures" / "emoji-fixed-retrieval.csv").read_text()


def test_page_is_whole_and_fetches_nothing(rendered):
    page = (rendered / "report" / "index.html").read_text()
    assert page.count("<img") == page.count("data:image/png;base64,") >= 6
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page) and "<script" not in page
    for cell in read_suite(rendered).cells:
        assert f'id="{cell.anchor}"' in page and cell.provenance["identity"] in page
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    assert "Smoke run" not in page


def test_smoke_runs_missing_data_sets_and_failures_are_told(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "hws"), smoke=True, missing={"tuberlin": "no folder png_ready <here>"})
    (folders["hws", 0] / "status.json").write_text(json.dumps(
        {"state": "failed", "reason": "loss is not finite", "epochs_done": 1, "epochs": 6, "best_epoch": None}))
    page = render.render(tmp_path, tmp_path / "report").read_text()
    assert "Smoke run" in page and "no folder png_ready &lt;here&gt;" in page and "loss is not finite" in page


def test_names_from_results_are_escaped(tmp_path):
    names = ["<script>alert(1)</script>", "a&b", *(f"thing {i}" for i in range(8))]
    folder = write_cell(tmp_path, "tcn", 0, class_names=names)
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**provenance, "device": "<b>evil</b> & co"}))
    page = render.render(tmp_path, tmp_path / "report").read_text()
    assert "<script>" not in page and "<b>evil" not in page and "&lt;b&gt;evil" in page


def test_broken_folders_are_named_and_the_rest_renders(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "hws", "nws"))
    (folders["nws", 0] / "metrics.csv").write_text("no,table\n")
    (folders["hws", 0] / "config.json").write_text("{")
    page = render.render(tmp_path, tmp_path / "report").read_text()
    assert folders["nws", 0].name in page and folders["hws", 0].name in page
    suite = read_suite(tmp_path)
    assert suite.measure(EMOJI, "tcn", Score("mAP@all")).n == 1 and suite.measure(EMOJI, "nws", Score("mAP@all")).n == 0


def test_no_results_is_one_message_and_status_2(tmp_path, capsys):
    with pytest.raises(NoResults):
        render.render(tmp_path / "none", tmp_path / "out")
    assert render.main(["--results", str(tmp_path / "none")]) == 2
    assert "run_all.py" in capsys.readouterr().err


def test_default_is_the_suite_written_last(tmp_path):
    for name in ("laptop", "paper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "suite.json").write_text("{}")
    os.utime(tmp_path / "paper" / "suite.json", (1, 1))
    assert render.latest(tmp_path) == tmp_path / "laptop"


def test_prec_at_100_stands_beside_its_ceiling(rendered):
    text = (rendered / "report" / "tables" / "emoji-fixed-cutoffs.md").read_text()
    assert f"{CEILINGS['Prec@100']:.4f}" in text and "Prec@100" in text


def test_seeds_of_one_setting_are_one_row_and_other_settings_are_left_out(tmp_path):
    write_suite(tmp_path, ("tcn",), seeds=(0, 1, 2))
    stray = write_cell(tmp_path, "tcn", 3, training__encoder_rate=1e-5)
    suite = read_suite(tmp_path)
    measured = suite.measure(EMOJI, "tcn", Score("mAP@all"))
    assert sorted(measured.values) == [0, 1, 2] and measured.seeds == "3/3"
    assert [name for name, _ in suite.left_out] == [stray.name] and "other settings" in suite.left_out[0][1]


def test_a_value_outside_its_range_or_a_doubled_row_breaks_the_cell(tmp_path):
    folders = write_suite(tmp_path, ("tcn", "hws", "nws"))
    for variant, change in (("tcn", lambda lines: [lines[0], lines[1].replace(",0.3,", ",1.3,"), *lines[2:]]),
                            ("hws", lambda lines: [*lines, lines[1]])):
        path = folders[variant, 0] / "metrics.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(change(lines)) + "\n")
    reasons = dict(read_suite(tmp_path).left_out)
    assert "line 2" in reasons[folders["tcn", 0].name] and "1.3" in reasons[folders["tcn", 0].name]
    assert "twice" in reasons[folders["hws", 0].name]


def test_broken_optional_files_cost_the_figure_and_not_the_table(tmp_path):
    folders = write_suite(tmp_path, ("tcn", "nws"))
    (folders["nws", 0] / "features.npz").write_bytes(b"PK not a zip")
    examples = json.loads((folders["nws", 0] / "examples.json").read_text())
    examples["examples"][0]["query"]["file"] = "../../../suite.json"
    (folders["nws", 0] / "examples.json").write_text(json.dumps(examples))
    suite = read_suite(tmp_path)
    assert set(figure_data.tsne(suite, EMOJI, tmp_path / "cache").frame["variant"]) == {"tcn"}
    assert set(figure_data.retrieval(suite, EMOJI).frame["variant"]) == {"tcn"}
    assert suite.measure(EMOJI, "nws", Score("mAP@all")).n == 1
    named = dict(suite.left_out)
    assert f"{folders['nws', 0].name}/features.npz" in named
    assert "not under examples" in named[f"{folders['nws', 0].name}/examples.json"]


def test_ablation_differences_are_over_common_seeds(tmp_path):
    write_suite(tmp_path, ("tcn", "hws"), seeds=(0, 1, 2))
    write_suite(tmp_path, ("tcn-no-teacher",), seeds=(1,))
    text = tables.ablation(read_suite(tmp_path), EMOJI).to_markdown()
    # By hand: HWS .26 + .011 s, TCN .30 + .011 s; without teacher .20 + .011 against .30 + .011, at seed 1 alone.
    assert "−0.040 ± 0.000" in row_of(text, paper.label("hws"))
    assert "−0.100 (1 seed)" in row_of(text, paper.label("tcn-no-teacher"))
    assert row_of(text, paper.label("tcn-shared-bn"))[2] == "not measured"


def test_weight_grid_names_the_validation_choice_and_the_papers_weight(tmp_path):
    write_suite(tmp_path, ("tcn", "tcn-weight-1", "tcn-weight-10", "tcn-weight-100"))
    suite = read_suite(tmp_path)
    text = tables.sharing_weights(suite, EMOJI).to_markdown()
    assert "highest on validation" in row_of(text, "10 ")[-1] and "used by TCN" in row_of(text, "10 ")[-1]
    assert row_of(text, "1000 ")[3] == "not measured" and "the paper's" in row_of(text, "1000 ")[-1]
    figure = figures.sharing_weight(figure_data.sharing_weight(suite, EMOJI).frame)
    panel, = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "10", "100"]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["validation classes", "unseen classes"]
    validation = panel.lines[0].get_ydata()
    assert validation == pytest.approx([made_up(f"tcn-weight-{w}", 0, "mAP@all", classes="validation") for w in (1, 10, 100)])


def test_ablation_of_a_paper_data_set_has_its_13_rows_and_numbers(tmp_path):
    write_suite(tmp_path, ("tcn", "nws"), dataset="tuberlin", split="1")
    table = tables.ablation(read_suite(tmp_path), Task("tuberlin", "1"))
    columns = [column.full for column in table.columns]
    at = next(i for i, name in enumerate(columns) if "mAP@all" in name and "published" in name)
    shown = [row.entries[at].text for row in table.rows if row.kind == "data" and row.entries[at].text != "–"]
    # TU-Berlin's mAP column of the paper's ablation table, typed from the list of published facts.
    assert shown == ["0.318", "0.337", "0.335", "0.333", "0.470", "0.465", "0.466", "0.470", "0.470", "0.469", "0.470",
                     "0.457", "0.470"]


def test_contradicting_published_numbers_are_shown_as_such(tmp_path):
    rows = {(p.method, p.metric, p.value) for p, _ in paper.contradictions()}
    assert {("Doodle2Search", "mAP@200", 0.46), ("BDA-SketRet", "mAP@200", 0.556), ("TCN", "Prec@200", 0.298)} <= rows
    write_suite(tmp_path, ("tcn",), dataset="sketchy", split="2")
    table = tables.paper_comparison(read_suite(tmp_path))
    marked = {(row.entries[0].text, e.text) for row in table.rows for e in row.entries if "†" in e.text}
    assert {("Doodle2Search", "0.460†"), ("BDA-SketRet", "0.556†"), ("TCN", "0.231†")} <= marked
    # a published number never stands in a row that says measured
    numbers = {f"{p.value:.3f}" for p in paper.published() if p.method == "TCN"}
    measured = [e.text for row in table.rows if row.kind == "data" and "measured" in row.entries[3].text for e in row.entries]
    assert measured and not numbers & set(measured)


def test_every_tsne_panel_has_the_same_colours_and_is_cached(rendered, tmp_path, monkeypatch):
    suite = read_suite(rendered)
    first = figure_data.tsne(suite, EMOJI, tmp_path)
    assert len(list(tmp_path.glob("tsne-*.npy"))) == 3
    import openTSNE
    monkeypatch.setattr(openTSNE, "TSNE", None)  # a second call must not need it
    again = figure_data.tsne(suite, EMOJI, tmp_path)
    assert again.frame.equals(first.frame)
    figure = figures.tsne(first.frame)
    assert [a.get_title(loc="left") for a in figure.axes] == ["NWS", "HWS", "TCN"]
    colours = [[tuple(c.get_facecolor()[0]) for c in a.collections if len(c.get_offsets())] for a in figure.axes]
    assert colours[0] == colours[1] == colours[2]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-2:] == ["photo", "sketch"] and len(labels) == 10


def test_retrieval_page_marks_right_and_wrong_by_glyph_and_line(rendered):
    frame = figure_data.retrieval(read_suite(rendered), EMOJI).frame
    panel, = figures.retrieval(frame).axes
    glyphs = [text.get_text() for text in panel.texts]
    assert glyphs.count("✓") == frame["correct"].sum() and glyphs.count("✗") == (~frame["correct"]).sum()
    lines = {patch.get_edgecolor(): patch.get_linestyle() for patch in panel.patches}
    from matplotlib.colors import to_rgba
    assert lines[to_rgba(figures.RIGHT)] != lines[to_rgba(figures.WRONG)]
    assert sum("Failure" in text for text in glyphs) >= 1


def test_publisher_bars_are_the_means_of_the_cells(rendered):
    frame = figure_data.publishers(read_suite(rendered), EMOJI).frame
    panel, = figures.publishers(frame).axes
    heights = sorted(bar.get_height() for bar in panel.patches)
    views = [("all", "all"), *((s, "all") for s in SOURCES), (SOURCES[1], "without emojione-v1")]
    expected = [statistics.fmean(made_up(v, s, "mAP@all", source=source, gallery=gallery) for s in (0, 1, 2))
                for v in ("tcn", "hws", "nws", "floor-imagenet-permodality") for source, gallery in views]
    assert heights == pytest.approx(sorted(expected))


def test_text_is_escaped_in_every_format():
    table = tables.Table("odd", "a|b & <c>", (tables.Column("x_y"),), (tables.Row((tables.Entry("50% <i>|$"),)),))
    assert "a\\|b & \\<c\\>" in table.to_markdown() and "50% \\<i\\>\\|$" in table.to_markdown()
    assert r"50\% \textless{}i\textgreater{}\textbar{}\$" in table.to_latex() and r"x\_y" in table.to_latex()
    assert "50% &lt;i&gt;|$" in table.to_html() and "<i>" not in table.to_html()


def test_a_dollar_in_a_class_name_is_no_formula(rendered, tmp_path):
    frame = figure_data.tsne(read_suite(rendered), EMOJI, tmp_path).frame
    frame["class"] = frame["class"] + " $x_"
    with figures.style():
        figures.tsne(frame).savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_an_earlier_calls_files_go_and_foreign_ones_stay(tmp_path, text_only):
    out = tmp_path / "report"
    write_suite(tmp_path / "a", ("floor-svd",))
    write_suite(tmp_path / "b", ("floor-svd",), dataset="tuberlin", split="1")
    render.render(tmp_path / "a", out)
    (out / "tables" / "mine.md").write_text("kept")
    assert (out / "tables" / "emoji-fixed-comparison.md").exists()
    render.render(tmp_path / "b", out)
    assert not list(out.glob("*/emoji-*")) and (out / "tables" / "mine.md").exists()
    assert (out / "tables" / "tuberlin-1-comparison.md").exists()


def test_the_command_needs_neither_torch_nor_mlflow_nor_the_method(tmp_path):
    write_suite(tmp_path, ("floor-svd",))
    program = ("import runpy, sys; sys.argv = ['render.py', '--results', sys.argv[1]]\n"
               "try:\n    runpy.run_path('reports/render.py', run_name='__main__')\n"
               "except SystemExit as end:\n    assert end.code == 0, end.code\n"
               "print(sorted({'torch', 'mlflow', 'tcn', 'timm', 'benchmarks'} & {m.split('.')[0] for m in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
                          cwd=Path(render.__file__).parent.parent, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert str(tmp_path / "report" / "index.html") in done.stdout
