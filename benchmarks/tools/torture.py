"""Kill the command with SIGKILL many times and check that nothing is lost.

`python benchmarks/torture.py --output DIR` runs a small grid undisturbed, and then in rounds. In each round the command writes to
one output folder; it is killed and started again until it ends by itself. A kill happens at a random moment, or right before or
after a random write, with its workers, without them, or one worker alone. After each kill every file is checked. After each round
all results are compared with the undisturbed ones bit by bit, and the runs in the MLflow store are counted. The command prints a
table and ends with status 0, or names what was lost and ends with status 1. `make torture` does this on the emoji drawings. The
processes are in torture_child.py, the checks in torture_checks.py.
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.tools.torture_checks import Count, Lost, compare, count_runs, examine
from benchmarks.tools.torture_child import child, kill, wait
from tcn.cli.ending import ending

GRID = ("--profile", "laptop", "--quick", "--threads", "1", "--variants", "untrained-svd", "tcn", "hws",
        "--set", "training.epochs=3", "data.image_size=32")
SETTINGS = {"one process": ("--no-report",), "with the report": (), "two workers": ("--no-report", "--launcher", "processes")}
"""Name of a way to run the grid -> its options. Rounds take the ways in turn."""
BEYOND = 0.8
"""Random moments lie between the start and this share of the undisturbed duration, unless --within gives another limit."""


def one_round(arguments: Sequence[str], output: Path, kills: int, rng: random.Random, within: float, writes: int, count: Count,
              say: Callable[[str], None]) -> None:
    """One round: kill the command up to `kills` times in one output folder, then let it end by itself. Raises Lost."""
    progress: dict[str, int] = {}
    log = output.with_suffix(".log")
    for number in itertools.count(1):
        # The writes of workers can't be counted here, so with workers the kills come at random moments.
        kinds = ("a moment",) if "--launcher" in arguments else ("a moment", "a write")
        how = rng.choice(kinds) if number <= kills else "left alone"
        group, fresh = rng.random() < 0.7, how == "a moment" and rng.random() < 0.15
        if how == "a write":
            # A call that resumes writes less than the undisturbed one, which would never reach a high number.
            pid = child(arguments, log, False, rng.randint(1, max(1, writes // 8)), rng.random() < 0.5)
            status = wait(pid, 600)
        else:
            pid = child(arguments, log, fresh)
            status = wait(pid, rng.uniform(0, within) if how == "a moment" else 900)
            if status is None and how == "a moment":
                how += _at_random(pid, group, rng)
                # A driver survives the death of one worker; it is killed a little later.
                status = wait(pid, rng.uniform(0, 3)) if how.endswith("one worker") else wait(pid, 10)
                if status is None:
                    kill(pid, True)
                    status = wait(pid, 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, 0)
            time.sleep(0.3)  # until the workers have noticed that their driver is gone
        if status is None:
            raise Lost(f"{output}: the command did not end; see {log}")
        at = examine(output, progress, count)
        if status == -signal.SIGKILL:
            count.kills[how + (", a new interpreter" if fresh else ""), at] += 1
            continue
        if status:
            raise Lost(f"{output}: the command ended with status {status} after {number - 1} kills; see {log}")
        say(f"  round over after {number - 1} kill{'' if number == 2 else 's'}")
        return


def _at_random(pid: int, group: bool, rng: random.Random) -> str:
    """Kill the command's process group, the command alone, or one of its workers; returns a text that says which."""
    import psutil

    try:
        workers = [p for p in psutil.Process(pid).children() if "resource_tracker" not in " ".join(p.cmdline())]
    except psutil.Error:
        workers = []
    if workers and rng.random() < 0.3:
        kill(rng.choice(workers).pid, False)
        return ", one worker"
    kill(pid, group)
    return ", with its workers" if workers and group else ", its workers left" if workers else ""


