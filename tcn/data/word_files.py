"""Published files of word vectors: word2vec binary, word2vec text and GloVe text, plain or `.gz`.

In: a file, and an object that says which words are needed. Out: the vectors of these words, passed on while the file is read as a
stream. The format is recognised by content. Text may have tabs or several spaces between numbers, a byte-order mark, and the line
ends of any system, also mixed. Paper: semantic metric.
"""
from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

import numpy as np

from tcn.config import InputError
from tcn.files import text

_LONGEST_TOKEN = 4096
_LARGEST_WIDTH = 10_000
_LARGEST_VALUE = 1e18
_BLOCK = 1 << 20
_LOOKED_AT = 100
"""Number of first lines whose most frequent number of values is the file's width, where no header gives it."""
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_HEADER = re.compile(rb"[ \t]*(\d{1,12})[ \t]+(\d{1,12})[ \t]*(?:\r\n|\r|\n)")
_TAB = bytes.maketrans(b"\t", b" ")


class Wanted(Protocol):
    """What decides which words are needed, and takes their vectors."""

    def wants(self, token: bytes) -> bool:
        """Whether a class name may need this word. Called for every word of the file, so it must be fast."""

    def keep(self, token: bytes, vector: np.ndarray) -> None:
        """Take a wanted word's vector, float64 [W]."""


class Kind(NamedTuple):
    """The format of a file."""

    name: str
    words: int
    width: int


def read(source: Path, wanted: Wanted) -> Kind:
    """Read a file as a stream, and pass on what is wanted. Raises InputError naming the file and the byte or line at fault."""
    try:
        with open(source, "rb") as raw:
            magic = raw.read(4)
        if magic == b"PK\x03\x04":
            raise InputError(f"{source} is a zip archive: unpack it and pass the file of vectors inside")
        zipped = magic[:2] == b"\x1f\x8b"
        with gzip.open(source, "rb") if zipped else open(source, "rb") as stream:
            return _read(cast(BinaryIO, stream), source, wanted)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{source}: the compressed file is cut off or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror or error}") from error


def floats(fields: Sequence[str | bytes], where: str) -> np.ndarray:
    """The numbers of one row, float64. Raises InputError, which starts with `where`, for anything but finite numbers."""
    try:
        values = np.array([float(value) for value in fields])
    except ValueError as error:
        raise InputError(f"{where}: {error}; is this word2vec (binary or text), GloVe text, or a CSV table named .csv?"
                         ) from error
    return finite(values, where)


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """`values`, checked to be finite and small enough for sums of squares. Raises InputError, which starts with `where`."""
    # Vectors are passed on as float32, and lengths are sums of squares.
    if not (np.abs(values) <= _LARGEST_VALUE).all():
        raise InputError(f"{where}: the vector holds a value that is not finite, or above {_LARGEST_VALUE:g}")
    return values


def _read(stream: BinaryIO, source: Path, wanted: Wanted) -> Kind:
    raw = stream.read(_BLOCK)
    if not raw:
        raise InputError(f"{source} is empty")
    head = text.without_mark(raw, source, "word vector file")
    first = _first_line(head)
    header = _HEADER.match(head)
    if header is None:
        width = _usual_width(head)
        _check_width(width, source, first)
        return Kind("GloVe text", _read_text(_chained(head, stream), source, wanted, width, None), width)
    count, width = int(header[1]), int(header[2])
    _check_width(width, source, first)
    if count < 1:
        raise InputError(f"{source}: the header says that the file holds no words")
    rest = head[header.end():]
    # The bytes of a float may contain a line feed, so a short first "line" alone is no evidence.
    if _is_text(rest[:max(len(_first_line(rest)), 4 * width, 256)]):
        return Kind("word2vec text", _read_text(_chained(head, stream), source, wanted, width, count), width)
    words = _read_binary(_chained(rest, stream), len(raw) - len(rest), source, wanted, width, count)
    return Kind("word2vec binary", words, width)


def _first_line(head: bytes) -> bytes:
    return re.split(rb"[\r\n]", head, maxsplit=1)[0]


def _usual_width(head: bytes) -> int:
    """The number of numbers at the end of most of the first lines; 0 if there are none."""
    lines = re.split(rb"\r\n|\r|\n", head, maxsplit=_LOOKED_AT)
    if len(lines) > 1 and (len(lines) > _LOOKED_AT or len(head) >= _BLOCK):
        lines.pop()  # not looked at, or cut by the block's end
    widths: Counter[int] = Counter()
    for fields in filter(None, map(bytes.split, lines)):
        words = next((n for n in range(len(fields), 1, -1) if not _NUMBER.fullmatch(fields[n - 1])), 1)
        widths[len(fields) - words] += 1
    return widths.most_common(1)[0][0] if widths else 0


