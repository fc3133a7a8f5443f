"""Kill the command with SIGKILL many times and check that nothing is lost.

`python benchmarks/torture.py --output DIR` runs a small grid undisturbed, and then in rounds. In each round the command writes to
one output folder; it is killed and started again until it ends by itself. A kill happens at a random moment, or right before or
after a random write, with its workers, without them, or one worker alone. After each kill every file is checked. After each round
all results are compared with the undisturbed ones bit by bit, and the runs in the MLflow store are counted. The command prints a
table and ends with status 0, or names what was lost and ends with status 1. `make torture` does this on the emoji drawings. The
file is long because killing, checking and comparing are parts of one command that nothing else uses.
"""
from __future__ import annotations

import argparse
import collections
import csv
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GRID = ("--profile", "laptop", "--quick", "--threads", "1", "--variants", "untrained-svd", "tcn", "hws",
        "--set", "training.epochs=3", "data.image_size=32")
SETTINGS = {"one process": ("--no-report",), "with the report": (), "two workers": ("--no-report", "--launcher", "processes")}
"""Name of a way to run the grid -> its options. Rounds take the ways in turn."""
TIMES = ("seconds", "pairs_per_second")
BEYOND = 0.8
"""Random moments lie between the start and this share of the undisturbed duration, unless --within gives another limit."""


class Lost(Exception):
    """A kill destroyed or changed something that it must not."""


@dataclass
class Count:
    """How many kills and rounds there were, and what was checked."""

    kills: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    """(how the command was killed, what it was doing) -> number of kills."""
    rounds: collections.Counter[str] = field(default_factory=collections.Counter)
    files: int = 0
    half_written: int = 0
    values: int = 0
    recorded: int = 0

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())


# --- the command in a child ----------------------------------------------------------------------------------

WRITES = ("replace", "fsync", "unlink", "rename")
"""Functions of the os module through which files appear, are flushed to the disk, or disappear."""


def _count_writes(at: int | None, after: bool, counter: Path | None) -> None:
    """Count this process's writes, and kill the process before or after the write with number `at`."""
    done = itertools.count(1)

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            number = next(done)
            if number == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if counter is not None:
                counter.write_text(str(number))
            return result
        return counted

    for name in WRITES:
        setattr(os, name, wrapped(getattr(os, name)))


