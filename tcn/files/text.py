"""Text files as people save them: byte-order marks, line ends of every system, encodings that are not UTF-8, packed files.

In: a file, or blocks of one that is too large to hold. Out: text whose lines end in a line feed, or lines of bytes.
Every reader of lists, tables and word vectors starts here. `shown` and `some` write file names into messages.
"""
from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tcn.config import InputError
from tcn.files import foreign

LONGEST_LINE = 1 << 22
"""Bytes of a line in a streamed file: far more than 10,000 numbers take."""
_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
          (codecs.BOM_UTF16_BE, "UTF-16"))  # the first mark of UTF-16 starts that of UTF-32
_UNMARKED = ((re.compile(rb"(?:[^\0]\0\0\0){2}|(?:\0\0\0[^\0]){2}"), "UTF-32"),
             (re.compile(rb"(?:[^\0]\0){4}|(?:\0[^\0]){4}"), "UTF-16"))


def read(path: Path, what: str = "file") -> str:
    """A whole file of UTF-8 text, without a byte-order mark; CRLF and CR are line feeds.

    `what` names its kind in messages. Raises InputError naming the file where it can't be read, and as `decoded` does.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} can't be read: {error.strerror or error}") from error
    return decoded(raw, path, what)


def decoded(raw: bytes, path: Path | str, what: str = "file") -> str:
    """The text of a whole file's bytes, as `read` gives it.

    Raises InputError naming the file where it is UTF-16 or UTF-32, packed or of another format that is known by its beginning,
    or holds a byte that is not UTF-8, with that byte's place.
    """
    body = without_mark(raw, path, what)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start + len(raw) - len(body)}, "
                         f"0x{body[error.start]:02x}); save it as UTF-8, if it is text at all") from error
    # looking for two letters takes as long as decoding, for one letter nothing
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def without_mark(head: bytes, path: Path | str, what: str = "file") -> bytes:
    """The start of a file without UTF-8's byte-order mark. Raises InputError where it is text in UTF-16 or UTF-32, or no text but
    packed, a Git LFS pointer or a web page."""
    if its := foreign.named(head, (foreign.ZIP,)):
        raise InputError(f"{what} {path} is {its}")
    found = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    found = found or next((name for pattern, name in _UNMARKED if pattern.match(head)), None)
    if found:
        raise InputError(f"{what} {path} is {found} text; save it as UTF-8 (`iconv -f {found} -t UTF-8 OLD > NEW`, or an "
                         f"editor's 'Save as')")
    return head.removeprefix(codecs.BOM_UTF8)


def separator(table: str) -> str:
    """What parts the columns of a table: comma, semicolon or tab, whichever its first line holds most of."""
    return max(",;\t", key=table.partition("\n")[0].count)


def lines(blocks: Iterable[bytes], path: Path) -> Iterator[list[bytes]]:
    """The lines of a file that comes in blocks of bytes, without their ends: a list for each block, whole lines only.

    Lines end in LF, CRLF or CR, also within one file, as in `read`. Raises InputError where one is longer than `LONGEST_LINE`.
    """
    rest, number = b"", 0
    for block in blocks:
        whole = rest + block
        if b"\r" in block or rest.endswith(b"\r"):
            half = whole[-1:] if whole.endswith(b"\r") else b""  # perhaps of a CRLF
            whole = whole[:len(whole) - len(half)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + half
        found = whole.split(b"\n")
        rest = found.pop()
        number += len(found)
        if len(rest) > LONGEST_LINE:
            raise InputError(f"{path}, line {number + 1}: longer than {LONGEST_LINE:,} bytes; this is no text of lines")
        yield found
    if rest:
        yield [rest.removesuffix(b"\r")]


# --- file names in messages -------------------------------------------------------------------------------------------

def shown(name: object) -> str:
    """A file name or path for a message, with line feeds, control characters, direction marks and bytes outside UTF-8 escaped."""
    text = str(name)
    return text if text.isprintable() else "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)


def some(names: Sequence[str], limit: int = 10) -> str:
    """The first `limit` names for a message, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(shown, names[:limit])) + (f" and {more} more" if more > 0 else "")
