"""What the pairs of an epoch are drawn from: read off the batches, of pictures that tell which they are."""
from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tcn.config import Config, InputError, change
from tcn.data.augment import IMAGENET_MEAN, IMAGENET_STD, draw_geometry, to_network
from tcn.data.pairs import PairBatch, PairSource
from tcn.data.pixels import Pixels
from tcn.data.splits import Files
from tcn.seeding import numpy_stream

CPU = torch.device("cpu")
SKETCHES = [2, 0, 1, 1, 0, 2, 2, 2, 1, 2, 2]  # classes of 2, 3 and 6, mixed up
PHOTOS = [1, 0, 2, 2, 0, 1, 2, 0, 1, 1, 1, 0, 2, 2]
SIDE = 9


def listed(array: np.ndarray, labels: list[int]) -> Pixels:
    return Pixels(array, Files(Path("."), tuple(map(str, range(len(labels)))), np.array(labels), ("",) * len(labels)))


def plain(labels: list[int], first: int) -> Pixels:
    """Picture i is evenly grey at level first + i: its middle tells which it is, whatever the augmentation."""
    array = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    array[:] = first + np.arange(len(labels))[:, None, None, None]
    return listed(array, labels)


def settings(**delta):
    return change(Config(), {"data.image_size": SIDE, "data.stored_size": SIDE, "data.batch_pairs": 4,
                             **{f"data.{name}": value for name, value in delta.items()}}).data


def levels(images: torch.Tensor) -> np.ndarray:
    """Grey levels [B, H, W] of network inputs, undone by hand from the first channel."""
    return (images[:, 0].double() * IMAGENET_STD[0] + IMAGENET_MEAN[0]).numpy() * 255


def which(batches: list[PairBatch]) -> tuple[list[int], list[int]]:
    """Indices of the sketches and of the photos, in the order in which they came."""
    middle = SIDE // 2
    return tuple([round(level) - first for batch in batches for level in levels(getattr(batch, side))[:, middle, middle]]
                 for side, first in (("sketches", 30), ("photos", 130)))


def source(**delta) -> PairSource:
    return PairSource(plain(SKETCHES, 30), plain(PHOTOS, 130), settings(**delta))


def test_a_photo_meets_every_sketch_of_its_class_equally_often():
    found, made = Counter(), source()
    for epoch in range(1, 101):
        sketches, photos = which(list(made.epoch(0, epoch, CPU)))
        assert sorted(photos) == list(range(14))
        assert [SKETCHES[s] for s in sketches] == [PHOTOS[p] for p in photos]
        found.update(zip(photos, sketches))
    for photo, label in enumerate(PHOTOS):
        own = [i for i, c in enumerate(SKETCHES) if c == label]
        counts = [found[photo, sketch] for sketch in own]
        assert sum(counts) == 100 and stats.chisquare(counts).pvalue > 1e-4, (photo, counts)


def test_order_and_sketches_follow_seed_and_epoch():
    drawn = [which(list(source().epoch(*key, CPU))) for key in ((0, 1), (0, 2), (1, 1), (0, 1))]
    assert drawn[0] == drawn[3]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert drawn[a][1] != drawn[b][1] and drawn[a][0] != drawn[b][0]
    assert drawn[0][1] != list(range(14))
    sizes = [len(batch) for batch in source().epoch(0, 1, CPU)]
    assert sizes == [4, 4, 4, 2] and source().steps == 4 and source().pairs == 14


def test_sketches_of_a_class_are_counted_in_the_list_s_order():
    labels = np.random.default_rng(3).integers(0, 3, 500)  # long enough for NumPy's default sort to lose their order
    made = PairSource(listed(np.zeros((500, 1, 1, 3), np.uint8), labels),
                      listed(np.zeros((90, 1, 1, 3), np.uint8), [0, 1, 2] * 30), settings())
    rng = numpy_stream(8, "pairs", 2)
    photos, draws = rng.permutation(90), rng.random(90)
    expected = []
    for photo, draw in zip(photos, draws):
        own = [i for i, label in enumerate(labels) if label == photo % 3]
        expected.append(own[math.floor(draw * len(own))])
    assert np.concatenate([chosen.sketches for chosen in made._plan(8, 2)]).tolist() == expected


