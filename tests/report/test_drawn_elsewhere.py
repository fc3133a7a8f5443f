"""The table of queries drawn elsewhere: means over seeds of both domains, their paired difference, and what is left out."""
from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from support.result_folders import write_suite

from reports import naming
from reports.read.schema import Task
from reports.read.suite import read_suite
from reports.render import command
from reports.tables import cross_dataset

TASK = Task("sketchy", "1")
SHIFT = {"in-domain": 0.0, "cross-domain": -0.05}
VARIANT = {"tcn": 0.4, "nws": 0.3, "hard-conv": 0.35}


def value(variant: str, seed: int, domain: str, protocol: str, metric: str) -> float:
    """Made-up, a formula: the difference of the domains grows with the seed."""
    base = VARIANT[variant] + SHIFT[domain] * (1 + seed) + 0.02 * seed
    return round(base + 0.05 * (protocol == "standard") - 0.07 * (metric == "Prec@100"), 6)


def write_scored(root: Path, folder: Path, variant: str, seed: int, digest: str = "ab" * 32, **changes: Any) -> Path:
    rows = [{"domain": domain, "protocol": protocol, "metric": metric, "value": value(variant, seed, domain, protocol, metric),
             "standard_error": 0.0, "chance": 0.04 if domain == "in-domain" else 0.05, "ceiling": 1.0,
             "queries": 30 if domain == "in-domain" else 44, "photos": 60}
            for domain in SHIFT for protocol in ("released", "standard") for metric in ("mAP@all", "Prec@100", "Prec@R")]
    found = {"run": folder.name, "identity": json.loads((folder / "config.json").read_text())["identity"], "variant": variant,
             "seed": seed, "dataset": "sketchy", "split": "1", "classes": ["swan", "harp", "cup"], "rows": rows,
             "drawings": {"name": "QuickDraw", "digest": digest, "settings": {"size": 256, "line": 3.0, "margin": 25.0,
                                                                             "unrecognised": True}}, **changes}
    path = root / "cross-dataset" / f"{folder.name}__{digest[:8]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Three variants with three seeds, of which one run of `nws` was not scored."""
    folders = write_suite(tmp_path, tuple(VARIANT), seeds=(0, 1, 2), dataset="sketchy", split="1")
    for (variant, seed), folder in folders.items():
        if (variant, seed) != ("nws", 1):
            write_scored(tmp_path, folder, variant, seed)
    return tmp_path


def row_of(table: str, name: str) -> list[str]:
    return next(row for row in csv.reader(table.splitlines()) if row[1] == name)


def test_both_domains_and_their_difference_by_seed(scored):
    (table,) = cross_dataset.tables(read_suite(scored), TASK)
    head = next(csv.reader(table.to_csv().splitlines()))
    for variant in VARIANT:
        seeds = [seed for seed in range(3) if (variant, seed) != ("nws", 1)]
        found = dict(zip(head, row_of(table.to_csv(), naming.label(variant))))
        for metric in ("mAP@all", "Prec@100"):
            for rule in ("released", "standard"):
                both = {domain: [value(variant, seed, domain, rule, metric) for seed in seeds] for domain in SHIFT}
                gaps = [there - here for here, there in zip(*both.values())]
                for column, values in (("in domain", both["in-domain"]), ("across", both["cross-domain"]), ("difference", gaps)):
                    name = f"{metric}, {rule}, {column}"
                    assert float(found[name]) == pytest.approx(statistics.fmean(values), abs=1e-9)
                    assert float(found[f"{name} (sd)"]) == pytest.approx(statistics.stdev(values), abs=1e-9)
        assert found["Seeds"] == f"{len(seeds)}/3"
    text = table.to_markdown()
    assert "*0.040* | *0.050* |" in text
    assert "3 unseen classes that both data sets have: cup, harp and swan" in text
    assert "30 in domain" in text and "44 across" in text and "all 60 photos" in text
    assert "size 256, line 3.0, margin 25.0; with drawings that the game did not recognise" in text


def test_every_number_leads_to_its_runs(scored):
    suite = read_suite(scored)
    (table,) = cross_dataset.tables(suite, TASK)
    lines = [line for line in csv.DictReader(table.to_runs_csv().splitlines()) if line["row"] == naming.label("nws")]
    wanted = {run.name for run in suite.runs if run.variant == "nws" and run.seed != 1}
    assert len(lines) == 13 and all(set(line["runs"].split()) == wanted for line in lines)


def test_two_sets_of_drawings_are_two_tables(scored):
    folder = next((scored / "runs").glob("*__tcn__seed0__*"))
    write_scored(scored, folder, "tcn", 0, digest="cd" * 32)
    first, second = cross_dataset.tables(read_suite(scored), TASK)
    assert first.name != second.name and row_of(second.to_csv(), naming.label("tcn"))[-1] == "1/3"
    assert len(second.rows) == 2


