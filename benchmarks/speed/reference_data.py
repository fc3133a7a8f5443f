"""Pairs from disk in the released style: open, convert, warp, resize, to tensor, normalise, one image after the other.

This is what a loader's worker does for each pair in every epoch, with Pillow and torchvision. The released augmentation warps
float images and truncates them to 8 bits; here SciPy warps them (`warp_floats`). `warp_bytes` is Pillow's faster warp, which
rounds to 8 bits. The geometry is drawn by `tcn.data.augment.draw_geometry`.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import functional as T

from tcn.data.augment import IMAGENET_MEAN, IMAGENET_STD, Geometry, affine

Warp = Callable[[Image.Image, np.ndarray, int], Image.Image]


def warp_floats(image: Image.Image, back: np.ndarray, fill: int) -> Image.Image:
    """Warp an image bilinearly, channel by channel, in float. back [2, 3] maps each new pixel (x, y) to its source."""
    pixels = np.asarray(image) / 255.0
    # SciPy counts rows before columns.
    matrix, offset = back[::-1, 1::-1], back[::-1, 2]
    channels = [ndimage.affine_transform(pixels[:, :, c], matrix, offset, order=1, mode="grid-constant", cval=fill / 255)
                for c in range(3)]
    return Image.fromarray((np.stack(channels, 2) * 255).astype(np.uint8))


def warp_bytes(image: Image.Image, back: np.ndarray, fill: int) -> Image.Image:
    """Warp an image bilinearly in 8 bits; `back` as in `warp_floats`."""
    # Pillow maps the centre (x + 0.5, y + 0.5) of each new pixel.
    moved = back + np.array([0.0, 0.0, 0.5]) - np.outer(back[:, :2].sum(1), [0.0, 0.0, 0.5])
    return image.transform(image.size, Image.Transform.AFFINE, moved.reshape(-1).tolist(), Image.Resampling.BILINEAR,
                           fillcolor=(fill,) * 3)


def image_from_disk(path: Path, matrix: np.ndarray, fill: int, stored: int, size: int, warp: Warp) -> Tensor:
    """One augmented image [3, size, size], normalised. matrix [2, 3] maps old pixel coordinates to new ones."""
    image = Image.open(path).convert("RGB")
    if image.size != (stored, stored):
        image = image.resize((stored, stored), Image.Resampling.BILINEAR)
    image = warp(image, np.linalg.inv(np.concatenate([matrix, [[0.0, 0.0, 1.0]]]))[:2], fill)
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return T.normalize(T.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)


def batch_from_disk(sketches: list[Path], photos: list[Path], geometry: Geometry, fills: tuple[int, int], stored: int, size: int,
                    warp: Warp = warp_floats) -> tuple[Tensor, Tensor]:
    """Batches of sketches and of photos, each [B, 3, size, size]; a Python loop goes over the pairs."""
    matrices = affine(geometry, stored, (stored - 1) / 2)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for matrix, *pair in zip(matrices, sketches, photos):
        for side, path, fill in zip(sides, pair, fills):
            side.append(image_from_disk(path, matrix, fill, stored, size, warp))
    return torch.stack(sides[0]), torch.stack(sides[1])
