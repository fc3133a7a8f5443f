"""The two forms of the image store: the same pixels from both, what each keeps, damage, kills, limits, and which one is chosen.

What pixels should be comes from `decode` of each file by itself, which test_hostile_images.py holds to the standards.
"""
from __future__ import annotations

import collections
import json
import mmap
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_files import SIZE, listing, named, numbers, pictures, store_of, write
from support.small_models import CPU, TCN, config, ingredients

from tcn.config import InputError
from tcn.data import packing, store
from tcn.data.decode import READINGS, Reading, decode
from tcn.data.packing import FORMS, form_for
from tcn.data.pairs import PairSource
from tcn.data.pixels import Packed, Pixels, announce
from tcn.data.store import pack
from tcn.train import loop
from tcn.train.loop import ValidationData

SIDE = 32


@pytest.fixture
def compact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCN_CACHE_FORM", "compact")


def smooth(seed: int, side: int = SIDE, channels: int = 3) -> Image.Image:
    """Coarse noise, which JPEG makes much smaller than its pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return Image.fromarray(noise if channels > 1 else noise[:, :, 0]).resize((side, side), Image.Resampling.BICUBIC)


def lines(cache: Path) -> dict[str, list]:
    """Entries of the only store's index by path."""
    found = map(json.loads, (store_of(cache) / "index.jsonl").read_text().splitlines())
    return {entry[0]: entry[1:] for entry in found}


def odd_files(folder: Path) -> dict[str, str]:
    """Files of every kind -> the pool in which the compact form should keep each."""
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"plain": {}, "full": {"subsampling": 0, "quality": 95}, "half": {"subsampling": 1},
               "progressive": {"progressive": True}, "turned": {"exif": exif}, "noted": {"comment": b"a note"}}
    for seed, (name, how) in enumerate(options.items()):
        smooth(seed).save(folder / f"{name}.jpg", **how)
    kinds = dict.fromkeys((f"{name}.jpg" for name in options), "colour-jpeg")
    smooth(20, channels=1).save(folder / "grey.jpg")
    equal = np.repeat(np.asarray(smooth(21, channels=1))[:, :, None], 3, 2)
    Image.fromarray(equal).save(folder / "equal channels.jpg", subsampling=0)
    kinds |= {"grey.jpg": "grey-jpeg", "equal channels.jpg": "grey-jpeg"}
    smooth(22, 2 * SIDE).save(folder / "large.jpg")
    smooth(23, SIDE + 1).save(folder / "off by one.jpg")
    smooth(24).convert("CMYK").save(folder / "four inks.jpg")
    (folder / "long.jpg").write_bytes((folder / "plain.jpg").read_bytes() + b"\0" * SIDE * SIDE * 3)  # smaller as pixels
    Image.fromarray(numbers(SIDE, SIDE, 3)).save(folder / "noise.jpg", quality=100, subsampling=0)
    smooth(25).save(folder / "photo.webp", lossless=True)
    smooth(26).save(folder / "photo.bmp")
    write(folder / "alpha.png", numbers(SIDE, SIDE, 4))
    write(folder / "deep colour.png", numbers(SIDE, SIDE, 3))
    kinds |= dict.fromkeys(("large.jpg", "off by one.jpg", "long.jpg", "photo.webp", "photo.bmp", "alpha.png",
                            "deep colour.png"), "colour-deflated")
    write(folder / "deep.png", numbers(SIDE, SIDE, bits=16))
    write(folder / "bits.png", np.eye(SIDE, dtype=bool))
    smooth(27).quantize(7).save(folder / "palette.gif")
    kinds |= {"deep.png": "grey-deflated", "bits.png": "grey-deflated", "palette.gif": "colour-deflated"}
    return kinds


