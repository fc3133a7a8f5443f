"""Turns features and labels as given into tensors and arrays that can be compared.

In: NumPy arrays, tensors or sequences from anywhere. Out: unit vectors in float64, or codes of -1 and +1 in float32, on one
device; labels as integers or strings with one spelling for each class. Every error is an `InputError` that names the argument
and says what to do.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcn.config import InputError
from tcn.data.words import normal_form
from tcn.scoring.protocols import ALL

METRICS = ("euclidean", "cosine", "hamming")
SPELLINGS = ("error", "merge", "as-given")


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")


def check_protocols(protocols: Sequence[str]) -> tuple[str, ...]:
    names = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    if not names:
        raise InputError("protocols is empty; choose from " + ", ".join(ALL))
    for name in names:
        check_choice("protocols", name, ALL)
    return tuple(dict.fromkeys(names))


def check_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    values = (ks,) if isinstance(ks, (int, np.integer)) else tuple(ks)
    for k in values:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"ks must be whole numbers from 1 on, not {k!r}")
    return tuple(dict.fromkeys(int(k) for k in values))


def comparable(
    query: Any, gallery: Any, metric: str, device: str | torch.device | None
) -> tuple[Tensor, Tensor]:
    """Queries and photos, checked, on one device, and in a form whose matrix products give distances."""
    check_choice("metric", metric, METRICS)
    place = _device(device, query)
    queries = _features("query", query, metric, place)
    photos = _features("gallery", gallery, metric, place)
    if queries.shape[1] != photos.shape[1]:
        raise InputError(f"query has {queries.shape[1]} dimensions and gallery {photos.shape[1]}; "
                         "they must agree")
    return queries, photos


def _device(device: str | torch.device | None, query: Any) -> torch.device:
    if device is None:
        chosen = query.device if isinstance(query, Tensor) else torch.device("cpu")
    else:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:  # unknown names; builds and machines without it
            raise InputError(f"device={str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return torch.device("cpu") if chosen.type == "mps" else chosen


def _features(name: str, values: Any, metric: str, device: torch.device) -> Tensor:
    """Checked features whose matrix products give distances: unit vectors in float64, or codes of -1 and +1 in float32."""
    if isinstance(values, Tensor):
        tensor = values.detach()
        given = str(tensor.dtype).removeprefix("torch.")
    else:
        array = _array(name, values)
        given = str(array.dtype)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} is an array of {array.dtype}; it must be numbers [rows, dimensions]")
        kept = array.dtype if array.dtype in (bool, np.uint8) else float
        tensor = torch.from_numpy(np.array(array, dtype=kept))
    if tensor.ndim != 2:
        raise InputError(f"{name} must be [rows, dimensions], not of shape {tuple(tensor.shape)}")
    if 0 in tensor.shape:
        raise InputError(f"{name} is empty (shape {tuple(tensor.shape)})")
    is_code = tensor.dtype in (torch.bool, torch.uint8)
    if metric == "hamming":
        if not is_code or (tensor.dtype == torch.uint8 and int(tensor.max()) > 1):
            raise InputError(f"{name} {_no_codes(name, tensor, given)}")
        return tensor.to(device=device, dtype=torch.float32).mul_(2).sub_(1)
    if is_code:
        raise InputError(f"{name} is {tensor.dtype}, so it holds codes; compare them with metric='hamming'")
    if tensor.is_complex():
        raise InputError(f"{name} is complex; features are real numbers")
    tensor = tensor.to(device=device, dtype=torch.float64)
    finite = torch.isfinite(tensor).all(1)
    if not bool(finite.all()):
        raise InputError(f"{name} holds NaN or infinity, first in row {int((~finite).nonzero()[0])}")
    # Divided by the largest component first, so that no square overflows or underflows.
    largest = tensor.abs().amax(1, keepdim=True)
    if not bool((largest > 0).all()):
        row = int((largest[:, 0] == 0).nonzero()[0])
        raise InputError(f"{name} row {row} is all zeros: no direction, so no ranking; leave it out")
    tensor = tensor / largest
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)
    return tensor / norms


def _no_codes(name: str, tensor: Tensor, kind: str) -> str:
    """The end of the error message for an array of type `kind` that does not hold codes: what it holds, and what to do."""
    for low, high in ((-1, 1), (0, 1), (0, 255)):
        if bool(((tensor == low) | (tensor == high)).all()):
            return f"is {kind} and holds {low} and {high}; metric='hamming' needs codes, bool or uint8 0-1: give {name} > 0"
    if tensor.dtype == torch.uint8:
        return (f"is uint8 and holds {int(tensor.max())}; codes are 0 and 1. For packed bits give "
                f"np.unpackbits({name}, axis=1)")
    return (f"is {kind} and holds other values than two; metric='hamming' needs codes, bool or uint8 0-1: give {name} > 0 for "
            f"the signs of its features")


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be read as an array: {error}") from error


def checked_labels(name: str, values: Any, rows: int, of: str) -> np.ndarray:
    """Checked labels, int64 or unicode [rows]."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else _array(name, values)
    if array.dtype.kind not in "iuUST":
        raise InputError(f"{name} is an array of {array.dtype}; labels are integers or strings "
                         "(for names: np.array(names, dtype=str))")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} holds bytes that are not UTF-8; give strings") from error
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise InputError(f"{name} holds {int(array.max())}; integers must lie below 2**63")
    array = array.astype(np.int64) if array.dtype.kind in "iu" else array.astype(np.str_)
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, not of shape {array.shape}")
    if len(array) != rows:
        raise InputError(f"{name} has {len(array)} entries, but {of} has {rows} rows")
    return array


