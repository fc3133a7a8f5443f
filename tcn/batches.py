"""Photo-driven epochs: every photo once, each with a random sketch of its class, augmented alike.

In: decoded training sketches and photos of the seen classes. Out: `PairBatch`es on the device.
Paper: training pairs.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import numpy as np
import torch
from torch import Tensor

from tcn.config import Data, InputError
from tcn.images import Pixels, augment, draw_geometry, to_network
from tcn.seeding import numpy_stream


@dataclass(frozen=True)
class PairBatch:
    """B pairs: sketches and photos [B, 3, H, W], normalised; labels int64 [B] (seen class index)."""

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
        """Pairs in an epoch: the photos, less a last one that would stand alone (batch norm needs two)."""
        return len(self.photos) - (len(self.photos) % self.settings.batch_pairs == 1)

    def epoch(self, seed: int, epoch: int, device: torch.device) -> Iterator[PairBatch]:
        """The batches of one epoch (1-based); the same seed and epoch give the same batches."""
        rng = numpy_stream(seed, "pairs", epoch)
        # A random order here also stands for the released second shuffle within each batch.
        photos = rng.permutation(len(self.photos))
        labels = self.photos.labels[photos]
        replayed = self.settings.loader_streams == "replayed"
        # Replayed: the photo order is new, the sketch and the geometry drawn at each place are those of the first epoch.
        draws = (numpy_stream(seed, "replayed sketches") if replayed else rng).random(len(photos))
        sketches = np.array([self._by_class[c][int(u * len(self._by_class[c]))] for c, u in zip(labels.tolist(), draws)])
        settings, size = self.settings, self.settings.batch_pairs
        for step in range(self.steps):
            chosen = slice(step * size, (step + 1) * size)
            geometry = draw_geometry(numpy_stream(seed, "augmentation", 1 if replayed else epoch, step), len(photos[chosen]))
            sides = [to_network(augment(pixels.batch(index[chosen], device), geometry, settings.augmentation, fill),
                                settings.image_size)
                     for pixels, index, fill in ((self.sketches, sketches, settings.sketch_fill),
                                                 (self.photos, photos, settings.photo_fill))]
            yield PairBatch(*sides, torch.from_numpy(labels[chosen]).to(device))
