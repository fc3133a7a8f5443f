"""The speed suite: every hot path beside a plain reference of the same computation, timed in one session.

`python benchmarks/speed/run.py` (or `make speed`) runs all subjects and prints a table of rates and ratios;
`python benchmarks/speed/run.py scoring sharing` only those. Ratios carry over to other machines, rates do not.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COLUMNS = ("subject", "work", "rate", "of the reference", "of the ceiling", "threads", "note")


def subjects() -> list[str]:
    """The names of the subjects, taken from the names of their files."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def rows(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Table rows from pytest-benchmark's records, one for each work: the fastest round of each role, and the ratios.

    >>> def record(role, seconds, units):
    ...     info = {"subject": "s", "work": "w", "role": role, "units": units, "unit": "pair", "threads": 2, "note": ""}
    ...     return {"extra_info": info, "stats": {"min": seconds, "rounds": 3}}
    >>> row, = rows([record("ours", 2.0, 100), record("reference", 10.0, 5), record("ceiling", 1.0, 100)])
    >>> row["rate"], row["of the reference"], row["of the ceiling"]
    ('50 pair/s', '100.0 x', '50 %')
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in results:
        info = record["extra_info"]
        groups.setdefault((info["subject"], info["work"]), {})[info["role"]] = {
            **info, "rate": info["units"] / record["stats"]["min"]}
    table = []
    for (subject, work), roles in groups.items():
        ours = roles.get("ours")
        if ours is None:
            continue
        if ours.get("beside"):
            roles = {**groups.get((subject, ours["beside"]), {}), **roles}
        ratio = {role: ours["rate"] / roles[role]["rate"] for role in ("reference", "ceiling") if role in roles}
        notes = [f"{role}: {roles[role]['note']}" for role in ("ours", "reference", "ceiling") if roles.get(role, {}).get("note")]
        table.append({"subject": subject, "work": work, "rate": f"{_number(ours['rate'])} {ours['unit']}/s",
                      "of the reference": _times(ratio["reference"]) if "reference" in ratio else "",
                      "of the ceiling": f"{100 * ratio['ceiling']:.0f} %" if "ceiling" in ratio else "",
                      "threads": str(ours["threads"]), "note": "; ".join(notes)})
    return table


def _times(ratio: float) -> str:
    return f"{ratio:.{1 if ratio >= 0.1 else 3}f} x"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def markdown(results: list[dict[str, Any]], machine: str) -> str:
    """The table as Markdown, with the machine in a line above it."""
    lines = [machine, "", "| " + " | ".join(COLUMNS) + " |", "|---|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(row[column] for column in COLUMNS) + " |" for row in rows(results)]
    return "\n".join(lines) + "\n"


def measure(subject: str, threads: int | None) -> tuple[list[dict[str, Any]], int]:
    """pytest-benchmark's records of one subject, and pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        command = [sys.executable, "-m", "pytest", str(HERE / f"bench_{subject}.py"), "-q", "-rs", "--no-header", "--rootdir",
                   str(ROOT), "-p", "no:cacheprovider", "-o", "python_files=bench_*.py", "-o", "python_functions=bench_* test_*",
                   "-o", "addopts=", "-o", "console_output_style=classic",
                   "--benchmark-disable-gc", "--benchmark-quiet", f"--benchmark-json={record}"]
        limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        print(f"{subject} ...", flush=True)
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **limits})
        records = json.loads(record.read_text())["benchmarks"] if record.exists() and record.stat().st_size else []
    return records, done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed/run.py", description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"any of {', '.join(subjects())} (default: all)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table (Markdown) there, and the records "
                                                                    "beside it as .json")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.subjects) - set(subjects()))
    if unknown:
        parser.error(f"unknown subject {', '.join(unknown)}; choose among {', '.join(subjects())}")
    try:
        import pytest  # noqa: F401
        import pytest_benchmark  # noqa: F401 - the fixture comes from it
    except ImportError:
        parser.error("pytest and pytest-benchmark are missing; run make setup, or pip install '.[test]'")
    results, failed = [], []
    for subject in options.subjects or subjects():
        # Each subject has a process of its own, so that none is affected by memory or threads that another left behind.
        found, status = measure(subject, options.threads)
        results += found
        failed += [subject] if status else []
    import torch

    from benchmarks.provenance import device_name

    threads = options.threads or torch.get_num_threads()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    command = " ".join(["python benchmarks/speed/run.py", *options.subjects])
    text = markdown(results, f"{device_name(device)}, {threads} threads, torch {torch.__version__}; "
                             f"fastest of the rounds; `{command}`")
    print("\n" + text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
        kept = [{"extra_info": r["extra_info"], "stats": {k: r["stats"][k] for k in ("min", "max", "median", "rounds")}}
                for r in results]
        options.output.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    if failed:
        print(f"failed: {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
