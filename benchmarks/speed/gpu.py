"""Everything that needs a GPU, in one call of under 10 minutes: tests, speed, profile, and what the whole grid costs.

`python benchmarks/speed/gpu.py --output DIR` writes DIR/speed.md and .json (rates and ratios), profile.txt (kernels of a
training step, by time), tests.txt (tests/train/test_gpu.py), cost.txt (GPU-hours of the paper's grid at the rates measured).
Parts that no time is left for are named. Random weights and pictures: no data set and no download is needed.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
#: What each part may take, in seconds, when 9 minutes are given in all; the training step gets what is left.
TESTS, PROFILE, COST = 60, 40, 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed/gpu.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all of it (default: 9)")
    parser.add_argument("--profile", action="store_true", help="only print the kernels of a training step, by time")
    options = parser.parse_args(arguments)
    import torch

    from tcn.model.execution import same_products

    same_products()  # before CUDA is used: one of the rows asks for deterministic algorithms
    if not torch.cuda.is_available():
        print("error: no CUDA device here; run this on a machine with a GPU", file=sys.stderr)
        return 2
    if options.profile:
        print(profile())
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * options.minutes
    tests = [sys.executable, "-m", "pytest", "tests/train/test_gpu.py", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    cost = [sys.executable, "benchmarks/run_all.py", "--dry-run", "--profile", "paper", "--device", "cuda",
            "--variants", "floors", "main", "leave-one-out", "--cache", str(options.output / "cache")]
    parts = {"tests.txt": (tests, TESTS),
             "profile.txt": ([sys.executable, __file__, "--output", str(options.output), "--profile"], PROFILE),
             "cost.txt": (cost, COST)}
    failed = []
    for name, (command, seconds) in parts.items():
        failed += [name] if not _kept(command, options.output / name, min(seconds, end - time.time())) else []
    speed = [sys.executable, "benchmarks/speed/run.py", "sharing", "training", "data", "scoring", "--output",
             str(options.output / "speed.md")]
    # The suite stops by itself a little before the end, so that its table is written.
    os.environ["TCN_SPEED_UNTIL"] = str(end - 40)
    failed += [] if _kept(speed, options.output / "speed.txt", end - time.time()) else ["speed.md"]
    for name in failed:
        print(f"not finished: {name}; see its text in {options.output}", file=sys.stderr)
    return 1 if failed else 0


def _kept(command: list[str], path: Path, seconds: float) -> bool:
    """Run a command within some seconds, its output kept in `path`. True where it ended well."""
    print(f"{path.name}: {' '.join(command[1:])}", flush=True)
    with open(path, "w") as out:
        try:
            done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=max(1.0, seconds))
            return done.returncode == 0
        except subprocess.TimeoutExpired:
            out.write(f"\nstopped after {seconds:.0f} s\n")
            return False


def profile() -> str:
    """Kernels of the paper's training step by their time on the device, float32 and bf16, as text."""
    import torch
    from torch.profiler import ProfilerActivity

    from benchmarks.speed.bench_training import trainer
    from tcn.config import Execution

    found = []
    for precision in ("float32", "bf16"):
        made = trainer("paper", Execution(precision=precision), pictures=256)
        batches = made.batches(6)
        made.from_memory(batches)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
            made.from_cache(6)
            torch.cuda.synchronize()
        found.append(f"{precision}, 6 steps of 32 pairs\n"
                     + record.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=70))
        del made, batches
    return "\n\n".join(found)


if __name__ == "__main__":
    sys.exit(main())
