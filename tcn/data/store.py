"""Image files decoded once into a packed store that every split and run shares.

In: a `Files` list and the digest of its data set. Out: `Pixels`, squares of uint8 read from memory-mapped files.
A store is one folder for a data set's contents and one size. Its data files hold images in one of two forms
(`tcn.data.packing`), one after the other; `index.jsonl` maps each image file to its slot, with a checksum of the pixels and one
of the line. All of them only grow, and pixels are written before the lines that name them. A process that dies loses at most the
files decoded since the last lines were written.
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tcn.config import InputError
from tcn.data.decode import READINGS, Reading, decode
from tcn.data.packing import CHECK, FORMS, Form, Slot, asked_form, form_for
from tcn.data.pixels import Pixels, View
from tcn.data.prefetch import prefetch
from tcn.data.splits import Files
from tcn.files import atomic, locks
from tcn.files.text import shown

FORMAT = "rgb-bilinear-3"
"""Part of a store's name: how `decode` reads a file, and how a store is laid out."""
_TOGETHER = 128
"""Files decoded between two writes of the index: what a killed process loses."""
_SAMPLE = 64
"""Slots whose checksum is compared whenever a store is opened."""
_SPARE = 50_000_000
"""Bytes of disk that are left free."""


_INDEXES: dict[Path, tuple[tuple[int, ...], dict[str, Slot]]] = {}
"""Index file -> the state of the store's files when this process last read it, and its content."""


