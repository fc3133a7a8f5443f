"""`Method`, the interface between training and a method, and TCN's own method.

In: config, backbones, word vectors. Out: a model that encodes images, and the loss terms of a batch. Other methods are defined
outside this package, and nothing here looks them up. docs/own-method.md is the guide to a method of your own.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tcn.config import Config, InputError, Modality
from tcn.data.pairs import PairBatch
from tcn.model.backbones import Backbone, Classifier, Teacher
from tcn.model.coupling import CoupledEncoders
from tcn.model.network import CoupledNetwork
from tcn.model.ranks import Ranks
from tcn.scoring.features import Encoding
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
        total = sum(self.weights[name] * value for name, value in self.means().items())
        assert isinstance(total, Tensor)  # every method has a term
        return total


@dataclass(frozen=True)
class Ingredients:
    """The parts from which a model is built: encoder, teacher, ImageNet's classifier, word vectors [C, W] of the seen classes.

    classes: the number C of seen classes. imagenet_words: word vectors [1000, W] of ImageNet's class names, from the same
    source; None for methods without them.
    """

    encoder: Backbone
    teacher: Backbone
    classifier: Classifier
    words: Tensor
    classes: int
    imagenet_words: Tensor | None = None


class Model(Encoding, Protocol):
    """The interface of a model for training and scoring: an `nn.Module` with these methods. `TcnModel` has it, and `OwnModel`
    is a base class for others. If a model has an attribute `encoders` (a `CoupledEncoders`), a run also records how far these
    move (tcn/train/distances.py)."""

    def classify(self, features: Tensor, modality: Modality) -> Tensor:
        """Logits of the seen classes [B, C] from retrieval features [B, D]."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The lists of parameters for each learning rate: "encoder" and "head"."""

    def record(self, sample: Tensor) -> None:
        """Record CUDA graphs for training batches of the shape of `sample`, if `execution.graphs` asks for it."""

    def train(self, mode: bool = True) -> Any:
        """As of `nn.Module`, like the next two."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


AnyModel = TypeVar("AnyModel", bound=Model)


def no_losses(model: Model, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """The losses of a method without training: raises InputError if the method is trained after all."""
    raise InputError(f"method '{config.method}' has no losses; set training.optimizer=none, or give its Method some")


@dataclass(frozen=True)
class Method(Generic[AnyModel]):
    """A method: a function that builds its model, and one that computes its loss terms."""

    name: str
    """Part of the run's identity."""
    build: Callable[[Config, Ingredients], AnyModel]
    losses: Callable[[AnyModel, PairBatch, Config, torch.Generator], LossTerms] = no_losses
    """Computes the unweighted loss terms from the model, a batch, the config and the generator of the step's random numbers."""
    frozen: bool = False
    """Whether the model is `ingredients.encoder`, unchanged. Then no teacher is loaded (the ingredients hold the encoder and
    zeros instead), and consecutive runs of one encoder share its features."""
    parallel: bool = False
    """Whether a run may be trained on several GPUs (`--gpus-per-run`): the model is a `TcnModel`, and `losses` reads a batch's
    images only as `model.network(batch.sketches, batch.photos)` and `model.teacher(batch.photos)`, which then give the whole
    batch's outputs. `batch.sketches` and `batch.photos` are only a share of it there,
    `batch.labels` and `len(batch)` are the whole."""
    compares_words: bool = False
    """Whether word vectors of seen classes and of ImageNet's classes are read regardless of the weights of the losses."""


