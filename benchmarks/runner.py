"""One cell: skip, resume, finish or fail. Everything a reader needs is written as plain files in its folder."""
from __future__ import annotations

import io
import json
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import threadpoolctl
import torch
from PIL import Image

import baselines
from baselines import method_named
from baselines.ledger import TRAPS
from benchmarks import interrupts, provenance
from benchmarks.experiments import Cell
from benchmarks.mirror import Mirror, NoMirror
from benchmarks.store import (
    CHECKPOINT,
    EPOCH_TERMS,
    STEP_TERMS,
    CellFolder,
    read_json,
    read_rows,
    write_json,
    write_table,
)
from tcn.config import Config, InputError, Modality, change, identity
from tcn.data import doctor, scan, specs, splits
from tcn.data.pairs import PairSource
from tcn.data.decode import Reading, decode
from tcn.data.pixels import Pixels
from tcn.data.store import pack
from tcn.data.splits import Files, Split
from tcn.data.words import Words, load_words
from tcn.files.atomic import StorageError, warn, write_bytes
from tcn.files.locks import Held
from tcn.model import backbones
from tcn.model.execution import place
from tcn import metrics
from tcn.scoring import codes
from tcn.scoring.features import Components, Standardiser, extract, singular_values, unit
from tcn.seeding import numpy_stream
from tcn.train import checkpoints, loop
from tcn.train.distances import Distances
from tcn.train.method import Ingredients, Method

Made = TypeVar("Made")
HEADLINE = ("released", "standard")
"""Rules that head the tables; the other four are recorded where all queries meet the whole gallery."""
METRICS = ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5")
_SPLITS = specs.SPLITS_FOLDER
EMOJI_WORDS, IMAGENET_WORDS = _SPLITS / "emoji_words.csv", _SPLITS / "imagenet_words.csv"
"""The same sentence model's vectors of the laptop's classes and of ImageNet's (benchmarks/make_words.py)."""
SHOWN = 13
MOST_THREADS = 1024
FIXED_EXAMPLES = 4
METRIC_COLUMNS = ("classes", "features", "protocol", "metric", "value", "standard_error", "chance", "ceiling", "ties",
                  "duplicates", "query_source", "gallery", "queries", "photos")
LEDGER_COLUMNS = ("trap", "arm", "features", "protocol", "metric", "value", "note")
LEDGER_METRICS = ("mAP@all", "Prec@100", "Prec@R", "mAP@200", "Prec@200")
ITQ_STARTS = 8
"""Starts from which the ledger fits ITQ to the same features, to show how far the start alone moves a number."""
ONE_MATRIX_BYTES = 2e9
"""Largest float64 matrix of distances that the ledger makes to show that blocks change nothing."""


@dataclass(frozen=True)
class Places:
    """Where things are on this machine; none of it enters a run's identity."""

    cache: Path
    data_root: Path | None = None
    words: Path | None = None
    weights: Path | None = None
    teacher_weights: Path | None = None
    emoji_tarballs: Path | None = None
    lists: Path | str | None = "auto"
    """Where list files are: `auto` beside the data, None to go by the folders alone, or a folder."""
    progress: bool = True


