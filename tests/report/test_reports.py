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
from support.pages import table_html
from support.result_folders import (
    CEILINGS,
    DEVIATIONS,
    EMOJI_VARIANTS,
    INSTANCE_METRICS,
    LEDGER_VARIANTS,
    PROTOCOLS,
    SOURCES,
    deviation_value,
    made_up,
    made_up_accuracy,
    write_reproduction,
    write_run,
    write_suite,
)

from reports import naming, paper, published
from reports.figures import draw, frames
from reports.read.measured import Measured, paired
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import NoResults, Suite, read_suite
from reports.render import command, provenance
from reports.stats import verdicts
from reports.tables import ablations, comparison, instances, ledger, protocols, runs
from reports.tables.latex import latex
from reports.tables.table import Column, Entry, Row, Table

pytestmark = pytest.mark.usefixtures("whole_fonts")

EMOJI = Task("emoji", "fixed")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Three seeds of every variant and of the ledger's, one run that was run again, rendered."""
    root = tmp_path_factory.mktemp("suite")
    folders = write_suite(root, (*EMOJI_VARIANTS, *LEDGER_VARIANTS[1:]), seeds=(0, 1, 2), ledger=True)
    write_reproduction(root, folders["tcn", 1], "differs", largest_difference=0.25, where="unseen/real/zse/mAP@200",
                       differences=["not equal: metrics.csv"])
    command.render(root, root / "report")
    return root


@pytest.fixture
def text_only(monkeypatch):
    """Leave the figures out, for tests of what tables and page say."""
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])


@pytest.fixture(scope="module")
def suite(rendered) -> Suite:
    """What the report was made of; no test changes it."""
    return read_suite(rendered)


def row_of(text: str, name: str) -> list[str]:
    """The runs of the first Markdown row that starts with `name`."""
    line = next(line for line in text.splitlines() if line.startswith((f"| {name}", f"| **{name}")))
    return [run.strip().strip("*") for run in line.strip("|").split("|")]


def test_comparison_table_says_mean_and_spread_of_the_runs(rendered):
    text = (rendered / "report" / "tables" / "emoji-fixed-comparison.md").read_text()
    values = [made_up("hws", seed, "mAP@all") for seed in (0, 1, 2)]
    expected = f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
    row = row_of(text, naming.label("hws"))
    assert expected in row and "3/3" in row[-1]
    standard = [made_up("hws", seed, "mAP@all", "standard") for seed in (0, 1, 2)]
    assert f"{statistics.fmean(standard):.3f} ± {statistics.stdev(standard):.3f}" in row
    assert "chance" in text.lower() and "ceiling" in text.lower()


def test_csv_holds_full_numbers(rendered):
    with open(rendered / "report" / "tables" / "emoji-fixed-comparison.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    row = next(r for r in rows if naming.label("tcn") in r.values() and "Real" in r["section"])
    column = next(c for c in row if "mAP@all" in c and "released" in c and "(" not in c)
    assert float(row[column]) == pytest.approx(statistics.fmean(made_up("tcn", s, "mAP@all") for s in (0, 1, 2)), abs=1e-12)


def test_latex_has_balanced_rows_and_escapes(rendered):
    for path in (rendered / "report" / "tables").glob("*.tex"):
        text = path.read_text()
        assert text.count("\\begin{") == text.count("\\end{") and "\\toprule" in text
    assert latex("a_b & 50% #1 {x} ~ ^ \\") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}")


def test_laptop_report_holds_no_published_number(rendered):
    page = (rendered / "report" / "index.html").read_text()
    assert "published (" not in page
    assert not list((rendered / "report" / "tables").glob("paper-*"))
    # the tables of rules and of other methods name whose code or idea it is, and no number of theirs
    everything = "".join(p.read_text() for p in (rendered / "report" / "tables").glob("*.md")
                         if not p.stem.endswith(("protocols", "methods", "not-measured")))
    assert "TPAMI" not in everything and "SAKE" not in everything


def test_published_numbers_stand_beside_measured_ones_on_the_papers_data_sets(tmp_path, text_only):
    write_suite(tmp_path, ("tcn", "hws", "nws"), dataset="sketchy", split="1")
    command.render(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "tables" / "paper-comparison.md").read_text()
    facts = {(p.method, p.dimension, p.dataset, p.metric): p.value for p in published.facts() if p.table == "comparison"}
    assert row_of(text, "frozen DINOv2 S/14")[-4:] == ["0.533", "0.170", "–", "0.268"]
    # GN-Triplet's row of the paper's Table 2, read off published.csv by hand.
    assert facts["GN-Triplet", "1024", "sketchy", "mAP@all"] == 0.211 and "0.211" in row_of(text, "GN-Triplet")
    assert "measured" in text and "published" in text


