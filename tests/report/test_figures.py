"""Every figure from made-up results: which panels, axes, legends and marks it has, and that its curves are the inputs."""
from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from support.result_folders import (
    CONTROL_VARIANTS,
    COUPLING_VARIANTS,
    DIMENSION_VARIANTS,
    EMOJI_VARIANTS,
    MAIN_VARIANTS,
    METHOD_VARIANTS,
    WEIGHT_VARIANTS,
    class_shares,
    made_up,
    made_up_distances,
    made_up_precision,
    write_suite,
)

from reports.figure_kinds import with_common_seeds
from reports.figures import draw, feature_frames, frames
from reports.read.schema import Task
from reports.read.suite import Suite, read_suite

pytestmark = pytest.mark.usefixtures("whole_fonts")

EMOJI = Task("emoji", "fixed")
ONE_SEED = dict.fromkeys((*DIMENSION_VARIANTS, *WEIGHT_VARIANTS, *COUPLING_VARIANTS, *METHOD_VARIANTS, *CONTROL_VARIANTS,
                          "tcn-no-semantic"))
SPREAD = 0.2


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    """Two seeds of the main variants and untrained baselines, one of everything else; the ledger; classes that differ."""
    root = tmp_path_factory.mktemp("suite")
    write_suite(root, EMOJI_VARIANTS, seeds=(0, 1), ledger=True, class_spread=SPREAD)
    write_suite(root, [v for v in ONE_SEED if v not in EMOJI_VARIANTS], ledger=True, class_spread=SPREAD)
    return read_suite(root)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all tests: the same variant and seed have the same made-up features in every suite."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def every(suite, cache):
    return frames.every(suite, EMOJI, cache)


@pytest.fixture(scope="module")
def drawn(every):
    return [(data, draw.draw(data)) for data in every]


def panels_of(figure):
    return [a for a in figure.axes if a.axison and a.get_visible()]


