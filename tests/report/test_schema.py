"""What must stand in the files of a run: messages name file, field and kind; null and absence are one unless said otherwise."""
from __future__ import annotations

import json
import math

import pytest
from support.result_folders import write_suite

from reports.read.files import ReportError
from reports.read.schema import Deviation, Hit, Planned, Provenance, Reproduction, Settings, Status, parse
from reports.read.suite import read_suite
from reports.tables import runs

CONFIG = {"data": {"dataset": "emoji", "split": "fixed"}, "variant": "tcn", "seed": 3}


@pytest.mark.parametrize("change, message", [
    ({"seed": -1}, "config.json, seed: expected a whole number from 0, found -1"),
    ({"seed": True}, "config.json, seed: expected a whole number from 0, found True"),
    ({"seed": 3.0}, "config.json, seed: expected a whole number from 0, found 3.0"),
    ({"seed": 1 << 53}, "config.json, seed: expected a whole number from 0, found 9007199254740992"),
    ({"seed": None}, "config.json names no seed"),
    ({"variant": " "}, "config.json, variant: expected a name, found ' '"),
    ({"data": []}, r"config.json, data: expected a group of settings, found \[\]"),
    ({"data": {"dataset": "emoji"}}, "config.json names no data.split"),
    ({"network": {"dim": "64"}}, "config.json, network.dim: expected a whole number from 0, found '64'"),
    ({"network": {"backbone": ["resnet50"]}}, r"config.json, network.backbone: expected text, found \['resnet50'\]"),
    ({"losses": {"sharing": math.nan}}, "config.json, losses.sharing: expected a number from 0, found nan"),
    ({"losses": {"sharing": 1e31}}, "config.json, losses.sharing: expected a number from 0, found 1e[+]31"),
    ({"coupling": 3}, "config.json, coupling: expected a group of settings, found 3")])
def test_a_field_of_another_kind_is_named_with_what_is_expected(change, message):
    with pytest.raises(ReportError, match=f"^{message}$"):
        parse(Settings, {**CONFIG, **change}, "config.json")


def test_numbers_and_texts_come_through_as_they_stand():
    settings = parse(Settings, {**CONFIG, "losses": {"sharing": 10, "more": "left aside"}, "new": {}}, "config.json")
    assert (settings.data.split, settings.seed, settings.losses.sharing) == ("fixed", 3, 10.0)
    assert parse(Status, {"state": "failed", "epochs": 0, "reason": "a\nb"}, "status.json").reason == "a\nb"


def test_null_counts_as_not_given_but_for_the_manifest():
    blank, null = parse(Provenance, {}, "p"), parse(Provenance, {"commit": None, "dirty": None, "manifest": None}, "p")
    assert blank == null and null.commit == "" and null.dirty is False and null.optimizer_steps is None
    assert "manifest" in null.model_fields_set and "manifest" not in blank.model_fields_set


def test_an_entry_of_a_list_is_named_by_where_it_stands():
    for found in (3, None, [], "x"):
        with pytest.raises(ReportError, match="^entry 4: expected a group of settings, found "):
            parse(Planned, found, "entry 4")
    with pytest.raises(ReportError, match="^entry 4, photo 2, correct: expected true or false, found 1$"):
        parse(Hit, {"file": "a.png", "rank": 1, "correct": 1}, "entry 4, photo 2")
    with pytest.raises(ReportError, match="^entry 4, arms.released: expected a variant's name, found 3$"):
        parse(Deviation, {"deviation": "a", "title": "b", "kind": "data", "arms": {"corrected": None, "released": 3}}, "entry 4")


def test_items_of_a_list_of_texts_become_texts():
    found = {"run": "r", "variant": "v", "dataset": "d", "split": "s", "seed": 0, "verdict": "differs", "differences": [1, "b"]}
    reproduction = parse(Reproduction, found, "r.json")
    assert reproduction.differences == ("1", "b") and math.isnan(reproduction.tolerance)


def test_what_a_run_did_not_record_reads_as_a_question_mark_and_never_as_none(tmp_path):
    folder = write_suite(tmp_path, ("tcn",))["tcn", 0]
    found = json.loads((folder / "provenance.json").read_text())
    del found["device"]
    (folder / "provenance.json").write_text(json.dumps({**found, "commit": None, "selected_by": None, "data_digest": None}))
    table = runs.provenance(read_suite(tmp_path))
    shown = dict(zip((column.name for column in table.columns), (entry.text for entry in table.rows[0].entries)))
    assert (shown["Commit"], shown["Selected by"], shown["Data"], shown["Device"]) == ("?", "?", "?", "?, 2 threads")