def _check_width(width: int, source: Path, first: bytes) -> None:
    if not 2 <= width <= _LARGEST_WIDTH:
        raise InputError(f"{source} is no file of word vectors: line 1 starts {first[:40]!r}; expected a "
                         f"word2vec header 'count width' or a GloVe line 'word v0 v1 ...', with spaces or tabs between numbers "
                         f"that have a decimal point; a table with commas needs the header 'name,v0,v1,...' and the ending .csv")


def _is_text(sample: bytes) -> bool:
    """Whether bytes are readable text, which raw floats hardly ever are. A character may be cut off at the end."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


def _chained(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield head
    while block := stream.read(_BLOCK):
        yield block


def _read_text(blocks: Iterator[bytes], source: Path, wanted: Wanted, width: int, count: int | None) -> int:
    number = words = 0
    for lines in text.lines(blocks, source):
        for line in lines:
            number += 1
            if number > 1 or count is None:
                words += _text_line(line, number, source, wanted, width)
    if count is not None and words != count:
        raise InputError(f"{source}: the header promises {count:,} words, the file holds {words:,}; it is "
                         f"cut off or damaged, fetch it again")
    return words


def _text_line(line: bytes, number: int, source: Path, wanted: Wanted, width: int) -> int:
    """Read one line. Returns the number of words in it: 1, or 0 for a blank line."""
    line = line.strip(b" \t\r")
    if not line:
        return 0
    if b"\t" in line:
        line = line.translate(_TAB)
    if line.count(b" ") == width:
        token, values = line.split(b" ", 1)
        if not wanted.wants(token):
            return 1
        fields = values.split(b" ")
        if b"" not in fields:
            wanted.keep(token, floats(fields, f"{source}, line {number}"))
            return 1
    # Runs of spaces, or one of the few words that hold spaces themselves: values are counted from the right.
    words = [field for field in line.split(b" ") if field]
    fields = words[-width:]
    del words[-width:]
    there = len(fields) + len(words) - 1
    if not words:
        raise InputError(f"{source}, line {number}: {there} values, {width} expected; the file is cut off "
                         f"or damaged")
    token = b" ".join(words)
    needed = wanted.wants(token)
    if len(words) > 1 and not needed and _NUMBER.fullmatch(words[-1]):
        raise InputError(f"{source}, line {number}: {there} values after '{words[0][:40].decode('utf-8', 'replace')}', {width} "
                         f"expected; a number is too many, or the line is damaged")
    if needed:
        wanted.keep(token, floats(fields, f"{source}, line {number}"))
    return 1


def _read_binary(chunks: Iterator[bytes], offset: int, source: Path, wanted: Wanted, width: int,
                 count: int) -> int:
    size = 4 * width
    buffer, start = b"", 0
    for index in range(count):
        while True:
            space = buffer.find(b" ", start)
            if space >= 0 and space + 1 + size <= len(buffer):
                break
            if space < 0 and len(buffer) - start > _LONGEST_TOKEN or space - start > _LONGEST_TOKEN:
                raise InputError(f"{source}: word {index + 1:,} at byte {offset + start:,} does not end; "
                                 f"this is no word2vec binary of {width} values a word, or it is damaged")
            chunk = next(chunks, None)
            if chunk is None:
                raise InputError(f"{source} is cut off at byte {offset + len(buffer):,}, in word "
                                 f"{index + 1:,} of {count:,}; fetch it again")
            offset += start
            buffer, start = buffer[start:] + chunk, 0
        token = buffer[start:space].lstrip(b"\n")  # the original writer ends each vector with a line feed
        if wanted.wants(token):
            vector = np.frombuffer(buffer, "<f4", width, space + 1).astype(np.float64)
            where = f"{source}: word {index + 1:,} at byte {offset + start:,}"
            wanted.keep(token, finite(vector, where))
        start = space + 1 + size
    if buffer[start:].strip() or any(chunk.strip() for chunk in chunks):
        raise InputError(f"{source} goes on after byte {offset + start:,}, where its {count:,} words end; "
                         f"this is no word2vec binary of {width} values a word, or it is damaged")
    return count
