"""Word vectors: each file format written byte by byte here, names of several words, and every kind of
damage."""
from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import yaml

from tcn import word_files, words
from tcn.config import InputError
from tcn.words import convert_pickle, load_words, normal_form, write_table

WIDTH = 5
VOCABULARY = {
    "</s>": [9.0, 9, 9, 9, 9],
    "cup": [1.0, 0, 0, 0, 0],
    "Cup": [7.0, 7, 7, 7, 7],
    "palm_tree": [0.0, 2, 0, 0, 0],
    "palm": [5.0, 5, 5, 5, 5],
    "tree": [6.0, 6, 6, 6, 6],
    "Santa_Claus": [0.0, 0, 3, 0, 0],
    "t-shirt": [0.0, 0, 0, 4, 0],
    "wristwatch": [0.5, 0, 0, 0, 0.25],
    "TV": [0.0, 0, 0, 0, 5],
    "mouse": [1.0, 2, 3, 4, 5],
    "animal": [3.0, 2, 1, 0, -1],
    "bow": [1.0, 1, 0, 0, 0],
    "arrow": [0.0, 0, 1, 1, 0],
    "ax": [0.125, 0, 0, 0, 0.5],
    "café": [2.0, 0, 2, 0, 2],
}


def _binary(path: Path, line_feeds: bool = True, count: int | None = None) -> Path:
    """word2vec binary as the original writer makes it, or without its line feeds, as others do."""
    parts = [f"{len(VOCABULARY) if count is None else count} {WIDTH}\n".encode()]
    for token, values in VOCABULARY.items():
        end = b"\n" if line_feeds else b""
        parts.append(token.encode() + b" " + struct.pack(f"<{WIDTH}f", *values) + end)
    path.write_bytes(b"".join(parts))
    return path


def _text(path: Path, header: bool, end: str = "\n") -> Path:
    lines = [f"{len(VOCABULARY)} {WIDTH}"] if header else []
    lines += [" ".join([token, *map(repr, values)]) for token, values in VOCABULARY.items()]
    path.write_text(end.join(lines) + end, encoding="utf-8", newline="")
    return path


def _file(tmp_path: Path, kind: str) -> Path:
    return {
        "word2vec binary": lambda: _binary(tmp_path / "vectors.bin"),
        "word2vec binary without line feeds": lambda: _binary(tmp_path / "vectors.bin", line_feeds=False),
        "word2vec text": lambda: _text(tmp_path / "vectors.txt", header=True),
        "word2vec text of the original writer": lambda: _text(tmp_path / "vectors.txt", True, end=" \n"),
        "GloVe text": lambda: _text(tmp_path / "glove.txt", header=False),
        "GloVe text with Windows line ends": lambda: _text(tmp_path / "glove.txt", header=False, end="\r\n"),
    }[kind]()


KINDS = ("word2vec binary", "word2vec binary without line feeds", "word2vec text",
         "word2vec text of the original writer", "GloVe text", "GloVe text with Windows line ends")


