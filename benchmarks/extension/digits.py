"""The extension: digits on plain ground -> digits blended with photos, by domain-adversarial training.

`python benchmarks/digits.py` trains every method of baselines/domain_adversarial.py with several seeds and writes plain
files; finished runs are kept, a stopped one goes on from its last kept state, and calls at once share the work.
With --mnist it is the published task, MNIST -> MNIST-M; without, scikit-learn's own handwritten digits (8 x 8 pixels,
1,797 of them) are blended with two photos that scikit-learn ships: the same blending, a much smaller task, and named so
everywhere. Results are not repeated in MLflow: the runs take seconds, and their files hold everything.
"""
from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from baselines.domain_adversarial import METHODS, DigitModel, DigitSettings, losses
from benchmarks import interrupts, provenance
from benchmarks.extension.digits_data import AdaptationTask, Domain, example_picture, mnist_task, offline_task
from benchmarks.launch.board import duration
from benchmarks.records import read_json, write_json, write_table
from benchmarks.result_folder import LOCK, ResultFolder, State
from benchmarks.store import EXTENSION
from benchmarks.threads import check_threads
from tcn.config import InputError
from tcn.files.atomic import StorageError, remove_partial, warn, write_bytes
from tcn.files.checksums import SUMS
from tcn.files.locks import Held, lock
from tcn.scoring.features import evaluating
from tcn.seeding import numpy_stream
from tcn.train import checkpoints

HISTORY = ("step", "label", "domain", "sharing", "source_accuracy", "target_accuracy")
RESULTS = ("data", "method", "title", "seed", "target_accuracy", "source_accuracy", "steps", "seconds", "folder")
OFFLINE_STEPS, MNIST_STEPS = 1000, 20_000
"""Steps of a run where nothing else is asked for."""
READINGS = 20
"""Times that accuracies are read in a run; for the reader only, nothing is chosen by them."""
KEEP_SECONDS = 20.0
"""A run's state is kept when accuracies are read and so much time has passed: the laptop's runs never need it."""
KEPT_APART = "pass another --output, nothing there was touched"


# --- one run's folder ----------------------------------------------------------------------------------------

class DigitFolder(ResultFolder):
    """The files of one run, in OUTPUT/runs/METHOD__seedK: config.json, history.csv, provenance.json, result.json."""

    required = frozenset({"config.json", "history.csv", "provenance.json", "result.json"})

    @classmethod
    def of(cls, output: Path, settings: DigitSettings) -> DigitFolder:
        """The folder of a run with these settings."""
        return cls(output / "runs" / f"{settings.method}__seed{settings.seed}")

    def _blank(self) -> dict[str, Any]:
        # Earlier versions wrote no status.json; their result.json came last, and a folder that had one was a finished run.
        return super()._blank() | ({"state": "finished"} if (self.path / "result.json").exists() else {})

    def set_state(self, state: State, reason: str | None = None) -> None:
        """Write status.json."""
        self._write_status(state, reason)

    def damaged(self) -> list[str]:
        """Files of a finished run that are not as they were written; a run of a version without checksums is held to its form."""
        bad = super().damaged()
        if not (self.path / SUMS).exists():
            for name in ("config.json", "provenance.json", "result.json"):
                try:
                    read_json(self.path / name)
                except InputError:
                    bad.append(name)
        return bad

    def refuse_other(self, task: AdaptationTask, settings: DigitSettings) -> None:
        """InputError where the finished run is of other settings or other data."""
        there, own = read_json(self.path / "config.json"), _config(task, settings)
        if there != own:
            changed = ", ".join(sorted(key for key in own if there.get(key) != own[key]))
            raise InputError(f"{self.path} holds a run with other settings ({changed}); {KEPT_APART}")
        self.refuse_other_pictures(task)

    def refuse_other_pictures(self, task: AdaptationTask) -> None:
        """InputError where the finished run saw other pictures. Versions that recorded no digest blended other patches."""
        if read_json(self.path / "provenance.json").get("data_digest") != task.digest:
            raise InputError(f"{self.path} holds a run on other pictures of the same name ({task.name}; earlier versions blended "
                             f"other patches); {KEPT_APART}")


def _config(task: AdaptationTask, settings: DigitSettings) -> dict[str, Any]:
    return {**asdict(settings), "data": task.name}


