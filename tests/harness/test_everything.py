"""The whole grid in one call: its order and seeds, what a budget cuts, what a second call plans, what the report says of it."""
from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from support.result_folders import write_suite
from support.small_suite import common, run_folders

import baselines
from benchmarks import everything, experiments, run_all
from benchmarks.everything import fitting
from benchmarks.experiments import CLAIM_SEEDS, PROFILES, PlannedRun, Stage, plan_everything
from benchmarks.extension import digits
from benchmarks.launch import jobs, power
from benchmarks.launch.cost import Cost, Estimate, Estimator, Sizes
from benchmarks.records import read_json, write_json
from reports import naming, paper
from reports.read.suite import read_suite
from reports.render.command import render
from reports.stats import judging, verdicts
from reports.tables import runs

SIZES = Sizes(1, 1, 1, 0, 0, 1, 1)


@pytest.fixture(scope="module")
def grid() -> list[list[PlannedRun]]:
    return plan_everything(PROFILES["paper"], None, {}, False)


def flat(blocks: list[list[PlannedRun]]) -> list[PlannedRun]:
    return [one_run for block in blocks for one_run in block]


# --- the grid ------------------------------------------------------------------------------------------------

def test_one_seed_of_baselines_and_main_rows_on_every_split_comes_first(grid):
    first = [(one_run.task, one_run.variant, one_run.seed) for one_run in flat(grid[:4])]
    assert first == [(task, variant, 2020) for task in ("sketchy/1", "sketchy/2", "tuberlin/1", "quickdraw/1")
                     for variant in (*baselines.UNTRAINED_BASELINES, *baselines.MAIN)]


def test_then_each_split_gets_all_seeds_of_them_before_anything_else(grid):
    second = [(one_run.task, one_run.seed) for block in grid[4:24] for one_run in block[:1]]
    assert second == [(task, seed) for task in ("sketchy/1", "sketchy/2", "tuberlin/1", "quickdraw/1")
                      for seed in range(2021, 2026)]
    assert all({one_run.variant for one_run in block} == {*baselines.UNTRAINED_BASELINES, *baselines.MAIN}
               for block in grid[4:24])
    assert {one_run.variant for one_run in grid[24]} == {"hard-conv"}


def test_the_rest_comes_in_the_order_of_what_it_tells(grid):
    place = {}
    for number, one_run in enumerate(flat(grid)):
        place.setdefault(one_run.variant, []).append(number)
    order = (("hard-conv",), ("frozen-conv", "l2-sp", "squared", "hws-slow", "hard-conv-slow"), ("tcn-bht", "hws-10-1"),
             ("couple-stem", "tcn-own-embedding"), ("tcn-weight-0.1", "tcn-weight-10000"), ("tcn-dim-32", "tcn-dim-512"),
             ("class-only", "sake"), ("ledger-words", "tcn-as-released"))
    for sooner, later in zip(order, order[1:]):
        assert max(place[variant][0] for variant in sooner) < min(place[variant][0] for variant in later)
    # The further seeds of the ablation's claims are the last of all, since their first seed shows the table.
    assert place["tcn-bht"][4] > max(place["tcn-as-released"]) and len(place["tcn-bht"]) == 4 * 6


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_each_row_of_the_papers_tables_is_planned_once_with_the_seeds_its_claims_need(profile):
    assert CLAIM_SEEDS == verdicts.SIGN_TEST_SEEDS
    planned = flat(plan_everything(PROFILES[profile], None, {}, False))
    assert len({one_run.name for one_run in planned}) == len(planned)
    own = len(PROFILES[profile].seeds)
    compared = ({name for claim in judging.CLAIMS for pair in claim.pairs for name in (pair.first, pair.second)}
                | set(paper.UNTRAINED_BASELINES))
    named = {*paper.UNTRAINED_BASELINES, *paper.METHODS, *paper.CONTROLS, *paper.COUPLING, *paper.COUPLING_BESIDE,
             *baselines.LEDGER, *(row.variant for row in paper.ABLATION),
             *(f"tcn-dim-{d}" for d in paper.DIMENSIONS if d != paper.MAIN_DIMENSION),
             *(f"tcn-weight-{w:g}" for w in paper.WEIGHTS)}
    for task in {one_run.task for one_run in planned}:
        here = [one_run for one_run in planned if one_run.task == task]
        seeds = {variant: [one_run.seed for one_run in here if one_run.variant == variant] for variant in named | compared}
        for variant, found in seeds.items():
            if baselines.find(variant).grid_point and not found:
                continue  # another row has its settings, as the next test shows
            assert len(found) == (CLAIM_SEEDS if variant in compared else own), (task, variant)
        # Both sides of a comparison have the same seeds.
        assert len({tuple(sorted(found)) for variant, found in seeds.items() if variant in compared and found}) == 1