def child(arguments: Sequence[str], log: Path, fresh: bool, at: int | None = None, after: bool = False,
          counter: Path | None = None) -> int:
    """Start the command in its own process group; returns its process id. With `fresh` it is a new interpreter, else a fork of
    this process, which has everything imported already."""
    if fresh:
        with open(log, "ab") as out:
            return subprocess.Popen([sys.executable, "benchmarks/run_all.py", *arguments], cwd=ROOT, stdout=out, stderr=out,
                                    start_new_session=True).pid
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        # The caller, such as pytest, may have replaced both streams.
        sys.stdout = sys.stderr = open(  # noqa: SIM115 - open as long as the process lives
            2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        # What run_all imports as it runs is there before writes are counted.
        from benchmarks import prepared, run_all  # noqa: F401

        if at is not None or counter is not None:
            _count_writes(at, after, counter)
        status = run_all.main(list(arguments))
    except BaseException:  # the child must end here, or there would be two copies of the parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int) -> int | None:
    """The exit status of a child, negative if a signal ended it, or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return None if not found else os.waitstatus_to_exitcode(status)


def _wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while (status := ended(pid)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return status


def _kill(pid: int, group: bool) -> None:
    with _gone_is_fine():
        os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)


class _gone_is_fine:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> bool:
        return isinstance(error, ProcessLookupError)


# --- what must be true ---------------------------------------------------------------------------------------

def examine(output: Path, progress: dict[str, int], count: Count) -> str:
    """Check every file after a kill; returns what the process was doing. `progress`: run's folder -> finished epochs, updated
    here.

    Raises Lost where a file under its final name is not complete, or where an epoch is gone that was finished before.
    """
    from tcn.train import checkpoints

    at = "start or end of the call"
    for path in sorted(p for p in output.rglob("*") if p.is_file() and "mlartifacts" not in p.parts):
        if path.name.endswith(".partial") or ".partial" in path.suffixes:
            count.half_written += 1
            continue
        count.files += 1
        try:
            _whole(path)
        except Exception as error:
            raise Lost(f"{path} is not whole: {type(error).__name__}: {error}") from error
    for folder in sorted((output / "runs").glob("*")):
        path = folder / "status.json"
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"state": "new", "epochs_done": 0, "epochs": 0}
        epochs = checkpoints.last(folder).state
        reached = state["epochs"] if state["state"] == "finished" else epochs["epoch"] if epochs else 0
        if reached < max(progress.get(folder.name, 0), state["epochs_done"] if state["epochs"] else 0):
            raise Lost(f"{folder} was at epoch {progress.get(folder.name)}, and is at {reached}")
        progress[folder.name] = reached
        if state["state"] == "running":
            at = ("training" if reached < state["epochs"] else "scoring") if (folder / "steps.csv").exists() or state["epochs"] \
                else "scoring"
    return at


def _whole(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        widths = {len(row) for row in csv.reader(text.splitlines())}
        if not text.endswith("\n") or len(widths) > 1:
            raise ValueError("cut short")
    elif path.suffix in (".npz", ".pt"):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                raise ValueError("a checksum does not fit")
    elif path.suffix == ".png":
        if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
            raise ValueError("cut short")
    elif path.name == "mlflow.db":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
            answer = store.execute("PRAGMA integrity_check").fetchone()[0]
        if answer != "ok":
            raise ValueError(answer)


def compare(straight: Path, tortured: Path) -> int:
    """Compare the results of two suites; returns how many values were compared. Raises Lost, which names the file, where one
    differs."""
    import numpy as np
    import torch

    ours, theirs = ({p.name: p for p in (root / "runs").iterdir()} for root in (straight, tortured))
    if ours.keys() != theirs.keys():
        raise Lost(f"other runs: {sorted(ours)} and {sorted(theirs)}")
    values = 0
    for name, folder in ours.items():
        twin = theirs[name]
        names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (folder, twin)]
        if names[0] != names[1]:
            raise Lost(f"{twin} has other files: {sorted(names[0] ^ names[1])}")
        for file in sorted(names[0]):
            a, b = folder / file, twin / file
            if a.suffix == ".npz":
                with np.load(a) as x, np.load(b) as y:
                    equal = x.files == y.files and all(np.array_equal(x[k], y[k]) for k in x.files)
                    values += sum(x[k].size for k in x.files)
            elif a.suffix == ".pt":
                x, y = (torch.load(p, weights_only=True)["model"] for p in (a, b))
                equal = a.read_bytes() == b.read_bytes()
                values += sum(tensor.numel() for tensor in x.values())
                equal = equal and all(torch.equal(x[k], y[k]) for k in x)
            elif file in ("history.csv", "steps.csv"):
                x, y = ([{k: v for k, v in row.items() if k not in TIMES} for row in _rows(p)] for p in (a, b))
                equal = x == y
                values += sum(len(row) for row in x)
            elif file in ("provenance.json", "spent.json", "mlflow.json", "SHA256SUMS", ".lock", "diff.patch"):
                continue  # they say when, where and how a run was made, or are checksums of such files
            else:
                equal = a.read_bytes() == b.read_bytes()
                values += a.read_bytes().count(b",") if a.suffix == ".csv" else 1
            if not equal:
                raise Lost(f"{b} differs from the undisturbed {a}")
    return values


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def count_runs(output: Path) -> int:
    """Check the MLflow store; returns how many runs it has. Raises Lost where a run is missing, is there twice or is not
    FINISHED, and where a metric is missing or is there twice."""
    with sqlite3.connect(f"file:{output / 'mlflow.db'}?mode=ro", uri=True) as store:
        recorded = store.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        tags: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for run, key, value in store.execute("SELECT run_uuid, key, value FROM tags"):
            tags[run][key] = value
        logged: dict[str, collections.Counter[tuple[str, int]]] = collections.defaultdict(collections.Counter)
        for run, key, step in store.execute("SELECT run_uuid, key, step FROM metrics WHERE key NOT LIKE 'system/%'"):
            logged[run][key, step] += 1
        params = collections.Counter(run for run, in store.execute("SELECT run_uuid FROM params"))
    wrong = [f"{run} is {status}" for run, status in recorded if status != "FINISHED"]
    parents = [run for run, _ in recorded if tags[run].get("kind") == "suite"]
    folders = collections.Counter(tags[run].get("folder") for run, _ in recorded if tags[run].get("kind") == "run")
    runs = {p.name: p for p in (output / "runs").iterdir()}
    if len(parents) != 1:
        wrong.append(f"{len(parents)} runs of the suite")
    if set(folders) != set(runs) or any(number != 1 for number in folders.values()):
        wrong.append(f"runs by run {dict(folders)}, runs {sorted(runs)}")
    for run, _ in recorded:
        path = runs.get(tags[run].get("folder", ""))
        if path is None:
            continue
        steps = _rows(path / "steps.csv") if (path / "steps.csv").exists() else []
        expected = {("step/total", int(row["step"])) for row in steps}
        twice = [key for key, number in logged[run].items() if number > 1]
        missing = [key for key in expected if not logged[run][key]]
        if twice or missing or not params[run] or not any("mAP" in key for key, _ in logged[run]):
            wrong.append(f"{path.name}: metrics twice {twice[:3]}, missing {missing[:3]}, {params[run]} parameters")
    if wrong:
        raise Lost(f"{output / 'mlflow.db'}: {'; '.join(wrong)}")
    return len(recorded)


# --- the torture ---------------------------------------------------------------------------------------------

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
            status = _wait(pid, 600)
        else:
            pid = child(arguments, log, fresh)
            status = _wait(pid, rng.uniform(0, within) if how == "a moment" else 900)
            if status is None and how == "a moment":
                how += _at_random(pid, group, rng)
                # A driver survives the death of one worker; it is killed a little later.
                status = _wait(pid, rng.uniform(0, 3)) if how.endswith("one worker") else _wait(pid, 10)
                if status is None:
                    _kill(pid, True)
                    status = _wait(pid, 10)
        with _gone_is_fine():
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
        _kill(rng.choice(workers).pid, False)
        return ", one worker"
    _kill(pid, group)
    return ", with its workers" if workers and group else ", its workers left" if workers else ""


def torture(arguments: Sequence[str], output: Path, kills: int, seed: int, within: float | None = None, each: int = 8,
            settings: Sequence[str] = tuple(SETTINGS), say: Callable[[str], None] = print) -> Count:
    """Run the grid undisturbed, then in rounds until there were `kills` kills. Raises Lost where anything was lost.

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
    if _wait(pid, 3600) != 0:
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
             f"- {count.files:,} files looked at right after a kill, all whole; {count.half_written:,} half-written ones, all "
             "under a name that nobody reads.",
             f"- {count.recorded} MLflow runs, each there once, FINISHED, every metric of every step once.",
             "- Lost: nothing."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/torture.py", description=__doc__.splitlines()[0],
                                     epilog="Arguments after -- go to run_all.py instead of the small grid on emoji.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where rounds are run; one is kept: the last")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments, not of the runs")
    parser.add_argument("--within", type=float, metavar="S", help="moments lie in so many seconds after each start "
                                                                  "(default: as long as the undisturbed run took)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table there")
    given = list(sys.argv[1:] if arguments is None else arguments)
    grid: list[str] = list(GRID)
    if "--" in given:
        grid, given = given[given.index("--") + 1:], given[:given.index("--")]
    options = parser.parse_args(given)
    from benchmarks import prepared, provenance, run_all
    from tcn.config import InputError
    from tcn.files.atomic import writable

    provenance.check_checkout(Path(__file__))
    try:
        writable(options.output, "the output folder", "--output")
        for name, value in (("kills", options.kills), ("within", options.within)):
            if value is not None and value <= 0:
                raise InputError(f"--{name} {value}: give a number above 0")
        # What stops the grid is bad input, not something that a kill lost.
        prepared.prepare(run_all.parser().parse_args([*grid, "--output", str(options.output.resolve() / "undisturbed")]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        count = torture(grid, options.output.resolve(), options.kills, options.seed, options.within,
                        say=lambda line: print(line, flush=True))
    except Lost as error:
        print(f"LOST: {error}", file=sys.stderr)
        return 1
    table = to_markdown(count, provenance.command(), _machine())
    print(table)
    if options.table:
        options.table.write_text(table, encoding="utf-8")
    return 0


def _machine() -> str:
    import torch

    from benchmarks import provenance

    record = provenance.collect(torch.device("cpu"))
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "mlflow") if name in record["versions"])
    return f"{record['device']}, Python {record['python']}, {versions}, commit {str(record['commit'])[:10]}"


if __name__ == "__main__":
    sys.exit(main())
