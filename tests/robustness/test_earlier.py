"""What earlier versions wrote and took: the same in today's words, without a change of any file."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.result_folders import EMOJI_VARIANTS, write_suite
from support.small_suite import ONE, common

import baselines
from benchmarks.experiments import PROFILES, plan
from benchmarks.store import RunFolder, SuiteFolder
from reports.read.runs import Score
from reports.read.suite import read_suite
from reports.tables import ledger

WORDS = (("untrained-", "floor-"), ('"deviation"', '"trap"'), ("runs/", "cells/"), ('"runs"', '"cells"'))


def as_earlier(output: Path) -> None:
    """The folder as a version wrote it that said cell, floor and trap."""
    for path in sorted(output.rglob("*.json")):
        text = path.read_text()
        for today, then in WORDS:
            text = text.replace(today, then)
        path.write_text(text)
    for path in output.rglob("ledger.csv"):
        head, _, rows = path.read_text().partition("\n")
        path.write_text(head.replace("deviation", "trap") + "\n" + rows)
    for path in output.rglob("SHA256SUMS"):
        path.unlink()
    for path in (output / "runs").glob("*untrained-*"):
        path.rename(path.with_name(path.name.replace("untrained-", "floor-")))
    (output / "runs").rename(output / "cells")


@pytest.fixture
def both(tmp_path):
    """One made-up suite in today's words and in the earlier ones."""
    for name in ("today", "earlier"):
        write_suite(tmp_path / name, (*EMOJI_VARIANTS, "ledger-augmentation"), seeds=(0, 1), ledger=True, pictures=False)
    as_earlier(tmp_path / "earlier")
    assert (not (tmp_path / "earlier" / "runs").exists()
            and "cells" in json.loads((tmp_path / "earlier" / "suite.json").read_text()))
    return tmp_path / "today", tmp_path / "earlier"


def test_an_earlier_folder_says_the_same(both):
    today, earlier = map(read_suite, both)
    assert earlier.left_out == today.left_out and earlier.planned == today.planned and earlier.tasks() == today.tasks()
    [task] = today.tasks()
    for variant in (*EMOJI_VARIANTS, "ledger-augmentation"):
        for score in (Score("mAP@all"), Score("Prec@5", protocol="standard"), Score("mAP@all", features="binary")):
            assert earlier.measure(task, variant, score).values == today.measure(task, variant, score).values != {}
    found, expected = (ledger.measured_deviations(suite, task) for suite in (earlier, today))
    assert [(d.deviation, d.arms, worth.gap.values, kind) for d, worth, kind in found] == [
        (d.deviation, d.arms, worth.gap.values, kind) for d, worth, kind in expected] != []


def test_an_earlier_folder_is_written_on(both):
    _, earlier = both
    suite = SuiteFolder.open(earlier)
    assert [entry["variant"] for entry in suite.head()["runs"]] == [
        entry["variant"].replace("floor-", "untrained-") for entry in json.loads((earlier / "suite.json").read_text())["cells"]]
    suite.write([], {}, "2026-01-01", "again")
    head = json.loads((earlier / "suite.json").read_text())
    assert "cells" not in head and len(head["runs"]) == 16 and (earlier / "cells").is_dir() and not (earlier / "runs").exists()
    assert not read_suite(earlier).left_out


def test_earlier_names_and_options_are_understood_with_a_line(place, command, tmp_path, capsys):
    assert (baselines.named("floors") == baselines.named("untrained")
            and baselines.named("floor-svd") == baselines.named("untrained-svd"))
    err = capsys.readouterr().err
    assert "note: 'floors' is called 'untrained' now" in err and "note: 'floor-svd' is called 'untrained-svd' now" in err
    status, _, err = command(*common(place), *ONE, "--variants", "floor-svd", "--output", str(tmp_path / "out"), "--dry-run",
                             "--cells-per-gpu=2", "--cpus-per-cell", "1")
    assert status == 2 and "note: '--cells-per-gpu' is called '--runs-per-gpu' now" in err
    assert "note: '--cpus-per-cell' is called '--cpus-per-run' now" in err


def test_of_two_settings_of_a_row_the_one_planned_last_is_shown(tmp_path):
    """Also where it was there before: a call that trains nothing still says what it asks about."""
    suite = SuiteFolder(tmp_path / "out", "laptop", False)
    first, second = (RunFolder(suite.output, plan(PROFILES["laptop"], None, ["tcn"], [0], {}, False)[0], identity * 64)
                     for identity in "ab")
    for planned in (first, second, first):
        suite.write([planned], {}, "2026-01-01", "a command")
        assert [entry["folder"] for entry in suite.head()["runs"]][-1] == f"runs/{planned.path.name}"
    assert len(suite.head()["runs"]) == 2
