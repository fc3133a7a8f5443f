"""The two forms in which a store keeps images: decoded, or as compact files give back bit for bit.

In: decoded images and the files that they come from. Out: bytes to append to a store's files; and, from where they lie, a `View`
of the images. The forms differ in disk and speed, never in a pixel, so which one is used is no setting of a run:
`decoded` keeps uint8 as it is, some 130 KB a picture at 256 pixels. `compact` keeps a JPEG file that already has the store's size
as it was published, and everything else deflated without loss.
"""
from __future__ import annotations

import contextlib
import io
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from tcn.config import InputError
from tcn.data.decode import opened
from tcn.data.pixels import Packed, View, announce

CHANNELS = {"colour": 3, "grey": 1}
"""Pool -> channels of its images. Greyscale images are kept with one channel."""
DECODED_UP_TO = 2_000_000_000
"""Bytes: a data set that would take no more than this, decoded and all in colour, is kept decoded, a larger one compact, unless
$TCN_CACHE_FORM says which."""
MOST_THREADS = 4
"""Threads that decode one batch, no more than torch computes with. At 256 pixels, each decodes some 2,500 photos a second."""
_EACH_THREAD = 8
"""A batch gives every thread that many images or more, so that starting it pays."""
CHECK = "check"
"""A file of this name in a store's folder says that a reader met damage, so that the next one who opens it checks every image."""
_JPEG = b"\xff\xd8\xff"
_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an image lies: its pool, its place there, and the CRC-32 of its pixels.

    number: of the slot in its pool (decoded), or the first byte (compact). length, kept: bytes of a compact image, their CRC-32.
    """

    pool: str
    number: int
    checksum: int
    length: int = 0
    kept: int = 0

    @property
    def entry(self) -> list[str | int]:
        """What a line of the index says of it."""
        return [self.pool, self.number, self.checksum, *((self.length, self.kept) if self.length else ())]


class Form(ABC):
    """How the images of a store are kept in its files, which only grow."""

    name: str
    pools: tuple[str, ...]
    doubt = "are damaged"
    """What is said of images whose pixels do not have the checksum that they were stored with."""

    @abstractmethod
    def file_of(self, pool: str) -> str:
        """Name of the file that holds a pool."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that hold the images."""
        return tuple(dict.fromkeys(self.file_of(pool) for pool in self.pools))

    @abstractmethod
    def holds(self, slot: Slot, lengths: Mapping[str, int], size: int) -> bool:
        """Whether an image lies within the bytes that the files have (name -> length)."""

    @abstractmethod
    def whole(self, length: int, file: str, size: int) -> int:
        """To how many bytes a file of `length` bytes is cut before it grows: nothing that anyone may read is lost."""

    @abstractmethod
    def packed(self, image: np.ndarray, source: Path) -> tuple[str, bytes]:
        """Pool and bytes of an image, uint8 [S, S, 1 or 3], that was read from `source`. OSError if that can't be read again."""

    @abstractmethod
    def slot(self, pool: str, start: int, data: bytes, image: np.ndarray) -> Slot:
        """The slot of an image whose bytes begin at byte `start` of its file."""

    @abstractmethod
    def view(self, folder: Path, size: int, slots: Sequence[Slot]) -> View:
        """The images in these slots."""

    @abstractmethod
    def least(self, size: int) -> int:
        """Bytes that an image takes at the least."""

    @abstractmethod
    def most(self, size: int) -> int:
        """Bytes that a photo takes at the most, on average."""

    @abstractmethod
    def expected(self, sketches: int, photos: int, size: int) -> int:
        """Bytes that so many images probably take."""


