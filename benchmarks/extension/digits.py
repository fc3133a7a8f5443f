"""The extension: digits on plain ground -> digits blended with photos, by domain-adversarial training.

`python benchmarks/digits.py` trains every method of baselines/domain_adversarial.py with several seeds and writes plain
files; finished runs are kept, a stopped one goes on from its last kept state, and calls at once share the work.
With --mnist it is the published task, MNIST -> MNIST-M; without, scikit-learn's own handwritten digits (8 x 8 pixels,
1,797 of them) are blended with two photos that scikit-learn ships: the same blending, a much smaller task, and named so
everywhere. No MLflow here: the runs take seconds and their files say all.
"""
from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from baselines.domain_adversarial import METHODS, DigitModel, Settings, losses
from benchmarks import interrupts, provenance
from benchmarks.launch.board import duration
from benchmarks.store import EXTENSION, SUMS, read_json, write_json, write_table
from benchmarks.threads import check_threads
from tcn.config import InputError
from tcn.data.pixels import opened
from tcn.files.atomic import complain, sweep, write_bytes
from tcn.files.locks import Held, lock
from tcn.scoring.features import evaluating
from tcn.seeding import numpy_stream
from tcn.train import checkpoints

OFFLINE = "scikit-learn digits to the same blended with photos (offline, not MNIST)"
PUBLISHED = "MNIST to MNIST-M"
HISTORY = ("step", "label", "domain", "sharing", "source_accuracy", "target_accuracy")
RESULTS = ("data", "method", "title", "seed", "target_accuracy", "source_accuracy", "steps", "seconds", "folder")
READINGS = 20
"""Times that accuracies are read in a run; for the reader only, nothing is chosen by them."""
KEEP_SECONDS = 20.0
"""A run's state is kept when accuracies are read and so much time has passed: the laptop's runs never need it."""
SHOWN = 10
_SEALED = ("config.json", "history.csv", "provenance.json", "result.json")


@dataclass(frozen=True)
class Domain:
    """Images uint8 [N, 3, S, S] and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task:
    """What is learned from (`source`, and `target`, whose labels training never sees) and what is tested."""

    name: str
    source: Domain
    target: Domain
    source_test: Domain
    target_test: Domain

    @property
    def digest(self) -> str:
        """SHA-256 of all images and labels: MNIST-M made from other photos has the same name, and is other data."""
        found = hashlib.sha256()
        for part in (self.source, self.target, self.source_test, self.target_test):
            for array in (part.images, part.labels):
                found.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def blend(digits: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """MNIST-M's rule: |patch - digit| by pixel and channel. digits uint8 [N, S, S], patches uint8 [N, 3, S, S] -> the latter."""
    return np.abs(patches.astype(np.int16) - digits[:, None].astype(np.int16)).astype(np.uint8)


