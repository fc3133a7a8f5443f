"""The launcher that a command line asks for.

In: the parsed options, the device. Out: a `Launcher`, or none where cells run in this process.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.launch import jobs
from benchmarks.launch.processes import Processes


def launcher(options: argparse.Namespace, device: torch.device, output: Path) -> jobs.Launcher | None:
    """The workers asked for; None for one cell after the other here. InputError where they can't be had."""
    wishes = {name: getattr(options, name) for name in ("workers", "threads", "cells_per_gpu", "cpus_per_cell")}
    if options.launcher == "local":
        return None
    if options.launcher == "ray":
        from benchmarks.launch.cluster import RayLauncher

        return RayLauncher(options.device, options.ray_address, **wishes)
    devices = devices_at_once(options, device)
    share = jobs.share(jobs.cores(), len(devices) if device.type == "cuda" else 0, **wishes)
    return Processes(devices, share, output / "workers")


def devices_at_once(options: argparse.Namespace, device: torch.device) -> list[str]:
    """Devices that compute at once: every GPU for worker processes where none was named, else one."""
    every = options.launcher == "processes" and device.type == "cuda" and device.index is None
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(device)]