def _form(name: str) -> str:
    """The form shared by all spellings of a class: `palm_tree`, `Palm tree `. Numbers are compared by value: `3`, `03`."""
    if re.fullmatch(r"\s*[+-]?[0-9]{1,40}\s*", name):
        return str(int(name))
    return normal_form(name) or name


def spellings_of(query_labels: np.ndarray, gallery_labels: np.ndarray) -> dict[str, list[str]]:
    """Classes spelt in several ways: the name to keep (a query's, where there is one) -> the other spellings.

    Arrays of strings; empty for integers. Names are compared by `tcn.data.words.normal_form`, numbers by value.
    """
    if query_labels.dtype.kind != "U" or gallery_labels.dtype.kind != "U":
        return {}
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys([*np.unique(query_labels).tolist(), *np.unique(gallery_labels).tolist()]):
        found.setdefault(_form(name), []).append(name)
    return {names[0]: names[1:] for names in found.values() if len(names) > 1}


def merged(labels: np.ndarray, several: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Labels with every spelling in `several` (as `spellings_of` gives it) replaced by the name to keep."""
    kept = {other: name for name, others in several.items() for other in others}
    names, index = np.unique(labels, return_inverse=True)
    return np.array([kept.get(name, name) for name in names.tolist()], dtype=np.str_)[index] if kept else labels


def one_spelling(query: np.ndarray, gallery: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays of labels with one spelling for each class, by the `rule` (`spellings` of `score`). InputError as described
    there."""
    check_choice("spellings", rule, SPELLINGS)
    if (query.dtype.kind == "U") != (gallery.dtype.kind == "U"):
        names = {"query_labels": query, "gallery_labels": gallery}
        texts, numbers = sorted(names, key=lambda name: names[name].dtype.kind != "U")
        if rule != "merge":
            raise InputError(f"{texts} are strings ({str(names[texts][0])!r}) and {numbers} integers ({names[numbers][0]}); they "
                             f"must be of one kind: give {numbers} as strings, or choose spellings='merge' where the strings "
                             "are such numbers")
        query, gallery = query.astype(np.str_), gallery.astype(np.str_)
    several = spellings_of(query, gallery) if rule != "as-given" else {}
    if several and rule == "error":
        shown = "; ".join(" and ".join(map(repr, (name, *others))) for name, others in list(several.items())[:5])
        raise InputError(f"query_labels and gallery_labels spell {len(several)} class(es) in several ways: {shown}"
                         f"{'; ...' if len(several) > 5 else ''}. Choose spellings='merge' to take them as one class, "
                         "spellings='as-given' if they are different ones")
    return merged(query, several), merged(gallery, several)


def identical_rows(rows: np.ndarray) -> int:
    """The number of rows of [N, D] that equal an earlier one in every bit: photos listed again, or codes that coincide.

    Rows are compared by two 64-bit hashes, in linear time; sorting the rows would move them all.
    """
    array = np.ascontiguousarray(rows)
    factors = np.random.default_rng(0).integers(1, 2**63, (array.shape[1], 2), dtype=np.uint64) | np.uint64(1)
    marks = np.empty((len(array), 2), np.uint64)
    step = max(1, 2**20 // array.shape[1])
    for begin in range(0, len(array), step):
        words = array[begin:begin + step].view(f"u{array.itemsize}").astype(np.uint64)
        words ^= words >> np.uint64(29)  # otherwise two changed signs (the highest bits) would cancel
        marks[begin:begin + step] = words @ factors
    return len(marks) - len(np.unique(marks.view([("", np.uint64)] * 2)))