def test_a_weight_that_is_tcns_own_is_no_second_run_in_whatever_stage(grid):
    weights = {one_run.variant for one_run in flat(grid) if one_run.variant.startswith(("tcn-weight", "l2-sp"))}
    assert weights == {"tcn-weight-0.1", "tcn-weight-1", "tcn-weight-10", "tcn-weight-100", "tcn-weight-10000", "l2-sp"}
    laptop = {one_run.variant for one_run in flat(plan_everything(PROFILES["laptop"], None, {}, False))}
    assert {"tcn-weight-1000", "l2-sp-weight-1000"} <= laptop and "tcn-weight-1" not in laptop


def test_a_smoke_run_has_every_row_once_and_is_marked():
    quick = flat(plan_everything(PROFILES["laptop"], None, {}, True))
    full = flat(plan_everything(PROFILES["laptop"], None, {}, False))
    assert {one_run.variant for one_run in quick} == {one_run.variant for one_run in full}
    assert {one_run.seed for one_run in quick} == {0} and all(one_run.smoke for one_run in quick)
    assert {one_run.config.training.epochs for one_run in quick if one_run.trained} == {1}
    assert [one_run.name for one_run in quick] == [one_run.name for one_run in dict.fromkeys(full) if one_run.seed == 0]


# --- the budget ----------------------------------------------------------------------------------------------

BLOCKS = [["a", "b"], ["c", "d"], ["e"], ["f"]]
PRICES = {"a": 3, "b": 2, "c": 4, "d": 4, "e": 1, "f": 2}


@pytest.mark.parametrize("budget, kept", [(4, ""), (5, "ab"), (12, "ab"), (13, "abcd"), (14, "abcde"), (15.9, "abcde"),
                                          (16, "abcdef"), (99, "abcdef")])
def test_a_budget_keeps_whole_blocks_from_the_first_on(budget, kept):
    """Prices 5, 8, 1 and 2: with 12 the third block would fit into what the first leaves, but it comes after one that was cut."""
    found, cut = fitting(BLOCKS, PRICES.get, budget)
    assert ("".join(found), "".join(found + cut)) == (kept, "abcdef")


def test_rows_that_are_compared_with_each_other_are_one_block_and_rows_that_stand_alone_are_not(grid):
    for block in grid:
        assert len({(one_run.task, one_run.seed) for one_run in block}) == 1
        variants = {one_run.variant for one_run in block}
        for claim in judging.CLAIMS[:3]:  # TCN, HWS, NWS among themselves
            for pair in claim.pairs:
                assert (pair.first in variants) == (pair.second in variants)
        assert ("frozen-conv" in variants) == ("l2-sp" in variants)
        assert len(block) == 1 or not variants & {"couple-stem", "tcn-dim-32", "siamese", "ledger-words", "tcn-weight-10"}


TABLE = (Stage(("untrained-svd", "nws"), "own"), Stage(("hws",), "own"),
         Stage(("untrained-imagenet", "untrained-svd-permodality"), "own", apart=True))
HOURS = {"untrained-svd": 0.25, "nws": 1.0, "hws": 2.0, "untrained-imagenet": 0.5, "untrained-svd-permodality": 0.5}


