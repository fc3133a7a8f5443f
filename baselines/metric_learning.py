"""Two classical ways to learn a common space: a Siamese network's contrastive loss, and batch-hard triplets across modalities.

In: TCN's model with one encoder for both modalities. Out: `Method`s. Neither trains the features by classes; a class head
on features whose gradient is cut only reads them, so that an epoch can be chosen by the same rule as TCN's.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tcn.config import Config, InputError, Modality
from tcn.data.pairs import PairBatch
from tcn.train.losses import anchor_distances, classification
from tcn.train.method import LossTerms, Method, TcnModel

SIAMESE_MARGIN = 1.0
"""Distance of unit vectors from which a pair of different classes costs nothing, where `losses.margin` says nothing."""


def contrastive(sketches: Tensor, photos: Tensor, labels: Tensor, margin: float = SIAMESE_MARGIN) -> Tensor:
    """Contrastive loss [B] of every sketch against all photos of the batch, features [B, D] at unit length.

    Half the mean squared distance to photos of its class plus half the mean of max(0, margin - distance)^2 to the others,
    each mean alone, since other classes outnumber the own. A sketch without others keeps the first half. Source: Hadsell,
    Chopra and LeCun (CVPR 2006); all pairs of a batch in place of sampled ones. InputError where margin is not positive.
    """
    if not margin > 0:
        raise InputError(f"losses.margin is {margin}; the contrastive loss needs one above 0")
    distances = anchor_distances(F.normalize(sketches), F.normalize(photos))
    same = labels[:, None] == labels[None]
    near = _mean_of(distances.square(), same)
    far = _mean_of((margin - distances).clamp_min(0).square(), ~same)
    return ((near + far) / 2).to(sketches.dtype)


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over each row's chosen values; 0 where there is none."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def cross_modal_triplets(sketches: Tensor, photos: Tensor, labels: Tensor, margin: float | None = None) -> Tensor:
    """Batch-hard triplet loss [2B]: every sketch against the photos, then every photo against the sketches, features [B, D].

    The furthest item of the other modality and its own class against the nearest of another class; softplus of the
    difference where margin is None, else a hinge. 0 where the batch holds no other class. Source: Hermans, Beyer and Leibe
    (2017), with anchors and partners from different modalities.
    """
    distances = anchor_distances(sketches, photos)
    same = labels[:, None] == labels[None]
    halves = []
    for table in (distances, distances.T):
        positive = table.masked_fill(~same, -torch.inf).amax(1)
        negative = table.masked_fill(same, torch.inf).amin(1)
        alone = same.all(1)
        gap = torch.where(alone, 0.0, positive - negative.masked_fill(alone, 0.0))
        value = F.softplus(gap) if margin is None else (gap + margin).clamp_min(0)
        halves.append(torch.where(alone, torch.zeros_like(value), value))
    return torch.cat(halves).to(sketches.dtype)


def _with_reader(model: TcnModel, batch: PairBatch, config: Config, name: str, loss: Callable[[Tensor, Tensor], Tensor]
                 ) -> LossTerms:
    """The terms of a loss on the features, and of the class head that only reads them."""
    out = model.network(batch.sketches, batch.photos)
    terms = {name: loss(out.sketch_features, out.photo_features)}
    for side, features in ((Modality.SKETCH, out.sketch_features), (Modality.PHOTO, out.photo_features)):
        terms[f"class_{side.value}"] = classification(model.classify(features.detach(), side), batch.labels)
    weights = config.losses
    return LossTerms(terms, {name: 1.0, "class_sketch": weights.class_sketch, "class_photo": weights.class_photo})


def siamese_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """`contrastive`, and the class head that only reads."""
    margin = SIAMESE_MARGIN if config.losses.margin is None else config.losses.margin
    return _with_reader(model, batch, config, "contrastive", lambda s, p: contrastive(s, p, batch.labels, margin))


def triplet_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """`triplet` across modalities, and the class head that only reads."""
    return _with_reader(model, batch, config, "triplet",
                        lambda s, p: cross_modal_triplets(s, p, batch.labels, config.losses.margin))


SIAMESE = Method("siamese", TcnModel, siamese_losses)
TRIPLET = Method("triplet", TcnModel, triplet_losses)
