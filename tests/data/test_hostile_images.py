"""Image files of every bad kind, and a cache that is full, read-only or damaged: the right pixels, or an error naming the file.

In: PNG, JPEG, GIF and BMP files built here byte by byte, mutated and cut; small and read-only mounts (skipped where nothing can
be mounted). What pixels should be is worked out from the numbers that were written, never by the code under test.
"""
from __future__ import annotations

import functools
import gzip
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzzing import fuzz
from support.mounts import read_only, resize, small_disk
from support.picture_files import SIZE, listing, named, numbers, pictures, store_of

from tcn.config import InputError
from tcn.data import store
from tcn.data.decode import LONGEST_SIDE, Reading, decode
from tcn.data.store import pack


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by the standard: bit depth, colour type (0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA), filtered rows."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def unfiltered(values: np.ndarray) -> bytes:
    """Rows of samples [H, ...], 8 or 16 bits, as PNG holds them without a filter."""
    return b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)




def packed(folder: Path, names: list[str], cache: str = "c") -> np.ndarray:
    """All of `names` through the store."""
    return np.asarray(pack(listing(folder, names, [0] * len(names)), SIZE, folder / cache, "digest", "x", False).array)


# --- what a file holds ------------------------------------------------------------------------------------------------

GREY16, RGB16 = numbers(SIZE, SIZE, bits=16), numbers(SIZE, SIZE, 3, bits=16)
GREY8, RGB8 = numbers(SIZE, SIZE), numbers(SIZE, SIZE, 3)
BITS = np.indices((SIZE, SIZE)).sum(0) % 3 == 0
PALETTE = numbers(4, 3, seed=5)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour [H, W, 3] over white by its opacity [H, W] in 0..255, by the definition."""
    share = alpha[:, :, None] / 255
    return np.round(colour * share + 255 * (1 - share))


def _kinds() -> dict[str, tuple[bytes, np.ndarray]]:
    grey, two = GREY16 >> 8, np.dstack([GREY16, GREY16[::-1]])
    indices = (np.indices((SIZE, SIZE)).sum(0) % 4).astype(np.uint8)
    bits = b"".join(b"\0" + np.packbits(row).tobytes() for row in BITS)
    key16 = chunk(b"tRNS", struct.pack(">H", int(GREY16[0, 1])))
    key48 = chunk(b"tRNS", struct.pack(">HHH", *map(int, RGB16[2, 3])))
    palette = chunk(b"PLTE", PALETTE.tobytes())
    opacity = np.array([255, 0, 128, 7])
    masked16 = np.where(GREY16[0, 1] == GREY16, 255, grey)
    masked48 = np.where((RGB16[2, 3] >> 8 == RGB16 >> 8).all(-1, keepdims=True), 255, RGB16 >> 8)
    return {
        "grey, 16 bits": (png(SIZE, SIZE, 16, 0, unfiltered(GREY16)), grey),
        "grey, 16 bits, one see-through": (png(SIZE, SIZE, 16, 0, unfiltered(GREY16), key16), masked16),
        "colour, 16 bits": (png(SIZE, SIZE, 16, 2, unfiltered(RGB16)), RGB16 >> 8),
        "colour, 16 bits, one see-through": (png(SIZE, SIZE, 16, 2, unfiltered(RGB16), key48), masked48),
        "grey and opacity, 16 bits": (png(SIZE, SIZE, 16, 4, unfiltered(two)),
                                      on_white(np.repeat(grey[:, :, None], 3, 2), (GREY16 >> 8)[::-1])),
        "one bit, black see-through": (png(SIZE, SIZE, 1, 0, bits, chunk(b"tRNS", b"\0\0")), np.full((SIZE, SIZE), 255)),
        "one bit": (png(SIZE, SIZE, 1, 0, bits), BITS * 255),
        "palette": (png(SIZE, SIZE, 8, 3, unfiltered(indices), palette), PALETTE[indices]),
        "palette with opacities": (png(SIZE, SIZE, 8, 3, unfiltered(indices), palette + chunk(b"tRNS", bytes(opacity.tolist()))),
                                   on_white(PALETTE[indices].astype(float), opacity[indices])),
    }


@pytest.mark.parametrize("kind", _kinds())
def test_pixels_of_every_kind_are_those_of_the_standard(tmp_path, kind):
    content, expected = _kinds()[kind]
    (tmp_path / "a.png").write_bytes(content)
    expected = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, 2)
    off = np.abs(decode(tmp_path / "a.png", SIZE).astype(int) - expected)
    assert off.max() <= (1 if "opacit" in kind else 0)  # where half-transparent, by the rounding of the composition
    assert np.abs(packed(tmp_path, ["a.png"])[0].astype(int) - expected).max() == off.max()


def test_cmyk_exif_and_wrong_endings_are_read_as_what_they_are(tmp_path):
    flat = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))  # magenta + yellow: red
    flat.save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(decode(tmp_path / "cmyk.jpg", SIZE).astype(int) - (255, 0, 0)).max() <= 4
    exif = Image.Exif()
    exif[0x0112] = 6  # shot with the camera on its side
    half = np.zeros((SIZE, SIZE), np.uint8)
    half[: SIZE // 2] = 255
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    out = decode(tmp_path / "turned.jpg", SIZE)
    assert out[0].min() > 250 and out[-1].max() < 5  # as stored
    data = (tmp_path / "turned.jpg").read_bytes()
    start = data.index(b"Exif\0\0") + 6
    (tmp_path / "bad-exif.jpg").write_bytes(data[:start] + b"\xff" * 20 + data[start + 20:])
    assert np.array_equal(decode(tmp_path / "bad-exif.jpg", SIZE), out)
    Image.fromarray(RGB8).save(tmp_path / "bmp.jpg", "BMP")
    assert np.array_equal(decode(tmp_path / "bmp.jpg", SIZE), RGB8)


def test_of_an_animation_the_first_picture_counts(tmp_path):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for ending in ("gif", "png"):
        frames[0].save(tmp_path / f"{ending}.png", ending.upper(), save_all=True, append_images=frames[1:])
        assert Image.open(tmp_path / f"{ending}.png").n_frames == 3
        assert (decode(tmp_path / f"{ending}.png", SIZE) == (255, 0, 0)).all()


@pytest.mark.parametrize("shape", ((1, LONGEST_SIDE), (LONGEST_SIDE, 1), (1, 1)))
def test_strips_as_long_as_a_jpeg_can_be_are_read(tmp_path, shape):
    Image.new("L", shape, 77).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", SIZE) == 77).all()


# --- what is refused --------------------------------------------------------------------------------------------------

def gif(screen: int, frame: int) -> bytes:
    """A GIF of few bytes that declares a screen and a frame, both square."""
    return (b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0xF0, 0, 0) + bytes(6)
            + b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02L\x01\0;")


def jpeg(side: int) -> bytes:
    """A JPEG whose header says another size than its data have."""
    with io.BytesIO() as out:
        Image.fromarray(GREY8).save(out, "JPEG")
        data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at:at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


BOMBS = {
    "60000 x 60000 in a PNG": (png(60_000, 60_000, 8, 2, b""), "60,000 x 60,000 pixels"),
    "just above where Pillow warns": (png(10_000, 9_000, 8, 2, b""), "10,000 x 9,000 pixels"),
    "65500 x 65500 in a JPEG": (jpeg(65_500), "65,500 x 65,500 pixels"),
    "65535 x 65535 in a GIF": (gif(65_535, 65_535), "65,535 x 65,535 pixels"),
    "a GIF's frame beyond its screen": (gif(8, 10_000), "100,000,000 pixels"),
    "40000 x 40000 in a BMP": (b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0),
                              "40,000 x 40,000 pixels"),
    "a strip": (png(1, 80_000_000, 8, 0, b""), "1 x 80,000,000 pixels"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path, kind):
    content, declared = BOMBS[kind]
    assert len(content) < 2_000
    (tmp_path / "bomb.png").write_bytes(content)
    (tmp_path / "good.png").write_bytes(png(SIZE, SIZE, 8, 2, unfiltered(RGB8)))
    with warnings.catch_warnings(record=True) as heard, pytest.raises(InputError) as caught:
        _with_little_memory(lambda: packed(tmp_path, ["bomb.png", "good.png"]))
    assert f"1 unreadable image(s) in x: {tmp_path}/bomb.png (it declares {declared}, more than the 89,478,485 pixels" in str(
        caught.value) and "scale it down" in str(caught.value)
    assert not [one for one in heard if issubclass(one.category, Image.DecompressionBombWarning)]
    assert np.array_equal(packed(tmp_path, ["good.png"])[0], RGB8)


def _with_little_memory(task):
    """Run with 200 MB of address space above what is taken already: 60000 x 60000 pixels find no room in it."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc").is_dir() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + 200_000_000 + 64_000_000 * (os.cpu_count() or 1), before[1]))
    try:
        return task()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_out_of_memory_is_no_broken_image(tmp_path, monkeypatch):
    pictures(tmp_path, 2)

    def greedy(path: Path, size: int, reading: Reading) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(store, "decode", greedy)
        with pytest.raises(InputError, match=r"out of memory while .*0\.png was decoded; scale it down, or run where"):
            packed(tmp_path, ["0.png", "1.png"])
    assert packed(tmp_path, ["0.png", "1.png"]).shape == (2, SIZE, SIZE, 3)


