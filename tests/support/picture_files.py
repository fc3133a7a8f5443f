"""Pictures made for tests, as files in folders and as lists of them."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tcn.config import Config, change
from tcn.data.pairs import PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files


def write(path: Path, array: np.ndarray) -> None:
    """A picture file of an array, in a folder that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def listing(root: Path, paths: list[str], labels: list[int]) -> Files:
    """A list of files without publishers."""
    return Files(root, tuple(paths), np.array(labels, dtype=np.int64), ("",) * len(paths))


def numbered_source(tmp_path: Path, photos: int = 10, batch: int = 4) -> PairSource:
    """Pairs of 8 x 8 pictures whose red channel is their number: four sketches and so many photos of three classes."""
    def pixels(name, labels):
        array = np.zeros((len(labels), 8, 8, 3), np.uint8)
        array[:, :, :, 0] = np.arange(len(labels))[:, None, None]
        return Pixels(array, listing(tmp_path, [f"{name}{i}" for i in range(len(labels))], labels))

    settings = change(Config(), {"data.image_size": 8, "data.stored_size": 8, "data.batch_pairs": batch}).data
    return PairSource(pixels("s", [0, 1, 1, 2]), pixels("p", [i % 3 for i in range(photos)]), settings)


SIZE = 8


def pictures(folder: Path, number: int, grey: tuple[int, ...] = (), seed: int = 0) -> np.ndarray:
    """PNG files `0.png` ...; those in `grey` have equal channels. Returns them as uint8 [number, SIZE, SIZE, 3]."""
    found = np.random.default_rng(seed).integers(0, 256, (number, SIZE, SIZE, 3), dtype=np.uint8)
    for i in grey:
        found[i] = found[i, :, :, :1]
    for i, picture in enumerate(found):
        write(folder / f"{i}.png", picture)
    return found


def named(folder: Path, numbers: Iterable[int]) -> Files:
    """The files that `pictures` writes, all of one class."""
    return listing(folder, [f"{i}.png" for i in numbers], [0] * len(list(numbers)))


def store_of(cache: Path) -> Path:
    """The only image store in a cache."""
    folder, = (cache / "pixels").iterdir()
    return folder


def numbers(*shape: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    """Random samples of 8 or 16 bits."""
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype({8: np.uint8, 16: np.uint16}[bits])
