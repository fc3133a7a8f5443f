"""Paired augmentation in batches on the device.

In: float batches of decoded images, 1 channel (grey) or 3. Out: the same with the random geometry that a sketch shares
with its photo, and normalised as ImageNet networks expect. Paper: implementation details; released code for the
augmentation's form.
"""
from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tcn.config import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SHIFT_SHARE = 10 / 256
"""Largest shift as a share of the stored side (released: 10 of 256 pixels)."""


@dataclass(frozen=True)
class Geometry:
    """Random geometry of B pairs: flip bool [B]; sx, sy, rotation (radians), tx, ty (share of the side), each [B]."""

    flip: np.ndarray
    sx: np.ndarray
    sy: np.ndarray
    rotation: np.ndarray
    tx: np.ndarray
    ty: np.ndarray

    def rows(self, chosen: slice) -> Geometry:
        """The geometry of some of the pairs."""
        return Geometry(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def draw_geometry(rng: np.random.Generator, pairs: int) -> Geometry:
    """Flip, scale in [0.7, 1.3] per axis, turn within 30 degrees, shift within 10/256, each with probability 0.5."""
    coins = rng.random((4, pairs)) < 0.5
    values = rng.uniform(-1, 1, (5, pairs))
    scale = np.where(coins[1], 1 + 0.3 * values[:2], 1.0)
    shift = np.where(coins[3], SHIFT_SHARE * values[3:], 0.0)
    return Geometry(coins[0], scale[0], scale[1], np.where(coins[2], math.radians(30) * values[2], 0.0), *shift)


def affine(geometry: Geometry, size: int, centre: float) -> np.ndarray:
    """Matrices [B, 2, 3] taking stored pixel coordinates (x, y; pixel centres at integers) to augmented ones.

    Flip about the image's own middle first; then scale and turn about (`centre`, `centre`); then shift.
    """
    cos, sin = np.cos(geometry.rotation), np.sin(geometry.rotation)
    linear = np.stack([np.stack([cos * geometry.sx, -sin * geometry.sy], -1),
                       np.stack([sin * geometry.sx, cos * geometry.sy], -1)], -2)
    shift = np.stack([geometry.tx, geometry.ty], -1) * size + centre - linear @ np.full(2, centre)
    mirror = np.where(geometry.flip, -1.0, 1.0)
    offset = np.where(geometry.flip, size - 1.0, 0.0)
    shift = shift + linear[:, :, 0] * offset[:, None]
    linear = linear * np.stack([mirror, np.ones_like(mirror)], -1)[:, None, :]
    return np.concatenate([linear, shift[:, :, None]], -1)


def sources(matrices: np.ndarray, size: int, like: Tensor) -> Tensor:
    """The place from which each pixel of a warped image is read, [B, S, S, 2], on the device and of the type of `like`.

    matrices: [B, 2, 3], from old to new pixel coordinates. Places are in `grid_sample`'s units: -1 and 1 are the centres of the
    outermost pixels.
    """
    full = np.concatenate([matrices, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))], 1)
    axis = torch.arange(size, device=like.device, dtype=like.dtype)
    # Cast on the host and copy asynchronously; a blocking copy would synchronise with the GPU.
    back = torch.from_numpy(np.linalg.inv(full)[:, :2]).to(like.dtype).to(like.device, non_blocking=True)
    x, y, shift = back[:, None, None].unbind(4)
    # computed in pixels first, so that shifts by whole pixels stay exact
    places = (y * axis[None, :, None, None] + shift) + x * axis[None, None, :, None]
    return places.mul_(2).div_(size - 1).sub_(1)


def warp(images: Tensor, places: Tensor, fill: float) -> Tensor:
    """Bilinear warp of images [B, C, S, S]: each pixel is read at its place in `places` [B, S, S, 2] (see `sources`), and is
    `fill` where that lies outside the image."""
    moved = F.grid_sample(images - fill if fill else images, places, mode="bilinear", padding_mode="zeros", align_corners=True)
    return moved.add_(fill) if fill else moved


def places_of(geometry: Geometry, form: str, size: int, like: Tensor) -> Tensor:
    """`sources` of a geometry: about the top-left corner (`released`) or about the centre (`corrected`)."""
    return sources(affine(geometry, size, 0.0 if form == "released" else (size - 1) / 2), size, like)


def augment(images: Tensor, geometry: Geometry, form: str, fill: float) -> Tensor:
    """Augmented images [B, C, S, S] in 0..255.

    form: `released` scales and turns about the top-left corner, is black outside, and truncates to 8 bits; `corrected` scales and
    turns about the centre, and is `fill` outside.
    """
    return augment_at(images, places_of(geometry, form, images.shape[-1], images), form, fill)


def augment_at(images: Tensor, places: Tensor, form: str, fill: float) -> Tensor:
    """The same from `places_of` a geometry, which the two sides of a pair share."""
    if form == "released":
        # Rounding may put a whole grey level slightly too low, and truncation would then make it one level less.
        slack = 1e-6 if images.dtype == torch.float64 else 2.0**-7
        return warp(images, places, 0.0).add_(slack).clamp_(0, 255).floor_()
    return warp(images, places, fill)


