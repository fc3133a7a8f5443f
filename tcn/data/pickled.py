"""Pickled dictionaries of names and arrays, read without running code.

In: a pickle file, which is not trusted. Out: a dictionary of plain values and stand-ins for arrays, or an InputError that says
what is in the way. `tcn.data.words` makes tables of such files, since word vectors of earlier projects circulate as pickles.
"""
from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tcn.config import InputError
from tcn.files import foreign

# A pickle is a program. numpy's own loaders trust it: a dtype whose flags it forges makes an array of bytes one of addresses,
# and reading that runs wherever the file points. So nothing of numpy is handed to it, only these plain stand-ins.

class _Kind:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(f2|f4|f8|[iu][1248]|b1)", code):
            raise InputError(f"it holds values of type {code!r}, which are no numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=") and state[2:5] == (None,) * 3):
            raise InputError("it describes a type of numbers that plain arrays don't have")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self.values = _numbers(raw, kind, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.values is None:
            raise ValueError("an array without contents")
        return np.array(self.values, dtype=dtype)


def _numbers(raw: bytes | str, kind: _Kind, shape: tuple[int, ...], order: Literal["C", "F"] = "C") -> np.ndarray:
    if isinstance(raw, str):  # bytes of Python 2
        raw = raw.encode("latin1")
    return np.frombuffer(bytes(raw), kind.dtype).reshape(shape, order=order)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise InputError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Kind, ("collections", "OrderedDict"): dict, ("_codecs", "encode"): _bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda kind, shape, code: _Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): lambda kind, raw: _numbers(raw, kind, ())[()] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): lambda raw, kind, shape, order, *_: _numbers(raw, kind, shape, order)
       for core in ("core", "_core")},
}
"""All that a pickled dictionary of names and arrays asks for, and what it gets."""


class _OnlyArrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise InputError(f"it asks for {module}.{name}, which names and arrays don't need")
        return _ADMITTED[module, name]


def read_pickle(source: Path) -> dict[Any, Any]:
    """The dictionary in a pickle file. Its arrays are stand-ins that `numpy.asarray` turns into arrays.

    Everything in the file but names, numbers and arrays is refused before it is built. Raises InputError, which names what is in
    the way, where the file holds anything else.
    """
    try:
        with open(source, "rb") as stream:
            content = _OnlyArrays(stream, encoding="latin1").load()  # arrays pickled by Python 2 need latin1
    except InputError as error:
        raise InputError(f"{source} is not converted: {error}") from error
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror}") from error
    except (Exception, RecursionError, MemoryError) as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{source} is no readable pickle ({type(error).__name__}: {error}){foreign.of(source)}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{source} holds a {type(content).__name__}; expected a dictionary of class names "
                         f"and vectors")
    return content
