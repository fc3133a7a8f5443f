"""The feature-embedding network: projection, batch norm, class head, distillation head, and its SVD start.

In: backbone features [B, d] of one modality. Out: retrieval features [B, D] and, in training, both heads'
logits. Paper: feature embedding and its initialisation by the singular vectors of the ImageNet classifier.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tcn.config import InputError, Modality
from tcn.model.backbones import Classifier
from tcn.seeding import borrowed


def svd_start(teacher_weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Split a classifier W = U S V^T into a projection S_D V_D^T and distillation weights U_D (top D).

    teacher_weight: [1000, d]. Returns (projection [D, d], distillation [1000, D]) in the dtype given;
    their product distillation @ projection is the best rank-D approximation of W. Computed in float64.
    Raises InputError where D exceeds min(1000, d), or the weight is not finite. Source: released code, which calls it essential.

    >>> p, q = svd_start(torch.diag(torch.tensor([3., 2., 1.])), 2)
    >>> (q @ p).diagonal().tolist()
    [3.0, 2.0, 0.0]
    """
    if teacher_weight.ndim != 2:
        raise InputError(f"teacher_weight has shape {tuple(teacher_weight.shape)}; it must be [classes, d]")
    if not teacher_weight.is_floating_point() or not bool(teacher_weight.isfinite().all()):
        raise InputError("teacher_weight must hold finite real numbers of a floating-point type")
    if not 0 < dim <= min(teacher_weight.shape):
        raise InputError(f"dim is {dim}; the SVD start needs 1 <= dim <= {min(teacher_weight.shape)}")
    u, s, vh = torch.linalg.svd(teacher_weight.detach().double(), full_matrices=False)
    # A singular vector's sign is arbitrary; fixing it keeps runs equal across LAPACK builds.
    rows = torch.arange(dim, device=u.device)
    sign = torch.sign(u[u[:, :dim].abs().argmax(0), rows])
    projection = sign[:, None] * s[:dim, None] * vh[:dim]
    distillation = u[:, :dim] * sign
    return projection.to(teacher_weight.dtype).contiguous(), distillation.to(teacher_weight.dtype).contiguous()


class ModalityBatchNorm(nn.Module):
    """Batch norm over features with shared scale and shift, statistics kept per modality.

    `bn(x [B, D], Modality.SKETCH) -> [B, D]`. Source: released code for TU-Berlin and QuickDraw.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({m.value: nn.BatchNorm1d(features) for m in Modality})
        self._tie()
        # Loading may assign new tensors, which would silently untie scale and shift; so may moving, below.
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]  # torch leaves it so
            lambda module, keys: module._tie())

    @property
    def weight(self) -> Tensor:
        """Shared scale [D]."""
        return self._norm(Modality.SKETCH).weight

    @property
    def bias(self) -> Tensor:
        """Shared shift [D]."""
        return self._norm(Modality.SKETCH).bias

    def _norm(self, modality: Modality) -> nn.BatchNorm1d:
        norm = self.norms[modality.value]
        assert isinstance(norm, nn.BatchNorm1d)
        return norm

    def _tie(self) -> None:
        first, second = (self._norm(m) for m in Modality)
        second.weight, second.bias = first.weight, first.bias

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ModalityBatchNorm:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        self._tie()
        return self

    def forward(self, x: Tensor, modality: Modality) -> Tensor:
        if not isinstance(modality, Modality):
            raise InputError(f"modality is {modality!r}; pass Modality.SKETCH or Modality.PHOTO")
        normalised: Tensor = self.norms[modality.value](x)
        return normalised


class SharedBatchNorm(nn.BatchNorm1d):
    """One batch norm for both modalities, called once for each (released code for Sketchy)."""

    # torch's own takes no modality; the embedding calls both forms alike
    def forward(self, x: Tensor, modality: Modality) -> Tensor:  # type: ignore[override]  # noqa: D102
        return super().forward(x)


class DrawnDropout(nn.Module):
    """Dropout by factors [B, D] that were drawn before, one tensor for each call: zeros, and 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.waiting: list[Tensor] = []

    def draw(self, rows: int, like: nn.Linear) -> Tensor:
        """Factors [rows, D] of the next dropout that one process would draw on the outputs of the layer `like`."""
        ones = torch.ones(rows, like.out_features, dtype=like.weight.dtype, device=like.weight.device)
        return F.dropout(ones, self.p)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.waiting.pop(0) if self.training and self.p else features


class Embedding(nn.Module):
    """Linear d -> D, batch norm, dropout: the retrieval feature; class head D -> C; distillation head D -> 1000.

    With `classifier` the linear and the distillation head take the SVD start, its bias the teacher's;
    without, framework defaults. Class head and the linear's bias keep the framework default.
    """

    def __init__(self, features: int, dim: int, classes: int, norm: str, dropout: float,
                 classifier: Classifier | None, teacher_classes: int, generator_seed: int) -> None:
        super().__init__()
        with borrowed(generator_seed):
            self.projection = nn.Linear(features, dim)
            self.norm: nn.Module = ModalityBatchNorm(dim) if norm == "per_modality" else SharedBatchNorm(dim)
            self.class_head = nn.Linear(dim, classes)
            self.distillation_head = nn.Linear(dim, teacher_classes)
        self.dropout: nn.Dropout | DrawnDropout = nn.Dropout(dropout)
        if classifier is not None:
            projection, distillation = svd_start(classifier.weight, dim)
            with torch.no_grad():
                self.projection.weight.copy_(projection)
                self.distillation_head.weight.copy_(distillation)
                self.distillation_head.bias.copy_(classifier.bias)

    def forward(self, features: Tensor, modality: Modality) -> Tensor:
        """Retrieval features [B, D] of backbone features [B, d] of one modality."""
        out: Tensor = self.dropout(self.norm(self.projection(features), modality))
        return out
