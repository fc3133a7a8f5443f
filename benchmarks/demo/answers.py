"""Finished runs, reopened, and what each finds: for a drawing, or for a query sketch of the unseen classes.

In: run folders and `Material`, then strokes or the number of a query. Out: the nearest photos by the Euclidean distance of unit
vectors, as in the scores; equal distances stay in gallery order. Nothing is trained, and nothing of a run's folder is written.
"""
from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import baselines
from benchmarks import reproduce, runner
from benchmarks.demo.drawing import picture_of, pixels_of, unnamed
from benchmarks.demo.pictures import PictureSet, contents_digest, photos_below
from benchmarks.extension.cross_dataset import check_network
from benchmarks.extraction import Encoder
from benchmarks.material import Material
from benchmarks.result_folder import CHECKPOINT
from benchmarks.run_artifacts import write_arrays
from benchmarks.store import RunFolder
from tcn.config import InputError, Modality
from tcn.data.decode import Reading, decode
from tcn.data.specs import spec
from tcn.data.splits import Split
from tcn.files.atomic import warn
from tcn.files.checksums import file_digest
from tcn.files.text import shown, some
from tcn.scoring.features import unit

UNSEEN, EVERY, FOLDER = "unseen", "every", "folder"
"""Names of galleries: the photos that a run was scored on; these and the photos that it was trained on; a folder of the
user's."""
BLOCK = 256
"""Number of photos of a user's folder that are decoded together."""
PICTOGRAMS = ("The query sketches of this data set are filled pictograms. A line drawing looks different and finds the wrong "
              "photos; pick a query sketch instead.")


@dataclass(frozen=True)
class Searched:
    """Photos that a run can search: unit features, float32 [N, D], and the number of each in its set of pictures [N]."""

    pictures: int
    rows: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Answer:
    """The result of one run's search."""

    run: int
    """Index of the run in `Demo.runs`."""
    milliseconds: float
    """Time from the finished picture to the ranking; for a query of the run, whose features are stored, the ranking alone."""
    photos: Sequence[Mapping[str, Any]]
    """The nearest photos: `set` and `number` of the picture, `distance`, `name` of the class, whether the class was `seen`, and
    whether it is `right`; values that are not known are None."""
    first_right: int | None
    """Rank of the first photo of the wanted class, from 1; None if no class is wanted, or if it has no photo."""
    searched: int
    """Number of photos in the gallery."""


@dataclass(frozen=True)
class Queries:
    """A data set and split, with the query sketches of its unseen classes."""

    dataset: str
    split: str
    digest: str
    """Digest of the split, since the lists of a split depend on the plan of its validation classes."""
    queries: int
    """Number of the set that holds the query sketches."""
    note: str


def note_on(dataset: str) -> str:
    """A note on a data set's sketches for the person who draws; empty if the sketches are line drawings."""
    return PICTOGRAMS if spec(dataset)[0].builder else ""


def not_scored(split: Split) -> np.ndarray:
    """Which photos of `split.train_photos` are not among those that a run is scored on, bool [N]; a generalised gallery may hold
    them."""
    scored = set(split.gallery.paths)
    return np.array([path not in scored for path in split.train_photos.paths], dtype=bool)