def test_features_brought_along_are_marked_in_every_table_and_decide_no_verdict(tmp_path):
    write_suite(tmp_path, ("tcn", "hws", "nws", "brought-dino"), dataset="sketchy", split="1")
    write_suite(tmp_path, ("tcn", "untrained-svd", "brought-dino"))
    suite = read_suite(tmp_path)
    sketchy = Task("sketchy", "1")
    for table in (comparison.comparison(suite, sketchy), comparison.cutoffs(suite, sketchy), comparison.paper_comparison(suite),
                  protocols.duplicates(suite, sketchy), protocols.table(suite, sketchy), runs.provenance(suite)):
        text = "\n".join(row.entries[0].text for row in table.rows)
        assert "dino (brought along)" in text and "brought-dino" not in text
    paper_rows = [row for row in comparison.paper_comparison(suite).rows if row.entries[0].text == "dino (brought along)"]
    assert {(row.entries[2].text, row.entries[3].text) for row in paper_rows} == {
        (kind, f"measured, {rule}") for kind in ("real", "binary") for rule in ("released", "standard")}
    value = made_up("brought-dino", 0, "mAP@all")
    assert any(entry.text == f"{value:.3f} (1 seed)" for entry in paper_rows[0].entries)
    assert paper.group_of(suite, "brought-dino") == "brought" and "brought-dino" not in paper.other_variants(suite, sketchy)
    # whether training beats the untrained baselines is not asked of features that nobody trained here
    verdict = verdicts.beats_untrained(suite, EMOJI)
    assert "dino" not in verdict.answer + "".join(verdict.details)


def test_the_page_says_of_features_brought_along_that_they_cannot_be_run_again(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "brought-dino"))
    path = folders["brought-dino", 0] / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "brought": {"file": "dino.npz", "sha256": "ab" * 32}}))
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert f"--reproduce {folders['tcn', 0].name}" in page and f"--reproduce {folders['brought-dino', 0].name}" not in page
    assert "brought along.file = dino.npz" in page and page.count("network.backbone = ") == 1


def test_missing_seeds_and_variants_are_said(tmp_path):
    write_suite(tmp_path, ("tcn", "untrained-svd"), seeds=(0, 1))
    head = json.loads((tmp_path / "suite.json").read_text())
    head["runs"].append({"dataset": "emoji", "split": "fixed", "variant": "tcn", "seed": 2, "folder": "gone", "identity": "x"})
    (tmp_path / "suite.json").write_text(json.dumps(head))
    text = comparison.comparison(read_suite(tmp_path), EMOJI).to_markdown()
    assert row_of(text, naming.label("tcn"))[-1] == "2/3"
    assert "not measured" in row_of(text, naming.label("nws"))


def test_one_seed_says_so(tmp_path):
    write_suite(tmp_path)
    suite = read_suite(tmp_path)
    assert row_of(comparison.comparison(suite, EMOJI).to_markdown(), naming.label("tcn"))[-1] == "1 seed"
    assert "one seed" in verdicts.sharing_order(suite, EMOJI).answer.lower()


def test_verdicts_follow_the_numbers(suite, tmp_path):
    assert verdicts.beats_untrained(suite, EMOJI).state == "yes"
    # Made up: TCN .30 > NWS .28 > HWS .26, while the paper says TCN > HWS > NWS.
    assert verdicts.sharing_order(suite, EMOJI).state == "no"
    folders = write_suite(tmp_path, ("tcn", "hws", "nws", "untrained-svd-permodality"))
    path = folders["untrained-svd-permodality", 0] / "metrics.csv"
    with open(path, newline="") as source:
        rows = list(csv.DictReader(source))
    for row in rows:
        if row["classes"] == "validation" and row["metric"] == "mAP@all":
            row["value"] = "0.9"
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert verdicts.beats_untrained(read_suite(tmp_path), EMOJI).state == "no"


def test_training_beats_a_baseline_only_by_more_than_its_seeds_spread(tmp_path):
    """Seeds at 0.30, 0.40 and 0.50: Student's interval is ± 0.248 (4.303 x 0.1 / sqrt 3),
    so 0.13 below their mean is not enough."""
    for baseline, state, words in ((0.27, "no", "above, but by less than its interval"),
                                   (0.10, "yes", "+0.300 ± 0.248, 95 % over seeds")):
        root = tmp_path / state
        folders = write_suite(root, ("tcn", "untrained-svd"), seeds=(0, 1, 2))
        for seed, value in enumerate((0.30, 0.40, 0.50)):
            for variant, its in (("tcn", value), ("untrained-svd", baseline)):
                path = folders[variant, seed] / "metrics.csv"
                rows = list(csv.DictReader(path.read_text().splitlines()))
                for row in rows:
                    if row["classes"] == "validation" and row["metric"] == "mAP@all":
                        row["value"] = str(its)
                with open(path, "w", newline="") as out:
                    writer = csv.DictWriter(out, rows[0])
                    writer.writeheader()
                    writer.writerows(rows)
        verdict = verdicts.beats_untrained(read_suite(root), EMOJI)
        assert verdict.state == state and any(words in detail for detail in verdict.details), verdict


def test_publisher_table_has_a_view_without_emojiones_pictures(suite):
    views = comparison.publisher_views(suite, EMOJI)
    assert {s for s, _ in views} == {"all", *SOURCES} and any("without" in g for _, g in views)


@pytest.mark.parametrize("name, panels, labels", [
    ("motivation", 4, {"Iteration", "Epoch"}), ("singular_values", 3, {"Singular value"}), ("publishers", 1, {"mAP@all"})])
def test_figures_have_their_panels_axes_and_legends(suite, name, panels, labels):
    data = getattr(frames, name)(suite, EMOJI)
    figure = getattr(draw, data.kind)(data.frame)
    axes = [a for a in figure.axes if a.get_visible() and a.axison]
    assert len(axes) == panels
    texts = " ".join(a.get_xlabel() + " " + a.get_ylabel() for a in axes)
    assert all(label in texts for label in labels)
    assert any(a.get_legend() for a in axes) or figure.legends
    plt.close(figure)


