"""What benchmarks/speed/gpu.py measures by itself: one part a call, each result written as soon as it is there.

`python benchmarks/speed/gpu_parts.py PART FILE` adds a line of JSON to FILE for each result. An error is the result of what raised
it, and what follows is measured all the same. `--small` takes small networks, for tests on a machine without a GPU.
"""
from __future__ import annotations

import dataclasses
import gc
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.launch.jobs import Job, Share
from benchmarks.launch.processes import LOST_DEVICE, Processes
from benchmarks.material import Places
from benchmarks.runner import Failure, settled
from benchmarks.speed.bench_training import DEVICE, Trainer, read, trainer
from tcn.config import REFERENCE, Config, Execution, change
from tcn.model.execution import keep_memory, same_products, training_mode
from tcn.seeding import numpy_stream

Task = tuple[str, Callable[[], dict[str, Any]]]
RUN_SECONDS = 5.0
"""How long runs that share a card are timed."""
#: How far losses of the first step may be from those in float32, as a share: docs/speed.md for the fast forms, on a network whose
#: weights are random.
TOLERANCE = {"float32": 1e-3, "tf32": 0.03, "bf16": 0.1}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes to measure at: the paper's, or small ones for a test."""

    small: bool = False

    @property
    def steps(self) -> int:
        """Steps in a round."""
        return 2 if self.small else 8

    @property
    def rounds(self) -> int:
        """Rounds that are timed."""
        return 1 if self.small else 3

    def trainer(self, execution: Execution, batch: int = 32) -> Trainer:
        """The paper's training, ResNet-50 at 224 pixels; a small one has half a million parameters, at 32."""
        if not self.small:
            return trainer("paper", execution, batch, pictures=self.steps * batch)
        return trainer("paper", execution, 4, pictures=4 * 2 * self.steps, **{
            "network.backbone": "test_resnet", "data.image_size": 32, "data.stored_size": 36})


def wait() -> None:
    """Until the device is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


# --- checks ----------------------------------------------------------------------------------------------------

def checks(scale: Scale) -> Iterator[Task]:
    """The device, what must be as on the CPU, and what must not wait for the device."""
    yield "device", facts
    for form in ("corrected", "released"):
        for channels in (3, 1):
            yield f"augment, {form}, {channels} channel{'s' * (channels > 1)}", partial(augmented, form, channels, scale)
    for algorithms in ("fast", "deterministic"):
        yield f"steps without waiting, {algorithms}", partial(unwaited, change(Config(), {"execution.algorithms": algorithms}).execution, scale)


def facts() -> dict[str, Any]:
    """Device and versions."""
    found = {"device": provenance.device_name(DEVICE), "torch": torch.__version__, "cuda": torch.version.cuda,
             "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(), "cores": os.cpu_count(),
             "commit": provenance.commit()["commit"]}
    if DEVICE.type == "cuda":
        one = torch.cuda.get_device_properties(DEVICE)
        found |= {"GiB": one.total_memory / 2**30, "capability": f"{one.major}.{one.minor}"}
    return found


def augmented(form: str, channels: int, scale: Scale) -> dict[str, Any]:
    """Largest difference of augmented pictures between the device and the CPU, in grey levels, and the share of values that
    differ by half a level or more (the released form is whole levels: one rounding the other way is one level)."""
    from tcn.data.augment import augment, draw_geometry

    pairs, size = (4, 36) if scale.small else (32, 256)
    geometry = draw_geometry(numpy_stream(0, "augmentation", 1), pairs)
    images = torch.randint(0, 256, (pairs, channels, size, size), generator=torch.Generator().manual_seed(0)).float()
    fill = 0.0 if form == "released" else 255.0
    here, there = augment(images.clone(), geometry, form, fill), augment(images.to(DEVICE), geometry, form, fill).cpu()
    away = (here - there).abs()
    largest, share = away.max().item(), (away > 0.5).float().mean().item()
    allowed = (1.0, 2e-3) if form == "released" else (0.1, 0.0)
    return {"largest": largest, "share": share, "ok": largest <= allowed[0] and share <= allowed[1]}


def unwaited(execution: Execution, scale: Scale) -> dict[str, Any]:
    """Batches and training steps after the first, in which torch raises where the host would wait for the device."""
    made = scale.trainer(execution)
    done = 0
    try:
        with training_mode(execution, DEVICE):
            for number, batch in enumerate(made.source.epoch(0, 1, DEVICE)):
                made.step(batch, number)
                done += 1
                if DEVICE.type == "cuda":
                    torch.cuda.set_sync_debug_mode("error")
                if done == 4:
                    break
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return {"steps": done, "ok": done == 4}


# --- training ----------------------------------------------------------------------------------------------------

def training(scale: Scale) -> Iterator[Task]:
    """The paper's training step in each precision and memory order."""
    yield from _training(scale, [("float32", "channels-last", "fast", "none", 32), ("bf16", "channels-last", "fast", "none", 32),
                                 ("tf32", "channels-last", "fast", "none", 32), ("float32", "contiguous", "fast", "none", 32),
                                 ("tf32", "contiguous", "fast", "none", 32), ("bf16", "contiguous", "fast", "none", 32),
                                 ("float32", "channels-last", "deterministic", "none", 32),
                                 ("float32", "contiguous", "deterministic", "none", 32)])
    yield "reference: plain step, PyTorch's own defaults", lambda: plain(scale)


def larger(scale: Scale) -> Iterator[Task]:
    """The same with more pairs in a batch."""
    yield from _training(scale, [(precision, "channels-last", "fast", "none", 128) for precision in ("float32", "bf16", "tf32")])


