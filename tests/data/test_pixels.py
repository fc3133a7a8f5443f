"""The store of decoded images: shared, resumed, checked, bounded; and reading ahead of what is asked for."""
from __future__ import annotations

import collections
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_files import SIZE, listing, named, numbered_source, pictures, store_of, write

from tcn.config import InputError
from tcn.data import store
from tcn.data.augment import augment, draw_geometry, to_network
from tcn.data.decode import Reading, decode, orientation
from tcn.data.packing import FORMS
from tcn.data.pixels import Pixels
from tcn.data.prefetch import prefetch, to_float
from tcn.data.store import pack


def test_decode_puts_transparency_on_white_and_keeps_colour(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    write(tmp_path / "a.png", rgba)
    out = decode(tmp_path / "a.png", 4)
    assert (out[:2] == (10, 20, 30)).all() and (out[2:] == 255).all()


def _upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """By the EXIF standard's table: where the stored picture's first row and first column belong in the upright one."""
    sides = {1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"), 5: ("left", "top"),
             6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom")}
    row, column = sides[orientation]
    result = stored if row in ("top", "bottom") else stored.swapaxes(0, 1)
    if "bottom" in (row, column):
        result = result[::-1]
    return result[:, ::-1] if "right" in (row, column) else result


@pytest.mark.parametrize("value", range(1, 9))
def test_an_exif_orientation_is_applied_where_asked_for(tmp_path, value):
    stored = np.random.default_rng(value).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "a.png", SIZE), stored)
    assert np.array_equal(decode(tmp_path / "a.png", SIZE, Reading(exif="applied")), _upright(stored, value))
    assert orientation(Image.open(tmp_path / "a.png")) == value


