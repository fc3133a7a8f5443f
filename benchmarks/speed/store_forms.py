"""The image store's two forms side by side: disk, decoding, reading warm and cold, and their share of a training step.

`python benchmarks/speed/store_forms.py SKETCHES PHOTOS` reads the picture files in two folders, at any depth. The
part `full` makes a tree of as many files as Sketchy has, by linking those, fills a compact store from it and reads that. Reading
warm is timed by the processor time of the reading thread, the training step by the clock and by the process's processor time.
Everything is made below `--work` and removed at the end.
"""
from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.provenance import device_name
from benchmarks.speed.bench_training import trainer
from tcn.config import Execution
from tcn.data import packing, pixels, store
from tcn.data.decode import decode
from tcn.data.pairs import PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.files.atomic import amount
from tcn.model.execution import keep_memory

SIZE, BATCH, CLASSES = 256, 32, 100
CPU = torch.device("cpu")


def listed(root: Path) -> Files:
    """All picture files below a folder."""
    paths = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in (".png", ".jpg")))
    return Files(root, paths, np.arange(len(paths)) % CLASSES, ("",) * len(paths))


def linked(files: Files, number: int, folder: Path) -> Files:
    """So many files in folders of a thousand, hard links to those of a list in turn (copies, where links are not possible)."""
    names = []
    for i in range(number):
        source = files.root / files.paths[i % len(files)]
        names.append(f"{i // 1000}/{i}{source.suffix}")
        target = folder / names[-1]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    return Files(folder, tuple(names), np.arange(number) % CLASSES, ("",) * number)


def filled(files: Files, form: str, cache: Path, name: str, size: int = SIZE) -> Pixels:
    """The pictures from a store of that form."""
    with mock.patch.dict(os.environ, {"TCN_CACHE_FORM": form}):
        return store.pack(files, size, cache / form, name, name, False)