# --- training ------------------------------------------------------------------------------------------------

def _tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(device).float().div_(127.5).sub_(1)


def _batches(rows: int, batch: int, seed: int, role: str) -> Iterator[np.ndarray]:
    """Endless batches of row indices. Reshuffles on every pass and drops the last incomplete batch."""
    rng = numpy_stream(seed, role)
    while True:
        order = rng.permutation(rows)
        yield from (order[start:start + batch] for start in range(0, max(1, rows - batch + 1), batch))


@torch.no_grad()
def accuracy(model: DigitModel, domain: Domain, which: str, device: torch.device) -> float:
    """Share of a domain's images classified right."""
    right = 0
    with evaluating(model):
        for start in range(0, len(domain.labels), 512):
            part = slice(start, start + 512)
            guessed = model.classify(_tensor(domain.images[part], device), which).argmax(1).cpu().numpy()
            right += int((guessed == domain.labels[part]).sum())
    return right / len(domain.labels)


def train(task: AdaptationTask, settings: DigitSettings, device: torch.device, label: str, progress: bool = True,
          folder: Path | None = None) -> tuple[list[dict[str, float]], DigitModel]:
    """One run: rows of history and the model after the last step. Target labels are read for `target_accuracy` alone.

    With a `folder`, states are kept there (see KEEP_SECONDS), and a stopped run of the same settings and data goes on, to the
    same bits; states of another run, or damaged ones, are named and passed over.
    """
    model = DigitModel(settings).to(device)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate)
    near = _batches(len(task.source.labels), settings.batch, settings.seed, "source batches")
    far = _batches(len(task.target.labels), settings.batch, settings.seed, "target batches")
    every, done = max(1, settings.steps // READINGS), 0
    rows: list[dict[str, float]] = []
    identity = json.dumps({**asdict(settings), "digest": task.digest}, sort_keys=True)
    if folder is not None and (state := _kept(folder, identity, label)):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rows, done = state["rows"], state["epoch"]
        for _ in range(done):  # batches are drawn in order: those that were trained on are passed over
            next(near), next(far)
    kept = time.monotonic()
    for step in tqdm(range(done + 1, settings.steps + 1), desc=label, unit="step", disable=not progress, dynamic_ncols=True,
                     initial=done, total=settings.steps):
        ours, theirs = next(near), next(far)
        terms = losses(model, _tensor(task.source.images[ours], device), torch.from_numpy(task.source.labels[ours]).to(device),
                       _tensor(task.target.images[theirs], device), step / settings.steps)
        total = functools.reduce(torch.add, terms.values())
        if not bool(total.isfinite()):
            raise InputError(f"{label}: the loss is not finite at step {step}; lower --rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if step % every == 0 or step == settings.steps:
            rows.append(_reading(step, terms, task, model, device))
            if folder is not None and step < settings.steps and time.monotonic() - kept >= KEEP_SECONDS:
                checkpoints.keep({"epoch": step, "identity": identity, "model": model.state_dict(),
                                  "optimizer": optimizer.state_dict(), "rows": rows}, folder)
                kept = time.monotonic()
        interrupts.check()
    return rows, model


def _reading(step: int, terms: Mapping[str, torch.Tensor], task: AdaptationTask, model: DigitModel, device: torch.device
             ) -> dict[str, float]:
    """A row of history.csv."""
    return {"step": step, **{name: float(value.detach()) for name, value in terms.items()},
            "source_accuracy": accuracy(model, task.source_test, "source", device),
            "target_accuracy": accuracy(model, task.target_test, "target", device)}


def _kept(folder: Path, identity: str, label: str) -> dict[str, Any] | None:
    """The last state of a stopped run; None where there is none, or it is of other settings or data."""
    found = checkpoints.last(folder)
    for note in found.notes:
        warn(f"{label}: {note}")
    state = found.state
    if state is None:
        return None
    if not isinstance(state, dict) or state.get("identity") != identity:
        warn(f"{label}: {folder} holds the state of a run with other settings or data; it is not taken up")
        checkpoints.forget(folder)
        return None
    warn(f"{label}: goes on after step {state['epoch']:,}")
    return state


def run(task: AdaptationTask, settings: DigitSettings, output: Path, device: torch.device, label: str,
        seconds: float | None = 0.0) -> bool:
    """One run into its folder; False where it is there already with the same settings and data.

    A finished run whose files are not as they were written is named, set aside and run again. InputError where the folder
    holds a run of other settings or data; Held where another process is at it, after waiting `seconds` (None: to its end).
    """
    folder = DigitFolder.of(output, settings)
    if folder.whole():
        folder.refuse_other(task, settings)
        return False
    with folder.claim(f"training {folder.path.name}", seconds):
        if folder.state == "finished":  # by another process a moment ago
            folder.refuse_other(task, settings)
            return False
        try:
            _run_and_write(folder, task, settings, device, label)
        except BaseException as error:
            with contextlib.suppress(StorageError):  # the state stays `running`: a run whose process is gone
                if isinstance(error, KeyboardInterrupt):
                    folder.set_state("interrupted", "stopped by the user; the next call goes on from the last state")
                else:
                    folder.set_state("failed", str(error))
            raise
    return True


def _run_and_write(folder: DigitFolder, task: AdaptationTask, settings: DigitSettings, device: torch.device, label: str) -> None:
    started = time.perf_counter()
    folder.set_state("running")
    record = provenance.collect(device)
    rows, _ = train(task, settings, device, label, folder=folder.path)
    took = time.perf_counter() - started
    write_json(folder.path / "config.json", _config(task, settings))
    write_table(folder.path / "history.csv", rows, HISTORY)
    write_json(folder.path / "provenance.json", {**record, "data_digest": task.digest, "finished": provenance.now(),
                                                 "total_seconds": took})
    write_json(folder.path / "result.json", {
        "data": task.name, "method": settings.method, "title": METHODS[settings.method], "seed": settings.seed,
        "target_accuracy": rows[-1]["target_accuracy"], "source_accuracy": rows[-1]["source_accuracy"],
        "steps": settings.steps, "seconds": took})
    folder.seal()
    folder.set_state("finished")
    checkpoints.forget(folder.path)


# --- all runs ------------------------------------------------------------------------------------------------

def _finished(output: Path, tell: bool) -> Iterator[tuple[DigitFolder, dict[str, Any]]]:
    """Folder and result of each finished run; one that is damaged is left out, and named where asked to."""
    for path in sorted((output / "runs").glob("*/result.json")):
        folder = DigitFolder(path.parent)
        if folder.state != "finished":
            continue
        if not (bad := folder.damaged()):
            yield folder, read_json(path)
        elif tell:
            warn(f"left out: {path.parent} is not as it was written ({', '.join(bad)}); the call that made it runs it again")


def _refuse_other_task(task: AdaptationTask, output: Path) -> None:
    """InputError where any finished run of the folder is of another task or other pictures: one table would mix both."""
    for folder, result in _finished(output, tell=False):  # a damaged one is met, and named, in its turn
        if result.get("data") != task.name:
            raise InputError(f"{folder.path} holds a run of '{result.get('data')}', this is '{task.name}'; {KEPT_APART}")
        folder.refuse_other_pictures(task)


def summarise(output: Path, tell: bool = True) -> list[dict[str, Any]]:
    """results.csv from every finished run of the output folder; damaged ones are left out, and named (`tell`)."""
    with lock(output / LOCK, "writing results.csv", None):
        rows = [{**result, "folder": str(folder.path.relative_to(output))} for folder, result in _finished(output, tell)]
        write_table(output / "results.csv", rows, RESULTS)
    return rows


def write_examples(task: AdaptationTask, path: Path) -> None:
    """A PNG file with a digit of each class from both domains."""
    content = io.BytesIO()
    example_picture(task).save(content, "PNG")
    write_bytes(path, content.getvalue())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python benchmarks/digits.py", description=__doc__.splitlines()[0])
    p.add_argument("--output", type=Path, default=provenance.ROOT / "results" / "laptop" / EXTENSION, metavar="DIR")
    p.add_argument("--mnist", type=Path, metavar="ROOT", help="folder with MNIST/raw; without it, the offline task runs")
    p.add_argument("--download", action="store_true", help="with --mnist: fetch MNIST into that folder")
    p.add_argument("--mnist-m", type=Path, metavar="ROOT", help="folder with mnist_m_train, mnist_m_test and their lists")
    p.add_argument("--photos", type=Path, metavar="DIR", help="with --mnist: photos to blend MNIST-M from (.jpg)")
    p.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS), metavar="NAME",
                        help=f"default: all of {', '.join(METHODS)}")
    p.add_argument("--seeds", nargs="+", type=int, default=list(range(8)), metavar="N")
    p.add_argument("--steps", type=int, metavar="N", help="default: 1,000 offline, 20,000 on MNIST")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1: the network is small)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0; 2 for bad input or a full disk; 128 + the number of a signal."""
    options = parser().parse_args(arguments)
    try:
        with interrupts.caught():
            provenance.check_checkout(Path(__file__))
            compute(options)
            return 0
    except KeyboardInterrupt as error:
        print("\ninterrupted; finished runs are kept, the same command goes on with the others", file=sys.stderr)
        return interrupts.status(error)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(options: argparse.Namespace) -> None:
    """InputError for options that do not go together, or numbers out of range."""
    for name in ("download", "mnist_m", "photos"):
        if getattr(options, name) and options.mnist is None:
            raise InputError(f"--{name.replace('_', '-')} belongs to --mnist ROOT")
    if options.mnist_m and options.photos:
        raise InputError("--mnist-m and --photos are two ways to the same digits; give one")
    for name in ("threads", "steps"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"--{name} {value}: give a whole number from 1")
    if min(options.seeds) < 0:
        raise InputError(f"--seeds {min(options.seeds)}: seeds are whole numbers from 0")
    check_threads(options.threads)


def compute(options: argparse.Namespace) -> None:
    """Every run that is not finished, results.csv and the examples. InputError for bad input."""
    _check(options)
    torch.set_num_threads(options.threads)
    device = _device(options.device)
    _make_folder(options.output)
    task = mnist_task(options.mnist, options.download, options.mnist_m, options.photos) if options.mnist else offline_task(16)
    size, steps = task.source.images.shape[-1], options.steps or (MNIST_STEPS if options.mnist else OFFLINE_STEPS)
    grid = [DigitSettings(method, seed, steps, image_size=size) for seed in options.seeds for method in options.methods]
    print(f"{task.name}: {len(grid)} runs of {steps:,} steps; {len(task.source.labels):,} labelled source digits, "
          f"{len(task.target.labels):,} unlabelled target digits, {len(task.target_test.labels):,} to test; results in "
          f"{options.output}", flush=True)
    _refuse_other_task(task, options.output)
    with lock(options.output / LOCK, "writing examples.png", None):
        remove_partial(options.output)
        write_examples(task, options.output / "examples.png")
    _run_grid(grid, task, options.output, device)
    _say_means(summarise(options.output))


def _run_grid(grid: Sequence[DigitSettings], task: AdaptationTask, output: Path, device: torch.device) -> None:
    """Each run that is not finished; those that another process is at come last."""
    started, done, elsewhere = time.perf_counter(), 0, []
    for number, settings in enumerate(grid, 1):
        label = f"[{number}/{len(grid)}] {settings.method} seed {settings.seed}"
        try:
            done += run(task, settings, output, device, label)
        except Held as error:
            print(f"{label}: {error.holder} is at it; looked at again at the end", flush=True)
            elsewhere.append((label, settings))
            continue
        if done:
            left = (time.perf_counter() - started) / done * (len(grid) - number)
            print(f"{label}: {duration(left)} left", flush=True)
        summarise(output, tell=False)
    for label, settings in elsewhere:  # waits for the other process, and takes over what it leaves
        run(task, settings, output, device, label, seconds=None)


def _say_means(rows: Sequence[Mapping[str, Any]]) -> None:
    for method in METHODS:
        values = [row["target_accuracy"] for row in rows if row["method"] == method]
        if values:
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            print(f"{METHODS[method]:30s} target accuracy {np.mean(values):.3f}{spread} ({len(values)} seeds)")


def _device(name: str) -> torch.device:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} can't be used ({str(error).splitlines()[0]}); --device cpu always can") from error
    return torch.device(name)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output} can't be used as a folder ({error.strerror}); pass another") from error


if __name__ == "__main__":
    sys.exit(main())
