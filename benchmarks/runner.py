"""One cell: skip, resume, finish or fail. Everything a reader needs is written as plain files in its folder."""
from __future__ import annotations

import io
import json
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import baselines
from benchmarks import provenance
from benchmarks.experiments import Cell
from benchmarks.store import (EPOCH_TERMS, STEP_TERMS, CellFolder, Mirror, read_json, write_bytes, write_json,
                              write_table)
from tcn import backbones, codes, datasets, metrics, training
from tcn.batches import PairSource
from tcn.config import Config, InputError, Modality, identity
from tcn.datasets import Files, Split
from tcn.features import Standardiser, extract, singular_values
from tcn.images import Pixels, decode, pack
from tcn.method import Ingredients
from tcn.seeding import numpy_stream
from tcn.words import Words, load_words

PROTOCOLS = ("released", "standard")
METRICS = ("mAP@all", "Prec@100", "mAP@200", "Prec@200", "Prec@R", "Prec@5")
EMOJI_WORDS = Path(datasets.__file__).parent / "splits" / "emoji_words.csv"
SHOWN = 13
FIXED_EXAMPLES = 4
METRIC_COLUMNS = ("classes", "features", "protocol", "metric", "value", "chance", "ceiling", "query_source", "gallery",
                  "queries", "photos")


@dataclass(frozen=True)
class Places:
    """Where things are on this machine; none of it enters a run's identity."""

    cache: Path
    data_root: Path | None = None
    words: Path | None = None
    weights: Path | None = None
    teacher_weights: Path | None = None
    emoji_tarballs: Path | None = None
    progress: bool = True


class Material:
    """Splits, words and decoded images of this machine, each read once and shared by all cells."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._splits: dict[tuple[str, str], Split] = {}
        self._pixels: dict[tuple[str, str, str, int], Pixels] = {}
        self._words: dict[tuple[str, str, bool], Words] = {}

    def split(self, dataset: str, name: str) -> Split:
        """The split's file lists; InputError saying precisely what is missing."""
        key = dataset, name
        if key not in self._splits:
            p = self.places
            self._splits[key] = datasets.load(dataset, name, data_root=p.data_root, cache=p.cache, progress=p.progress,
                                              emoji_tarballs=p.emoji_tarballs)
        return self._splits[key]

    def pixels(self, config: Config, role: str) -> Pixels:
        """Decoded images of one of the split's lists."""
        data = config.data
        key = data.dataset, data.split, role, data.stored_size
        if key not in self._pixels:
            split = self.split(data.dataset, data.split)
            self._pixels[key] = pack(getattr(split, role), data.stored_size, self.places.cache, split.data_digest,
                                     f"{data.dataset} {data.split} {role}", self.places.progress)
        return self._pixels[key]

    def words(self, config: Config) -> Words:
        """Word vectors of the seen classes."""
        data = config.data
        key = data.dataset, data.split, data.unit_words
        if key not in self._words:
            source = self.places.words or (EMOJI_WORDS if data.dataset == "emoji" else None)
            if source is None:
                raise InputError(f"data set '{data.dataset}' needs word vectors: pass --words FILE (word2vec binary, "
                                 f"GloVe text, or a table made with benchmarks/make_words.py)")
            self._words[key] = load_words(source, self.split(data.dataset, data.split).seen, unit=data.unit_words)
        return self._words[key]

    def identity(self, config: Config) -> str:
        """The run's identity on this data."""
        split = self.split(config.data.dataset, config.data.split)
        words = self.words(config).digest if _uses_words(config) else ""
        return identity(config, split.data_digest, split.split_digest, words)

    def ingredients(self, config: Config) -> Ingredients:
        """Encoder, teacher, words: what a model is built from."""
        net, split = config.network, self.split(config.data.dataset, config.data.split)
        encoder, _ = backbones.build(net.backbone, net.weights, self.places.weights)
        teacher, classifier = backbones.build(net.backbone, net.teacher_weights, self.places.teacher_weights)
        if _uses_words(config):
            words = torch.from_numpy(np.asarray(self.words(config).vectors))
        else:
            words = torch.zeros(len(split.seen), 1)
        return Ingredients(encoder, teacher, classifier, words, len(split.seen))


def _uses_words(config: Config) -> bool:
    return config.training.optimizer != "none" and config.losses.semantic > 0


