"""The life of a run: skipped, resumed, finished or failed, with everything a reader needs in its folder.

In: a planned run, its folder, `Material`, a device. Out: the folder, as plain files. Training is `tcn.train.loop`'s, numbers
are benchmarks/scoring.py's.
"""
from __future__ import annotations

import contextlib
import gc
import json
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

import baselines
from baselines import method_of, own
from baselines.ledger import DEVIATIONS
from benchmarks import interrupts, provenance
from benchmarks.experiments import PlannedRun
from benchmarks.extraction import run_features
from benchmarks.material import Material, Places, build_model, uses_words
from benchmarks.mirror import Mirror, NoMirror, RunMirror
from benchmarks.records import read_json, read_rows, write_json, write_table
from benchmarks.result_folder import CHECKPOINT
from benchmarks.run_artifacts import write_arrays, write_ledger, write_run
from benchmarks.scoring import score_ledger, score_run
from benchmarks.store import EPOCH_TERMS, STEP_TERMS, RunFolder
from benchmarks.threads import limit_threads
from tcn.config import BUILT_IN, Config, InputError
from tcn.data import declared, doctor, specs
from tcn.data.pairs import PairSource
from tcn.data.splits import Split
from tcn.files import earlier
from tcn.files.atomic import StorageError, warn, write_bytes
from tcn.files.locks import Held
from tcn.model import backbones
from tcn.model.coupling import CoupledEncoders
from tcn.model.execution import keep_memory
from tcn.model.ranks import Ranks
from tcn.train import checkpoints, loop, parallel
from tcn.train.distances import Distances
from tcn.train.method import Model

SELECTED_BY = {"validation_map": "validation mAP@all", "seen_accuracy": "seen-class accuracy"}


@dataclass(frozen=True)
class Failure:
    """Why a run did not finish. `final`: another attempt would end the same way (bad input, a loss that is not finite, a full
    disk). `holder`: another process works on the run, and nothing was done here. `device_lost`: this process can no longer use
    its device and must end; another process can use it."""

    reason: str
    final: bool
    holder: str | None = None
    device_lost: bool = False


def execute(run: PlannedRun, folder: RunFolder, material: Material, mirror: Mirror, device: torch.device, label: str,
            gpus: int = 1) -> str | None:
    """Start or resume a run. Returns None if it finished, else the reason it failed; KeyboardInterrupt passes."""
    failure = attempt(run, folder, material, mirror, device, label, provenance.command(), gpus)
    return failure.reason if failure else None


def attempt(run: PlannedRun, folder: RunFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device, label: str,
            command: str, gpus: int = 1) -> Failure | None:
    """Like `execute`, but returns a Failure, which says whether another attempt could help. `command`: what the user typed.
    `gpus`: devices on which the run is trained, of which `device` is the first (tcn/train/parallel.py)."""
    failure = _attempted(run, folder, material, mirror, device, label, command, gpus)
    # The error and its traceback, which refer to the failed model, are gone only now, so its memory can be freed.
    return settled(failure, device) if failure and not failure.holder else failure


def settled(failure: Failure, device: torch.device) -> Failure:
    """Free the device's memory for the next run, and return the failure, with `device_lost` set if the device no longer answers.

    After an illegal access or a failed launch, CUDA refuses every call of the process until it ends (NVIDIA's documentation of
    cudaErrorIllegalAddress). The name of an error does not tell whether it is of this kind, so the device is asked.
    """
    if device.type != "cuda":
        return failure
    try:
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except Exception:  # this second error must not replace the first one
        return Failure(f"{failure.reason}; {device} answers this process no more, which must end", False, device_lost=True)
    return failure


def _attempted(run: PlannedRun, folder: RunFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device,
               label: str, command: str, gpus: int) -> Failure | None:
    try:
        with folder.claim(command):
            if folder.state == "finished":  # another process has just finished it, or only its ledger is missing
                return _complete(run, folder, material, mirror, device) if lacks_ledger(folder) else None
            return _Attempt(run, folder, material, device, label, gpus).make(mirror, command)
    except Held as error:
        return Failure(f"{error.holder} is running this run", False, error.holder)
    except StorageError as error:
        return Failure(str(error), True)