def test_seen_classes_have_a_table_of_their_own_with_a_block_for_each_kind_of_query(scored):
    """Beside the table of unseen photos, which stays as it is."""
    before = cross_dataset.tables(read_suite(scored), TASK)
    lift, counts = {"unseen": -0.02, "seen": 0.1, "all": 0.06}, {"unseen": (30, 44), "seen": (50, 66), "all": (80, 110)}
    for folder in sorted(scored.glob("runs/*__nws__*")):
        seed = int(folder.name.split("__seed")[1][0])
        rows = [{"domain": domain, "classes": group, "protocol": "released", "metric": "mAP@all", "chance": 0.01 * number,
                 "value": value("nws", seed, domain, "released", "mAP@all") + lift[group], "queries": queries, "photos": 240}
                for number, group in enumerate(lift, 1) for domain, queries in zip(SHIFT, counts[group])]
        path = write_scored(scored, folder, "nws", seed, rows=rows, gallery="all", unseen=["swan", "zebra"])
        path.rename(path.with_name(f"{path.stem}__all.json"))
        if seed != 1:  # the numbers for unseen photos, which were in that place
            write_scored(scored, folder, "nws", seed)
    first, second = cross_dataset.tables(read_suite(scored), TASK)
    assert first.to_csv() == before[0].to_csv() and second.name == f"{first.name}-2" and "all photos" in second.title
    lines = list(csv.DictReader(second.to_csv().splitlines()))
    found = [line for line in lines if line["Variant"] == naming.label("nws")]
    for line, group in zip(found, lift, strict=True):
        for domain, column in (("in-domain", "in domain"), ("cross-domain", "across")):
            expected = statistics.fmean(value("nws", seed, domain, "released", "mAP@all") for seed in range(3)) + lift[group]
            assert float(line[f"mAP@all, released, {column}"]) == pytest.approx(expected, abs=1e-9)
        assert line["Seeds"] == "3/3"
    text = second.to_markdown()
    places = [text.index(words) for words in cross_dataset.GROUPS.values()]
    assert places == sorted(places)
    assert [f"*0.0{number}0* | *0.0{number}0* |" in text for number in (1, 2, 3)] == [True] * 3
    assert "3 classes that both data sets have, 1 of them unseen: swan." in text and "which the networks were trained on" in text
    assert "30 of unseen classes, and 50 of seen ones" in text and "across: 44 and 66." in text and "all 240 photos" in text
    assert "38% of the queries in domain are of unseen ones, and 40% of those across" in text


def test_the_page_shows_it_and_only_where_it_was_scored(scored, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])
    command.render(scored, scored / "report")
    assert "Queries drawn elsewhere" in (scored / "report" / "index.html").read_text()
    assert (scored / "report" / "tables" / "sketchy-1-cross-dataset.csv").is_file()
    other = tmp_path_factory.mktemp("other")
    write_suite(other, ("tcn",), dataset="sketchy", split="1")
    command.render(other, other / "report")
    assert "Queries drawn elsewhere" not in (other / "report" / "index.html").read_text()


@pytest.mark.parametrize(("changes", "message"), [
    ({"run": "sketchy-1__tcn__seed9__00000000"}, "its run is not among the finished ones"),
    ({"identity": "f" * 64}, "scored with another run of this name"),
    ({"rows": [{"domain": "in-domain", "protocol": "released", "metric": "mAP@all", "value": 1.5, "queries": 3, "photos": 4}]},
     "row 1, value: expected a number from 0 to 1, found 1.5"),
    ({"rows": [{"domain": "elsewhere", "protocol": "released", "metric": "mAP@all", "value": 0.5, "queries": 3, "photos": 4}]},
     "expected in-domain or cross-domain"),
    ({"rows": 2 * [{"domain": "in-domain", "protocol": "released", "metric": "mAP@all", "value": 0.5, "queries": 3,
                    "photos": 4}]},
     "it holds a number twice"),
    ({"drawings": None}, "names no drawings"),
])
def test_what_can_not_be_trusted_is_named_and_left_out(scored, monkeypatch, changes, message):
    folder = next((scored / "runs").glob("*__hard-conv__seed0__*"))
    path = write_scored(scored, folder, "hard-conv", 0, **changes)
    found, left_out = cross_dataset.read(read_suite(scored))
    assert len(found) == 7 and [name for name, _ in left_out] == [f"cross-dataset/{path.name}"] and message in left_out[0][1]
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])
    command.render(scored, scored / "report")
    assert path.name in (scored / "report" / "report.md").read_text().replace("\\_", "_")


def test_names_from_the_file_are_escaped(scored, monkeypatch):
    folder = next((scored / "runs").glob("*__hard-conv__seed0__*"))
    write_scored(scored, folder, "hard-conv", 0, digest="ef" * 32, classes=["<script>alert(1)</script>"],
                 drawings={"name": "<b>drawn</b>", "digest": "ef" * 32, "settings": {}})
    monkeypatch.setattr(command, "_figures", lambda suite, task, cache: [])
    command.render(scored, scored / "report")
    page = (scored / "report" / "index.html").read_text()
    assert "<script>alert" not in page and "<b>drawn" not in page and "&lt;b&gt;drawn" in page


ODD = (None, True, "", "<script>alert(1)</script>", "\ud800", "../../etc", "a" * 5000, -1, 0, 0.5, 1e308, 10**400, float("nan"),
       float("inf"), [], [None], {}, {"a": {"b": []}}, [[1]])


def test_odd_values_in_any_field_cost_no_more_than_the_file(scored):
    """Whatever stands there: the table is made, and the numbers of the other runs are what they were."""
    suite = read_suite(scored)
    path = next((scored / "cross-dataset").glob("*__hard-conv__seed0__*"))
    whole = json.loads(path.read_text())
    expected = row_of(cross_dataset.tables(suite, TASK)[0].to_csv(), naming.label("tcn"))[2:]
    places = ([(key,) for key in whole] + [("drawings", key) for key in whole["drawings"]]
              + [("rows", 0, key) for key in whole["rows"][0]])
    for place in places:
        for value in ODD:
            found = json.loads(json.dumps(whole))
            target = found
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = value
            path.write_text(json.dumps(found))
            tables = cross_dataset.tables(suite, TASK)
            texts = [text for table in tables
                     for text in (table.to_csv(), table.to_markdown(), table.to_latex(), table.to_runs_csv())]
            assert not any("<script>alert" in text for text in texts[1::4])
            row = next(row for table in tables for row in csv.reader(table.to_csv().splitlines())
                       if row[1] == naming.label("tcn"))
            assert row[2:] == expected, (place, value)