@pytest.fixture
def priced(monkeypatch):
    """A small table in the place of EVERYTHING, and made-up prices; returns what may be changed."""
    factor = SimpleNamespace(value=1.0, asked=0)

    def price(self, one_run, whole=False):
        factor.asked += 1
        return Cost(one_run, "to do", SIZES, train=3600 * factor.value * HOURS[one_run.variant] if whole else 1.0)

    monkeypatch.setattr(experiments, "EVERYTHING", TABLE)
    monkeypatch.setattr(Estimator, "cost", price)
    monkeypatch.setattr(everything, "extension_seconds", lambda call: 600.0)
    return factor


def test_a_budget_cuts_the_plan_and_the_same_command_plans_the_same_runs_again(place, command, priced, overview_alone, tmp_path,
                                                                                     monkeypatch):
    """1.25 h and 2 h fit into 4 h, and one of the two rows of 0.5 h that stand alone; the extension takes 10 minutes more."""
    call = (*common(place), "--everything", "--datasets", "quickdraw", "--output", str(tmp_path / "out"))
    status, out, err = command(*call, "--budget", "4h")
    assert status == 0, err
    assert "budget of 4h: cut 1 run and the extension; a larger --budget takes them up" in out
    assert "quickdraw 1: untrained-svd-permodality (seed 2020)" in out
    done = {f"quickdraw-1__{variant}__seed2020" for variant in ("untrained-svd", "nws", "hws", "untrained-imagenet")}
    assert set(run_folders(tmp_path / "out")) == done
    head = read_json(tmp_path / "out" / "suite.json")
    assert (head["cut"]["budget"], head["cut"]["extension"]) == ("4h", True)
    assert [(c["dataset"], c["split"], c["variant"], c["seed"]) for c in head["cut"]["runs"]] == [
        ("quickdraw", "1", "untrained-svd-permodality", 2020)]
    # The report has a place for what was cut.
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "Left out by the budget of 4h" in page and "1 left out by the budget of 4h" in page
    # Whatever the rates are by now, the same command has the same plan, and nothing to do; nor is anything priced anew.
    for rate in (0.01, 100.0):
        priced.value, priced.asked = rate, 0
        status, out, _ = command(*call, "--budget", "4h", "--no-report")
        assert status == 0 and "0 runs done, 4 already finished" in out and "as in the earlier call" in out and not priced.asked
    assert read_json(tmp_path / "out" / "suite.json")["cut"] == head["cut"]
    # A larger budget takes up what was cut, and counts what is done.
    priced.value = 1.0
    status, out, _ = command(*call, "--budget", "5h", "--dry-run")
    assert status == 0 and "budget of 5h: all of it fits" in out and "untrained-svd-permodality" in out
    status, out, _ = command(*call, "--budget", "200m", "--dry-run")
    assert status == 0 and "cut 2 runs and the extension" in out
    # Without a budget all of it runs, and nothing is left out any more.
    monkeypatch.setattr(digits, "READINGS", 2)  # accuracies take longer than the smoke run's training
    status, out, err = command(*call)
    assert status == 0, err
    assert "1 run done, 4 already finished" in out
    assert read_json(tmp_path / "out" / "suite.json")["cut"] == {}
    found = {path.parent.name for path in (tmp_path / "out" / "extension" / "runs").glob("*/result.json")}
    assert found == {f"{method}__seed0" for method in digits.METHODS}
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "Left out by the budget" not in page and "Beyond retrieval" in page


def test_an_interrupted_budget_goes_on_with_its_plan(place, command, priced, tmp_path, monkeypatch):
    from benchmarks.launch import local

    call = (*common(place), "--everything", "--budget", "4h", "--datasets", "quickdraw", "--output", str(tmp_path / "out"),
            "--no-report")
    attempt, begun = local.attempt, []

    def stopped(one_run, *rest):
        begun.append(one_run.variant)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return attempt(one_run, *rest)

    monkeypatch.setattr(local, "attempt", stopped)
    assert command(*call)[0] == 130
    priced.value = 10.0
    assert command(*call)[0] == 0
    assert begun == ["untrained-svd", "nws", "nws", "hws", "untrained-imagenet"]


