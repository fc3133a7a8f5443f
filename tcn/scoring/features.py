"""Trained network -> features of any list of images; standardisation per modality; principal components.

In: a model (`Encoding`) and decoded images. Out: float32 arrays with rows in the list's order.
Paper: retrieval on the embedding's features.
"""
from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tcn.config import InputError, Modality
from tcn.data.augment import to_network
from tcn.data.pixels import Pixels
from tcn.data.prefetch import prefetch, prefetch_depth, to_float
from tcn.model.execution import scoring_mode
from tcn.scoring import moments


class Encoding(Protocol):
    """The interface of a model whose features are extracted: an `nn.Module` that encodes images of either modality."""

    training: bool

    def encode(self, images: torch.Tensor, modality: Modality, side: Modality | None = None) -> torch.Tensor:
        """Retrieval features [B, D] of images [B, 3, H, W]. side: the modality whose output of the embedding is read (default:
        the images' own)."""

    def encode_backbone(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """The encoder's pooled features [B, d]."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """As in `nn.Module`; so is the next one."""

    def eval(self) -> Any: ...


class _Modules(Protocol):
    def modules(self) -> Iterator[torch.nn.Module]: ...

    def eval(self) -> Any: ...


@contextlib.contextmanager
def evaluating(model: _Modules) -> Iterator[None]:
    """Put `model` into evaluation mode in this block; afterwards, also after an exception, restore the mode of every module in
    it."""
    found = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in found:
            module.training = mode


@torch.no_grad()
def extract(model: Encoding, pixels: Pixels, modality: Modality, image_size: int, device: torch.device,
            layer: str = "embedding", batch: int = 64, side: Modality | None = None, resize: str = "float") -> np.ndarray:
    """Features float32 [N, D] in evaluation mode, without augmentation; float32 throughout, whatever training used.

    layer: `embedding` (D) or `backbone` (d, the encoder's pooled output). side: the modality whose output of the embedding is
    read; None: the images' own (the released code reads the sketches' for photos). resize: see `tcn.data.augment.resize`. The
    model's mode is restored (`evaluating`).
    """
    encode: Callable[[torch.Tensor, Modality], torch.Tensor]
    if layer == "backbone":
        encode = model.encode_backbone
    else:
        encode = model.encode if side is None else functools.partial(model.encode, side=side)
    device = torch.device(device)
    parts = (np.arange(start, min(start + batch, len(pixels))) for start in range(0, len(pixels), batch))
    reading = prefetch(parts, lambda own: pixels.gather(own, device), prefetch_depth(device))
    with evaluating(model), scoring_mode(), contextlib.closing(reading) as blocks:
        # Fetched once, at the end: a copy after every batch would make the device wait for the images of the next one.
        rows = [encode(to_network(to_float(block, device), image_size, resize), modality).float() for block in blocks]
        features: np.ndarray = torch.cat(rows).cpu().numpy()
        return features


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation [D] of one modality's features on seen training images."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Standardiser:
        """Per-dimension statistics of features [N, D]; a constant dimension, which carries no information, gets deviation 1."""
        deviation = features.std(0)
        return cls(features.mean(0), np.where(deviation > 1e-12, deviation, 1).astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (features - self.mean) / self.deviation
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class Components:
    """Mean [d] and principal components [D, d] of features of seen training images, both modalities together."""

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, dim: int) -> Components:
        """The `dim` directions of largest variance of features [N, d]. InputError if `dim` exceeds min(N, d)."""
        check_components(dim, min(features.shape), f"{len(features)} features of length {features.shape[1]}")
        if moments.large(features):
            mean, scatter = moments.mean_and_scatter(features)
            axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :dim].T
            # The same signs as those of the solver below: the largest component of each direction is positive.
            largest = axes[np.arange(dim), np.abs(axes).argmax(1)]
            return cls(mean, axes * np.where(largest < 0, -1.0, 1.0)[:, None])
        from sklearn.decomposition import PCA  # takes a second to import, and few runs need it

        # An exact solver, so that the same features give the same components on every call.
        found = PCA(dim, svd_solver="covariance_eigh").fit(features.astype(np.float64))
        return cls(found.mean_, found.components_)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        if moments.large(features):
            return moments.product(features, self.mean, self.components.T).astype(np.float32)
        reduced: np.ndarray = (features - self.mean) @ self.components.T
        return reduced.astype(np.float32)


def check_components(dim: int, most: int, what: str) -> None:
    """InputError where `what`, which has `most` principal components, is to be reduced to more."""
    if not 0 < dim <= most:
        raise InputError(f"setting 'network.dim' is {dim}, and {what} have {most} principal components; set it to {most} or less")


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of features [N, D] scaled to length 1. A row of zeros stays as it is."""
    lengths: np.ndarray = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12))


def singular_values(features: np.ndarray, top: int = 30) -> np.ndarray:
    """The `top` largest singular values of L2-normalised features [N, D], descending (paper: singular-value figure).

    Shorter where min(N, D) is below `top`.
    """
    if moments.large(features):
        rows = moments.triangle(unit(block).astype(np.float64) for block in moments.blocks(features))
    else:
        rows = unit(features).astype(np.float64)
    values: np.ndarray = np.linalg.svd(rows, compute_uv=False)
    return values[:top]
