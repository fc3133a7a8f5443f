"""What all runs on this machine share: file lists, decoded images, word vectors and pretrained networks, each read once.

In: `Places` (paths on this machine) and a run's settings. Out: what the run is trained on and built from, and its identity.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from baselines import method_of, own, table
from tcn.config import BUILT_IN, GENERALISED, Config, InputError, identity, whole_of
from tcn.data import declared, scan, specs, splits
from tcn.data.decode import Reading
from tcn.data.pixels import Pixels
from tcn.data.specs import SPLITS_FOLDER
from tcn.data.splits import Split
from tcn.data.store import pack
from tcn.data.words import Words, load_words
from tcn.model import backbones
from tcn.model.execution import place
from tcn.seeding import borrowed, stream_seed
from tcn.train.loop import ValidationData
from tcn.train.method import Ingredients, Method

Made = TypeVar("Made")
IMAGENET_WORDS = SPLITS_FOLDER / "imagenet_words.csv"
"""Vectors of ImageNet's classes, made with the sentence model that made those of the laptop's (benchmarks/make_words.py)."""


@dataclass(frozen=True)
class Places:
    """Paths on this machine; none of them enters a run's identity."""

    cache: Path
    data_root: Path | None = None
    words: Path | None = None
    weights: Path | None = None
    teacher_weights: Path | None = None
    """The teacher's, where they were given apart: for every encoder's teacher, whatever the encoder's own file is."""
    emoji_tarballs: Path | None = None
    lists: Path | str | None = "auto"
    """Where list files are: `auto` beside the data, a folder, or None to derive the split from the folders alone."""
    progress: bool = True
    declared: tuple[Path, ...] = ()
    """Files that declare data sets of the user's own."""
    named_weights: tuple[tuple[str, Path], ...] = ()
    """Files of weights by the encoder that they are of; `weights` is any other's."""

    def encoder_file(self, backbone: str) -> Path | None:
        """The file of an encoder's weights; None where the published ones are meant."""
        return dict(self.named_weights).get(backbone, self.weights)

    def teacher_file(self, backbone: str) -> Path | None:
        """The same of its teacher: of the encoder's own file, where no other was given."""
        return self.teacher_weights or self.encoder_file(backbone)


