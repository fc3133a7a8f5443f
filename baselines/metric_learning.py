"""Two classical ways to learn a common space: the contrastive loss of a Siamese network, and batch-hard triplets across
modalities.

In: TCN's model with one encoder for both modalities. Out: `Method`s. No class loss trains the features. A class head is trained
on detached features only so that the best epoch can be chosen by the same rule as TCN's.
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
"""Distance of unit vectors from which a pair of different classes has no loss, where `losses.margin` is not set."""


def contrastive(sketches: Tensor, photos: Tensor, labels: Tensor, margin: float = SIAMESE_MARGIN) -> Tensor:
    """Contrastive loss [B] of every sketch against all photos of the batch, features [B, D] at unit length.

    Half of the mean squared distance to photos of its class, plus half of the mean of max(0, margin - distance)^2 to the other
    photos. The two means are taken apart, since there are more photos of other classes. Without photos of other classes only the
    first half remains. Source: Hadsell, Chopra and LeCun (CVPR 2006), with all pairs of a batch instead of sampled ones. Raises
    InputError where margin is not positive.
    """
    if not margin > 0:
        raise InputError(f"losses.margin is {margin}; the contrastive loss needs one above 0")
    distances = anchor_distances(F.normalize(sketches), F.normalize(photos))
    same = labels[:, None] == labels[None]
    near = _mean_of(distances.square(), same)
    far = _mean_of((margin - distances).clamp_min(0).square(), ~same)
    return ((near + far) / 2).to(sketches.dtype)


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values of each row; 0 for rows without any."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def cross_modal_triplets(sketches: Tensor, photos: Tensor, labels: Tensor, margin: float | None = None) -> Tensor:
    """Batch-hard triplet loss [2B]: every sketch against the photos, then every photo against the sketches, features [B, D].

    For each anchor, the distance of the furthest item of its own class in the other modality is compared with that of the nearest
    item of another class: the softplus of their difference where margin is None, else a hinge. The loss is 0 where the batch
    holds no other class. Source: Hermans, Beyer and Leibe (2017), with anchors and partners from different modalities.
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


def _with_class_head(model: TcnModel, batch: PairBatch, config: Config, name: str, loss: Callable[[Tensor, Tensor], Tensor]
                 ) -> LossTerms:
    """Loss terms: the given loss on the features, and the class losses, whose gradient does not reach the features."""
    out = model.network(batch.sketches, batch.photos)
    terms = {name: loss(out.sketch_features, out.photo_features)}
    for side, features in ((Modality.SKETCH, out.sketch_features), (Modality.PHOTO, out.photo_features)):
        terms[f"class_{side.value}"] = classification(model.classify(features.detach(), side), batch.labels)
    weights = config.losses
    return LossTerms(terms, {name: 1.0, "class_sketch": weights.class_sketch, "class_photo": weights.class_photo})


def siamese_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """The loss terms of `contrastive`, and those of a class head on detached features."""
    margin = SIAMESE_MARGIN if config.losses.margin is None else config.losses.margin
    return _with_class_head(model, batch, config, "contrastive", lambda s, p: contrastive(s, p, batch.labels, margin))


def triplet_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """The loss terms of `cross_modal_triplets`, and those of a class head on detached features."""
    return _with_class_head(model, batch, config, "triplet",
                        lambda s, p: cross_modal_triplets(s, p, batch.labels, config.losses.margin))


SIAMESE = Method("siamese", TcnModel, siamese_losses, parallel=True)
TRIPLET = Method("triplet", TcnModel, triplet_losses, parallel=True)