class OwnModel(nn.Module):
    """Base class of a user's own network. A subclass defines `encode` and, if it is trained, `classify`.

    All parameters learn at the rate of the heads (`training.head_rate`), unless a subclass overrides `groups`.
    """

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        """Retrieval features [B, D] of images [B, 3, H, W], ImageNet-normalised. `side` is for coupled encoders: it says from
        which modality's output of the embedding the features are taken. A network with one output ignores it."""
        raise NotImplementedError(f"{type(self).__name__} has no encode(images, modality, side=None)")

    def encode_backbone(self, images: Tensor, modality: Modality) -> Tensor:
        """The features for `evaluation.features=backbone`; here the same as those of `encode`."""
        return self.encode(images, modality)

    def classify(self, features: Tensor, modality: Modality) -> Tensor:
        """Logits of the seen classes [B, C], with which held-out sketches of seen classes are classified after every epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no classify(features, modality)")

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate: none as `encoder`, all as `head`."""
        return {"encoder": [], "head": list(self.parameters())}

    def record(self, sample: Tensor) -> None:
        """Raise InputError, since CUDA graphs of such a network can't be recorded."""
        raise InputError("execution.graphs=encoders needs TCN's encoders; leave it at none for a network of another kind")


class TcnModel(nn.Module):
    """The coupled network, the semantic metric's projections, and the frozen teacher (not part of the state)."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        super().__init__()
        self.network = CoupledNetwork(ingredients.encoder, ingredients.classifier, ingredients.classes, config)
        size = ingredients.words.shape[1]
        with borrowed(stream_seed(config.seed, "words")):
            self.word_projection = nn.Linear(size, config.network.dim)
            self.word_regression = nn.Linear(config.network.dim, size)
        self.words: Tensor
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
        """The two encoders, coupled as the config says."""
        return self.network.encoders

    @property
    def teacher(self) -> Teacher:
        """The frozen ImageNet network."""
        return self._teacher[0]

    def spread(self, ranks: Ranks) -> None:
        """From now on, train as one of several processes: inside of `ranks.step`, network and teacher take a share of a batch and
        give the outputs of all of it. InputError where a layer of the encoders can't be shared."""
        self.network.spread(ranks)
        self.teacher.ranks = ranks

    def record(self, sample: Tensor) -> None:
        """Record CUDA graphs of encoders and teacher for batches of the shape of `sample` [B, 3, H, W], as `execution.graphs`
        asks."""
        self.network.record(sample)
        self.teacher.record(sample)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TcnModel:
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        return self

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        """Retrieval features [B, D]; `side` as in `CoupledNetwork.encode`."""
        return self.network.encode(images, modality, side)

    def encode_backbone(self, images: Tensor, modality: Modality) -> Tensor:
        """Pooled encoder features [B, d]."""
        return self.network.encoders.encode(images, modality)

    def classify(self, features: Tensor, modality: Modality) -> Tensor:
        """Seen-class logits [B, C] of retrieval features [B, D]."""
        logits: Tensor = self.network.embedding(modality).class_head(features)
        return logits

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The lists of parameters for each learning rate: those of the encoders, and all others."""
        encoders = list(self.network.encoders.parameters())
        known = {id(p) for p in encoders}
        return {"encoder": encoders, "head": [p for p in self.parameters() if id(p) not in known]}


AnyTcn = TypeVar("AnyTcn", bound=TcnModel)
Tying = Callable[[AnyTcn, Config], Tensor | None]
"""A penalty on the encoders' weights, a scalar; None if nothing is tied."""


def soft_tying(model: TcnModel, config: Config) -> Tensor | None:
    """L_SWS: the sum of ||theta_sketch - theta_photo||_F over softly tied tensors (paper: weight sharing)."""
    pairs = model.network.soft_pairs()
    return sharing_norms(pairs, config.execution.sharing).sum() if pairs else None


def tcn_losses(model: AnyTcn, batch: PairBatch, config: Config, generator: torch.Generator,
               tying: Tying[AnyTcn] = soft_tying) -> LossTerms:
    """All terms of the paper's total loss on one batch; terms of weight 0 that cost a forward pass are left out.

    tying: computes L_SWS, or the loss with which a control replaces it under the same weight and name.
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
    # Drawn on the CPU, so that it is the same on every device, and copied asynchronously, so that the host does not wait.
    alpha = torch.rand(len(labels), generator=generator).to(features.dtype).to(features.device, non_blocking=True)
    return semantic_metric(features, torch.cat([anchors, anchors]), labels, alpha, classify, margin)


TCN = Method("tcn", TcnModel, tcn_losses, parallel=True)