class Material:
    """Splits, words and decoded images of this machine, each read once and shared by all cells."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._kept: dict[Hashable, Any] = {}
        self._pixels: dict[tuple[str, str, str, int, Reading], Pixels] = {}
        self._listings: dict[str, scan.Listings] = {}

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once under `key`. An InputError is kept too and raised again, since finding it anew for every
        cell may mean a download, or gigabytes to read."""
        if key not in self._kept:
            try:
                self._kept[key] = make()
            except InputError as error:
                self._kept[key] = error
        kept = self._kept[key]
        if isinstance(kept, InputError):
            raise InputError(str(kept)) from kept
        return kept

    def split(self, dataset: str, name: str) -> Split:
        """The split's file lists; InputError saying precisely what is missing."""
        p = self.places
        return self._once(("split", dataset, name), lambda: splits.load(
            dataset, name, data_root=p.data_root, cache=p.cache, progress=p.progress, emoji_tarballs=p.emoji_tarballs,
            lists=p.lists, listings=self._listings.setdefault(dataset, {})))

    def pixels(self, config: Config, role: str) -> Pixels:
        """Decoded images of one of the split's lists."""
        data = config.data
        reading = Reading(data.transparent, data.exif)
        key = data.dataset, data.split, role, data.stored_size, reading
        if key not in self._pixels:
            split = self.split(data.dataset, data.split)
            self._pixels[key] = pack(getattr(split, role), data.stored_size, self.places.cache, split.data_digest,
                                     f"{data.dataset} {data.split} {role}", self.places.progress, reading)
        return self._pixels[key]

    def words(self, config: Config) -> Words:
        """Word vectors of the seen classes."""
        data = config.data
        source = self.places.words or (EMOJI_WORDS if data.dataset == "emoji" else None)
        if source is None:
            raise InputError(f"data set '{data.dataset}' needs word vectors: pass --words FILE (word2vec binary, "
                             f"GloVe text, or a table made with benchmarks/make_words.py)")
        return self._once(("words", data.dataset, data.split, data.unit_words), lambda: load_words(
            source, self.split(data.dataset, data.split).seen, unit=data.unit_words))

    def imagenet_words(self, config: Config) -> Words:
        """Word vectors of ImageNet's 1,000 classes, from the source that gave the seen classes'."""
        return self._once("ImageNet's words", lambda: load_words(self.places.words or IMAGENET_WORDS, backbones.imagenet_names(),
                                                                 unit=True))

    def words_digest(self, config: Config) -> str | None:
        """Digest of all word vectors that a run reads; None where it reads none."""
        if not _uses_words(config):
            return None
        digests = [self.words(config).digest]
        if method_named(config.method).compares_words:
            digests.append(self.imagenet_words(config).digest)
        return "+".join(digests)

    def identity(self, config: Config) -> str:
        """The run's identity on this data."""
        split = self.split(config.data.dataset, config.data.split)
        return identity(config, split.data_digest, split.split_digest, self.words_digest(config) or "")

    def ingredients(self, config: Config) -> Ingredients:
        """Encoder, teacher, words: what a model is built from."""
        net, split = config.network, self.split(config.data.dataset, config.data.split)
        encoder = backbones.encoder(net.backbone, net.weights, self.places.weights)
        teacher, classifier = backbones.build(net.backbone, net.teacher_weights, self.places.teacher_weights)
        words, further = self.word_tensors(config)
        return Ingredients(encoder, teacher, classifier, words, len(split.seen), further)

    def word_tensors(self, config: Config) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Word vectors of the seen classes (zeros [C, 1] where the run reads none), and of ImageNet's where they are compared."""
        if _uses_words(config):
            words = torch.from_numpy(np.asarray(self.words(config).vectors))
        else:
            words = torch.zeros(len(self.split(config.data.dataset, config.data.split).seen), 1)
        compared = method_named(config.method).compares_words
        return words, torch.from_numpy(self.imagenet_words(config).vectors) if compared else None


def _uses_words(config: Config) -> bool:
    used = (config.losses.semantic > 0 or config.losses.semantic_off == "as-released"
            or method_named(config.method).compares_words)
    return config.training.optimizer != "none" and used


@dataclass(frozen=True)
class Failure:
    """Why a cell did not finish. `final`: another attempt would end the same way (bad input, a loss that is no number, a full
    disk). `holder`: who works on the cell, where another process does; nothing was done then."""

    reason: str
    final: bool
    holder: str | None = None


def check_threads(threads: int) -> None:
    """InputError above MOST_THREADS: each is a real thread, whatever the machine has, and would fill its table of processes."""
    if threads > MOST_THREADS:
        raise InputError(f"{threads:,} threads are more than any run was made with; give --threads up to {MOST_THREADS:,}")


def limit_threads(threads: int) -> None:
    """Let torch and the linear algebra under NumPy use `threads` CPU threads: sums, so results, depend on it. More than the
    machine has cores is slow, and gives the bits of a machine that has them. InputError above MOST_THREADS."""
    check_threads(threads)
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads, user_api="blas")


def run_cell(cell: Cell, folder: CellFolder, material: Material, mirror: Mirror, device: torch.device, label: str
             ) -> str | None:
    """Run or resume one cell. Returns None when it finished, else the reason it failed; KeyboardInterrupt passes."""
    failure = attempt(cell, folder, material, mirror, device, label, provenance.command())
    return failure.reason if failure else None


