"""The lists of a split in the released style: a search in each class folder, a path call for each file, list appends, a sort.

This is what scripts of the field do before training: they find the files of every class by a pattern, keep those that are files
and not empty, take the class from the path and the label from a table, and count the files of each class; or, if list files
are published, they split them line by line and look for each file. There are no digests and no other checks.
"""
from __future__ import annotations

import glob
import os
from collections.abc import Sequence


def list_classes(root: str, folders: Sequence[str], classes: Sequence[str], endings: Sequence[str] = ("png", "jpg", "jpeg")
                 ) -> tuple[list[str], list[int], dict[str, int]]:
    """Paths relative to `root` in the order of `classes`, folders and names; their labels; the number of files of each class."""
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for folder in folders:
            found = []
            for ending in endings:
                for path in glob.glob(os.path.join(root, folder, name, f"*.{ending}")):
                    if os.path.isfile(path) and os.path.getsize(path) > 0:
                        found.append(os.path.relpath(path, root))
            for path in sorted(found):
                assert os.path.basename(os.path.dirname(path)) == name
                paths.append(path)
                labels.append(label)
    counts = dict.fromkeys(classes, 0)
    for path in paths:
        counts[path.split(os.sep)[-2]] += 1
    return paths, labels, counts


def read_list(root: str, file: str) -> tuple[list[str], list[int]]:
    """Paths and labels of a list file, which has one `path label` in each line; each path is looked for below `root`.

    Raises FileNotFoundError for a listed file that is not there.
    """
    paths: list[str] = []
    labels: list[int] = []
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            path, label = line.strip().rsplit(" ", 1)
            if not os.path.isfile(os.path.join(root, path)):
                raise FileNotFoundError(path)
            paths.append(path)
            labels.append(int(label))
    return paths, labels
