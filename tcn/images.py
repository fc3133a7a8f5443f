"""Image files decoded once into a packed cache, and paired augmentation in batches on the device.

In: a `Files` list. Out: `Pixels`, a memory-mapped array of uint8 squares; and float batches, augmented with the
same random geometry for a sketch and its photo, normalised as ImageNet networks expect. Paper: implementation
details; released code for the augmentation's form.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from tcn.config import InputError
from tcn.datasets import Files

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SHIFT_SHARE = 10 / 256
"""Largest shift as a share of the stored side (released: 10 of 256 pixels)."""


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one list: `array` uint8 [N, S, S, 3], `files` the list they came from."""

    array: np.ndarray
    files: Files

    def __len__(self) -> int:
        return len(self.array)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image: int64 [N]."""
        return self.files.labels

    def batch(self, indices: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Images at `indices` as float [B, 3, S, S] in 0..255 on `device`."""
        block = torch.from_numpy(np.ascontiguousarray(self.array[indices])).to(device, non_blocking=True)
        return block.permute(0, 3, 1, 2).float()


def decode(path: Path, size: int) -> np.ndarray:
    """One image file as uint8 [size, size, 3], transparent parts on white. Raises OSError where unreadable."""
    with Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image)


def pack(files: Files, size: int, cache: Path, digest: str, name: str, progress: bool = True) -> Pixels:
    """The images of `files` at `size` pixels, decoded once into `cache` and memory-mapped from there.

    `digest` stands for the contents (a split's data digest), `name` for progress bars. Raises InputError naming
    every unreadable image, or what is missing where the disk has no room; a finished cache is not touched.
    """
    key = hashlib.sha256(json.dumps([digest, size, list(files.paths), "rgb-bilinear-1"]).encode()).hexdigest()[:16]
    target = cache / "pixels" / f"{name.replace('/', '-').replace(' ', '-')}-{size}-{key}.npy"
    if not target.exists():
        _decode_all(files, size, target, name, progress)
    array = np.load(target, mmap_mode="r")
    if array.shape != (len(files.paths), size, size, 3):
        raise InputError(f"image cache {target} has shape {array.shape}, expected {(len(files.paths), size, size, 3)}; "
                         f"delete that file and run again")
    return Pixels(array, files)


def _decode_all(files: Files, size: int, target: Path, name: str, progress: bool) -> None:
    needed = len(files.paths) * size * size * 3
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise InputError(f"the cache folder {target.parent} can't be used ({error.strerror}); pass another with --cache"
                         ) from error
    if needed > free - 50_000_000:
        raise InputError(f"no room for the image cache of {name}: it needs {needed / 1e6:,.0f} MB in {target.parent}, "
                         f"{free / 1e6:,.0f} MB are free; free some space or pass another folder with --cache")
    partial = target.with_suffix(f".{os.getpid()}.partial")
    broken: list[str] = []
    try:
        with open(partial, "wb") as out:
            np.lib.format.write_array_header_1_0(
                out, {"descr": "|u1", "fortran_order": False, "shape": (len(files.paths), size, size, 3)})

            def one(path: str) -> np.ndarray | str:
                try:
                    return decode(files.root / path, size)
                except Exception as error:  # image libraries raise many kinds for a bad file
                    return f"{files.root / path} ({type(error).__name__}: {error})"

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                chunks = range(0, len(files.paths), 256)
                with tqdm(total=len(files.paths), desc=f"decode {name}", unit="img", disable=not progress,
                          leave=False) as bar:
                    for start in chunks:
                        for result in pool.map(one, files.paths[start:start + 256]):
                            if isinstance(result, str):
                                broken.append(result)
                            elif not broken:
                                out.write(result.tobytes())
                            bar.update()
        if broken:
            more = f" and {len(broken) - 20} more" if len(broken) > 20 else ""
            raise InputError(f"{len(broken)} unreadable image(s) in {name}: {'; '.join(broken[:20])}{more}; "
                             f"replace them with intact copies")
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"writing the image cache {target} failed ({error.strerror}); free some space or pass another "
                         f"folder with --cache") from error
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Geometry:
    """Random geometry of B pairs: flip bool [B]; sx, sy, rotation (radians), tx, ty (share of the side), each [B]."""

    flip: np.ndarray
    sx: np.ndarray
    sy: np.ndarray
    rotation: np.ndarray
    tx: np.ndarray
    ty: np.ndarray


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


def warp(images: Tensor, matrices: np.ndarray, fill: float) -> Tensor:
    """Bilinear warp of images [B, 3, S, S] by `matrices` [B, 2, 3] (old to new pixel coordinates), `fill` outside."""
    size = images.shape[-1]
    full = np.concatenate([matrices, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))], 1)
    back = torch.from_numpy(np.linalg.inv(full)[:, :2]).to(images)
    axis = torch.arange(size, device=images.device, dtype=images.dtype)
    grid = torch.stack([axis.repeat(size), axis.repeat_interleave(size), torch.ones(size * size).to(axis)])
    places = (back @ grid).transpose(1, 2).reshape(len(images), size, size, 2)
    places = 2 * places / (size - 1) - 1
    return F.grid_sample(images - fill, places, mode="bilinear", padding_mode="zeros", align_corners=True) + fill


def augment(images: Tensor, geometry: Geometry, form: str, fill: float) -> Tensor:
    """Augmented images [B, 3, S, S] in 0..255. `released`: about the top-left corner, black outside, truncated to
    8 bits; `corrected`: about the centre, `fill` outside."""
    size = images.shape[-1]
    if form == "released":
        # A whole grey level may come out of the interpolation a rounding too low, which truncating would make one less.
        slack = 1e-6 if images.dtype == torch.float64 else 2.0**-7
        return (warp(images, affine(geometry, size, 0.0), 0.0) + slack).clamp(0, 255).floor()
    return warp(images, affine(geometry, size, (size - 1) / 2), fill)


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


def to_network(images: Tensor, size: int) -> Tensor:
    """Images [B, 3, S, S] in 0..255 -> ImageNet-normalised [B, 3, size, size], channels-last."""
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=images.device).view(1, 3, 1, 1) * 255
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)