def test_replayed_streams_repeat_sketches_and_moves_at_their_places_but_not_the_photos():
    made = source(loader_streams="replayed")
    first, second, other = (list(made._plan(*key)) for key in ((0, 1), (0, 2), (1, 1)))
    for a, b, c in zip(first, second, other):
        same = a.labels == b.labels  # at such a place the draw takes the same sketch
        assert (a.sketches[same] == b.sketches[same]).all()
        for name in ("flip", "sx", "sy", "rotation", "tx", "ty"):
            moves = [getattr(chosen.geometry, name).tolist() for chosen in (a, b, c)]
            assert moves[0] == moves[1] and (name == "flip" or moves[0] != moves[2])
    photos = [np.concatenate([chosen.photos for chosen in plan]).tolist() for plan in (first, second, other)]
    assert photos[0] != photos[1] != photos[2] and sorted(photos[1]) == list(range(14))
    assert sum(int((a.labels == b.labels).sum()) for a, b in zip(first, second)) >= 3


def moved(array: np.ndarray, seed: int, epoch: int, **delta) -> list[np.ndarray]:
    """What becomes of one picture in each batch of an epoch: a list of [B, H, W], both sides being the same."""
    one = listed(np.repeat(array[None], 12, 0), [0] * 12)
    batches = list(PairSource(one, one, settings(photo_fill=255, **delta)).epoch(seed, epoch, CPU))
    assert all(torch.equal(b.sketches, b.photos) for b in batches)
    return [levels(b.photos) for b in batches]


def test_every_batch_epoch_and_seed_moves_pictures_in_its_own_way():
    array = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    ways = [batch for key in ((0, 1), (0, 2), (1, 1)) for batch in moved(array, *key)]
    assert len(ways) == 9
    for i, first in enumerate(ways):
        for other in ways[:i]:
            assert not np.allclose(first, other)
    assert all(np.array_equal(a, b) for a, b in zip(ways, moved(array, 0, 1)))


def test_each_side_is_filled_with_its_own_grey():
    batches = [batch for epoch in range(1, 20) for batch in source(sketch_fill=7, photo_fill=211).epoch(0, epoch, CPU)]
    for side, fill, first in (("sketches", 7, 30), ("photos", 211, 130)):
        corners = np.concatenate([levels(getattr(batch, side))[:, [0, 0, -1, -1], [0, -1, 0, -1]].ravel() for batch in batches])
        plainly = np.abs(corners - fill) < 0.01
        assert plainly.mean() > 0.2, side  # half of the pictures shrink or turn
        # all others are the picture's own level, or a mixture of it with the fill
        low, high = min(fill, first), max(fill, first + 14)
        assert ((corners > low - 0.01) & (corners < high + 0.01)).all()


def test_the_released_form_is_black_outside_whatever_the_fill():
    asked = source(augmentation="released", sketch_fill=7, photo_fill=211)
    batches = [batch for epoch in range(1, 20) for batch in asked.epoch(0, epoch, CPU)]
    for side, first in (("sketches", 30), ("photos", 130)):
        found = np.concatenate([levels(getattr(batch, side)).ravel() for batch in batches])
        assert (np.abs(found) < 0.01).mean() > 0.05 and found.max() < first + 14, side


def test_a_single_photo_is_no_epoch():
    with pytest.raises(InputError, match="fewer than 2"):
        PairSource(plain([0], 30), plain([0], 130), settings())


def test_the_draws_of_a_geometry_are_independent():
    """Four coins and five numbers: no two follow each other, but the axes of scale and of shift, which share a coin."""
    g = draw_geometry(np.random.default_rng(5), 40_000)
    moves = {"sx": g.sx - 1, "sy": g.sy - 1, "rotation": g.rotation, "tx": g.tx, "ty": g.ty}
    coins = {"flip": g.flip, "scale": moves["sx"] != 0, "turn": g.rotation != 0, "shift": g.tx != 0}
    for table in (coins, moves):
        names = list(table)
        found = np.corrcoef([table[name].astype(float) for name in names])
        assert (np.abs(found - np.eye(len(names))) < 0.03).all(), (names, found)
    for values in moves.values():  # as often up as down
        assert abs((values > 0).mean() - 0.25) < 0.02 and abs((values < 0).mean() - 0.25) < 0.02


@pytest.mark.parametrize("old, new", [(16, 7), (9, 12), (40, 10)])
def test_pictures_are_resized_as_pillow_does_in_floating_point(old, new):
    array = np.random.default_rng(old).uniform(0, 255, (old, old)).astype(np.float32)
    expected = np.asarray(Image.fromarray(array, mode="F").resize((new, new), Image.Resampling.BILINEAR))
    found = to_network(torch.from_numpy(array)[None, None], new)
    np.testing.assert_allclose(levels(found)[0], expected, atol=2e-3)
