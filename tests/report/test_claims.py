"""Verdicts, comparisons and gaps from made-up runs whose values per class the test chose, so that it knows what must be said."""
from __future__ import annotations

import csv
import json
import math
import re
import statistics
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from support import result_folders
from support.pages import table_html
from support.result_folders import made_up, write_run, write_suite

from reports import naming, paper, published
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import read_suite
from reports.stats import evidence, judging, uncertainty
from reports.tables import claims, comparison, extension

pytestmark = pytest.mark.usefixtures("whole_fonts")

EMOJI = Task("emoji", "fixed")
SKETCHY = Task("sketchy", "1")
SIX = tuple(range(6))
CLASSES = [f"thing {i:02d}" for i in range(12)]
MAP = "real/released/mAP@all"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Claims look at no picture, and these take most of the time that a made-up run takes."""
    monkeypatch.setattr(result_folders, "_write_examples", lambda *_: None)


def set_classes(folder: Path, values: np.ndarray) -> None:
    """Give each class of a run this mean mAP@all, spread over its three queries, in per_query.npz and metrics.csv.

    Rows of metrics.csv that nothing here looks at are dropped.
    """
    arrays = dict(np.load(folder / "per_query.npz"))
    arrays[MAP] = np.repeat(values, 3) + np.tile([-0.01, 0.0, 0.01], len(values))
    np.savez(folder / "per_query.npz", **arrays)
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["protocol"] == "released" and row["query_source"] == "all"]
    for row in rows:
        view = [row[name] for name in ("classes", "features", "protocol", "metric", "query_source", "gallery", "duplicates")]
        if view == ["unseen", "real", "released", "mAP@all", "all", "all", "as-published"]:
            row["value"] = repr(float(values.mean()))
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def set_curves(folder: Path, loss: float, accuracy: float) -> None:
    """End a run's history at this class loss (0.1 lower for photos, as much higher for sketches) and seen-class accuracy."""
    with (folder / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[1:]:
        row.update(class_sketch=str(loss + 0.1), class_photo=str(loss - 0.1), seen_accuracy=str(accuracy))
    rows[1].update(class_sketch="9", class_photo="9", seen_accuracy="0")  # the first epoch counts for nothing
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def set_distances(folder: Path, way: float, between: float) -> None:
    """Two convolutions of norms 3 and 4 and a batch norm; at the end each encoder `way` away from the start in both layers."""
    np.savez(folder / "distances.npz", steps=np.array([0, 5, 72]), layers=np.array(["a", "b", "bn"]),
             parts=np.array(["stem", "stage1", "stem"]), kinds=np.array(["convolution", "convolution", "batch norm"]),
             start_norm=np.array([3, 4, 100], dtype=np.float32),
             **{name: np.array([[0, 0, 0], [9, 9, 9], [value, value, 50]], dtype=np.float32)
                for name, value in (("between", between), ("sketch", way), ("photo", way))})


def runs(root: Path, levels: dict[str, list[float]], dataset: str = "emoji", split: str = "fixed") -> dict:
    """Runs with one level per seed; classes spread about it by the same pattern and a little noise."""
    rng = np.random.default_rng(0)
    pattern = np.linspace(-0.1, 0.1, len(CLASSES))
    folders = {}
    for variant, by_seed in levels.items():
        folders |= write_suite(root, (variant,), range(len(by_seed)), dataset, split, pictures=False)
        for seed, level in enumerate(by_seed):
            set_classes(folders[variant, seed], level + pattern + rng.normal(0, 0.002, len(CLASSES)))
            (folders[variant, seed] / "distances.npz").unlink(missing_ok=True)
    return folders


def rise(level: float, seeds: int = 6) -> list[float]:
    return [level + 0.003 * seed for seed in range(seeds)]


def finding(suite, first: str, second: str, measure: str = judging.RETRIEVAL, task: Task = EMOJI) -> judging.Finding:
    return next(f for f in judging.findings(suite, task).values()
                if (f.pair.first, f.pair.second, f.pair.measure) == (first, second, measure))


def runs_of(table, claim: str) -> list[str]:
    """Texts of the row whose claim or comparison starts so."""
    return next([e.text for e in row.entries] for row in table.rows
                if row.kind == "data" and any(e.text.startswith(claim) for e in row.entries[:2]))


# --- reading


def test_class_means_are_those_of_naive_groups_and_are_checked(tmp_path):
    folders = write_suite(tmp_path, ("tcn",), (0, 1))
    values = np.linspace(0.2, 0.9, 12)
    set_classes(folders["tcn", 0], values)
    arrays = dict(np.load(folders["tcn", 1] / "per_query.npz"))
    arrays[MAP][0] += 0.2  # of 36 queries: the mean moves by more than rounding
    np.savez(folders["tcn", 1] / "per_query.npz", **arrays)
    suite = read_suite(tmp_path)
    good, edited = suite.runs_of(EMOJI, "tcn")
    assert suite.per_class(good, Score("mAP@all")).to_dict() == pytest.approx(dict(zip(CLASSES, values)))
    assert suite.per_class(good, Score("mAP@all", "standard")) is not None and not suite.left_out
    for view in (Score("mAP@all", classes="validation"), Score("mAP@all", source="openmoji"), Score("mAP@7"),
                 Score("mAP@all", duplicates="distinct")):
        assert suite.per_class(good, view) is None
    assert not suite.left_out
    assert suite.per_class(edited, Score("mAP@all")) is None and suite.per_class(edited, Score("Prec@R")) is not None
    (name, why), = suite.left_out
    assert name == f"{edited.name}/per_query.npz" and MAP in why and "metrics.csv" in why


def test_class_means_leave_out_what_the_released_rule_leaves_out(tmp_path):
    write_suite(tmp_path, ())
    folder = write_run(tmp_path, "tcn", 0, evaluation__missing_classes="as-released")
    set_classes(folder, np.full(12, 0.5))
    arrays = dict(np.load(folder / "per_query.npz"))
    arrays[MAP][:3] = 0.0  # the first class has no photos: AP 0, not averaged, so metrics.csv still says 0.5
    np.savez(folder / "per_query.npz", **arrays)
    suite = read_suite(tmp_path)
    means = suite.per_class(suite.runs[0], Score("mAP@all"))
    assert not suite.left_out and list(means.index) == CLASSES[1:] and means.mean() == pytest.approx(0.5)


def test_distances_and_curves_absent_is_silent_and_broken_is_named(tmp_path):
    folders = write_suite(tmp_path, ("tcn",), (0, 1, 2))
    for folder in folders.values():
        for name in ("distances.npz", "precision_recall.csv"):
            (folder / name).unlink(missing_ok=True)
    set_distances(folders["tcn", 0], 1.0, 0.5)
    (folders["tcn", 0] / "precision_recall.csv").write_text("features,recall,precision\nreal,0.0,0.9\nreal,1.0,0.1\n")
    np.savez(folders["tcn", 1] / "distances.npz", steps=np.arange(2))
    (folders["tcn", 1] / "precision_recall.csv").write_text("features,recall,precision\nreal,0.0,1.9\n")
    suite = read_suite(tmp_path)
    whole, broken, without = suite.runs_of(EMOJI, "tcn")
    assert suite.distances(whole)["between"][-1].tolist() == [0.5, 0.5, 50.0]
    assert suite.precision_recall(whole)["precision"].tolist() == [0.9, 0.1]
    assert suite.distances(without) is None and suite.precision_recall(without) is None and not suite.left_out
    assert suite.distances(broken) is None and suite.precision_recall(broken) is None
    named = dict(suite.left_out)
    assert "layers" in named[f"{broken.name}/distances.npz"] and "precision" in named[f"{broken.name}/precision_recall.csv"]
    set_distances(folders["tcn", 2], 1.0, 0.5)
    arrays = dict(np.load(folders["tcn", 2] / "distances.npz"))
    np.savez(folders["tcn", 2] / "distances.npz", **{**arrays, "photo": arrays["photo"][:, :2]})
    assert suite.distances(without) is None and "photo" in dict(suite.left_out)[f"{without.name}/distances.npz"]


# --- verdicts


def test_verdicts_of_six_seeds(tmp_path):
    uneven = [0.39, 0.42, 0.41, 0.40, 0.43, 0.41]
    runs(tmp_path, {"tcn": rise(0.40), "hws": rise(0.46), "nws": rise(0.20), "tcn-no-teacher": uneven})
    suite = read_suite(tmp_path)
    assert finding(suite, "tcn", "nws").state == "holds" and finding(suite, "hws", "nws").state == "holds"
    assert finding(suite, "tcn", "hws").state == "does not"
    unsure = finding(suite, "tcn", "tcn-no-teacher")
    wins = sum(0.40 + 0.003 * s > v for s, v in enumerate(uneven))
    assert unsure.state == "cannot be told" and unsure.verdict.endswith(f"in {wins} of 6 seeds")
    table = claims.table(suite)
    headings = [c.name for c in table.columns]
    laptop = next(i for i, h in enumerate(headings) if h.startswith("Laptop"))
    assert "emoji" in headings[laptop] and "72 optimiser steps" in headings[laptop] and "21,400" in headings[laptop]
    assert runs_of(table, "Soft sharing (TCN)")[laptop] == "does not, on this data and budget only"
    assert runs_of(table, "Soft sharing retrieves them")[laptop] == "holds"
    assert not any(row.entries[0].text.startswith("The semantic metric") for row in table.rows)
    assert table.notes[-1].startswith("Not measured: The semantic metric (SBHT) helps; ")
    whose = headings.index("Verdict on the paper's data sets")
    assert {row.entries[whose].text for row in table.rows if row.kind == "data" and row.entries[laptop].text} == {"not measured"}
    assert any("Fewer than 6 common seeds: cannot be told" in note for note in table.notes)


def test_fewer_seeds_than_six_never_give_a_verdict(tmp_path):
    for seeds, word in ((1, "above in 1 of 1 seed"), (5, "above in 5 of 5 seeds")):
        root = tmp_path / str(seeds)
        runs(root, {"tcn": rise(0.6, seeds), "hws": rise(0.3, seeds)})
        found = finding(read_suite(root), "tcn", "hws")
        assert found.verdict == f"cannot be told: {word}" and math.isnan(found.p_seeds)
        assert found.comparison.interval.low > 0.2
        assert ("classes only" in found.comparison.interval.method) == (seeds == 1)


def test_numbers_are_those_of_the_arrays_and_seeds_are_common_ones(tmp_path):
    folders = runs(tmp_path, {"tcn": rise(0.4), "hws": rise(0.3, 3)})
    suite = read_suite(tmp_path)
    read = {v: np.array([np.load(folders[v, s] / "per_query.npz")[MAP].reshape(12, 3).mean(1) for s in range(3)])
            for v in ("tcn", "hws")}
    expected = uncertainty.compare(read["tcn"], read["hws"])
    found = finding(suite, "tcn", "hws")
    assert found.seeds == (0, 1, 2) and len(found.runs) == 6
    assert found.comparison.difference == pytest.approx(expected.difference)
    assert found.comparison.interval.low == pytest.approx(expected.interval.low)
    row = runs_of(claims.comparisons(suite, EMOJI), "TCN against HWS")
    low, high = (f"{v:+.3f}" for v in (expected.interval.low, expected.interval.high))
    assert row[2] == f"{expected.difference:+.3f}" and row[3] == f"[{low}, {high}]" and row[-1] == "3 seeds"


def test_holm_runs_over_all_comparisons_that_could_be_tested(tmp_path):
    runs(tmp_path, {"tcn": rise(0.40), "hws": rise(0.39), "nws": rise(0.30), "tcn-bht": rise(0.2, 1)})
    suite = read_suite(tmp_path)
    distinct = {(f.pair.first, f.pair.second, f.pair.measure): f for f in judging.findings(suite, EMOJI).values() if f.comparison}
    tested = [f for f in distinct.values() if f.comparison.seeds >= 6]
    assert len(tested) == 6 and len(distinct) == 7  # three of retrieval, two curves, one of singular values; BHT has one seed
    assert [f.p_seeds for f in tested] == uncertainty.holm([f.comparison.p_seeds for f in tested])
    by_classes = [f for f in tested if f.comparison.classes > 1]
    assert [f.p_classes for f in by_classes] == uncertainty.holm([f.comparison.p_classes for f in by_classes])
    assert any("0.031 × 6 = 0.188" in note and "8 seeds" in note for note in claims.table(suite).notes)


def test_significant_is_printed_only_where_the_corrected_seed_test_allows(tmp_path):
    for seeds, word in ((6, "holds"), (9, "holds (significant)")):
        root = tmp_path / str(seeds)
        runs(root, {"tcn": rise(0.40, seeds), "hws": rise(0.30, seeds)})
        assert finding(read_suite(root), "tcn", "hws").verdict == word


def test_seen_against_unseen_reads_the_end_of_the_curves(tmp_path):
    folders = runs(tmp_path, {"tcn": rise(0.40), "hws": rise(0.30)})
    for (variant, seed), folder in folders.items():
        set_curves(folder, *((1.0 + 0.01 * seed, 0.5) if variant == "tcn" else (0.2, 0.9)))
    suite = read_suite(tmp_path)
    loss = finding(suite, "tcn", "hws", judging.CLASS_LOSS)
    assert loss.state == "holds" and loss.comparison.difference == pytest.approx(statistics.fmean(0.8 + 0.01 * s for s in SIX))
    assert finding(suite, "hws", "tcn", judging.SEEN_ACCURACY).comparison.difference == pytest.approx(0.4)
    row = next(r for r in judging.claims(suite) if r.claim.key == "seen-unseen")
    assert row.state(EMOJI) == "holds"


def test_directions_are_the_mean_share_of_the_largest_singular_value(tmp_path):
    folders = runs(tmp_path, {"tcn": [0.4], "hws": [0.3]})
    for variant, values in (("tcn", [8, 4, 4]), ("hws", [8, 2, 2])):
        rows = [f"{where},{side},{i},{v}" for where in ("training", "unseen") for side in ("sketch", "photo")
                for i, v in enumerate(values if where == "unseen" else [1, 1, 1], 1)]
        (folders[variant, 0] / "singular_values.csv").write_text("set,modality,index,value\n" + "\n".join(rows) + "\n")
    found = finding(read_suite(tmp_path), "tcn", "hws", judging.DIRECTIONS)
    assert found.comparison.difference == pytest.approx((1 + 0.5 + 0.5) / 3 - (1 + 0.25 + 0.25) / 3)


def test_a_claim_of_several_comparisons_needs_all_and_falls_with_one(tmp_path):
    runs(tmp_path, {"tcn": rise(0.40), "tcn-bht-sr-0.1": rise(0.30), "tcn-bht-sr-1": rise(0.30)})
    row = next(r for r in judging.claims(read_suite(tmp_path)) if r.claim.key == "sbht-sr")
    assert [f.state for f in row.found[EMOJI]] == ["holds", "holds", "not measured"] and row.state(EMOJI) == "cannot be told"
    runs(tmp_path, {"tcn-bht-sr-10": rise(0.50)})
    row = next(r for r in judging.claims(read_suite(tmp_path)) if r.claim.key == "sbht-sr")
    assert row.state(EMOJI) == "does not"


def test_broken_values_per_class_cost_the_verdict_not_the_difference(tmp_path):
    folders = runs(tmp_path, {"tcn": rise(0.40), "hws": rise(0.30)})
    for folder in folders.values():
        (folder / "per_query.npz").unlink()
    suite = read_suite(tmp_path)
    found = finding(suite, "tcn", "hws")
    assert found.state == "cannot be told" and "no values per class" in found.why and found.comparison.classes == 1
    assert found.comparison.difference == pytest.approx(0.1, abs=0.002)
    assert len(suite.left_out) == 12


# --- published and measured


def test_laptop_table_holds_no_published_number(tmp_path):
    runs(tmp_path, {"tcn": rise(0.11), "hws": rise(0.12)})
    suite = read_suite(tmp_path)
    theirs = {f"{p.value:.3f}" for p in published.facts()} | {"0.92", "1.15", "0.65", "0.76"}
    for table in (claims.table(suite), claims.comparisons(suite, EMOJI)):
        assert "Published" not in [c.name for c in table.columns]
        texts = {word.strip("+−[],;()") for row in table.rows for e in row.entries for word in e.text.split()}
        # measured differences are about 0.01, below every published number but CVAE's
        assert not texts & theirs - {"0.003"}
    for sentence in evidence.paper_gaps(suite, EMOJI):
        assert not any(number in sentence for number in ("0.582", "0.470", "0.399", "0.557"))


def test_papers_data_sets_show_its_numbers_and_keep_the_laptops_apart(tmp_path):
    runs(tmp_path, {"tcn": rise(0.50), "hws": rise(0.40)}, "sketchy", "1")
    runs(tmp_path, {"tcn": rise(0.30), "hws": rise(0.371)})
    suite = read_suite(tmp_path)
    table = claims.table(suite)
    row = dict(zip([c.name for c in table.columns], runs_of(table, "Soft sharing (TCN)")))
    # Sketchy's column of the paper's ablation table, typed from the list of published facts
    assert row["Published"] == "Sketchy Extended, split 1: 0.582 against 0.399 (mAP@all)"
    assert row["Verdict on the paper's data sets"] == "holds"
    assert next(v for k, v in row.items() if k.startswith("Laptop")) == "does not, on this data and budget only"
    measured = row["Measured difference [95% interval]"]
    assert measured.startswith("+0.10") and "0.07" not in measured
    assert any("own table of comparisons" in note for note in table.notes)
    assert runs_of(claims.comparisons(suite, EMOJI), "TCN against HWS")[2].startswith("−0.07")


def test_a_sample_of_sketchy_has_a_column_a_verdict_and_tables_of_its_own(tmp_path):
    """Beside Sketchy itself, whose numbers say the opposite. A sample has no published number anywhere."""
    runs(tmp_path, {"tcn": rise(0.5026), "hws": rise(0.40)}, "sketchy", "1")
    runs(tmp_path, {"tcn": rise(0.3066), "hws": rise(0.371)}, "sketchy-first25", "1")
    suite, sample = read_suite(tmp_path), Task("sketchy-first25", "1")
    table = claims.table(suite)
    row = dict(zip([c.name for c in table.columns], runs_of(table, "Soft sharing (TCN)")))
    assert row["Verdict on the paper's data sets"] == "holds" and row["Published"].startswith("Sketchy Extended, split 1:")
    [(heading, verdict)] = [(name, text) for name, text in row.items() if name.startswith("Sketchy sample (first 25), split 1")]
    assert verdict == "does not, on this data and budget only"
    assert re.search(r"72 optimiser steps; the paper's: 21,400", heading)
    # The means of TCN are 0.510 and 0.314; the first column of a table is the method.
    beside_published, own = ([[entry.text for entry in row.entries] for row in its.rows] for its in (
        comparison.paper_comparison(suite), comparison.comparison(suite, sample)))
    assert any("0.510" in text for row in beside_published for text in row)
    assert not any("0.314" in text for row in beside_published for text in row)
    assert any("0.314" in text for row in own for text in row)
    methods = {row[0] for row in own}
    assert {"chance", "ceiling"} <= methods and not methods & {fact.method for fact in published.facts()}


def test_gaps_of_the_paper_below_one_seeds_spread(tmp_path):
    write_suite(tmp_path, ("tcn", "hws", "nws"), (0, 1, 2), "sketchy", "1")
    write_suite(tmp_path / "laptop", ("tcn", "hws", "nws"), (0, 1, 2))
    sd = statistics.stdev(made_up("tcn", seed, "mAP@all") for seed in (0, 1, 2))  # 0.011, alike for the three
    limit = scipy.stats.t.ppf(0.975, 6) * math.sqrt(2) * sd
    with open(published.FILE, newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["table"] == "ablation" and r["metric"] == "mAP@all"]
    for root, task, places in ((tmp_path, SKETCHY, ("sketchy",)), (tmp_path / "laptop", EMOJI, ("sketchy", "tuberlin"))):
        text = evidence.paper_gaps(read_suite(root), task)
        assert f"{sd:.3f}" in text[0] and f"{limit:.3f}" in text[0] and ("other drawings" in text[0]) == (task == EMOJI)
        for sentence, place in zip(text[1:], places, strict=True):
            facts = [(r["method"], float(r["value"])) for r in rows if r["dataset"] == place]
            gaps = [abs(a - b) for (m, a), (n, b) in combinations(facts, 2) if m.split(":")[0] == n.split(":")[0]]
            below = sum(gap < limit for gap in gaps)
            assert f"{below} of the {len(gaps)} gaps" in sentence and 0 < below < len(gaps)
            assert ("0.582" in sentence) == (task == SKETCHY)
    runs(tmp_path / "one", {"tcn": [0.4]})
    assert evidence.paper_gaps(read_suite(tmp_path / "one"), EMOJI) == []


def write_digits(root: Path, data: str, accuracies: dict[str, list[float]]) -> None:
    """Runs of the extension as its benchmark writes them."""
    for method, by_seed in accuracies.items():
        for seed, value in enumerate(by_seed):
            folder = root / "extension" / "runs" / f"{method}__seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").write_text(json.dumps({
                "data": data, "method": method, "title": method, "seed": seed, "target_accuracy": value, "source_accuracy": 0.9,
                "steps": 1234, "seconds": 1.0}))


