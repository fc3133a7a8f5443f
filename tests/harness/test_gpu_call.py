"""The one call for a GPU (benchmarks/speed/gpu.py): what one part does costs no other part,
and all of it runs without a GPU too."""
from __future__ import annotations

import json
import os
import sys
import time

import pytest

from benchmarks.speed import gpu, gpu_parts, gpu_training

SMALL = ("--device", "cpu", "--small")


def _part(name: str, code: str, seconds: float = 60.0, read=lambda text: [{"name": "said", "text": text.strip(), "ok": True}]):
    return gpu.Part(name, [sys.executable, "-c", code], seconds, read)


def _call(tmp_path, monkeypatch, *parts: gpu.Part, minutes: str = "9") -> tuple[int, dict, str]:
    monkeypatch.setattr(gpu, "parts", lambda *_: list(parts))
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.2)
    status = gpu.main([*SMALL, "--output", str(tmp_path / "out"), "--minutes", minutes])
    return status, json.loads((tmp_path / "out" / "gpu.json").read_text()), (tmp_path / "out" / "gpu.md").read_text()


def test_a_part_that_hangs_fails_or_says_nonsense_costs_no_other_part(tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    left = json.dumps({"name": "a", "ok": True}) + "\n" + '{"name'
    hangs = (f"import subprocess, time; p = subprocess.Popen(['sleep', '600']); open({str(rows)!r}, 'w').write({left!r}); "
             "print(p.pid, flush=True); time.sleep(600)")
    said = []

    def nonsense(text: str):
        raise ValueError("no number")

    status, known, table = _call(
        tmp_path, monkeypatch, _part("hangs", hangs, 3.0, lambda text: said.append(int(text)) or gpu.lines_of(rows)),
        _part("fails", "import os; print('here', flush=True); os.abort()"), _part("nonsense", "pass", read=nonsense),
        _part("silent", "pass", read=lambda text: []), _part("wrong", "pass", read=lambda text: [{"name": "b", "ok": False}]),
        _part("well", "print(3 * 14)"))
    assert status == 1
    states = {part["name"]: part["state"] for part in known["parts"]}
    assert states == {"hangs": "stopped at its time limit", "fails": "ended with status -6", "nonsense": "something is wrong",
                      "silent": "ended without a result", "wrong": "something is wrong", "well": "done"}
    # What was measured before a part was stopped is kept; the line that was being written is not.
    assert known["parts"][0]["rows"] == [{"name": "a", "ok": True}]
    assert known["parts"][1]["rows"][0]["text"] == "here" and known["parts"][5]["rows"][0]["text"] == "42"
    assert "| said | 42 |" in table and "ValueError: no number" in table
    until = time.monotonic() + 600
    while _lives(said[0]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(said[0]), "what a stopped part had started goes with it"
    assert "here" in (tmp_path / "out" / "log.txt").read_text()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_each_part_s_result_is_there_before_the_next_begins(tmp_path, monkeypatch):
    known = tmp_path / "out" / "gpu.json"
    status, found, _ = _call(tmp_path, monkeypatch, _part("first", "print(1)"),
                             _part("second", f"print(open({str(known)!r}).read())"))
    assert status == 0
    assert [part["name"] for part in json.loads(found["parts"][1]["rows"][0]["text"])["parts"]] == ["first"]


def test_what_no_time_is_left_for_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "END_SECONDS", 0.0)
    status, known, table = _call(tmp_path, monkeypatch, _part("long", "import time; time.sleep(600)"), _part("late", "pass"),
                                 minutes="0.02")
    assert status == 1 and [part["state"] for part in known["parts"]] == ["stopped at its time limit", "no time was left"]
    assert "late: no time was left" in table


def test_an_error_is_the_result_of_what_raised_it(tmp_path, monkeypatch):
    def tasks(scale):
        yield "breaks", lambda: 1 / 0
        yield "goes on", lambda: {"value": 2.5 if scale.small else 0.0}

    monkeypatch.setitem(gpu_parts.PARTS, "checks", tasks)
    assert gpu_parts.main(["checks", str(tmp_path / "rows"), "--small"]) == 0
    first, second = gpu.lines_of(tmp_path / "rows")
    assert first["ok"] is False and first["wrong"] == "ZeroDivisionError: division by zero"
    assert second["ok"] is True and second["value"] == 2.5


def test_losses_that_are_others_than_in_float32_are_told(monkeypatch):
    monkeypatch.setattr(gpu_training, "rounds", lambda run, units, scale: ([1.0, 4.0, 2.0], None))
    scale, execution = gpu_training.Scale(True), gpu_training.Execution()
    first: dict = {}
    assert gpu_training.trained(scale, execution, 32, first)["ok"]
    again = gpu_training.trained(scale, execution, 32, first)
    assert again["ok"] and again["pairs/s"] == 2.0 and again["fastest"] == 4.0
    first["32"]["semantic"] *= 1.01
    assert gpu_training.trained(scale, execution, 32, first)["wrong"] == "losses of the first step: semantic"
    assert gpu_training.trained(scale, gpu_training.Execution(precision="bf16"), 32, first)["ok"], (
        "a hundredth is bf16's own rounding")


def test_unknown_parts_are_refused_and_the_order_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main([*SMALL, "--output", str(tmp_path), "--only", "nothing"])
    assert "no part is called nothing" in capsys.readouterr().err
    assert gpu.main([*SMALL, "--output", str(tmp_path), "--list"]) == 0
    names = capsys.readouterr().out.split("\n")[:-1]
    assert (names[:4] == ["checks", "lost device", "tests", "training"]
            and names[-2:] == ["compiled", "compiled tests"]), "what compiles comes last"


@pytest.mark.slow
def test_the_whole_call_on_a_machine_without_a_gpu(tmp_path):
    """Small networks; the parts that take minutes on the CPU (the speed suite, the whole grid) are left out."""
    names = ["checks", "lost device", "training", "two runs", "cost of untrained baselines and main", "larger batches",
             "kernels", "compiled"]
    assert gpu.main([*SMALL, "--minutes", "20", "--output", str(tmp_path), "--only", *names]) == 0
    known = {part["name"]: part["rows"] for part in json.loads((tmp_path / "gpu.json").read_text())["parts"]}
    assert list(known) == names and all(row["ok"] for rows in known.values() for row in rows)
    assert {row["name"] for row in known["training"]} >= {"float32, channels-last, batch 32", "bf16, contiguous, batch 32"}
    assert known["lost device"][1]["status"] == 75 and known["cost of untrained baselines and main"][0]["hours"] > 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["cost.txt", "gpu.json", "gpu.md", "log.txt", "profile.txt"]
    assert "6 steps" in (tmp_path / "profile.txt").read_text()