@pytest.mark.parametrize("reading", READINGS)
def test_both_forms_give_the_pixels_of_every_kind_of_file(tmp_path, monkeypatch, reading):
    kinds = odd_files(tmp_path / "d")
    unsure = ["noise.jpg", "four inks.jpg"]  # kept as JPEG where that is smaller, or where both libraries turn inks alike
    names = [*kinds, *unsure]
    expected = np.stack([decode(tmp_path / "d" / name, SIDE, reading) for name in names])
    for form in FORMS:
        monkeypatch.setenv("TCN_CACHE_FORM", form)
        found = pack(listing(tmp_path / "d", names, [0] * len(names)), SIDE, tmp_path / form, "digest", "x", False, reading)
        assert found.array.shape == expected.shape
        for name, one, other in zip(names, np.asarray(found.array), expected):
            assert np.array_equal(one, other), (form, name)
    if reading.exif == "applied":
        kinds["turned.jpg"] = "colour-deflated"  # JPEG decoders do not turn it
    kept = {path.partition("\0")[0]: entry[0] for path, entry in lines(tmp_path / "compact").items()}
    assert {name: pool for name, pool in kept.items() if name not in unsure} == kinds


def test_a_published_jpeg_is_kept_byte_for_byte(tmp_path, compact):
    odd_files(tmp_path / "d")
    pack(listing(tmp_path / "d", ["plain.jpg", "grey.jpg"], [0, 0]), SIDE, tmp_path / "c", "digest", "x", False)
    data = (store_of(tmp_path / "c") / "pictures.bin").read_bytes()
    assert data == b"".join((tmp_path / "d" / name).read_bytes() for name in ("plain.jpg", "grey.jpg"))


def test_real_pictures_come_out_as_they_are_decoded_and_take_a_third_or_less(shared_data, tmp_path, monkeypatch):
    """Three sketches and three photos of every seventh class of Sketchy."""
    root, names = shared_data / "sketchy-sample" / "256x256", []
    for kind in ("sketch", "photo"):
        for folder in sorted((root / kind / "tx_000000000000_ready").iterdir())[::7]:
            names += [str(path.relative_to(root)) for path in sorted(folder.iterdir())[::9]]
    for form in FORMS:
        monkeypatch.setenv("TCN_CACHE_FORM", form)
        found = pack(listing(root, names, [0] * len(names)), 256, tmp_path / form, "digest", "x", False)
        for place, name in enumerate(names):
            assert np.array_equal(found.array[place], decode(root / name, 256)), (form, name)
    pools = collections.Counter(entry[0] for entry in lines(tmp_path / "compact").values())
    assert pools["colour-jpeg"] + pools["grey-jpeg"] == len(names) // 2
    assert 3 * sum(store.sizes(tmp_path / "compact").values()) < sum(store.sizes(tmp_path / "decoded").values())


def both(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], labels: list[int]) -> list[Pixels]:
    """The same files from a store of either form."""
    found = []
    for form in FORMS:
        monkeypatch.setenv("TCN_CACHE_FORM", form)
        found.append(pack(listing(folder, names, labels), SIDE, cache / form, "digest", "x", False))
    return found


