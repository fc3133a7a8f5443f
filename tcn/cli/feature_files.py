"""Reads the .npz file of features and labels that `evaluate` scores. Every error names the file and the array."""
from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcn.config import InputError
from tcn.files.atomic import warn
from tcn.scoring.codes import checked_rows

REQUIRED = ("query", "gallery", "query_labels", "gallery_labels")
INSTANCES = ("query_instance", "gallery_instance")
OPTIONAL = ("gallery_group", *INSTANCES, "train")


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The known arrays of an .npz file, and the names of its other arrays, which are not read.

    Labels and groups stored as bytes come back as strings. Raises `InputError` naming file and array.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if empty:
        raise InputError(f"{path}: the file is empty")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz file; write one with np.savez(path, query=..., gallery=..., "
                         "query_labels=..., gallery_labels=...)")
    arrays: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as store:
            names = sorted(store.files)
            for name in (*REQUIRED, *OPTIONAL):
                if name in names:
                    arrays[name] = _read_array(path, store, name)
    except InputError:
        raise
    except Exception as error:  # whatever the decoder of a zip file trips over, the file is at fault
        raise InputError(f"{path}: not a readable .npz file: {error}") from error
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {', '.join(missing)}; it holds "
                         f"{', '.join(names) or 'no arrays'}, and needs {', '.join(REQUIRED)}")
    if len(there := [name for name in INSTANCES if name in arrays]) == 1:
        raise InputError(f"{path}: {there[0]} without {(set(INSTANCES) - set(there)).pop()}: which photo each sketch "
                         "was drawn from takes both; add the other, or leave both out")
    return arrays, [name for name in names if name not in arrays]


def _read_array(path: Path, store: Any, name: str) -> np.ndarray:
    try:
        array: Any = store[name]
    except Exception as error:  # as above: headers, checksums, compression, sizes beyond memory
        if "Object arrays" in str(error):
            raise InputError(f"{path}: {name} is an object array, which can run code when read; store "
                             "numbers as one array, names as np.array(names, dtype=str)") from error
        raise InputError(f"{path}: {name} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: {name} is not an array; write the file with np.savez")
    if array.dtype.kind == "S":
        try:
            return np.asarray(np.char.decode(array, "utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: {name} holds bytes that are not UTF-8; store strings") from error
    return array


def check_groups(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise InputError where `gallery_group` is wrong, even if no metric uses it."""
    groups, photos = arrays["gallery_group"], arrays["gallery"]
    if groups.dtype.kind not in "iuU":
        raise InputError(f"gallery_group is an array of {groups.dtype}; groups are integers or strings")
    if groups.shape != photos.shape[:1]:
        raise InputError(f"gallery_group has shape {groups.shape}; it must be one-dimensional, with an entry "
                         f"for each row of gallery (shape {photos.shape})")


def groups_of_several_classes(arrays: Mapping[str, np.ndarray]) -> int:
    """The number of groups whose photos have several classes."""
    if arrays.get("gallery_group", np.empty(0)).shape != arrays["gallery_labels"].shape:
        return 0  # an error that the metrics name
    group = np.unique(arrays["gallery_group"], return_inverse=True)[1]
    label = np.unique(arrays["gallery_labels"], return_inverse=True)[1]
    pairs = np.unique(np.stack([group, label]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


# --------------------------------------------------------------------------------------- features to codes
def _is_code(array: np.ndarray) -> bool:
    return array.dtype in (np.bool_, np.uint8)


def distance(arrays: Mapping[str, np.ndarray], wanted: str | None) -> str:
    """The distance asked for, or the one that fits the arrays."""
    query, gallery = arrays["query"], arrays["gallery"]
    if _is_code(query) != _is_code(gallery) and {query.dtype.kind, gallery.dtype.kind} <= set("fiub"):
        raise InputError(f"query is {query.dtype} and gallery {gallery.dtype}: one holds codes, the other "
                         "real numbers; store both as one kind")
    for name in ("query", "gallery"):
        array = arrays[name]
        if array.dtype.kind in "iuf" and not _is_code(array) and array.size and wanted != "hamming":
            low, high = array.min(), array.max()
            if (low, high) in ((0, 1), (-1, 1)) and ((array == low) | (array == high)).all():
                warn(f"note: {name} is {array.dtype} of {low:g} and {high:g}, taken as real numbers; codes are bool or uint8: "
                     f"store {name} > 0")
    return wanted or ("hamming" if _is_code(query) else "euclidean")


def unit_length(name: str, array: np.ndarray) -> np.ndarray:
    """Rows of real features [N, D] at length 1, float64: as in the real-valued ranking."""
    if _is_code(array) or array.dtype.kind not in "fiu":
        raise InputError(f"{name} is an array of {array.dtype}; --itq makes codes of real-valued features")
    rows = checked_rows(name, array)
    # by the largest component first, so that no square over- or underflows
    largest = np.abs(rows).max(1, keepdims=True)
    if not largest.all():
        raise InputError(f"{name} row {int(np.argmin(largest))} is all zeros: no direction; leave it out")
    rows /= largest
    lengths: np.ndarray = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths)