BAD = {
    "empty.jpg": (b"", "0 bytes"), "text.jpg": (b"<html>404 Not Found</html>", "not a JPEG, PNG"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
                       "not a JPEG, PNG, GIF, BMP or WebP"),
    "cut.png": (png(SIZE, SIZE, 8, 2, unfiltered(RGB8))[:120], "image file is truncated"),
    "head.jpg": (jpeg(8)[:60], "Truncated File Read"),
    "zeros.png": (bytes(5000), "not a JPEG"), "damaged.png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "broken PNG file"),
    "zip.png": (b"PK\3\4" + bytes(100), "not a JPEG.* but a zip archive: unpack it"),
    "gz.JPEG": (gzip.compress(jpeg(8)), r"not a JPEG.* but gzip-compressed: call it NAME\.gz and run `gunzip NAME\.gz`"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
                    ".* but a Git LFS pointer: run `git lfs pull`"),
    "page.jpg": (b"\n <!DOCTYPE html><html>", ".* but a page of HTML or XML, such as an error page"),
    "tiff.jpg": (b"II*\0" + bytes(100), ".* but TIFF: save it as PNG"),
    "film.jpg": (b"\0\0\0\x18ftypheic" + bytes(9), ".* but HEIC"),
    "note.jpg": (b"see the other folder", r"not a JPEG, PNG, GIF, BMP or WebP image\)"),
}


