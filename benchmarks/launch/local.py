"""One run after the other in this process, which the command does unless it is told otherwise.

In: the folders of planned runs. Out: the folders as `runner.attempt` leaves them. Runs that another call of the command works on
are left to that call, and looked at again when the others are done.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch

from benchmarks import interrupts, provenance
from benchmarks.launch.board import duration
from benchmarks.material import Material
from benchmarks.mirror import Mirror
from benchmarks.runner import Failure, attempt, lacks_ledger
from benchmarks.store import RunFolder

LOST = ("the remaining runs are not tried: {} answers this process no more. Give the same command again: it goes on from "
        "the last finished epochs; --launcher processes goes on by itself, with a new process")


def run_in_turn(folders: Sequence[RunFolder], material: Material, mirror: Mirror, device: torch.device,
                failures: dict[str, str], gpus: int = 1) -> tuple[int, int]:
    """Compute all runs that are not finished, each on `gpus` devices; failures are added to `failures`. Returns how many ran well
    and how many were skipped.

    Stops if the device no longer answers this process; `failures` says so under the device's name.
    """
    trained = skipped = 0
    left = list(enumerate(folders, 1))
    told: dict[int, str] = {}
    while left:
        elsewhere = []
        for number, folder in left:
            interrupts.check()
            if holder := folder.holder():
                if told.get(number) != holder:
                    print(f"[{number}/{len(folders)}] {folder.run.variant} seed {folder.run.seed}: left to {holder}",
                          flush=True)
                told[number] = holder
                elsewhere.append((number, folder))
                continue
            if folder.whole() and not lacks_ledger(folder):
                skipped += 1
                mirror.settle(folder)
                continue
            if number in told and folder.state == "failed":
                failures[folder.run.name] = f"{folder.status['reason']} (in another call of the command)"
                continue
            started = time.perf_counter()
            failure = _one(number, len(folders), folder, material, mirror, device, gpus)
            if failure and failure.holder:  # another call has taken the run in between
                elsewhere.append((number, folder))
            elif failure:
                failures[folder.run.name] = failure.reason
                print(f"  failed: {failure.reason}", file=sys.stderr)
                if failure.device_lost:
                    failures[str(device)] = LOST.format(device)
                    return trained, skipped
            else:
                trained += 1
                print(f"  finished in {duration(time.perf_counter() - started)}", flush=True)
        left = elsewhere
        if left:
            time.sleep(1.0)
    return trained, skipped


def _one(number: int, count: int, folder: RunFolder, material: Material, mirror: Mirror, device: torch.device, gpus: int
         ) -> Failure | None:
    label = f"[{number}/{count}] {folder.run.variant} seed {folder.run.seed}"
    resumed = f", resumed after epoch {folder.epochs_done}" if folder.epochs_done else ""
    print(f"{label} on {folder.run.dataset} {folder.run.split}{resumed}", flush=True)
    return attempt(folder.run, folder, material, mirror, device, label, provenance.command(), gpus)
