"""The launcher that a command line asks for.

In: the parsed options, the device. Out: a `Launcher`, or none where this process does the runs itself.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.launch import jobs
from benchmarks.launch.processes import Processes


def launcher(options: argparse.Namespace, device: torch.device, output: Path) -> jobs.Launcher | None:
    """The workers asked for; None for one run after the other here. InputError where they can't be had."""
    if options.launcher == "local":
        return None
    if options.launcher == "ray":
        from benchmarks.launch.cluster import RayLauncher

        return RayLauncher(options.device, options.ray_address, **_wishes(options))
    if options.launcher == "slurm":
        from benchmarks.launch.slurm import SlurmLauncher

        return SlurmLauncher(options.device, options.slurm or "", output / "slurm", workers=options.workers, threads=options.threads)
    return Processes(_devices(device), _share(options, device), output / "workers")


def measured_at_once(options: argparse.Namespace, device: torch.device) -> int:
    """How many runs compute at once as fast as the one that a calibration measures in this process: one on each GPU; on the CPU
    those of worker processes where `--threads` says that each has as many threads as this one."""
    if options.launcher != "processes" or device.type != "cuda" and not options.threads:
        return 1
    workers = _share(options, device).workers
    return min(len(_devices(device)), workers) if device.type == "cuda" else workers


def _wishes(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("workers", "threads", "runs_per_gpu", "cpus_per_run")}


def _devices(device: torch.device) -> list[str]:
    """Every GPU, where none was named."""
    every = device.type == "cuda" and device.index is None
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(device)]


def _share(options: argparse.Namespace, device: torch.device) -> jobs.Share:
    return jobs.share(jobs.cores(), len(_devices(device)) if device.type == "cuda" else 0, **_wishes(options))
