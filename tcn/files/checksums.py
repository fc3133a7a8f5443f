"""SHA-256 checksums of files, and the list of them that lies beside the files.

In: paths. Out: hex digests; the list in the form that `sha256sum -c` reads.
"""
from __future__ import annotations

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"
"""Name of the list of a folder's checksums."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents, in hex. OSError where it can't be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_line(digest: str, name: str) -> str:
    """One line of the list, with its line end."""
    return f"{digest}  {name}\n"


def read_sums(folder: Path) -> list[tuple[str, str]]:
    """(digest, name) of each line of a folder's list, as they stand there: a damaged line gives odd ones.

    Raises OSError where there is no list or it can't be read, ValueError where it is not UTF-8.
    """
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return [(digest, name) for digest, _, name in (line.partition("  ") for line in lines)]
