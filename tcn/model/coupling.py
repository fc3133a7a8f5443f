"""Which parts of the two encoders are one set of tensors, softly tied, or independent.

In: two encoders of one architecture and a `Coupling`. Out: a `CoupledEncoders` that encodes either modality,
and the list of tensor pairs under the sharing loss. Paper: coupled network, weight sharing.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from timm.layers.norm import RmsNorm
from torch import Tensor, nn

from tcn.config import Coupling, Modality, wholly_shared
from tcn.model.backbones import Backbone, own_tensors

__all__ = ["BATCH_NORMS", "CoupledEncoders", "own_tensors"]

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm, RmsNorm)
"""Of encoders without any batch norm, these hold what is specific to a modality. They have scale and shift, and no statistics."""


class CoupledEncoders(nn.Module):
    """Two encoders of one architecture, from the same start, coupled as asked.

    `encode(images [B, 3, H, W], modality) -> [B, d]`. Hard-shared tensors are the same object in both encoders.
    """

    def __init__(self, encoder: Backbone, coupling: Coupling) -> None:
        super().__init__()
        self.coupling = coupling
        self._norms = BATCH_NORMS if any(isinstance(module, BATCH_NORMS) for module in encoder.modules()) else OTHER_NORMS
        self.sketch = encoder
        self.photo = encoder if wholly_shared(coupling) else copy.deepcopy(encoder)
        self._tie()

    @property
    def features(self) -> int:
        """Size d of the features."""
        return self.sketch.features

    @property
    def joint(self) -> bool:
        """True where a step's sketches and photos go through in one concatenated batch."""
        return self.coupling.call == "joint"

    def encode(self, images: Tensor, modality: Modality) -> Tensor:
        """Features [B, d] of images of one modality."""
        features: Tensor = (self.sketch if modality is Modality.SKETCH else self.photo)(images)
        return features

    def encode_pair(self, sketches: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a training step's sketches and photos, in one call where the coupling is joint."""
        if not self.joint:
            return self.encode(sketches, Modality.SKETCH), self.encode(photos, Modality.PHOTO)
        both = self.sketch(torch.cat([sketches, photos]))
        return both[:len(sketches)], both[len(sketches):]

    def soft_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The (sketch, photo) tensor pairs the sharing loss ties, in definition order."""
        return [(_tensor(sub_s, name), _tensor(sub_p, name))
                for part, sub_s, sub_p, name in self._walk() if self._mode(part, sub_s) == "soft"]

    def tensors(self) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
        """Every parameter as (part, the module that owns it, the sketch encoder's, the photo encoder's), in definition order."""
        for part, sub_s, sub_p, name in self._walk():
            yield part, sub_s, _tensor(sub_s, name), _tensor(sub_p, name)

    def is_norm(self, module: nn.Module) -> bool:
        """Whether a module's scale and shift follow `coupling.batch_norm_affine` instead of its part: batch norms, or in an
        encoder that has none, layer norms and the like."""
        return isinstance(module, self._norms)

    def _mode(self, part: str, module: nn.Module) -> str:
        is_norm = self.is_norm(module)
        return self.coupling.batch_norm_affine if is_norm else getattr(self.coupling, part)

    def _walk(self) -> Iterator[tuple[str, nn.Module, nn.Module, str]]:
        for (part, sub_s, name), (_, sub_p, _) in zip(self.sketch.tensors(), self.photo.tensors()):
            yield part, sub_s, sub_p, name

    def _tie(self) -> None:
        if self.photo is self.sketch:
            return
        for part, sub_s, sub_p, name in self._walk():
            if self._mode(part, sub_s) == "hard":
                sub_p._parameters[name] = sub_s._parameters[name]
        if self.coupling.batch_norm_statistics == "hard":
            for sub_s, sub_p in zip(self.sketch.modules(), self.photo.modules()):
                if isinstance(sub_s, BATCH_NORMS):
                    sub_p._buffers.update(sub_s._buffers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CoupledEncoders:
        # Moving a module makes new buffers, which would silently untie shared statistics.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        self._tie()
        return self


def _tensor(module: nn.Module, name: str) -> Tensor:
    """The parameter that `module` itself owns under `name`."""
    found = module._parameters[name]
    assert found is not None
    return found