def test_singular_value_curves_start_at_one(suite):
    data = frames.singular_values(suite, EMOJI)
    figure = draw.singular_values(data.frame)
    curves = [line.get_ydata() for panel in figure.axes for line in panel.lines if len(line.get_ydata()) >= 8]
    plt.close(figure)
    # Three panels of training and unseen, photo and sketch, each divided by its own maximum.
    assert len(curves) == 12 and all(curve[0] == 1 and (np.diff(curve) <= 0).all() for curve in curves)


def test_tsne_colours_eight_classes_and_marks_both_modalities(suite, rendered):
    frame = frames.tsne(suite, EMOJI, rendered / "report" / "cache").frame
    shown = frame[frame["shown"]]
    assert shown["class"].nunique() == 8 and set(shown["modality"]) == {"sketch", "photo"}
    assert frame[["x", "y"]].notna().all().all()
    assert len({tuple(sorted(group["class"].unique())) for _, group in shown.groupby("variant")}) == 1


def test_retrieval_page_shows_a_failure_and_true_marks(suite):
    frame = frames.retrieval(suite, EMOJI).frame
    assert "failure" in set(frame["kind"]) and frame["rank"].max() == 13
    run = suite.runs_of(EMOJI, "tcn")[0]
    example = next(e for e in suite.examples(run) if e["kind"] == "failure")
    drawn = frame[(frame["variant"] == "tcn") & (frame["query_file"] == example["query"]["file"])].sort_values("rank")
    assert drawn["correct"].tolist() == [hit["correct"] for hit in example["retrieved"][:13]]


def test_files_of_every_figure_and_table_are_there(rendered):
    report = rendered / "report"
    for name in ("overview", "ledger", "motivation", "singular-values", "tsne", "retrieval", "publishers"):
        for ending in ("png", "pdf", "csv"):
            assert (report / "figures" / f"emoji-fixed-{name}.{ending}").stat().st_size > 100
        with Image.open(report / "figures" / f"emoji-fixed-{name}.png") as picture:
            assert round(picture.info["dpi"][0]) == 200
    assert str(rendered) not in (report / "figures" / "emoji-fixed-retrieval.csv").read_text()


def test_page_is_whole_and_fetches_nothing(rendered, suite):
    page = (rendered / "report" / "index.html").read_text()
    assert page.count("<img") == page.count("data:image/png;base64,") >= 6
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count("<script") == 1 + page.count('<script type="application/json"')
    for run in suite.runs:
        assert f'id="{run.anchor}"' in page and run.provenance.identity in page
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    assert "Smoke run" not in page


def test_smoke_runs_missing_data_sets_and_failures_are_told(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "hws"), smoke=True, missing={"tuberlin": "no folder png_ready <here>"})
    (folders["hws", 0] / "status.json").write_text(json.dumps(
        {"state": "failed", "reason": "loss is not finite", "epochs_done": 1, "epochs": 6, "best_epoch": None}))
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert "Smoke run" in page and "no folder png_ready &lt;here&gt;" in page and "loss is not finite" in page


def test_names_from_results_are_escaped(tmp_path, text_only):
    names = ["<script>alert(1)</script>", "a&b", *(f"thing {i}" for i in range(8))]
    folder = write_run(tmp_path, "tcn", 0, class_names=names)
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**provenance, "device": "<b>evil</b> & co"}))
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert "<script>alert" not in page and "<b>evil" not in page and "&lt;b&gt;evil" in page


def test_broken_folders_are_named_and_the_rest_renders(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "hws", "nws"))
    (folders["nws", 0] / "metrics.csv").write_text("no,table\n")
    (folders["hws", 0] / "config.json").write_text("{")
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert folders["nws", 0].name in page and folders["hws", 0].name in page
    suite = read_suite(tmp_path)
    assert suite.measure(EMOJI, "tcn", Score("mAP@all")).n == 1 and suite.measure(EMOJI, "nws", Score("mAP@all")).n == 0


def test_no_results_is_one_message_and_status_2(tmp_path, capsys):
    with pytest.raises(NoResults):
        command.render(tmp_path / "none", tmp_path / "out")
    assert command.main(["--results", str(tmp_path / "none")]) == 2
    assert "run_all.py" in capsys.readouterr().err


