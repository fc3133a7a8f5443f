"""Encoders and embedding composed: images of a modality in, retrieval features and logits out.

Paper: figure of the framework. Every output has a name, so that the two modalities cannot be confused.
"""
from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from tcn.config import Config, Execution, Modality
from tcn.model.backbones import Backbone, Classifier
from tcn.model.coupling import BATCH_NORMS, CoupledEncoders
from tcn.model.embedding import DrawnDropout, Embedding
from tcn.model.execution import crop_convolutions, ordered, reduced
from tcn.model.ranks import Ranks
from tcn.model.recording import record_training
from tcn.model.synchronised import check_draws, synchronise
from tcn.seeding import stream_seed


@dataclass(frozen=True)
class CoupledOutput:
    """A training step's outputs. Features [B, D], class logits [B, C], distillation logits of photos [B, 1000]."""

    sketch_features: Tensor
    photo_features: Tensor
    sketch_logits: Tensor
    photo_logits: Tensor
    photo_distillation: Tensor


class _PairEncoding(nn.Module):
    """Images of a step's sketches and photos -> their raw features [B, d], in the precision and memory order asked for."""

    def __init__(self, encoders: CoupledEncoders, execution: Execution) -> None:
        super().__init__()
        self.encoders = encoders
        self.execution = execution

    def forward(self, sketches: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        with reduced(self.execution, sketches.device):
            sketch, photo = self.encoders.encode_pair(*(ordered(images, self.execution) for images in (sketches, photos)))
        return sketch.to(sketches.dtype), photo.to(photos.dtype)


class CoupledNetwork(nn.Module):
    """Two encoders coupled as the config asks, and the feature-embedding network on top."""

    def __init__(self, encoder: Backbone, classifier: Classifier, classes: int, config: Config) -> None:
        super().__init__()
        if config.execution.convolutions == "cropped":
            crop_convolutions(encoder)
        self.encoders = CoupledEncoders(encoder, config.coupling)
        net = config.network
        embedding = Embedding(encoder.features, net.dim, classes, net.embedding_norm, net.dropout,
                              classifier if net.start == "svd" else None, len(classifier.bias),
                              stream_seed(config.seed, "embedding"))
        shared = config.coupling.embedding == "hard"
        self.embeddings = nn.ModuleDict({Modality.SKETCH.value: embedding,
                                         Modality.PHOTO.value: embedding if shared else copy.deepcopy(embedding)})
        self._embedding_tied = config.coupling.embedding == "soft"
        self._split = net.batch_norm_split
        # In a tuple, it adds no names to the state.
        self._encoding = (_PairEncoding(self.encoders, config.execution),)
        self._recorded: tuple[nn.Module, torch.Size] | None = None
        self._ranks: Ranks | None = None

    def embedding(self, modality: Modality) -> Embedding:
        """The embedding network that serves a modality (the same one where it is hard-shared)."""
        found = self.embeddings[modality.value]
        assert isinstance(found, Embedding)
        return found

    def soft_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Tensor pairs under the sharing loss, those of a softly tied embedding included."""
        pairs = self.encoders.soft_pairs()
        if self._embedding_tied:
            sketch, photo = (self.embedding(m).projection for m in Modality)
            pairs += list(zip(sketch.parameters(), photo.parameters()))
        return pairs

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        """Retrieval features [B, D], not yet L2-normalised, of images of one modality.

        `side`: whose output of the embedding is read, the images' own if None. The released code reads the
        sketches' side for photos at test time.
        """
        side = side or modality
        features: Tensor = self.embedding(side)(self.encoders.encode(images, modality), side)
        return features

    def forward(self, sketches: Tensor, photos: Tensor) -> CoupledOutput:
        """A training step: sketches and photos [B, 3, H, W] of the same B pairs.

        With a batch-norm split in n parts, each part of at least 2 pairs is normalised alone, as on n GPUs. Where several
        processes train together, the images are this process's share of the batch, and the output is that of the whole batch.
        """
        if self._ranks is not None and self._ranks.pairs and self.training:
            return self._share(self._ranks, sketches, photos)
        parts = min(self._split, len(sketches) // 2) if self.training else 1
        if parts <= 1:
            return self._step(sketches, photos)
        first, *others = zip(sketches.tensor_split(parts), photos.tensor_split(parts))
        outputs = [self._step(*first)]
        with _untracked(self):
            outputs += [self._step(*part) for part in others]
        return CoupledOutput(*(torch.cat([getattr(out, f.name) for out in outputs]) for f in fields(CoupledOutput)))

    def spread(self, ranks: Ranks) -> None:
        """From now on, `forward` inside of `ranks.step` takes this process's share of a batch. To be called once,
        in all processes.

        Running statistics are kept as on one device: of the whole batch where batch norms are synchronised, else of the first
        process's share (its copy of the network is the one that is kept).
        InputError where a layer of the encoders can't be shared.
        """
        check_draws(self.encoders)
        if ranks.synchronised:
            synchronise(self, ranks)
        for embedding in {self.embedding(m) for m in Modality}:
            embedding.dropout = DrawnDropout(embedding.dropout.p)
        self._ranks = ranks

    def _share(self, ranks: Ranks, sketches: Tensor, photos: Tensor) -> CoupledOutput:
        self._draw(ranks)
        out = self._step(sketches, photos)
        return CoupledOutput(*ranks.gathered(*(getattr(out, f.name) for f in fields(CoupledOutput))))

    def _draw(self, ranks: Ranks) -> None:
        """Draw all that one process would draw for the dropouts of this step, in its order, and keep this process's rows."""
        own, first = ranks.rows(ranks.pairs), 0
        for size in [ranks.pairs] if ranks.synchronised else filter(None, ranks.sizes(ranks.pairs)):
            for modality in Modality:
                embedding = self.embedding(modality)
                dropout = embedding.dropout
                assert isinstance(dropout, DrawnDropout)  # `spread` made it so
                if dropout.p:
                    factors = dropout.draw(size, embedding.projection)
                    if first <= own.start < first + size:
                        dropout.waiting.append(factors[own.start - first:own.stop - first])
            first += size

    def record(self, sample: Tensor) -> None:
        """Record the training pass of the encoders for batches of the shape of `sample` [B, 3, H, W]; other shapes run as before.

        To be called once, in training mode on a CUDA device. Raises InputError where a method hooks into the encoders.
        """
        self._recorded = (record_training(_PairEncoding(self.encoders, self._encoding[0].execution), sample, sample.clone()),
                          sample.shape)

    def _step(self, sketches: Tensor, photos: Tensor) -> CoupledOutput:
        encoding: nn.Module = self._encoding[0]
        if self._recorded is not None and self.training and sketches.shape == self._recorded[1]:
            encoding = self._recorded[0]
        raw_sketch, raw_photo = encoding(sketches, photos)
        on_sketch, on_photo = self.embedding(Modality.SKETCH), self.embedding(Modality.PHOTO)
        sketch, photo = on_sketch(raw_sketch, Modality.SKETCH), on_photo(raw_photo, Modality.PHOTO)
        return CoupledOutput(sketch, photo, on_sketch.class_head(sketch), on_photo.class_head(photo),
                             on_photo.distillation_head(photo))


@contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """The context in which batch norms normalise by their batch but do not update the running statistics."""
    norms = [m for m in module.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
