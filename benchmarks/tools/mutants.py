"""Mutation testing: plant one fault at a time in the numerical code and check whether a test fails.

    python benchmarks/mutants.py --results FOLDER            runs what FOLDER does not hold yet, and says what survived
    python benchmarks/mutants.py --results FOLDER --table    writes docs/mutants.md from it

In: the options. Out: one JSON line for each mutant in FOLDER, or the page. The faults are written by hand
(benchmarks/tools/mutants_by_hand.py) or generated (mutant_operators.py); mutant_plan.py says which files are mutated, and
mutant_runs.py runs the tests.
"""
from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tools.mutant_operators import ROOT
from benchmarks.tools.mutant_plan import by_hand, plan
from benchmarks.tools.mutant_runs import RESULTS, run_all
from benchmarks.tools.mutants_by_hand import EQUIVALENT

HEAD = """# Mutation run

How much would the tests notice? `benchmarks/mutants.py` plants one fault at a time in the code that decides results and runs the
tests that should see it. Written by `python benchmarks/mutants.py --results FOLDER --table`; not to be edited by hand.

    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER            # all of it; stopped, it goes on where it was
    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER --only losses batches
    OMP_NUM_THREADS=1 python benchmarks/mutants.py --results FOLDER --again    # survivors once more, after a test was written

Status 1 says that a mutant survived that is not known to be equivalent. The mutants took {minutes:.0f} minutes of one core
on 2026-11-28: two processes side by side, each with half of the files, on two cores of an AMD EPYC.

There are two kinds of faults. Those **by hand** are mistakes that mean something in the method
(benchmarks/tools/mutants_by_hand.py). Those **by operator** are a fixed sample over the syntax tree: comparisons, arithmetic,
constants, axes, minimum and maximum, sum and mean, a dropped `not`, and/or, fixed conditions, statements, calls and keywords left
out, swapped arguments. The operators take turns, and a hash of the changed line decides which mutants are in the sample, so the
sample stays the same until a line changes. Lines that show progress or measure time, keywords that only say where a value is
stored, and everything inside `raise` are not mutated.

"Before" is the first result in the folder, before tests were written for what had survived. (The very first run, of 322 faults on
2026-11-25, before any test was written for its survivors, had 265 noticed.)
Killed by time: not done after three times what the tests take without a fault, and twenty seconds. A survivor is one of
the tests that its file is run against (`PLAN`), not of all. mutmut makes no mutants of module constants, decorated functions
and properties, and takes no faults by hand; cosmic-ray starts an interpreter for each, which here is eight seconds of importing
torch.
"""


def _cell(text: str) -> str:
    return "`` " + text.replace("|", "\\|") + " ``" if text else ""


def table(folder: Path) -> str:
    """The page docs/mutants.md: scores by file, then every mutant; a mutant without a result in the folder is "not run"."""
    rows = [json.loads(line) for line in (folder / RESULTS).read_text(encoding="utf-8").splitlines()]
    first = {row["name"]: row["status"] for row in reversed(rows)}
    last = {row["name"]: row for row in rows}
    total: Counter[str] = Counter()
    scores, details = [], []
    for subject, mutants in plan():
        count: Counter[str] = Counter()
        details += [f"## {subject.file}", "", "| line | fault | before | after | result |", "|---|---|---|---|---|"]
        for mutant in mutants:
            name, before, after = mutant.name, *mutant.shown()
            status = last[name]["status"] if name in last else "not run"
            if status == "survived" and name in EQUIVALENT:
                status, result = "equivalent", f"equivalent: {EQUIVALENT[name]}"
            elif status == "killed":
                result = str(last[name]["by"]).removeprefix("tests/")
            else:
                result = {"time": "killed by time"}.get(status, f"**{status}**")
            count["mutants"] += 1
            count["by hand"] += mutant in by_hand(subject.file)
            count["before"] += first.get(name) in ("killed", "time")
            count["killed" if status in ("killed", "time") else status] += 1
            details.append(f"| {mutant.line} | {mutant.operator} | {_cell(before)} | {_cell(after)} | {result} |")
        details.append("")
        total += count
        scores.append((subject.file, count))
    columns = ("mutants", "by hand", "before", "killed", "equivalent", "survived", "not run")
    minutes = sum(last[m.name]["seconds"] for _, mutants in plan() for m in mutants if m.name in last) / 60
    lines = ["| file | mutants | of these by hand | killed before | killed now | equivalent | survived | not run |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {file} | " + " | ".join(str(count[c]) for c in columns) + " |" for file, count in (*scores, ("all", total))]
    return "\n".join([HEAD.format(minutes=minutes).rstrip(), "", *lines, "", *details])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 1 if a mutant survived that is not known to be equivalent, else 0."""
    parser = argparse.ArgumentParser(description="Plant faults in the numerical code, one at a time, and run its tests.")
    parser.add_argument("--results", type=Path, required=True, help="folder of results; mutants in it are not run again")
    parser.add_argument("--only", nargs="+", default=(), metavar="TEXT", help="files whose name holds one of these")
    parser.add_argument("--again", action="store_true", help="run survivors again, as after writing a test")
    parser.add_argument("--list", action="store_true", help="show the mutants and run none")
    parser.add_argument("--table", action="store_true", help="write docs/mutants.md from the results and run none")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    if given.list:
        for subject, mutants in plan(given.only):
            print(f"{subject.file}: {len(mutants)}")
            for mutant in mutants:
                print(f"  {mutant.line}, {mutant.operator}: {' => '.join(mutant.shown())}")
        return 0
    if given.table:
        (ROOT / "docs" / "mutants.md").write_text(table(given.results), encoding="utf-8")
        return 0
    return int(run_all(given.results, given.only, given.again) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
