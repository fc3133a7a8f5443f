"""The mutation run: faults by hand stand where they say, operators plant what they say, and a run tells killed from survived."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.tools import mutant_operators
from benchmarks.tools.mutant_operators import ROOT, Mutant, compiles, generated
from benchmarks.tools.mutant_plan import PLAN, by_hand, plan, sample
from benchmarks.tools.mutant_runs import RESULTS
from benchmarks.tools.mutants_by_hand import EQUIVALENT, FAULTS

SOURCE = b'''"""A docstring with 1 < 2."""
import torch

RATE = 0.5


@torch.no_grad()
def scaled(rows, shift: int = 2, *, by: float = 1.5):
    if not rows and shift <= 3:
        raise ValueError(f"{shift + 1}")
    rows.clear()
    rows.equal(rows, rows)
    with torch.no_grad():
        total = rows.sum(0, keepdim=True).detach() - shift
    return [r for r in max(rows, key=len) if r] if by == 1.5 else -total[rows]
'''
EXPECTED = {
    ("constant", "0.5", "1.0"), ("context removed", "@torch.no_grad()", ""), ("constant", "2", "3"), ("constant", "1.5", "3.0"),
    ("condition fixed", "not rows and shift <= 3", "True"), ("condition fixed", "not rows and shift <= 3", "False"),
    ("not, minus removed", "not ", ""), ("and, or", "and", "or"), ("comparison", "<=", "<"), ("constant", "3", "4"),
    ("statement removed", "rows.clear()", "pass"),
    ("statement removed", "rows.equal(rows, rows)", "pass"), ("context removed", "with torch.no_grad()", "if True"),
    ("arithmetic", "-", "+"), ("call removed", ".detach()", ""), ("function swapped", "sum", "mean"), ("axis", "0", "1"),
    ("keyword removed", ", keepdim=True", ""), ("constant", "True", "False"), ("function swapped", "max", "min"),
    ("keyword removed", ", key=len", ""), ("condition fixed", "r", "True"), ("condition fixed", "by == 1.5", "True"),
    ("condition fixed", "by == 1.5", "False"), ("comparison", "==", "!="), ("not, minus removed", "-", ""),
}


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(mutant_operators._SOURCES, "tcn/made.py", SOURCE)
    return "tcn/made.py"


def test_operators_plant_what_they_say_and_leave_messages_docstrings_and_annotations_alone(file):
    found = generated(file)
    assert {(m.operator, SOURCE[m.start:m.end].decode(), m.text.decode()) for m in found} == EXPECTED
    assert all(map(compiles, found))
    assert len({m.name for m in found}) == len(found)


def test_a_sample_lets_operators_take_turns_and_stays_when_other_lines_change(file, monkeypatch):
    every = generated(file)
    taken = sample(every, 13)
    assert len(taken) == 13 and len({m.operator for m in taken}) == len({m.operator for m in every}) == 12
    assert taken == sorted(taken, key=lambda m: (m.start, m.end, m.text))
    assert sample(every, 1000) == sorted(every, key=lambda m: (m.start, m.end, m.text))
    names = [m.name for m in taken]
    monkeypatch.setitem(mutant_operators._SOURCES, file, b"# one line more\n" + SOURCE)
    assert [m.name for m in sample(generated(file), 13)] == names


def test_a_mutant_shows_where_it_is_and_what_compiles(file):
    place = SOURCE.index(b"- shift")
    mutant = Mutant(file, "arithmetic", place, place + 1, b"+")
    assert mutant.line == 14 and mutant.name.endswith(".detach() - shift => total = rows.sum(0, keepdim=True).detach() + shift")
    assert mutant.shown(around=8) == ("... etach() - shift", "... etach() + shift")


def test_every_fault_by_hand_stands_where_it_says_and_is_another_program():
    files = {subject.file for subject in PLAN}
    assert {fault.file for fault in FAULTS} <= files and len(PLAN) == len(files)
    for file in files:
        for mutant in by_hand(file):
            assert compiles(mutant) and mutant.lines()[0] != mutant.lines()[1], mutant.name


def test_names_are_unlike_and_what_is_called_equivalent_is_a_mutant_still():
    taken = [mutant for _, mutants_of_file in plan() for mutant in mutants_of_file]
    names = {mutant.name for mutant in taken}
    assert len(names) == len(taken) >= 150 and all(before != after for before, after in (m.lines() for m in taken))
    # the sample changes with the lines of a file; what is known to be equivalent stays known while it can be planted at all
    possible = {mutant.name for file in {subject.file for subject in PLAN} for mutant in generated(file)}
    assert set(EQUIVALENT) <= possible


def test_the_page_lists_every_fault_by_hand():
    page = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
    for fault in FAULTS:
        assert f"| {fault.what} |" in page, fault
    assert "**survived**" not in page and "**not run**" not in page


@pytest.mark.slow
def test_a_run_kills_the_seeds_faults_and_then_has_nothing_to_do(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "mutants.py"), "--results", str(tmp_path), "--only", "seeding"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert len(rows) >= 4 and len({row["name"] for row in rows}) == len(rows)
    assert {row["status"] for row in rows} == {"killed"} and all(".py::test_" in row["by"] for row in rows)
