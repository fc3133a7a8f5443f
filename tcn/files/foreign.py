"""Files of another format than they are taken for, told by how they begin.

In: the first bytes of a file. Out: what it is and what to do about it, as the end of a message. Each reader adds the formats that
its own users mix up.
"""
from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

Sign = tuple[int, bytes, str]
"""Position of a signature, the signature, and what to tell the user."""
ZIP: Sign = (0, b"PK\3\4", "a zip archive: unpack it")
_SIGNS: tuple[Sign, ...] = (
    (0, b"\x1f\x8b", "gzip-compressed: call it NAME.gz and run `gunzip NAME.gz`"),
    (0, b"\xfd7zXZ\0", "xz-compressed: call it NAME.xz and run `unxz NAME.xz`"),
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` in the checkout it comes from"))
PAGE = "a page of HTML or XML, such as an error page saved in the file's place: get the file again"
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s|html[\s>]|\?xml\s)", re.IGNORECASE)


def named(start: bytes, also: Sequence[Sign] = ()) -> str | None:
    """What a file that starts so is; None where nothing is known of it. `also`: further signatures."""
    if _PAGE.match(start):
        return PAGE
    return next((its for place, sign, its in (*_SIGNS, *also) if start.startswith(sign, place)), None)


def of(path: Path, also: Sequence[Sign] = ()) -> str:
    """`; it is ...`, to end a message about a file that can't be read; empty where nothing is known of it."""
    its = None
    if path.is_file():  # reading a pipe might never end
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            its = named(stream.read(512), also)
    return f"; it is {its}" if its else ""