def nearest(query: np.ndarray, features: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the `top` photos nearest to a query [D], nearest first, and the distances of all photos, float32 [N], in the
    gallery's order. features: unit vectors, float32 [N, D]. Not all photos are sorted, which would take longer than the
    distances.

    >>> order, distances = nearest(np.float32([3, 0]), np.float32([[0, 1], [1, 0], [0.6, 0.8], [1, 0]]), top=3)
    >>> order.tolist(), [f"{one:.2f}" for one in distances]
    ([1, 3, 2], ['1.41', '0.00', '0.89', '0.00'])
    """
    likeness = features @ unit(query[None])[0].astype(np.float32)
    distances: np.ndarray = np.sqrt(np.maximum(2 - 2 * likeness, 0), dtype=np.float32)
    last = min(top, len(distances)) - 1
    within = np.flatnonzero(distances <= np.partition(distances, last)[last])
    return within[np.argsort(distances[within], kind="stable")][:last + 1], distances


def rank_of_first(distances: np.ndarray, right: np.ndarray) -> int | None:
    """Rank, from 1, of the nearest photo that is `right`, bool [N]; equal distances stay in gallery order. None if no photo is
    right.

    >>> rank_of_first(np.float32([2, 1, 1, 3]), np.array([True, False, True, False]))
    2
    """
    if not right.any():
        return None
    first = int(np.flatnonzero(right)[distances[right].argmin()])
    return int((distances < distances[first]).sum() + (distances[:first] == distances[first]).sum()) + 1


class Searcher:
    """One finished run, reopened: its network, and the features of the galleries that it can search."""

    def __init__(self, folder: RunFolder, material: Material, device: torch.device) -> None:
        """InputError if the run is not whole, or if data, words or weights differ from those that it was made with."""
        self.run, self.name = folder.run, folder.path.name
        self._material, self._checkpoint = material, folder.path / CHECKPOINT if folder.run.trained else None
        self.identity = folder.identity
        self.split_digest = material.split_of(folder.run.config).split_digest
        reproduce.check_material(reproduce.read(folder.path), material)
        with np.load(folder.path / "features.npz", allow_pickle=False) as stored:
            self.queries, self.scored = stored["query"], unit(stored["gallery"]).astype(np.float32)
        config = self.run.config
        self._encoder = Encoder(runner.rebuilt(folder, material, device), config, material, device)
        check_network(self.queries, self._encoder, material, self.name)
        self.galleries: dict[str, Searched] = {}

    def encode(self, picture: np.ndarray) -> np.ndarray:
        """Features [D] of a drawing, uint8 [S, S]."""
        return self._encoder(pixels_of(picture, self.run.config.data.stored_size), Modality.SKETCH)[0]

    def search(self, query: np.ndarray, gallery: str, sets: Sequence[PictureSet], top: int, wanted: str | None
               ) -> tuple[list[dict[str, Any]], int | None]:
        """The `top` nearest photos to features [D], as in `Answer.photos`, and the rank of the first one of class `wanted`."""
        found = self.galleries[gallery]
        order, distances = nearest(query, found.features, top)
        pictures = sets[found.pictures]
        right = None
        if wanted in pictures.classes:  # compare labels, since comparing 100,000 names takes longer than comparing the features
            right = pictures.files.labels[found.rows] == pictures.classes.index(wanted)
        photos = []
        for i in order.tolist():
            number = int(found.rows[i])
            name = pictures.name(number)
            photos.append({"set": found.pictures, "number": number, "distance": round(float(distances[i]), 4), "name": name,
                           "seen": None if name is None else name in pictures.seen,
                           "right": None if right is None else bool(right[i])})
        return photos, None if right is None else rank_of_first(distances, right)

    def encode_trained(self) -> np.ndarray:
        """Unit features of the photos that the run was trained on and not scored on, read from the cache if it has them."""
        split = self._material.split_of(self.run.config)
        key = [split.data_digest, split.split_digest, "train_photos"]
        return self._kept(key, lambda: {"features": unit(self._encoder(self._material.pixels(
            self.run.config, "train_photos"), Modality.PHOTO)).astype(np.float32)})["features"][not_scored(split)]

    def encode_folder(self, pictures: PictureSet, digest: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Numbers of the photos that can be read, their unit features, and an error message for each other photo."""
        data = self.run.config.data
        key = [digest, str(data.stored_size), data.transparent, data.exif]
        found = self._kept(key, lambda: self._of_folder(pictures))
        return found["rows"], found["features"], found["broken"].tolist()

    def _of_folder(self, pictures: PictureSet) -> dict[str, np.ndarray]:
        files, data, broken = pictures.files, self.run.config.data, []
        rows: list[int] = []
        features = []
        with tqdm(total=len(files), desc=f"encode gallery by {self.run.variant}", unit="photo", leave=False,
                  disable=not self._material.places.progress) as bar:
            for start in range(0, len(files), BLOCK):
                block = []
                for number in range(start, min(start + BLOCK, len(files))):
                    try:
                        block.append(decode(files.root / files.paths[number], data.stored_size,
                                            Reading(data.transparent, data.exif)))
                        rows.append(number)
                    except OSError as error:
                        broken.append(f"{shown(files.paths[number])} ({error})")
                    bar.update()
                if block:
                    features.append(unit(self._encoder(unnamed(np.stack(block)), Modality.PHOTO)).astype(np.float32))
        if not rows:
            raise InputError(f"none of the {len(files):,} photos in {files.root} can be read: {some(broken, 3)}; replace them "
                             f"with intact copies")
        return {"rows": np.array(rows), "features": np.concatenate(features), "broken": np.array(broken, dtype=np.str_)}

    def _kept(self, key: Sequence[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Arrays from the cache folder for these contents and this network; if the folder has none, they are made and kept."""
        network = [self.identity, file_digest(self._checkpoint) if self._checkpoint else ""]
        path = (self._material.places.cache / "galleries"
                / f"{self.run.variant}-{hashlib.sha256(repr([*key, *network]).encode()).hexdigest()[:16]}.npz")
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    return {name: stored[name] for name in stored.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                warn(f"{path} is damaged; its photos are encoded again")
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, made)
        return made


class Demo:
    """Everything that the page can ask for: the list of runs and pictures, and the results of searches."""

    def __init__(self, folders: Sequence[RunFolder], material: Material, device: torch.device, gallery: Path | None = None,
                 seen: bool = False) -> None:
        """Reopen runs. gallery: a folder of the user's own photos. seen: whether photos of the seen classes can be searched too.
        A run that can't be used is left out and named in `notes`; InputError if no run is left."""
        self.sets: list[PictureSet] = []
        self.tasks: list[Queries] = []
        self.runs: list[Searcher] = []
        self.notes: list[str] = []
        self.galleries = [UNSEEN, *([EVERY] if seen else []), *([FOLDER] if gallery else [])]
        self._lock = threading.Lock()
        own = self._folder(gallery, material.places.progress) if gallery else None
        refused = []
        for folder in folders:
            try:
                self._open(folder, material, device, own)
            except InputError as error:
                refused.append(f"{folder.path.name} can't be used: {error}")
        if not self.runs:
            raise InputError("; ".join(refused))
        self.notes += refused

    def _open(self, folder: RunFolder, material: Material, device: torch.device, own: tuple[int, str] | None) -> None:
        if not material.is_built(folder.run.dataset):  # reading the data set would download it
            raise InputError(f"the pictures of '{folder.run.dataset}' are not in {material.places.cache}: pass the --cache that "
                             f"the runs were made with")
        searcher = Searcher(folder, material, device)
        if own:
            rows, features, broken = searcher.encode_folder(self.sets[own[0]], own[1])
            searcher.galleries[FOLDER] = Searched(own[0], rows, features)
            note = (f"{len(broken)} of {len(self.sets[own[0]]):,} photos in the gallery folder can't be read and are left out: "
                    f"{some(broken, 5)}; replace them with intact copies")
            if broken and note not in self.notes:
                self.notes.append(note)
        every = np.concatenate([searcher.scored, searcher.encode_trained()]) if EVERY in self.galleries else None
        searcher.encode(np.zeros((256, 256), np.uint8))  # warm up, so that the first answer is not timed with it
        task = self._task(searcher, material)
        searcher.galleries[UNSEEN] = Searched(task.queries + 1, np.arange(len(searcher.scored)), searcher.scored)
        if every is not None:
            searcher.galleries[EVERY] = Searched(task.queries + 2, np.arange(len(every)), every)
        self.runs.append(searcher)

    def _folder(self, gallery: Path, progress: bool) -> tuple[int, str]:
        files = photos_below(gallery)
        self.sets.append(PictureSet(files))
        return len(self.sets) - 1, contents_digest(files, progress)

    def _task(self, searcher: Searcher, material: Material) -> Queries:
        """The queries of a run, with the sets of its pictures; runs with the same lists share them."""
        data, split = searcher.run.config.data, material.split_of(searcher.run.config)
        if searcher.queries.shape[0] != len(split.query):
            raise InputError(f"its features.npz holds {searcher.queries.shape[0]:,} queries, the list {len(split.query):,}; the "
                             f"folder is damaged")
        for task in self.tasks:
            if (task.dataset, task.digest) == (data.dataset, searcher.split_digest):
                return task
        lists = [split.query, split.gallery]
        if EVERY in self.galleries:
            scored, trained, further = split.gallery, split.train_photos, np.flatnonzero(not_scored(split))
            lists.append(replace(scored, paths=(*scored.paths, *(trained.paths[i] for i in further)),
                                 labels=np.concatenate([scored.labels, trained.labels[further]]),
                                 sources=(*scored.sources, *(trained.sources[i] for i in further)), groups=(), instances=()))
        self.tasks.append(Queries(data.dataset, data.split, searcher.split_digest, len(self.sets), note_on(data.dataset)))
        self.sets += [PictureSet(files, split.classes, frozenset(split.seen)) for files in lists]
        return self.tasks[-1]

    def task_of(self, searcher: Searcher) -> int:
        """The number of a run's task in `tasks`."""
        wanted = searcher.run.dataset, searcher.split_digest
        return next(i for i, one in enumerate(self.tasks) if (one.dataset, one.digest) == wanted)

    def state(self) -> dict[str, Any]:
        """The information that the page needs at its start."""
        tasks = []
        for task in self.tasks:
            names = self.sets[task.queries].names
            assert names is not None
            tasks.append({"title": spec(task.dataset)[0].title, "split": task.split, "set": task.queries, "note": task.note,
                          "seen": sorted(self.sets[task.queries].seen) if EVERY in self.galleries else [],
                          "classes": [{"name": str(name), "queries": np.flatnonzero(names == name).tolist()}
                                      for name in dict.fromkeys(names.tolist())]})
        generalised = any(spec(task.dataset)[0].generalised for task in self.tasks)
        return {"tasks": tasks, "galleries": self.galleries, "generalised": generalised, "notes": self.notes, "runs": [
            {"variant": searcher.run.variant, "seed": searcher.run.seed, "task": self.task_of(searcher),
             "title": baselines.find(searcher.run.variant, searcher.run.config.method_source).title}
            for searcher in self.runs]}

    def draw(self, strokes: Any, runs: Sequence[int], gallery: str, top: int = 12, wanted: str | None = None
             ) -> tuple[np.ndarray, list[Answer]]:
        """The picture made from strokes (parsed JSON), uint8 [256, 256], and the answers of the runs with these numbers.
        wanted: the class that was drawn, if it is known. InputError, a sentence for the page, if there is no answer."""
        self._check(runs, gallery, top)
        picture = picture_of(strokes)
        with self._lock:
            return picture, [self._answer(number, lambda searcher: searcher.encode(picture), gallery, top, wanted)
                             for number in runs]

    def query(self, task: int, number: int, runs: Sequence[int], gallery: str, top: int = 12) -> tuple[str, list[Answer]]:
        """The class of a query sketch, and the answers of those of the given runs that belong to its task. InputError if there
        is no answer."""
        self._check(runs, gallery, top)
        if not 0 <= task < len(self.tasks) or not 0 <= number < len(self.sets[self.tasks[task].queries]):
            raise InputError("There is no such query sketch: load the page again.")
        chosen = [one for one in runs if self.task_of(self.runs[one]) == task]
        if not chosen:
            raise InputError("None of the chosen runs has this query sketch: choose a run of its data set and split.")
        names = self.sets[self.tasks[task].queries].names
        assert names is not None
        wanted = str(names[number])
        with self._lock:
            return wanted, [self._answer(one, lambda searcher: searcher.queries[number], gallery, top, wanted) for one in chosen]

    def _check(self, runs: Sequence[int], gallery: str, top: int) -> None:
        if not runs:
            raise InputError("No run is chosen: tick at least one.")
        if any(not 0 <= number < len(self.runs) for number in runs) or gallery not in self.galleries or not 1 <= top <= 100:
            raise InputError("The page asks for a run or a gallery that does not exist: load the page again.")

    def _answer(self, number: int, encode: Callable[[Searcher], np.ndarray], gallery: str, top: int, wanted: str | None
                ) -> Answer:
        searcher, started = self.runs[number], time.perf_counter()
        photos, first = searcher.search(encode(searcher), gallery, self.sets, top, wanted)
        milliseconds = round((time.perf_counter() - started) * 1e3, 1)
        return Answer(number, milliseconds, photos, first, len(searcher.galleries[gallery].rows))