def attempt(cell: Cell, folder: CellFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device, label: str,
            command: str) -> Failure | None:
    """`run_cell`, saying of a failure whether another attempt could help. `command`: what the user typed."""
    try:
        with folder.claim(command):
            if folder.state == "finished":  # by another process a moment ago, or before its ledger was asked for
                return _complete(cell, folder, material, mirror, device) if lacks_ledger(folder) else None
            return _attempt(cell, folder, material, mirror, device, label, command)
    except Held as error:
        return Failure(f"{error.holder} is running this cell", False, error.holder)
    except StorageError as error:
        return Failure(str(error), True)


def _attempt(cell: Cell, folder: CellFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device, label: str,
             command: str) -> Failure | None:
    split = material.split(cell.dataset, cell.split)
    started = time.perf_counter()
    folder.write_config()
    before, done_before = _earlier(folder), folder.epochs_done
    record = {**provenance.collect(device), "command": command, "identity": folder.identity, "data_digest": split.data_digest,
              "split_digest": split.split_digest, "resumed_from_epoch": done_before, "seed": cell.seed, "smoke": cell.smoke,
              "words_digest": material.words_digest(cell.config), "datasets": describe(split),
              "manifest": _manifest(split, material.places.cache), "notes": list(split.notes)}
    write_json(folder.path / "provenance.json", record)
    provenance.write_diff(folder.path / "diff.patch")
    folder.set_state("running", epochs_done=done_before)
    try:
        with mirror.cell(folder) as view:
            try:
                done = _train_and_score(cell, folder, material, device, label, view)
                record |= done["record"]
                record |= {"finished": provenance.now(),
                           "total_seconds": before + time.perf_counter() - started}
                write_json(folder.path / "provenance.json", record)
                for leftover in ("error.txt", "diverged.json"):
                    (folder.path / leftover).unlink(missing_ok=True)
                folder.seal()
                folder.set_state("finished", None, cell.config.training.epochs, done["best_epoch"])
                checkpoints.forget(folder.path)
                view.results()
            except BaseException as error:
                _mark(folder, error, device)
                raise _interruption(error) or error
    except Exception as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what a failed cell held is the next one's
        return Failure(_reason(error, device), isinstance(error, (InputError, loop.Diverged)))
    return None


def lacks_ledger(folder: CellFolder) -> bool:
    """Whether a finished cell's ledger.csv is missing, or lacks a trap that this version scores, though its variant has a
    ledger: neither is part of the identity. Said, and False, where the checkpoint is gone that it would be made from."""
    if not baselines.find(folder.cell.variant).ledger:
        return False
    scored = {trap.trap for trap in TRAPS if trap.kind == "scoring"}
    absent = scored - {row.get("trap") for row in read_rows(folder.path / "ledger.csv")}
    if absent and folder.cell.trained and not (folder.path / CHECKPOINT).exists():
        warn(f"{folder.path.name}: no ledger scores of {', '.join(sorted(absent))}, and no {CHECKPOINT} to make them from; "
                 f"move its folder away to run that cell again")
        return False
    return bool(absent)


def _complete(cell: Cell, folder: CellFolder, material: Material, mirror: Mirror | NoMirror, device: torch.device
              ) -> Failure | None:
    """Write the ledger.csv of a finished cell from its checkpoint; nothing else of it changes but what provenance.json says."""
    config, split = cell.config, material.split(cell.dataset, cell.split)
    try:
        with mirror.cell(folder) as view:
            record = read_json(folder.path / "provenance.json")
            model = build_model(method_named(config.method), config, material.ingredients(config), device)
            if cell.trained:
                state = checkpoints.load(folder.path / CHECKPOINT)
                if state["identity"] != folder.identity:
                    raise InputError(f"{folder.path / CHECKPOINT} is of another run; move its folder away to run that cell again")
                model.load_state_dict(state["model"])
            network = _Scored(config, model, material, device)
            _write_ledger(folder, split, network, network.sketches("query"),
                          network.photos("gallery", Modality(config.evaluation.photo_side)))
            now = provenance.collect(device)
            write_json(folder.path / "provenance.json", {**record, "ledger_scored": {
                key: now[key] for key in ("commit", "dirty", "device", "threads", "command", "started")}})
            folder.seal()
            view.results()
    except Exception as error:
        if interruption := _interruption(error):
            raise interruption from error
        return Failure(_reason(error, device), True)
    return None


