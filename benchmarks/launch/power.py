"""Watts that a GPU draws while something runs, as nvidia-smi tells them.

In: a GPU. Out: samples in watts; none where there is no nvidia-smi, or it does not tell.
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
    """The GPU as nvidia-smi knows it, whatever this process sees of it; empty for a device that is none."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else ""


@contextlib.contextmanager
def drawn(gpu: str) -> Iterator[list[float]]:
    """A list that fills with the watts drawn during the block. `gpu`: its UUID or index; empty: nothing is asked."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            try:
                told = subprocess.run(["nvidia-smi", f"--id={gpu}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"],
                                      capture_output=True, text=True, timeout=10).stdout
            except (OSError, subprocess.TimeoutExpired):
                return
            with contextlib.suppress(ValueError):  # `[N/A]`, or an error in words
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
    """Their median, which a few idle moments before and after do not move far; 0 without samples."""
    return statistics.median(samples) if samples else 0.0
