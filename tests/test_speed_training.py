"""The speed suite's plain step and its table: the reference learns what ours learns, and ratios are worked out right."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.speed import bench_report, bench_training, run
from benchmarks.speed.bench_sharing import norms_one_by_one
from tcn.losses import sharing_norms


def test_the_reference_s_step_is_ours():
    bench_training.test_the_reference_s_step_is_ours()


def test_the_plain_sharing_loss_is_ours_with_its_gradient():
    sketch, photo = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)
    pairs = list(zip(sketch.parameters(), photo.parameters()))
    found = []
    for loss in (norms_one_by_one(pairs), sharing_norms(pairs).sum()):
        found.append((loss.item(), *torch.autograd.grad(loss, [tensor for pair in pairs for tensor in pair])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for plain, ours in zip(found[0][1:], found[1][1:]):
        torch.testing.assert_close(ours, plain)


def test_the_hand_made_average_is_the_report_s(tmp_path):
    from result_folders import made_up, write_suite

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
