"""Image files decoded once into a packed store that every split and run shares.

In: a `Files` list and the digest of its data set. Out: `Pixels`, squares of uint8 read from memory-mapped files.
A store is one folder for a data set's contents and one size: `colour.u8` and `grey.u8` hold slots of 3 or 1 bytes a
pixel one after the other, `index.jsonl` says which file is in which slot, with a checksum of the pixels and one of the
line. Both only grow, pixels before the lines that speak of them, so what is cut off at any moment is at most the last
lines' worth.
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from torch import Tensor
from tqdm import tqdm

from tcn.config import InputError
from tcn.data.splits import Files
from tcn.files import atomic, locks
from tcn.files.text import shown

FORMAT = "rgb-bilinear-3"
"""Enters a store's name: what `decode` makes of a file, and how a store is laid out."""
MOST_PIXELS = 89_478_485
"""Largest image that is read: where Pillow begins to warn, a quarter of a gigabyte at 3 bytes a pixel."""
LONGEST_SIDE = 65_535
"""Longest side that is read, as of JPEG: a strip of one pixel by millions takes 256 times its size to resize."""
CHANNELS = {"colour": 3, "grey": 1}
_TOGETHER = 128
"""Files decoded between two lines of the index: what a killed process loses."""
_SAMPLE = 64
"""Slots whose checksum is compared whenever a store is opened."""
_SPARE = 50_000_000
"""Bytes of disk that are left free."""

Item, Made = TypeVar("Item"), TypeVar("Made")


_GIF = threading.Lock()


@contextlib.contextmanager
def opened(source: Path | IO[bytes]) -> Iterator[Image.Image]:
    """A JPEG, PNG, GIF, BMP or WebP file, whatever its name, whose declared size is bearable; its pixels are read in the block, the
    first picture of an animation.

    Raises OSError saying what is wrong, without the file's name, for whatever image libraries raise, also in the block. No
    memory is taken for what is too large, and no other kind of file is tried: Pillow would hand some (EPS) to other programs.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(source, "rb")) if isinstance(source, Path) else source
            image = stack.enter_context(_reader(file))
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
                raise Image.DecompressionBombError(f"{width:,} x {height:,} pixels")
            yield image
    except MemoryError:
        raise
    except Exception as error:  # image libraries raise many kinds for a bad file
        raise OSError(_what_is_wrong(error)) from error


def _reader(file: IO[bytes]) -> Image.Image:
    """Header read, no pixels. Not by `Image.open`, which only warns of some sizes that are too large."""
    start = file.read(64)
    file.seek(0)
    if start[:6] in (b"GIF87a", b"GIF89a"):  # a frame may be larger than the file's own size: there only Pillow looks
        with _GIF, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return GifImagePlugin.GifImageFile(file)
    if start[:3] == b"\xff\xd8\xff":
        return JpegImagePlugin.jpeg_factory(file)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return PngImagePlugin.PngImageFile(file)
    if start[:2] == b"BM":
        return BmpImagePlugin.BmpImageFile(file)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":  # photos from the web under a .jpg name
        return WebPImagePlugin.WebPImageFile(file)
    if not start:
        raise OSError("0 bytes")
    its = next((its for place, sign, its in _FOREIGN if start[place:].startswith(sign)), None)
    if its is None and start.lstrip()[:1] == b"<":
        its = "a page of HTML or XML, such as an error page saved in the picture's place: get the picture again"
    raise OSError(f"not a JPEG, PNG, GIF, BMP or WebP image{' but ' if its else ''}{its or ''}")


_FOREIGN = (
    (0, b"\x1f\x8b", "gzip-compressed: call it NAME.gz and run `gunzip NAME.gz`"),
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` in the checkout it comes from"),
    (0, b"PK\3\4", "a zip archive: unpack it"), (0, b"%PDF", "a PDF document"), (0, b"%!PS", "PostScript"),
    (0, b"II*\0", "TIFF: save it as PNG"), (0, b"MM\0*", "TIFF: save it as PNG"),
    (4, b"ftyp", "HEIC, AVIF or a film: save it as PNG or JPEG"), (0, b"\0\0\0\x0cjP", "JPEG 2000: save it as PNG"),
    (0, bytes(16), "zeros at its start: get it again"))
"""What other files start with, from which byte, and what to say of them."""


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        number = re.search(r"\((\d+) pixels\)", str(error))
        declared = f"{int(number[1]):,} pixels" if number else str(error)
        return (f"it declares {declared}, more than the {MOST_PIXELS:,} pixels, or {LONGEST_SIDE:,} a side, that are read; scale "
                f"it down if it is really so large")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True)
class Reading:
    """What becomes of a file's transparent parts and of its EXIF orientation: see `config.Data`."""

    transparent: str = "white"
    exif: str = "ignored"

    @property
    def mark(self) -> str:
        """Ends a picture's name in a store's index; nothing for the default, which stores held before there was another."""
        return "" if self == Reading() else f"\0{self.transparent},{self.exif}"


