"""Trained network -> the features that a run is scored by.

In: a model, settings and `Material`. Out: `RunFeatures`, treated as `evaluation.statistics` asks. Paper: retrieval on the
embedding's features; the released code reads photos from the sketches' output of the embedding (`evaluation.photo_side`).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from baselines import method_of
from benchmarks.material import Material
from tcn.config import Config, Modality
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.scoring.features import Components, Encoding, Standardiser, extract

Treatment = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SetFeatures:
    """Features of the sketches (queries) and photos (gallery) of one set of classes, and the files they are of."""

    query: np.ndarray
    """float32 [Nq, D]."""
    gallery: np.ndarray
    """float32 [Ng, D]."""
    query_files: Files
    gallery_files: Files


@dataclass(frozen=True)
class RunFeatures:
    """All features that the scores of one run follow from."""

    seen: Mapping[Modality, np.ndarray]
    """Of seen training images, float32 [N, D] by modality: ITQ is fitted on them."""
    unseen: SetFeatures
    validation: SetFeatures | None = None
    """None for data sets without validation classes."""
    other_side: np.ndarray | None = None
    """The unseen gallery from the embedding's output that `evaluation.photo_side` does not name, float32 [Ng, D]; extracted
    only where the deviation ledger is scored."""

    def sets(self) -> dict[str, SetFeatures]:
        """The sets of classes that are scored, by the name that metrics.csv gives them."""
        return {"unseen": self.unseen} | ({"validation": self.validation} if self.validation else {})


def run_features(model: torch.nn.Module, config: Config, material: Material, device: torch.device, both_sides: bool
                 ) -> RunFeatures:
    """Extract all features of a run. `both_sides`: also extract `other_side`."""
    frozen = method_of(config).frozen
    split, side = material.split_of(config), Modality(config.evaluation.photo_side)

    def raw(role: str, modality: Modality, output: Modality | None = None) -> np.ndarray:
        def take() -> np.ndarray:
            return extract(cast(Encoding, model), material.pixels(config, role), modality, config.data.image_size, device,
                           config.evaluation.features, side=output, resize=config.data.resize)

        return material.frozen_features(config, role, take) if frozen else take()

    training = {m: raw(role, m) for m, role in ((Modality.SKETCH, "train_sketches"), (Modality.PHOTO, "train_photos"))}
    treated = _treatments(config, training)

    def of(query: str, gallery: str) -> SetFeatures:
        return SetFeatures(treated[Modality.SKETCH](raw(query, Modality.SKETCH)),
                           treated[Modality.PHOTO](raw(gallery, Modality.PHOTO, side)),
                           getattr(split, query), getattr(split, gallery))

    other = Modality.SKETCH if side is Modality.PHOTO else Modality.PHOTO
    return RunFeatures(
        {m: treated[m](training[m]) for m in Modality}, of("query", "gallery"),
        of("validation_sketches", "validation_photos") if split.validation else None,
        treated[Modality.PHOTO](raw("gallery", Modality.PHOTO, other)) if both_sides else None)


class Encoder:
    """Features of further images by a trained network, treated as the run's own are."""

    def __init__(self, model: torch.nn.Module, config: Config, material: Material, device: torch.device) -> None:
        """Where `evaluation.statistics` asks for them, seen training images are encoded now."""
        self.config, self._model, self._device = config, cast(Encoding, model), device
        training = {}
        if config.evaluation.statistics != "network":  # else no treatment is fitted
            training = {m: self._raw(material.pixels(config, role), m)
                        for m, role in ((Modality.SKETCH, "train_sketches"), (Modality.PHOTO, "train_photos"))}
        self._treated = _treatments(config, training)

    def __call__(self, pixels: Pixels, modality: Modality) -> np.ndarray:
        """float32 [N, D], of photos from the embedding's output that `evaluation.photo_side` names."""
        side = Modality(self.config.evaluation.photo_side) if modality is Modality.PHOTO else None
        return self._treated[modality](self._raw(pixels, modality, side))

    def _raw(self, pixels: Pixels, modality: Modality, side: Modality | None = None) -> np.ndarray:
        return extract(self._model, pixels, modality, self.config.data.image_size, self._device, self.config.evaluation.features,
                       side=side, resize=self.config.data.resize)


def _treatments(config: Config, training: Mapping[Modality, np.ndarray]) -> dict[Modality, Treatment]:
    """What features of each modality go through before they are scored, fitted on seen training images."""
    how = config.evaluation.statistics
    if how == "per_modality":
        return {m: Standardiser.fit(training[m]) for m in Modality}
    if how == "pca":
        both = Components.fit(np.concatenate(list(training.values())), config.network.dim)
        return dict.fromkeys(Modality, both)
    return {m: lambda features: features for m in Modality}