def test_a_damaged_record_of_the_cut_is_no_obstacle(place, command, priced, tmp_path):
    call = (*common(place), "--everything", "--datasets", "quickdraw", "--output", str(tmp_path / "out"), "--no-report",
            "--budget", "80m")
    assert command(*call)[0] == 0
    path = tmp_path / "out" / "suite.json"
    for damage in (["a list"], {"budget": "80m"}, {"budget": "80m", "extension": True, "runs": [{"seed": 1}]}):
        write_json(path, {**read_json(path), "cut": damage})
        status, out, err = command(*call)
        assert status == 0 and "budget of 80m: cut 3 runs and the extension;" in out, err


@pytest.mark.parametrize("arguments, words", [
    (["--everything", "--variants", "tcn"], "--everything runs all variants with the seeds that their claims need; "
                                            "leave out --variants"),
    (["--everything", "--seeds", "0", "--variants", "tcn"], "leave out --variants, --seeds"),
    (["--budget", "24h"], "--budget belongs to --everything"),
    (["--everything", "--budget", "2h", "--launcher", "ray"], "--launcher ray"),
    (["--everything", "--budget", "1m"], "--budget 1m is too short for the first part of the plan, the rows of quickdraw/1 "
                                         "with one seed, which take 1.25 h here"),
    (["--sync", "--everything"], "leave out --datasets, --everything"),
    (["--reproduce", "x", "--budget", "1h", "--everything"], "--everything, --budget"),
])
def test_options_that_contradict_are_refused(place, command, priced, tmp_path, arguments, words):
    status, _, err = command(*common(place), "--datasets", "quickdraw", "--output", str(tmp_path / "out"), *arguments)
    assert status == 2 and words in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_row_that_cannot_run_is_named_and_stops_no_other(place, command, priced, tmp_path, monkeypatch):
    """256 dimensions do not start from the SVD of test_resnet's 96: one row less, where `--variants` would be refused."""
    monkeypatch.setattr(experiments, "EVERYTHING", (Stage(("untrained-svd", "tcn-dim-256"), "own"),))
    monkeypatch.setattr(digits, "READINGS", 2)
    call = (*common(place), "--everything", "--datasets", "quickdraw", "--output", str(tmp_path / "out"), "--no-report")
    status, out, err = command(*call)
    assert status == 0, err
    assert "left out, and not measured: tcn-dim-256: dim is 256" in out and "1 run done" in out
    # What stops a whole data set still stops the call.
    monkeypatch.setattr(experiments, "EVERYTHING", (Stage(("untrained-svd", "nws"), "own"),))
    status, _, err = command(*call, "--set", "network.dim=128")
    assert status == 2 and "dim is 128" in err


@pytest.mark.parametrize("text", ["24", "h", "0h", "-3h", "1.5h", "3w", "\N{SUPERSCRIPT TWO}h"])
def test_a_budget_that_is_no_time_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        run_all.parser().parse_args(["--everything", f"--budget={text}"])
    assert "90m, 24h, 2d" in capsys.readouterr().err


