"""CPU threads: how many a run may use, for torch and for the linear algebra under NumPy alike.

In: a number. Out: the limit is set for this process. Sums depend on the number of threads, so results do.
"""
from __future__ import annotations

import threadpoolctl
import torch

from tcn.config import InputError

MOST_THREADS = 1024


def check_threads(threads: int) -> None:
    """InputError above MOST_THREADS: each is a real thread, whatever the machine has, and would fill its table of processes."""
    if threads > MOST_THREADS:
        raise InputError(f"{threads:,} threads are more than any run was made with; give --threads up to {MOST_THREADS:,}")


def limit_threads(threads: int) -> None:
    """Let torch and the linear algebra under NumPy use `threads` CPU threads. InputError above MOST_THREADS.

    More threads than the machine has cores are slow, but give the same bits as a machine that has so many.
    """
    check_threads(threads)
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads, user_api="blas")
