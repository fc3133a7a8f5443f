"""Augmentation against a slow pixel-by-pixel warp, and the pairs of an epoch."""
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from support.picture_files import listing, numbered_source

from tcn.config import Config, InputError, Modality, change
from tcn.data import augment as images
from tcn.data.augment import Geometry, augment, augment_as_released, draw_geometry, resize, to_network
from tcn.data.pairs import PairSource
from tcn.data.pixels import Pixels
from tcn.scoring.features import extract


def slow_released(image, flip, sx, sy, rotation, tx, ty):
    """For each new pixel, find the old place by solving the two equations by hand (Cramer), then mix four pixels."""
    height, width, _ = image.shape
    if flip:
        image = image[:, ::-1]
    a, b = math.cos(rotation) * sx, -math.sin(rotation) * sy
    c, d = math.sin(rotation) * sx, math.cos(rotation) * sy
    det = a * d - b * c
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            u, v = (d * (x - tx) - b * (y - ty)) / det, (a * (y - ty) - c * (x - tx)) / det
            u0, v0 = math.floor(u), math.floor(v)
            value = np.zeros(3)
            for i, j, share in ((u0, v0, (1 - u + u0) * (1 - v + v0)), (u0 + 1, v0, (u - u0) * (1 - v + v0)),
                                (u0, v0 + 1, (1 - u + u0) * (v - v0)), (u0 + 1, v0 + 1, (u - u0) * (v - v0))):
                if 0 <= i < width and 0 <= j < height:
                    value += share * image[j, i]
            result[y, x] = np.floor(value + 1e-9)
    return result


@pytest.mark.parametrize("parameters", [(False, 1.0, 1.0, 0.0, 0.0, 0.0), (True, 1.0, 1.0, 0.0, 0.0, 0.0),
                                        (False, 1.3, 0.7, 0.0, 0.0, 0.0), (True, 0.8, 1.1, 0.4, -3.0, 2.5),
                                        (False, 1.0, 1.0, -math.pi / 6, 10.0, -10.0)])
def test_released_augmentation_is_the_slow_warp(parameters):
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    got = augment_as_released(image, *parameters)
    assert got.dtype == np.uint8 and got.shape == image.shape
    np.testing.assert_array_equal(got, slow_released(image, *parameters))