def torture(arguments: Sequence[str], output: Path, kills: int, seed: int, within: float | None = None, each: int = 8,
            settings: Sequence[str] = tuple(SETTINGS), say: Callable[[str], None] = print) -> Count:
    """Run the grid undisturbed, then in rounds until there were `kills` kills. Raises Lost if anything was lost.

    arguments: those of run_all.py, without --output. each: largest number of kills in a round. within: random moments lie within
    this many seconds from the start.
    """
    import benchmarks.launch.driver  # noqa: F401  imported here, so that each forked child has it
    import benchmarks.launch.processes  # noqa: F401
    import reports.render.command  # noqa: F401
    from benchmarks import mirror

    mirror.import_mlflow()

    rng, count = random.Random(seed), Count()
    output.mkdir(parents=True, exist_ok=True)
    straight = output / "undisturbed"
    shutil.rmtree(straight, ignore_errors=True)
    started = time.monotonic()
    counter = output / "writes.txt"
    pid = child([*arguments, "--no-report", "--output", str(straight)], output / "undisturbed.log", False, counter=counter)
    if wait(pid, 3600) != 0:
        raise Lost(f"the undisturbed call did not end well; see {output / 'undisturbed.log'}")
    seconds, writes = time.monotonic() - started, int(counter.read_text())
    count_runs(straight)
    say(f"undisturbed: {seconds:.0f} s, {writes} writes")
    number = 0
    while count.total < kills:
        name = settings[number % len(settings)]
        number += 1
        say(f"round {number}, {name}: {count.total} of {kills} kills so far")
        place = output / f"round-{number}"
        shutil.rmtree(place, ignore_errors=True)
        one_round([*arguments, *SETTINGS[name], "--output", str(place)], place, min(each, kills - count.total), rng,
                  within or BEYOND * seconds, writes, count, say)
        count.values += compare(straight, place)
        count.recorded += count_runs(place)
        count.rounds[name] += 1
        shutil.rmtree(place)
    return count


def to_markdown(count: Count, command: str, machine: str) -> str:
    """The result as a table in Markdown."""
    lines = [f"`{command}`", "", machine, "", "| killed at | while | kills |", "|---|---|---:|",
             *(f"| {how} | {at} | {number} |" for (how, at), number in sorted(count.kills.items())),
             f"| **all** | | **{count.total}** |", "",
             f"- {sum(count.rounds.values())} round(s) run to the end "
             f"({', '.join(f'{number} {how}' for how, number in count.rounds.items())}): "
             f"{count.values:,} values compared with the undisturbed run, all equal to the last bit.",
             f"- {count.files:,} files checked right after a kill, all whole; {count.half_written:,} half-written ones, all "
             "under a name that nothing reads.",
             f"- {count.recorded} MLflow runs, each recorded once and FINISHED, with every metric of every step once.",
             "- Lost: nothing."]
    return "\n".join(lines) + "\n"


@ending("interrupted; what was killed so far is not counted")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/torture.py", description=__doc__.splitlines()[0],
                                     epilog="Arguments after -- go to run_all.py instead of the small grid on emoji.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="folder for the rounds; the last one is kept if it fails")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="seed of the random moments; the runs have seeds of their own")
    parser.add_argument("--within", type=float, metavar="S", help="random moments lie within this many seconds after each start "
                                                                  "(default: 0.8 of the undisturbed duration)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table there")
    given = list(sys.argv[1:] if arguments is None else arguments)
    grid: list[str] = list(GRID)
    if "--" in given:
        grid, given = given[given.index("--") + 1:], given[:given.index("--")]
    options = parser.parse_args(given)
    from benchmarks import prepared, provenance, run_all
    from tcn.config import InputError
    from tcn.files.atomic import writable, writable_file, write_bytes

    provenance.check_checkout(Path(__file__))
    writable(options.output, "the output folder", "--output")
    if options.table:
        writable_file(options.table, "--table")
    for name, value in (("kills", options.kills), ("within", options.within)):
        if value is not None and value <= 0:
            raise InputError(f"--{name} {value}: give a number above 0")
    # Errors that stop the grid before any kill are bad input, not losses.
    prepared.prepare(run_all.parser().parse_args([*grid, "--output", str(options.output.resolve() / "undisturbed")]))
    try:
        count = torture(grid, options.output.resolve(), options.kills, options.seed, options.within,
                        say=lambda line: print(line, flush=True))
    except Lost as error:
        print(f"LOST: {error}", file=sys.stderr)
        return 1
    table = to_markdown(count, provenance.command(), _machine())
    print(table)
    if options.table:
        write_bytes(options.table, table.encode())
    return 0


def _machine() -> str:
    import torch

    from benchmarks import provenance

    record = provenance.collect(torch.device("cpu"))
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "mlflow") if name in record["versions"])
    return f"{record['device']}, Python {record['python']}, {versions}, commit {str(record['commit'])[:10]}"


if __name__ == "__main__":
    sys.exit(main())
