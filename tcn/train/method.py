"""A `Method`: what training needs to know of a way to learn, and TCN's own.

In: config, backbones, word vectors. Out: a model that encodes, and the loss terms of a batch. Other methods
live outside this package; nothing here looks them up.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Protocol

import torch
from torch import Tensor, nn

from tcn.config import Config, Modality
from tcn.data.pairs import PairBatch
from tcn.model.backbones import Backbone, Classifier, Teacher
from tcn.model.coupling import CoupledEncoders
from tcn.model.network import CoupledNetwork
from tcn.seeding import borrowed, stream_seed
from tcn.train.losses import (
    batch_hard,
    classification,
    distillation,
    semantic_metric,
    semantic_regression,
    sharing_norms,
)


@dataclass(frozen=True)
class LossTerms:
    """Raw terms by name (a vector over samples, or a scalar) and the weight of each; total = sum of weight * mean."""

    terms: dict[str, Tensor]
    weights: dict[str, float]

    def means(self) -> dict[str, Tensor]:
        """Each term's mean, unweighted."""
        return {name: value.mean() for name, value in self.terms.items()}

    def total(self) -> Tensor:
        """The scalar that is minimised."""
        return sum(self.weights[name] * value for name, value in self.means().items())


@dataclass(frozen=True)
class Ingredients:
    """What a model is built from: encoder and its classifier, the teacher and its classifier, words [C, W].

    imagenet_words: vectors [1000, W] of ImageNet's class names, from the same source; None for methods that read none.
    """

    encoder: Backbone
    teacher: Backbone
    classifier: Classifier
    words: Tensor
    classes: int
    imagenet_words: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """A way to learn: `name` enters the run's identity; `build` makes the model; `losses` reads a batch.

    The model is an nn.Module with encode(images, modality, side=None), encode_backbone, classify(features, modality),
    groups() -> {"encoder": [...], "head": [...]} parameters, and `encoders`, its CoupledEncoders.
    """

    name: str
    build: Callable[[Config, Ingredients], nn.Module]
    losses: Callable[[nn.Module, PairBatch, Config, torch.Generator], LossTerms]
    compares_words: bool = False
    """Reads word vectors of seen classes and of ImageNet's classes whatever the weights of the losses are."""


class TcnModel(nn.Module):
    """The coupled network, the semantic metric's projections, and the frozen teacher (not part of the state)."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        super().__init__()
        self.network = CoupledNetwork(ingredients.encoder, ingredients.classifier, ingredients.classes, config)
        size = ingredients.words.shape[1]
        with borrowed(stream_seed(config.seed, "words")):
            self.word_projection = nn.Linear(size, config.network.dim)
            self.word_regression = nn.Linear(config.network.dim, size)
        self.register_buffer("words", ingredients.words, persistent=False)
        # In a tuple, the teacher stays out of the parameters and the checkpoint.
        self._teacher = (Teacher(ingredients.teacher, ingredients.classifier, config.execution),)
        if config.execution.compile == "encoders":
            encoders = self.network.encoders
            # In place: names in the checkpoint stay; compilation itself waits for the first step.
            for backbone in {encoders.sketch, encoders.photo, self.teacher.backbone}:
                backbone.compile()

    @property
    def encoders(self) -> CoupledEncoders:
        """The two encoders, coupled as asked."""
        return self.network.encoders

    @property
    def teacher(self) -> Teacher:
        """The frozen ImageNet network."""
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TcnModel":
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        """Retrieval features [B, D]; `side` as in `CoupledNetwork.encode`."""
        return self.network.encode(images, modality, side)

    def encode_backbone(self, images: Tensor, modality: Modality) -> Tensor:
        """Pooled encoder features [B, d]."""
        return self.network.encoders.encode(images, modality)

    def classify(self, features: Tensor, modality: Modality) -> Tensor:
        """Seen-class logits [B, C] of retrieval features [B, D]."""
        return self.network.embedding(modality).class_head(features)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate: the encoders', and all others."""
        encoders = list(self.network.encoders.parameters())
        known = {id(p) for p in encoders}
        return {"encoder": encoders, "head": [p for p in self.parameters() if id(p) not in known]}


class Tying(Protocol):
    """A penalty on the encoders' weights, a scalar; None where nothing is tied."""

    def __call__(self, model: TcnModel, config: Config) -> Tensor | None: ...


def soft_tying(model: TcnModel, config: Config) -> Tensor | None:
    """L_SWS: the sum of ||theta_sketch - theta_photo||_F over softly tied tensors (paper: weight sharing)."""
    pairs = model.network.soft_pairs()
    return sharing_norms(pairs, config.execution.sharing).sum() if pairs else None


def tcn_losses(model: TcnModel, batch: PairBatch, config: Config, generator: torch.Generator, tying: Tying = soft_tying
               ) -> LossTerms:
    """All terms of the paper's total loss on one batch; terms of weight 0 that cost a forward pass are left out.

    tying: what stands for L_SWS, under its weight and name (the paper's unless a control replaces it).
    """
    out = model.network(batch.sketches, batch.photos)
    weights = config.losses
    terms = {"class_sketch": classification(out.sketch_logits, batch.labels),
             "class_photo": classification(out.photo_logits, batch.labels)}
    if weights.distillation > 0:
        terms["distillation"] = distillation(out.photo_distillation, model.teacher(batch.photos))
    tied = tying(model, config)
    if tied is not None:
        terms["sharing"] = tied
    applied = {name: getattr(weights, name) for name in (*terms, "semantic")}
    form = weights.semantic_form
    if weights.semantic == 0 and weights.semantic_off == "as-released":
        applied["semantic"], form = 1.0, "separate"
    if applied["semantic"] > 0:
        terms["semantic"] = _semantic(model, batch, out.sketch_features, out.photo_features, config, form, generator)
    return LossTerms(terms, {name: applied[name] for name in terms})


def _semantic(model: TcnModel, batch: PairBatch, sketch: Tensor, photo: Tensor, config: Config, form: str,
              generator: torch.Generator) -> Tensor:
    features = torch.cat([sketch, photo])
    labels = torch.cat([batch.labels, batch.labels])
    words = model.words[batch.labels]
    margin = "soft" if config.losses.margin is None else config.losses.margin

    def classify(rows: Tensor) -> Tensor:
        halves = rows[:len(sketch)], rows[len(sketch):]
        return torch.cat([model.classify(half, modality) for half, modality in zip(halves, Modality)])

    if form == "separate":
        regression = semantic_regression(model.word_regression(features), torch.cat([words, words]))
        return batch_hard(features, labels, classify, margin) + config.losses.regression * regression
    anchors = model.word_projection(words)
    # Drawn on the CPU, the same on every device; a copy that is waited for would hold up the host once a step.
    alpha = torch.rand(len(labels), generator=generator).to(features.dtype).to(features.device, non_blocking=True)
    return semantic_metric(features, torch.cat([anchors, anchors]), labels, alpha, classify, margin)


TCN = Method("tcn", TcnModel, tcn_losses)
