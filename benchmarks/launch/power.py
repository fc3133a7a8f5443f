"""Watts that a GPU draws while something runs, as nvidia-smi reports them.

In: a GPU. Out: samples in watts; none if nvidia-smi is missing or does not report power.
"""
from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Iterator

import torch

EVERY_SECONDS = 0.2


def name_of(device: torch.device) -> str:
    """The GPU's UUID, by which nvidia-smi knows it whatever CUDA_VISIBLE_DEVICES says; empty for a device that is not a GPU."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else ""


@contextlib.contextmanager
def drawn(gpu: str) -> Iterator[list[float]]:
    """Yield a list that fills with the watts drawn during the block. `gpu`: UUID or index; if empty, the list stays empty."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            try:
                told = subprocess.run(["nvidia-smi", f"--id={gpu}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"],
                                      capture_output=True, text=True, timeout=10).stdout
            except (OSError, subprocess.TimeoutExpired):
                return
            with contextlib.suppress(ValueError):  # nvidia-smi prints `[N/A]` or an error message instead of a number
                samples.append(float(told))
            over.wait(EVERY_SECONDS)

    thread = threading.Thread(target=sample, daemon=True)
    if gpu:
        thread.start()
    try:
        yield samples
    finally:
        over.set()
        if gpu:
            thread.join()


def middle(samples: list[float]) -> float:
    """The median of samples, which a few idle moments before and after hardly change; 0 without samples."""
    return statistics.median(samples) if samples else 0.0
