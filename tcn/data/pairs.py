"""Photo-driven epochs: every photo once, each with a random sketch of its class, augmented alike.

In: decoded training sketches and photos of the seen classes. Out: `PairBatch`es on the device.
Paper: training pairs.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tcn.config import Data, InputError
from tcn.data.augment import Geometry, augment_at, draw_geometry, places_of, to_network
from tcn.data.pixels import Pixels
from tcn.data.prefetch import prefetch, prefetch_depth, to_float
from tcn.seeding import numpy_stream


@dataclass(frozen=True)
class PairBatch:
    """B pairs: sketches and photos [B, 3, H, W], normalised; labels int64 [B] (seen class index).

    Where several processes train together, sketches and photos are those of this process's share of the B pairs.
    """

    sketches: Tensor
    photos: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class PairSource:
    """Training pairs of the seen classes, drawn anew for every epoch from the run's seed."""

    def __init__(self, sketches: Pixels, photos: Pixels, settings: Data) -> None:
        self.sketches, self.photos, self.settings = sketches, photos, settings
        order = np.argsort(sketches.labels, kind="stable")
        classes, starts = np.unique(sketches.labels[order], return_index=True)
        self._by_class = dict(zip(classes.tolist(), np.split(order, starts[1:])))
        lonely = sorted(set(np.unique(photos.labels).tolist()) - set(self._by_class))
        if lonely:
            raise InputError(f"classes with training photos but no training sketch: indices {lonely[:10]}; "
                             f"every seen class needs at least one")
        if len(photos) < 2:
            raise InputError("fewer than 2 training photos; batch norm needs at least 2 in a batch")

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.photos), self.settings.batch_pairs)
        return full + (rest > 1)

    @property
    def pairs(self) -> int:
        """Pairs in an epoch: one per photo, without a last one that would be alone in its batch (batch norm needs two)."""
        return len(self.photos) - (len(self.photos) % self.settings.batch_pairs == 1)

    def epoch(self, seed: int, epoch: int, device: torch.device, depth: int | None = None,
              rows: Callable[[int], slice] | None = None) -> Iterator[PairBatch]:
        """The batches of one epoch, counted from 1. The same seed and epoch give the same batches.

        depth: number of batches read from the store before they are asked for, in a thread; None: `prefetch_depth` the device. It
        does not change the batches.
        rows: number of pairs in a batch -> those whose images are read here; None: all.
        It does not change what is drawn for them.
        """
        device = torch.device(device)
        depth = prefetch_depth(device) if depth is None else depth
        with contextlib.closing(prefetch(self._plan(seed, epoch, rows), lambda chosen: self._gather(chosen, device),
                                         depth)) as ready:
            for chosen, sketches, photos in ready:
                yield self._finish(chosen, sketches, photos, device)

    def _plan(self, seed: int, epoch: int, rows: Callable[[int], slice] | None = None) -> Iterator[_Chosen]:
        rng = numpy_stream(seed, "pairs", epoch)
        # A random order also covers the released code's second shuffle within each batch.
        photos = rng.permutation(len(self.photos))
        labels = self.photos.labels[photos]
        replayed = self.settings.loader_streams == "replayed"
        # Replayed: the order of photos is new, but each position gets the sketch and the geometry of the first epoch.
        draws = (numpy_stream(seed, "replayed sketches") if replayed else rng).random(len(photos))
        sketches = np.array([self._by_class[c][int(u * len(self._by_class[c]))] for c, u in zip(labels.tolist(), draws)])
        size = self.settings.batch_pairs
        for step in range(self.steps):
            own = slice(step * size, (step + 1) * size)
            geometry = draw_geometry(numpy_stream(seed, "augmentation", 1 if replayed else epoch, step), len(photos[own]))
            read = rows(len(photos[own])) if rows else slice(None)
            yield _Chosen(sketches[own][read], photos[own][read], labels[own], geometry.rows(read))

    def _gather(self, chosen: _Chosen, device: torch.device) -> tuple[_Chosen, Tensor, Tensor]:
        return chosen, self.sketches.gather(chosen.sketches, device), self.photos.gather(chosen.photos, device)

    def _finish(self, chosen: _Chosen, sketches: Tensor, photos: Tensor, device: torch.device) -> PairBatch:
        settings = self.settings
        images = [to_float(block, device) for block in (sketches, photos)]
        places = places_of(chosen.geometry, settings.augmentation, images[0].shape[-1], images[0])
        sketch, photo = (to_network(augment_at(one, places, settings.augmentation, fill), settings.image_size, settings.resize)
                         for one, fill in zip(images, (settings.sketch_fill, settings.photo_fill)))
        return PairBatch(sketch, photo, torch.from_numpy(chosen.labels).to(device, non_blocking=True))


@dataclass(frozen=True)
class _Chosen:
    """What a batch is made of: indices [B] of sketches and photos, labels [B], and the geometry of each pair. Of a share of a
    batch, indices and geometry are of these pairs alone."""

    sketches: np.ndarray
    photos: np.ndarray
    labels: np.ndarray
    geometry: Geometry