READINGS = tuple(Reading(transparent, exif) for transparent in ("white", "as-stored") for exif in ("ignored", "applied"))
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
"""EXIF orientation -> what sets the picture upright."""


def decode(path: Path, size: int, reading: Reading = Reading()) -> np.ndarray:
    """One image file as uint8 [size, size, 3], 16 bits by their upper 8. By default transparent parts are put on white and the
    picture is turned as it is stored, whatever its EXIF data say. Raises OSError saying what is wrong where unreadable."""
    with opened(path) as image:
        turn = _TURNS.get(orientation(image)) if reading.exif == "applied" else None
        image = _in_colour(image, reading.transparent == "white")
        image = image if turn is None else image.transpose(turn)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where none is given or it can't be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise many kinds of error; the picture itself is whole
        return 1
    return value if value in _TURNS else 1


def _in_colour(image: Image.Image, on_white: bool) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips to white
        values = np.asarray(image).astype(np.int64)
        grey = np.where(values == key, 255, values >> 8) if on_white and isinstance(key, int) else values >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if isinstance(key, tuple) and any("16" in str(tile.args) for tile in image.tile):
        image.info["transparency"] = tuple(value >> 8 for value in key)  # 16-bit colour is read by its upper 8 bits
    if on_white and (image.mode in ("RGBA", "LA", "PA") or key is not None):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