def test_batches_have_the_same_bytes_channels_and_order_in_both_forms_with_any_number_of_threads(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    names = [f"{i}.jpg" for i in range(90)]
    for i, name in enumerate(names):  # a third of them grey
        smooth(i, SIDE if i % 4 else SIDE + 3, 3 if i % 3 else 1).save(tmp_path / "d" / name)
    plain, small = both(tmp_path / "d", tmp_path / "c", monkeypatch, names, [0] * 90)
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    chosen = [rng.integers(0, 90, 70), np.arange(0, 90, 3), np.array([5]), np.arange(0), np.array([3, 3, 0] * 11)]
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            for some in chosen:
                one, other = plain.gather(some), small.gather(some)
                assert one.shape == other.shape and torch.equal(one, other)
    finally:
        torch.set_num_threads(before)
    assert small.gather(np.arange(0, 90, 3)).shape[3] == 1 and small.gather(np.arange(4)).shape[3] == 3
    part, other = small.part(7, 31), plain.part(7, 31)
    assert len(part) == 24 and torch.equal(part.gather(np.arange(24)), other.gather(np.arange(24)))
    assert np.array_equal(small.array[4], plain.array[4]) and np.array_equal(small.array[-3:], plain.array[-3:])


def test_training_gives_the_same_bits_in_both_forms(tmp_path, monkeypatch):
    """12 sketches and 24 photos of 4 classes, kept at 32 pixels where the network sees 12; dropout and augmentation on."""
    settings = config(**{"data.stored_size": SIDE, "network.dropout": 0.3})
    (tmp_path / "d").mkdir()
    names = [f"{i}.{'png' if i < 12 else 'jpg'}" for i in range(36)]
    for i, name in enumerate(names):
        smooth(i, SIDE, 1 if i < 12 else 3).save(tmp_path / "d" / name)
    labels = [i % 4 for i in range(36)]
    states = []
    for found in both(tmp_path / "d", tmp_path / "c", monkeypatch, names, labels):
        torch.manual_seed(0)
        model = TCN.build(settings, ingredients())
        folder = tmp_path / str(len(states))
        folder.mkdir()
        loop.fit(TCN, model, PairSource(found.part(0, 12), found.part(12, 36), settings.data),
                 ValidationData(found.part(0, 8), None, None), settings, folder, CPU, progress=False)
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


# --- damage, kills, limits --------------------------------------------------------------------------------------------

def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


def test_each_damaged_picture_is_found_when_the_store_is_opened(tmp_path, compact):
    kinds = odd_files(tmp_path / "d")
    names = list(kinds)
    files = listing(tmp_path / "d", names, [0] * len(names))
    expected = np.stack([decode(tmp_path / "d" / name, SIDE) for name in names])
    pack(files, SIDE, tmp_path / "c", "digest", "x", False)
    for number, name in enumerate(names):
        _, start, _, length, _, _ = lines(tmp_path / "c")[name]
        flip(store_of(tmp_path / "c") / "pictures.bin", start + number * 31 % length)
        with pytest.warns(UserWarning, match=rf"1 of {len(names)} images are damaged, or .*, the first '{name}'"):
            assert np.array_equal(pack(files, SIDE, tmp_path / "c", "digest", "x", False).array, expected)


def test_what_is_damaged_while_it_is_in_use_is_an_error_and_the_next_start_mends_it(tmp_path, compact, monkeypatch):
    expected = pictures(tmp_path / "d", 12, grey=(4,))
    files = named(tmp_path / "d", range(12))
    pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    _, start, _, length, _, _ = lines(tmp_path / "c")["7.png"]
    monkeypatch.setattr(store, "_SAMPLE", 1)  # what is opened next checks one picture, another one
    held = pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    flip(store_of(tmp_path / "c") / "pictures.bin", start + length - 1)
    held = pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    assert np.array_equal(held.array[:7], expected[:7])
    with pytest.raises(InputError, match=rf"{length} bytes from byte {start:,} of pictures.bin are damaged; give the same"):
        held.gather(np.arange(12))
    others = named(tmp_path / "d", [0, 1])  # a list without the damaged picture: the whole store is checked all the same
    with pytest.warns(UserWarning, match="1 of 12 images are damaged"):
        pack(others, SIZE, tmp_path / "c", "digest", "x", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pack(files, SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    assert not (store_of(tmp_path / "c") / packing.CHECK).exists()


def test_another_decoder_s_pixels_are_never_taken(tmp_path, compact, monkeypatch):
    """As if a later version of torchvision decoded JPEG otherwise: pixels are kept instead."""
    odd_files(tmp_path / "d")
    files = listing(tmp_path / "d", ["plain.jpg", "full.jpg"], [0, 0])
    expected = [decode(files.root / name, SIDE) for name in files.paths]
    pack(files, SIDE, tmp_path / "c", "digest", "x", False)
    original = packing.decode_jpeg
    monkeypatch.setattr(packing, "decode_jpeg", lambda data, mode: original(data, mode=mode) ^ 1)
    with pytest.warns(UserWarning, match="2 of 2 images are damaged, or this version of torchvision decodes them otherwise"):
        assert np.array_equal(pack(files, SIDE, tmp_path / "c", "digest", "x", False).array, expected)
    assert {entry[0] for entry in lines(tmp_path / "c").values()} == {"colour-deflated"}


@pytest.mark.parametrize("cut", ("half a line", "bytes without a line", "lines without bytes", "no index"))
def test_what_was_cut_off_at_any_moment_is_decoded_again(tmp_path, compact, cut):
    expected = pictures(tmp_path / "d", 6, grey=(2,))
    pack(named(tmp_path / "d", range(4)), SIZE, tmp_path / "c", "digest", "x", False)
    folder = store_of(tmp_path / "c")
    file, index = folder / "pictures.bin", folder / "index.jsonl"
    if cut == "half a line":
        index.write_bytes(index.read_bytes()[:-7])
    elif cut == "bytes without a line":
        file.write_bytes(file.read_bytes() + b"\x07" * 100)
    elif cut == "lines without bytes":
        os.truncate(file, lines(tmp_path / "c")["2.png"][1] + 3)
    else:
        index.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pack(named(tmp_path / "d", range(6)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    spans = sorted((entry[1], entry[1] + entry[3]) for entry in lines(tmp_path / "c").values())
    assert len(spans) == 6 and all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))
    assert spans[-1][1] <= file.stat().st_size


def test_two_readings_of_a_picture_are_kept_once_where_they_are_the_same(tmp_path, compact):
    expected = pictures(tmp_path / "d", 5, grey=(3,))
    write(tmp_path / "d" / "1.png", numbers(SIZE, SIZE, 4))
    released = Reading("as-stored", "applied")
    for reading in (Reading(), released, Reading()):
        found = np.asarray(pack(named(tmp_path / "d", range(5)), SIZE, tmp_path / "c", "digest", "x", False, reading).array)
        assert np.array_equal(np.delete(found, 1, 0), np.delete(expected, 1, 0))
        assert np.array_equal(found[1], decode(tmp_path / "d" / "1.png", SIZE, reading))
    assert len(lines(tmp_path / "c")) == 10 and len({entry[1] for entry in lines(tmp_path / "c").values()}) == 6


def test_a_damaged_twin_is_not_taken_for_another_reading(tmp_path, compact):
    expected = pictures(tmp_path / "d", 3)
    files, released = named(tmp_path / "d", range(3)), Reading("as-stored", "applied")
    pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    flip(store_of(tmp_path / "c") / "pictures.bin", lines(tmp_path / "c")["1.png"][1] + 20)
    assert np.array_equal(pack(files, SIZE, tmp_path / "c", "digest", "x", False, released).array, expected)


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_stops_a_store_that_grows_beyond_it(tmp_path, monkeypatch, form):
    """Coloured pictures take more than is asked for at first."""
    expected = pictures(tmp_path / "d", 200)
    monkeypatch.setenv("TCN_CACHE_FORM", form)
    monkeypatch.setattr(store, "_TOGETHER", 8)
    files = named(tmp_path / "d", range(200))
    monkeypatch.setenv("TCN_CACHE_LIMIT_GB", str(1.5 * 200 * SIZE * SIZE / 1e9))
    with pytest.raises(InputError, match="x needs more than that, and TCN_CACHE_LIMIT_GB is .*holds x-8-.*raise the limit"):
        pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    assert 8 <= len(lines(tmp_path / "c")) < 200
    monkeypatch.delenv("TCN_CACHE_LIMIT_GB")
    assert np.array_equal(pack(files, SIZE, tmp_path / "c", "digest", "x", False).array, expected)


# --- which form -------------------------------------------------------------------------------------------------------

def test_the_size_of_the_whole_data_set_decides_where_nothing_is_asked_for(tmp_path, monkeypatch):
    assert form_for(10_172, 256).name == "decoded" and form_for(10_173, 256).name == "compact"  # 2e9 / (3 x 256 x 256) = 10,172.5
    assert form_for(6_250, 256).name == "decoded" and form_for(160_983, 256).name == "compact"
    assert form_for(160_983, 64).name == "decoded"
    pictures(tmp_path / "d", 3)
    pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False, images=10**8)
    assert store_of(tmp_path / "c").name.startswith("x-8-compact-")


def test_the_paper_s_data_sets_are_expected_to_take_under_25_gigabytes():
    """By their published counts; decoded by one byte a pixel of a sketch and three of a photo."""
    counts = ((75_481, 85_502), (20_000, 204_489), (330_000, 204_000))
    decoded, compact = (sum(FORMS[form].expected(*each, 256) for each in counts) for form in ("decoded", "compact"))
    assert decoded == 65_536 * sum(sketches + 3 * photos for sketches, photos in counts)
    assert decoded / 10 < compact < 25e9


def test_a_store_that_is_there_is_used_whatever_its_form_and_another_one_only_where_asked_for(tmp_path, monkeypatch):
    expected = pictures(tmp_path / "d", 4)
    pack(named(tmp_path / "d", [0, 1]), SIZE, tmp_path / "c", "digest", "x", False)
    before = store_of(tmp_path / "c")
    found = pack(named(tmp_path / "d", range(4)), SIZE, tmp_path / "c", "digest", "x", False, images=10**8)
    assert isinstance(found.array, Packed) and np.array_equal(found.array, expected) and store_of(tmp_path / "c") == before
    held = {file.name: file.read_bytes() for file in before.iterdir()}
    monkeypatch.setenv("TCN_CACHE_FORM", "compact")
    assert np.array_equal(pack(named(tmp_path / "d", range(4)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    assert len(store.sizes(tmp_path / "c")) == 2 and {file.name: file.read_bytes() for file in before.iterdir()} == held
    shutil.rmtree(before)
    monkeypatch.delenv("TCN_CACHE_FORM")
    for path in (tmp_path / "d").iterdir():
        path.unlink()
    assert np.array_equal(pack(named(tmp_path / "d", range(4)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)


def test_a_store_of_an_earlier_version_is_read_as_it_stands(tmp_path):
    """Files written here by hand, as versions with one form wrote them."""
    import hashlib
    import zlib

    expected = pictures(tmp_path / "d", 3, grey=(1,))
    key = hashlib.sha256(json.dumps(["digest", SIZE, "rgb-bilinear-3"]).encode()).hexdigest()[:12]
    folder = tmp_path / "c" / "pixels" / f"x-{SIZE}-{key}"
    folder.mkdir(parents=True)
    (folder / "colour.u8").write_bytes(expected[2].tobytes() + expected[0].tobytes())
    (folder / "grey.u8").write_bytes(expected[1, :, :, 0].tobytes())
    text = ""
    for path, pool, number, picture in (("0.png", "colour", 1, expected[0]), ("1.png", "grey", 0, expected[1, :, :, 0]),
                                        ("2.png", "colour", 0, expected[2])):
        entry = json.dumps([path, pool, number, zlib.crc32(picture.tobytes())])[:-1]
        text += f"{entry}, {zlib.crc32(entry.encode())}]\n"
    (folder / "index.jsonl").write_text(text)
    shutil.rmtree(tmp_path / "d")
    assert np.array_equal(pack(named(tmp_path / "d", range(3)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    assert (folder / "index.jsonl").read_text() == text


def test_an_unknown_form_is_an_error_that_names_the_known_ones(tmp_path, monkeypatch):
    pictures(tmp_path / "d", 1)
    monkeypatch.setenv("TCN_CACHE_FORM", "small")
    with pytest.raises(InputError, match="TCN_CACHE_FORM is 'small'; it must be decoded, compact or auto"):
        pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
    assert not (tmp_path / "c").exists()


def test_advice_covers_what_is_read_and_nothing_is_advised_for_memory(tmp_path, monkeypatch):
    page, given = mmap.PAGESIZE, []

    class Watched(mmap.mmap):
        def madvise(self, option, start, length):
            assert start % page == 0 and option == mmap.MADV_WILLNEED
            given.append((start, start + length))

    (tmp_path / "a").write_bytes(bytes(5 * page))
    with open(tmp_path / "a", "rb") as file:
        watched = Watched(file.fileno(), 0, access=mmap.ACCESS_READ)
    announce(np.ndarray((5 * page,), np.uint8, watched), np.array([0, page + 7, 3 * page]), np.array([10, page, 2 * page]))
    assert given == [(0, 10), (page, 2 * page + 7), (3 * page, 5 * page)]
    announce(np.zeros(100, np.uint8), np.array([3]), np.array([5]))
    assert len(given) == 3
