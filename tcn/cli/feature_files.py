"""Reads the .npz file of features and labels that `evaluate` scores. Every error names the file and the array."""
from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tcn.config import InputError
from tcn.files import foreign
from tcn.files.atomic import warn
from tcn.scoring.codes import checked_rows
from tcn.scoring.inputs import identical_rows

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
        how = "np.savez(path, query=..., gallery=..., query_labels=..., gallery_labels=...)"
        known = foreign.of(path, ((0, b"\x93NUMPY", f"a single array: write all of them into one file with {how}"),))
        raise InputError(f"{path}: not an .npz file{known or f'; write one with {how}'}")
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


# ------------------------------------------------------------------------- what each command says of a file
def unread(path: Path, names: Sequence[str]) -> None:
    """A note on the arrays of a file that nothing reads."""
    if names:
        warn(f"note: {path}: not used: {', '.join(names)}")


def identical(arrays: Mapping[str, np.ndarray]) -> str:
    """What to tell the user about gallery entries that are identical; empty where none are, or `gallery_group` tells them."""
    number = 0 if "gallery_group" in arrays else identical_rows(arrays["gallery"])
    return (f"{number} gallery entries are identical to an earlier one; if they are one photo listed again, which moves Prec, "
            "say so in gallery_group") if number else ""


def noted(path: Path, arrays: Mapping[str, np.ndarray], others: Sequence[str]) -> None:
    """Notes on the `others`, arrays that nothing reads, and on gallery entries that are identical."""
    unread(path, others)
    if copies := identical(arrays):
        warn(f"note: {path}: {copies}")


def mixed_groups(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A note on groups whose photos have several classes, where `distinct` counts."""
    if mixed := _of_several_classes(arrays, "gallery_group"):
        warn(f"note: {path}: {mixed} group(s) of gallery_group hold photos of several classes; distinct keeps the first entry of "
             "each class")


def mixed_instances(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A note on instances whose photos have several classes: over the whole gallery each of them counts as the very photo."""
    if mixed := _of_several_classes(arrays, "gallery_instance"):
        warn(f"note: {path}: {mixed} value(s) of gallery_instance name photos of several classes, each of which counts as the "
             "very photo in the whole gallery; where numbers begin anew in each class, put the class into them (cat-1, dog-1)")


def _of_several_classes(arrays: Mapping[str, np.ndarray], name: str) -> int:
    """How many values of an array stand beside more than one gallery label; an empty text, which names no photo, does
    not count."""
    if arrays.get(name, np.empty(0)).shape != arrays["gallery_labels"].shape:
        return 0  # it is not there, or an error that the metrics name
    values, value = np.unique(arrays[name], return_inverse=True)
    label = np.unique(arrays["gallery_labels"], return_inverse=True)[1]
    pairs = np.unique(np.stack([value, label]), axis=1)
    return int(((np.bincount(pairs[0]) > 1) & (values.astype(str) != "")).sum())


# --------------------------------------------------------------------------------------- features to codes
def _is_code(array: np.ndarray) -> bool:
    return array.dtype in (np.bool_, np.uint8)


def _two_values(array: np.ndarray) -> str:
    """`-1 and 1` or the like, for real numbers that hold just these two, as codes do; else empty."""
    if array.dtype.kind not in "iuf" or _is_code(array) or not array.size:
        return ""
    low, high = array.min(), array.max()
    both = (low, high) in ((0, 1), (-1, 1)) and ((array == low) | (array == high)).all()
    return f"{low:g} and {high:g}" if both else ""


def distance(arrays: Mapping[str, np.ndarray], wanted: str | None) -> str:
    """The distance asked for, or the one that fits the arrays."""
    query, gallery = arrays["query"], arrays["gallery"]
    two = {name: values for name in ("query", "gallery") if (values := _two_values(arrays[name]))}
    if _is_code(query) != _is_code(gallery) and {query.dtype.kind, gallery.dtype.kind} <= set("fiub"):
        do = "".join(f"; {name} holds {values}, so its codes are {name} > 0: store that" for name, values in two.items())
        raise InputError(f"query is {query.dtype} and gallery {gallery.dtype}: one holds codes, the other "
                         f"real numbers{do or '; store both as one kind'}")
    for name, values in two.items() if wanted != "hamming" else ():
        warn(f"note: {name} is {arrays[name].dtype} of {values}, taken as real numbers; codes are bool or uint8: store "
             f"{name} > 0")
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