def _mark(folder: CellFolder, error: BaseException, device: torch.device) -> None:
    """Say in the folder how a cell ended, as far as the disk takes it."""
    try:
        if _interruption(error):
            # The signal may have come between a checkpoint and the status that tells of it.
            folder.set_state("interrupted", "stopped by the user; the next call goes on from the last epoch",
                             max(folder.epochs_done, checkpoints.epochs(folder.path)))
            return
        if isinstance(error, loop.Diverged):
            _write_history(folder, error.history)
            write_json(folder.path / "diverged.json", {
                "reason": str(error), "epoch": error.epoch, "step": error.step,
                # JSON has no NaN.
                "losses": {name: f"{value:g}" for name, value in error.values.items()}})
        write_bytes(folder.path / "error.txt", "".join(traceback.format_exception(error)).encode(errors="replace"))
        folder.set_state("failed", _reason(error, device), folder.epochs_done)
    except StorageError as full:
        # The state stays `running`, which the next call reads as what it is: a cell whose process is gone.
        warn(f"{folder.path.name}: {full}")


def _reason(error: BaseException, device: torch.device) -> str:
    """What to tell the user about an error."""
    if isinstance(error, (InputError, loop.Diverged)):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
        return (f"out of memory on {where}; run fewer cells at once (--cells-per-gpu, --workers), close what else uses it, or, "
                f"as runs of their own, choose execution.precision=bf16 or a smaller data.batch_pairs with --set; the same "
                f"command goes on from the last finished epoch ({text.splitlines()[0][:200]})")
    return text


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error: in the middle of torch.save it comes out as another one, raised while the half-written file
    is closed; in the middle of an import, as anything."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error or interrupts.pending()


def _manifest(split: Split, cache: Path) -> dict[str, Any] | None:
    """What `python -m tcn data check` found for these files, in short; None where it has not been run."""
    found = doctor.manifest_for(split, cache)
    if found is None:
        return None
    return {key: value for key, value in found.items() if key in ("content_digest", "checked", "unreadable", "counts")}


def _earlier(folder: CellFolder) -> float:
    try:
        return float(read_json(folder.path / "spent.json")["seconds"])
    except (InputError, KeyError, TypeError, ValueError):  # none yet, or damaged: only the sum of times suffers
        return 0.0


def _write_history(folder: CellFolder, history: loop.History) -> None:
    write_table(folder.path / "history.csv", history.epochs, EPOCH_TERMS)
    write_table(folder.path / "steps.csv", history.steps, STEP_TERMS)


def describe(split: Split) -> list[tuple[str, str, str]]:
    """The split's lists as MLflow data sets: (name with its role last, digest, JSON summary)."""
    roles = {"training": (split.train_sketches, split.train_photos), "unseen": (split.query, split.gallery)}
    if len(split.validation):
        roles["validation"] = (split.validation_sketches, split.validation_photos)
    return [(f"{split.dataset} {split.name} {role}", split.data_digest,
             json.dumps({"sketches": len(s.paths), "photos": len(p.paths)})) for role, (s, p) in roles.items()]


def _train_and_score(cell: Cell, folder: CellFolder, material: Material, device: torch.device, label: str, view: Any
                     ) -> dict[str, Any]:
    config, split = cell.config, material.split(cell.dataset, cell.split)
    method = method_named(config.method)
    model = build_model(method, config, material.ingredients(config), device)
    record: dict[str, Any] = {"weights": _weights_note(config, "weights"), "selected_by": "not trained",
                              "optimizer_steps": 0, "train_seconds": 0.0, "words": "not used"}
    best_epoch = None
    if cell.trained:
        source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)
        distances = Distances(model.encoders, config.training.epochs * source.steps)

        def note(history: loop.History) -> None:
            _write_history(folder, history)
            _write_arrays(folder.path / "distances.npz", distances.arrays())
            folder.set_state("running", None, int(history.epochs[-1]["epoch"]), history.best_epoch)
            write_json(folder.path / "spent.json", {"seconds": sum(r.get("seconds", 0) for r in history.epochs)})
            view.history(history.epochs, history.steps)
            interrupts.check()

        history = loop.fit(method, model, source, validation_data(material, config), config, folder.path, device, label,
                               material.places.progress, note, distances)
        best_epoch = history.best_epoch
        record |= {"selected_by": {"validation_map": "validation mAP@all", "seen_accuracy": "seen-class accuracy"}[
                       config.training.select_by],
                   "optimizer_steps": len(history.steps),
                   "train_seconds": sum(row.get("seconds", 0.0) for row in history.epochs),
                   "words": material.words(config).description if _uses_words(config) else "not used"}
        checkpoints.save({"model": model.state_dict(), "epoch": best_epoch, "identity": folder.identity},
                         folder.path / CHECKPOINT)
    score_cell(config, split, model, material, device, folder, baselines.find(cell.variant).ledger)
    return {"record": record, "best_epoch": best_epoch}


