"""Several output folders in one report: the same tables as one folder with all runs, and nothing shown twice."""
from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path

import pytest
from support.result_folders import write_pictures, write_suite

from reports.figure_kinds import PATHS
from reports.figures import feature_frames
from reports.read.files import ReportError
from reports.read.joined import read_suites
from reports.read.suite import read_suite
from reports.render import command
from reports.tables import claims, comparison

PARTS = ((("tcn", "nws"), (0, 1, 2)), (("tcn", "nws"), (3, 4, 5)), (("hws", "hard-conv"), range(6)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three folders: two rows by seeds, and two more rows."""
    roots = [tmp_path_factory.mktemp(f"part{number}") for number in range(len(PARTS))]
    for root, (variants, seeds) in zip(roots, PARTS):
        write_suite(root, variants, seeds, class_spread=0.3, pictures=False)
    return roots


def test_runs_in_parts_give_the_tables_of_one_folder_with_all(parts, tmp_path):
    """Means, intervals, tests and verdicts; rows whose seeds lie in two folders among them."""
    write_suite(tmp_path, ("tcn", "nws", "hws", "hard-conv"), range(6), class_spread=0.3, pictures=False)
    whole, joined = read_suite(tmp_path), read_suites(parts)
    [task] = joined.tasks()
    for table in (claims.table, *(partial(make, task=task)
                                  for make in (comparison.comparison, comparison.cutoffs, claims.comparisons))):
        first, second = table(joined), table(whole)
        assert (first.to_markdown(), first.to_csv()) == (second.to_markdown(), second.to_csv())
    assert "6/6" in comparison.comparison(joined, task).to_markdown()
    assert all("3/3" in comparison.comparison(suite, task).to_markdown() for suite in map(read_suite, parts[:2]))


def test_a_run_that_stands_in_two_folders_is_shown_once(parts, tmp_path):
    copied, changed = (shutil.copytree(parts[0], tmp_path / name) for name in ("copied", "changed"))
    target = next(changed.glob("runs/*__tcn__seed1__*")) / "metrics.csv"
    lines = target.read_text().splitlines()
    target.write_text("\n".join([lines[0], lines[1].replace("0.", "0.0", 1), *lines[2:]]) + "\n")
    suite = read_suites([parts[0], copied, changed])
    assert len(suite.runs) == len(read_suite(parts[0]).runs) and {run.folder.parents[1] for run in suite.runs} == {parts[0]}
    why = {parts[0].parent / name: reason for name, reason in suite.left_out}
    assert len(why) == 12 and all(f"stands in {parts[0].name}/runs, " in reason for reason in why.values())
    assert [path.resolve() for path, reason in why.items() if "other numbers" in reason] == [target.parent.resolve()]
    assert sum("the same numbers" in reason for reason in why.values()) == 11


def test_a_seed_that_one_folder_lacks_is_done_where_another_has_it(parts, tmp_path):
    """A plan whose run never started is no gap once the run is found elsewhere; one found nowhere stays a gap."""
    plan = tmp_path / "plan"
    write_suite(plan, ("tcn", "squared"), (3, 7), pictures=False)
    for folder in plan.glob("runs/*"):
        if "squared__seed3" not in folder.name:
            shutil.rmtree(folder)
    suite = read_suites([plan, *parts])
    assert {(left.variant, left.seed) for left in suite.unfinished} == {("tcn", 7), ("squared", 7)}
    [task] = suite.tasks()
    assert suite.planned[task, "tcn"] == {0, 1, 2, 3, 4, 5, 7}


def test_pictures_of_a_further_folder_are_found_from_the_report(tmp_path, capsys, overview_alone):
    """Example pictures and sheets that lie in the second folder; the page links each run where it is."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_suite(first, ("nws",), pictures=False)
    made = write_suite(second, ("tcn",))
    write_pictures(second, made["tcn", 0])
    assert command.main(["--results", str(first), str(second), "--out", str(tmp_path / "both")]) == 0
    page = (tmp_path / "both" / "index.html").read_text()
    assert f'href="../second/runs/{made["tcn", 0].name}' in page and 'href="../first/runs/' in page
    assert "no small pictures" not in page and str(tmp_path) not in page
    assert page.count('<code class="command">') == 2, "the command of each folder"
    suite = read_suites([first, second])
    [task] = suite.tasks()
    figure = feature_frames.retrieval(suite, task)
    assert figure is not None
    figure.saved(first).to_csv(tmp_path / "figure.csv", index=False)
    with open(tmp_path / "figure.csv", newline="") as file:
        files = {row[column] for row in csv.DictReader(file) for column in PATHS if row.get(column)}
    assert files and all(name.startswith("../second/runs/") and (first / name).is_file() for name in files)


def test_what_can_not_be_joined_is_named(parts, tmp_path, capsys):
    write_suite(tmp_path, ("tcn",), dataset="sketchy", split="1", pictures=False)
    with pytest.raises(ReportError, match="profile laptop, .* of paper; .* one by one"):
        read_suites([parts[0], tmp_path])
    with pytest.raises(ReportError, match="a folder twice"):
        read_suites([parts[0], parts[0] / ".." / parts[0].name])
    assert command.main(["--results", *map(str, parts)]) == 2
    assert "name a folder for it with --out" in capsys.readouterr().err
    assert not any((root / "report").exists() for root in parts)