class Material:
    """Splits, words and decoded images of this machine, each read once and shared by all runs."""

    def __init__(self, places: Places) -> None:
        self.places = places
        for path in places.declared:
            specs.add(declared.read(path))
        self._kept: dict[Hashable, Any] = {}
        self._pixels: dict[tuple[str, str, str, str, int, Reading], Pixels] = {}
        self._frozen: tuple[str, dict[str, np.ndarray]] = "", {}
        self._listings: dict[str, scan.Listings] = {}

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of `make`, computed once for each `key`. An InputError is kept and raised again too, since finding it
        anew for every run may take a download, or gigabytes to read."""
        if key not in self._kept:
            try:
                self._kept[key] = make()
            except InputError as error:
                self._kept[key] = error
        kept = self._kept[key]
        if isinstance(kept, InputError):
            raise InputError(str(kept)) from kept
        return kept

    def split(self, dataset: str, name: str, validation: str = "own") -> Split:
        """The split's file lists; `validation` as in `tcn.config.Data`. InputError says what is missing."""
        p = self.places
        return self._once(("split", dataset, name, validation), lambda: splits.load(
            dataset, name, data_root=p.data_root, cache=p.cache, progress=p.progress, emoji_tarballs=p.emoji_tarballs,
            lists=p.lists, listings=self._listings.setdefault(whole_of(dataset), {}), validation=validation))

    def is_built(self, dataset: str) -> bool:
        """False for a data set that would first have to be made on this machine."""
        builder = specs.spec(dataset)[0].builder
        return builder is None or builder.find_built(self.places.cache) is not None

    def split_of(self, config: Config) -> Split:
        """The split that a run's settings name. InputError where the data set is the user's own and another file, or none,
        was read."""
        data = config.data
        here = {found.declared for found in specs.own([data.dataset])} or {BUILT_IN}
        if data.declared not in here:
            raise InputError(f"the file that declares this run's data set '{data.dataset}' is not at hand, or was changed "
                             f"since (digest {data.declared.removeprefix('file:')[:8]}); name it with --datasets FILE")
        return self.split(config.data.dataset, config.data.split, config.data.validation)

    def pixels(self, config: Config, role: str) -> Pixels:
        """Decoded images of one of the split's lists."""
        data = config.data
        reading = Reading(data.transparent, data.exif)
        key = data.dataset, data.split, data.validation, role, data.stored_size, reading
        if key not in self._pixels:
            split = self.split_of(config)
            self._pixels[key] = pack(getattr(split, role), data.stored_size, self.places.cache, split.data_digest,
                                     f"{data.dataset.removesuffix(GENERALISED)} {data.split} {role}",
                                     self.places.progress, reading, split.images)
        return self._pixels[key]

    def frozen_features(self, config: Config, role: str, take: Callable[[], np.ndarray]) -> np.ndarray:
        """Features of one of the split's lists by an encoder that is not trained: taken once for all runs of that encoder that
        follow each other, whatever they make of them. Those of one encoder are kept at a time."""
        key = repr((config.data, config.network.backbone, config.network.weights, config.execution, config.evaluation.features))
        if self._frozen[0] != key:
            self._frozen = key, {}
        if role not in self._frozen[1]:
            self._frozen[1][role] = take()
        return self._frozen[1][role]

    def validation(self, config: Config) -> ValidationData:
        """Held-out sketches of seen classes and images of validation classes: settings and epochs may be chosen by these."""
        split = self.split_of(config)

        def some(role: str) -> Pixels | None:
            return self.pixels(config, role) if len(getattr(split, role)) else None

        return ValidationData(some("heldout_sketches"), some("validation_sketches"), some("validation_photos"))

    def words(self, config: Config) -> Words:
        """Word vectors of the seen classes. InputError where the data set comes without any and the user gave none."""
        data = config.data
        source = self.places.words or specs.spec(data.dataset)[0].words
        if source is None:
            raise InputError(f"data set '{data.dataset}' needs word vectors: pass --words FILE (word2vec binary, "
                             f"GloVe text, or a table made with benchmarks/make_words.py)"
                             + ("" if data.declared == BUILT_IN else ", or give words: in the file that declares it"))
        return self._once(("words", data.dataset, data.split, data.validation, data.unit_words), lambda: load_words(
            source, self.split_of(config).seen, unit=data.unit_words))

    def imagenet_words(self) -> Words:
        """Word vectors of ImageNet's 1,000 classes, from the source that gave the seen classes'."""
        return self._once("ImageNet's words", lambda: load_words(self.places.words or IMAGENET_WORDS, backbones.imagenet_names(),
                                                                 unit=True))

    def words_digest(self, config: Config) -> str | None:
        """Digest of all word vectors that a run reads; None where it reads none."""
        if not uses_words(config):
            return None
        digests = [self.words(config).digest]
        if method_of(config).compares_words:
            digests.append(self.imagenet_words().digest)
        return "+".join(digests)

    def identity(self, config: Config) -> str:
        """The identity of a run of these settings on this data."""
        split = self.split_of(config)
        return identity(config, split.data_digest, split.split_digest, self.words_digest(config) or "")

    def ingredients(self, config: Config) -> Ingredients:
        """Encoder, teacher and words: what a model is built from."""
        net = config.network
        encoder = backbones.encoder(net.backbone, net.weights, self.places.encoder_file(net.backbone))
        if reads_teacher(config):
            teacher, classifier = backbones.build(net.backbone, net.teacher_weights, self.places.teacher_file(net.backbone))
        else:
            teacher, classifier = backbones.without_teacher(encoder)
        words, further = self.word_tensors(config)
        return Ingredients(encoder, teacher, classifier, words, len(self.split_of(config).seen), further)

    def word_tensors(self, config: Config) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Word vectors of the C seen classes (zeros [C, 1] where the run reads none), and of ImageNet's classes where the
        method compares the two."""
        if uses_words(config):
            words = torch.from_numpy(np.asarray(self.words(config).vectors))
        else:
            words = torch.zeros(len(self.split_of(config).seen), 1)
        compared = method_of(config).compares_words
        return words, torch.from_numpy(self.imagenet_words().vectors) if compared else None


def uses_words(config: Config) -> bool:
    """Whether a run reads word vectors."""
    used = (config.losses.semantic > 0 or config.losses.semantic_off == "as-released"
            or method_of(config).compares_words)
    return config.training.optimizer != "none" and used


def reads_teacher(config: Config) -> bool:
    """Whether a run needs a teacher, or its classifier for the SVD start."""
    method = method_of(config)
    unused = config.losses.distillation == 0 and config.network.start == "random" and config.method_source == BUILT_IN
    return not method.frozen and not (unused and not backbones.source(config.network.backbone).teaches)


def build_model(method: Method[Any], config: Config, ingredients: Ingredients, device: torch.device) -> torch.nn.Module:
    """The model of a run on its device. InputError as `made_model`, and where the device can't do what `execution` asks."""
    return place(made_model(method, config, ingredients), config.execution, device)


def made_model(method: Method[Any], config: Config, ingredients: Ingredients) -> torch.nn.Module:
    """The model of a run, on no device yet. InputError where a method of the user's own can't build one, or builds one that lacks
    what training and scoring call.

    What is built draws from the run's own stream, so that also layers that start as torch starts them follow the seed.
    """
    try:
        with borrowed(stream_seed(config.seed, "model")):
            model = method.build(config, ingredients)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if config.method_source == BUILT_IN:
            raise
        raise InputError(f"method '{method.name}' can't build its model: {own.blamed(error, table(config.method_source).files)}"
                         ) from error
    _check_model(model, method, config)
    return model


def _check_model(model: object, method: Method[Any], config: Config) -> None:
    needed = ["encode_backbone" if config.evaluation.features == "backbone" else "encode"]
    if config.training.optimizer != "none":
        needed += ["encode", "classify", "groups"]
    if config.execution.graphs != "none":
        needed.append("record")
    lacking = [name for name in dict.fromkeys(needed) if not callable(getattr(model, name, None))]
    if not isinstance(model, torch.nn.Module) or lacking:
        raise InputError(f"method '{method.name}': build gave an object of type {type(model).__name__}"
                         + (f" without {', '.join(lacking)}" if isinstance(model, torch.nn.Module) else "")
                         + "; it has to give an nn.Module with these functions, such as a tcn.method.OwnModel "
                           "(docs/own-method.md)")