def run_cell(cell: Cell, folder: CellFolder, material: Material, mirror: Mirror, device: torch.device, label: str
             ) -> str | None:
    """Run or resume one cell. Returns None when it finished, else the reason it failed; KeyboardInterrupt passes."""
    split = material.split(cell.dataset, cell.split)
    started = time.perf_counter()
    folder.write_config()
    before = _earlier(folder)
    record = {**provenance.collect(device), "identity": folder.identity, "data_digest": split.data_digest,
              "split_digest": split.split_digest, "resumed_from_epoch": folder.epochs_done,
              "notes": list(split.notes)}
    write_json(folder.path / "provenance.json", record)
    folder.set_state("running", epochs_done=folder.epochs_done)
    try:
        with mirror.cell(folder, describe(split)) as view:
            try:
                done = _train_and_score(cell, folder, material, device, label, view)
                record |= done["record"]
                record |= {"finished": provenance.now(),
                           "total_seconds": before + time.perf_counter() - started}
                write_json(folder.path / "provenance.json", record)
                folder.set_state("finished", None, cell.config.training.epochs, done["best_epoch"])
                for leftover in ("resume.pt", "best.pt", "error.txt"):
                    (folder.path / leftover).unlink(missing_ok=True)
                view.results()
            except KeyboardInterrupt:
                folder.set_state("interrupted", "stopped by the user; the next call goes on from the last epoch",
                                 folder.epochs_done)
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, (InputError, training.Diverged)) else \
                    f"{type(error).__name__}: {error}"
                write_bytes(folder.path / "error.txt", traceback.format_exc().encode())
                folder.set_state("failed", reason, folder.epochs_done)
                raise
    except Exception as error:
        return read_json(folder.path / "status.json")["reason"] or str(error)
    return None


def _earlier(folder: CellFolder) -> float:
    path = folder.path / "spent.json"
    return read_json(path)["seconds"] if path.exists() else 0.0


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
    method = baselines.find(cell.variant).method
    model = method.build(config, material.ingredients(config)).to(device, memory_format=torch.channels_last)
    record: dict[str, Any] = {"weights": _weights_note(config, "weights"), "selected_by": "not trained",
                              "optimizer_steps": 0, "train_seconds": 0.0, "words": "not used"}
    best_epoch = None
    if cell.trained:
        source = PairSource(material.pixels(config, "train_sketches"), material.pixels(config, "train_photos"), config.data)

        def note(history: training.History) -> None:
            write_table(folder.path / "history.csv", history.epochs, EPOCH_TERMS)
            write_table(folder.path / "steps.csv", history.steps, STEP_TERMS)
            folder.set_state("running", None, int(history.epochs[-1]["epoch"]), history.best_epoch)
            write_json(folder.path / "spent.json", {"seconds": sum(r.get("seconds", 0) for r in history.epochs)})
            view.history(history.epochs, history.steps)

        history = training.fit(method, model, source, validation_data(material, config), config, folder.path, device, label,
                               material.places.progress, note)
        best_epoch = history.best_epoch
        record |= {"selected_by": {"validation_map": "validation mAP@all", "seen_accuracy": "seen-class accuracy"}[
                       config.training.select_by],
                   "optimizer_steps": len(history.steps),
                   "train_seconds": sum(row.get("seconds", 0.0) for row in history.epochs),
                   "words": material.words(config).description if _uses_words(config) else "not used"}
        training.save_atomically({"model": model.state_dict(), "epoch": best_epoch, "identity": folder.identity},
                                 folder.path / "checkpoint.pt")
    score_cell(config, split, model, material, device, folder)
    return {"record": record, "best_epoch": best_epoch}


def _weights_note(config: Config, name: str) -> str:
    setting = getattr(config.network, name)
    return backbones.SOURCES[config.network.backbone].origin if setting == "imagenet" else setting


def validation_data(material: Material, config: Config) -> training.ValidationData:
    """What settings and epochs may be chosen by: held-out sketches of seen classes, and validation classes."""
    split = material.split(config.data.dataset, config.data.split)

    def some(role: str) -> Pixels | None:
        return material.pixels(config, role) if len(getattr(split, role).paths) else None

    return training.ValidationData(some("heldout_sketches"), some("validation_sketches"), some("validation_photos"))