@pytest.mark.parametrize("data", [extension.MNIST, "digits at hand"])
def test_extension_is_judged_on_its_own_runs_and_offline_ones_are_no_verdict_on_the_paper(tmp_path, data):
    runs(tmp_path, {"tcn": [0.4]})
    write_digits(tmp_path, data, {"dann-coupled": rise(0.5), "dann": rise(0.4), "source-only": rise(0.45)})
    table = claims.table(read_suite(tmp_path))
    headings = [c.name for c in table.columns]
    coupled, dann = (dict(zip(headings, runs_of(table, name))) for name in ("DANN + coupled against", "DANN against"))
    whole = dict(zip(headings, runs_of(table, "Coupling helps")))
    laptop = next(h for h in headings if h.startswith("Laptop"))
    assert coupled["Measured difference [95% interval]"] == "+0.100 [+0.100, +0.100]" and coupled["Seeds"] == "6 seeds"
    if data == extension.MNIST:
        assert [row["Verdict on the paper's data sets"] for row in (whole, coupled, dann)] == ["does not", "holds", "does not"]
        assert {row[laptop] for row in (whole, coupled, dann)} == {"not measured"}
    else:
        assert {row["Verdict on the paper's data sets"] for row in (whole, coupled, dann)} == {"not measured"}
        assert coupled[laptop] == "holds (digits at hand, 1,234 steps)" and dann[laptop].startswith("does not, on this data")
    write_suite(tmp_path, ("tcn",), (0,), "sketchy", "1")
    row = runs_of(claims.table(read_suite(tmp_path)), "DANN + coupled against")
    assert "0.939 against 0.924" in row  # Table 5
    assert ("+0.100 [+0.100, +0.100]" in row) == (data == extension.MNIST)