def test_every_bad_image_is_named_with_its_reason_and_one_does_not_hide_the_others(tmp_path):
    good = pictures(tmp_path, 3)
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    names = ["0.png", *BAD, "1.png", "gone.png", "folder.png", "2.png"]
    with pytest.raises(InputError, match=rf"{len(BAD) + 2} unreadable image.*replace them with intact copies") as caught:
        packed(tmp_path, names)
    for name, (_, reason) in BAD.items():
        assert re.search(rf"/{name} \((?:{reason})", str(caught.value)), (name, str(caught.value))
    assert "gone.png (No such file or directory)" in str(caught.value) and "folder.png (Is a directory)" in str(caught.value)
    for i in range(3):
        (tmp_path / f"{i}.png").unlink()  # decoded already, though others beside them were bad
    assert np.array_equal(packed(tmp_path, ["0.png", "1.png", "2.png"]), good)


def test_no_other_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, also where the file is called .jpg; it may not come to that."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "a.jpg").write_bytes(BAD["postscript.jpg"][0])
    with pytest.raises(OSError, match="not a JPEG"):
        decode(tmp_path / "a.jpg", SIZE)
    assert not (tmp_path / "started").exists()


def test_more_bad_images_than_fit_in_a_message_are_listed_in_a_file(tmp_path):
    names = [f"{i}.png" for i in range(30)]
    for name in names:
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"30 unreadable.*and 10 more, all in .*unreadable\.txt; replace"):
        packed(tmp_path, names)
    lines = (store_of(tmp_path / "c") / "unreadable.txt").read_text().splitlines()
    assert sorted(line.split(" (")[0] for line in lines) == sorted(str(tmp_path / name) for name in names)


