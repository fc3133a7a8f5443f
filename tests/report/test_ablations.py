"""Tables beside the comparison: each value is worked out again from the made-up numbers; what was not run says so."""
from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
from support.result_folders import (
    ABLATION_VARIANTS,
    COUPLING_VARIANTS,
    DIMENSION_VARIANTS,
    METHOD_VARIANTS,
    WEIGHT_VARIANTS,
    made_up,
    write_run,
    write_suite,
)

import baselines
from reports import naming, paper
from reports.figures import frames
from reports.read.runs import Score
from reports.read.schema import Task
from reports.read.suite import Suite, read_suite
from reports.render import story
from reports.stats import verdicts
from reports.tables import ablations, comparison, entries
from reports.tables.table import Row, Table

EMOJI = Task("emoji", "fixed")


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    """TCN, HWS and NWS with three seeds, all rows of the paper's tables with one; two planned rows were not run."""
    root = tmp_path_factory.mktemp("whole")
    main = ("tcn", "hws", "nws", "untrained-svd")
    write_suite(root, main, seeds=(0, 1, 2), pictures=False)
    rest = [v for v in dict.fromkeys((*ABLATION_VARIANTS, *COUPLING_VARIANTS, *DIMENSION_VARIANTS, *WEIGHT_VARIANTS,
                                      *METHOD_VARIANTS)) if v not in main and v not in ("hws-10-1", "sake")]
    write_suite(root, rest, pictures=False)
    return read_suite(root)


def row(table: Table, name: str, section: str = "") -> Row:
    """The row of that name, in that section where one is named."""
    inside = not section
    for found in table.rows:
        if found.kind == "section":
            inside = not section or found.entries[0].text == section
        elif inside and found.entries[0].text == name:
            return found
    raise AssertionError(f"no row '{name}' in {table.name}")


def at(table: Table, heading: str) -> int:
    """Index of the column whose full heading it is."""
    return [column.full for column in table.columns].index(heading)


def test_ablation_has_the_papers_13_rows_in_its_groups_and_names_the_seeds_of_each_run(suite):
    table = ablations.ablation(suite, EMOJI)
    groups: dict[str, list[str]] = {}
    for found in table.rows:
        if found.kind == "section":
            group = groups.setdefault(found.entries[0].text, [])
        elif found.kind == "data":
            group.append(found.entries[0].text)
    assert {name: len(rows) for name, rows in groups.items()} == {"Weight sharing": 5, "Semantic metric": 6, "Teacher": 2}
    column = at(table, "mAP@all, measured, released")
    for line in paper.ABLATION:
        seeds = (0, 1, 2) if line.variant in ("tcn", "hws", "nws") else (0,) if line.variant != "hws-10-1" else ()
        entry = row(table, line.label, line.group).entries[column]
        if not seeds:
            assert entry.text == "not measured"
            continue
        values = [made_up(line.variant, seed, "mAP@all") for seed in seeds]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        assert entry.text == f"{statistics.fmean(values):.3f}{spread} ({'s0–2' if len(seeds) == 3 else 's0'})"
    assert not any("published" in c.full for c in table.columns)


def test_differences_to_tcn_are_over_the_common_seeds(suite):
    table = ablations.ablation(suite, EMOJI)
    # made up: NWS .28, TCN .30 in every seed; BHT .285 with seed 0 alone
    column = at(table, "mAP@all, same seeds, difference to TCN")
    assert row(table, "without (NWS)").entries[column].text == "−0.020 ± 0.000"
    assert row(table, "BHT").entries[column].text == "−0.015 (1 seed)"
    assert row(table, "soft (TCN)").entries[column].text == "–"


