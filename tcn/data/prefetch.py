"""Work done in threads before its results are asked for, and the move of a batch to the device.

In: items and a function, such as the indices of batches and the read of their images. Out: the results in order, made
while the device still computes on earlier ones; and batches as float on the device.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Made = TypeVar("Made")


def to_float(block: Tensor, device: torch.device | str) -> Tensor:
    """uint8 [B, S, S, C] -> float [B, C, S, S] in 0..255 on `device`. The bytes are moved, and become float there."""
    moved = block.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return moved.to(torch.float32, memory_format=torch.contiguous_format)


def prefetch_depth(device: torch.device) -> int:
    """Number of batches to read ahead: none on the CPU, whose cores compute; a few elsewhere.

    In each of them, a pair at 256 pixels takes 0.26 to 0.39 MB of host memory.
    """
    return 0 if device.type == "cpu" else 4


def prefetch(items: Iterator[Item], make: Callable[[Item], Made], depth: int, workers: int = 1
          ) -> Generator[Made, None, None]:
    """make(item) for each item, in order. Up to `depth` results are made in threads before they are asked for (0: none).

    An error in `make` is raised where its result would have come. Closing the generator early leaves no thread behind.
    """
    if depth < 1:
        yield from map(make, items)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