def test_a_wide_picture_is_turned_before_it_is_made_square_and_odd_exif_data_count_as_none(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (SIZE, 3 * SIZE, 3), dtype=np.uint8)
    for number, value in enumerate((6, 0, 9, 77)):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.fromarray(wide).save(tmp_path / f"{number}.jpg", exif=exif, quality=95)
    stored = Image.open(tmp_path / "0.jpg").convert("RGB")
    expected = stored.transpose(Image.Transpose.ROTATE_270).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(tmp_path / "0.jpg", SIZE, Reading(exif="applied")), expected)
    plain = np.asarray(stored.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    for number in (1, 2, 3):
        assert np.array_equal(decode(tmp_path / f"{number}.jpg", SIZE, Reading(exif="applied")), plain)
    data = (tmp_path / "0.jpg").read_bytes()
    start = data.index(b"Exif\0\0") + 6
    (tmp_path / "bad.jpg").write_bytes(data[:start] + b"\xff" * 20 + data[start + 20:])
    assert np.array_equal(decode(tmp_path / "bad.jpg", SIZE, Reading(exif="applied")), plain)


def _transparent_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Pictures of one kind of transparency each, the left half transparent; file -> colour beneath it."""
    half = np.zeros((SIZE, SIZE), bool)
    half[:, : SIZE // 2] = True
    alpha = np.where(half, 0, 255).astype(np.uint8)
    colour = np.where(half[..., None], (0, 0, 0), (200, 90, 10)).astype(np.uint8)
    write(folder / "black under alpha.png", np.dstack([colour, alpha]))
    colour[half] = (7, 130, 55)
    write(folder / "green under alpha.png", np.dstack([colour, alpha]))
    write(folder / "grey and alpha.png", np.dstack([np.where(half, 9, 180).astype(np.uint8), alpha]))
    palette = Image.fromarray(np.where(half, 1, 2).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 31, 32, 33, 200, 90, 10])
    palette.save(folder / "palette.png", transparency=1)
    palette.save(folder / "palette.gif", transparency=1)
    Image.fromarray(colour).save(folder / "key.png", transparency=(7, 130, 55))
    deep = np.where(half, 0x0403, 0xC000).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png", transparency=0x0403)
    return {"black under alpha.png": (0, 0, 0), "green under alpha.png": (7, 130, 55), "grey and alpha.png": (9, 9, 9),
            "palette.png": (31, 32, 33), "palette.gif": (31, 32, 33), "key.png": (7, 130, 55), "deep.png": (4, 4, 4)}


def test_transparent_parts_are_white_or_what_lies_beneath_them(tmp_path):
    for name, beneath in _transparent_files(tmp_path).items():
        white, stored = (decode(tmp_path / name, SIZE, Reading(transparent=how)) for how in ("white", "as-stored"))
        assert (white[:, : SIZE // 2] == 255).all(), name
        assert (stored[:, : SIZE // 2] == beneath).all(), name
        assert np.array_equal(white[:, SIZE // 2:], stored[:, SIZE // 2:]) and stored[:, SIZE // 2:].min() < 250, name


def test_a_store_holds_each_reading_of_a_picture_once_and_the_same_only_once(tmp_path):
    expected = pictures(tmp_path / "d", 5, grey=(3,))
    black = np.zeros((SIZE, SIZE, 4), np.uint8)
    black[:2] = (10, 20, 30, 255)
    write(tmp_path / "d" / "1.png", black)
    on_white = np.where(black[..., 3:] == 0, 255, black[..., :3])
    released = Reading("as-stored", "applied")
    for first, second in ((Reading(), released), (released, Reading())):
        cache = tmp_path / first.transparent
        for reading in (first, second, first):
            found = np.asarray(pack(named(tmp_path / "d", range(5)), SIZE, cache, "digest", "x", False, reading).array)
            wanted = expected.copy()
            wanted[1] = on_white if reading == Reading() else black[..., :3]
            assert np.array_equal(found, wanted)
        store = store_of(cache)
        # five pictures, and the one that is read in two ways
        assert (store / "colour.u8").stat().st_size == 5 * SIZE * SIZE * 3 and (store / "grey.u8").stat().st_size == SIZE * SIZE
        assert len((store / "index.jsonl").read_text().splitlines()) == 10


def test_what_is_damaged_under_one_reading_is_not_taken_for_another(tmp_path):
    expected = pictures(tmp_path / "d", 3)
    files, cache, released = named(tmp_path / "d", range(3)), tmp_path / "c", Reading("as-stored", "applied")
    pack(files, SIZE, cache, "digest", "x", False)
    with open(store_of(cache) / "colour.u8", "r+b") as file:
        file.seek(SIZE * SIZE * 3 + 5)
        file.write(b"\x00\x01\x02\x03")
    assert np.array_equal(pack(files, SIZE, cache, "digest", "x", False, released).array, expected)
    with pytest.warns(UserWarning, match="1 of 3 images are damaged"):
        assert np.array_equal(pack(files, SIZE, cache, "digest", "x", False).array, expected)


def test_pack_decodes_once_and_then_reads_the_store(tmp_path):
    expected = pictures(tmp_path / "d ü", 5, grey=(1, 4))
    files = named(tmp_path / "d ü", range(5))
    first = pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    assert np.array_equal(first.array, expected) and first.array.shape == expected.shape and len(first) == 5
    for path in (tmp_path / "d ü").iterdir():
        path.unlink()
    again = pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    assert np.array_equal(again.array, expected)
    assert np.array_equal(again.array[3], expected[3]) and np.array_equal(again.array[1:3], expected[1:3])
    assert torch.equal(to_float(again.gather(np.array([3, 0])), "cpu")[1], torch.from_numpy(expected[0]).permute(2, 0, 1).float())


def test_grey_images_take_a_third_and_come_back_in_three_channels_where_others_are_beside_them(tmp_path):
    expected = pictures(tmp_path / "d", 6, grey=(0, 2, 5))
    packed = pack(named(tmp_path / "d", range(6)), SIZE, tmp_path / "c", "digest", "x", False)
    assert {f.name: f.stat().st_size for f in store_of(tmp_path / "c").glob("*.u8")} == {
        "grey.u8": 3 * SIZE * SIZE, "colour.u8": 3 * SIZE * SIZE * 3}
    grey, mixed = (to_float(packed.gather(np.array(chosen)), "cpu") for chosen in ([5, 0], [5, 1]))
    assert grey.shape == (2, 1, SIZE, SIZE) and mixed.shape == (2, 3, SIZE, SIZE)
    as_is = torch.from_numpy(expected).permute(0, 3, 1, 2).float()
    assert torch.equal(grey.expand(-1, 3, -1, -1), as_is[[5, 0]]) and torch.equal(mixed, as_is[[5, 1]])
    geometry = draw_geometry(np.random.default_rng(3), 2)
    for form in ("corrected", "released"):
        one, three = (to_network(augment(images, geometry, form, 255.0), 6) for images in (grey, as_is[[5, 0]]))
        torch.testing.assert_close(one, three, rtol=0, atol=1e-5)


def test_lists_and_splits_of_one_data_set_share_what_is_decoded(tmp_path, monkeypatch):
    expected = pictures(tmp_path / "d", 6)
    decoded = []
    original = decode
    monkeypatch.setattr(store, "decode", lambda path, *how: decoded.append(path.name) or original(path, *how))
    pack(named(tmp_path / "d", [0, 1, 2, 2]), SIZE, tmp_path / "c", "digest", "sketchy 1 query", False)
    second = pack(named(tmp_path / "d", [4, 2, 1]), SIZE, tmp_path / "c", "digest", "sketchy 2 gallery", False)
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "4.png"]
    assert np.array_equal(second.array, expected[[4, 2, 1]])
    assert len(list((tmp_path / "c" / "pixels").iterdir())) == 1
    pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "other contents", "sketchy 1 query", False)
    pack(named(tmp_path / "d", [0]), 4, tmp_path / "c", "digest", "sketchy 1 query", False)
    assert decoded.count("0.png") == 3 and len(store.sizes(tmp_path / "c")) == 3


def test_the_index_is_read_again_only_when_the_store_has_grown(tmp_path, monkeypatch):
    pictures(tmp_path / "d", 3)
    reads = []
    original = store.Store._read_index
    monkeypatch.setattr(store.Store, "_read_index", lambda self, room: reads.append(1) or original(self, room))
    pack(named(tmp_path / "d", [0, 1]), SIZE, tmp_path / "c", "digest", "x", False)
    before = len(reads)
    for _ in range(3):
        pack(named(tmp_path / "d", [1, 0]), SIZE, tmp_path / "c", "digest", "x", False)
    assert len(reads) == before
    pack(named(tmp_path / "d", [2]), SIZE, tmp_path / "c", "digest", "x", False)
    assert len(reads) > before


def test_every_unreadable_image_is_named_and_the_others_stay(tmp_path, monkeypatch):
    expected = pictures(tmp_path, 2)
    (tmp_path / "bad1.png").write_bytes(b"no image")
    (tmp_path / "bad2.jpg").write_bytes(b"")
    files = listing(tmp_path, ["bad1.png", "0.png", "bad2.jpg", "1.png"], [0] * 4)
    with pytest.raises(InputError, match="2 unreadable.*bad1.png.*bad2.jpg"):
        pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    for name in ("bad1.png", "bad2.jpg"):
        Image.fromarray(expected[0]).save(tmp_path / name, "PNG")
    (tmp_path / "0.png").unlink()  # decoded already
    assert np.array_equal(pack(files, SIZE, tmp_path / "c", "digest", "x", False).array, expected[[0, 0, 0, 1]])


@pytest.mark.parametrize("cut", ("half a line", "half a slot", "a line without pixels", "no index"))
def test_what_was_cut_off_at_any_moment_is_decoded_again(tmp_path, cut):
    expected = pictures(tmp_path / "d", 6, grey=(2,))
    pack(named(tmp_path / "d", range(4)), SIZE, tmp_path / "c", "digest", "x", False)
    folder = store_of(tmp_path / "c")
    if cut == "half a line":
        text = (folder / "index.jsonl").read_bytes()
        (folder / "index.jsonl").write_bytes(text[:-7])
    elif cut == "half a slot":
        with open(folder / "colour.u8", "ab") as file:
            file.write(b"\x07" * 100)
    elif cut == "a line without pixels":
        with open(folder / "colour.u8", "r+b") as file:
            file.truncate(2 * SIZE * SIZE * 3 + 5)
    else:
        (folder / "index.jsonl").unlink()
    assert np.array_equal(pack(named(tmp_path / "d", range(6)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    sizes = [(folder / f"{pool}.u8").stat().st_size / (SIZE * SIZE * depth) for pool, depth in (("colour", 3), ("grey", 1))]
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert all(size == int(size) for size in sizes)
    slots = [(line[1], line[2]) for line in lines]
    assert len(set(slots)) == len(slots) == 6  # whole slots that lost their line are not used again: someone may read them
    assert sum(sizes) == 6 + {"half a line": 1, "no index": 4}.get(cut, 0)


def test_a_damaged_slot_is_noticed_named_and_decoded_again(tmp_path):
    expected = pictures(tmp_path / "d", 5)
    files = named(tmp_path / "d", range(5))
    pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    with open(store_of(tmp_path / "c") / "colour.u8", "r+b") as file:
        file.seek(3 * SIZE * SIZE * 3 + 10)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.warns(UserWarning, match="1 of 5 images are damaged, the first '3.png'"):
        mended = pack(files, SIZE, tmp_path / "c", "digest", "x", False)
    assert np.array_equal(mended.array, expected)


def test_room_is_asked_for_first(tmp_path, monkeypatch):
    pictures(tmp_path / "d", 2)
    usage = collections.namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(store.shutil, "disk_usage", lambda _: usage(10, 10, 50_000_000))
        with pytest.raises(InputError, match="no room.*--cache"):
            pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
        free = iter([10**9, 49_000_000])  # used up meanwhile, by these or by others
        patched.setattr(store.shutil, "disk_usage", lambda _: usage(10, 10, next(free)))
        with pytest.raises(InputError, match="no room left.*is kept"):
            pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
    pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
    held = sum(store.sizes(tmp_path / "c").values())
    monkeypatch.setenv("TCN_CACHE_LIMIT_GB", str((held + 10) / 1e9))
    with pytest.raises(InputError, match="TCN_CACHE_LIMIT_GB.*holds x-8-.*delete a folder"):
        pack(named(tmp_path / "d", [1]), SIZE, tmp_path / "c", "digest", "x", False)
    for text in ("much", "nan", "-1"):  # NaN is below no limit, and would limit nothing
        monkeypatch.setenv("TCN_CACHE_LIMIT_GB", text)
        with pytest.raises(InputError, match=f"'{text}'.*number of gigabytes"):
            pack(named(tmp_path / "d", [1]), SIZE, tmp_path / "c", "digest", "x", False)


def _decode_all(folder: Path, cache: Path, number: int) -> None:
    pack(named(folder, range(number)), SIZE, cache, "digest", "x", False)


@pytest.mark.parametrize("form", FORMS)
def test_killed_at_any_moment_and_two_at_once_the_store_comes_out_whole(form, tmp_path, monkeypatch):
    """Processes are killed -9 while they decode; then two at once finish. Every image is right, and in the index once."""
    number = 400
    expected = pictures(tmp_path / "d", number, grey=tuple(range(0, number, 3)))
    context = multiprocessing.get_context("fork")
    monkeypatch.setenv("TCN_CACHE_FORM", form)
    monkeypatch.setattr(store, "_TOGETHER", 8)
    for wait in (0.02, 0.05, 0.08):
        process = context.Process(target=_decode_all, args=(tmp_path / "d", tmp_path / "c", number))
        process.start()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    two = [context.Process(target=_decode_all, args=(tmp_path / "d", tmp_path / "c", number)) for _ in range(2)]
    for process in two:
        process.start()
    for process in two:
        process.join()
        assert process.exitcode == 0
    assert np.array_equal(pack(named(tmp_path / "d", range(number)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)
    lines = [json.loads(line)[0] for line in (store_of(tmp_path / "c") / "index.jsonl").read_text().splitlines()]
    assert sorted(lines) == sorted(f"{i}.png" for i in range(number))


@pytest.mark.parametrize("depth", (0, 1, 3, 100))
def test_reading_ahead_changes_nothing_but_when(tmp_path, depth):
    source, cpu = numbered_source(tmp_path, 40, 8), torch.device("cpu")
    plain, early = (list(source.epoch(0, 1, cpu, depth=d)) for d in (0, depth))
    assert len(plain) == len(early) == 5
    for a, b in zip(plain, early):
        assert torch.equal(a.sketches, b.sketches) and torch.equal(a.photos, b.photos) and torch.equal(a.labels, b.labels)


def test_ahead_makes_so_many_early_raises_in_its_place_and_leaves_no_thread():
    made = []

    def make(item: int) -> int:
        made.append(item)
        if item == 7:
            raise InputError("seven")
        return item * item

    results = prefetch(iter(range(10)), make, depth=2)
    assert next(results) == 0
    deadline = time.time() + 5
    while len(made) < 3 and time.time() < deadline:
        time.sleep(0.001)
    assert made == [0, 1, 2]  # the one asked for and two more
    assert [next(results) for _ in range(6)] == [1, 4, 9, 16, 25, 36]
    with pytest.raises(InputError, match="seven"):
        next(results)
    stopped = prefetch(iter(range(10**9)), make, depth=3)
    next(stopped)
    stopped.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_leaving_an_epoch_early_leaves_no_thread(tmp_path):
    for _ in zip(numbered_source(tmp_path, 40, 8).epoch(0, 1, torch.device("cpu"), depth=2), range(2)):
        pass
    import gc

    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_array_serves_as_a_store(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    held = Pixels(array, listing(tmp_path, list("abcd"), [0] * 4))
    assert held.gather(np.array([2, 2, 0])).tolist() == array[[2, 2, 0]].tolist()
    assert to_float(held.gather(np.array([1])), "cpu").shape == (1, 3, SIZE, SIZE)