def per_second(number: int, work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Units a second by the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        started = clock()
        work()
        best = min(best, clock() - started)
    return number / best


def batches(number: int, take: int, seed: int = 0) -> list[np.ndarray]:
    """Random batches without a picture twice."""
    order = np.random.default_rng(seed).permutation(number)[:take]
    return np.array_split(order, max(1, len(order) // BATCH))


def read(held: Pixels, chosen: Iterable[np.ndarray]) -> None:
    """Gather these batches."""
    for some in chosen:
        held.gather(some)


def cold(files: Files, form: str, cache: Path, name: str, advised: bool, seed: int) -> tuple[float, float]:
    """Pictures a second by the clock, of 512 whose pages the system was asked to drop from memory;
    and megabytes read from the disk."""
    held = filled(files, form, cache, name)
    chosen = batches(len(files), 512, seed)
    del held
    for file in (cache / form / "pixels").glob("*/*.*"):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with mock.patch.object(store, "_SAMPLE", 1):  # what opening checks is in memory then
        held = filled(files, form, cache, name)
    def silent(*_: object) -> None:
        pass  # a mock would keep what it is called with, and with it the pages

    tell = pixels.announce if advised else silent
    with mock.patch("tcn.data.packing.announce", tell), mock.patch("tcn.data.pixels.announce", tell):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
        rate = per_second(sum(map(len, chosen)), lambda: read(held, chosen), 1, time.perf_counter)
        return rate, (resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before) * 512 / 1e6


def report(kind: str, files: Files, cache: Path, forms: Sequence[str], rounds: int) -> None:
    """Fill a store of each form, and print its figures."""
    published = sum((files.root / path).stat().st_size for path in files.paths) / len(files)
    chosen = batches(len(files), 2048)
    names = [files.paths[i] for some in chosen for i in some]
    plain = per_second(len(names), lambda: [decode(files.root / name, SIZE) for name in names], rounds)
    print(f"{kind}: {len(files):,} files, {published:,.0f} bytes each as published; decoded from the files {plain:,.0f} a second",
          flush=True)
    for form in forms:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        held = filled(files, form, cache, kind)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = sum((file.stat().st_size for file in (cache / form / "pixels").glob(f"{kind}*/*")), 0)
        warm = per_second(sum(map(len, chosen)), lambda held=held: read(held, chosen), rounds)  # type: ignore[misc]
        line = (f"  {form}: {amount(size)}, {size / len(files):,.0f} bytes each; filled at {len(files) / spent:,.0f} a second of "
                f"processor time ({seconds:,.0f} s by the clock); read warm {warm:,.0f} a second and core")
        del held
        found = [[cold(files, form, cache, kind, advised, seed) for advised in (False, True)] for seed in range(3)]
        (bare, much), (advised, less) = (max(each) for each in zip(*found))
        print(f"{line}; cold {advised:,.0f} a second with advice ({less:.0f} MB read), {bare:,.0f} without ({much:.0f} MB read)",
              flush=True)


def steps(sketches: Files, photos: Files, cache: Path, rounds: int, number: int = 12) -> None:
    """The laptop profile's training step from stores of both forms, in turn, and the time that reading takes of it."""
    made = trainer("laptop", Execution(), pictures=BATCH * 2)
    side = made.config.data.stored_size
    sources = {form: PairSource(filled(sketches, form, cache, "small sketches", side),
                                filled(photos, form, cache, "small photos", side), made.config.data) for form in packing.FORMS}
    clocks = {"clock": time.perf_counter, "processor time": time.process_time}
    found: dict[tuple[str, str, int], float] = {}
    for turn in range(rounds + 1):
        for form, source in sources.items():
            for depth in (0, 2):
                started = {name: clock() for name, clock in clocks.items()}
                for n, (batch, _) in enumerate(zip(source.epoch(turn, 1, CPU, depth=depth), range(number))):
                    made.step(batch, n)
                for name, clock in clocks.items() if turn else ():  # the first round is a rehearsal
                    rate = number * BATCH / (clock() - started[name])
                    found[name, form, depth] = max(found.get((name, form, depth), 0.0), rate)
    for (name, form, depth), rate in sorted(found.items()):
        print(f"  training step, laptop profile from pictures of {side} pixels, {form}, {depth} batches read ahead: {rate:.1f} "
              f"pairs a second of {name}, {rate / found[name, 'decoded', 0]:.3f} of decoded without reading ahead", flush=True)
    for form, source in sources.items():
        def gather(source: PairSource = source) -> None:
            for chosen, _ in zip(source._plan(0, 1), range(number)):
                source._gather(chosen, CPU)

        each = 1 / per_second(number * BATCH, gather, rounds)
        share = 100 * each * found["processor time", form, 0]
        print(f"  reading a pair, {form}: {1e3 * each:.3f} ms of a core, {share:.2f} % of the step's processor time", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed/store_forms.py", description=__doc__.splitlines()[0])
    parser.add_argument("sketches", type=Path, help="folder of sketches, at any depth")
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--parts", nargs="+", choices=("store", "step", "full"), default=("store", "step"),
                        help="default: store step")
    parser.add_argument("--files", type=int, nargs=2, metavar=("SKETCHES", "PHOTOS"), default=(75_481, 85_502),
                        help="sketches and photos of the part `full` (default: Sketchy's)")
    parser.add_argument("--work", type=Path, help="folder for what is made (default: the system's for temporary files)")
    parser.add_argument("--threads", type=int, default=1, help="threads that decode and compute (default: 1)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of which the fastest counts (default: 4)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_memory()  # as run_all does
    print(f"{device_name(CPU)}, {options.threads} threads, torch {torch.__version__}; {SIZE} pixels, batches of {BATCH}",
          flush=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        sketches, photos = listed(options.sketches), listed(options.photos)
        for kind, files in (("sketches", sketches), ("photos", photos)) if "store" in options.parts else ():
            report(kind, files, work, tuple(packing.FORMS), options.rounds)
        if "step" in options.parts:
            steps(sketches, photos, work, options.rounds)
        if "full" in options.parts:
            for kind, files, number in zip(("sketches", "photos"), (sketches, photos), options.files):
                report(f"many-{kind}", linked(files, number, work / "tree" / kind), work, ("compact",), options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