def lacks_ledger(folder: RunFolder) -> bool:
    """Whether the variant of a finished run has a ledger, but its ledger.csv is missing or lacks a deviation that this version
    scores. (Neither is part of the run's identity.) Warns and returns False if the checkpoint from which it would be made is
    gone."""
    if not folder.run.definition.ledger:
        return False
    scored = {deviation.deviation for deviation in DEVIATIONS if deviation.kind == "scoring"}
    absent = scored - {row.get("deviation", row.get(earlier.LEDGER_COLUMN)) for row in read_rows(folder.path / "ledger.csv")}
    if absent and folder.run.trained and not (folder.path / CHECKPOINT).exists():
        warn(f"{folder.path.name}: no ledger scores of {', '.join(sorted(absent))}, and no {CHECKPOINT} to make them from; "
             f"move its folder away and give the command again to compute it anew")
        return False
    return bool(absent)


def rebuilt(folder: RunFolder, material: Material, device: torch.device) -> torch.nn.Module:
    """The network of a finished run, from its checkpoint. InputError if the checkpoint is missing, damaged or of another run."""
    config = folder.run.config
    recall(folder.path, config.method_source)
    model = build_model(method_of(config), config, material.ingredients(config), device)
    if folder.run.trained:
        state = checkpoints.load(folder.path / CHECKPOINT)
        if state["identity"] != folder.identity:
            raise InputError(f"{folder.path / CHECKPOINT} is of another run; move its folder away and compute the run anew")
        model.load_state_dict(state["model"])
    return model


def recall(folder: Path, source: str) -> None:
    """Load the declaration of a run's method: the file that this call has read already, else the copy kept in the run's folder,
    else an installed package. InputError if none of them has the recorded content. The copy is executed, so the folder has to be
    trusted."""
    if baselines.is_loaded(source):
        return
    kept, package = folder / own.KEPT_FILE, own.held_by_package(source)
    if kept.exists():
        warn(f"note: runs {kept}, the copy of the file that declares this run's method")
        baselines.load(str(kept), source)
    elif package:
        baselines.load(package, source)
    else:
        raise InputError(f"{folder.name} has a method of its user's own, and neither {kept} nor an installed package holds it; "
                         f"put the file with SHA-256 {source.removeprefix('file:')} there"
                         + (f", or install the package whose files {own.KEPT_PACKAGE} holds"
                            if (folder / own.KEPT_PACKAGE).exists() else ""))


def _complete(run: PlannedRun, folder: RunFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device
              ) -> Failure | None:
    """Write the ledger.csv of a finished run from its checkpoint. Besides it, only provenance.json changes."""
    config = run.config
    try:
        with mirror.run(folder) as view:
            record = read_json(folder.path / "provenance.json")
            model = rebuilt(folder, material, device)
            write_ledger(folder.path, score_ledger(run_features(model, config, material, device, True), config, device))
            now = provenance.collect(device)
            write_json(folder.path / "provenance.json", {**record, "ledger_scored": {
                key: now[key] for key in ("commit", "dirty", "device", "threads", "command", "started")}})
            folder.seal()
            view.results()
    except Exception as error:
        if interruption := _interruption(error):
            raise interruption from error
        return Failure(_reason(error, device, folder.run.config), True)
    return None