# --- reading ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_vectors(tmp_path: Path, kind: str, zipped: bool) -> None:
    file = _file(tmp_path, kind)
    if zipped:
        file = file.rename(file.with_suffix(file.suffix + ".old"))
        (tmp_path / "vectors.gz").write_bytes(gzip.compress(file.read_bytes()))
        file = tmp_path / "vectors.gz"
    got = load_words(file, ["palm tree", "cup", "café"], unit=False)
    assert got.names == ("palm tree", "cup", "café")
    assert got.vectors.dtype == np.float32 and got.vectors.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(got.vectors, [[0, 2, 0, 0, 0], [1, 0, 0, 0, 0], [2, 0, 2, 0, 2]])
    assert file.name in got.description and kind.split(" with")[0].split(" of")[0] in got.description
    assert f"{len(VOCABULARY)} words, 5-d" in got.description and "raw length" in got.description


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("kind", KINDS[1:4])
def test_vectors_do_not_depend_on_where_a_block_ends(
        tmp_path: Path, kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path, kind)
    whole = load_words(file, ["mouse", "TV", "café"])
    real = word_files._chained

    def small(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
        data = b"".join(real(first, stream))
        return (data[i:i + block] for i in range(0, len(data), block))

    monkeypatch.setattr(word_files, "_chained", small)
    np.testing.assert_array_equal(load_words(file, ["mouse", "TV", "café"]).vectors, whole.vectors)


@pytest.mark.parametrize(("name", "expected", "said"), [
    ("cup", [1, 0, 0, 0, 0], "1 names are tokens as they stand"),
    ("Palm-Tree", [0, 2, 0, 0, 0], "Palm-Tree = palm_tree"),
    ("palm tree", [0, 2, 0, 0, 0], "palm tree = palm_tree"),
    ("santa claus", [0, 0, 3, 0, 0], "santa claus = Santa_Claus"),
    ("t-shirt", [0, 0, 0, 4, 0], "1 names are tokens as they stand"),
    ("wrist-watch", [0.5, 0, 0, 0, 0.25], "wrist-watch = wristwatch"),
    ("tv", [0, 0, 0, 0, 5], "tv = TV"),
    ("mouse (animal)", [2, 2, 2, 2, 2], "mouse (animal) = mean of mouse + animal"),
    ("mouse_(animal)", [2, 2, 2, 2, 2], "mouse_(animal) = mean of mouse + animal"),
    ("bow and arrow", [0.5, 0.5, 0.5, 0.5, 0], "bow and arrow = mean of bow + arrow"),
    ("axe", [0.125, 0, 0, 0, 0.5], "axe = ax"),
])
def test_names_of_several_words(tmp_path: Path, name: str, expected: list[float], said: str) -> None:
    got = load_words(_binary(tmp_path / "v.bin"), [name], unit=False)
    np.testing.assert_array_equal(got.vectors, [expected])
    assert said in got.description


def test_lower_case_wins_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("Cup 1 1\nCUP 2 2\ncup 3 3\nHot_Dog 4 4\nhotdog 5 5\n")
    np.testing.assert_array_equal(load_words(tmp_path / "g.txt", ["cup", "hot dog"], unit=False).vectors,
                                  [[3, 3], [5, 5]])


def test_unit_length_scales_after_averaging(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("red 3 0\nbarn 1 4\n")
    raw = load_words(tmp_path / "g.txt", ["red barn"], unit=False)
    unit = load_words(tmp_path / "g.txt", ["red barn"])
    np.testing.assert_array_equal(raw.vectors, [[2, 2]])
    np.testing.assert_allclose(unit.vectors, [[0.5 ** 0.5] * 2], rtol=1e-6)
    assert "unit length" in unit.description
    assert raw.digest != unit.digest and unit.digest == load_words(tmp_path / "g.txt", ["red barn"]).digest


def test_words_with_spaces_in_glove(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("cup 1 2 3\n. . . 7 8 9\nant hill 7 8 9\nant 4 5 6\n")
    np.testing.assert_array_equal(load_words(tmp_path / "g.txt", ["ant"], unit=False).vectors, [[4, 5, 6]])


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_names_are_listed_all_at_once(tmp_path: Path, kind: str) -> None:
    file = _file(tmp_path, kind)
    with pytest.raises(InputError) as caught:
        load_words(file, ["cup", "griffin", "palm griffin", "santa claus"])
    assert str(file) in str(caught.value) and "2 of 4 class names" in str(caught.value)
    assert "griffin (no vector for griffin), palm griffin (no vector for griffin)" in str(caught.value)


def test_class_names_of_the_paper_resolve_from_their_plain_words(tmp_path: Path) -> None:
    splits = Path(words.__file__).parent / "splits"
    names = [name for stem in ("sketchy-1", "tuberlin", "quickdraw")
             for name in yaml.safe_load((splits / f"{stem}.yaml").read_text())["classes"]]
    plain = sorted({word for name in names for word in re.findall("[a-z]+", name)})
    (tmp_path / "g.txt").write_text("".join(f"{word} {i} 1\n" for i, word in enumerate(plain)))
    got = load_words(tmp_path / "g.txt", names, unit=False)
    of = dict(zip(names, got.vectors, strict=True))
    number = {word: i for i, word in enumerate(plain)}
    assert of["car_(sedan)"].tolist() == [(number["car"] + number["sedan"]) / 2, 1]
    assert of["jack-o-lantern"][0] == pytest.approx((number["jack"] + number["o"] + number["lantern"]) / 3)
    assert of["zebra"].tolist() == [number["zebra"], 1]


# --- damage -------------------------------------------------------------------------------------------------

def test_a_binary_cut_off_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = _binary(tmp_path / "v.bin", line_feeds=False).read_bytes()
    start = whole.index(b"\n") + 1
    for length in range(start + 40, len(whole)):
        (tmp_path / "cut.bin").write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"cut\.bin is cut off at byte {length:,}, in word \d+ of 16"):
            load_words(tmp_path / "cut.bin", ["cup"])


def test_a_binary_that_goes_on_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"goes on after byte \d+, where its 15 words end"):
        load_words(_binary(tmp_path / "v.bin", count=15), ["cup"])


def test_text_cut_off_or_garbled_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("cup 1 2 3\nant 4 5 6\nbee 7 8")
    with pytest.raises(InputError, match=r"g\.txt, line 3: 2 values, 3 expected"):
        load_words(tmp_path / "g.txt", ["cup"])
    (tmp_path / "g.txt").write_text("cup 1 2 3\nant 4 x 6\n")
    with pytest.raises(InputError, match=r"g\.txt, line 2.*x"):
        load_words(tmp_path / "g.txt", ["ant"])
    (tmp_path / "g.txt").write_text("3 2\ncup 1 2\nant 3 4\n")
    with pytest.raises(InputError, match="promises 3 words, the file holds 2"):
        load_words(tmp_path / "g.txt", ["ant"])
    (tmp_path / "g.txt").write_text("2 2\ncup 1 2\nant 3\n")
    with pytest.raises(InputError, match=r"line 3: 1 values, 2 expected"):
        load_words(tmp_path / "g.txt", ["ant"])


def test_values_that_are_not_finite_or_all_zero(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("cup 1 2\nant nan 6\nbee 0 0\n")
    with pytest.raises(InputError, match=r"line 2.*not finite"):
        load_words(tmp_path / "g.txt", ["ant"])
    with pytest.raises(InputError, match="all-zero.*bee"):
        load_words(tmp_path / "g.txt", ["cup", "bee"])
    (tmp_path / "v.bin").write_bytes(b"1 2\ncup " + struct.pack("<2f", 1, float("inf")))
    with pytest.raises(InputError, match=r"word 1 at byte 4.*not finite"):
        load_words(tmp_path / "v.bin", ["cup"])


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"),
    (b"PK\x03\x04rest", "zip archive"),
    (b"hello world\nthis is text\n", "no file of word vectors|could not convert"),
    (b"one two three four\n", "no file of word vectors"),
    (b"\x00" * 100_000, "no file of word vectors"),
    (b"100 300\n" + b"\x01" * 100_000, "at byte 8 does not end"),
    (b"0 300\n", "no words"),
    (b"10 99999999\n", "no file of word vectors"),
    (b"\x1f\x8b\x08\x00garbage", "compressed file|damaged|can't be read"),
])
def test_garbage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "junk.bin").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_words(tmp_path / "junk.bin", ["cup"])
    assert "junk.bin" in str(caught.value)