class Store:
    """Images of one data set at one size, in a folder of their own and in one form."""

    def __init__(self, folder: Path, size: int, form: Form = FORMS["decoded"]) -> None:
        self.folder, self.size, self.form = folder, size, form

    @property
    def index_file(self) -> Path:
        """One line of JSON per image: [path, pool, slot, CRC-32 of the pixels, CRC-32 of the line up to here].

        In the compact form, the slot is the first byte, and before the last number stand the bytes and their CRC-32. Where its
        `Reading` is not the default, the reading's mark is appended to the path.
        """
        return self.folder / "index.jsonl"

    def index(self) -> dict[str, Slot]:
        """Cached path -> its slot. Truncated or corrupt index lines, and lines whose pixels are missing, are skipped."""
        lengths = {file: _bytes_of(self.folder / file) for file in self.form.files}
        try:
            stat = self.index_file.stat()
        except FileNotFoundError:
            return {}
        # Reading half a million lines takes seconds, and a run asks for seven lists, so the content is kept.
        state = stat.st_ino, stat.st_size, stat.st_mtime_ns, *lengths.values()
        known = _INDEXES.get(self.index_file)
        if known is None or known[0] != state:
            known = _INDEXES[self.index_file] = state, self._read_index(lengths)
        return known[1]

    def _read_index(self, lengths: dict[str, int]) -> dict[str, Slot]:
        lines = self.index_file.read_bytes().split(b"\n")[:-1]
        found: dict[str, Slot] = {}
        for line in lines:
            entry, _, check = line.rpartition(b", ")
            # A line damaged on disk could name another image's pixels, so its image is decoded again.
            if check != b"%d]" % zlib.crc32(entry):
                continue
            path, pool, *place = json.loads(entry + b"]")
            slot = Slot(sys.intern(pool), *place)  # one text for all, not one for each line
            if self.form.holds(slot, lengths, self.size):
                found[path] = slot
        return found

    def view(self, slots: Sequence[Slot]) -> View:
        """The images in these slots."""
        return self.form.view(self.folder, self.size, slots)

    def damaged(self, index: dict[str, Slot], paths: Sequence[str]) -> list[str]:
        """Those of `paths` whose pixels no longer have the checksum that they were written with."""
        slots = [index[path] for path in paths]
        view = self.view(slots)
        found = (_image(view, place) for place in range(len(view)))
        return [path for path, slot, image in zip(paths, slots, found)
                if image is None or zlib.crc32(image.data) != slot.checksum]

    def forget(self, paths: Sequence[str]) -> None:
        """Remove images from the index, so that they are decoded again. To be called under `lock`."""
        gone, kept = set(paths), self.index()
        atomic.write_bytes(self.index_file,
                            "".join(_line(path, slot) for path, slot in kept.items() if path not in gone).encode())

    @contextlib.contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """Let one process at a time change the store; `doing` tells others that wait what it does.

        A process that has to wait says for which one. The system frees the lock of a process that died.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.lock(self.folder / "lock", doing))
            except locks.Held as held:
                atomic.warn(f"waiting for another process at the image cache {self.folder}: {held.holder}")
                stack.enter_context(locks.lock(self.folder / "lock", doing, seconds=None))
            yield

    def add(self, root: Path, paths: Sequence[str], name: str, progress: bool, reading: Reading = Reading()) -> list[str]:
        """Decode files into the store. To be called under `lock`. Returns what is wrong with each unreadable file.

        An image that looks the same under another reading is not stored twice.
        """
        text = self.index_file.read_bytes() if self.index_file.exists() else b""
        if not text.endswith(b"\n") or text.count(b"\n") != len(self.index()):
            # Half a line at the end; or lines without pixels, which would come to name the pixels added now.
            self.forget([])
        broken: list[str] = []

        def one(path: str) -> tuple[str, _Made | str]:
            try:
                image = _without_needless_channels(decode(root / path, self.size, reading))
                return path, _Made(image, *self.form.packed(image, root / path))
            except OSError as error:
                return path, f"{shown(root / path)} ({error})"
            except MemoryError:
                raise InputError(f"out of memory while {shown(root / path)} was decoded; scale it down, or run where more memory "
                                 f"is free: what is decoded already is kept") from None

        workers = os.cpu_count() or 1
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(_Writer(self, name, reading))
            bar = stack.enter_context(tqdm(total=len(paths), desc=f"decode {name}", unit="img", disable=not progress,
                                           leave=False))
            # Decoding does not hold Python's lock, so threads serve. Four waiting results for each bound the memory.
            made = stack.enter_context(contextlib.closing(prefetch(iter(paths), one, 4 * workers, workers)))
            for path, result in made:
                if isinstance(result, str):
                    broken.append(result)
                else:
                    writer.put(path, result)
                bar.update()
            writer.finish()
        return broken


@dataclass(frozen=True)
class _Made:
    """An image, uint8 [S, S, C], and the bytes that it becomes in its pool."""

    image: np.ndarray
    pool: str
    data: bytes


class _Writer:
    """Appends images to a store's files and, every `_TOGETHER` images, the lines that name them to its index."""

    def __init__(self, store: Store, name: str, reading: Reading) -> None:
        self.store, self.name, self.reading = store, name, reading
        self._known = store.index()
        self._ends = {file: store.form.whole(_bytes_of(store.folder / file), file, store.size) for file in store.form.files}
        self._pending: list[str] = []
        self._open = contextlib.ExitStack()

    def __enter__(self) -> _Writer:
        with contextlib.ExitStack() as stack:
            self._files = {name: stack.enter_context(open(self.store.folder / name, "ab")) for name in self._ends}
            for name, file in self._files.items():  # the last image may be incomplete, if a process died while it wrote
                file.truncate(self._ends[name])
            self._lines = stack.enter_context(open(self.store.index_file, "ab"))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def put(self, path: str, made: _Made) -> None:
        """Store the image of a file."""
        file = self.store.form.file_of(made.pool)
        slot = self.store.form.slot(made.pool, self._ends[file], made.data, made.image)
        twins = [self._known[path + r.mark] for r in READINGS if path + r.mark in self._known]
        same = [t for t in twins if t.checksum == slot.checksum
                and (image := _image(self.store.view([t]), 0)) is not None and np.array_equal(image, made.image)]
        if same:
            slot = same[0]
        else:
            self._files[file].write(made.data)
            self._ends[file] += len(made.data)
        self._pending.append(_line(path + self.reading.mark, slot))
        if len(self._pending) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Hand pixels, then lines, to the system: a killed process loses none of them. Checksums guard against a power cut."""
        if shutil.disk_usage(self.store.folder).free < _SPARE:
            raise InputError(f"no room left for the image cache of {self.name} in {self.store.folder}; free some space or pass "
                             f"another folder with --cache: what is decoded already is kept")
        check_limit(self.store.folder.parent, 0, self.name)
        for file in self._files.values():
            file.flush()
        self._lines.write("".join(self._pending).encode())
        self._lines.flush()
        self._pending.clear()

    def finish(self) -> None:
        """Write what is pending, and wait until the disk has it."""
        self.flush()
        for file in (*self._files.values(), self._lines):
            os.fsync(file.fileno())


def _line(path: str, slot: Slot) -> str:
    entry = json.dumps([path, *slot.entry])[:-1]
    return f"{entry}, {zlib.crc32(entry.encode())}]\n"


def _image(view: View, place: int) -> np.ndarray | None:
    """One image, uint8 [S, S, 1 or 3]; None where its bytes don't give it any more."""
    try:
        return np.asarray(view.rows(np.array([place]))[0])
    except InputError:
        return None