class Decoded(Form):
    """Slots of 3 bytes or 1 byte a pixel: the fastest to read, and the largest."""

    name = "decoded"
    pools = "colour", "grey"

    def file_of(self, pool: str) -> str:
        """`colour.u8` or `grey.u8`."""
        return f"{pool}.u8"

    def holds(self, slot: Slot, lengths: Mapping[str, int], size: int) -> bool:
        """Whether the slot is whole."""
        return (slot.number + 1) * self._each(slot.pool, size) <= lengths[self.file_of(slot.pool)]

    def whole(self, length: int, file: str, size: int) -> int:
        """Whole slots stay, also those that no line names: another process may have mapped them."""
        each = self._each(file.removesuffix(".u8"), size)
        return length // each * each

    def packed(self, image: np.ndarray, source: Path) -> tuple[str, bytes]:
        """The pixels as they are."""
        return "grey" if image.shape[2] == 1 else "colour", image.tobytes()

    def slot(self, pool: str, start: int, data: bytes, image: np.ndarray) -> Slot:
        """The slot that begins there."""
        return Slot(pool, start // len(data), zlib.crc32(data))

    def view(self, folder: Path, size: int, slots: Sequence[Slot]) -> Packed:
        """Memory-mapped pools."""
        pools = {}
        for pool, channels in CHANNELS.items():
            file = folder / self.file_of(pool)
            number = file.stat().st_size // self._each(pool, size) if file.exists() else 0
            shape = number, size, size, channels
            pools[pool] = np.memmap(file, np.uint8, "r", shape=shape) if number else np.empty(shape, np.uint8)
        return Packed(pools, np.array([slot.pool == "grey" for slot in slots], bool), _numbers(slots, "number"))

    def least(self, size: int) -> int:
        """One byte a pixel."""
        return size * size

    def most(self, size: int) -> int:
        """Three bytes a pixel."""
        return 3 * size * size

    def expected(self, sketches: int, photos: int, size: int) -> int:
        """Sketches in grey, photos in colour."""
        return (sketches + 3 * photos) * size * size

    def _each(self, pool: str, size: int) -> int:
        return size * size * CHANNELS[pool]


class Compact(Form):
    """Published JPEG files, and deflated pixels, one after the other in one file. A pool's name says how they are read."""

    name = "compact"
    pools = "colour-jpeg", "grey-jpeg", "colour-deflated", "grey-deflated"
    doubt = "are damaged, or this version of torchvision decodes them otherwise"

    def file_of(self, pool: str) -> str:
        """All in one."""
        return "pictures.bin"

    def holds(self, slot: Slot, lengths: Mapping[str, int], size: int) -> bool:
        """Whether all its bytes are there."""
        return slot.number + slot.length <= lengths[self.file_of(slot.pool)]

    def whole(self, length: int, file: str, size: int) -> int:
        """All of it: where the last image ends shows only in lines that may be lost."""
        return length

    def packed(self, image: np.ndarray, source: Path) -> tuple[str, bytes]:
        """A JPEG file's own bytes, where they give exactly these pixels and are fewer; else deflated pixels."""
        channels = image.shape[2]
        kind = "grey" if channels == 1 else "colour"
        with open(source, "rb") as file:
            data = file.read(image.nbytes)  # more would not pay
        if data.startswith(_JPEG) and len(data) < image.nbytes and _is_that(image, data, f"{kind}-jpeg"):
            return f"{kind}-jpeg", data
        # In colour, the difference to the row above deflates to 52 % for photos, where the pixels themselves take 71 %.
        rows = np.concatenate([image[:1], image[1:] - image[:-1]]) if channels == 3 else image
        return f"{kind}-deflated", zlib.compress(rows.tobytes())

    def slot(self, pool: str, start: int, data: bytes, image: np.ndarray) -> Slot:
        """The bytes from there."""
        return Slot(pool, start, zlib.crc32(image.tobytes()), len(data), zlib.crc32(data))

    def view(self, folder: Path, size: int, slots: Sequence[Slot]) -> CompactView:
        """The memory-mapped file."""
        file = folder / self.file_of("")
        mapped = np.memmap(file, np.uint8, "r") if file.exists() and file.stat().st_size else np.empty(0, np.uint8)
        return CompactView(mapped, file, size, np.array([slot.pool.startswith("grey") for slot in slots], bool),
                           tuple(slot.pool for slot in slots), *(_numbers(slots, name) for name in ("number", "length", "kept")))

    def least(self, size: int) -> int:
        """A sixteenth of a bit a pixel, which a drawing of few lines takes."""
        return size * size // 128

    def most(self, size: int) -> int:
        """Two bytes a pixel: photos that are scaled, and so can't be kept as JPEG."""
        return 2 * size * size

    def expected(self, sketches: int, photos: int, size: int) -> int:
        """A quarter of a byte a pixel for sketches; for photos 0.4 where the published files have that size, 1.6 where they are
        scaled."""
        return int((0.25 * sketches + (0.4 if size == 256 else 1.6) * photos) * size * size)


@dataclass(frozen=True)
class CompactView(View):
    """Images that are decoded when they are read, a batch in several threads.

    mapped: memory-mapped uint8 [bytes] of `file`. Of each image: grey bool [N]; its pool; starts, lengths and checksums int64 [N]
    of its bytes. Every read compares the checksum, so a damaged image is an InputError and never other pixels.
    """

    mapped: np.ndarray
    file: Path
    size: int
    grey: np.ndarray
    pools: tuple[str, ...]
    starts: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray

    @property
    def side(self) -> int:
        """S."""
        return self.size

    def read(self, indices: np.ndarray, found: np.ndarray) -> None:
        """Decode the images at `indices` into `found`."""
        announce(self.mapped, self.starts[indices], self.lengths[indices])
        chosen = indices.tolist()
        workers = min(MOST_THREADS, torch.get_num_threads(), len(chosen) // _EACH_THREAD)

        def some(first: int, step: int) -> None:
            for place in range(first, len(chosen), step):
                found[place] = self._image(chosen[place])

        if workers < 2:
            some(0, 1)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for done in [pool.submit(some, first, workers) for first in range(workers)]:
                done.result()

    def _image(self, index: int) -> np.ndarray:
        start = int(self.starts[index])
        data = np.array(self.mapped[start: start + int(self.lengths[index])])
        with contextlib.suppress(OSError, RuntimeError, zlib.error):
            if zlib.crc32(data.data) == self.checksums[index]:
                return _unpacked(data, self.pools[index], self.size)
        with contextlib.suppress(OSError):
            (self.file.parent / CHECK).touch()
        raise InputError(f"image cache {self.file.parent}: the {self.lengths[index]:,} bytes from byte {start:,} of "
                         f"{self.file.name} are damaged; give the same command again: damaged images are then decoded again")

    def part(self, chosen: slice) -> CompactView:
        """A view of some of the images."""
        return CompactView(self.mapped, self.file, self.size, self.grey[chosen], self.pools[chosen], self.starts[chosen],
                           self.lengths[chosen], self.checksums[chosen])


def _is_that(image: np.ndarray, data: bytes, pool: str) -> bool:
    """Whether the bytes of a file give exactly an image."""
    try:
        with opened(io.BytesIO(data)) as header:
            fits = header.size == image.shape[:2]  # what has to be scaled need not be decoded for this
        return fits and np.array_equal(_unpacked(np.frombuffer(data, np.uint8).copy(), pool, len(image)), image)
    except (OSError, RuntimeError):  # torchvision reads fewer kinds of JPEG than Pillow
        return False


def _unpacked(data: np.ndarray, pool: str, size: int) -> np.ndarray:
    """Bytes of a compact image, uint8 [bytes] -> the image, uint8 [S, S, C]. OSError or RuntimeError if they are none."""
    kind, _, code = pool.partition("-")
    channels = CHANNELS[kind]
    if code == "jpeg":
        image = decode_jpeg(torch.from_numpy(data), mode=_MODES[channels]).permute(1, 2, 0).numpy()
        if image.shape != (size, size, channels):
            raise OSError(f"{image.shape} instead of {size} x {size} pixels")
        return np.asarray(image)
    plain = bytearray(zlib.decompress(data.data, bufsize=size * size * channels))
    rows = np.frombuffer(plain, np.uint8).reshape(size, size, channels)
    step = 1 if channels == 3 else size
    while step < size:  # sums of 2, 4, 8 ... rows, the first ones too; NumPy copies what overlaps
        rows[step:] += rows[:-step]
        step *= 2
    return rows


def _numbers(slots: Sequence[Slot], name: str) -> np.ndarray:
    return np.array([getattr(slot, name) for slot in slots], np.int64)


FORMS: dict[str, Form] = {form.name: form for form in (Decoded(), Compact())}
"""Name -> form; the first that a data set has already is used where none is asked for."""


def asked_form() -> Form | None:
    """The form that $TCN_CACHE_FORM asks for; None where it leaves the choice. InputError if it is none."""
    name = os.environ.get("TCN_CACHE_FORM") or "auto"
    if name not in ("auto", *FORMS):
        raise InputError(f"TCN_CACHE_FORM is '{name}'; it must be {', '.join(FORMS)} or auto")
    return FORMS.get(name)


def form_for(images: int, size: int) -> Form:
    """The form of a new store for a data set of so many images: what is asked for, else by `DECODED_UP_TO`."""
    return asked_form() or FORMS["decoded" if images * 3 * size * size <= DECODED_UP_TO else "compact"]
