"""The decoded images of one list.

In: what `tcn.data.store` has decoded, or a plain array. Out: `Pixels`, from which training and scoring gather batches of
uint8 by index.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.data.splits import Files


@dataclass(frozen=True)
class Packed:
    """A read-only view of N images in the store that behaves like a uint8 array [N, S, S, 3].

    The images of a list are scattered over the store: in any slot, of the pool with three channels or of the one with one. A copy
    in the list's order would take gigabytes and minutes for each run, so the view only keeps where each image lies, and copies
    the images that are asked for. `len`, `shape`, indexing and `numpy.asarray` work as with an array; greyscale images
    then have three equal channels. `rows` is the fast way, and keeps a greyscale batch at one channel.

    pools: memory-mapped uint8 [slots, S, S, channels] by name. grey: bool [N], whether an image lies in the pool of one channel.
    slots: int64 [N], its place in its pool.
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
        """The images at `indices`, uint8 [B, S, S, C]: C is 1 if all are grey, else 3. `make(shape)` allocates the result."""
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
    """The decoded images of one list: `array`, uint8 [N, S, S, 3], is an array or a view of the store; `files` is the list."""

    array: np.ndarray | Packed
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
        array = Packed(self.array.pools, self.array.grey[chosen], self.array.slots[chosen]) if isinstance(self.array, Packed) \
            else self.array[chosen]
        return Pixels(array, Files(f.root, f.paths[chosen], f.labels[chosen], f.sources[chosen], f.groups[chosen], f.instances[chosen]))

    def gather(self, indices: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """The images at `indices` as uint8 [B, S, S, C] on the host, in pinned memory if `device` is CUDA.

        C is 1 if all of them lie in the store as greyscale images, else 3.
        """
        make = _pinned if torch.device(device).type == "cuda" else _empty
        if isinstance(self.array, Packed):
            return torch.from_numpy(self.array.rows(indices, make))
        found = make((len(indices), *self.array.shape[1:]))
        return torch.from_numpy(np.take(self.array, indices, axis=0, out=found, mode="clip"))