def test_random_bytes_never_pass_or_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for size in (10, 1000, 50_000):
        for _ in range(20):
            (tmp_path / "junk.bin").write_bytes(random.bytes(size))
            with pytest.raises(InputError, match=r"junk\.bin"):
                load_words(tmp_path / "junk.bin", ["cup"])


def test_a_cut_off_gzip_is_noticed(tmp_path: Path) -> None:
    packed = gzip.compress(_binary(tmp_path / "v.bin").read_bytes())
    (tmp_path / "v.bin.gz").write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"v\.bin\.gz.*cut off"):
        load_words(tmp_path / "v.bin.gz", ["cup"])


def test_missing_file_and_no_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.bin does not exist"):
        load_words(tmp_path / "gone.bin", ["cup"])
    with pytest.raises(InputError, match="no class names"):
        load_words(tmp_path / "gone.bin", [])


# --- tables -------------------------------------------------------------------------------------------------

def test_a_table_is_looked_up_by_normal_form(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name,v0,v1\npalm_tree,1,0\n"flag, white",0,2.5\ncup,3,4\n',
                                    encoding="utf-8-sig")
    got = load_words(tmp_path / "t.csv", ["Palm Tree", "flag, white"], unit=False)
    np.testing.assert_array_equal(got.vectors, [[1, 0], [0, 2.5]])
    assert "t.csv: table, 2-d" in got.description
    np.testing.assert_allclose(load_words(tmp_path / "t.csv", ["cup"]).vectors, [[0.6, 0.8]], rtol=1e-6)


def test_a_written_table_reads_back_bit_for_bit(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)
    write_table(tmp_path / "t.csv", ["a, b", "c", 'd "e"'], vectors)
    got = load_words(tmp_path / "t.csv", ['d "e"', "a, b", "c"], unit=False)
    np.testing.assert_array_equal(got.vectors, vectors[[2, 0, 1]])


