"""Pairs from disk to a ready batch, per CPU core: the packed store and batched augmentation, beside a loader in the released
style.

The files of 256 x 256 pixels are made here: photos (JPEG) are sums of smooth noise, sketches (PNG) are lines, so that decoding
costs what it does for real ones (a photo has some 20 KB). Network size 224, batch 32.
"""
from __future__ import annotations

import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.speed.conftest import Timed
from benchmarks.speed.reference_data import Warp, batch_from_disk, warp_bytes, warp_floats
from tcn.config import Config, change
from tcn.data.augment import draw_geometry
from tcn.data.decode import decode
from tcn.data.pairs import PairSource
from tcn.data.splits import Files
from tcn.data.store import pack
from tcn.model.execution import keep_memory

STORED, SIZE, BATCH, PICTURES, CLASSES = 256, 224, 32, 256, 8
CUDA = torch.cuda.is_available()
SETTINGS = change(Config(), {"data.stored_size": STORED, "data.image_size": SIZE, "data.batch_pairs": BATCH}).data


@lru_cache(maxsize=1)
def folder() -> Path:
    """The folder with the pictures `photo/N.jpg` and `sketch/N.png`."""
    root, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    for name in ("photo", "sketch"):
        (root / name).mkdir()
    for i in range(PICTURES):
        layers = np.zeros((STORED, STORED, 3), np.float32)
        for side, share in ((6, 0.5), (24, 0.25), (96, 0.2), (STORED, 0.05)):
            noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
            layers += np.asarray(noise.resize((STORED, STORED), Image.Resampling.BICUBIC), np.float32) * share
        Image.fromarray(layers.clip(0, 255).astype(np.uint8)).save(root / "photo" / f"{i}.jpg", quality=90)
        drawing = Image.new("RGB", (STORED, STORED), "white")
        pen = ImageDraw.Draw(drawing)
        for _ in range(12):
            pen.line([tuple(point) for point in rng.integers(0, STORED, (5, 2)).tolist()], fill="black", width=2)
        drawing.filter(ImageFilter.GaussianBlur(0.6)).save(root / "sketch" / f"{i}.png")
    return root


def listed(kind: str, suffix: str) -> Files:
    paths = tuple(f"{i}.{suffix}" for i in range(PICTURES))
    return Files(folder() / kind, paths, np.arange(PICTURES) % CLASSES, ("",) * PICTURES)


@lru_cache(maxsize=1)
def source() -> PairSource:
    sketches, photos = (pack(listed(kind, suffix), STORED, folder() / "cache", kind, kind, False)
             for kind, suffix in (("sketch", "png"), ("photo", "jpg")))
    return PairSource(sketches, photos, SETTINGS)


def plain_batches(number: int, warp: Warp) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        chosen = rng.integers(0, PICTURES, BATCH)
        sketches, photos = ([folder() / kind / f"{i}.{suffix}" for i in chosen]
                            for kind, suffix in (("sketch", "png"), ("photo", "jpg")))
        found.append(batch_from_disk(sketches, photos, draw_geometry(rng, BATCH), (SETTINGS.sketch_fill, SETTINGS.photo_fill),
                                     STORED, SIZE, warp))
    return found


def on_the_host() -> None:
    """Read an epoch's pixels from the store, ready to be copied to a device: the CPU's share of the work where a GPU augments."""
    own = source()
    for chosen in own._plan(0, 1):
        own._gather(chosen, torch.device("cuda" if CUDA else "cpu"))


def on_the_cpu() -> None:
    for _ in source().epoch(0, 1, torch.device("cpu")):
        pass


def on_the_device() -> None:
    for _ in source().epoch(0, 1, torch.device("cuda")):
        pass


@pytest.mark.parametrize("role", ("reference", "ours"))
@pytest.mark.parametrize("work", ("a GPU augments", "the CPU alone", "the CPU alone, beside Pillow's 8-bit warp"))
def bench_pairs(timed: Timed, work: str, role: str) -> None:
    source()
    if role == "reference":
        warp = warp_bytes if "Pillow" in work else warp_floats
        timed("data", f"pair to batch, {work}", role, 2 * BATCH, "pair", lambda: plain_batches(2, warp), rounds=4, warmup=1,
              threads=1, note="decodes each pair, warps it with " + ("Pillow" if warp is warp_bytes else "SciPy in float"))
        return
    keep_memory()
    run = on_the_host if work == "a GPU augments" else on_the_cpu
    timed("data", f"pair to batch, {work}", role, source().pairs, "pair", run, rounds=4, warmup=1, threads=1,
          note="pixels on the host; the rest is the GPU's" if run is on_the_host else "")


@pytest.mark.skipif(not CUDA, reason="no CUDA device")
def bench_pairs_on_the_device(timed: Timed) -> None:
    timed("data", "pair to batch on the GPU", "ours", source().pairs, "pair", on_the_device, rounds=4, warmup=1,
          note="store to augmented batch on the device")


@pytest.mark.parametrize("role", ("reference", "ours"))
def bench_decoding(timed: Timed, role: str) -> None:
    photos, cache = listed("photo", "jpg"), folder() / "fresh"

    def plain() -> None:
        for path in photos.paths:
            np.save(folder() / "plain.npy", decode(photos.root / path, STORED))

    run = plain if role == "reference" else lambda: pack(photos, STORED, cache, "photo", "photo", False)
    timed("data", "decode once, into the store", role, PICTURES, "image", run, rounds=4, warmup=1,
          setup=lambda: shutil.rmtree(cache, ignore_errors=True), note="one by one, a file each" if role == "reference" else "")