def test_every_row_of_the_tables_is_one_delta_of_the_suites_variants(suite):
    """What the tables ask for can be run: names and coupled parts agree with the variants that the command knows."""
    asked = {variant for extra in ablations.extras(suite, EMOJI) for variant in extra.variants}
    assert asked <= set(baselines.VARIANTS)
    for name, group in (("ablation", "ablation"), ("coupling", "coupling"), ("methods", "methods")):
        extra = next(e for e in ablations.extras(suite, EMOJI) if e.group == name)
        assert set(extra.variants) == set(baselines.GROUPS[group]) - {"tcn", "hws", "nws"}
    from tcn.config import Config, change, flatten, to_dict
    for variant, parts in ablations.COUPLED.items():
        config = flatten(to_dict(change(Config(), baselines.find(variant).delta)))
        assert {part: config[f"coupling.{part}"] for part in parts} == parts, variant


def test_coupling_reads_the_runs_settings_and_else_what_the_variant_means(tmp_path):
    write_suite(tmp_path, ("tcn", "couple-stage2"))
    head = json.loads((tmp_path / "suite.json").read_text())
    head["runs"].append({"dataset": "emoji", "split": "fixed", "variant": "couple-norms", "seed": 0, "folder": "x",
                          "identity": "x"})
    (tmp_path / "suite.json").write_text(json.dumps(head))
    folder = next(path for path in (tmp_path / "runs").iterdir() if "couple-stage2" in path.name)
    config = json.loads((folder / "config.json").read_text())
    config["coupling"] = {**ablations.COUPLED["couple-stage2"], "embedding": "none"}
    (folder / "config.json").write_text(json.dumps(config))
    table = ablations.coupling(read_suite(tmp_path), EMOJI)
    said = [entry.text for entry in row(table, naming.label("couple-stage2")).entries[1:10]]
    assert said == ["tied", "tied", "tied", "apart", "apart", "apart", "apart", "apart", "two calls"]
    said = [entry.text for entry in row(table, naming.label("couple-norms")).entries[1:11]]
    assert said == ["tied"] * 6 + ["apart", "one", "two calls", "not measured"]
    assert [r.entries[0].text for r in table.rows if r.kind == "data"] == [
        naming.label(v) for v in (*paper.COUPLING, *paper.COUPLING_BESIDE)]


def test_weights_fall_back_on_tcn_at_its_own_weight(suite):
    table = ablations.sharing_weights(suite, EMOJI)
    shown = [r.entries[0].text for r in table.rows if r.kind == "data"]
    assert shown == ["0.1", "1", "10", "100", "1000", "10000"]
    unseen, remark = at(table, "mAP@all, unseen classes, released"), at(table, "Remark")
    own = row(table, "10").entries
    # TCN's own weight is 10 here: three seeds of TCN, no row of the grid
    assert own[unseen].value == pytest.approx(statistics.fmean(made_up("tcn", s, "mAP@all") for s in (0, 1, 2)))
    assert "used by TCN" in own[remark].text and {run.variant for run in own[unseen].runs} == {"tcn"}
    assert row(table, "100").entries[unseen].value == pytest.approx(made_up("tcn-weight-100", 0, "mAP@all"))
    assert "the paper's" in row(table, "1000").entries[remark].text


def test_the_highest_weight_is_told_over_common_seeds(tmp_path):
    """A row with a lucky further seed must not win by it."""
    write_suite(tmp_path, ("tcn",), seeds=(0, 1))
    write_suite(tmp_path, ("tcn-weight-100",))
    folder = write_run(tmp_path, "tcn-weight-100", 5)
    _scale(folder / "metrics.csv", 2.0)
    suite = read_suite(tmp_path)
    table = ablations.sharing_weights(suite, EMOJI)
    score = Score("mAP@all", classes="validation")
    assert suite.measure(EMOJI, "tcn-weight-100", score).mean > suite.measure(EMOJI, "tcn", score).mean
    assert "highest on validation (seed 0)" in row(table, "10").entries[-1].text
    assert "highest" not in row(table, "100").entries[-1].text