def test_default_is_the_suite_written_last(tmp_path):
    for name in ("laptop", "paper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "suite.json").write_text("{}")
    os.utime(tmp_path / "paper" / "suite.json", (1, 1))
    assert command.latest(tmp_path) == tmp_path / "laptop"


def test_prec_at_100_stands_beside_its_ceiling(rendered):
    text = (rendered / "report" / "tables" / "emoji-fixed-cutoffs.md").read_text()
    assert f"{CEILINGS['Prec@100']:.4f}" in text and "Prec@100" in text


def test_seeds_of_one_setting_are_one_row_and_other_settings_are_left_out(tmp_path):
    write_suite(tmp_path, ("tcn",), seeds=(0, 1, 2))
    stray = write_run(tmp_path, "tcn", 3, training__encoder_rate=1e-5)
    suite = read_suite(tmp_path)
    measured = suite.measure(EMOJI, "tcn", Score("mAP@all"))
    assert sorted(measured.values) == [0, 1, 2] and measured.seeds == "3/3"
    assert [name for name, _ in suite.left_out] == [stray.name] and "other settings" in suite.left_out[0][1]


def test_a_value_outside_its_range_or_a_doubled_row_breaks_the_run(tmp_path):
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
    assert set(frames.tsne(suite, EMOJI, tmp_path / "cache").frame["variant"]) == {"tcn"}
    assert set(frames.retrieval(suite, EMOJI).frame["variant"]) == {"tcn"}
    assert suite.measure(EMOJI, "nws", Score("mAP@all")).n == 1
    named = dict(suite.left_out)
    assert f"{folders['nws', 0].name}/features.npz" in named
    assert "not under examples" in named[f"{folders['nws', 0].name}/examples.json"]


def test_ablation_differences_are_over_common_seeds(tmp_path):
    write_suite(tmp_path, ("tcn", "hws"), seeds=(0, 1, 2))
    write_suite(tmp_path, ("tcn-no-teacher",), seeds=(1,))
    text = ablations.ablation(read_suite(tmp_path), EMOJI).to_markdown()
    # By hand: HWS .26 + .011 s, TCN .30 + .011 s; without teacher .20 + .011 against .30 + .011, at seed 1 alone.
    assert "−0.040 ± 0.000" in row_of(text, "hard 1:1 (HWS)")
    assert "−0.100 (1 seed)" in row_of(text[text.index("**Teacher**"):], "without")
    assert row_of(text, "BHT+SR 1:1")[2] == "not measured"


def test_weight_grid_names_the_validation_choice_and_the_papers_weight(tmp_path):
    write_suite(tmp_path, ("tcn", "tcn-weight-1", "tcn-weight-10", "tcn-weight-100"))
    suite = read_suite(tmp_path)
    text = ablations.sharing_weights(suite, EMOJI).to_markdown()
    assert "highest on validation" in row_of(text, "10 ")[-1] and "used by TCN" in row_of(text, "10 ")[-1]
    assert row_of(text, "1000 ")[3] == "not measured" and "the paper's" in row_of(text, "1000 ")[-1]
    figure = draw.sharing_weight(frames.sharing_weight(suite, EMOJI).frame)
    panel, = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "10", "100"]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["validation classes", "unseen classes"]
    validation = panel.lines[0].get_ydata()
    assert validation == pytest.approx([made_up(f"tcn-weight-{w}", 0, "mAP@all", classes="validation") for w in (1, 10, 100)])


def test_ablation_of_a_paper_data_set_has_its_13_rows_and_numbers(tmp_path):
    write_suite(tmp_path, ("tcn", "nws"), dataset="tuberlin", split="1")
    table = ablations.ablation(read_suite(tmp_path), Task("tuberlin", "1"))
    columns = [column.full for column in table.columns]
    at = next(i for i, name in enumerate(columns) if "mAP@all" in name and "published" in name)
    shown = [row.entries[at].text for row in table.rows if row.kind == "data" and row.entries[at].text != "–"]
    # TU-Berlin's mAP column of the paper's ablation table, typed from the list of published facts.
    assert shown == ["0.318", "0.337", "0.335", "0.333", "0.470", "0.465", "0.466", "0.470", "0.470", "0.469", "0.470",
                     "0.457", "0.470"]


def test_contradicting_published_numbers_are_shown_as_such(tmp_path):
    text = comparison.contradictions().to_markdown()
    for method, value in (("Doodle2Search", "0.460"), ("BDA-SketRet", "0.556")):
        row = row_of(text, method)
        assert value in row and "map-above-prec" in row
    write_suite(tmp_path, ("tcn",), dataset="sketchy", split="2")
    table = comparison.paper_comparison(read_suite(tmp_path))
    marked = {(row.entries[0].text, e.text) for row in table.rows for e in row.entries if "†" in e.text}
    assert {("Doodle2Search", "0.460†"), ("BDA-SketRet", "0.556†"), ("TCN", "0.231†"), ("frozen DINO S/8", "0.493†"),
            ("CLIP-AT re-implemented", "0.719†")} <= marked
    # what was measured on other classes than its column's is shown there and marked
    elsewhere = {(row.entries[0].text, e.text) for row in table.rows for e in row.entries if "‡" in e.text}
    assert elsewhere == {("MARL (MA-ZS-SBIR)", "0.705‡"), ("MARL (MA-ZS-SBIR)", "0.777‡"), ("CLIP-AT re-implemented", "0.643‡"),
                         ("CLIP-AT re-implemented", "0.708‡")}
    # a published number never stands in a row that says measured
    numbers = {f"{p.value:.3f}" for p in published.facts() if p.method == "TCN"}
    measured = [e.text for row in table.rows if row.kind == "data" and "measured" in row.entries[3].text for e in row.entries]
    assert measured and not numbers & set(measured)


def test_every_tsne_panel_has_the_same_colours_and_is_cached(suite, tmp_path, monkeypatch):
    first = frames.tsne(suite, EMOJI, tmp_path)
    assert len(list(tmp_path.glob("tsne-*.npy"))) == 3
    import openTSNE
    monkeypatch.setattr(openTSNE, "TSNE", None)  # a second call must not need it
    again = frames.tsne(suite, EMOJI, tmp_path)
    assert again.frame.equals(first.frame)
    figure = draw.tsne(first.frame)
    panels = [a for a in figure.axes if a.get_title(loc="left")]
    assert len(panels) == first.frame["variant"].nunique() > 1
    colours = [[tuple(c.get_facecolor()[0]) for c in a.collections if len(c.get_offsets())] for a in panels]
    assert all(colour == colours[0] for colour in colours)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-2:] == ["photo", "sketch"] and len(labels) == 10


