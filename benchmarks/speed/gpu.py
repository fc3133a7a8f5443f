"""Everything that needs a GPU, in one call of a few minutes: speed, memory, tests, errors, and the cost of the whole grid.

`python benchmarks/speed/gpu.py --output DIR --minutes 9` runs the parts of `parts()` in their order: cheap ones come first, and
those that compile come last. Each runs in its own process and has its own time limit. After each part, DIR/gpu.json and
DIR/gpu.md hold the results so far, those of a stopped part included; cost.txt, profile.txt and log.txt hold the longer texts.
Weights and pictures are random, so no data set and no download is needed. The measurements are in benchmarks/speed/gpu_parts.py.
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
END_SECONDS = 4.0
"""Seconds reserved for writing the last results."""
LEAST_SECONDS = 8.0
"""A part is not started with fewer seconds left: starting Python, torch and CUDA takes as long."""
LOG_CHARACTERS = 40_000
"""Number of letters kept from the end of each part's output."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the measurements: its command, the seconds it may take, and a function from its output to rows of results."""

    name: str
    command: list[str]
    seconds: float
    read: Callable[[str], list[Row]]


def parts(work: Path, output: Path, small: bool) -> list[Part]:
    """All parts, the most valuable first. `work`: a folder for files that are not kept."""
    python = sys.executable

    def measured(name: str, seconds: float) -> Part:
        file = work / f"{name.replace(' ', '-')}.jsonl"
        command = [python, str(ROOT / "benchmarks/speed/gpu_parts.py"), name, str(file), *(["--small"] if small else [])]
        return Part(name, command, seconds, lambda _: lines_of(file))

    def tests(name: str, words: str) -> Part:
        return Part(name, [python, "-m", "pytest", "tests/train/test_gpu.py", "-m", "gpu", "-v", "--no-header", "-p",
                           "no:cacheprovider", "-o", "console_output_style=classic", "-k", words], 120, outcomes)

    def cost(name: str, seconds: float, *variants: str) -> Part:
        less = ["--device", "cpu", "--datasets", "sketchy", "--set", "network.backbone=test_resnet", "data.image_size=32",
                "data.stored_size=32"] if small else ["--device", "cuda"]
        return Part(name, [python, "benchmarks/run_all.py", "--dry-run", "--profile", "paper", "--variants", *variants,
                           "--cache", str(work / "cache"), "--output", str(work / "none"), *less], seconds, priced)

    def speed(subject: str, seconds: float) -> Part:
        file = work / f"speed-{subject}.md"
        return Part(f"speed of {subject}", [python, "benchmarks/speed/run.py", subject, "--output", str(file)], seconds,
                    lambda _: compared(file.read_text() if file.exists() else ""))

    profile = output / "profile.txt"
    whole = ["untrained"] if small else ["main", "untrained", "leave-one-out", "ablation", "coupling", "weights", "dimensions",
                                      "methods", "controls", "ledger"]
    return [measured("checks", 60), measured("lost device", 60), tests("tests", "not compile"), measured("training", 120),
            measured("two runs", 90),
            cost("cost of untrained baselines and main", 120, "untrained", *(["hws"] if small else ["main"])),
            speed("sharing", 60), speed("data", 60), speed("scoring", 90), measured("larger batches", 75),
            cost("cost of the whole grid", 330, *whole),
            Part("kernels", [python, str(ROOT / "benchmarks/speed/gpu_parts.py"), "kernels", str(profile),
                             *(["--small"] if small else [])], 60, lambda _: [{"name": "kernels", "ok": profile.exists()}]),
            measured("compiled", 200), tests("compiled tests", "compile")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 0 if every part ended well."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed/gpu.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all of it (default: 9)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="only the parts with these names (--list prints all names)")
    parser.add_argument("--list", action="store_true", help="print the names of the parts and stop")
    # Runs the whole command on a machine without a GPU, with small networks, to test the command itself.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    started = time.time()
    end = started + 60 * options.minutes - END_SECONDS
    output = options.output.resolve()
    with tempfile.TemporaryDirectory(prefix="tcn-gpu-", ignore_cleanup_errors=True) as work:
        planned = parts(Path(work), output, options.small)
        if options.list:
            print("\n".join(part.name for part in planned))
            return 0
        unknown = sorted(set(options.only or ()) - {part.name for part in planned})
        if unknown:
            parser.error(f"no part is called {', '.join(unknown)}; --list names them")
        if options.device == "cuda" and not cuda_answers():
            print("error: no CUDA device here; run this on a machine with a GPU", file=sys.stderr)
            return 2
        output.mkdir(parents=True, exist_ok=True)
        for name in ("gpu.json", "gpu.md", "log.txt", "cost.txt", "profile.txt"):  # left by an earlier call
            (output / name).unlink(missing_ok=True)
        found = [run(part, end, output) for part in planned if options.only is None or part.name in options.only
                 if _written(output, None, started)]
        return _end(output, found)


def _end(output: Path, found: list[dict[str, Any]]) -> int:
    print("\n" + (output / "gpu.md").read_text())
    wrong = [part["name"] for part in found if part["state"] != "done"]
    for name in wrong:
        print(f"not well: {name}; see gpu.md and log.txt in {output}", file=sys.stderr)
    return 1 if wrong else 0


def cuda_answers() -> bool:
    """Whether torch sees a CUDA device. Creates no CUDA context in this process."""
    import torch

    return torch.cuda.is_available()


def _written(output: Path, part: dict[str, Any] | None, started: float = 0.0) -> bool:
    """Add a part to gpu.json, and write gpu.md anew. Always returns True."""
    file = output / "gpu.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"started": started, "parts": []}
    if part is not None:
        known["parts"].append(part)
    known["seconds"] = round(time.time() - known["started"], 1)
    for path, text in ((file, json.dumps(known, indent=1) + "\n"), (output / "gpu.md", markdown(known))):
        beside = path.with_suffix(path.suffix + ".partial")
        beside.write_text(text)
        beside.replace(path)
    return True


def run(part: Part, end: float, output: Path) -> dict[str, Any]:
    """Run one part within its time limit and before `end` (seconds since 1970). Its results are written before this returns."""
    seconds = min(part.seconds, end - time.time())
    found: dict[str, Any] = {"name": part.name, "state": "no time was left", "seconds": 0.0, "rows": []}
    if seconds >= LEAST_SECONDS:
        print(f"{part.name} (up to {seconds:.0f} s) ...", flush=True)
        started = time.time()
        status, text = ended(part.command, seconds, time.time() + seconds - 2.0)
        try:
            rows = part.read(text)
        except Exception as error:  # an unreadable result of one part must not stop the others
            rows = [{"name": "reading the results", "ok": False, "wrong": f"{type(error).__name__}: {error}"}]
        state = "stopped at its time limit" if status is None else f"ended with status {status}" if status else "done"
        if state == "done" and not all(row.get("ok", True) for row in rows):
            state = "something is wrong"
        if state == "done" and not rows:
            state = "ended without a result"
        found |= {"state": state, "seconds": round(time.time() - started, 1), "rows": rows}
        _keep_text(part, text, output)
    _written(output, found)
    print(f"  {found['state']}, {found['seconds']:.0f} s", flush=True)
    return found


def _keep_text(part: Part, text: str, output: Path) -> None:
    with open(output / "log.txt", "a") as log:
        log.write(f"===== {part.name}: {' '.join(part.command[1:])}\n{text[-LOG_CHARACTERS:]}\n")
    if part.read is priced:
        with open(output / "cost.txt", "a") as cost:
            cost.write(f"===== {part.name}\n{text[-LOG_CHARACTERS:]}\n")


def ended(command: list[str], seconds: float, until: float) -> tuple[int | None, str]:
    """Exit status (None if the time ran out) and output of a command. All processes that it started end with it.

    until: seconds since 1970, passed in TCN_SPEED_UNTIL, so that the speed suite can stop by itself.
    """
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "TCN_SPEED_UNTIL": str(until),
                   "TQDM_MININTERVAL": "30"}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment, start_new_session=True)
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with_all(process)
        out.seek(0)
        return status, out.read().decode(errors="replace")