def augment_as_released(image: np.ndarray, flip: bool, sx: float, sy: float, rotation: float, tx: float, ty: float
                        ) -> np.ndarray:
    """One image [H, W, 3] uint8 augmented as released, same shape: flip, then scale and turn about the top-left
    corner, then shift by (tx, ty) pixels; bilinear, black outside, truncated to 8 bits. rotation in radians; with y
    pointing down, a positive one turns clockwise. (x, y) are column and row, pixel centres at whole numbers; a pixel
    at (x, y) goes to (cos r sx x - sin r sy y + tx, sin r sx x + cos r sy y + ty).

    Raises InputError where the image is not uint8 [H, W, 3] with a pixel at least, where a number is not finite, or
    where a scale is 0. Source: released code.

    >>> row = np.array([[[10] * 3, [20] * 3, [31] * 3]], np.uint8)
    >>> augment_as_released(row, True, 1, 1, 0, 0.5, 0)[0, :, 0].tolist()  # 31 20 10, half a pixel to the right
    [15, 25, 15]
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image is {image.dtype} {image.shape}; it must be uint8 [H, W, 3]")
    for name, value in {"sx": sx, "sy": sy, "rotation": rotation, "tx": tx, "ty": ty}.items():
        if not math.isfinite(value) or name in ("sx", "sy") and value == 0:
            raise InputError(f"{name} is {value}; it must be finite, and a scale not 0")
    height, width = image.shape[:2]
    side = max(height, width, 2)  # a single pixel has no side to interpolate along
    # Black below and to the right of the top-left corner is what lies outside anyway.
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = image[:, ::-1] if flip else image
    one = Geometry(np.array([False]), *(np.array([float(v)]) for v in (sx, sy, rotation, tx / side, ty / side)))
    batch = torch.from_numpy(square).permute(2, 0, 1)[None].double()
    result = augment(batch, one, "released", 0.0)[0].permute(1, 2, 0).numpy()
    return result[:height, :width].astype(np.uint8)


@functools.cache
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation in grey levels, [1, 3, 1, 1]; cached, since a copy to a device would block."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean.to(device), std.to(device)


_FRACTION = 22
"""Bits after the binary point of the fixed-point weights with which Pillow resizes 8-bit images."""


@functools.lru_cache(maxsize=16)
def _taps(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The old pixels that each new pixel is made of, int64 [K, new], and their weights in units of 2^-22, int32 [K, new].

    A pixel made of fewer than K has weights of 0. The weights form a triangle, as wide as a new pixel where the image shrinks,
    and as an old one where it grows.
    """
    scale = old / new
    width = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - width + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + width + 0.5).astype(np.int64), old)
    tap = np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((tap + first - centre + 0.5) * (1 / width)), 0) * (tap < last - first)
    # Summed one after the other, as Pillow does; another order would change the last digit of a weight.
    whole = (0.5 + weights / np.cumsum(weights, 0)[-1] * 2**_FRACTION).astype(np.int32)
    return torch.from_numpy(np.minimum(tap + first, old - 1)).to(device), torch.from_numpy(whole).to(device)


def _resized_along(images: Tensor, dim: int, size: int) -> Tensor:
    """int32 grey levels with one dimension (-1 or -2) resized to `size`, rounded to whole levels."""
    places, weights = _taps(images.shape[dim], size, images.device)
    shape = (1, size) if dim == -1 else (size, 1)
    # The sum is at most 255.5 * 2^22, which fits 32 bits. Adding a half before the shift rounds to the nearest level.
    products = (images.index_select(dim, at).mul_(share.view(shape)) for at, share in zip(places, weights))
    total = functools.reduce(torch.add, products)
    return total.add_(2 ** (_FRACTION - 1)) >> _FRACTION


def resize(images: Tensor, size: int, how: str = "float") -> Tensor:
    """Images [B, C, S, S] in 0..255 resized to [B, C, size, size]; images of that size are returned as they are.

    Bilinear with antialiasing. how: `float` resizes in one step. `rounded` (released) resizes the rows and then the columns, each
    rounded to 8 bits, which is bit for bit what Pillow makes of an 8-bit image; fractions of grey levels are rounded first.
    """
    if images.shape[-1] == size:
        return images
    if how == "rounded":
        # On the CPU one image at a time, which fits the cache: a fifth of the time.
        parts = (part.round().to(torch.int32) for part in images.split(1 if images.device.type == "cpu" else len(images)))
        return torch.cat([_resized_along(_resized_along(part, -1, size), -2, size) for part in parts]).to(images.dtype)
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def to_network(images: Tensor, size: int, how: str = "float") -> Tensor:
    """Images [B, C, S, S] in 0..255, C 1 (grey) or 3 -> ImageNet-normalised [B, 3, size, size], channels-last. `how`: see
    `resize`."""
    images = resize(images, size, how)
    mean, std = _mean_and_deviation(images.device)
    # One grey channel becomes three on the way.
    return (images - mean).div_(std).contiguous(memory_format=torch.channels_last)
