"""The coupled network beyond retrieval: domain-adversarial training on digits, with one feature extractor or two softly tied
ones.

In: batches of labelled source digits and unlabelled target digits. Out: models and their losses. Source: Ganin et al.,
"Domain-Adversarial Training of Neural Networks" (DANN, JMLR 2016), the architecture for MNIST. The paper's extension table adds
the coupled network to DANN, but what we could read does not say how. Our reading: one feature extractor for each domain,
convolutions tied by the sharing loss, independent batch norms, and common label and domain classifiers.

Different from DANN, for all methods alike: a batch norm follows each convolution, since the coupled network is about batch norms,
and Adam replaces SGD, under which a sharing weight has another effect.
"""
from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcn.config import InputError, Range, Rate, Side, Weight, check_fields
from tcn.seeding import borrowed, stream_seed
from tcn.train.losses import sharing_norms

DIGITS = 10
METHODS = {"source-only": "Source only", "dann": "DANN", "dann-own-norms": "DANN, batch norms by domain",
           "dann-coupled": "DANN + coupled network"}
"""Name -> title. `dann-own-norms` is a control that the paper lacks: one set of convolutions with batch norms for each domain."""


@dataclass(frozen=True)
class DigitSettings:
    """The settings of one run. None of them was chosen by labels of the target domain."""

    method: Literal["source-only", "dann", "dann-own-norms", "dann-coupled"] = "dann-coupled"
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    steps: Annotated[int, Range(1, 10_000_000)] = 1000
    """Optimiser steps. The number is fixed beforehand, and the state after the last step is tested."""
    batch: Annotated[int, Range(1, 65_536)] = 64
    """Images of each domain in a batch (DANN: 64 of each)."""
    rate: Rate = 1e-3
    """Adam's own default."""
    sharing: Weight = 1.0
    """Weight of the sharing loss: the value of the laptop profile, chosen there on validation classes and not tuned here."""
    adversarial: Weight = 1.0
    """Largest weight of the reversed gradient (in DANN lambda rises to 1)."""
    image_size: Side = 16
    """Side of the images in pixels; a multiple of 4 (MNIST: 28)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_size % 4:
            raise InputError(f"setting 'image_size' is {self.image_size}; it must be a multiple of 4 (two poolings)")


class _Reversal(torch.autograd.Function):
    """The identity in the forward pass; the gradient is multiplied by -weight."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: float) -> Tensor:  # noqa: D102
        ctx.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return -ctx.weight * grad, None


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """Return `values`; their gradient is reversed and multiplied by `weight` (DANN's gradient reversal layer)."""
    out: Tensor = _Reversal.apply(values, weight)  # type: ignore[no-untyped-call]  # torch leaves it so
    return out


def reversal_weight(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1 at progress p from 0 to 1 (DANN's schedule).

    >>> reversal_weight(0), round(reversal_weight(1), 4)
    (0.0, 0.9999)
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Extractor(nn.Module):
    """Images [B, 3, S, S] -> features [B, 48 S^2 / 16]: two 5 x 5 convolutions, each with batch norm, ReLU and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 32, 5, padding=2), nn.Conv2d(32, 48, 5, padding=2)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(32), nn.BatchNorm2d(48)])

    def forward(self, images: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms):
            images = F.max_pool2d(F.relu(norm(convolution(images))), 2)
        return images.flatten(1)


class DigitModel(nn.Module):
    """Feature extractors of the two domains (one object, or two with the same start), a label and a domain classifier."""

    def __init__(self, settings: DigitSettings) -> None:
        super().__init__()
        self.settings = settings
        with borrowed(stream_seed(settings.seed, "digits")):
            self.source, wide = Extractor(), 48 * (settings.image_size // 4) ** 2
            self.label = nn.Sequential(nn.Linear(wide, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, DIGITS))
            self.domain = nn.Sequential(nn.Linear(wide, 100), nn.ReLU(), nn.Linear(100, 1))
        self.target = self.source
        if settings.method in ("dann-coupled", "dann-own-norms"):
            self.target = copy.deepcopy(self.source)
        if settings.method == "dann-own-norms":
            self.target.convolutions = self.source.convolutions

    @property
    def adversarial(self) -> bool:
        """Whether a domain classifier is trained, and the extractors against it."""
        return self.settings.method != "source-only"

    def features(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both domains. Where one extractor serves both, they go through it in one batch, as in DANN."""
        if self.target is self.source:
            both = self.source(torch.cat([source, target]))
            return both[:len(source)], both[len(source):]
        return self.source(source), self.target(target)

    def classify(self, images: Tensor, domain: str) -> Tensor:
        """Label logits [B, 10] of images of one domain, `source` or `target`."""
        logits: Tensor = self.label({"source": self.source, "target": self.target}[domain](images))
        return logits

    def sharing(self) -> Tensor | None:
        """The sharing loss over the extractors' convolutions, a scalar; None for methods without it."""
        if self.settings.method != "dann-coupled":
            return None
        return sharing_norms(list(zip(self.source.convolutions.parameters(), self.target.convolutions.parameters()))).sum()


def losses(model: DigitModel, source: Tensor, labels: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
    """The weighted loss terms of one step, whose sum is minimised.

    `label`: cross-entropy on source digits. `domain`: binary cross-entropy of the domain classifier on both domains, whose
    gradient is reversed before it reaches the extractors. `sharing`: the sharing loss of softly tied extractors.

    source: images [B, 3, S, S] with labels int64 [B]. target: images [B', 3, S, S]. progress: from 0 at the start to 1 at the
    end.
    """
    if not model.adversarial:
        return {"label": F.cross_entropy(model.classify(source, "source"), labels)}
    near, far = model.features(source, target)
    terms = {"label": F.cross_entropy(model.label(near), labels)}
    weight = model.settings.adversarial * reversal_weight(progress)
    judged = model.domain(reverse_gradient(torch.cat([near, far]), weight))[:, 0]
    truth = torch.cat([torch.zeros(len(near)), torch.ones(len(far))]).to(judged)
    terms["domain"] = F.binary_cross_entropy_with_logits(judged, truth)
    tied = model.sharing()
    if tied is not None:
        terms["sharing"] = model.settings.sharing * tied
    return terms