def test_a_file_name_cannot_forge_a_line_of_the_message(tmp_path):
    name = "a\nError: all is well\u202e\x1b[2J\udcff.png"
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        packed(tmp_path, [name])
    assert r"a\nError: all is well\u202e\x1b[2J\udcff.png (not a JPEG" in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ("a b.png", "-rf.png", "é.png", "e\u0301.png", "it's \"so\".png", "new\nline.png",
                                  "\udcff\udc80.png",
                                  "%s {0} $HOME.png", "c:\\d.png"))
def test_odd_file_names_are_decoded_and_found_again(tmp_path, name):
    Image.fromarray(RGB8).save(io_file := io.BytesIO(), "PNG")
    (tmp_path / name).write_bytes(io_file.getvalue())
    assert np.array_equal(packed(tmp_path, [name])[0], RGB8)
    (tmp_path / name).unlink()
    assert np.array_equal(packed(tmp_path, [name])[0], RGB8)


# --- mutated files: the right pixels or a reason ----------------------------------------------------------------------

@functools.cache
def whole(ending: str) -> bytes:
    """A valid file of 12 x 12 pixels; PNG with one chunk of text and several of data."""
    with io.BytesIO() as out:
        Image.fromarray(numbers(12, 12, 3, seed=4)).save(out, ending, **({"quality": 90} if ending == "JPEG" else {}))
        return out.getvalue()


def _decoded(content: bytes, folder: Path) -> np.ndarray | str:
    path = folder / "mutated.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return decode(path, SIZE)
        except OSError as error:
            return str(error)


@fuzz("image files", examples=250)
@given(st.sampled_from(("PNG", "JPEG", "GIF", "BMP")), st.data())
def test_a_mutated_image_gives_pixels_or_a_reason(tmp_path, ending, data):
    content = bytearray(whole(ending))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(("flip", "cut", "insert", "double", "huge"))):
            case "flip" if content:
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at:at + data.draw(st.integers(1, 30))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
            case "double":
                content[at:at] = content[at:at + 40]
            case "huge":
                content[at:at + 4] = b"\x7f\xff\xff\xff"
    found = _decoded(bytes(content), tmp_path)
    assert (found.shape, found.dtype) == ((SIZE, SIZE, 3), np.uint8) if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize("ending", ("PNG", "JPEG", "BMP"))
def test_a_file_cut_anywhere_is_whole_or_refused_and_never_half_a_picture(tmp_path, ending):
    content = whole(ending)
    expected = _decoded(content, tmp_path)
    refused = 0
    for length in range(len(content)):
        found = _decoded(content[:length], tmp_path)
        refused += isinstance(found, str)
        assert isinstance(found, str) or np.array_equal(found, expected), length  # only a trailer may be lacking
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize("place", ("IDAT", "IHDR"))
def test_a_flipped_bit_in_a_png_is_noticed_by_its_checksums(tmp_path, place):
    content = whole("PNG")
    start = content.index(place.encode())
    length = struct.unpack(">I", content[start - 4:start])[0]
    for at in range(start + 4, start + 4 + length, 5):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        assert isinstance(_decoded(bytes(damaged), tmp_path), str), at


# --- the cache --------------------------------------------------------------------------------------------------------

CLOSED = "(?:read-only file system|permission denied)"