# --- controls


def test_controls_show_differences_and_how_far_the_convolutions_went(tmp_path):
    folders = runs(tmp_path, {"tcn": [0.40, 0.41], "frozen-conv": [0.30], "hard-conv": [0.45]})
    set_distances(folders["tcn", 0], 1.0, 0.1)
    set_distances(folders["tcn", 1], 2.0, 0.2)
    suite = read_suite(tmp_path)
    table = claims.controls(suite, EMOJI)
    own = runs_of(table, naming.label("tcn"))
    # both convolutions 1 away: sqrt(2) of a start of 5; the second seed twice that; apart a tenth of the way in both
    assert own[-3:] == [f"{statistics.fmean([math.sqrt(2) / 5, 2 * math.sqrt(2) / 5]):.1%}", "10.0%", "s0–1"]
    frozen = runs_of(table, naming.label("frozen-conv"))
    assert frozen[2].startswith("+0.10") and "above in 1 of 1 seed" in frozen[7] and frozen[-3:] == ["–", "–", "s0"]
    assert "not measured" in runs_of(table, naming.label("l2-sp"))
    frozen, common = (next(note for note in table.notes if note.startswith(f"“Soft sharing is more than {what}"))
                      for what in ("near-frozen", "one set"))
    assert "The difference points to more" in frozen and "cannot be told" in frozen and naming.short_label("l2-sp") in frozen
    assert "The difference points to less; with fewer than 6 common seeds" in common
    assert {frozen, common} <= set(claims.table(suite).notes)
    assert any("TCN 42.4% and 10.0%" in note for note in table.notes)
    assert claims.controls(read_suite_of(tmp_path / "plain", ("tcn", "hws")), EMOJI) is None


