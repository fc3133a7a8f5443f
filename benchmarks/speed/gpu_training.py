"""The speed and memory of training on a GPU: each precision and memory order, larger batches, compiled encoders.

In: a `Scale`. Out: named measurements (`training`, `larger`, `compiled`), each a dictionary of rates, seconds and GiB.
"""
from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.speed.bench_training import DEVICE
from benchmarks.speed.gpu_scale import Measurement, Scale, wait
from tcn.config import REFERENCE, Config, Execution, change
from tcn.model.execution import training_mode

#: Largest relative difference of the first step's losses from those in float32, on a network with random weights. docs/speed.md
#: has the differences of the fast forms.
TOLERANCE = {"float32": 1e-3, "tf32": 0.03, "bf16": 0.1}


def training(scale: Scale) -> Iterator[Measurement]:
    """The paper's training step in each precision and memory order."""
    yield from _training(scale, [("float32", "channels-last", "fast", "none", 32), ("bf16", "channels-last", "fast", "none", 32),
                                 ("tf32", "channels-last", "fast", "none", 32), ("float32", "contiguous", "fast", "none", 32),
                                 ("tf32", "contiguous", "fast", "none", 32), ("bf16", "contiguous", "fast", "none", 32),
                                 ("float32", "channels-last", "deterministic", "none", 32),
                                 ("float32", "contiguous", "deterministic", "none", 32)])
    yield "reference: plain step, PyTorch's own defaults", lambda: plain(scale)


def larger(scale: Scale) -> Iterator[Measurement]:
    """The training step with more pairs in a batch."""
    yield from _training(scale, [(precision, "channels-last", "fast", "none", 128) for precision in ("float32", "bf16", "tf32")])


def compiled(scale: Scale) -> Iterator[Measurement]:
    """The training step with compiled encoders."""
    yield from _training(scale, [("float32", "channels-last", "fast", "none", 32),
                                 *((precision, "channels-last", "fast", "encoders", 32)
                                   for precision in ("bf16", "float32", "tf32")),
                                 ("bf16", "channels-last", "fast", "encoders", 128)])


def _training(scale: Scale, rows: Sequence[tuple[str, str, str, str, int]]) -> Iterator[Measurement]:
    first: dict[str, dict[str, float]] = {}
    for precision, order, algorithms, compiling, batch in rows:
        if precision == "tf32" and DEVICE.type == "cpu":
            continue
        execution = change(Config(), {"execution.precision": precision, "execution.memory_format": order,
                                      "execution.algorithms": algorithms, "execution.compile": compiling}).execution
        name = ", ".join([precision, order, *(["deterministic"] if algorithms == "deterministic" else []),
                          *(["compiled"] if compiling != "none" else []), f"batch {batch}"])
        yield name, partial(trained, scale, execution, batch, first)


def trained(scale: Scale, execution: Execution, batch: int, first: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Pairs per second with batches in memory and from the store, seconds until the first step was done, and peak memory.

    first: batch size -> losses of the first step in the first call with it, which is added here. The losses of later calls are
    compared with these.
    """
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    made = scale.trainer(execution, batch)
    batches = made.batches(scale.steps)
    built = time.perf_counter() - started
    with training_mode(execution, DEVICE):
        losses = {name: value.item() for name, value in made.step(batches[0]).items()}
    begun = time.perf_counter() - started - built
    rates, watts = rounds(lambda: made.from_memory(batches), scale.steps * len(batches[0]), scale)
    stored, _ = rounds(lambda: made.from_cache(scale.steps), scale.steps * len(batches[0]), scale)
    found = {"pairs/s": statistics.median(rates), "fastest": max(rates), "from the store": statistics.median(stored),
             "build s": built, "first step s": begun, **memory(), "watts": watts, "losses": losses}
    expected = first.setdefault(str(batch), losses)
    allowed = TOLERANCE[execution.precision]
    wrong = [name for name, value in losses.items()
             if not math.isclose(value, expected[name], rel_tol=allowed, abs_tol=1e-3)]
    return {**found, "ok": not wrong, **({"wrong": f"losses of the first step: {', '.join(wrong)}"} if wrong else {})}


def plain(scale: Scale) -> dict[str, Any]:
    """The plain step of reference_training.py, with PyTorch's own defaults (TF32 in cuDNN's convolutions)."""
    made = scale.trainer(REFERENCE)
    batches = made.batches(scale.steps)
    rates, watts = rounds(lambda: made.plain(batches), scale.steps * len(batches[0]), scale)
    return {"pairs/s": statistics.median(rates), "fastest": max(rates), **memory(), "watts": watts}


def rounds(run: Callable[[], Any], units: int, scale: Scale) -> tuple[list[float], float | None]:
    """Units per second in each timed round, after one untimed round; the device's mean power in watts, None if it is not
    known."""
    run()
    rates, powers = [], []
    for _ in range(scale.rounds):
        wait()
        started = time.perf_counter()
        run()
        wait()
        rates.append(units / (time.perf_counter() - started))
        powers += power()
    return rates, statistics.mean(powers) if powers else None


def power() -> list[float]:
    """The power in watts, as a list of one; empty if the device does not report it."""
    try:
        return [torch.cuda.power_draw() / 1000] if DEVICE.type == "cuda" else []
    except Exception:  # pynvml is missing, or the driver does not report power
        return []


def memory() -> dict[str, float]:
    """Peak memory of the device in GiB: in use, and reserved by torch."""
    if DEVICE.type != "cuda":
        return {}
    return {"peak GiB": torch.cuda.max_memory_allocated() / 2**30, "held GiB": torch.cuda.max_memory_reserved() / 2**30}