def build_model(method: Method, config: Config, ingredients: Ingredients, device: torch.device) -> torch.nn.Module:
    """The model of a run on its device. InputError where the device can't do what `execution` asks."""
    return place(method.build(config, ingredients), config.execution, device)


def _weights_note(config: Config, name: str) -> str:
    setting = getattr(config.network, name)
    return backbones.SOURCES[config.network.backbone].origin if setting == "imagenet" else setting


def validation_data(material: Material, config: Config) -> loop.ValidationData:
    """What settings and epochs may be chosen by: held-out sketches of seen classes, and validation classes."""
    split = material.split(config.data.dataset, config.data.split)

    def some(role: str) -> Pixels | None:
        return material.pixels(config, role) if len(getattr(split, role).paths) else None

    return loop.ValidationData(some("heldout_sketches"), some("validation_sketches"), some("validation_photos"))


def score_cell(config: Config, split: Split, model: torch.nn.Module, material: Material, device: torch.device,
               folder: CellFolder, ledger: bool = False) -> None:
    """Features, codes and every metric of unseen and validation classes; singular values; example retrievals.

    `ledger`: also score the traps that change only scoring, from the same features.
    """
    evaluation = config.evaluation
    network = _Scored(config, model, material, device)
    seen = network.seen
    rows: list[dict[str, Any]] = []
    per_query: list[dict[str, Any]] = []
    every: dict[str, np.ndarray] = {}
    sets = {"unseen": ("query", "gallery")}
    if len(split.validation):
        sets["validation"] = ("validation_sketches", "validation_photos")
    for classes, (query_role, gallery_role) in sets.items():
        query = network.sketches(query_role)
        gallery = network.photos(gallery_role, Modality(evaluation.photo_side))
        files = getattr(split, query_role), getattr(split, gallery_role)
        kinds = {"real": (query, gallery, "euclidean")}
        if evaluation.binary:
            kinds["binary"] = (*_codes(seen, query, gallery, config), "hamming")
        for kind, (q, g, metric) in kinds.items():
            unseen = classes == "unseen"
            rows += _score(classes, kind, q, g, metric, files, split, config, device, (per_query, every) if unseen else None)
        if classes == "unseen":
            _write_features(folder.path / "features.npz", split, query, gallery, files)
            _write_singular_values(folder.path / "singular_values.csv", seen, query, gallery)
            curve = metrics.precision_recall(query, gallery, files[0].labels, files[1].labels, device=device)
            write_table(folder.path / "precision_recall.csv",
                        [{"features": "real", "recall": float(r), "precision": float(p)}
                         for r, p in zip(metrics.RECALLS.round(2), curve)], ("features", "recall", "precision"))
            _write_examples(folder.path, split, query, gallery, files, every["real/released/mAP@all"])
            if ledger:
                _write_ledger(folder, split, network, query, gallery)
    write_table(folder.path / "per_query.csv", per_query,
                ("query", "class", "source", "features", "AP_released", "AP_standard", "Prec@R"))
    _write_arrays(folder.path / "per_query.npz", every)
    write_table(folder.path / "metrics.csv", rows, METRIC_COLUMNS)