def test_retrieval_page_marks_right_and_wrong_by_glyph_and_line(suite):
    frame = frames.retrieval(suite, EMOJI).frame
    panel, = draw.retrieval(frame).axes
    glyphs = [text.get_text() for text in panel.texts]
    assert glyphs.count("✓") == frame["correct"].sum() and glyphs.count("✗") == (~frame["correct"]).sum()
    lines = {patch.get_edgecolor(): patch.get_linestyle() for patch in panel.patches}
    from matplotlib.colors import to_rgba
    assert lines[to_rgba(draw.RIGHT)] != lines[to_rgba(draw.WRONG)]
    assert sum("Failure" in text for text in glyphs) >= 1


def test_publisher_bars_are_the_means_of_the_runs(suite):
    frame = frames.publishers(suite, EMOJI).frame
    panel, = draw.publishers(frame).axes
    heights = sorted(bar.get_height() for bar in panel.patches)
    views = [("all", "all"), *((s, "all") for s in SOURCES), (SOURCES[1], "without emojione-v1")]
    expected = [statistics.fmean(made_up(v, s, "mAP@all", source=source, gallery=gallery) for s in (0, 1, 2))
                for v in ("tcn", "hws", "nws", "untrained-imagenet-permodality") for source, gallery in views]
    assert heights == pytest.approx(sorted(expected))


def test_text_is_escaped_in_every_format():
    table = Table("odd", "a|b & <c>", (Column("x_y"),), (Row((Entry("50% <i>|$"),)),))
    assert "a\\|b & \\<c\\>" in table.to_markdown() and "50% \\<i\\>\\|$" in table.to_markdown()
    assert r"50\% \textless{}i\textgreater{}\textbar{}\$" in table.to_latex() and r"x\_y" in table.to_latex()
    assert "50% &lt;i&gt;|$" in table_html(table) and "<i>" not in table_html(table)


def test_a_dollar_in_a_class_name_is_no_formula(suite, tmp_path):
    frame = frames.tsne(suite, EMOJI, suite.root / "report" / "cache").frame
    frame["class"] = frame["class"] + " $x_"
    with draw.style():
        draw.tsne(frame).savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_an_earlier_calls_files_go_and_foreign_ones_stay(tmp_path, text_only):
    out = tmp_path / "report"
    write_suite(tmp_path / "a", ("untrained-svd",))
    write_suite(tmp_path / "b", ("untrained-svd",), dataset="tuberlin", split="1")
    command.render(tmp_path / "a", out)
    (out / "tables" / "mine.md").write_text("kept")
    assert (out / "tables" / "emoji-fixed-comparison.md").exists()
    command.render(tmp_path / "b", out)
    assert not list(out.glob("*/emoji-*")) and (out / "tables" / "mine.md").exists()
    assert (out / "tables" / "tuberlin-1-comparison.md").exists()


def test_the_command_loads_neither_torch_nor_mlflow_nor_the_method(tmp_path):
    write_suite(tmp_path, ("untrained-svd",))
    program = ("import runpy, sys; sys.argv = ['render.py', '--results', sys.argv[1]]\n"
               "try:\n    runpy.run_path('reports/render.py', run_name='__main__')\n"
               "except SystemExit as end:\n    assert end.code == 0, end.code\n"
               "print(sorted({'torch', 'mlflow', 'timm', 'baselines', 'benchmarks'} & {m.split('.')[0] for m in sys.modules}))\n"
               "print(sorted({'.'.join(m.split('.')[:2]) for m in sys.modules if m.startswith('tcn')}))")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
                          cwd=Path(command.__file__).parents[2], check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "['tcn', 'tcn.config', 'tcn.files']"]
    assert str(tmp_path / "report" / "index.html") in done.stdout


# --- the ledger, six rules, duplicates, provenance -----------------------------------------------------------------


def test_ledger_differences_are_paired_by_seed(rendered):
    text = (rendered / "report" / "tables" / "emoji-fixed-ledger.md").read_text()
    row = row_of(text, "The released code does augmentation")
    # Made up: TCN .30 + .011 s, with the deviation .279 + .011 s: the same difference in each seed.
    assert "−0.021 ± 0.000" in row and "0 of 3" in row and "paired runs, 3 seeds" in row
    assert "within the seeds' spread" not in row[-2] and "on TU-Berlin only" in row[-2]
    arms = [[deviation_value("itq-rule", arm, s, "mAP@all", "binary") for s in (0, 1, 2)] for arm in ("released", "corrected")]
    gaps = [a - b for a, b in zip(*arms)]
    row = row_of(text, "The released code does itq-rule")
    assert f"−{abs(statistics.fmean(gaps)):.3f} ± {statistics.stdev(gaps):.3f}" in row
    assert "same network, 3 seeds, binary codes" in row
    assert "not on this data set: every query class has photos" in row_of(text, "The released code does missing-classes")
    assert "not measured" in row_of(text, "The released code does loader")
    sections = re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)
    assert sections == ["Changes training", "Changes scoring only", "Changes how picture files are read", "Data",
                        "Mended, nothing to switch", "Not as released, even with --as-released", "All at once"]
    assert "hangs on the files" in row_of(text, "The released code does exif")[2]
    assert row_of(text, "The released code does truncation")[2] == "nothing to switch"
    # Made up: four starts at .003 times 1, 4, 9, 16, doubled and tripled in the further seeds.
    spread = statistics.stdev([0.003, 0.012, 0.027, 0.048])
    assert (f"ITQ from 4 starts on the same features: the start alone moves mAP@all of the binary codes by a standard deviation "
            f"of {spread:.4f} to {3 * spread:.4f} (3 runs)") in text
    assert "standard error is at most 0.0002" in text and "remark on photo-list" in text