def texts_of(figure):
    """All words on a figure, axes included."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def lines_by_label(panel):
    return {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}


def test_every_kind_is_there_once_and_in_order(every):
    kinds = [build.__name__ for build in frames.BUILDERS]
    assert [data.kind for data in every] == kinds and set(draw.DRAWINGS) == set(kinds)
    assert len({data.name for data in every}) == len(every)


def test_every_figure_is_drawn_at_a_journals_width_with_readable_text(drawn):
    for data, figure in drawn:
        assert figure.get_figwidth() in (pytest.approx(3.4), pytest.approx(7.0)), data.kind
        assert figure.get_figheight() < 11
        sizes = [t.get_fontsize() for t in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")) if t.get_text()]
        assert min(sizes) >= 6.5, data.kind
        named = [a for a in panels_of(figure) if a.get_xlabel() or a.get_ylabel() or len(a.get_xticklabels())]
        assert named or data.kind == "retrieval"


def test_no_text_is_cut_off_and_no_axis_labels_overlap(drawn):
    for data, figure in drawn:
        with draw.style():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            renderer = canvas.get_renderer()
        whole = figure.bbox
        for panel in panels_of(figure):
            for axis in (panel.xaxis, panel.yaxis):
                # a locator may propose ticks beyond the limits, which are not drawn
                ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_visible() and tick.label1.get_text()]
                low, high = sorted(axis.get_view_interval())
                boxes = [tick.label1.get_window_extent(renderer) for tick in ticks if low <= tick.get_loc() <= high]
                for box in boxes:
                    assert box.x0 >= -1 and box.x1 <= whole.x1 + 1 and box.y0 >= -1 and box.y1 <= whole.y1 + 1, data.kind
                for one, other in pairwise(boxes):
                    assert not one.overlaps(other), (data.kind, [tick.label1.get_text() for tick in ticks])
            for text in (panel.title, panel._left_title, panel.xaxis.label, panel.yaxis.label):
                if text.get_text():
                    box = text.get_window_extent(renderer)
                    assert box.x0 >= -1 and box.x1 <= whole.x1 + 1, (data.kind, text.get_text())


def test_titles_fit_where_no_validation_classes_leave_three_panels_in_a_row(every):
    data = next(data for data in every if data.kind == "motivation")
    figure = draw.draw(replace(data, frame=data.frame[data.frame["quantity"] != "validation mAP"]))
    with draw.style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    panels = panels_of(figure)
    assert len(panels) == 3
    edges = [panel.bbox.x0 for panel in panels[1:]] + [figure.bbox.x1 + 1]
    for panel, edge in zip(panels, edges):
        assert panel._left_title.get_window_extent(canvas.get_renderer()).x1 <= edge, panel._left_title.get_text()


def test_captions_say_the_seeds(every):
    told = {data.kind: data.caption for data in every}
    assert "1 to 2 seeds" in told["overview"] and "2 seeds" in told["motivation"] and "2 seeds" in told["precision_recall"]
    for kind in ("singular_values", "tsne", "retrieval", "layer_distances"):
        assert "One run each" in told[kind] and "seed 0" in told[kind]
    for kind in ("dimensions", "sharing_weight", "coupling"):
        assert "Line: seed 0" in told[kind] and "further seeds" in told[kind]


def test_motivation_draws_raw_and_smoothed_losses_and_the_epochs(suite):
    data = frames.motivation(suite, EMOJI)
    figure = draw.motivation(data.frame)
    assert [(a.get_xlabel(), a.get_ylabel()) for a in figure.axes] == [
        ("Iteration", "Cross-entropy"), ("Iteration", "Cross-entropy"), ("Epoch", "Class accuracy"), ("Epoch", "mAP@all")]
    run = suite.runs_of(EMOJI, "hws")[0]
    stored = pd.read_csv(run.folder / "steps.csv")["class_photo"].to_numpy()
    raw, smooth = (line for line in figure.axes[1].lines if line.get_color() == draw.look("hws")[0])
    assert raw.get_ydata() == pytest.approx(stored)
    # the window is said in the caption; away from the ends it is a plain centred mean
    assert "over 5 iterations" in data.caption
    assert smooth.get_ydata()[10] == pytest.approx(stored[8:13].mean())
    accuracy = lines_by_label(figure.axes[2])["NWS"].get_ydata()
    stored = [pd.read_csv(c.folder / "history.csv")["seen_accuracy"] for c in suite.runs_of(EMOJI, "nws")]
    assert accuracy == pytest.approx(np.mean(stored, axis=0))


def test_a_long_raw_curve_keeps_its_extremes():
    values = np.sin(np.arange(20_000) / 7) + np.where(np.arange(20_000) == 12_345, 5.0, 0.0)
    thin = draw._envelope(pd.DataFrame({"at": np.arange(20_000), "value": values}))
    assert len(thin) <= 2 * draw.RAW_BINS and thin["value"].max() == values.max() and thin["value"].min() == values.min()
    assert thin["at"].is_monotonic_increasing


def test_singular_values_have_the_papers_panels_by_weight(suite):
    figure = draw.singular_values(frames.singular_values(suite, EMOJI).frame)
    shown = panels_of(figure)
    # TCN's own weight is 10 here, so it is the paper's panel of that weight
    assert [a.get_title(loc="left") for a in shown] == ["Without (NWS)", "Hard (HWS)", "Soft, weight 10 (TCN)",
                                                        "Soft, weight 1000"]
    for panel in shown:
        assert len(panel.lines) == 4 and all(line.get_ydata()[0] == 1 for line in panel.lines)
    stored = pd.read_csv(suite.runs_of(EMOJI, "nws")[0].folder / "singular_values.csv")
    stored = stored[(stored["set"] == "unseen") & (stored["modality"] == "sketch")]["value"].to_numpy()
    line, = (line for line in shown[0].lines if line.get_label() == "unseen, sketches")
    assert line.get_ydata() == pytest.approx(stored / stored.max())


def test_a_weight_of_its_own_gets_a_fifth_panel(tmp_path):
    folders = write_suite(tmp_path, ("tcn", "nws", "hws", "tcn-weight-10", "tcn-weight-1000"))
    path = folders["tcn", 0] / "config.json"
    config = json.loads(path.read_text())
    config["losses"]["sharing"] = 1.0
    path.write_text(json.dumps(config))
    figure = draw.singular_values(frames.singular_values(read_suite(tmp_path), EMOJI).frame)
    assert [a.get_title(loc="left") for a in panels_of(figure)][2:] == ["Soft, weight 1 (TCN)", "Soft, weight 10",
                                                                        "Soft, weight 1000"]
    assert len([a for a in figure.axes if a.get_legend()]) == 1


def test_tsne_stands_above_two_examples_with_and_without_sharing(every, suite):
    data = next(d for d in every if d.kind == "tsne")
    assert list(dict.fromkeys(data.frame["variant"])) == ["nws", "tcn", "tcn-no-semantic"]
    assert data.examples["block"].nunique() == 2 and set(data.examples["kind"]) == {"fixed"}
    assert set(data.examples["variant"]) == {"nws", "tcn"}
    figure = draw.draw(data)
    assert [a.get_title(loc="left") for a in panels_of(figure)] == [
        "Without sharing (NWS)", "With sharing and metric (TCN)", "Without semantic metric"]
    words = texts_of(figure)
    assert words.count("✓") == data.examples["correct"].sum() and words.count("✗") == (~data.examples["correct"]).sum()
    saved = data.saved(suite.root)
    assert set(saved["part"]) == {"point", "example"} and len(saved) == len(data.frame) + len(data.examples)
    assert saved["file"].dropna().str.startswith("runs/").all()


def test_the_same_class_has_the_same_colour_in_every_tsne_panel(every):
    figure = draw.draw(next(d for d in every if d.kind == "tsne"))
    numbers = [{text.get_text(): text.get_color() for text in panel.texts} for panel in panels_of(figure)]
    assert numbers[0] == numbers[1] == numbers[2] and len(numbers[0]) == 8 == len(set(numbers[0].values()))


def test_retrieval_marks_right_and_wrong_by_colour_line_and_glyph(every):
    data = next(d for d in every if d.kind == "retrieval")
    panel, = draw.draw(data).axes
    marks = {color: {p.get_linestyle() for p in panel.patches if p.get_edgecolor() == to_rgba(color)}
             for color in (draw.RIGHT, draw.WRONG)}
    assert marks[draw.RIGHT] == {"-"} and "-" not in marks[draw.WRONG]
    assert sum(p.get_edgecolor() == to_rgba(draw.RIGHT) for p in panel.patches) == data.frame["correct"].sum()
    assert any(text.get_text().startswith("Failure: ") for text in panel.texts)


def test_layer_distances_are_the_stored_ones_as_shares_of_the_start(suite):
    data = frames.layer_distances(suite, EMOJI)
    arrays = made_up_distances("nws", epochs=6)
    convolutions = np.flatnonzero(arrays["kinds"] == "convolution")
    frame = data.frame[(data.frame["variant"] == "nws") & (data.frame["step"] == 72)]
    # by hand: a step moves each tensor by a thousandth of its norm, encoders part by half as much again
    layers = frame[frame["level"] == "layer"].sort_values("depth")
    assert layers["between"].tolist() == pytest.approx([0.108] * len(convolutions))
    assert layers["layer"].tolist() == arrays["layers"][convolutions].tolist()
    assert frame["start"].to_numpy() == pytest.approx(0.072)
    whole = data.frame[(data.frame["level"] == "whole") & (data.frame["kind"] == "convolution")]
    at_weight = whole[(whole["variant"] == "tcn-weight-1000") & (whole["step"] == 72)]
    assert at_weight["start"].iloc[0] == pytest.approx(0.00072)
    assert (whole.loc[whole["variant"] == "frozen-conv", "start"] == 0).all()
    assert "Frozen" in data.caption.split("exactly 0")[1] and "from each other and from the start" in data.caption
    assert (data.frame["step"] > 0).all()


def test_parts_and_wholes_are_norms_of_their_layers_taken_together():
    rng = np.random.default_rng(0)
    kinds = np.array(["convolution", "batch norm", "convolution", "convolution"])
    arrays = {"steps": np.array([0, 1, 5]), "layers": np.array(list("abcd")), "kinds": kinds, "start_norm": rng.random(4) + 1,
              "parts": np.array(["stem", "stem", "stage1", "stage1"]),
              **{name: rng.random((3, 4)) for name in ("between", "sketch", "photo")}}
    frame = feature_frames._distance_rows(arrays, one_by_one=True).set_index(["level", "kind", "part", "step"])
    norm = arrays["start_norm"]
    apart = math.sqrt(arrays["between"][2, 2] ** 2 + arrays["between"][2, 3] ** 2) / math.hypot(norm[2], norm[3])
    assert frame.loc[("part", "convolution", "stage1", 5), "between"] == pytest.approx(apart, rel=1e-6)
    moved = math.sqrt((arrays["sketch"][1, 1] ** 2 + arrays["photo"][1, 1] ** 2) / 2) / norm[1]
    assert frame.loc[("whole", "batch norm", "all", 1), "start"] == pytest.approx(moved, rel=1e-6)


def test_layer_distances_show_maps_curves_and_parts(suite):
    data = frames.layer_distances(suite, EMOJI)
    figure = draw.layer_distances(data.frame)
    maps = [a for a in figure.axes if a.images]
    assert [a.get_title(loc="left") for a in maps] == ["NWS", "TCN, weight 10", "TCN, weight 1000"]
    assert [t.get_text() for t in maps[0].get_yticklabels()] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    curves = {a.get_title(loc="left"): a for a in figure.axes if a.lines and a.get_xlabel() == "Optimiser step" and not a.images}
    assert list(curves) == ["Between the encoders", "From the ImageNet start", "Batch norms, between"]
    assert all(a.get_xscale() == a.get_yscale() == "log" for a in curves.values())
    # one encoder has no distance between encoders, frozen convolutions none at all: no line, and the caption says so
    assert "HWS" not in lines_by_label(curves["Between the encoders"])
    assert "HWS" in lines_by_label(curves["From the ImageNet start"])
    assert lines_by_label(curves["From the ImageNet start"])["TCN, weight 1000"].get_ydata()[-1] == pytest.approx(0.00072)
    ends = [a for a in figure.axes if a.get_title(loc="left").startswith("At the last step")]
    assert [t.get_text() for t in ends[0].get_xticklabels()][-1] == "batch\nnorms"
    looks = [(line.get_color(), str(line.get_linestyle())) for line in lines_by_label(curves["From the ImageNet start"]).values()]
    assert len(set(looks)) == len(looks)


def test_precision_recall_draws_the_mean_over_seeds(suite):
    panel, = draw.precision_recall(frames.precision_recall(suite, EMOJI).frame).axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("Recall", "Precision")
    lines = lines_by_label(panel)
    assert list(lines) == ["TCN", "HWS", "NWS", "ImageNet, per modality", "chance"]
    at = list(lines["HWS"].get_xdata()).index(0.25)
    expected = np.mean([made_up_precision("hws", seed, 0.25) for seed in (0, 1)])
    assert lines["HWS"].get_ydata()[at] == pytest.approx(expected)


def test_class_precision_names_the_hardest_classes(suite):
    data = frames.class_precision(suite, EMOJI)
    left, right = draw.class_precision(data.frame).axes
    shares = class_shares(12, SPREAD)
    expected = np.mean([made_up("tcn", seed, "mAP@all") for seed in (0, 1)]) * shares
    assert lines_by_label(left)["TCN"].get_ydata() == pytest.approx(np.sort(expected))
    assert [t.get_text() for t in right.get_yticklabels()] == [f"thing {i:02d}" for i in range(12)]
    marks = {line.get_color(): line.get_xdata() for line in right.lines}
    assert marks[draw.look("tcn")[0]] == pytest.approx(expected)
    assert left.get_ylabel() == right.get_xlabel() == "AP@all"


def test_dimensions_compare_the_seed_that_all_lengths_have(suite):
    data = frames.dimensions(suite, EMOJI)
    panel, = draw.dimensions(data.frame).axes
    assert [t.get_text() for t in panel.get_xticklabels()] == ["8", "32", "128", "256", "512"]
    variants = ("tcn", *DIMENSION_VARIANTS)
    for label, features in (("real-valued, D numbers", "real"), ("binary, D bits", "binary")):
        expected = [made_up(v, 0, "mAP@all", features=features) for v in variants]
        assert lines_by_label(panel)[label].get_ydata() == pytest.approx(expected)
    # the second seed of TCN is a dot of its own, not part of the line
    dots = [tuple(c.get_offsets()[0]) for c in panel.collections]
    assert dots[0] == pytest.approx((3, made_up("tcn", 1, "mAP@all")))


def test_sharing_weights_fall_back_on_tcn_at_its_own_weight(suite):
    data = frames.sharing_weight(suite, EMOJI)
    panel, = draw.sharing_weight(data.frame).axes
    assert [t.get_text() for t in panel.get_xticklabels()] == ["0.1", "1", "10", "100", "1,000", "10,000"]
    order = ("tcn-weight-0.1", "tcn-weight-1", "tcn", "tcn-weight-100", "tcn-weight-1000", "tcn-weight-10000")
    expected = [made_up(v, 0, "mAP@all", classes="validation") for v in order]
    assert lines_by_label(panel)["validation classes"].get_ydata() == pytest.approx(expected)
    assert {text.get_text() for text in panel.texts} == {"used by TCN", "the paper's"}


def test_coupling_runs_from_nothing_to_everything(suite):
    data = frames.coupling(suite, EMOJI)
    unseen, _ = draw.coupling(data.frame).axes
    names = [t.get_text() for t in unseen.get_yticklabels()]
    assert names[0] == "nothing (NWS)" and names[-2:] == ["all one, hard: one call (HWS)", "as TCN, embedding not shared"]
    assert len(names) == len(COUPLING_VARIANTS)
    expected = [made_up(v, 0, "mAP@all") for v in COUPLING_VARIANTS[:-1]]
    assert unseen.lines[0].get_xdata() == pytest.approx(expected)
    places = unseen.lines[0].get_ydata()
    assert (np.diff(places) > 0).all() and unseen.yaxis_inverted()
    assert "Not measured" not in data.caption


def test_coupling_names_what_is_missing(tmp_path):
    write_suite(tmp_path, ("nws", "couple-stage2", "tcn"))
    data = frames.coupling(read_suite(tmp_path), EMOJI)
    assert "“stem”" in data.caption.split("Not measured")[1] and data.frame["variant"].nunique() == 3


def test_points_without_a_common_seed_say_so():
    frame = pd.DataFrame({"weight": [1, 10], "seed": [0, 1], "value": [.1, .2]})
    marked, text = with_common_seeds(frame, "weight")
    assert marked["paired"].all() and text.startswith("No seed is common")


def test_intervals_draw_each_difference_with_its_ends(suite):
    from reports.tables import claims

    frame = claims.interval_frame(suite, EMOJI)
    data = frames.intervals(suite, EMOJI)
    panel, = draw.intervals(data.frame).axes
    assert panel.get_xlabel() == "Difference in mAP@all, first minus second"
    names = [t.get_text().replace("\n", " ") for t in panel.get_yticklabels()]
    assert [n for n in names if n not in set(frame["group"])] == frame["label"].tolist()
    spans = [tuple(line.get_xdata()) for line in panel.lines if len(set(line.get_ydata())) == 1]
    known = frame.dropna(subset="low")
    assert spans == [pytest.approx(pair) for pair in zip(known["low"], known["high"])]
    marks = [c for c in panel.collections if len(c.get_offsets()) == 1]
    assert [c.get_offsets()[0][0] for c in marks] == pytest.approx(frame["difference"].tolist())
    hollow = [to_rgba("white") == tuple(c.get_facecolor()[0]) for c in marks]
    assert hollow == (frame["seeds"] < 2).tolist()


@pytest.mark.parametrize("variants, kinds", [
    (("untrained-svd",), {"overview"}),
    (("tcn",), {"overview", "motivation"}),
    (MAIN_VARIANTS, {"overview", "motivation", "singular_values", "tsne", "retrieval", "layer_distances", "precision_recall",
                     "class_precision"})])
def test_partial_results_give_the_rest(tmp_path, cache, variants, kinds):
    write_suite(tmp_path, variants)
    made = frames.every(read_suite(tmp_path), EMOJI, cache)
    assert kinds <= {data.kind for data in made}
    assert not {"dimensions", "sharing_weight", "coupling"} & {data.kind for data in made}
    for data in made:
        draw.draw(data)
        assert "2 seeds" not in data.caption


def test_the_overview_leaves_out_what_other_figures_show_and_nothing_else(tmp_path):
    """Rows that are ahead of TCN among them: controls, and what stays when a piece of it is left out."""
    shown = ("tcn", "hws", "hard-conv", "l2-sp-weight-1000", "hws-10-1", "tcn-no-semantic", "triplet", "mine", "untrained-svd")
    elsewhere = ("tcn-dim-32", "tcn-weight-100", "couple-stem", "ledger-augmentation")
    write_suite(tmp_path, (*elsewhere, *shown), pictures=False)
    data = frames.overview(read_suite(tmp_path), EMOJI)
    assert data is not None and tuple(dict.fromkeys(data.frame["variant"])) == shown and "but those that figures" in data.caption


def test_missing_files_cost_their_figures_alone(tmp_path, cache):
    folders = write_suite(tmp_path, MAIN_VARIANTS)
    for name in ("distances.npz", "precision_recall.csv"):
        for variant in MAIN_VARIANTS:
            (folders[variant, 0] / name).unlink()
    (folders["tcn", 0] / "per_query.npz").unlink()
    suite = read_suite(tmp_path)
    made = {data.kind: data for data in frames.every(suite, EMOJI, cache)}
    assert not {"layer_distances", "precision_recall"} & set(made)
    assert set(made["class_precision"].frame["variant"]) == {"hws", "nws"}
    # older runs lack the two new files: no complaint about those
    assert not [name for name, _ in suite.left_out if "distances" in name or "recall" in name]


def test_nothing_measured_gives_no_figure(tmp_path, cache):
    folders = write_suite(tmp_path, ("tcn",))
    (folders["tcn", 0] / "status.json").write_text(json.dumps({"state": "failed", "reason": "made up", "epochs": 6}))
    assert frames.every(read_suite(tmp_path), EMOJI, cache) == []


def test_frames_are_saved_without_this_machines_paths(every, suite):
    for data in every:
        text = data.saved(suite.root).to_csv(index=False)
        assert str(suite.root) not in text and text.count("\n") > 1