def read_suite_of(root: Path, variants: tuple[str, ...], seeds: tuple[int, ...] = (0,)):
    write_suite(root, variants, seeds, pictures=False)
    return read_suite(root)


def test_evidence_concludes_by_the_rule(tmp_path):
    folders = runs(tmp_path, {"tcn": rise(0.45), "frozen-conv": rise(0.30), "hard-conv": rise(0.30), "l2-sp": rise(0.35)})
    assert ["So it is more than that here" in text for text in evidence.of_controls(read_suite(tmp_path), EMOJI)] == [True, True]
    for seed, level in enumerate(rise(0.6)):
        set_classes(folders["hard-conv", seed], np.linspace(level - 0.1, level + 0.1, 12))
    frozen, common = evidence.of_controls(read_suite(tmp_path), EMOJI)
    assert "So it is more than that here" in frozen and "So it is not more than that here" in common


def test_answer_to_why_follows_the_controls(tmp_path):
    spread = [0.30, 0.302, 0.298, 0.301, 0.299, 0.303]
    lower, higher = ([v + d for v in spread] for d in (-0.1, 0.1))
    for name, levels, state, words in (
            ("yes", {"frozen-conv": lower, "l2-sp": lower, "hard-conv": lower}, "yes",
             ["one set of convolutions: holds (+0.", "near-frozen convolutions: holds (+0."]),
            ("no", {"frozen-conv": lower, "l2-sp": lower, "hard-conv": higher}, "no",
             ["near-frozen convolutions: holds", "one set of convolutions: does not (−0.", "6 seeds"]),
            ("open", {"hard-conv": lower[:1]}, "open",
             ["near-frozen convolutions: not measured", "one set of convolutions: cannot be told", "1 seed"])):
        runs(tmp_path / name, {"tcn": spread, **levels})
        verdict = evidence.why(read_suite(tmp_path / name), EMOJI)
        assert verdict.state == state and all(text in verdict.answer for text in words), verdict
    runs(tmp_path / "none", {"tcn": spread})
    assert evidence.why(read_suite(tmp_path / "none"), EMOJI) is None