class _Attempt:
    """One attempt at a run whose folder this process holds."""

    def __init__(self, run: PlannedRun, folder: RunFolder, material: Material, device: torch.device, label: str,
                 gpus: int) -> None:
        self.gpus = gpus if run.trained else 1
        self.run, self.config, self.folder = run, run.config, folder
        self.material, self.device, self.label = material, device, label
        self.split = material.split_of(run.config)
        self.best_epoch: int | None = None

    def make(self, mirror: Mirror | NoMirror, command: str) -> Failure | None:
        """Compute the run from its last saved epoch until its folder is sealed. Returns None, or why it failed."""
        folder, started = self.folder, time.perf_counter()
        folder.write_config()
        table = baselines.table(self.config.method_source)
        if table.kept_name:
            write_bytes(folder.path / table.kept_name, table.kept)
        for found in specs.own([self.config.data.dataset]):
            write_bytes(folder.path / declared.KEPT, found.kept)
        before, done = _earlier(folder), folder.epochs_done
        record = self._record(command, done)
        write_json(folder.path / "provenance.json", record)
        provenance.write_diff(folder.path / "diff.patch")
        folder.set_state("running", epochs_done=done)
        try:
            with mirror.run(folder) as view:
                try:
                    record |= self._train_and_score(view)
                    record |= {"finished": provenance.now(), "total_seconds": before + time.perf_counter() - started}
                    self._finish(record)
                    view.results()
                except BaseException as error:
                    _mark(folder, error, self.device)
                    raise _interruption(error) or error  # noqa: B904 - the same error, or the one that Ctrl-C stands for
        except Exception as error:
            return Failure(_reason(error, self.device, self.config), isinstance(error, (InputError, loop.Diverged)))
        return None

    def _record(self, command: str, done: int) -> dict[str, Any]:
        """The entries of provenance.json that are known before a run starts."""
        run, split = self.run, self.split
        return {**provenance.collect(self.device), "command": command, "identity": self.folder.identity,
                "data_digest": split.data_digest, "split_digest": split.split_digest,
                "resumed_from_epoch": done, "seed": run.seed, "smoke": run.smoke,
                "words_digest": self.material.words_digest(self.config), "datasets": describe(split),
                "manifest": _manifest(split, self.material.places.cache), "notes": list(split.notes),
                **({"gpus_per_run": self.gpus} if self.gpus > 1 else {}), **_declaration(run)}

    def _train_and_score(self, view: RunMirror | NoMirror) -> dict[str, Any]:
        """Train and score; returns the entries of provenance.json about the training."""
        config, folder = self.config, self.folder
        model = build_model(method_of(config), config, self.material.ingredients(config), self.device)
        record: dict[str, Any] = {"weights": _weights_note(config), "selected_by": "not trained", "optimizer_steps": 0,
                                  "train_seconds": 0.0, "words": "not used"}
        if self.run.trained:
            history = self._train(cast(Model, model), view)
            self.best_epoch = history.best_epoch
            record |= {"selected_by": SELECTED_BY[config.training.select_by], "optimizer_steps": len(history.steps),
                       "train_seconds": sum(row.get("seconds", 0.0) for row in history.epochs),
                       "words": self.material.words(config).description if uses_words(config) else "not used"}
            checkpoints.save({"model": model.state_dict(), "epoch": history.best_epoch, "identity": folder.identity},
                             folder.path / CHECKPOINT)
        ledger = self.run.definition.ledger
        features = run_features(model, config, self.material, self.device, ledger)
        write_run(folder.path, self.split, features, score_run(features, config, self.device))
        if ledger:
            write_ledger(folder.path, score_ledger(features, config, self.device))
        return record

    def _train(self, model: Model, view: RunMirror | NoMirror) -> loop.History:
        """Train `model` and leave it at its best epoch; the folder and MLflow are updated after every epoch."""
        config, folder, material = self.config, self.folder, self.material
        source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
        encoders = getattr(model, "encoders", None)
        distances = Distances(encoders, config.training.epochs * source.steps) if isinstance(encoders, CoupledEncoders) else None

        def note(history: loop.History) -> None:
            _write_history(folder, history)
            if distances is not None:
                write_arrays(folder.path / "distances.npz", distances.arrays())
            folder.set_state("running", None, int(history.epochs[-1]["epoch"]), history.best_epoch)
            write_json(folder.path / "spent.json", {"seconds": sum(r.get("seconds", 0) for r in history.epochs)})
            view.history(history.epochs, history.steps)
            interrupts.check()

        validation = material.validation(config)
        with self._processes(model) as ranks:
            return loop.fit(method_of(config), model, source, validation, config, folder.path, self.device, self.label,
                            material.places.progress, note, distances, ranks)

    def _processes(self, model: Model) -> contextlib.AbstractContextManager[Ranks | None]:
        """The further processes that train with this one, where the run has several devices."""
        if self.gpus == 1:
            return contextlib.nullcontext()
        synchronised = self.config.network.batch_norm_split == 1
        parallel.check(self.config, method_of(self.config), self.gpus)
        parallel.check_model(model, synchronised)
        return parallel.together(parallel.devices_of(self.device, self.gpus), synchronised, train_along,
                                 self.run, self.folder.path, self.material.places, torch.get_num_threads())

    def _finish(self, record: dict[str, Any]) -> None:
        """Seal the folder; from here on it counts as finished."""
        folder = self.folder
        write_json(folder.path / "provenance.json", record)
        for leftover in ("error.txt", "diverged.json"):
            (folder.path / leftover).unlink(missing_ok=True)
        folder.seal()
        folder.set_state("finished", None, self.config.training.epochs, self.best_epoch)
        checkpoints.forget(folder.path)


def train_along(ranks: Ranks, device: torch.device, run: PlannedRun, folder: Path, places: Places, threads: int) -> None:
    """Train a run as a further process beside the one that holds its folder."""
    keep_memory()
    limit_threads(threads)
    material, config = Material(replace(places, progress=False)), run.config
    if run.place:
        baselines.load(run.place, config.method_source)
    recall(folder, config.method_source)
    method = method_of(config)
    model = build_model(method, config, material.ingredients(config), device)
    source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
    loop.follow(method, cast(Model, model), source, config, folder, device, ranks)