class _Scored:
    """A network and features of the pictures it is scored on, treated as `evaluation.statistics` asks."""

    def __init__(self, config: Config, model: torch.nn.Module, material: Material, device: torch.device) -> None:
        self.config, self.device = config, device
        self._model, self._material = model, material
        raw = {m: self._extract(role, m) for m, role in ((Modality.SKETCH, "train_sketches"), (Modality.PHOTO, "train_photos"))}
        self._treated = _treatment(config, raw)
        self.seen = {m: self._treated[m](raw[m]) for m in Modality}
        """Of seen training images, by modality."""

    def _extract(self, role: str, modality: Modality, side: Modality | None = None) -> np.ndarray:
        return extract(self._model, self._material.pixels(self.config, role), modality, self.config.data.image_size, self.device,
                       self.config.evaluation.features, side=side, resize=self.config.data.resize)

    def sketches(self, role: str) -> np.ndarray:
        """Features of one of the split's lists of sketches."""
        return self._treated[Modality.SKETCH](self._extract(role, Modality.SKETCH))

    def photos(self, role: str, side: Modality) -> np.ndarray:
        """Features of one of the split's lists of photos, from that side's output of the embedding."""
        return self._treated[Modality.PHOTO](self._extract(role, Modality.PHOTO, side))


def _write_ledger(folder: CellFolder, split: Split, network: _Scored, query: np.ndarray, gallery: np.ndarray) -> None:
    """ledger.csv; `query` and `gallery` are the network's features of these lists, as it is scored."""
    sides = [gallery if side.value == network.config.evaluation.photo_side else network.photos("gallery", side)
             for side in (Modality.PHOTO, Modality.SKETCH)]
    rows = score_ledger(network.config, (split.query, split.gallery), network.seen, query, *sides, network.device)
    write_table(folder.path / "ledger.csv", rows, LEDGER_COLUMNS)


def _treatment(config: Config, seen: dict[Modality, np.ndarray]) -> dict[Modality, Callable[[np.ndarray], np.ndarray]]:
    """What features of each modality go through before they are scored, fitted on seen training images."""
    how = config.evaluation.statistics
    if how == "per_modality":
        return {m: Standardiser.fit(seen[m]) for m in Modality}
    if how == "pca":
        both = Components.fit(np.concatenate(list(seen.values())), config.network.dim)
        return {m: both for m in Modality}
    return {m: lambda features: features for m in Modality}


def _codes(seen: dict[Modality, np.ndarray], query: np.ndarray, gallery: np.ndarray, config: Config
           ) -> tuple[np.ndarray, np.ndarray]:
    """ITQ codes of D bits; fitted on seen training features of both modalities unless the released fit is asked for."""
    rows = [unit(x) for x in (np.concatenate(list(seen.values())), query, gallery)]
    return codes.binary_codes(*rows, bits=min(config.network.dim, query.shape[1]), seed=config.seed,
                              rule=config.evaluation.itq_rule, fit=config.evaluation.itq_fit,
                              start=config.evaluation.itq_start)


def _repeated(files: Files) -> bool:
    return len(set(files.groups)) < len(files.groups)


def _score(classes: str, kind: str, query: np.ndarray, gallery: np.ndarray, metric: str, files: tuple[Files, Files],
           split: Split, config: Config, device: torch.device, keep: tuple[list[dict[str, Any]], dict[str, np.ndarray]] | None
           ) -> list[dict[str, Any]]:
    """Rows of metrics.csv; per-query values of all queries against the whole gallery go to `keep`."""
    query_files, gallery_files = files
    sources = np.array(query_files.sources)
    photo_sources = np.array(gallery_files.sources)
    everything = np.ones(len(gallery), bool)
    subsets = [("all", np.ones(len(query), bool), "all", everything, "as-published")]
    if _repeated(gallery_files):
        subsets.append(("all", subsets[0][1], "all", everything, "distinct"))
    for name in sorted(set(query_files.sources) - {""}):
        subsets.append((name, sources == name, "all", everything, "as-published"))
        # EmojiOne drew both: its queries are also scored without the photos of the same hand.
        if name == "emojione-monotone" and "emojione-v1" in gallery_files.sources:
            subsets.append((name, sources == name, "without emojione-v1", photo_sources != "emojione-v1", "as-published"))
    groups = np.array(gallery_files.groups) if gallery_files.groups else None
    rows = []
    for source, chosen, gallery_name, kept, duplicates in subsets:
        whole = source == "all" and gallery_name == "all"
        scores = metrics.score(query[chosen], gallery[kept], query_files.labels[chosen], gallery_files.labels[kept],
                               protocols=metrics.ALL if whole else HEADLINE, metric=metric, ties=config.evaluation.ties,
                               missing_classes=config.evaluation.missing_classes, duplicates=duplicates,
                               device=device, gallery_group=groups[kept] if duplicates == "distinct" else None)
        for protocol in scores.protocols:
            for name in (n for n in METRICS if n in scores.metrics(protocol)):
                rows.append({"classes": classes, "features": kind, "protocol": protocol, "metric": name,
                             "value": scores.value(protocol, name), "standard_error": scores.error(protocol, name),
                             "chance": scores.chance(protocol, name), "ceiling": scores.ceiling(protocol, name),
                             "ties": scores.ties, "duplicates": scores.duplicates, "query_source": source,
                             "gallery": gallery_name, "queries": scores.queries, "photos": scores.photos})
                if keep is not None and whole and duplicates == "as-published":
                    keep[1][f"{kind}/{protocol}/{name}"] = scores.per_query(protocol, name)
        if keep is not None and whole and duplicates == "as-published":
            keep[1].setdefault("query", np.array(query_files.paths))
            keep[1].setdefault("class", np.array(split.classes)[query_files.labels])
            released, standard = (scores.per_query(p, "mAP@all") for p in HEADLINE)
            r_precision = scores.per_query("released", "Prec@R")
            keep[0].extend({"query": path, "class": split.classes[label], "source": origin, "features": kind,
                            "AP_released": float(a), "AP_standard": float(b), "Prec@R": float(c)}
                           for path, label, origin, a, b, c in zip(query_files.paths, query_files.labels,
                                                                   query_files.sources, released, standard, r_precision))
    return rows