def test_papers_weight_is_tcn_itself_where_that_is_its_own(tmp_path):
    write_suite(tmp_path, ())
    for variant, level in (("tcn", 0.4), ("frozen-conv", 0.3), ("l2-sp", 0.35)):
        folder = write_run(tmp_path, variant, 0, losses__sharing=1000.0)
        set_classes(folder, np.full(12, level))
        (folder / "distances.npz").unlink(missing_ok=True)
    suite = read_suite(tmp_path)
    row = next(r for r in judging.claims(suite) if r.claim.key == "near-frozen-1000")
    assert [(f.pair.first, f.pair.second) for f in row.found[EMOJI]] == [("tcn", "frozen-conv"), ("tcn", "l2-sp")]
    assert [f.comparison.difference for f in row.found[EMOJI]] == pytest.approx([0.1, 0.05])
    assert len(evidence.of_controls(suite, EMOJI)) == 1
    table = claims.controls(suite, EMOJI)
    assert sum(row.kind == "section" for row in table.rows) == 1 and runs_of(table, naming.label("hws"))


# --- rendering


@pytest.mark.parametrize("variants, seeds", [
    (("hws",), (0,)), (("untrained-svd",), (0,)), (("tcn", "hws", "nws", "frozen-conv"), (0,)),
    (("tcn", "tcn-weight-1000", "l2-sp-weight-1000"), SIX)])
def test_everything_renders_with_one_seed_six_seeds_and_rows_missing(tmp_path, variants, seeds):
    suite = read_suite_of(tmp_path, variants, seeds)
    claimed = claims.table(suite)
    shown = [claimed, claims.comparisons(suite, EMOJI), claims.controls(suite, EMOJI)]
    for table in filter(None, shown):
        assert all(len(row.entries) == len(table.columns) for row in table.rows if row.kind != "section")
        for text in (table_html(table), table.to_latex(), table.to_markdown(), table.to_csv(), table.to_runs_csv()):
            assert text and "nan" not in text.lower()
    assert (shown[2] is None) == (not set(variants) & set(paper.CONTROLS))
    names = " ".join([*(row.entries[0].text for row in claimed.rows), claimed.notes[-1]])
    assert all(claim.statement in names for claim in judging.CLAIMS) and "Table 5" in names
    frame = claims.interval_frame(suite, EMOJI)
    assert list(frame.columns) == ["label", "difference", "low", "high", "seeds", "group"]
    assert len(frame) == {1: 0, 3: 1, 4: 4}[len(variants)]
    assert (frame["low"] <= frame["difference"]).all() and (frame["difference"] <= frame["high"]).all()
