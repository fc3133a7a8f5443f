"""What the command does with results that are there: `--sync` mirrors them into MLflow, `--reproduce` repeats one run.

In: the command's options. Out: lines on the screen, and the exit status.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks import preflight, prepared, provenance, reproduce
from benchmarks.launch.board import duration
from benchmarks.material import Material
from benchmarks.mirror import Mirror
from benchmarks.store import SuiteFolder
from benchmarks.threads import limit_threads
from reports.render.command import render
from tcn.config import InputError
from tcn.data import declared
from tcn.files.atomic import writable
from tcn.train import parallel


def sync(options: argparse.Namespace) -> int:
    """Mirror what lies in an output folder; needs neither data nor settings. Returns the exit status."""
    folder = ("output",) if options.output else ("profile", "sample", "as_released", "quick")
    prepared.keep_only("--sync trains nothing", options, "sync", *folder)
    name = prepared.suite_name(options.profile or "laptop", options)
    suite = SuiteFolder.open(options.output or provenance.ROOT / "results" / name)
    mirror = Mirror(suite, provenance.command())
    if not mirror.alive:
        raise InputError("nothing was mirrored: MLflow is not available (see the line above); start its server or check "
                         "$MLFLOW_TRACKING_URI, and give the command again")
    folders = suite.folders()
    written = sum(mirror.settle(folder) for folder in folders)
    closed = mirror.close_stale()
    if (suite.output / "report").is_dir():
        mirror.report(suite.output / "report")
    states = {folder.state for folder in folders}
    mirror.close("FAILED" if "failed" in states else "FINISHED" if states == {"finished"} else "KILLED")
    if not mirror.alive:
        return 1
    print(f"{len(folders)} run{'' if len(folders) == 1 else 's'} in {suite.output}: {written} brought up to date in "
          f"{mirror.uri}, the others were so; {closed} run{'' if closed == 1 else 's'} that no process works on closed")
    return 0


def repeat(options: argparse.Namespace, root: Path | None) -> int:
    """Repeat a recorded run (`benchmarks.reproduce`) with the pictures in `root`. Returns the exit status: 1 where it differs."""
    prepared.keep_only("--reproduce repeats a run as it was", options, "reproduce", "tolerance", "output", "device", "threads",
                       "gpus_per_run", "data_root", "cache", "datasets", "lists", "emoji_tarballs", "words", "weights",
                       "teacher_weights", "no_report")
    if not all(map(declared.is_file, options.datasets or ())):
        raise InputError("--reproduce repeats a run as it was; leave out --datasets, but for the file that declares its data set")
    folder = reproduce.find(options.reproduce, options.output, provenance.ROOT / "results")
    original = reproduce.read(folder)
    # Sums depend on the number of threads: without word from the user, take the original's.
    threads = options.threads or original.provenance.get("threads")
    if threads:
        limit_threads(int(threads))
    gpus = options.gpus_per_run or original.provenance.get("gpus_per_run") or 1
    checks = preflight.Checks()
    device = checks.ask(lambda: prepared.device_named(options.device))
    if device is not None:
        checks.ask(lambda: parallel.devices_of(device, gpus))
    material = Material(prepared.places_of(options, root, checks))
    checks.ask(lambda: writable(original.suite, "the output folder", "folder: copy the suite to where you may write"))
    checks.ask(preflight.tracking_address)
    preflight.check_runs(checks, [original.run], material, original.suite / reproduce.FOLDER, device, gpus=gpus)
    checks.stop()
    assert device is not None  # else that was a reason to stop
    print(f"repeating {original.folder.name} on {provenance.device_name(device)}, {torch.get_num_threads()} threads"
          + (f", {gpus} processes" if gpus > 1 else ""), flush=True)
    started = time.perf_counter()
    result = reproduce.reproduce(original, material, device, options.tolerance, provenance.command(), gpus)
    print(f"{result.text()}\n  took {duration(time.perf_counter() - started)}; written to "
          f"{original.suite / reproduce.FOLDER / (original.folder.name + '.json')}")
    if not options.no_report:
        print(f"report: {render(original.suite, original.suite / 'report')}")
    return 0 if result.agrees else 1
