"""The speed suite's plain step and its table: the reference learns what ours learns, and ratios are worked out right."""
from __future__ import annotations

import pytest
import torch
from support.golden_runs import PLAIN, SETTINGS, Recorded, built

from benchmarks.speed import bench_report, run
from benchmarks.speed.reference_training import plain_step
from tcn.config import Config, change
from tcn.seeding import torch_stream
from tcn.train.loop import adam, train_step
from tcn.train.method import TCN


def test_the_reference_s_steps_are_ours():
    """The formulas are tests/support/golden_oracle.py's; here the way through the model, where encoders have parted and words
    count."""
    config = change(Config(), {**SETTINGS, **PLAIN})
    batches = list(Recorded(config.data).epoch(config.seed, 1, "cpu"))
    found = []
    for step in (plain_step, lambda *a: {name: value.item() for name, value in train_step(TCN, *a).items()}):
        model = built(config).train()
        optimizer = adam(model, config)
        torch.manual_seed(0)  # dropout's
        found.append([step(model, optimizer, batch, config, torch_stream(0, "alpha", n)) for n, batch in enumerate(batches)])
    for plain, ours in zip(*found):
        assert plain == pytest.approx(ours, rel=1e-8)
    assert plain["sharing"] > 0


def test_the_hand_made_average_is_the_report_s(tmp_path):
    from support.result_folders import made_up, write_suite

    write_suite(tmp_path, variants=("tcn", "nws"), seeds=(0, 1, 2))
    found = bench_report.averages(tmp_path)
    assert found == pytest.approx({name: sum(made_up(name, seed, "mAP@all") for seed in range(3)) / 3 for name in ("tcn", "nws")},
                                  abs=1e-6)


def _record(work: str, role: str, seconds: float, units: float = 100, beside: str = "") -> dict:
    return {"extra_info": {"subject": "s", "work": work, "role": role, "units": units, "unit": "pair", "threads": 1, "note": "",
                           "beside": beside}, "stats": {"min": seconds, "max": 2 * seconds, "median": seconds, "rounds": 3}}


def test_the_table_compares_with_another_work_s_reference_where_it_has_none_and_leaves_out_what_was_not_timed():
    rows = run.rows([_record("slow", "ours", 2.0), _record("slow", "reference", 8.0), _record("slow", "ceiling", 1.0),
                     _record("fast", "ours", 1.0, beside="slow"), _record("fast", "ceiling", 0.8),
                     _record("alone", "ours", 0.5), _record("lost", "reference", 1.0)])
    assert [(r["work"], r["of the reference"], r["of the ceiling"]) for r in rows] == [
        ("slow", "4.0 x", "50 %"), ("fast", "8.0 x", "80 %"), ("alone", "", "")]
    assert run.markdown([_record("alone", "ours", 0.5)], "a machine").startswith("a machine\n\n| subject | work |")


def test_every_subject_has_its_bench_and_none_is_a_test_of_the_suite():
    assert {"data", "training", "sharing", "scoring", "indexing", "report"} <= set(run.subjects())
    assert not list(run.HERE.glob("test_*.py"))
