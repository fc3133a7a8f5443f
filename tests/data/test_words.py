"""Word vectors: each file format written byte by byte here, names of several words, and every kind of
damage."""
from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import yaml

from tcn.config import InputError
from tcn.data import word_files, words
from tcn.data.words import convert_pickle, load_words, normal_form, write_table

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


def test_title_case_serves_before_capitals_as_a_name_and_as_a_word_of_one(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("CUP 9 9\nCup 1 1\nHOT 2 3\nDOG 9 9\nDog 4 5\n")
    np.testing.assert_array_equal(load_words(tmp_path / "g.txt", ["cup", "hot dog"], unit=False).vectors, [[1, 1], [3, 4]])


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


# --- names as they stand ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("stem", "file"), [("sketchy-1", "words-sketchy.txt"), ("sketchy-2", "words-sketchy.txt"),
                                            ("tuberlin", "words-tuberlin.txt")])
def test_the_paper_s_own_vectors_serve_every_class_by_its_own_line(shared_data: Path, stem: str, file: str) -> None:
    names = list(yaml.safe_load((Path(words.__file__).parent / "splits" / f"{stem}.yaml").read_text())["classes"])
    lines = dict(line.split(" ", 1) for line in (shared_data / file).read_text().splitlines())
    got = load_words(shared_data / file, names, unit=False)
    assert len(names) == len(lines) == (250 if stem == "tuberlin" else 125)
    for name, vector in zip(got.names, got.vectors, strict=True):
        np.testing.assert_array_equal(vector, np.array(lines[name.replace(" ", "_")].split(), dtype=float).astype(np.float32))
    twins = "the same vector for crab = hermit_crab; sea_turtle = turtle;"
    assert twins in got.description if file == "words-sketchy.txt" else "same vector" not in got.description
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(lines[name.replace(" ", "_")], []).append(name)
    same = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    assert same == ((("crab", "hermit_crab"), ("sea_turtle", "turtle")) if file == "words-sketchy.txt" else ())
    assert got.alike == load_words(shared_data / file, names, unit=True).alike == same


@pytest.mark.parametrize(("names", "tokens"), [
    (["car_(sedan)", "hot-air_balloon"], ["car_(sedan)", "hot-air_balloon"]),
    (["car (sedan)", "pipe (for smoking)"], ["car_(sedan)", "pipe_(for_smoking)"]),  # underscores for spaces
    (["car_(sedan)", "ice_cream"], ["car (sedan)", "ice cream"]),  # spaces for underscores: words with spaces in text
    (["car_(sedan)", "hot air balloon"], ["Car_(Sedan)", "Hot-air_balloon"]),  # normal form alone
    (["hot-air balloon", "CAFÉ au lait"], ["hot_air-balloon", "café_au-lait"]),
    (["jack o lantern", "car (sedan)"], ["jack-o_lantern", "car-(sedan)"]),
])
@pytest.mark.parametrize("form", ["word2vec text", "word2vec binary"])
def test_a_name_is_its_own_token_before_it_is_words(tmp_path: Path, names: list[str], tokens: list[str], form: str) -> None:
    if form == "word2vec binary" and any(" " in token for token in tokens):
        form = "word2vec text"  # a space ends a word in the binary format
    parts = sorted({part for token in tokens for part in re.findall(r"\w+", token.replace("_", " "))})
    rows = [*((part, 100 + i, 7) for i, part in enumerate(parts)), *((token, i, 1) for i, token in enumerate(tokens))]
    body = (b"".join(token.encode() + b" " + struct.pack("<2f", *values) for token, *values in rows) if form == "word2vec binary"
            else "".join(f"{token} {a}.0 {b}.0\n" for token, a, b in rows).encode())
    (tmp_path / "v.bin").write_bytes(f"{len(rows)} 2\n".encode() + body)
    got = load_words(tmp_path / "v.bin", names, unit=False)
    np.testing.assert_array_equal(got.vectors, [[0, 1], [1, 1]])
    assert form in got.description
    assert all(name == token or f"{name} = {token}" in got.description for name, token in zip(names, tokens))


