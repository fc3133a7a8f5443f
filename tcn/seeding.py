"""One random stream per role, epoch and step, derived from the run's seed.

Streams are independent of each other and of the number of loader workers, so resuming at an epoch, or
loading in another order, draws the same numbers. (The released loader replays one stream every epoch.)
"""
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def stream_seed(seed: int, role: str, *indices: int) -> int:
    """A 63-bit seed for `role` at `indices` (epoch, step, ...), the same on every machine.

    >>> stream_seed(0, "pairs", 1) == stream_seed(0, "pairs", 1) != stream_seed(0, "pairs", 2)
    True
    """
    text = ":".join([str(seed), role, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_stream(seed: int, role: str, *indices: int) -> np.random.Generator:
    """A NumPy generator for `role` at `indices`."""
    return np.random.default_rng(stream_seed(seed, role, *indices))


def torch_stream(seed: int, role: str, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for `role` at `indices` on `device`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, role, *indices))


@contextlib.contextmanager
def borrowed(seed: int) -> Iterator[None]:
    """Seed torch's global CPU stream, from which framework defaults draw, and restore it afterwards, on an exception too.

    Streams of other devices are not touched; `torch.manual_seed` would restart those as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