def test_runs_that_compute_at_once_have_the_budget_each(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(everything, "Estimator", lambda *_: None)
    monkeypatch.setattr(everything, "within",
                        lambda call, text, seconds, _: (call, seen.append(seconds) or SimpleNamespace(lines=list)))
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    for device, *words in (("cuda",), ("cuda", "--launcher", "processes"), ("cuda:1", "--launcher", "processes"),
                           ("cuda", "--launcher", "processes", "--workers", "2"), ("cpu", "--launcher", "processes"),
                           ("cpu", "--launcher", "processes", "--threads", "2")):
        call = SimpleNamespace(device=torch.device(device), output=None, material=None, missing={})
        everything.within_budget(call, run_all.parser().parse_args(["--everything", "--budget", "2d", *words]), None)
    # Eight worker processes of one thread are about as fast as one of eight, which is what was measured.
    assert [seconds / 86400 for seconds in seen] == [2, 6, 2, 4, 2, 2 * 4]


def test_data_sets_that_are_not_here_take_nothing_of_a_budget(place, command, priced):
    """A plan prices them; cutting what is here by their cost would plan another call than the one that will run."""
    status, out, _ = command(*common(place), "--everything", "--budget", "4h", "--output", str(place / "nothing"), "--dry-run")
    assert status == 0 and "cut 1 run and the extension" in out and "sketchy" in out


# --- the price of it -----------------------------------------------------------------------------------------

def test_the_plan_has_a_line_for_each_row_with_its_hours_and_energy():
    planned = flat(plan_everything(PROFILES["laptop"], None, {}, False))
    costs = [Cost(one_run, "to do", SIZES, 1, 10, 1800.0, 360.0, 0.0) for one_run in planned
             if one_run.variant in ("tcn", "tcn-bht")]
    costs[1] = replace(costs[1], state="finished, 14/14 epochs", pairs=0, train=0.0, extract=0.0)
    table = Estimate(costs, watts=500.0).by_row()
    assert table[["variant", "seeds", "state", "pairs left", "hours", "kWh"]].to_dict("records") == [
        {"variant": "tcn", "seeds": 6, "state": "5 to do, 1 finished", "pairs left": "50", "hours": "3.00", "kWh": "1.5"},
        {"variant": "tcn-bht", "seeds": 6, "state": "6 to do", "pairs left": "60", "hours": "3.60", "kWh": "1.8"}]
    assert "kWh" not in Estimate(costs).by_row() and isinstance(table, pd.DataFrame)


def test_watts_are_those_that_nvidia_smi_tells(tmp_path, monkeypatch):
    told = iter(["80.0", "612.5", "[N/A]", "640.25", "Unable to determine the device handle", "655"])
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{line}\n" for line in told))
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --id=GPU-7 ] || exit 6\nhead -n 1 {lines}\nsed -i 1d {lines}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(power, "EVERY_SECONDS", 0.0)
    with power.drawn("GPU-7") as samples:
        while lines.read_text():
            pass
    assert samples == [80.0, 612.5, 640.25, 655.0] and power.middle(samples) == 626.375
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with power.drawn("GPU-7") as samples:
        pass
    assert samples == [] and power.middle(samples) == 0.0 and power.name_of(torch.device("cpu")) == ""


# --- the report ----------------------------------------------------------------------------------------------

def cut_of(*rows: tuple[str, int]) -> dict[str, object]:
    return {"budget": "24h", "extension": True, "runs": [
        {"dataset": "emoji", "split": "fixed", "variant": variant, "seed": seed,
         "folder": f"runs/emoji-fixed__{variant}__seed{seed}__{seed:08x}"} for variant, seed in rows]}


def with_cut(root: Path, cut: object) -> None:
    write_suite(root, ("tcn", "hws", "nws"), seeds=(0, 1), pictures=False)
    path = root / "suite.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cut": cut}))


def test_the_report_says_which_rows_a_budget_cut_and_that_they_are_not_measured(tmp_path):
    with_cut(tmp_path, cut_of(("tcn", 2), ("tcn", 3), ("hard-conv", 0), ("nws", 1)))
    suite = read_suite(tmp_path)
    [task] = suite.tasks()
    # NWS has its seed 1: a later call took it up.
    assert suite.cut_rows == {(task, "tcn"): {2, 3}, (task, "hard-conv"): {0}}
    assert suite.planned[task, "tcn"] == {0, 1, 2, 3} and suite.planned[task, "nws"] == {0, 1} and not suite.unfinished
    title = naming.task_title(task)
    assert [tuple(entry.text for entry in row.entries) for row in runs.cut(suite).rows] == [
        (f"{title}: {naming.short_label('hard-conv')}", "0", "not measured"), (f"{title}: TCN", "2 and 3", "some"),
        ("The extension on digits", "all", "not measured")]
    text = (render(tmp_path, tmp_path / "report").parent / "report.md").read_text()
    assert "Left out by the budget of 24h" in text and "3 left out by the budget of 24h" in text and "2/4" in text


@pytest.mark.parametrize("damage, words",
                         [("soon", "cut"), ({"runs": "all"}, "cut, runs"), ({"runs": [{"seed": -1}]}, "entry 1 of its cut runs")])
def test_a_damaged_record_of_the_cut_costs_itself_alone(tmp_path, damage, words):
    with_cut(tmp_path, damage)
    suite = read_suite(tmp_path)
    assert len(suite.runs) == 6 and not suite.cut_rows and any(words in reason for _, reason in suite.left_out)
