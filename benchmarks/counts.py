"""What numbers alone tell of a run before it begins: settings that the pictures of its split can't meet.

In: a run's settings and its split. Out: nothing, or an InputError for what the run would meet only after an epoch, after all
features were taken, or when it is scored.
"""
from __future__ import annotations

import numpy as np

from tcn.config import BUILT_IN, Config, InputError
from tcn.data.splits import Files, Split
from tcn.files.text import some
from tcn.scoring.features import check_components
from tcn.train.loop import check_choice


def check_training(config: Config, split: Split) -> None:
    """InputError where no batch can be made of the split, or nothing can choose the epoch that is kept."""
    if config.training.optimizer == "none":
        return
    if lonely := _lacking(split, split.train_photos, split.train_sketches):
        raise InputError(f"{_name(split)}: training photos and no training sketch of {lonely}; each seen class needs both")
    if len(split.train_photos) < 2 or config.data.batch_pairs < 2 and config.method_source == BUILT_IN:
        raise InputError(f"{_name(split)}: {len(split.train_photos)} training photos in batches of {config.data.batch_pairs} "
                         "('data.batch_pairs'); batch norms need 2 in a batch")
    try:
        check_choice(config.training.select_by, split.heldout_sketches, split.validation_sketches, split.validation_photos)
    except InputError as error:
        raise InputError(f"{_name(split)}: {error}") from None


def check_features(config: Config, split: Split) -> None:
    """InputError where fewer pictures are trained on than principal components are asked for."""
    if config.evaluation.statistics == "pca":
        pictures = len(split.train_sketches) + len(split.train_photos)
        check_components(config.network.dim, pictures, f"features of the {pictures} seen training pictures of {_name(split)}")


def check_gallery(config: Config, split: Split) -> None:
    """InputError where a class has sketches to be scored and no photo, and `evaluation.missing_classes` makes that an error."""
    for query, gallery in ((split.query, split.gallery), (split.validation_sketches, split.validation_photos)):
        lacking = _lacking(split, query, gallery)
        if lacking and config.evaluation.missing_classes == "error":
            raise InputError(f"{_name(split)}: sketches to be scored and no photo of {lacking}; add photos, or set "
                             "evaluation.missing_classes=zero or as-released")


CHECKS = (check_training, check_features, check_gallery)


def _name(split: Split) -> str:
    return f"{split.dataset}, split {split.name}"


def _lacking(split: Split, these: Files, those: Files) -> str:
    """Names of the classes that the first list has and the second one lacks; empty where there are none."""
    own, other = (np.bincount(files.labels, minlength=len(split.classes)) for files in (these, those))
    return some([split.classes[label] for label in np.flatnonzero((own > 0) & (other == 0))])
