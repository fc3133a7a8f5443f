"""Several processes on one GPU: two runs that share it, and a worker whose device is lost.

In: a `Scale`. Out: named measurements (`two_runs`, `lost_device`), each a dictionary.
"""
from __future__ import annotations

import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.launch.jobs import Job, Share
from benchmarks.launch.processes import LOST_DEVICE, Processes
from benchmarks.material import Places
from benchmarks.runner import Failure, settled
from benchmarks.speed.bench_training import DEVICE, read
from benchmarks.speed.gpu_scale import Measurement, Scale, wait
from tcn.config import Config, Execution, change
from tcn.model.execution import keep_memory, same_products, training_mode

RUN_SECONDS = 5.0
"""How long runs that share a GPU are timed."""


def two_runs(scale: Scale) -> Iterator[Measurement]:
    """The speed of two runs on one GPU together, beside that of one."""
    for precision in ("float32", "bf16"):
        alone: dict[str, float] = {}
        for number in (1, 2):
            yield (f"{number} run{'s' * (number > 1)}, {precision}",
                   partial(together, number, precision, scale, alone))


def together(number: int, precision: str, scale: Scale, alone: dict[str, float]) -> dict[str, Any]:
    """Pairs per second of `number` processes that train from the store at the same time. alone: holds the rate of one process, to
    compare two with it."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(number), context.Queue()
    processes = [context.Process(target=_run, args=(precision, scale, barrier, results), daemon=True) for _ in range(number)]
    for process in processes:
        process.start()
    rates = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    told = [rate for rate in rates if isinstance(rate, str)]
    if told:
        raise RuntimeError("; ".join(told))
    total = sum(rates)
    alone.setdefault("rate", total)
    return {"pairs/s": total, "each": " ".join(f"{rate:.0f}" for rate in rates), "of one": total / alone["rate"]}


def _run(precision: str, scale: Scale, barrier: Any, results: Any) -> None:
    try:
        keep_memory()
        same_products()
        execution = change(Config(), {"execution.precision": precision}).execution
        made, done = scale.trainer(execution), 0
        made.from_cache(scale.steps)
        made.from_cache(scale.steps)
        wait()
        barrier.wait(60)
        started = time.perf_counter()
        with training_mode(execution, DEVICE):
            while time.perf_counter() - started < (0.2 if scale.small else RUN_SECONDS):
                values = [made.step(batch, n) for n, batch in enumerate(made.source.epoch(0, 1, DEVICE))]
                read(values)
                done += made.source.pairs
        results.put(done / (time.perf_counter() - started))
    except Exception as error:  # `together` waits for a result of each process
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")


def lost_device(scale: Scale) -> Iterator[Measurement]:
    """A worker whose device no longer answers ends and is replaced; the driver's own process uses no GPU memory."""
    yield "the driver takes no memory of a GPU", driven
    yield "an index out of range on the device", lambda: broken(scale)


def driven() -> dict[str, Any]:
    """Ask the GPU what a driver asks it before and while its workers compute; then ask torch whether that created a context."""
    from benchmarks.prepared import device_named
    from tcn.model.execution import check_precision

    device = device_named(str(DEVICE), here=False)
    check_precision(Execution(precision="bf16"), device)
    name = provenance.device_name(device)
    held = DEVICE.type == "cuda" and \
        torch._C._cuda_hasPrimaryContext(0)  # type: ignore[attr-defined]  # torch does not declare it
    return {"device": name, "context": held, "ok": not held}


def broken(scale: Scale) -> dict[str, Any]:
    """Give a worker a job after which the device no longer answers, then one that any process with a working device can do."""
    from benchmarks import experiments

    run = experiments.plan(experiments.PROFILES["paper"], ["sketchy"], ["hws"], [0], {}, True)[0]
    with tempfile.TemporaryDirectory() as folder:
        launcher = Processes([str(DEVICE)], Share(1, 1), Path(folder), work_or_break)
        try:
            ends, workers = [], []
            for task in ("break", "work"):
                launcher.start(Job(run, Path(folder), "0" * 64, Places(Path(folder)), str(DEVICE), 1, task))
                workers.append(launcher._slots[0].process)
                ends += _one_end(launcher)
        finally:
            launcher.close()
        log = (Path(folder) / "worker-0.log").read_text(errors="replace")[-2000:]
    print(log)
    first, second = ends
    reason = first.lost or (first.failure.reason if first.failure else "no failure")
    found = {"reason": reason, "status": workers[0].exitcode, "next": "failed: " + (second.lost or second.failure.reason)
             if second.lost or second.failure else "well"}
    lost = bool(first.failure and first.failure.device_lost) and workers[0].exitcode == LOST_DEVICE
    return {**found, "ok": lost and found["next"] == "well" and workers[0].pid != workers[1].pid}


def _one_end(launcher: Processes) -> list[Any]:
    until = time.monotonic() + 50
    while time.monotonic() < until:
        if ends := launcher.poll(1.0):
            return ends
    raise TimeoutError("the worker did not answer within 50 s")


def work_or_break(job: Job) -> Failure | None:
    """The work of the worker: `break` reads past the end of a tensor on the device, `work` computes a sum there."""
    device = torch.device(job.device)
    try:
        if job.command == "break":
            torch.zeros(4, device=device).gather(0, torch.tensor([2**40], device=device)).cpu()
        torch.ones(3, device=device).sum().item()
        return None
    except Exception as error:
        failure = settled(Failure(f"{type(error).__name__}: {str(error).splitlines()[0]}", False), device)
    # A CPU always answers; there the failure is marked as if the device were lost.
    return failure if device.type == "cuda" else dataclasses.replace(failure, device_lost=True)