def test_ledger_says_when_a_difference_drowns_in_the_seeds_spread(tmp_path):
    def reading(released: dict[int, float], same_network: bool) -> str:
        corrected = Measured({0: 0.30, 1: 0.34, 2: 0.38}, (0, 1, 2))  # sd .04
        other = Measured(released, (0, 1, 2))
        return ledger.Worth(corrected, other, paired(other, corrected)).reading(same_network)

    steady = {0: 0.31, 1: 0.35, 2: 0.391}  # about .01 above, sd of the differences .0006
    assert "within" in reading(steady, same_network=False) and "beyond" in reading(steady, same_network=True)
    assert "beyond" in reading({0: 0.40, 1: 0.44, 2: 0.48}, same_network=False)
    assert "one seed" in reading({1: 0.9}, same_network=True)
    assert reading({0: 0.30, 1: 0.34, 2: 0.38}, same_network=True) == "exactly none"


def test_results_without_a_ledger_or_six_rules_still_render(tmp_path, text_only):
    """Folders written before there was a ledger: no such columns, no such files."""
    folders = write_suite(tmp_path, ("tcn", "hws"))
    for folder in folders.values():
        for name in ("ledger.csv", "per_query.npz", "mlflow.json"):
            (folder / name).unlink(missing_ok=True)
        with open(folder / "metrics.csv", newline="") as source:
            rows = [row for row in csv.DictReader(source) if row["protocol"] in ("released", "standard")]
        kept = [name for name in rows[0] if name not in ("standard_error", "ties", "duplicates")]
        with open(folder / "metrics.csv", "w", newline="") as out:
            writer = csv.DictWriter(out, kept, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    suite = read_suite(tmp_path)
    assert suite.measure(EMOJI, "tcn", Score("mAP@all")).values == {0: made_up("tcn", 0, "mAP@all")}
    assert ledger.table(suite, EMOJI) is None and protocols.table(suite, EMOJI) is None and not suite.left_out
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert "per_query.csv" in page and not list((tmp_path / "report" / "tables").glob("*ledger*"))


def test_tie_orders_stand_beside_the_expected_value(suite):
    text = ledger.ties(suite, EMOJI).to_markdown()
    best = row_of(text, "best order")
    expected = [deviation_value("ties", "best", s, "mAP@all", "binary") for s in (0, 1, 2)]
    assert best[1] == f"{statistics.fmean(expected):.3f} ± {statistics.stdev(expected):.3f}" and best[2] == "+0.040 ± 0.000"
    assert row_of(text, "worst order")[2] == "−0.040 ± 0.000" and row_of(text, "expected")[2] == "–"
    assert row_of(text, "unstable sort")[2].startswith("+0.001") and len(text.split("\n| ")) == 2 + len(ledger.TIE_ORDERS)


def test_six_rules_give_six_numbers_and_their_spread(suite):
    table = protocols.table(suite, EMOJI)
    rows = [row for row in table.rows if row.kind != "section"][:7]
    assert [row.entries[0].text for row in rows] == [*PROTOCOLS, "spread"]
    columns = [column.name for column in table.columns]
    at = columns.index("mAP@200")
    for row in rows[:-1]:
        values = [made_up("tcn", s, "mAP@200", row.entries[0].text) for s in (0, 1, 2)]
        assert row.entries[at].value == pytest.approx(statistics.fmean(values))
    assert rows[-1].entries[at].value == pytest.approx(0.12 - -0.09)  # made up: cvpr19 highest, cvae lowest
    assert rows[1].entries[columns.index("mAP@all")].text == "not defined"
    assert sum(row.kind == "section" and "Chance" in row.entries[0].text for row in table.rows) == 2


def test_photos_listed_twice_count_once_in_the_column_beside(tmp_path, suite):
    write_suite(tmp_path, ("tcn", "nws"), seeds=(0, 1), dataset="sketchy", split="1")
    twice = read_suite(tmp_path)
    row = row_of(protocols.duplicates(twice, Task("sketchy", "1")).to_markdown(), naming.label("nws"))
    published = [made_up("nws", s, "mAP@all") for s in (0, 1)]
    distinct = [made_up("nws", s, "mAP@all", duplicates="distinct") for s in (0, 1)]
    assert row[2].startswith(f"{statistics.fmean(published):.3f}") and row[3].startswith(f"{statistics.fmean(distinct):.3f}")
    assert row[4] == "+0.015 ± 0.000"
    assert protocols.duplicates(suite, EMOJI) is None


def test_the_very_photo_has_a_table_of_its_own_beside_its_chance(tmp_path, rendered, text_only):
    """Rows are means over seeds of their own scope and metric; a variant outside the comparison has its row, too."""
    task = Task("sketchy", "1")
    write_suite(tmp_path, ("tcn", "nws", "hard-conv"), seeds=(0, 1, 2), dataset="sketchy", split="1")
    found = instances.table(read_suite(tmp_path), task)
    lines = found.to_markdown()
    columns = [("instance-in-class", m) for m in INSTANCE_METRICS] + [("instance", m) for m in INSTANCE_METRICS]
    blocks = {text: lines[lines.index(text):] for text in ("Real-valued features**", "Real-valued features, each photo once**",
                                                           "Binary codes, Hamming distance**",
                                                           "Hamming distance, each photo once**")}
    for block, (features, duplicates) in zip(blocks.values(), ((f, d) for f in ("real", "binary")
                                                               for d in ("as-published", "distinct"))):
        for variant in ("tcn", "hard-conv"):
            row = row_of(block, naming.label(variant))
            for text, (scope, metric) in zip(row[2:], columns):
                values = [made_up_accuracy(variant, seed, scope, metric, features, duplicates) for seed in range(3)]
                assert text == f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
            assert row[-1] == "3/3"
        assert row_of(block, naming.label("hws"))[2] == "not measured"
        assert row_of(block, "*chance")[2:-1] == ["0.040", "0.200", "0.400", "0.002", "0.008", "0.016"]
    assert "34 queries of unseen classes with their photo in the gallery of 60 entries; 2 others, whose photo" in found.notes[0]
    command.render(tmp_path, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "The very photo that was drawn" in page and (tmp_path / "report" / "tables" / "sketchy-1-instances.csv").is_file()
    assert instances.table(read_suite(rendered), EMOJI) is None
    assert "The very photo" not in (rendered / "report" / "index.html").read_text()


def every_table(suite) -> list[Table]:
    found = [runs.provenance(suite), ledger.reproductions(suite), comparison.paper_comparison(suite)]
    for task in suite.tasks():
        found += [comparison.comparison(suite, task), comparison.comparison(suite, task, "validation"),
                  ablations.ablation(suite, task), ablations.sharing_weights(suite, task), ablations.coupling(suite, task),
                  ablations.dimensions(suite, task),
                  ablations.methods(suite, task), ablations.further(suite, task), comparison.per_publisher(suite, task),
                  comparison.cutoffs(suite, task),
                  ledger.table(suite, task), ledger.ties(suite, task), protocols.table(suite, task),
                  protocols.duplicates(suite, task), instances.table(suite, task)]
    return [table for table in found if table is not None]


def test_every_measured_number_leads_to_its_runs(tmp_path):
    folders = write_suite(tmp_path, ("tcn", "hws", "untrained-svd", "tcn-weight-1", "tcn-weight-10", "tcn-no-teacher",
                                     "tcn-dim-32", "couple-stem", "triplet", "something-else", *LEDGER_VARIANTS[1:]),
                          seeds=(0, 1), ledger=True)
    write_suite(tmp_path, ("tcn", "nws"), dataset="sketchy", split="1", ledger=True)
    suite = read_suite(tmp_path)
    found = every_table(suite)
    assert {t.name.removeprefix("emoji-fixed-").removeprefix("sketchy-1-") for t in found} == {
        "provenance", "paper-comparison", "comparison", "validation", "ablation", "sharing-weight", "coupling", "dimensions",
        "methods", "further", "publishers", "cutoffs", "ledger", "ties", "protocols", "duplicates",
        "instances"}
    names = {run.name for run in suite.runs}
    numbers = 0
    for table in found:
        section, page = "", table_html(table)
        listed = {(line["section"], line["row"], line["column"]): line["runs"].split()
                  for line in csv.DictReader(table.to_runs_csv().splitlines())}
        for row in table.rows:
            if row.kind == "section":
                section = row.entries[0].text
                continue
            published = "published" in row.entries[3].text if table.name == "paper-comparison" else False
            for column, entry in zip(table.columns, row.entries):
                # whatever looks like a metric's value, except in published rows and columns
                if re.match(r"[−+]?[01]\.\d{3}", entry.text) and not published and column.name != "published":
                    numbers += 1
                    assert entry.runs, (table.name, row.entries[0].text, column.full)
                    assert set(listed[section, row.entries[0].text, column.full]) <= names
                    assert f'href="#{entry.runs[0].group_anchor}"' in page
    assert numbers > 500
    # a mean over two seeds names exactly these two
    tcn = next(row for row in found[2].rows if row.entries[0].text == naming.label("tcn"))
    assert [run.folder for run in tcn.entries[2].runs] == [folders["tcn", 0], folders["tcn", 1]]


def test_run_entries_hold_the_whole_chain(rendered, suite):
    page = (rendered / "report" / "index.html").read_text()
    run = next(c for c in suite.runs if c.variant == "tcn" and c.seed == 1)
    entry = page[page.index(f'id="{run.anchor}"'):].split("<details id=")[0]
    for text in (f"python benchmarks/run_all.py --reproduce {run.name}", f"../runs/{run.name}/config.json", "c0ffee",
                 f'{run.provenance.identity[:8]}mlflow in mlflow.db', "a1" * 32, "f" * 64, "training.encoder_rate = 0.0003",
                 "each recomputed from 36 per-query values (per_query.npz): equal", "2000-01-02: differs"):
        assert text in entry, text
    assert (rendered / "report" / f"../runs/{run.name}/config.json").resolve().exists()
    assert "all equal" in page and "DIFFER" not in page
    text = (rendered / "report" / "tables" / "reproductions.md").read_text()
    assert "not equal: metrics.csv" in text and "0.25" in text and "**differs**" in text and "unseen/real/zse/mAP" in text


def test_means_are_recomputed_as_each_rule_averages(tmp_path):
    """Uneven classes tell the mean over classes from the mean over queries; one wrong digit is seen."""
    folder = write_suite(tmp_path, ("tcn",))["tcn", 0]
    classes = np.array(["a", "a", "a", "b"])
    values = np.array([0.1, 0.2, 0.3, 0.8])
    np.savez(folder / "per_query.npz", **{"query": np.array(list("wxyz")), "class": classes,
                                          "real/released/mAP@all": values, "real/standard/mAP@all": values})
    with open(folder / "metrics.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    for row in rows:
        if (row["classes"], row["features"], row["metric"], row["query_source"], row["gallery"]) == (
                "unseen", "real", "mAP@all", "all", "all"):
            row["value"] = {"released": "0.5", "standard": "0.351"}.get(row["protocol"], row["value"])
    with open(folder / "metrics.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    suite = read_suite(tmp_path)
    found = provenance.recompute(suite.runs[0], suite)
    # over classes: (.2 + .8) / 2 = .5; over queries: 1.4 / 4 = .35
    assert {c.name: (c.values, round(c.recomputed, 12), c.equal) for c in found.checks} == {
        "real/released/mAP@all": (4, 0.5, True), "real/standard/mAP@all": (4, 0.35, False)}
    assert "1 DIFFERS (real/standard/mAP@all 0.350000 against 0.351000)" in found.sentence()


def test_uncommitted_changes_are_shown_where_short_and_linked_where_long(tmp_path, text_only):
    folders = write_suite(tmp_path, ("tcn", "hws", "nws"))
    for (variant, _), folder in folders.items():
        path = folder / "provenance.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "dirty": True, "diff_sha256": "ab" * 32}))
        if variant != "nws":
            (folder / "diff.patch").write_text("+<script>x</script>\n" * (3 if variant == "tcn" else 500))
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert page.count("+&lt;script&gt;x") == 3 and "<script>x" not in page
    assert f'../runs/{folders["hws", 0].name}/diff.patch' in page and "(500 lines)" in page and "yes, not kept" in page


def test_broken_ledger_parts_are_named(tmp_path):
    folder = write_suite(tmp_path, ("tcn",), ledger=True)["tcn", 0]
    head = json.loads((tmp_path / "suite.json").read_text())
    head["ledger"] += [{"title": "no id"}, {"deviation": "x", "title": "y", "kind": "odd"}]
    (tmp_path / "suite.json").write_text(json.dumps(head))
    (tmp_path / "reproductions").mkdir()
    (tmp_path / "reproductions" / "half.json").write_text('{"run": "x"}')
    lines = (folder / "ledger.csv").read_text().splitlines()
    (folder / "ledger.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    suite = read_suite(tmp_path)
    assert len(suite.deviations) == len(DEVIATIONS) and ledger.reproductions(suite) is None
    assert ledger.ties(suite, EMOJI) is None
    named = " ".join(f"{name}: {why}" for name, why in suite.left_out)
    assert f"entry {len(DEVIATIONS) + 1}" in named and "'odd'" in named and "half.json" in named
    assert "ledger.csv holds a row twice" in named


def test_ledger_bars_are_the_mean_differences_in_points(suite):
    frame = frames.ledger_bars(suite, EMOJI).frame
    figure = draw.ledger_bars(frame)
    panel, = figure.axes
    widths = [bar.get_width() for bar in panel.patches]
    hatches = [bar.get_hatch() for bar in panel.patches]
    expected = [DEVIATIONS[deviation][3] * (110 if DEVIATIONS[deviation][0] == "scoring" else 100)
                for deviation in dict.fromkeys(frame["deviation"])]
    plt.close(figure)
    # seeds 0, 1, 2 of a scoring deviation are worth 1, 1.1, 1.2 times its made-up worth
    assert widths == pytest.approx(expected) and list(dict.fromkeys(frame["deviation"]))[-1] == "all"
    assert len({h for h, deviation in zip(hatches, dict.fromkeys(frame["deviation"]))
                if DEVIATIONS[deviation][0] == "training" and deviation != "all"}
               & {h for h, deviation in zip(hatches, dict.fromkeys(frame["deviation"]))
                  if DEVIATIONS[deviation][0] == "scoring"}) == 0


def test_ledger_variants_stay_out_of_the_ablation(suite):
    assert ablations.ablation(suite, EMOJI) is None and ablations.further(suite, EMOJI) is None
    text = ablations.not_measured(suite, EMOJI).to_markdown() + comparison.comparison(suite, EMOJI).to_markdown()
    assert naming.label("ledger-augmentation") not in text and naming.label("tcn-as-released") not in text
    assert naming.label("ledger-of-the-future") == "ledger-of-the-future"


def test_page_tells_the_headline_first_then_ledger_and_rules(rendered):
    page = (rendered / "report" / "index.html").read_text()
    order = [page.index(f'id="{name}"') for name in (
        "found", "figure-emoji-fixed-retrieval", "table-emoji-fixed-comparison", "answers", "claims",
        "figure-emoji-fixed-motivation", "table-emoji-fixed-ledger", "figure-emoji-fixed-ledger", "table-emoji-fixed-ties",
        "table-emoji-fixed-protocols", "table-emoji-fixed-cutoffs", "table-emoji-fixed-not-measured", "table-time", "runs",
        "table-reproductions", "table-provenance")]
    assert order == sorted(order)


def test_page_says_where_released_behaviour_is_turned_on_outside_the_ledger(tmp_path, text_only):
    write_suite(tmp_path, ("tcn", "ledger-augmentation"), ledger=True)
    plain = command.render(tmp_path, tmp_path / "report").read_text()
    assert "turned on in runs outside the ledger" not in plain
    deviation = next(t for t in read_suite(tmp_path).deviations if t.setting and t.kind == "scoring")
    write_run(tmp_path, "hws", 0, **{deviation.setting.replace(".", "__"): deviation.released})
    page = command.render(tmp_path, tmp_path / "report").read_text()
    assert "turned on in runs outside the ledger" in page and f"{deviation.title} (1 of 3 runs)" in page