@pytest.mark.parametrize(("content", "message"), [
    ("cup,1,2\n", r"t\.csv, line 1: expected the header"),
    ("", r"t\.csv, line 1: expected the header"),
    ("name,v0,v1\ncup,1\n", r"line 2: 1 values, 2 expected"),
    ("name,v0,v1\ncup,1,x\n", r"line 2: .*x"),
    ("name,v0,v1\ncup,1,inf\n", r"line 2: .*not finite"),
    ("name,v0,v1\nCup,1,2\ncup,1,2\n", r"line 3: 'cup' stands in line 2"),
    ("name,v0,v1\nant,1,2\n", r"no row for 1 of 1 class names: cup"),
])
def test_bad_tables(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        load_words(tmp_path / "t.csv", ["cup"])


def test_normal_form() -> None:
    assert normal_form("hot-air_balloon") == normal_form("Hot  air balloon") == normal_form("hot_air_balloon")
    assert normal_form("palm tree") != normal_form("palmtree")
    assert normal_form("cafe\u0301") == normal_form("café")


# --- pickles ------------------------------------------------------------------------------------------------

class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(_Payload(tmp_path / "hacked")))
    with pytest.raises(InputError, match=r"old\.pkl.*python -m tcn\.words old\.pkl old\.csv"):
        load_words(tmp_path / "old.pkl", ["cup"])
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickled_dictionaries_become_tables(tmp_path: Path, protocol: int) -> None:
    content = {"palm_tree": np.array([[1, 2.5]], np.float32), "cup": np.array([3, 4.0]),
               "ant": [np.float32(5), 6]}
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    run = subprocess.run([sys.executable, "-m", "tcn.words", "old.pkl", "new.csv"], cwd=tmp_path,
                         capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "new.csv: 3 rows\n", "")
    got = load_words(tmp_path / "new.csv", ["cup", "palm tree", "ant"], unit=False)
    np.testing.assert_array_equal(got.vectors, [[3, 4], [1, 2.5], [5, 6]])


@pytest.mark.parametrize(("content", "message"), [
    (lambda folder: {"cup": _Payload(folder / "hacked")}, r"asks for posix\.mkdir"),
    (lambda folder: [1, 2], "holds a list"),
    (lambda folder: {}, "holds a dict"),
    (lambda folder: {"cup": [1.0, 2], "ant": [1.0]}, "entry 'ant' holds 1 numbers"),
    (lambda folder: {"cup": "text"}, "entry 'cup' is no vector"),
    (lambda folder: {3: [1.0, 2]}, "entry 3"),
    (lambda folder: {"cup": [1.0, float("nan")]}, "entry 'cup'.*not finite"),
])
def test_other_pickles_are_not_converted(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content(tmp_path)))
    with pytest.raises(InputError, match=message):
        convert_pickle(tmp_path / "old.pkl", tmp_path / "new.csv")
    assert not (tmp_path / "hacked").exists() and not (tmp_path / "new.csv").exists()


def test_a_damaged_pickle(tmp_path: Path) -> None:
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"cup": np.ones(3)})[:-10])
    with pytest.raises(InputError, match=r"old\.pkl is no readable pickle"):
        convert_pickle(tmp_path / "old.pkl", tmp_path / "new.csv")


def test_a_line_feed_in_the_first_float_makes_no_text_of_a_binary(tmp_path):
    """One binary file in 256 starts its first vector with the byte of a line feed: read as a line, it is a bare token."""
    vectors = np.array([struct.unpack("<2f", b"\n\0\0\x3f" + struct.pack("<f", 2.0)), (0.25, 0.5)])
    body = b"".join(name + b" " + struct.pack("<2f", *row) for name, row in zip((b"cat", b"axe"), vectors))
    (tmp_path / "vectors.bin").write_bytes(b"2 2\n" + body)
    np.testing.assert_allclose(load_words(tmp_path / "vectors.bin", ("cat", "axe"), unit=False).vectors, vectors, rtol=1e-7)


def test_values_whose_squares_overflow_are_named(tmp_path):
    (tmp_path / "words.csv").write_text("name,v0,v1\ncat,1,1e200\n")
    with pytest.raises(InputError, match="words.csv, line 2.*above 1e.18"):
        load_words(tmp_path / "words.csv", ("cat",))