@dataclass(frozen=True)
class Packed:
    """N images inside a store: stands where an array uint8 [N, S, S, 3] may stand that is only read.

    pools: memory-mapped uint8 [slots, S, S, channels] by name. grey bool [N], slots int64 [N]: where each image lies.
    """

    pools: dict[str, np.ndarray]
    grey: np.ndarray
    slots: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        size = next(iter(self.pools.values())).shape[1]
        return len(self.slots), size, size, 3

    def __len__(self) -> int:
        return len(self.slots)

    def rows(self, indices: np.ndarray, make: Callable[[tuple[int, ...]], np.ndarray] | None = None) -> np.ndarray:
        """The images at `indices`, uint8 [B, S, S, C]: C is 1 where all are grey, else 3. `make` gives the array to fill."""
        indices = np.asarray(indices)
        grey, slots = self.grey[indices], self.slots[indices]
        size, channels = self.shape[1], 1 if len(grey) and grey.all() else 3
        found = (make or _empty)((len(indices), size, size, channels))
        if channels == 1:
            np.take(self.pools["grey"], slots, axis=0, out=found, mode="clip")
        elif not grey.any():
            np.take(self.pools["colour"], slots, axis=0, out=found, mode="clip")
        else:
            found[grey] = self.pools["grey"][slots[grey]]
            found[~grey] = self.pools["colour"][slots[~grey]]
        return found

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        found = self.rows(np.atleast_1d(chosen))
        found = np.broadcast_to(found, (*found.shape[:3], 3))
        return found if np.ndim(chosen) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype)


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def _pinned(shape: tuple[int, ...]) -> np.ndarray:
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one list: `array` uint8 [N, S, S, 3] (an array, or `Packed`), `files` the list they came from."""

    array: np.ndarray | Packed
    files: Files

    def __len__(self) -> int:
        return len(self.array)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image: int64 [N]."""
        return self.files.labels

    def gather(self, indices: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Images at `indices` as uint8 [B, S, S, C] on the host, in pinned memory where they go on to CUDA.

        C is 1 where all of them are grey and the store knows it, else 3.
        """
        make = _pinned if torch.device(device).type == "cuda" else _empty
        if isinstance(self.array, Packed):
            return torch.from_numpy(self.array.rows(indices, make))
        found = make((len(indices), *self.array.shape[1:]))
        return torch.from_numpy(np.take(self.array, indices, axis=0, out=found, mode="clip"))


def to_float(block: Tensor, device: torch.device | str) -> Tensor:
    """uint8 [B, S, S, C] -> float [B, C, S, S] in 0..255 on `device`; moved as bytes."""
    moved = block.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return moved.to(torch.float32, memory_format=torch.contiguous_format)


def ahead_for(device: torch.device) -> int:
    """Batches to read ahead: none on the CPU, whose cores compute; elsewhere a few, of which each pair at 256 pixels takes
    0.26 to 0.39 MB of host memory."""
    return 0 if device.type == "cpu" else 4


def ahead(items: Iterator[Item], make: Callable[[Item], Made], depth: int, workers: int = 1) -> Iterator[Made]:
    """make(item) for each item, in order, up to `depth` of them made in threads before they are asked for (0: none).

    An error in `make` is raised where its result would have come. Ending early leaves no thread behind.
    """
    if depth < 1:
        yield from map(make, items)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class Slot:
    """Where an image lies: pool, number of the slot in it, CRC-32 of its bytes."""

    pool: str
    number: int
    checksum: int


_INDEXES: dict[Path, tuple[tuple[int, ...], dict[str, Slot]]] = {}
"""Indexes read by this process, with the state of the files they were read from."""


class Store:
    """Decoded images of one data set at one size, in a folder of their own."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    @property
    def index_file(self) -> Path:
        """One JSON line an image: [path, pool, slot, CRC-32 of the pixels, CRC-32 of the line without this]; the path ends in the
        mark of its `Reading`, where that is not the default."""
        return self.folder / "index.jsonl"

    def bytes_of(self, pool: str) -> int:
        """Bytes of one slot."""
        return self.size * self.size * CHANNELS[pool]

    def index(self) -> dict[str, Slot]:
        """What is there, by path. Lines that were cut short or damaged, or speak of missing pixels, don't count."""
        room = {pool: self._length(pool) // self.bytes_of(pool) for pool in CHANNELS}
        try:
            stat = self.index_file.stat()
        except FileNotFoundError:
            return {}
        # Half a million lines take seconds, and a run asks for seven lists.
        state = stat.st_ino, stat.st_size, stat.st_mtime_ns, *room.values()
        known = _INDEXES.get(self.index_file)
        if known is None or known[0] != state:
            known = _INDEXES[self.index_file] = state, self._read_index(room)
        return known[1]

    def _read_index(self, room: dict[str, int]) -> dict[str, Slot]:
        lines = self.index_file.read_bytes().split(b"\n")[:-1]
        found: dict[str, Slot] = {}
        for line in lines:
            entry, _, check = line.rpartition(b", ")
            # A line damaged on disk could name another image's pixels: its image is decoded again.
            if check != b"%d]" % zlib.crc32(entry):
                continue
            path, pool, number, checksum = json.loads(entry + b"]")
            if number < room[pool]:
                found[path] = Slot(pool, number, checksum)
        return found

    def _length(self, pool: str) -> int:
        try:
            return (self.folder / f"{pool}.u8").stat().st_size
        except FileNotFoundError:
            return 0

    def pools(self) -> dict[str, np.ndarray]:
        """Memory-mapped uint8 [slots, S, S, C] by name; an empty one where nothing is stored."""
        found = {}
        for pool, channels in CHANNELS.items():
            slots = self._length(pool) // self.bytes_of(pool)
            shape = slots, self.size, self.size, channels
            file = self.folder / f"{pool}.u8"
            found[pool] = np.memmap(file, np.uint8, "r", shape=shape) if slots else np.empty(shape, np.uint8)
        return found

    def damaged(self, index: dict[str, Slot], paths: Sequence[str]) -> list[str]:
        """Those of `paths` whose pixels do not have the checksum they were written with."""
        pools = self.pools()
        return [path for path in paths if zlib.crc32(pools[index[path].pool][index[path].number]) != index[path].checksum]

    def forget(self, paths: Sequence[str]) -> None:
        """Take images out of the index, so that they are decoded again; to be called under `lock`."""
        gone, kept = set(paths), self.index()
        atomic.write_bytes(self.index_file,
                            "".join(_line(path, slot) for path, slot in kept.items() if path not in gone).encode())

    @contextlib.contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """One process at a time decodes into a store; the system frees the lock of one that died. Whoever waits says for whom."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.lock(self.folder / "lock", doing))
            except locks.Held as held:
                atomic.complain(f"waiting for another process at the image cache {self.folder}: {held.holder}")
                stack.enter_context(locks.lock(self.folder / "lock", doing, seconds=None))
            yield

    def add(self, root: Path, paths: Sequence[str], name: str, progress: bool, reading: Reading = Reading()) -> list[str]:
        """Decode files into the store; to be called under `lock`. Returns what is wrong with each unreadable one. A picture that
        another reading left the same is not stored twice."""
        text = self.index_file.read_bytes() if self.index_file.exists() else b""
        if not text.endswith(b"\n") or text.count(b"\n") != len(self.index()):
            self.forget([])  # half a line; or lines that speak of no pixels, and must not come to speak of those added now
        known, there = self.index(), self.pools()
        # Whole slots stay, also those that no line speaks of: another process may have them in its memory.
        used = {pool: self._length(pool) // self.bytes_of(pool) for pool in CHANNELS}
        broken: list[str] = []

        def one(path: str) -> tuple[str, np.ndarray | str]:
            try:
                return path, _without_needless_channels(decode(root / path, self.size, reading))
            except OSError as error:
                return path, f"{shown(root / path)} ({error})"
            except MemoryError:
                raise InputError(f"out of memory while {shown(root / path)} was decoded; scale it down, or run where more memory "
                                 f"is free: what is decoded already is kept") from None

        workers = os.cpu_count() or 1
        with contextlib.ExitStack() as stack:
            pools = {pool: stack.enter_context(open(self.folder / f"{pool}.u8", "ab")) for pool in CHANNELS}
            for pool, file in pools.items():  # part of a slot was cut off half-way
                file.truncate(used[pool] * self.bytes_of(pool))
            lines = stack.enter_context(open(self.index_file, "ab"))
            bar = stack.enter_context(tqdm(total=len(paths), desc=f"decode {name}", unit="img", disable=not progress,
                                           leave=False))
            # Decoding itself does not hold Python's lock, so threads serve; four waiting for each keeps memory bounded.
            made = stack.enter_context(contextlib.closing(ahead(iter(paths), one, 4 * workers, workers)))
            pending: list[str] = []

            def keep() -> None:
                if shutil.disk_usage(self.folder).free < _SPARE:
                    raise InputError(f"no room left for the image cache of {name} in {self.folder}; free some space or pass "
                                     f"another folder with --cache: what is decoded already is kept")
                # A killed process loses nothing that was handed to the system; a power cut is for the checksums.
                for file in pools.values():
                    file.flush()
                lines.write("".join(pending).encode())
                lines.flush()
                pending.clear()

            for path, result in made:
                if isinstance(result, str):
                    broken.append(result)
                else:
                    pool = "grey" if result.shape[2] == 1 else "colour"
                    data = result.tobytes()
                    slot = Slot(pool, used[pool], zlib.crc32(data))
                    twins = [known[path + r.mark] for r in READINGS if path + r.mark in known]
                    same = [t for t in twins if t.pool == pool and np.array_equal(there[pool][t.number], result)]
                    if same:
                        slot = Slot(pool, same[0].number, slot.checksum)
                    else:
                        pools[pool].write(data)
                        used[pool] += 1
                    pending.append(_line(path + reading.mark, slot))
                if len(pending) >= _TOGETHER:
                    keep()
                bar.update()
            keep()
            for file in (*pools.values(), lines):
                os.fsync(file.fileno())
        return broken


def _line(path: str, slot: Slot) -> str:
    entry = json.dumps([path, slot.pool, slot.number, slot.checksum])[:-1]
    return f"{entry}, {zlib.crc32(entry.encode())}]\n"


def _without_needless_channels(image: np.ndarray) -> np.ndarray:
    """[S, S, 3] -> [S, S, 1] where red, green and blue are equal everywhere, as in most sketches."""
    for step in (16, 1):  # most photos show it in a few pixels
        part = image[::step, ::step]
        if (part[:, :, 0] != part[:, :, 1]).any() or (part[:, :, 0] != part[:, :, 2]).any():
            return image
    return image[:, :, :1]


def pack(files: Files, size: int, cache: Path, digest: str, name: str, progress: bool = True, reading: Reading = Reading()
         ) -> Pixels:
    """The images of `files` at `size` pixels, decoded once into a store in `cache` and memory-mapped from there.

    `digest` stands for the contents (a split's data digest, the same for all splits of a data set), `name` for
    messages. What a store already has is not decoded again, whatever list or run brought it there; it may be used from
    several processes at once. Raises InputError naming every unreadable image, or what is missing where the disk has no
    room or $TCN_CACHE_LIMIT_GB is reached; what was decoded stays.
    """
    store = store_of(digest, size, cache, name)
    wanted = dict.fromkeys(path + reading.mark for path in files.paths)
    index: dict[str, Slot] = {}
    try:
        index = store.index()
        if present := [path for path in wanted if path in index]:
            index = _mended(store, index, present)
        if missing := [path for path in wanted if path not in index]:
            _fill(store, files, missing, name, progress, reading)
            index = store.index()
        pools = store.pools()
    except OSError as error:
        raise _unusable(store, error, f"{sum(path not in index for path in wanted):,} of {len(wanted):,} images") from error
    found = [index[path + reading.mark] for path in files.paths]
    grey = np.array([slot.pool == "grey" for slot in found], bool)
    slots = np.array([slot.number for slot in found], np.int64)
    return Pixels(Packed(pools, grey, slots), files)


def store_of(digest: str, size: int, cache: Path, name: str) -> Store:
    """Where `pack` keeps the images of a data set; nothing is made."""
    key = hashlib.sha256(json.dumps([digest, size, FORMAT]).encode()).hexdigest()[:12]
    return Store(cache / "pixels" / f"{_word(name)}-{size}-{key}", size)


def _unusable(store: Store, error: OSError, lacking: str) -> InputError:
    """What to tell the user about a store that can't be read or written."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InputError(f"writing the image cache {store.folder} failed ({reason}); free some space or pass another folder "
                          f"with --cache: what is decoded already is kept")
    return InputError(f"the image cache {store.folder} can't be used ({reason}), and {lacking} are not in it yet; make it a "
                      f"folder that can be written, or pass another one with --cache")


def _word(name: str) -> str:
    """The data set's name: the first word of what a list is called."""
    return "".join(c if c.isalnum() else "-" for c in name.split()[0]) if name.split() else "images"


def _mended(store: Store, index: dict[str, Slot], present: list[str]) -> dict[str, Slot]:
    """Compare some checksums; where one is wrong, all, and forget what is damaged."""
    step = max(1, len(present) // _SAMPLE)
    if not store.damaged(index, present[::step]):
        return index
    bad = store.damaged(index, present)
    warnings.warn(f"image cache {store.folder}: {len(bad)} of {len(present)} images are damaged, the first {bad[0]!r}; "
                  f"they are decoded again", stacklevel=3)
    with store.lock("forgetting damaged images"):
        store.forget(bad)
    return store.index()


def _fill(store: Store, files: Files, missing: list[str], name: str, progress: bool, reading: Reading) -> None:
    pixels = store.folder.parent
    store.folder.mkdir(parents=True, exist_ok=True)
    with store.lock(f"decoding {name}"):
        there = store.index()  # another process may have been at it meanwhile
        missing = [path.removesuffix(reading.mark) for path in missing if path not in there]
        # How many are grey shows only when they are decoded, and how many are the same in another reading: `add` stops where
        # there is no room after all.
        needed = sum(all(path + r.mark not in there for r in READINGS) for path in missing) * store.bytes_of("grey")
        free = shutil.disk_usage(store.folder).free
        if needed > free - _SPARE:
            raise InputError(f"no room for the image cache of {name}: it needs {needed / 1e6:,.0f} MB at the least in "
                             f"{store.folder} and {_SPARE / 1e6:,.0f} MB to spare, {free / 1e6:,.0f} MB are free; free some "
                             f"space or pass another folder with --cache")
        check_limit(pixels, needed, name)
        broken = store.add(files.root, missing, name, progress, reading)
    if broken:
        more = ""
        if len(broken) > 20:
            listed = store.folder / "unreadable.txt"
            atomic.write_bytes(listed, "".join(f"{one}\n" for one in broken).encode("utf-8", "backslashreplace"))
            more = f" and {len(broken) - 20} more, all in {listed}"
        raise InputError(f"{len(broken)} unreadable image(s) in {name}: {'; '.join(broken[:20])}{more}; "
                         f"replace them with intact copies")


def sizes(cache: Path) -> dict[str, int]:
    """Bytes of each image store below a cache folder, by its folder's name."""
    folder = cache / "pixels"
    if not folder.is_dir():
        return {}
    return {entry.name: sum(_bytes_of(file) for file in entry.iterdir()) for entry in sorted(folder.iterdir()) if entry.is_dir()}


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # another process has just put it under its final name
        return 0


def check_limit(pixels: Path, needed: int, name: str) -> None:
    """InputError where $TCN_CACHE_LIMIT_GB is no number, or so many more bytes below `pixels` would go beyond it."""
    text = os.environ.get("TCN_CACHE_LIMIT_GB")
    if not text:
        return
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit >= 0:  # NaN neither: it would limit nothing
        raise InputError(f"TCN_CACHE_LIMIT_GB is '{text}'; it must be a number of gigabytes from 0")
    there = sizes(pixels.parent)
    if sum(there.values()) + needed > limit:
        held = ", ".join(f"{folder} {size / 1e9:.1f} GB" for folder, size in there.items()) or "nothing"
        raise InputError(f"the image cache of {name} needs {needed / 1e9:.1f} GB more at the least, and TCN_CACHE_LIMIT_GB is "
                         f"{text}; "
                         f"{pixels} holds {held}: delete a folder there that is not needed, or raise the limit")