def score_cell(config: Config, split: Split, model: torch.nn.Module, material: Material, device: torch.device,
               folder: CellFolder) -> None:
    """Features, codes and every metric of unseen and validation classes; singular values; example retrievals."""
    evaluation = config.evaluation

    def features(role: str, modality: Modality) -> np.ndarray:
        return extract(model, material.pixels(config, role), modality, config.data.image_size, device, evaluation.features)

    seen = {m: features(role, m) for m, role in ((Modality.SKETCH, "train_sketches"), (Modality.PHOTO, "train_photos"))}
    standard = {m: Standardiser.fit(seen[m]) if evaluation.statistics == "per_modality" else (lambda x: x)
                for m in Modality}
    seen = {m: standard[m](seen[m]) for m in Modality}
    rows: list[dict[str, Any]] = []
    per_query: list[dict[str, Any]] = []
    sets = {"unseen": ("query", "gallery")}
    if len(split.validation):
        sets["validation"] = ("validation_sketches", "validation_photos")
    for classes, (query_role, gallery_role) in sets.items():
        query = standard[Modality.SKETCH](features(query_role, Modality.SKETCH))
        gallery = standard[Modality.PHOTO](features(gallery_role, Modality.PHOTO))
        files = getattr(split, query_role), getattr(split, gallery_role)
        kinds = {"real": (query, gallery, "euclidean")}
        if evaluation.binary:
            kinds["binary"] = (*_codes(seen, query, gallery, config), "hamming")
        for kind, (q, g, metric) in kinds.items():
            rows += _score(classes, kind, q, g, metric, files, split, per_query if classes == "unseen" else None)
        if classes == "unseen":
            _write_features(folder.path / "features.npz", split, query, gallery, files)
            _write_singular_values(folder.path / "singular_values.csv", seen, query, gallery)
            _write_examples(folder.path, split, query, gallery, files)
    write_table(folder.path / "per_query.csv", per_query,
                ("query", "class", "source", "features", "AP_released", "AP_standard", "Prec@R"))
    write_table(folder.path / "metrics.csv", rows, METRIC_COLUMNS)


def _codes(seen: dict[Modality, np.ndarray], query: np.ndarray, gallery: np.ndarray, config: Config
           ) -> tuple[np.ndarray, np.ndarray]:
    """ITQ codes of D bits, fitted on seen training features of both modalities (never on test features)."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            for x in (np.concatenate(list(seen.values())), query, gallery)]
    return codes.binary_codes(*unit, bits=min(config.network.dim, query.shape[1]), seed=config.seed)


def _score(classes: str, kind: str, query: np.ndarray, gallery: np.ndarray, metric: str, files: tuple[Files, Files],
           split: Split, per_query: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    query_files, gallery_files = files
    sources = np.array(query_files.sources)
    photo_sources = np.array(gallery_files.sources)
    everything = np.ones(len(gallery), bool)
    subsets = [("all", np.ones(len(query), bool), "all", everything)]
    for name in sorted(set(query_files.sources) - {""}):
        subsets.append((name, sources == name, "all", everything))
        # EmojiOne drew both: its queries are also scored without the photos of the same hand.
        if name == "emojione-monotone" and "emojione-v1" in gallery_files.sources:
            subsets.append((name, sources == name, "without emojione-v1", photo_sources != "emojione-v1"))
    rows = []
    for source, chosen, gallery_name, kept in subsets:
        scores = metrics.score(query[chosen], gallery[kept], query_files.labels[chosen], gallery_files.labels[kept],
                               protocols=PROTOCOLS, metric=metric)
        for protocol in PROTOCOLS:
            for name in METRICS:
                rows.append({"classes": classes, "features": kind, "protocol": protocol, "metric": name,
                             "value": scores.value(protocol, name), "chance": scores.chance(protocol, name),
                             "ceiling": scores.ceiling(protocol, name), "query_source": source,
                             "gallery": gallery_name, "queries": scores.queries, "photos": scores.photos})
        if per_query is not None and source == "all":
            released, standard = (scores.per_query(p, "mAP@all") for p in PROTOCOLS)
            r_precision = scores.per_query("released", "Prec@R")
            per_query += [{"query": path, "class": split.classes[label], "source": origin, "features": kind,
                           "AP_released": float(a), "AP_standard": float(b), "Prec@R": float(c)}
                          for path, label, origin, a, b, c in zip(query_files.paths, query_files.labels,
                                                                  query_files.sources, released, standard, r_precision)]
    return rows


def _write_features(path: Path, split: Split, query: np.ndarray, gallery: np.ndarray, files: tuple[Files, Files]) -> None:
    names = np.array(split.classes)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, query=query, gallery=gallery, query_labels=names[files[0].labels],
                        gallery_labels=names[files[1].labels], query_paths=np.array(files[0].paths),
                        gallery_paths=np.array(files[1].paths), query_sources=np.array(files[0].sources))
    write_bytes(path, buffer.getvalue())


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


def _write_examples(folder: Path, split: Split, query: np.ndarray, gallery: np.ndarray, files: tuple[Files, Files]) -> None:
    scores = metrics.score(query, gallery, files[0].labels, files[1].labels, protocols=("released",))
    precision = scores.per_query("released", "mAP@all")
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