def score_ledger(config: Config, files: tuple[Files, Files], seen: dict[Modality, np.ndarray], query: np.ndarray,
                 gallery: np.ndarray, gallery_on_sketch_side: np.ndarray, device: torch.device | None = None
                 ) -> list[dict[str, Any]]:
    """Rows of ledger.csv: what each trap that changes only scoring is worth, all else corrected.

    query [Nq, D], gallery [Ng, D] and the gallery as the released code reads it, from one trained network.
    """
    query_labels, gallery_labels = files[0].labels, files[1].labels
    rows: list[dict[str, Any]] = []

    def score(kind: str, pair: tuple[np.ndarray, np.ndarray], **options: Any) -> metrics.Scores:
        return metrics.score(*pair, query_labels, gallery_labels, protocols=("released",), device=device,
                             metric="euclidean" if kind == "real" else "hamming",
                             **{"missing_classes": config.evaluation.missing_classes, **options})

    def add(trap: str, kind: str, **arms: metrics.Scores) -> None:
        rows.extend({"trap": trap, "arm": arm, "features": kind, "protocol": "released", "metric": name,
                     "value": scores.value("released", name), "note": ""}
                    for arm, scores in arms.items() for name in LEDGER_METRICS)

    def coded(g: np.ndarray, **released: Any) -> tuple[np.ndarray, np.ndarray]:
        corrected = {"itq_rule": "textbook", "itq_fit": "seen", "itq_start": "drawn"}
        delta = {f"evaluation.{name}": value for name, value in {**corrected, **released}.items() if name != "seed"}
        return _codes(seen, query, g, change(config, {**delta, "seed": released.get("seed", config.seed)}))

    def absent(trap: str, note: str) -> None:
        rows.append({"trap": trap, "note": note})

    pairs = {"real": (query, gallery), "binary": coded(gallery)}
    corrected = {kind: score(kind, pair) for kind, pair in pairs.items()}
    add("photo-side", "real", corrected=corrected["real"], released=score("real", (query, gallery_on_sketch_side)))
    add("photo-side", "binary", corrected=corrected["binary"], released=score("binary", coded(gallery_on_sketch_side)))
    for trap, released in (("itq-rule", {"itq_rule": "released"}), ("itq-fit", {"itq_fit": "as-released"}),
                           ("itq-start", {"itq_start": "released"})):
        add(trap, "binary", corrected=corrected["binary"], released=score("binary", coded(gallery, **released)))
    add("itq-start", "binary", **{f"start-{seed + 1}": score("binary", coded(gallery, seed=seed)) for seed in range(ITQ_STARTS)})
    orders = {ties: corrected["binary"] if ties == "expected" else score("binary", pairs["binary"], ties=ties)
              for ties in metrics.TIES if ties != "as-released"}  # which is the unstable sort in this protocol
    add("ties", "binary", corrected=orders["expected"], released=orders.pop("unstable-sort"), **orders)
    if set(query_labels.tolist()) - set(gallery_labels.tolist()):
        add("missing-classes", "real", **{arm: score("real", pairs["real"], missing_classes=rule)
                                          for arm, rule in (("corrected", "zero"), ("released", "as-released"))})
    else:
        absent("missing-classes", "every query class has photos")
    if _repeated(files[1]):
        for kind, pair in pairs.items():
            add("duplicates", kind, released=corrected[kind], corrected=score(
                kind, pair, duplicates="distinct", gallery_group=np.array(files[1].groups)))
    else:
        absent("duplicates", "no photo is listed twice")
    if 8 * len(query) * len(gallery) <= ONE_MATRIX_BYTES:
        add("one-matrix", "real", corrected=score("real", pairs["real"], block=max(1, len(query) // 7)),
            released=score("real", pairs["real"], block=len(query)))
    else:
        absent("one-matrix", f"the matrix would take {8 * len(query) * len(gallery) / 1e9:.0f} GB")
    return rows


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def _write_features(path: Path, split: Split, query: np.ndarray, gallery: np.ndarray, files: tuple[Files, Files]) -> None:
    names = np.array(split.classes)
    arrays = {"query": query, "gallery": gallery, "query_labels": names[files[0].labels],
              "gallery_labels": names[files[1].labels], "query_paths": np.array(files[0].paths),
              "gallery_paths": np.array(files[1].paths), "query_sources": np.array(files[0].sources)}
    if _repeated(files[1]):
        arrays["gallery_group"] = np.array(files[1].groups)
    _write_arrays(path, arrays)


def _write_singular_values(path: Path, seen: dict[Modality, np.ndarray], query: np.ndarray, gallery: np.ndarray) -> None:
    rows = []
    for name, features in (("training", seen), ("unseen", {Modality.SKETCH: query, Modality.PHOTO: gallery})):
        for modality, values in features.items():
            rows += [{"set": name, "modality": modality.value, "index": i + 1, "value": float(v)}
                     for i, v in enumerate(singular_values(values))]
    write_table(path, rows, ("set", "modality", "index", "value"))


def example_queries(split: Split, average_precision: np.ndarray) -> list[tuple[int, str]]:
    """Query indices to show: the same few for every variant, from different classes, and this cell's worst one."""
    rng = numpy_stream(0, "examples")
    order = rng.permutation(len(split.query.paths))
    fixed: list[int] = []
    for index in order.tolist():
        if split.query.labels[index] not in split.query.labels[fixed]:
            fixed.append(index)
        if len(fixed) == FIXED_EXAMPLES:
            break
    worst = [i for i in np.argsort(average_precision, kind="stable").tolist() if i not in fixed][:1]
    return [(i, "fixed") for i in fixed] + [(i, "failure") for i in worst]


def _write_examples(folder: Path, split: Split, query: np.ndarray, gallery: np.ndarray, files: tuple[Files, Files],
                    precision: np.ndarray) -> None:
    """Pictures of a few queries and what they retrieve; `precision`: the queries' average precision [Nq]."""
    examples = []

    def thumbnail(item: Files, index: int, name: str) -> str:
        picture = io.BytesIO()
        Image.fromarray(decode(item.root / item.paths[index], 96)).save(picture, "PNG")
        write_bytes(folder / "examples" / name, picture.getvalue())
        return f"examples/{name}"

    for number, (index, kind) in enumerate(example_queries(split, precision)):
        top = metrics.rank(query[index:index + 1], gallery, min(SHOWN, len(gallery)))[0]
        examples.append({
            "query": {"class": split.classes[files[0].labels[index]], "source": files[0].sources[index],
                      "file": thumbnail(files[0], index, f"q{number}.png")},
            "average_precision": float(precision[index]), "kind": kind,
            "retrieved": [{"rank": r + 1, "class": split.classes[files[1].labels[j]],
                           "file": thumbnail(files[1], int(j), f"q{number}-{r + 1}.png"),
                           "correct": bool(files[1].labels[j] == files[0].labels[index])}
                          for r, j in enumerate(np.asarray(top).tolist())]})
    write_json(folder / "examples.json", {"examples": examples})