def _scale(path: Path, factor: float) -> None:
    with path.open(newline="") as source:
        rows = list(csv.DictReader(source))
    for line in rows:
        line["value"] = str(min(1.0, float(line["value"]) * factor))
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_dimensions_hold_real_and_binary_under_both_rules(suite):
    table = ablations.dimensions(suite, EMOJI)
    for section, kind, unit in (("Real-valued features", "real", "dimensions"),
                                ("Binary codes (ITQ), Hamming distance", "binary", "bits")):
        for dimension in (32, 128, 256, 512):
            found = row(table, f"{dimension} {unit}", section)
            for rule in paper.RULES:
                for metric in ("mAP@all", "Prec@R"):
                    assert found.entries[at(table, f"{metric}, {rule}")].value == pytest.approx(
                        made_up(f"tcn-dim-{dimension}", 0, metric, rule, kind))
    names = [r.entries[0].text for r in comparison.comparison(suite, EMOJI).rows]
    assert names.count("TCN, 512 dimensions") == 2 and not any("256" in name for name in names)


def test_methods_say_what_they_are_and_what_is_not_faithful(suite):
    table = ablations.methods(suite, EMOJI)
    told = at(table, "What it is, and what is not faithful to its source")
    released = at(table, "mAP@all, released")
    assert "Not faithful" in row(table, naming.label("sake")).entries[told].text
    assert row(table, naming.label("sake")).entries[released].text == "not measured"
    triplet = row(table, naming.label("triplet"), "Trained").entries[released]
    assert triplet.value == pytest.approx(made_up("triplet", 0, "mAP@all"))
    assert row(table, naming.label("teacher-pca"), "Not trained").entries[released].runs
    assert row(table, naming.label("untrained-svd"), "Not trained").entries[released].text.endswith("(s0–2)")


def test_a_teacher_by_pca_counts_as_a_baseline(tmp_path):
    write_suite(tmp_path, ("tcn", "untrained-svd"))
    folder = write_run(tmp_path, "teacher-pca", 0)
    _scale(folder / "metrics.csv", 2.5)
    verdict = verdicts.beats_untrained(read_suite(tmp_path), EMOJI)
    assert verdict.state == "no" and any("Teacher, PCA" in detail for detail in verdict.details)


def test_a_plain_call_says_in_one_table_what_it_did_not_measure(tmp_path):
    write_suite(tmp_path, ("tcn", "hws", "nws", "untrained-svd"))
    suite = read_suite(tmp_path)
    builders = (ablations.ablation, ablations.coupling, ablations.sharing_weights, ablations.dimensions, ablations.methods,
                ablations.further)
    assert all(builder(suite, EMOJI) is None for builder in builders)
    table = ablations.not_measured(suite, EMOJI)
    commands = {r.entries[0].text: r.entries[3].text for r in table.rows}
    assert {c.split("--variants ")[1].split()[0] for c in commands.values()} == {
        "ablation", "coupling", "weights", "dimensions", "methods", "controls"} and "paper-on-a-laptop" in table.notes[0]
    assert "tcn-dim-512" not in paper.main_variants(suite, EMOJI)
    shown = story.tables_of(story.sections(suite, {EMOJI: []}, {}, []))
    empty = [r for t in shown if "not-measured" not in t.name and t.name != "claims" for r in t.rows
             if any(e.text == "not measured" for e in r.entries)]
    assert len(empty) < 5, [(r.entries[0].text) for r in empty]


