"""What benchmarks/speed/gpu.py measures by itself: one part in each call; every result is written as soon as it is known.

`python benchmarks/speed/gpu_parts.py PART FILE` adds a line of JSON to FILE for each result. A measurement that raises an error
has the error as its result, and the next ones are measured all the same. `--small` takes small networks, for tests on a machine
without a GPU. The parts on training are in gpu_training.py, those on several processes in gpu_processes.py.
"""
from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.speed.bench_training import DEVICE
from benchmarks.speed.gpu_processes import lost_device, two_runs
from benchmarks.speed.gpu_scale import Measurement, Scale, wait
from benchmarks.speed.gpu_training import compiled, larger, training
from tcn.config import Config, Execution, change
from tcn.model.execution import keep_memory, same_products, training_mode
from tcn.seeding import numpy_stream


def checks(scale: Scale) -> Iterator[Measurement]:
    """The device, computations that must agree with the CPU's, and steps in which the host must not wait for the device."""
    yield "device", facts
    for form in ("corrected", "released"):
        for channels in (3, 1):
            yield f"augment, {form}, {channels} channel{'s' * (channels > 1)}", partial(augmented, form, channels, scale)
    for algorithms in ("fast", "deterministic"):
        execution = change(Config(), {"execution.algorithms": algorithms}).execution
        yield f"steps without waiting, {algorithms}", partial(unwaited, execution, scale)


def facts() -> dict[str, Any]:
    """The device, and versions of Python, torch and CUDA."""
    found = {"device": provenance.device_name(DEVICE), "torch": torch.__version__, "cuda": torch.version.cuda,
             "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(), "cores": os.cpu_count(),
             "commit": provenance.commit()["commit"]}
    if DEVICE.type == "cuda":
        one = torch.cuda.get_device_properties(DEVICE)
        found |= {"GiB": one.total_memory / 2**30, "capability": f"{one.major}.{one.minor}"}
    return found


def augmented(form: str, channels: int, scale: Scale) -> dict[str, Any]:
    """Largest difference of augmented pictures between the device and the CPU, in grey levels, and the share of values that
    differ by more than half a level (the released form has whole levels, so a value rounded the other way differs by one)."""
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
    """Take training steps. After the first one, torch raises an error if the host waits for the device."""
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


# --- the command -------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Scale], Iterator[Measurement]]] = {
    "checks": checks, "training": training, "lost device": lost_device, "two runs": two_runs, "larger batches": larger,
    "compiled": compiled}


def kernels(scale: Scale) -> str:
    """The kernels of the training step in the order of their time on the device, for float32 and bf16, as text."""
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
    """Run a part. Returns 0 even if a measurement raised an error, since the error is among the results."""
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
        except Exception:  # the device no longer answers, which the next results will show
            traceback.print_exc()
        line = json.dumps({"part": part, "name": name, **row, "took s": round(time.perf_counter() - started, 1)})
        with open(file, "a") as out:
            out.write(line + "\n")
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