def test_a_complete_cache_serves_though_it_is_read_only(tmp_path):
    expected = pictures(tmp_path / "d", 5)
    pack(named(tmp_path / "d", range(5)), SIZE, tmp_path / "c", "digest", "x", False)
    with read_only(tmp_path / "c"), read_only(tmp_path / "d"):
        assert np.array_equal(pack(named(tmp_path / "d", range(5)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)


def test_an_incomplete_cache_that_is_read_only_says_what_it_lacks(tmp_path):
    pictures(tmp_path / "d", 5)
    pack(named(tmp_path / "d", range(3)), SIZE, tmp_path / "c", "digest", "x", False)
    with read_only(tmp_path / "c"):
        with pytest.raises(InputError, match=rf"cache .*/x-8-\w+ can't be used \({CLOSED}\), and 2 of 5 images are "
                                             r"not in it.*--cache"):
            pack(named(tmp_path / "d", range(5)), SIZE, tmp_path / "c", "digest", "x", False)
        with pytest.raises(InputError, match=rf"can't be used \({CLOSED}\).*1 of 1 images"):
            pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "another digest", "x", False)


def test_a_damaged_cache_that_is_read_only_is_named(tmp_path):
    pictures(tmp_path / "d", 3)
    pack(named(tmp_path / "d", range(3)), SIZE, tmp_path / "c", "digest", "x", False)
    file = store_of(tmp_path / "c") / "colour.u8"
    file.write_bytes(b"\0" * file.stat().st_size)
    with (read_only(tmp_path / "c"), pytest.warns(UserWarning, match="3 of 3 images are damaged"),
          pytest.raises(InputError, match=rf"index\.jsonl failed \({CLOSED}\); make its folder writable")):
        pack(named(tmp_path / "d", range(3)), SIZE, tmp_path / "c", "digest", "x", False)


@pytest.mark.parametrize("blocked", ("c", "c/pixels", "store", "index"))
def test_a_file_or_folder_in_the_caches_place_is_named(tmp_path, blocked):
    pictures(tmp_path / "d", 2)
    pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
    store = store_of(tmp_path / "c")
    place = {"store": store, "index": store / "index.jsonl"}.get(blocked, tmp_path / blocked)
    os.rename(place, tmp_path / "aside")
    place.mkdir() if blocked == "index" else place.write_text("a file")
    with pytest.raises(InputError, match=r"image cache .*x-8-.* can't be used \((not|is) a directory\), and 2 of 2 .*--cache"):
        pack(named(tmp_path / "d", range(2)), SIZE, tmp_path / "c", "digest", "x", False)


def test_a_real_disk_that_fills_up_while_decoding_keeps_what_is_whole(tmp_path, monkeypatch):
    """A small disk, nothing spared: writing stops within a slot. What is whole stays; with room it goes on from there."""
    number, size = 60, 64
    expected = np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    (tmp_path / "d").mkdir()
    for i, picture in enumerate(expected):
        Image.fromarray(picture).save(tmp_path / "d" / f"{i}.png")
    monkeypatch.setattr(store, "_SPARE", 0)
    monkeypatch.setattr(store, "_TOGETHER", 4)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("usage", (), {"free": 10**9}))  # others fill it meanwhile
    files, cache = named(tmp_path / "d", range(number)), tmp_path / "c"
    cache.mkdir()
    with small_disk(cache, "400k"):
        with pytest.raises(InputError, match=r"writing the image cache .* failed \(no space left on device\); free some space or "
                                             r"pass another folder with --cache: what is decoded already is kept"):
            pack(files, size, cache, "digest", "x", False)
        kept = store.Store(store_of(cache), size).index()
        assert 8 <= len(kept) < number
        resize(cache, "8m")
        for path in kept:
            (tmp_path / "d" / path).unlink()  # may not be needed again
        assert np.array_equal(pack(files, size, cache, "digest", "x", False).array, expected)


