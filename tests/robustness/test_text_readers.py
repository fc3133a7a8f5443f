"""Every reader of text takes it however it was saved, and names what is no text.

One table of readers: each reads the same content in every form that editors and spreadsheets write, and must find the same.
"""
from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import records
from benchmarks.extension import digits_data
from benchmarks.tools import make_words
from reports import published
from reports.read import files as result_files
from reports.read.files import ReportError
from tcn.config import InputError
from tcn.data import declared, strokes
from tcn.data.lists import read_list, read_names
from tcn.data.words import load_words

DRAWING = {"word": "ant", "recognized": True, "drawing": [[[0, 1], [2, 3]]]}
PUBLISHED = ",".join(published.COLUMNS)


def words(path: Path) -> list[list[float]]:
    return load_words(path, ["cat", "ant", "dog"], unit=False).vectors.tolist()


def in_list(path: Path) -> Any:
    paths, labels = read_list(path)
    return paths, labels.tolist()


def digits(path: Path) -> Any:
    (path.parent / "mnist_m_test").mkdir(exist_ok=True)
    for value, name in enumerate(("0 a.png", "b.png", "c.png")):
        Image.new("RGB", (28, 28), (value,) * 3).save(path.parent / "mnist_m_test" / name)
    found = digits_data._mnist_m(path.parent, "test")
    return found.labels.tolist(), found.images[:, 0, 0, 0].tolist()


def own_set(path: Path) -> Any:
    for kind in ("sketch", "photo"):
        for name in "abcd":
            (path.parent / kind / name).mkdir(parents=True, exist_ok=True)
    return declared.read(path).plan.roles


@dataclass(frozen=True)
class Reader:
    read: Callable[[Path], Any]
    file: str
    lines: tuple[str, ...]
    gap: str = ""
    """What parts two values and may be a tab, in some formats a run of spaces too."""
    runs: bool = False
    """Whether it may be a run."""
    marks: str = ""
    """What else may part two values."""
    own: bool = False
    """Whether only this project writes such files."""


READERS = {
    "list": Reader(in_list, "list.txt", ("a/1.png 0", "a/hot dog/2.png 1", "a/3.png 0"), " ", True),
    "class names": Reader(read_names, "names.txt", ("ant 0", "palm tree 1", "bee 2"), " ", True),
    "list as a table": Reader(in_list, "list.csv", ("img_path,label", "a/1.png,105", "a/2.png,106"), ",", marks=";"),
    "GloVe": Reader(words, "w.txt", ("cat 1.5 2.5", "ant 2 3", "dog 4 5"), " ", True),
    "word2vec": Reader(words, "w2.txt", ("3 2", "cat 1.5 2.5", "ant 2 3", "dog 4 5"), " ", True),
    "words as a table": Reader(words, "w.csv", ("name,v0,v1", "cat,1.5,2.5", "ant,2,3", "dog,4,5"), ",", marks=";"),
    "drawings": Reader(lambda path: [one.key for one in strokes.read_drawings(path)], "ant.ndjson",
                       tuple(json.dumps({**DRAWING, "key_id": key}) for key in "123")),
    "data set": Reader(own_set, "set.yaml", ("name: mine", "root: .", "sketches: sketch", "photos: photo", "seen: [a, b]",
                                             "unseen: [c, d]")),
    "published rows": Reader(published.read, "rows.csv", (PUBLISHED, "X,64,real,sketchy,1,mAP@all,0.5,here",
                                                          "Y,64,real,sketchy,1,mAP@all,0.6,here"), ",", marks=";"),
    "MNIST-M": Reader(digits, "mnist_m_test_labels.txt", ("0 a.png 7", "b.png 1", "c.png 9"), " ", True),
    "names for vectors": Reader(make_words._read_names, "own names.txt", ("ant", "palm tree", "bee")),
    "settings of a run": Reader(records.read_json, "config.json", ("{", '"a": 1,', '"b": "c"}'), own=True),
    "rows of a run": Reader(records.read_rows, "rows.csv", ("a,b", "1,2", "3,4"), own=True),
    "settings in the report": Reader(result_files.read_json, "config.json", ("{", '"a": 1,', '"b": "c"}'), own=True),
    "rows in the report": Reader(lambda path: result_files.read_frame(path, ("a",), ("b",)).values.tolist(), "rows.csv",
                                 ("a,b", "1,2", "3,4"), own=True),
}
FOREIGN_TEXT = sorted(name for name, reader in READERS.items() if not reader.own)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_finds_the_same_however_the_file_was_saved(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    plain = "\n".join(reader.lines)

    def found(content: str, mark: bytes = b"") -> Any:
        (tmp_path / reader.file).write_bytes(mark + content.encode())
        return reader.read(tmp_path / reader.file)

    expected = found(plain)
    assert expected
    forms = {"end of the last line": plain + "\n", "CRLF": "\r\n".join(reader.lines) + "\r\n", "CR": "\r".join(reader.lines)}
    if not reader.own:
        forms |= {"a CR among LF": plain[::-1].replace("\n", "\r", 1)[::-1] + "\n", "blank lines": plain + "\n\n",
                  "a CR among CRLF": plain.replace("\n", "\r", 1).replace("\n", "\r\n")}
    gaps = [*("\t" if reader.gap else ""), *reader.marks, *(("   ", " \t ", "\t\t") if reader.runs else ())]
    for gap in gaps:
        rows = [gap.join(line.rsplit(reader.gap, 1)) if reader.gap == " " else line.replace(reader.gap, gap)
                for line in reader.lines]
        forms[f"{gap!r} between values"] = "\n".join(rows)
    for form, content in forms.items():
        for mark in (b"", b"\xef\xbb\xbf"):
            assert found(content, mark) == expected, (form, mark)


@pytest.mark.parametrize("name", FOREIGN_TEXT)
def test_a_reader_names_what_is_no_text_of_its_kind(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    plain = "\n".join(reader.lines) + "\n"
    contents = {
        "UTF-16 text; save it as UTF-8": plain.encode("utf-16"), "UTF-16 text; save": plain.encode("utf-16-le"),
        "UTF-32 text; save it as UTF-8": plain.encode("utf-32"),
        "is gzip-compressed: call it NAME.gz and run `gunzip": gzip.compress(plain.encode()),
        "is xz-compressed": b"\xfd7zXZ\0\0\4", "a zip archive: unpack": b"PK\3\4\x14\0",
        "is a Git LFS pointer: run `git lfs pull`": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n",
        "is a page of HTML or XML": b"\n<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        "is not UTF-8 text (byte": b"caf\xe9 1\n" + plain.encode("latin-1")}
    if name in ("GloVe", "word2vec"):  # files of vectors are read as they are packed, and tokens may be any bytes
        contents = {message: content for message, content in contents.items() if "gzip" not in message and "byte" not in message}
    if name == "drawings":
        del contents["is not UTF-8 text (byte"]
    for message, content in contents.items():
        (tmp_path / reader.file).write_bytes(content)
        with pytest.raises((InputError, ReportError)) as caught:
            reader.read(tmp_path / reader.file)
        said = str(caught.value)
        assert message in said and str(tmp_path / reader.file) in said and "\n" not in said, (message, said)


def test_a_table_without_a_known_column_says_what_may_part_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(PUBLISHED.replace(",", "|"))
    with pytest.raises(ReportError, match="line 1: no column method.*commas, semicolons or tabs between"):
        published.read(tmp_path / "rows.csv")
