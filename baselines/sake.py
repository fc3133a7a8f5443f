"""The idea of SAKE: one network that gets the modality as an input, and a teacher corrected by the similarity of class names.

In: TCN's ingredients and word vectors of ImageNet's class names. Out: a `Method`. Source: Liu, Xie, Wang and Yuille,
"Semantic-Aware Knowledge Preservation for Zero-Shot Sketch-Based Image Retrieval" (ICCV 2019), and its released code.

As in SAKE: one encoder with squeeze-and-excitation gates that depend on the modality of each image; a class loss on both
modalities; the teacher's soft targets for photos only, where 0.3 times the similarity of the photo's class to each ImageNet class
is added to the teacher's logits. Different from SAKE: the similarity is the cosine of word vectors, while SAKE's comes from
WordNet; the gates stand at the end of each stage, while SAKE's stand in every residual block; and the embedding, its SVD start,
the pairs, the optimiser and the schedule are those of this suite, the same for all methods.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcn.config import Config, InputError, Modality, wholly_shared
from tcn.data.pairs import PairBatch
from tcn.model.backbones import Backbone
from tcn.model.network import CoupledOutput
from tcn.scoring.features import evaluating
from tcn.seeding import borrowed, stream_seed
from tcn.train.losses import classification, distillation
from tcn.train.method import Ingredients, LossTerms, Method, TcnModel

SIMILARITY_WEIGHT = 0.3
"""Weight of the similarity that is added to the teacher's logits (as in SAKE's released code)."""
REDUCTION = 16
"""Ratio of channels to hidden units of a gate (as in squeeze-and-excitation)."""
TOLD = {Modality.SKETCH: 1.0, Modality.PHOTO: 0.0}


class Gate(nn.Module):
    """Squeeze-and-excitation that depends on the modality: maps [B, C, H, W] and tag [B, 1] -> maps, each channel scaled by a
    factor in (0, 2). It starts as the identity, so that the network starts as the ImageNet network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels + 1, max(1, channels // REDUCTION))
        self.excite = nn.Linear(self.squeeze.out_features, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, maps: Tensor, tag: Tensor) -> Tensor:
        told = torch.cat([maps.mean((2, 3)), tag.to(maps.dtype)], 1)
        return maps * (2 * torch.sigmoid(self.excite(F.relu(self.squeeze(told)))))[:, :, None, None]


class Gates(nn.Module):
    """A gate at the end of every part of an encoder. Inside a `told` block, the gates know the modality of the images."""

    def __init__(self, encoder: Backbone, size: int) -> None:
        super().__init__()
        self._tag: Tensor | None = None
        ends = {part: modules[-1] for part, modules in encoder.parts().items()}
        self.gates = nn.ModuleDict({part: Gate(channels) for part, channels in _channels(encoder, ends, size).items()})
        for part, module in ends.items():
            module.register_forward_hook(lambda module, inputs, maps, part=part: self.gates[part](maps, self._tag))

    @contextmanager
    def told(self, tag: Tensor) -> Iterator[None]:
        """In this block the encoder's images have this tag [B, 1]."""
        self._tag = tag
        try:
            yield
        finally:
            self._tag = None


@torch.no_grad()
def _channels(encoder: Backbone, ends: dict[str, nn.Module], size: int) -> dict[str, int]:
    """Part of the encoder -> number of its output channels, found by encoding a blank image."""
    found: dict[str, Tensor] = {}
    handles = [module.register_forward_hook(lambda module, inputs, maps, part=part: found.__setitem__(part, maps))
               for part, module in ends.items()]
    try:
        with evaluating(encoder):
            encoder(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    if not all(maps.dim() == 4 and maps.shape[2] == maps.shape[3] for maps in found.values()):
        raise InputError("method 'sake' gates maps [B, C, H, W], which this encoder does not give; choose a convolutional one")
    return {part: maps.shape[1] for part, maps in found.items()}


class SakeModel(TcnModel):
    """One encoder with gates that depend on the modality, and TCN's embedding and heads."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        if not wholly_shared(config.coupling):
            raise InputError("method 'sake' has one network; every part of 'coupling' must be 'hard'")
        if ingredients.imagenet_words is None:
            raise InputError("method 'sake' compares class names with ImageNet's; word vectors of these are missing")
        if config.network.batch_norm_split > 1:
            raise InputError("method 'sake' tags a whole batch; set network.batch_norm_split=1")
        super().__init__(config, ingredients)
        with borrowed(stream_seed(config.seed, "gates")):
            self.gates = Gates(self.encoders.sketch, config.data.image_size)
        similarity = F.normalize(ingredients.words.double()) @ F.normalize(ingredients.imagenet_words.double()).T
        self.similarity: Tensor
        self.register_buffer("similarity", similarity.float(), persistent=False)

    def _tag(self, images: Tensor, modality: Modality) -> Tensor:
        return images.new_full((len(images), 1), TOLD[modality])

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        with self.gates.told(self._tag(images, modality)):
            return super().encode(images, modality, side)

    def encode_backbone(self, images: Tensor, modality: Modality) -> Tensor:
        with self.gates.told(self._tag(images, modality)):
            return super().encode_backbone(images, modality)

    def forward_pair(self, batch: PairBatch) -> CoupledOutput:
        """The network's output of a training step; sketches and photos are encoded in one call, each image with its own tag."""
        if self.network.encoders.joint:
            tag = torch.cat([self._tag(batch.sketches, Modality.SKETCH), self._tag(batch.photos, Modality.PHOTO)])
            with self.gates.told(tag):
                out: CoupledOutput = self.network(batch.sketches, batch.photos)
                return out
        raise InputError("method 'sake' takes both modalities in one batch; set coupling.call=joint")


def sake_losses(model: SakeModel, batch: PairBatch, config: Config, generator: torch.Generator) -> LossTerms:
    """Class losses of both modalities, and the distillation loss of the corrected teacher on photos (SAKE's two losses)."""
    out = model.forward_pair(batch)
    teacher = model.teacher(batch.photos) + SIMILARITY_WEIGHT * model.similarity[batch.labels]
    terms = {"class_sketch": classification(out.sketch_logits, batch.labels),
             "class_photo": classification(out.photo_logits, batch.labels),
             "distillation": distillation(out.photo_distillation, teacher)}
    return LossTerms(terms, {name: getattr(config.losses, name) for name in terms})


SAKE = Method("sake", SakeModel, sake_losses, parallel=True, compares_words=True)
