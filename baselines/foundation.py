"""Encoders that others trained, frozen: the rows that every trained method is asked about.

In: an encoder by its name (docs/encoders.md). Out: three variants of each, which train nothing: its pooled features as they are,
standardised per modality on seen drawings and photos, and reduced to D by principal components of both.
"""
from __future__ import annotations

from typing import Any

from torch import Tensor

from baselines.variant import Variant
from tcn.config import Config, Modality
from tcn.train.method import Ingredients, Method, OwnModel

SIZE = 224
"""Side of the images in pixels, as most of these encoders were trained; DINOv2's positions are interpolated to it."""
ENCODERS = (
    ("dinov2", "DINOv2 S/14", "timm:vit_small_patch14_dinov2.lvd142m"),
    ("clip", "CLIP B/16", "timm:vit_base_patch16_clip_224.openai"),
    ("siglip", "SigLIP B/16", "timm:vit_base_patch16_siglip_224.webli"),
    ("resnet50", "ResNet-50", "resnet50"),
    ("convnext", "ConvNeXt-T", "timm:convnext_tiny.fb_in1k"),
    ("lite0", "EfficientNet-Lite0", "efficientnet_lite0"),
    ("lite2", "EfficientNet-Lite2", "efficientnet_lite2"),
)
"""Name in a variant's name, name for people, `network.backbone`."""
TREATMENTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("", "", "its pooled features", {}),
    ("-permodality", ", per-modality statistics", "the same, standardised per modality on seen drawings and photos",
     {"evaluation.statistics": "per_modality"}),
    ("-pca", ", PCA", "the same, reduced to D by principal components of seen classes", {"evaluation.statistics": "pca"}),
)


class FrozenModel(OwnModel):
    """One encoder for both modalities, as it came."""

    def __init__(self, config: Config, ingredients: Ingredients) -> None:
        super().__init__()
        self.encoder = ingredients.encoder.requires_grad_(False)

    def encode(self, images: Tensor, modality: Modality, side: Modality | None = None) -> Tensor:
        features: Tensor = self.encoder(images)
        return features

    def record(self, sample: Tensor) -> None:
        """Nothing: no step is trained."""


FROZEN = Method("frozen", FrozenModel, frozen=True)


def variants(delta: dict[str, Any]) -> tuple[Variant, ...]:
    """All rows: each encoder with each treatment. delta: the settings of what is not trained."""
    return tuple(Variant(f"frozen-{name}{suffix}", f"Frozen {title}{treated}", f"no training: {shows} ({title} at {SIZE} pixels)",
                         {**delta, "evaluation.features": "backbone", "network.backbone": backbone, "data.image_size": SIZE, **settings},
                         method=FROZEN, optional=True)
                 for name, title, backbone in ENCODERS for suffix, treated, shows, settings in TREATMENTS)