def patches(photos: Sequence[np.ndarray], number: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`number` random crops uint8 [N, 3, size, size] of photos uint8 [H, W, 3]. InputError where a photo is smaller."""
    found = np.empty((number, 3, size, size), np.uint8)
    for i, which in enumerate(rng.integers(0, len(photos), number)):
        photo = photos[which]
        if min(photo.shape[:2]) < size:
            raise InputError(f"a photo of {photo.shape[1]} x {photo.shape[0]} pixels is too small for patches of {size}")
        top, left = (int(rng.integers(0, side - size + 1)) for side in photo.shape[:2])
        found[i] = photo[top:top + size, left:left + size].transpose(2, 0, 1)
    return found


def offline_task(size: int) -> Task:
    """Disjoint digits for source, target and both tests; patches for training and for test from disjoint halves of the photos.
    scikit-learn names no writers: one's digits may be on both sides."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    order = numpy_stream(0, "digits split").permutation(len(digits.target))
    small = [Image.fromarray((image * (255 / 16)).round().astype(np.uint8)) for image in digits.images]
    grey = np.stack([np.asarray(image.resize((size, size), Image.BILINEAR)) for image in small])[order]
    labels = digits.target[order].astype(np.int64)
    photos = load_sample_images().images
    left, right = ([photo[:, half] for photo in photos] for half in (slice(0, 320), slice(320, None)))
    third = len(labels) // 3
    edges = (0, third, 2 * third, 2 * third + third // 2, len(labels))
    source, target, source_test, target_test = map(slice, edges[:-1], edges[1:])

    def blended(part: slice, halves: list[np.ndarray], role: str) -> Domain:
        crops = patches(halves, len(labels[part]), size, numpy_stream(0, f"digits patches, {role}"))
        return Domain(blend(grey[part], crops), labels[part])

    return Task(OFFLINE, _plain(grey[source], labels[source]), blended(target, left, "target"),
                _plain(grey[source_test], labels[source_test]), blended(target_test, right, "target test"))


def mnist_task(root: Path, download: bool, target_root: Path | None, photos_folder: Path | None) -> Task:
    """MNIST, and MNIST-M read from `target_root` or blended here with photos of a folder (BSDS500's in the source)."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(str(root), train=train, download=download) for train in (True, False)]
    except Exception as error:  # torchvision asserts, slices and casts its way through a file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--mnist {root}: no MNIST there ({reason}); give the folder that holds MNIST/raw, or add "
                         f"--download") from error
    train, test = (Domain(part.data.numpy(), part.targets.numpy().astype(np.int64)) for part in parts)
    for part, name in ((train, "train"), (test, "t10k")):
        if (part.images.dtype != np.uint8 or part.images.shape != (len(part.labels), 28, 28)
                or not len(part.labels) or part.labels.min() < 0 or part.labels.max() > 9):
            raise InputError(f"--mnist {root}: the {name} files of MNIST/raw don't hold digits of 28 x 28 pixels with labels 0 "
                             f"to 9 ({len(part.images):,} images, {len(part.labels):,} labels); delete them and add --download")
    if target_root is not None:
        target, target_test = (_mnist_m(target_root, name) for name in ("train", "test"))
    elif photos_folder is not None:
        photos = [_photo(path) for path in sorted(photos_folder.glob("**/*.jpg"))]
        if len(photos) < 2:
            raise InputError(f"--photos {photos_folder} holds {len(photos)} .jpg files; at least 2 are needed")
        halves = photos[::2], photos[1::2]
        target, target_test = (
            Domain(blend(part.images, patches(own, len(part.labels), 28, numpy_stream(0, f"MNIST-M, {role}"))), part.labels)
            for role, part, own in (("target", train, halves[0]), ("target test", test, halves[1])))
    else:
        raise InputError("MNIST-M is needed: --mnist-m FOLDER, or --photos FOLDER to blend it (BSDS500's pictures in the source)")
    return Task(PUBLISHED, _plain(train.images, train.labels), target, _plain(test.images, test.labels), target_test)


def _photo(path: Path) -> np.ndarray:
    try:
        return _picture(path)
    except InputError as error:
        raise InputError(f"{path} can't be read as a picture ({error}); take it out of --photos") from error


def _picture(path: Path, size: int | None = None) -> np.ndarray:
    """RGB pixels uint8 [H, W, 3], resized to `size`. InputError says what is wrong, without the path."""
    try:
        with opened(path) as image:
            rgb = image.convert("RGB")
        return np.asarray(rgb if size is None else rgb.resize((size, size)))
    except OSError as error:
        raise InputError(str(error).removesuffix(".") or type(error).__name__) from error


def _mnist_m(root: Path, part: str) -> Domain:
    """One part of MNIST-M as circulated: mnist_m_PART/*.png and mnist_m_PART_labels.txt, `name label` a line."""
    listing = root / f"mnist_m_{part}_labels.txt"
    try:
        lines = listing.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no UTF-8 text, byte {error.start}"
        raise InputError(f"--mnist-m {root}: {listing.name} can't be read ({reason}); expected beside the folder "
                         f"mnist_m_{part}") from error
    images, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not re.fullmatch("[0-9]", label) or not name:
            raise InputError(f"{listing}, line {number}: expected 'name label', got '{line[:60]}'")
        if name in (".", "..") or re.search(r"[/\\\0]", name):
            raise InputError(f"{listing}, line {number}: '{name[:60]}' is no file name; pictures lie in mnist_m_{part} itself")
        path = root / f"mnist_m_{part}" / name
        try:
            images.append(_picture(path, 28))
        except InputError as error:
            raise InputError(f"{path} can't be read ({error}); the list names it in line {number}") from error
        labels.append(int(label))
    if not labels:
        raise InputError(f"{listing} names no pictures; expected 'name label' lines")
    return Domain(np.stack(images).transpose(0, 3, 1, 2), np.array(labels))


def _plain(grey: np.ndarray, labels: np.ndarray) -> Domain:
    return Domain(np.repeat(grey[:, None], 3, 1), labels)


def _tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(device).float().div_(127.5).sub_(1)


def _batches(rows: int, batch: int, seed: int, role: str) -> Iterator[np.ndarray]:
    """Endless batches: each pass over the rows in a new order; what is left over at its end waits for nobody."""
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


def train(task: Task, settings: Settings, device: torch.device, label: str, progress: bool = True,
          folder: Path | None = None, digest: str = "") -> tuple[list[dict[str, float]], DigitModel]:
    """One run: rows of history and the model after the last step. Target labels are read for `target_accuracy` alone.

    With a `folder`, states are kept there (see KEEP_SECONDS) and a run of the same settings and data (`digest`) that was
    stopped goes on, to the same bits; states of another one, or damaged, are named and passed over.
    """
    model = DigitModel(settings).to(device)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate)
    near = _batches(len(task.source.labels), settings.batch, settings.seed, "source batches")
    far = _batches(len(task.target.labels), settings.batch, settings.seed, "target batches")
    every, rows, done = max(1, settings.steps // READINGS), [], 0
    identity = json.dumps({**asdict(settings), "digest": digest}, sort_keys=True)
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
        total = sum(terms.values())
        if not bool(total.isfinite()):
            raise InputError(f"{label}: the loss is not finite at step {step}; lower --rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if step % every == 0 or step == settings.steps:
            rows.append({"step": step, **{name: float(value.detach()) for name, value in terms.items()},
                         "source_accuracy": accuracy(model, task.source_test, "source", device),
                         "target_accuracy": accuracy(model, task.target_test, "target", device)})
            if folder is not None and step < settings.steps and time.monotonic() - kept >= KEEP_SECONDS:
                checkpoints.keep({"epoch": step, "identity": identity, "model": model.state_dict(),
                                  "optimizer": optimizer.state_dict(), "rows": rows}, folder)
                kept = time.monotonic()
        interrupts.check()
    return rows, model


def _kept(folder: Path, identity: str, label: str) -> dict[str, Any] | None:
    found = checkpoints.last(folder)
    for note in found.notes:
        complain(f"{label}: {note}")
    state = found.state
    if state is None:
        return None
    if not isinstance(state, dict) or state.get("identity") != identity:
        complain(f"{label}: {folder} holds the state of a run with other settings or data; it is not taken up")
        checkpoints.forget(folder)
        return None
    complain(f"{label}: goes on after step {state['epoch']:,}")
    return state


def run(task: Task, digest: str, settings: Settings, output: Path, device: torch.device, label: str,
        seconds: float | None = 0.0) -> bool:
    """One run into its folder; False where it is there already with the same settings and data (`digest`: the task's).

    A finished run whose files are not as they were written is named, set aside and run again. InputError where the folder
    holds a run of other settings or data; Held where another process is at it, after waiting `seconds` (None: to its end).
    """
    folder = output / "runs" / f"{settings.method}__seed{settings.seed}"
    with lock(folder / ".lock", f"training {folder.name}", seconds):
        sweep(folder)
        return _run_one(task, digest, settings, folder, device, label)


def _run_one(task: Task, digest: str, settings: Settings, folder: Path, device: torch.device, label: str) -> bool:
    config = {**asdict(settings), "data": task.name}
    if (folder / "result.json").exists():
        if bad := damaged(folder):
            complain(f"{folder.name}: not as it was written: {', '.join(bad)}; set aside as {_set_aside(folder)} and run again")
        else:
            _refuse_other(folder, config, digest, task)
            checkpoints.forget(folder)  # a process that died in the moment of finishing left them
            return False
    started = time.perf_counter()
    record = provenance.collect(device)
    rows, _ = train(task, settings, device, label, folder=folder, digest=digest)
    took = time.perf_counter() - started
    write_json(folder / "config.json", config)
    write_table(folder / "history.csv", rows, HISTORY)
    write_json(folder / "provenance.json", {**record, "data_digest": digest, "finished": provenance.now(),
                                            "total_seconds": took})
    result = {"data": task.name, "method": settings.method, "title": METHODS[settings.method], "seed": settings.seed,
              "target_accuracy": rows[-1]["target_accuracy"], "source_accuracy": rows[-1]["source_accuracy"],
              "steps": settings.steps, "seconds": took}
    # The result appears last, and as what the checksums say: a folder with a result is a finished run.
    write_json(folder / "result.partial", result)
    sums = {name: _sha256(folder / ("result.partial" if name == "result.json" else name)) for name in _SEALED}
    write_bytes(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sums.items()).encode())
    (folder / "result.partial").replace(folder / "result.json")
    checkpoints.forget(folder)
    return True


def _refuse_other(folder: Path, config: dict[str, Any], digest: str, task: Task) -> None:
    there = read_json(folder / "config.json")
    if there != config:
        changed = ", ".join(sorted(key for key in config if there.get(key) != config[key]))
        raise InputError(f"{folder} holds a run with other settings ({changed}); pass another --output, nothing there "
                         f"was touched")
    _refuse_other_pictures(folder, digest, task)


def _refuse_other_pictures(folder: Path, digest: str, task: Task) -> None:
    # A run that names no digest is of a version that blended other patches.
    if read_json(folder / "provenance.json").get("data_digest") != digest:
        raise InputError(f"{folder} holds a run on other pictures of the same name ({task.name}; earlier versions blended other "
                         f"patches); pass another --output, nothing there was touched")


def damaged(folder: Path) -> list[str]:
    """Files of a finished run that are gone, unreadable, or not as its checksums say; runs from before checksums were kept
    are held to their form alone."""
    bad = []
    for name in ("config.json", "provenance.json", "result.json"):
        try:
            read_json(folder / name)
        except InputError:
            bad.append(name)
    if not (folder / SUMS).exists():
        return bad
    listed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        value, _, name = line.partition("  ")
        listed[name] = value
    if set(listed) != set(_SEALED):
        bad.append(SUMS)
    for name in _SEALED:
        try:
            if listed.get(name, "") != _sha256(folder / name):
                bad.append(name)
        except OSError:
            bad.append(name)
    return sorted(set(bad))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _set_aside(folder: Path) -> Path:
    """Move a run's files, not its lock, to OUTPUT/damaged."""
    base = folder.parent.parent / "damaged"
    number = next(n for n in range(1, 10_000) if not (base / f"{folder.name}-{n}").exists())
    target = base / f"{folder.name}-{number}"
    target.mkdir(parents=True)
    for path in [p for p in folder.iterdir() if p.name != ".lock"]:
        path.rename(target / path.name)
    return target


def _finished(output: Path, tell: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and result of each finished run; one that is damaged is left out, and named where asked to."""
    for path in sorted((output / "runs").glob("*/result.json")):
        if not (bad := damaged(path.parent)):
            yield path.parent, read_json(path)
        elif tell:
            complain(f"left out: {path.parent} is not as it was written ({', '.join(bad)}); the call that made it runs it again")


def _refuse_other_task(task: Task, digest: str, output: Path) -> None:
    """InputError where any finished run of the folder is of another task or other pictures: one table would mix both."""
    for folder, result in _finished(output, tell=False):  # a damaged one is met, and named, in its turn
        if result.get("data") != task.name:
            raise InputError(f"{folder} holds a run of '{result.get('data')}', this is '{task.name}'; pass another --output, "
                             f"nothing there was touched")
        _refuse_other_pictures(folder, digest, task)


def summarise(output: Path, tell: bool = True) -> list[dict[str, Any]]:
    """results.csv from every finished run of the output folder; damaged ones are left out, and named (`tell`)."""
    with lock(output / ".lock", "writing results.csv", None):
        rows = [{**result, "folder": str(folder.relative_to(output))} for folder, result in _finished(output, tell)]
        write_table(output / "results.csv", rows, RESULTS)
    return rows


def write_examples(task: Task, path: Path) -> None:
    """A picture: one digit of each class as source, and one of the target's training images below."""
    rows = []
    for domain in (task.source, task.target):
        firsts = [int(np.flatnonzero(domain.labels == digit)[0]) for digit in range(SHOWN)]
        rows.append(np.concatenate([domain.images[i].transpose(1, 2, 0) for i in firsts], axis=1))
    picture = Image.fromarray(np.concatenate(rows))
    content = io.BytesIO()
    picture.resize((picture.width * 2, picture.height * 2), Image.NEAREST).save(content, "PNG")
    write_bytes(path, content.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0; 2 for bad input or a full disk; 128 + the number of a signal."""
    parser = argparse.ArgumentParser(prog="python benchmarks/digits.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=provenance.ROOT / "results" / "laptop" / EXTENSION, metavar="DIR")
    parser.add_argument("--mnist", type=Path, metavar="ROOT", help="folder with MNIST/raw; without it, the offline task runs")
    parser.add_argument("--download", action="store_true", help="with --mnist: fetch MNIST into that folder")
    parser.add_argument("--mnist-m", type=Path, metavar="ROOT", help="folder with mnist_m_train, mnist_m_test and their lists")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="with --mnist: photos to blend MNIST-M from (.jpg)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS), metavar="NAME",
                        help=f"default: all of {', '.join(METHODS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(8)), metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help="default: 1,000 offline, 20,000 on MNIST")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1: the network is small)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        with interrupts.caught():
            provenance.check_checkout(Path(__file__))
            return _run(options)
    except KeyboardInterrupt as error:
        print("\ninterrupted; finished runs are kept, the same command goes on with the others", file=sys.stderr)
        return interrupts.status(error)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    for name in ("download", "mnist_m", "photos"):
        if getattr(options, name) and options.mnist is None:
            raise InputError(f"--{name.replace('_', '-')} belongs to --mnist ROOT")
    if options.mnist_m and options.photos:
        raise InputError("--mnist-m and --photos are two ways to the same digits; give one")
    for name, values in (("threads", [options.threads]), ("steps", [] if options.steps is None else [options.steps])):
        if any(value < 1 for value in values):
            raise InputError(f"--{name} {values[0]}: give a whole number from 1")
    if min(options.seeds) < 0:
        raise InputError(f"--seeds {min(options.seeds)}: seeds are whole numbers from 0")
    check_threads(options.threads)
    torch.set_num_threads(options.threads)
    device = _device(options.device)
    _make_folder(options.output)
    task = mnist_task(options.mnist, options.download, options.mnist_m, options.photos) if options.mnist else offline_task(16)
    size, steps = task.source.images.shape[-1], options.steps or (20_000 if options.mnist else 1000)
    digest = task.digest
    grid = [Settings(method, seed, steps, image_size=size) for seed in options.seeds for method in options.methods]
    print(f"{task.name}: {len(grid)} runs of {steps:,} steps; {len(task.source.labels):,} labelled source digits, "
          f"{len(task.target.labels):,} unlabelled target digits, {len(task.target_test.labels):,} to test; results in "
          f"{options.output}", flush=True)
    _refuse_other_task(task, digest, options.output)
    with lock(options.output / ".lock", "writing examples.png", None):
        sweep(options.output)
        write_examples(task, options.output / "examples.png")
    started, done, elsewhere = time.perf_counter(), 0, []
    for number, settings in enumerate(grid, 1):
        label = f"[{number}/{len(grid)}] {settings.method} seed {settings.seed}"
        try:
            done += run(task, digest, settings, options.output, device, label)
        except Held as error:
            print(f"{label}: {error.holder} is at it; looked at again at the end", flush=True)
            elsewhere.append((label, settings))
            continue
        if done:
            left = (time.perf_counter() - started) / done * (len(grid) - number)
            print(f"{label}: {duration(left)} left", flush=True)
        summarise(options.output, tell=False)
    for label, settings in elsewhere:  # waits for the other process, and takes over what it leaves
        run(task, digest, settings, options.output, device, label, seconds=None)
    rows = summarise(options.output)
    for method in METHODS:
        values = [row["target_accuracy"] for row in rows if row["method"] == method]
        if values:
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            print(f"{METHODS[method]:30s} target accuracy {np.mean(values):.3f}{spread} ({len(values)} seeds)")
    return 0


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
