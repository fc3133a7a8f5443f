"""Text as people save it: the same lines whatever mark, line end and block size; other encodings are named."""
from __future__ import annotations

import codecs

import pytest

from tcn.config import InputError
from tcn.files import text

LINES = ["name,v0", "café,1", "", "hot dog\t2", "end"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_same_text_whatever_editor_saved_it(tmp_path, mark, end):
    (tmp_path / "list.txt").write_bytes(mark + end.join(LINES).encode())
    assert text.read(tmp_path / "list.txt").split("\n") == LINES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_named_with_what_to_do(tmp_path, encoding):
    (tmp_path / "list.txt").write_text("airplane/a.png 0\n", encoding=encoding)
    with pytest.raises(InputError, match=f"list file .*list.txt is {encoding[:6].upper()} text; save it as UTF-8"):
        text.read(tmp_path / "list.txt", "list file")


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_that_is_not_utf8_is_named_by_its_place_in_the_file(tmp_path, mark):
    (tmp_path / "list.txt").write_bytes(mark + "café".encode("latin-1"))
    with pytest.raises(InputError, match=rf"list.txt is not UTF-8 text \(byte {len(mark) + 3}, 0xe9\)"):
        text.read(tmp_path / "list.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="table .*gone.txt can't be read: No such file"):
        text.read(tmp_path / "gone.txt", "table")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_lines_of_blocks_are_those_of_the_whole(tmp_path, end, last, size):
    raw = (end.join(LINES) + end * last).encode()
    blocks = (raw[i:i + size] for i in range(0, len(raw), size))
    found = [line.decode() for part in text.lines(blocks, tmp_path) for line in part]
    assert found == LINES


def test_a_line_without_end_stops_early(tmp_path):
    taken = []

    def blocks():
        for index in range(1000):
            taken.append(index)
            yield (b"a\n" if index == 0 else b"") + b"x" * (1 << 20)

    with pytest.raises(InputError, match="line 2: longer than"):
        list(text.lines(blocks(), tmp_path / "bomb"))
    assert len(taken) < 10
