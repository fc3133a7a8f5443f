"""The `timed` fixture: a computation with its role (ours, reference, ceiling), timed by pytest-benchmark."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

ROLES = ("ours", "reference", "ceiling")
Timed = Callable[..., Any]
"""The type of the function that the fixture `timed` gives."""


@pytest.fixture
def timed(benchmark: Any) -> Iterator[Timed]:
    """timed(subject, work, role, units, unit, run, rounds=3, warmup=1, note="", threads=None, setup=None, beside="")
    -> what run() returned.

    Rows of the same subject and work are compared with each other: `reference` is the plain computation in the released
    style, `ours` is what a run of the suite does, `ceiling` is the least that any implementation has to do. One call of `run`
    does `units` of `unit`; `setup` is called before each round, untimed. `beside`: the work whose reference and ceiling are
    used if this one has none of its own. On CUDA a call ends when the device has finished. The benchmark is skipped after the
    time $TCN_SPEED_UNTIL (seconds since 1970).
    """
    if time.time() > float(os.environ.get("TCN_SPEED_UNTIL", "inf")):
        pytest.skip("the time given to the speed suite is used up")
    before = torch.get_num_threads()

    def measure(subject: str, work: str, role: str, units: float, unit: str, run: Callable[[], Any], rounds: int = 3,
                warmup: int = 1, note: str = "", threads: int | None = None, setup: Callable[[], None] | None = None,
                beside: str = "") -> Any:
        assert role in ROLES, role
        torch.set_num_threads(threads or before)
        benchmark.group = f"{subject}: {work}"
        benchmark.extra_info.update(subject=subject, work=work, role=role, units=units, unit=unit, note=note, beside=beside,
                                    threads=torch.get_num_threads(), device=_device())

        def call() -> Any:
            result = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return result

        return benchmark.pedantic(call, rounds=rounds, warmup_rounds=warmup, setup=setup)

    yield measure
    torch.set_num_threads(before)


def _device() -> str:
    from benchmarks.provenance import device_name

    return device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