SIDES = st.sampled_from([1, 2, 3, 7, 16, 31])
UP_TO_ONE = st.floats(-1, 1)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 10**6), st.booleans(), st.tuples(*5 * [UP_TO_ONE]))
def test_released_augmentation_is_scipy_s_warp_for_any_rectangle(height, width, seed, flip, draws):
    """SciPy pulls each new pixel (row, column) from the inverse of the map; outside is black, mixed in at the rim."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sx, sy, rotation, tx, ty = 1 + 0.3 * draws[0], 1 + 0.3 * draws[1], math.radians(30) * draws[2], *(10 * d for d in draws[3:])
    turn = np.array([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    back = np.linalg.inv(turn @ np.diag([sx, sy]))[::-1, ::-1]  # (x, y) to (row, column)
    flipped = image[:, ::-1] if flip else image
    expected = np.stack([ndimage.affine_transform(flipped[:, :, c].astype(float), back, -back @ [ty, tx], order=1,
                                                  mode="grid-constant", cval=0.0) for c in range(3)], -1)
    got = augment_as_released(image, flip, sx, sy, rotation, tx, ty)
    # a value within a rounding of a whole grey level may be truncated to either side
    near = np.abs(expected - np.rint(expected)) < 2e-6
    np.testing.assert_array_equal(got[~near], np.floor(expected)[~near])
    assert (np.abs(got.astype(float) - expected)[near] <= 1 + 1e-5).all()


@settings(max_examples=40, deadline=None)
@given(SIDES, st.sampled_from([1, 2, 5, 13, 200]), st.booleans(), st.integers(-4, 4), st.integers(-4, 4),
       st.sampled_from([1, -1, 2]))
def test_moves_by_whole_pixels_change_no_grey_level(height, width, flip, tx, ty, scale):
    """Identity, flips and whole shifts, mirror scales and doubling land on pixels: no rounding may be truncated."""
    image = np.random.default_rng(height).integers(1, 256, (height, width, 3), dtype=np.uint8)
    expected = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if (x - tx) % scale == 0 and 0 <= (x - tx) // scale < width and 0 <= y - ty < height:
                old = (x - tx) // scale
                expected[y, x] = image[y - ty, width - 1 - old if flip else old]
    got = augment_as_released(image, flip, scale, 1, 0.0, tx, ty)
    if scale == 2:  # between two pixels lies their mean
        got, expected = got[:, tx % 2::2], expected[:, tx % 2::2]
    np.testing.assert_array_equal(got, expected)


def test_quarter_turns_and_even_grey_are_exact():
    image = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    # a quarter turn takes (x, y) to (-y, x); shifted back into view by 4
    np.testing.assert_array_equal(augment_as_released(image, False, 1, 1, math.pi / 2, 4, 0), np.rot90(image, -1))
    even = np.full((40, 40, 3), 255, np.uint8)
    inside = augment_as_released(even, True, 1.3, 1.21, 0.0, 0.0, 0.0)
    assert (inside == 255).all()


def test_a_large_photo_keeps_its_grey_levels():
    image = np.random.default_rng(2).integers(0, 256, (700, 1001, 3), dtype=np.uint8)
    original = image.copy()
    np.testing.assert_array_equal(augment_as_released(image, False, 1.0, 1.0, 0.0, 0.0, 0.0), image)
    np.testing.assert_array_equal(augment_as_released(image[:, ::-1], True, 1, 1, 0, 0, 0), image)
    np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [97, 224, 256])
def test_the_batched_form_keeps_unmoved_images_too(dtype, size):
    images_ = torch.randint(0, 256, (2, 3, size, size)).to(dtype)
    still = Geometry(np.array([False, True]), *(np.zeros(2) + v for v in (1.0, 1.0, 0.0, 0.0, 0.0)))
    out = augment(images_, still, "released", 0.0)
    assert torch.equal(out[0], images_[0]) and torch.equal(out[1], images_[1].flip(-1))


def test_released_augmentation_keeps_a_rectangle_and_fills_black():
    image = np.full((6, 10, 3), 200, np.uint8)
    got = augment_as_released(image, False, 1.0, 1.0, 0.0, 4.0, 0.0)
    assert got.shape == image.shape
    assert (got[:, :4] == 0).all() and (got[:, 4:] == 200).all()
    for bad in (image.astype(float), image[:, :, 0], image[:0]):
        with pytest.raises(InputError, match="uint8"):
            augment_as_released(bad, False, 1, 1, 0, 0, 0)
    with pytest.raises(InputError, match="sy is 0"):
        augment_as_released(image, False, 1, 0, 0, 0, 0)
    with pytest.raises(InputError, match="tx is nan"):
        augment_as_released(image, False, 1, 1, 0, math.nan, 0)


def test_corrected_augmentation_turns_about_the_centre_and_fills_as_asked():
    square = torch.full((1, 3, 21, 21), 255.0)
    square[:, :, 8:13, 8:13] = 0
    still = Geometry(np.array([False]), *(np.array([v]) for v in (1.0, 1.0, math.pi / 2, 0.0, 0.0)))
    torch.testing.assert_close(augment(square, still, "corrected", 255.0), square, atol=1e-2, rtol=0)
    shifted = Geometry(np.array([False]), *(np.array([v]) for v in (1.0, 1.0, 0.0, 0.5, 0.0)))
    out = augment(torch.zeros(1, 3, 20, 20), shifted, "corrected", 255.0)
    expected = torch.where(torch.arange(20) < 10, 255.0, 0.0).expand(1, 3, 20, 20)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


def test_geometry_has_the_published_distribution():
    g = draw_geometry(np.random.default_rng(0), 20000)
    assert abs(g.flip.mean() - 0.5) < 0.02
    for values, centre, reach in ((g.sx, 1, 0.3), (g.sy, 1, 0.3), (g.rotation, 0, math.radians(30)),
                                  (g.tx, 0, 10 / 256), (g.ty, 0, 10 / 256)):
        moved = values[values != centre]
        assert abs(len(moved) / 20000 - 0.5) < 0.02
        assert abs(moved - centre).max() <= reach and abs(moved - centre).max() > 0.98 * reach
        assert abs(np.abs(moved - centre).mean() - reach / 2) < 0.03 * reach
    assert ((g.sx != 1) == (g.sy != 1)).all() and ((g.tx != 0) == (g.ty != 0)).all()


def test_network_input_is_normalised_as_torchvision_does():
    from torchvision.transforms import functional as T

    image = torch.randint(0, 256, (2, 3, 8, 8)).float()
    expected = T.normalize(image / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(to_network(image, 8), expected)
    assert to_network(image, 4).shape == (2, 3, 4, 4)


LOPSIDED = {
    "noise": lambda s: np.random.default_rng(s).integers(0, 256, (s, s, 3)),
    "a drawing": lambda s: 255 * (np.random.default_rng(s).random((s, s, 1)) > 0.07) * np.ones((1, 1, 3), int),
    "a photo": lambda s: np.cumsum(np.random.default_rng(s).integers(-9, 10, (s, s, 3)), 1) + np.arange(s)[:, None, None] % 200,
    "slopes": lambda s: 3 * np.arange(s)[:, None, None] + 7 * np.arange(s)[None, :, None] ** 2 // 5 + 40 * np.arange(3),
    "saturated": lambda s: np.where(np.arange(s * s * 3).reshape(s, s, 3) % 11 < 9, 255, 254),
}


@pytest.mark.parametrize("old,new", [(256, 224), (96, 64), (64, 64), (500, 224), (97, 96), (31, 64), (64, 7), (3, 2), (1, 5)])
@pytest.mark.parametrize("kind", LOPSIDED)
def test_the_rounded_resize_is_pillow_s_bit_for_bit(kind, old, new):
    picture = np.clip(LOPSIDED[kind](old), 0, 255).astype(np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((new, new), Image.Resampling.BILINEAR))
    batch = torch.from_numpy(np.stack([picture, 255 - picture])).permute(0, 3, 1, 2)
    got = resize(batch.float(), new, "rounded")
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got[0].permute(1, 2, 0).numpy(), expected)
    # one channel, in double precision, and not the first of a batch
    other = np.asarray(Image.fromarray(255 - picture[:, :, 1]).resize((new, new), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(batch[:, 1:2].double(), new, "rounded")[1, 0].numpy(), other)


def test_the_rounded_resize_of_real_pictures_is_pillow_s(shared_data):
    for kind, name in (("photo", "*/*.jpg"), ("sketch", "*/*.png")):
        files = sorted((shared_data / "sketchy-sample" / "256x256" / kind / "tx_000000000000_ready").glob(name))[::500]
        assert len(files) > 3
        for file in files:
            picture = Image.open(file).convert("RGB")
            batch = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
            for size in (224, 64):
                expected = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
                np.testing.assert_array_equal(resize(batch, size, "rounded")[0].permute(1, 2, 0).numpy(), expected)


def test_the_float_resize_stays_within_a_level_of_the_rounded_one_and_is_the_default():
    picture = torch.from_numpy(LOPSIDED["noise"](256)).permute(2, 0, 1)[None].float()
    plain, rounded = resize(picture, 224), resize(picture, 224, "rounded")
    # one rounding alone would make it 1/4 on average and 1/2 at most, two that simply add up 1/3 and 1
    assert 0.26 < (plain - rounded).abs().mean() < 0.34 and 0.6 < (plain - rounded).abs().max() < 1.01
    assert torch.equal(to_network(picture, 224), to_network(picture, 224, "float"))
    assert not torch.equal(to_network(picture, 224), to_network(picture, 224, "rounded"))
    # fractions, as the corrected augmentation makes them, count as the nearest whole levels
    assert torch.equal(resize(picture + 0.4 * (picture < 255), 224, "rounded"), rounded)
    # and where nothing is resized, nothing is rounded
    assert resize(picture + 0.4, 256, "rounded")[0, 0, 0, 0] == picture[0, 0, 0, 0] + 0.4


def test_training_pairs_and_features_follow_the_resize_setting(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    some = Pixels(array, listing(tmp_path, [str(i) for i in range(6)], [0] * 6))
    device = torch.device("cpu")

    class Mean(torch.nn.Module):
        def encode(self, batch, modality):
            return batch.flatten(1)

    found, pairs = {}, {}
    for how in ("float", "rounded"):
        data = change(Config(), {"data.image_size": 14, "data.stored_size": 16, "data.augmentation": "released",
                                 "data.resize": how}).data
        pairs[how] = next(PairSource(some, some, data).epoch(3, 1, device))
        found[how] = extract(Mean(), some, Modality.PHOTO, 14, device, resize=how)
        expected = to_network(torch.from_numpy(array).permute(0, 3, 1, 2).float(), 14, how)
        np.testing.assert_array_equal(found[how], expected.flatten(1).numpy())
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for sides in ("sketches", "photos"):
        levels = {how: (getattr(batch, sides) * std + mean) * 255 for how, batch in pairs.items()}
        assert (levels["rounded"] - levels["rounded"].round()).abs().max() < 1e-3
        assert 0.1 < (levels["float"] - levels["rounded"]).abs().max() < 1.1
    assert not np.array_equal(found["float"], found["rounded"])


def test_the_slack_of_the_truncation_lifts_one_moved_pixel_in_128():
    """What docs/ledger.md says of float32 against float64: 2^-7 of a level, so that share of values that fall anywhere."""
    picture = torch.from_numpy(LOPSIDED["noise"](97)).permute(2, 0, 1)[None].float()
    moved = Geometry(np.array([False]), *(np.array([v]) for v in (1.13, 0.91, 0.3, 0.021, -0.013)))
    exact, ours = (augment(picture.to(kind), moved, "released", 0.0).double() for kind in (torch.float64, torch.float32))
    difference = (ours - exact)[exact > 0]
    assert set(difference.tolist()) <= {0.0, 1.0} and 0.005 < difference.mean() < 0.011




def test_epoch_visits_every_photo_once_with_a_sketch_of_its_class(tmp_path, monkeypatch):
    source = numbered_source(tmp_path)
    seen = []
    original = Pixels.gather
    monkeypatch.setattr(Pixels, "gather", lambda self, i, device="cpu": seen.append((self, i)) or original(self, i, device))
    batches = list(source.epoch(0, 1, torch.device("cpu")))
    assert [len(b) for b in batches] == [4, 4, 2] and source.pairs == 10 and source.steps == 3
    photos = np.concatenate([i for p, i in seen if p is source.photos])
    sketches = np.concatenate([i for p, i in seen if p is source.sketches])
    assert sorted(photos) == list(range(10))
    assert (source.sketches.labels[sketches] == source.photos.labels[photos]).all()
    assert torch.equal(torch.cat([b.labels for b in batches]), torch.from_numpy(source.photos.labels[photos]))


def test_epochs_differ_and_repeat_by_seed(tmp_path):
    source, cpu = numbered_source(tmp_path, 40, 8), torch.device("cpu")
    first, again, other = ([b.photos for b in source.epoch(*key, cpu)] for key in ((0, 1), (0, 1), (0, 2)))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))


def test_both_sides_of_a_pair_get_the_same_geometry(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    files = listing(tmp_path, [str(i) for i in range(12)], [0] * 12)
    one = Pixels(np.repeat(array[:1], 12, 0), files)
    settings = change(Config(), {"data.image_size": 8, "data.stored_size": 8, "data.photo_fill": 255}).data
    batch = next(PairSource(one, one, settings).epoch(0, 1, torch.device("cpu")))
    assert torch.equal(batch.sketches, batch.photos)
    assert len({x.numpy().tobytes() for x in batch.photos}) > 3


def test_a_last_photo_alone_is_left_out_and_a_class_without_sketch_is_an_error(tmp_path):
    source = numbered_source(tmp_path, 9)
    assert source.pairs == 8 and [len(b) for b in source.epoch(0, 1, torch.device("cpu"))] == [4, 4]
    source.sketches.files.labels[:] = 1
    with pytest.raises(InputError, match="no training sketch"):
        PairSource(source.sketches, source.photos, source.settings)


def test_worked_examples_in_the_docstrings():
    failed, tried = doctest.testmod(images)
    assert tried > 1 and failed == 0