def _limited(folder: Path, cache: Path, number: int, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        pack(named(folder, range(number)), SIZE, cache, "digest", "x", False)
    except InputError as error:
        os._exit(0 if "file too large" in str(error) and "--cache" in str(error) else 1)
    os._exit(2)


def test_files_that_may_not_grow_further_keep_what_is_whole(tmp_path, monkeypatch):
    """The same for everybody, by a limit on the size of files, at several places within a slot."""
    expected = pictures(tmp_path / "d", 20)
    monkeypatch.setattr(store, "_TOGETHER", 2)
    for most in (100, 3 * SIZE * SIZE * 3, 7 * SIZE * SIZE * 3 + 50):
        process = multiprocessing.get_context("fork").Process(target=_limited, args=(tmp_path / "d", tmp_path / "c", 20, most))
        process.start()
        process.join()
        assert process.exitcode == 0, most
    assert np.array_equal(pack(named(tmp_path / "d", range(20)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)


@fuzz("image cache indexes", examples=80)
@given(st.data())
def test_a_damaged_index_never_gives_one_image_for_another(tmp_path_factory, data):
    """Any damage to the index, and any cut: every image is right all the same, decoded again where its line was hit."""
    folder, expected, pristine = _cached(tmp_path_factory)
    index = next((folder / "c" / "pixels").iterdir()) / "index.jsonl"
    content = bytearray(pristine)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(("digit", "flip", "cut", "double line", "swap lines"))):
            case "digit":
                places = [i for i, byte in enumerate(content) if chr(byte).isdigit()] or [at]
                content[places[at % len(places)]] = data.draw(st.sampled_from(b"0123456789-"))
            case "flip":
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at:]
            case "double line":
                content += content[:content.index(b"\n") + 1] if b"\n" in content else b""
            case "swap lines":
                content = bytearray(b"".join(reversed(bytes(content).splitlines(keepends=True))))
        if not content:
            break
    index.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may come to the checksums of the pixels: these are whole
        assert np.array_equal(pack(named(folder / "d", range(12)), SIZE, folder / "c", "digest", "x", False).array, expected)


_CACHED: list[tuple[Path, np.ndarray, bytes]] = []


def _cached(factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, bytes]:
    if not _CACHED:
        folder = factory.mktemp("damaged")
        expected = pictures(folder / "d", 12, grey=(3, 7))
        pack(named(folder / "d", range(12)), SIZE, folder / "c", "digest", "x", False)
        _CACHED.append((folder, expected, (store_of(folder / "c") / "index.jsonl").read_bytes()))
    return _CACHED[0]


@pytest.mark.parametrize("pool", ("colour", "grey"))
def test_each_damaged_byte_of_the_pixels_is_found(tmp_path, pool):
    expected = pictures(tmp_path / "d", 6, grey=(1, 4))
    pack(named(tmp_path / "d", range(6)), SIZE, tmp_path / "c", "digest", "x", False)
    file = store_of(tmp_path / "c") / f"{pool}.u8"
    for _ in range(8):
        content = bytearray(file.read_bytes())
        lines = [json.loads(line) for line in (file.parent / "index.jsonl").read_text().splitlines()]
        slot = SIZE * SIZE * (3 if pool == "colour" else 1)
        used = [line[2] for line in lines if line[1] == pool]
        at = used[_ % len(used)] * slot + 37 * _ % slot
        content[at] ^= 1 << _ % 8
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="1 of 6 images are damaged"):
            mended = pack(named(tmp_path / "d", range(6)), SIZE, tmp_path / "c", "digest", "x", False)
        assert np.array_equal(mended.array, expected)


def _hold(folder: Path, ready, free) -> None:
    with store.Store(folder, SIZE).lock("decoding something"):
        ready.set()
        free.wait(20)


def test_who_waits_for_a_cache_says_for_whom_and_a_dead_holder_holds_nothing(tmp_path, capfd):
    expected = pictures(tmp_path / "d", 3)
    pack(named(tmp_path / "d", [0]), SIZE, tmp_path / "c", "digest", "x", False)
    context = multiprocessing.get_context("fork")
    for end in ("killed", "done"):
        ready, free = context.Event(), context.Event()
        process = context.Process(target=_hold, args=(store_of(tmp_path / "c"), ready, free))
        process.start()
        assert ready.wait(20)
        waiter = context.Process(target=_until, args=(tmp_path, {"killed": 2, "done": 3}[end]))
        waiter.start()
        deadline = time.time() + 20
        heard = ""
        while "waiting" not in heard and time.time() < deadline:
            heard += capfd.readouterr().err
            time.sleep(0.01)
        assert f"process {process.pid} on " in heard and "(decoding something)" in heard
        assert str(store_of(tmp_path / "c")) in heard
        assert waiter.is_alive()
        free.set() if end == "done" else os.kill(process.pid, signal.SIGKILL)
        process.join()
        waiter.join(20)
        assert waiter.exitcode == 0
    assert np.array_equal(pack(named(tmp_path / "d", range(3)), SIZE, tmp_path / "c", "digest", "x", False).array, expected)


def _until(folder: Path, number: int) -> None:
    pack(named(folder / "d", range(number)), SIZE, folder / "c", "digest", "x", False)


def test_a_webp_photo_under_another_name_is_read(tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, :, 1] = 200
    Image.fromarray(picture).save(tmp_path / "photo.webp", "WEBP", lossless=True)
    (tmp_path / "photo.webp").rename(tmp_path / "photo.jpg")
    assert np.array_equal(decode(tmp_path / "photo.jpg", 8), np.broadcast_to(picture[0, 0], (8, 8, 3)))
