"""The images of one list.

In: what `tcn.data.store` keeps, or a plain array. Out: `Pixels`, from which training and scoring gather batches of
uint8 by index.
"""
from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.data.splits import Files


class View(ABC):
    """A read-only view of N images in the store that behaves like a uint8 array [N, S, S, 3].

    The images of a list are scattered over the store. A copy in the list's order would take gigabytes and minutes for each run,
    so a view only keeps where each image lies, and reads the images that are asked for. `len`, `shape`, indexing and
    `numpy.asarray` work as with an array; greyscale images then have three equal channels. `rows` is the fast way, and keeps a
    greyscale batch at one channel.
    """

    grey: np.ndarray
    """bool [N], whether an image is greyscale."""

    @property
    @abstractmethod
    def side(self) -> int:
        """S: width and height of every image."""

    @abstractmethod
    def read(self, indices: np.ndarray, found: np.ndarray) -> None:
        """Put the images at `indices` into `found`, uint8 [B, S, S, C]; C is 1 only where all of them are grey."""

    @abstractmethod
    def part(self, chosen: slice) -> View:
        """A view of some of the images."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self.grey), self.side, self.side, 3

    def __len__(self) -> int:
        return len(self.grey)

    def rows(self, indices: np.ndarray, make: Callable[[tuple[int, ...]], np.ndarray] | None = None) -> np.ndarray:
        """The images at `indices`, uint8 [B, S, S, C]: C is 1 if all are grey, else 3. `make(shape)` allocates the result."""
        indices = np.asarray(indices)
        channels = 1 if len(indices) and self.grey[indices].all() else 3
        found = (make or _empty)((len(indices), self.side, self.side, channels))
        self.read(indices, found)
        return found

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        found = self.rows(np.atleast_1d(chosen))
        found = np.broadcast_to(found, (*found.shape[:3], 3))
        return found if np.ndim(chosen) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype)


@dataclass(frozen=True)
class Packed(View):
    """Images that lie decoded in slots of equal size.

    pools: memory-mapped uint8 [slots, S, S, channels] by name, `grey` with one channel and `colour` with three. grey: bool [N],
    whether an image lies in the pool of one channel. slots: int64 [N], its place in its pool.
    """

    pools: dict[str, np.ndarray]
    grey: np.ndarray
    slots: np.ndarray

    @property
    def side(self) -> int:
        """S."""
        return int(next(iter(self.pools.values())).shape[1])

    def read(self, indices: np.ndarray, found: np.ndarray) -> None:
        """Copy the images at `indices` into `found`."""
        grey, slots = self.grey[indices], self.slots[indices]
        for name, own in (("grey", slots[grey]), ("colour", slots[~grey])):
            each = self.pools[name][:1].nbytes
            announce(self.pools[name], own * each, np.full(len(own), each))
        if grey.all() or not grey.any():
            pool = self.pools["grey" if grey.any() else "colour"]
            if pool.shape[3] == found.shape[3]:
                np.take(pool, slots, axis=0, out=found, mode="clip")
                return
        found[grey] = self.pools["grey"][slots[grey]]
        found[~grey] = self.pools["colour"][slots[~grey]]

    def part(self, chosen: slice) -> Packed:
        """A view of some of the images."""
        return Packed(self.pools, self.grey[chosen], self.slots[chosen])


def announce(mapped: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Tell the system that these bytes of a memory-mapped file are read next, so that it fetches them all at once.

    Where they are not in memory, each page would otherwise be waited for in its turn. starts, lengths: int64 [B], in bytes. Does
    nothing for an array in memory, and on systems that take no such advice.
    """
    file = mapped.base
    if not isinstance(file, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
        return
    for start, length in zip(starts.tolist(), lengths.tolist()):
        before = start % mmap.PAGESIZE
        file.madvise(mmap.MADV_WILLNEED, start - before, length + before)


def _empty(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def _pinned(shape: tuple[int, ...]) -> np.ndarray:
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


@dataclass(frozen=True)
class Pixels:
    """The decoded images of one list: `array`, uint8 [N, S, S, 3], is an array or a view of the store; `files` is the list."""

    array: np.ndarray | View
    files: Files

    def __len__(self) -> int:
        return len(self.array)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image: int64 [N]."""
        return self.files.labels

    def part(self, start: int, stop: int) -> Pixels:
        """The images from `start` to before `stop`; a view, as this is one."""
        chosen, f = slice(start, stop), self.files
        array = self.array.part(chosen) if isinstance(self.array, View) else self.array[chosen]
        return Pixels(array, Files(f.root, f.paths[chosen], f.labels[chosen], f.sources[chosen], f.groups[chosen],
                                   f.instances[chosen]))

    def gather(self, indices: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """The images at `indices` as uint8 [B, S, S, C] on the host, in pinned memory if `device` is CUDA.

        C is 1 if all of them lie in the store as greyscale images, else 3.
        """
        make = _pinned if torch.device(device).type == "cuda" else _empty
        if isinstance(self.array, View):
            return torch.from_numpy(self.array.rows(indices, make))
        found = make((len(indices), *self.array.shape[1:]))
        return torch.from_numpy(np.take(self.array, indices, axis=0, out=found, mode="clip"))