@pytest.mark.parametrize(("content", "name", "expected"), [
    ("cup 1 1\nCup 2 2\n", "Cup", [2, 2]),  # as it stands, before lower case
    ("Palm_tree 1 1\npalm-tree 2 2\npalm tree 3 3\n", "palm tree", [3, 3]),
    ("palm-tree 2 2\npalm_tree 1 1\npalmtree 3 3\n", "palm_tree", [1, 1]),
    ("palm-tree 2 2\npalmtree 3 3\nPalm_Tree 1 1\n", "palm_tree", [2, 2]),  # lower case before the first joint
    ("car 1 1\nsedan 3 3\ncar_sedan 2 2\n", "car_(sedan)", [2, 2]),  # one token before a mean
    ("car 1 1\nsedan 3 3\n", "car_(sedan)", [2, 2]),
    ("axe 1 1\nax 2 2\n", "axe", [1, 1]),
    ("table_lamp 1 1\nTable 5 5\nlamp 6 6\n", "tablelamp", [1, 1]),
])
def test_the_order_in_which_a_name_is_looked_up(tmp_path: Path, content: str, name: str, expected: list[float]) -> None:
    (tmp_path / "g.txt").write_text(content)
    np.testing.assert_array_equal(load_words(tmp_path / "g.txt", [name], unit=False).vectors, [expected])