def with_all(process: subprocess.Popen[bytes]) -> None:
    """End a command that leads its own session, and all processes that it has started."""
    with contextlib.suppress(ProcessLookupError):  # all of them may have ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- results, from what a part has left ----------------------------------------------------------------------

def lines_of(file: Path) -> list[Row]:
    """Rows of a file of JSON lines. A last line that is incomplete because its process was stopped is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def outcomes(text: str) -> list[Row]:
    """The numbers of tests that passed and were skipped, and the names of those that failed, from pytest's lines. If none passed,
    the result counts as wrong.

    >>> outcomes("tests/a.py::test_x[1 2] PASSED\\ntests/a.py::test_y FAILED\\ntests/a.py::test_z")
    [{'name': 'tests', 'passed': 1, 'skipped': 0, 'ok': False, 'wrong': 'tests/a.py::test_y'}]
    """
    told = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", text, re.MULTILINE)
    if not told:
        return []
    passed = any(how == "PASSED" for _, how in told)
    wrong = [name for name, how in told if how in ("FAILED", "ERROR")] or ([] if passed else ["none passed"])
    return [{"name": "tests", **{how.lower(): sum(h == how for _, h in told) for how in ("PASSED", "SKIPPED")},
             "ok": not wrong, "wrong": "; ".join(wrong)}]


def priced(text: str) -> list[Row]:
    """The plan's line of totals, from what `run_all.py --dry-run` printed.

    >>> priced("...\\n14 runs; 5.5 GPU-hours left on a GPU, 16 threads\\nrates:\\n  training, tcn: 600 pairs/s\\n")
    [{'name': '14 runs', 'hours': 5.5, 'of': 'GPU-hours', 'ok': True}]
    """
    return [{"name": f"{runs} runs", "hours": float(hours.replace(",", "")), "of": unit, "ok": True}
            for runs, hours, unit in re.findall(r"^(\d+) runs?; ([\d.,]+) ([CG]PU-hours) left", text, re.MULTILINE)]


def compared(table: str) -> list[Row]:
    """Rows of the speed suite, from the table that it wrote.

    >>> compared("a machine\\n\\n| subject | work | rate | of the reference |\\n|---|---|---:|---:|\\n"
    ...          "| a | b | 5 pair/s | 2.0 x |\\n")
    [{'name': 'b', 'rate': '5 pair/s', 'of the reference': '2.0 x', 'ok': True}]
    """
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    return [{"name": row["work"], **{key: row[key] for key in ("rate", "of the reference", "of the ceiling") if key in row},
             "ok": True} for row in (dict(zip(cells[0], values)) for values in cells[2:])] if cells else []


def markdown(known: dict[str, Any]) -> str:
    """All results as tables, one for each part."""
    lines = ["# Measured on a GPU", "", f"{known['seconds']:.0f} s in all; written anew after each part.", ""]
    for part in known["parts"]:
        lines += [f"## {part['name']}: {part['state']}, {part['seconds']:.0f} s", ""]
        # Neighbouring rows with the same columns share a table; a row that went wrong has no numbers.
        shown = [{key: value for key, value in row.items() if key not in ("part", "losses")} for row in part["rows"]]
        for columns, rows in itertools.groupby(shown, lambda row: tuple(key for key in row if key != "wrong")):
            lines += ["| " + " | ".join((*columns, "wrong")) + " |", "|" + "---|" * (len(columns) + 1)]
            lines += ["| " + " | ".join(_entry(row.get(column, "")) for column in (*columns, "wrong")) + " |" for row in rows]
            lines.append("")
    return "\n".join(lines)


def _entry(value: Any) -> str:
    """A value as a table shows it."""
    text = f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else \
        f"{value:,.0f}" if isinstance(value, float) else \
        {True: "yes", False: "NO"}[value] if isinstance(value, bool) else str(value)
    return " ".join(text.replace("|", "/").split())[:300]


if __name__ == "__main__":
    sys.exit(main())