def compiled(scale: Scale) -> Iterator[Task]:
    """The same, compiled."""
    yield from _training(scale, [("float32", "channels-last", "fast", "none", 32),
                                 *((precision, "channels-last", "fast", "encoders", 32) for precision in ("bf16", "float32", "tf32")),
                                 ("bf16", "channels-last", "fast", "encoders", 128)])


def _training(scale: Scale, rows: Sequence[tuple[str, str, str, str, int]]) -> Iterator[Task]:
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
    """Pairs a second with batches in memory and from the store, seconds until the first step was done, memory at its peak.

    first: losses of the first step, from the first call with this number of pairs; others are held to them.
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
    """Units a second in each of some rounds, after one that is not timed; the device's mean power in watts, where it tells."""
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
    """Watts, as a list of one; empty where the device does not tell."""
    try:
        return [torch.cuda.power_draw() / 1000] if DEVICE.type == "cuda" else []
    except Exception:  # pynvml is missing, or the driver says no
        return []


def memory() -> dict[str, float]:
    """GiB of the device's memory at its peak: in use, and held by torch."""
    if DEVICE.type != "cuda":
        return {}
    return {"peak GiB": torch.cuda.max_memory_allocated() / 2**30, "held GiB": torch.cuda.max_memory_reserved() / 2**30}


# --- several processes -------------------------------------------------------------------------------------------

def two_runs(scale: Scale) -> Iterator[Task]:
    """What two runs on one card reach together, beside one."""
    for precision in ("float32", "bf16"):
        alone: dict[str, float] = {}
        for number in (1, 2):
            yield (f"{number} run{'s' * (number > 1)}, {precision}",
                   partial(together, number, precision, scale, alone))


def together(number: int, precision: str, scale: Scale, alone: dict[str, float]) -> dict[str, Any]:
    """Pairs a second of so many processes that train from the store at the same time. alone: the rate of one, kept for two."""
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
    except Exception as error:  # the part waits for a word of each
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")


def lost_device(scale: Scale) -> Iterator[Task]:
    """A worker whose device answers no more ends and is replaced; the process that hands out runs takes nothing of a GPU."""
    yield "the driver takes no memory of a GPU", driven
    yield "an index out of range on the device", lambda: broken(scale)


def driven() -> dict[str, Any]:
    """What a driver asks of a GPU before and while its workers compute; torch knows whether that made a context on it."""
    from benchmarks.prepared import device_named
    from tcn.model.execution import check_precision

    device = device_named(str(DEVICE), here=False)
    check_precision(Execution(precision="bf16"), device)
    name = provenance.device_name(device)
    held = DEVICE.type == "cuda" and torch._C._cuda_hasPrimaryContext(0)  # type: ignore[attr-defined]  # torch declares it nowhere
    return {"device": name, "context": held, "ok": not held}


def broken(scale: Scale) -> dict[str, Any]:
    """One worker process gets a job that makes the device answer no more, then one that any process with a device can do."""
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
    """What the worker does: `break` reads past the end of a tensor on the device, `work` computes a sum there."""
    device = torch.device(job.device)
    try:
        if job.command == "break":
            torch.zeros(4, device=device).gather(0, torch.tensor([2**40], device=device)).cpu()
        torch.ones(3, device=device).sum().item()
        return None
    except Exception as error:
        failure = settled(Failure(f"{type(error).__name__}: {str(error).splitlines()[0]}", False), device)
    # A CPU answers always; there the worker is told to take it for lost.
    return failure if device.type == "cuda" else dataclasses.replace(failure, device_lost=True)


# --- the command -------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Scale], Iterator[Task]]] = {
    "checks": checks, "training": training, "lost device": lost_device, "two runs": two_runs, "larger batches": larger,
    "compiled": compiled}


def kernels(scale: Scale) -> str:
    """Kernels of the training step by their time on the device, float32 and bf16, as text."""
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE.type == "cuda" else [])]
    found = []
    for precision in ("float32", "bf16"):
        made = scale.trainer(Execution(precision=precision))
        made.from_memory(made.batches(6))
        with torch.profiler.profile(activities=activities) as record:
            made.from_cache(6)
            wait()
        table = record.key_averages().table(sort_by=f"self_{DEVICE.type}_time_total", row_limit=25, max_name_column_width=70)
        found.append(f"{precision}, 6 steps of {made.config.data.batch_pairs} pairs\n{table}")
        del made, record
    return "\n\n".join(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a part; returns 0 also where one of its results is an error, which the results tell."""
    part, file, *rest = sys.argv[1:] if arguments is None else arguments
    scale = Scale("--small" in rest)
    keep_memory()
    same_products()  # before CUDA is used: some rows ask for deterministic algorithms
    if part == "kernels":
        Path(file).write_text(kernels(scale))
        return 0
    for name, measure in PARTS[part](scale):
        started = time.perf_counter()
        try:
            row = {"ok": True, **measure()}
        except Exception as error:
            traceback.print_exc()
            row = {"ok": False, "wrong": f"{type(error).__name__}: {error}"[:1000]}
        try:
            gc.collect()
            if DEVICE.type == "cuda":
                torch.cuda.empty_cache()
        except Exception:  # the device answers no more, as the next results will say
            traceback.print_exc()
        line = json.dumps({"part": part, "name": name, **row, "took s": round(time.perf_counter() - started, 1)})
        with open(file, "a") as out:
            out.write(line + "\n")
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