def test_what_is_repeated_or_shared_is_said(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("cup 1 2\nant 3 4\nbee 3 4\nant 3 4\nfox 1 1\nfox 2 2\ncup 9 9\n")
    got = load_words(tmp_path / "g.txt", ["bee", "cup", "ant"], unit=False)
    np.testing.assert_array_equal(got.vectors, [[3, 4], [1, 2], [3, 4]])
    assert "another vector further down for cup: the first is taken" in got.description  # fox is nobody's, ant's are alike
    assert "the same vector for bee = ant;" in got.description
    (tmp_path / "t.csv").write_text("name,v0,v1\ncup,1,2\nant,3,4\nmug,1,2\n")
    assert "the same vector for cup = mug;" in load_words(tmp_path / "t.csv", ["cup", "mug", "ant"]).description
    lone = load_words(tmp_path / "t.csv", ["cup", "ant"])
    assert "same vector" not in lone.description and lone.alike == () and lone.note == ""


@pytest.mark.parametrize("unit", [True, False])
def test_classes_that_share_a_vector_are_told_in_groups(tmp_path: Path, unit: bool) -> None:
    """Also where two names are means of the same words, and where a zero has a sign."""
    (tmp_path / "g.txt").write_text("cup 3 0\nmug 3 -0\nant 0 4\nbee 0 4\nfox 4 0.001\nowl 0 4\npine 1 2\ntree 3 5\n")
    got = load_words(tmp_path / "g.txt", ["bee", "tree pine", "cup", "owl", "fox", "pine_tree", "mug", "ant"], unit=unit)
    assert got.alike == (("bee", "owl", "ant"), ("tree pine", "pine_tree"), ("cup", "mug"))
    assert got.note == ("the same vector for bee = owl = ant; tree pine = pine_tree; cup = mug: by their words alone these "
                        "classes can't be told apart")


# --- text as people save it ---------------------------------------------------------------------------------

@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("gap", [" ", "\t", "   ", " \t "])
@pytest.mark.parametrize("form", ["GloVe text", "word2vec text", "table"])
def test_marks_line_ends_and_gaps_change_no_vector(tmp_path: Path, mark: bytes, end: str, gap: str, form: str) -> None:
    rows = [["cat", "1.5", "0", "-2"], ["hot_dog", "3", "4e0", ".5"], ["ant", "7", "8", "9"]]
    if form == "table":
        lines = ["name,v0,v1,v2", *(",".join(row) for row in rows)]
    else:
        lines = [f"3{gap}3"] * (form == "word2vec text") + [gap.join(row) for row in rows]
    file = tmp_path / ("w.csv" if form == "table" else "w.txt")
    file.write_bytes(mark + end.join(lines).encode())
    got = load_words(file, ["cat", "hot dog", "ant"], unit=False)
    np.testing.assert_array_equal(got.vectors, [[1.5, 0, -2], [3, 4, 0.5], [7, 8, 9]])
    assert form in got.description


def test_a_binary_after_a_mark_is_read(tmp_path: Path) -> None:
    whole = _binary(tmp_path / "v.bin").read_bytes()
    (tmp_path / "v.bin").write_bytes(b"\xef\xbb\xbf" + whole)
    np.testing.assert_array_equal(load_words(tmp_path / "v.bin", ["cup"], unit=False).vectors, [[1, 0, 0, 0, 0]])


@pytest.mark.parametrize("name", ["w.txt", "w.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_text("name,v0,v1\ncup,1,2\n" if name == "w.csv" else "cup 1 2\nant 3 4\n", encoding=encoding)
    with pytest.raises(InputError, match=f"{name} is {encoding[:6].upper()} text; save it as UTF-8"):
        load_words(tmp_path / name, ["cup"])


def test_words_that_are_not_utf8_are_said_where_a_name_needs_them(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("café 1 2\ncup 3 4\n", encoding="latin-1")
    with pytest.raises(InputError, match="no vector for caf\u00e9.*not UTF-8: save it so"):
        load_words(tmp_path / "w.txt", ["café"])
    np.testing.assert_array_equal(load_words(tmp_path / "w.txt", ["cup"], unit=False).vectors, [[3, 4]])


@pytest.mark.parametrize(("content", "message"), [
    ("cup 1 2 3\ndog 4 1 2 3\nant 4 5 6\n", r"line 2: 4 values after 'dog', 3 expected; a number is too many"),
    ("dog 4 1 2 3\ncup 1 2 3\nant 4 5 6\n", r"line 1: 4 values after 'dog', 3 expected"),  # the width is that of most lines
    ("3 3\ncup 1 2 3\ndog 4.5 1 2 3\nant 4 5 6\n", r"line 3: 4 values after 'dog', 3 expected"),
    ("cup\t1\t2\t3\ndog  4\t1 2 3\nant 1 2 3\n", r"line 2: 4 values after 'dog'"),
    ("cup 1 2 3\nant\t1\t2\nbee 1 2 3\n", r"line 2: 2 values, 3 expected"),
    ("cup  1 2\nant 1 2 3\nbee 1 2 3\n", r"line 1: 2 values, 3 expected"),  # a run of spaces is no value
    ("cup,1,2,3\nant,4,5,6\n", r"no file of word vectors.*a table with commas needs the header"),
    ("cup 1,5 2,5\nant 2,5 3,5\n", "no file of word vectors.*decimal point"),
])
def test_rows_of_another_length_and_other_formats_are_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "w.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        load_words(tmp_path / "w.txt", ["cup", "ant"])


def test_words_with_spaces_stay_words(tmp_path: Path) -> None:
    """As in GloVe's largest file; and a number belongs to the word where a class is called so."""
    (tmp_path / "w.txt").write_text("hot dog 1 2 3\n. . . 7 8 9\nat name@domain.com 7 8 9\ncup 1 1 1\nMig 29 4 5 6\n")
    got = load_words(tmp_path / "w.txt", ["hot_dog", "cup", "mig_29"], unit=False)
    np.testing.assert_array_equal(got.vectors, [[1, 2, 3], [1, 1, 1], [4, 5, 6]])
    with pytest.raises(InputError, match="line 5: 4 values after 'Mig'"):
        load_words(tmp_path / "w.txt", ["cup"])


def test_columns_of_a_table_are_taken_by_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,v2,v0,v10\ncup,3,1,4\n")
    np.testing.assert_array_equal(load_words(tmp_path / "t.csv", ["cup"], unit=False).vectors, [[1, 3, 4]])
    (tmp_path / "t.csv").write_text("name,b,a\ncup,3,1\n")
    np.testing.assert_array_equal(load_words(tmp_path / "t.csv", ["cup"], unit=False).vectors, [[3, 1]])
    (tmp_path / "t.csv").write_text("name,v0,v0\ncup,3,1\n")
    with pytest.raises(InputError, match=r"t\.csv, line 1: a column stands there twice"):
        load_words(tmp_path / "t.csv", ["cup"])


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
    with pytest.raises(InputError, match=r"old\.pkl.*python -m tcn\.data\.words old\.pkl old\.csv"):
        load_words(tmp_path / "old.pkl", ["cup"])
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickled_dictionaries_become_tables(tmp_path: Path, protocol: int, capsys, monkeypatch) -> None:
    content = {"palm_tree": np.array([[1, 2.5]], np.float32), "cup": np.array([3, 4.0]),
               "ant": [np.float32(5), 6]}
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    monkeypatch.chdir(tmp_path)
    assert words.main(["old.pkl", "new.csv"]) == 0 and tuple(capsys.readouterr()) == ("new.csv: 3 rows\n", "")
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


def test_the_record_counts_names_by_how_they_were_found(tmp_path):
    (tmp_path / "w.txt").write_text("cup 1 2\nHot-Dog 2 1\nred 1 0\nfox 0 1\nbig 2 2\ntop 1 3\n")
    said = load_words(tmp_path / "w.txt", ["cup", "hot_dog", "red fox", "big top", "fox"]).description
    assert "; 2 names are tokens as they stand; 1 are one token spelt otherwise (hot_dog = Hot-Dog); 2 are means of" in said


def test_the_header_of_a_table_may_have_gaps(tmp_path):
    (tmp_path / "w.csv").write_text(" name , v0, v1\ncup,1,2\n")
    assert load_words(tmp_path / "w.csv", ["cup"], unit=False).vectors.tolist() == [[1, 2]]