def _declaration(run: PlannedRun) -> dict[str, str]:
    """The entries of provenance.json about a variant that is not built in: its title, and what declares it."""
    if run.config.method_source == BUILT_IN:
        return {}
    return {"title": run.definition.title, "shows": run.definition.shows,
            "declared_in": baselines.table(run.config.method_source).about}


def _mark(folder: RunFolder, error: BaseException, device: torch.device) -> None:
    """Record in the folder how a run ended, if the disk has room for it."""
    try:
        if isinstance(error, SystemExit):
            # The queue has stopped the job and will start it again (benchmarks/launch/slurm.py).
            folder.set_state("interrupted", "stopped by the queue; it goes on from the last epoch",
                             max(folder.epochs_done, checkpoints.epochs(folder.path)))
            return
        if _interruption(error):
            # The signal may have come after a checkpoint was written and before the status said so.
            folder.set_state("interrupted", "stopped by the user; the next call goes on from the last epoch",
                             max(folder.epochs_done, checkpoints.epochs(folder.path)))
            return
        if isinstance(error, loop.Diverged):
            if error.history is not None:
                _write_history(folder, error.history)
            write_json(folder.path / "diverged.json", {
                "reason": str(error), "epoch": error.epoch, "step": error.step,
                # JSON has no NaN.
                "losses": {name: f"{value:g}" for name, value in error.values.items()}})
        write_bytes(folder.path / "error.txt", "".join(traceback.format_exception(error)).encode(errors="replace"))
        folder.set_state("failed", _reason(error, device, folder.run.config), folder.epochs_done)
    except StorageError as full:
        # The state stays `running`; the next call finds that no process works on the run.
        warn(f"{folder.path.name}: {full}")


def _reason(error: BaseException, device: torch.device, config: Config) -> str:
    """The message to the user about an error."""
    if isinstance(error, (InputError, loop.Diverged, parallel.RankLost)):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        where = "this machine"
        with contextlib.suppress(Exception):  # a device that no longer answers has no name
            where = torch.cuda.get_device_name(device) if device.type == "cuda" else where
        return (f"out of memory on {where}; do fewer runs at once (--runs-per-gpu, --workers), close what else uses it, or, "
                f"as runs of their own, choose execution.precision=bf16 or a smaller data.batch_pairs with --set; the same "
                f"command goes on from the last finished epoch ({text.splitlines()[0][:200]})")
    if config.method_source != BUILT_IN:
        declared = baselines.table(config.method_source)
        return (f"{own.blamed(error, declared.files)}; the variant is declared in {declared.about}: `run_all.py --check` says "
                "what is wrong with it")
    return text


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that caused an error, or None. In the middle of torch.save it turns into another error, raised while the
    half-written file is closed; in the middle of an import, it can turn into any error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error or interrupts.pending()


def _manifest(split: Split, cache: Path) -> dict[str, Any] | None:
    """A summary of what `python -m tcn data check` found for these files; None if it was not run."""
    found = doctor.manifest_for(split, cache)
    if found is None:
        return None
    return {key: value for key, value in found.items() if key in ("content_digest", "checked", "unreadable", "counts")}


def _earlier(folder: RunFolder) -> float:
    """The seconds that earlier attempts spent on training."""
    try:
        return float(read_json(folder.path / "spent.json")["seconds"])
    except (InputError, KeyError, TypeError, ValueError):  # missing or damaged: the sum of times is too small
        return 0.0


def _write_history(folder: RunFolder, history: loop.History) -> None:
    write_table(folder.path / "history.csv", history.epochs, EPOCH_TERMS)
    write_table(folder.path / "steps.csv", history.steps, STEP_TERMS)


def describe(split: Split) -> list[tuple[str, str, str]]:
    """The split's lists as MLflow data sets: (name with its role last, digest, JSON summary)."""
    roles = {"training": (split.train_sketches, split.train_photos), "unseen": (split.query, split.gallery)}
    if len(split.validation):
        roles["validation"] = (split.validation_sketches, split.validation_photos)
    return [(f"{split.dataset} {split.name} {role}", split.data_digest,
             json.dumps({"sketches": len(s.paths), "photos": len(p.paths)})) for role, (s, p) in roles.items()]


def _weights_note(config: Config) -> str:
    setting = config.network.weights
    return backbones.source(config.network.backbone).origin if setting == "imagenet" else setting
