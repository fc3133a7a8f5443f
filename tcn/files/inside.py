"""Whether a file lies where its path says: folders made by others may hold links to any file of this machine.

In: a path and a folder. Out: whether the file may be shown or copied as one of the folder's.
"""
from __future__ import annotations

from pathlib import Path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether this is a file, and lies below the folder when all links are followed."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        return False