def _without_needless_channels(image: np.ndarray) -> np.ndarray:
    """[S, S, 3] -> [S, S, 1] where red, green and blue are equal everywhere, as in most sketches."""
    for step in (16, 1):  # most photos show it in a few pixels
        part = image[::step, ::step]
        if (part[:, :, 0] != part[:, :, 1]).any() or (part[:, :, 0] != part[:, :, 2]).any():
            return image
    return image[:, :, :1]


def pack(files: Files, size: int, cache: Path, digest: str, name: str, progress: bool = True, reading: Reading = Reading(),
         images: int = 0) -> Pixels:
    """The images of `files` at `size` pixels, decoded once into a store in `cache` and memory-mapped from there.

    `digest` stands for the contents (a split's data digest, the same for all splits of a data set), `name` for messages; `images`
    says how many images the whole data set has, which decides the form of a new store. What a store already has is not
    decoded again, whatever list or run brought it there; it may be used from several processes at once. Raises InputError
    naming every unreadable image, or what is missing where the disk has no room or $TCN_CACHE_LIMIT_GB is reached; what was
    decoded stays.
    """
    store = store_of(digest, size, cache, name, max(images, len(files)))
    wanted = dict.fromkeys(path + reading.mark for path in files.paths)
    index: dict[str, Slot] = {}
    try:
        index = store.index()
        if present := [path for path in wanted if path in index]:
            index = _mended(store, index, present)
        if missing := [path for path in wanted if path not in index]:
            _fill(store, files, missing, name, progress, reading)
            index = store.index()
        view = store.view([index[path + reading.mark] for path in files.paths])
    except OSError as error:
        raise _unusable(store, error, f"{sum(path not in index for path in wanted):,} of {len(wanted):,} images") from error
    return Pixels(view, files)


def store_of(digest: str, size: int, cache: Path, name: str, images: int) -> Store:
    """Where `pack` keeps the images of a data set, and in which form; nothing is made.

    The form is what $TCN_CACHE_FORM asks for, else that of the store that is there, else it depends on how many images there are.
    """
    key = hashlib.sha256(json.dumps([digest, size, FORMAT]).encode()).hexdigest()[:12]
    stores = {form: Store(cache / "pixels" / f"{_word(name)}-{size}-{'' if form == 'decoded' else f'{form}-'}{key}", size, how)
              for form, how in FORMS.items()}
    there = [store for store in stores.values() if os.path.exists(store.index_file)]
    return there[0] if there and asked_form() is None else stores[form_for(images, size).name]


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
    check = store.folder / CHECK
    told = check.exists()
    step = max(1, len(present) // _SAMPLE)
    if not told and not store.damaged(index, present[::step]):
        return index
    checked = list(index) if told else present
    if bad := store.damaged(index, checked):
        warnings.warn(f"image cache {store.folder}: {len(bad)} of {len(checked)} images {store.form.doubt}, the first "
                      f"{bad[0]!r}; they are decoded again", stacklevel=3)
    with store.lock("forgetting damaged images"):
        if bad:
            store.forget(bad)
        check.unlink(missing_ok=True)
    return store.index()


def _fill(store: Store, files: Files, missing: list[str], name: str, progress: bool, reading: Reading) -> None:
    pixels = store.folder.parent
    store.folder.mkdir(parents=True, exist_ok=True)
    with store.lock(f"decoding {name}"):
        there = store.index()  # another process may have been at it meanwhile
        missing = [path.removesuffix(reading.mark) for path in missing if path not in there]
        # How many are grey shows only when they are decoded, and how many are the same in another reading: `add` stops where
        # there is no room after all.
        needed = sum(all(path + r.mark not in there for r in READINGS) for path in missing) * store.form.least(store.size)
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
        more = f"{needed / 1e9:.1f} GB more at the least" if needed else "more than that"
        raise InputError(f"the image cache of {name} needs {more}, and TCN_CACHE_LIMIT_GB is {text}; {pixels} holds {held}: "
                         f"delete a folder there that is not needed, or raise the limit")
