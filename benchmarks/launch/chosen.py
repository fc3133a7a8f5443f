"""The launcher that a command line asks for.

In: the parsed options, the device. Out: a `Launcher`, or None if this process computes the runs itself.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.launch import jobs
from benchmarks.launch.processes import Processes


def launcher(options: argparse.Namespace, device: torch.device, output: Path) -> jobs.Launcher | None:
    """The launcher asked for; None if this process computes one run after the other. InputError if it can't be used."""
    if options.launcher == "local":
        return None
    if options.launcher == "ray":
        from benchmarks.launch.cluster import RayLauncher

        return RayLauncher(options.device, options.ray_address, **_wishes(options))
    if options.launcher == "slurm":
        from benchmarks.launch.slurm import SlurmLauncher

        return SlurmLauncher(options.device, options.slurm or "", output / "slurm", workers=options.workers,
                             threads=options.threads, gpus_per_run=options.gpus_per_run)
    return Processes(_groups(options, device), _share(options, device), output / "workers")


def measured_at_once(options: argparse.Namespace, device: torch.device) -> int:
    """The number of runs that can be computed at once, each as fast as a calibration in this process: one on each GPU, or on each
    group of GPUs of a run (whose further ones count for nothing here); on the CPU the number of worker processes, if `--threads`
    gives each as many threads as this process has."""
    if options.launcher != "processes" or device.type != "cuda" and not options.threads:
        return 1
    workers = _share(options, device).workers
    return min(len(_groups(options, device)), workers) if device.type == "cuda" else workers


def _wishes(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("workers", "threads", "runs_per_gpu", "cpus_per_run", "gpus_per_run")}


def _devices(options: argparse.Namespace, device: torch.device) -> list[str]:
    """All GPUs, if the command line names no single one; also if each run has several, since it can name the first alone then."""
    every = device.type == "cuda" and (device.index is None or (options.gpus_per_run or 1) > 1)
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(device)]


def _groups(options: argparse.Namespace, device: torch.device) -> list[str]:
    """The GPUs of each run at once, joined by commas; what is left over is not used."""
    found, its = _devices(options, device), options.gpus_per_run or 1
    if device.type != "cuda":
        return found
    return [",".join(found[first:first + its]) for first in range(0, len(found) - its + 1, its)]


def _share(options: argparse.Namespace, device: torch.device) -> jobs.Share:
    return jobs.share(jobs.cores(), len(_devices(options, device)) if device.type == "cuda" else 0, **_wishes(options))