def test_tables_of_a_paper_data_set_say_what_is_missing_and_how_to_get_it(tmp_path):
    write_suite(tmp_path, ("tcn", "tcn-dim-128"), dataset="sketchy", split="2")
    suite = read_suite(tmp_path)
    task = Task("sketchy", "2")
    assert row(ablations.dimensions(suite, task), "512 dimensions").entries[1].text == "not measured"
    rows = {r.entries[0].text: r.entries[3].text for r in ablations.not_measured(suite, task).rows}
    assert "Dimensions" not in rows and "--profile paper --datasets sketchy/2 --variants coupling" in rows["What is coupled"]
    write_suite(tmp_path / "part", ("tcn",), dataset="sketchy-first25", split="2", seeds=(3, 4))
    commands = ablations.not_measured(read_suite(tmp_path / "part"), Task("sketchy-first25", "2")).to_markdown()
    assert "--datasets sketchy/2 --sample 25 --variants coupling --seeds 3" in commands and "--data-root" in commands
    wide = row(comparison.comparison(suite, task), "TCN, 512 dimensions", "Real-valued features")
    assert wide.entries[2].text == "not measured"


def test_nothing_is_dropped_and_no_row_of_its_own_stands_twice(tmp_path):
    """Every variant found stands in a table; what is no reference row of several tables stands in one."""
    found = (*baselines.VARIANTS, "something-else")
    write_suite(tmp_path, found, pictures=False)
    suite = read_suite(tmp_path)
    groups = {v: paper.group_of(suite, v) for v in found}
    assert groups["something-else"] == "" and groups["tcn-shared-bn"] == "coupling" and groups["tcn-no-teacher"] == "ablation"
    assert {v for v, g in groups.items() if g == "controls"} == set(paper.CONTROLS)
    assert {v for v, g in groups.items() if g == ""} == {"something-else"}
    named = [variant for _, _, variants in paper.GROUPS for variant in variants if variant not in ("tcn", "hws", "nws")]
    assert len(named) == len(set(named))
    assert all(naming.label(v) != v and naming.short_label(v) != v for v in baselines.VARIANTS)
    assert len({naming.label(v) for v in baselines.VARIANTS}) == len(baselines.VARIANTS)
    rows = [r.entries[0].text for r in ablations.further(suite, EMOJI).rows if r.kind == "data"]
    assert rows == ["something-else"]


def test_time_adds_up_what_the_runs_say(suite):
    table = ablations.time_taken(suite)
    runs, training, whole = at(table, "Runs"), at(table, "Training in all"), at(table, "With data and scoring")
    last = table.rows[-1]
    # every made-up run took 754 s of training and 800 s in all, untrained baselines too
    assert last.entries[runs].value == len(suite.runs) and last.entries[whole].value == 800.0 * len(suite.runs)
    main = next(r for r in table.rows if r.entries[1].text.startswith("Comparison"))
    assert main.entries[runs].value == 9 and main.entries[training].value == 9 * 754.0
    assert main.entries[at(table, "Seeds")].text == "s0–2"
    assert sum(r.entries[runs].value for r in table.rows if r.kind == "data") == len(suite.runs)
    assert entries.duration(800.0 * len(suite.runs)) in ablations.time_sentence(suite)


def test_weight_and_length_of_a_row_are_what_its_runs_recorded(tmp_path):
    write_run(tmp_path, "tcn", 0)
    write_run(tmp_path, "tcn-weight-100", 0, losses__sharing=30.0)
    found = read_suite(tmp_path)
    assert dict(paper.weights(found, EMOJI))[30.0] == "tcn-weight-100" == paper.at_weight(found, EMOJI, 30.0)
    # nothing was run at 100, whatever that row is called
    not_run = dict(paper.weights(found, EMOJI))[100.0]
    assert not found.runs_of(EMOJI, not_run) and naming.label(not_run) == "TCN, sharing weight 100"
    folder = write_run(tmp_path, "tcn-dim-32", 0)
    (folder / "features.npz").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["network"]["dim"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    found = read_suite(tmp_path)
    assert dict(paper.dimensions(found, EMOJI))[48] == "tcn-dim-32"
    not_run = dict(paper.dimensions(found, EMOJI))[32]
    assert not found.runs_of(EMOJI, not_run) and naming.label(not_run) == "TCN, 32 dimensions"
    frame = frames.sharing_weight(found, EMOJI).frame
    assert set(frame["weight"]) == {10.0, 30.0}
