"""What a field of settings takes and refuses, as a table written down a second time, and the values that try it.

A row is (values taken, values refused, words that the message must hold). Of numbers the refused ones stand just outside of
both ends.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

Row = tuple[tuple[Any, ...], tuple[Any, ...], tuple[str, ...]]
SIDE: Row = ((1, 224, 4096), (0, -1, 4097), ("1 to 4,096",))
WEIGHT: Row = ((0, 0.0, 1e-6, 3, 1e30), (-1e-9, -1, 1.1e30), ("from 0 to 1e+30",))
RATE: Row = ((1e-12, 0.1, 1, 1e30), (0, 0.0, -1e-4, 1.1e30), ("above 0 to 1e+30",))
SEED: Row = ((0, 2020, 2 ** 63 - 1), (-1, 2 ** 63), ("from 0 to 9,223,372,036,854,775,807",))


def choice(*names: str) -> Row:
    """The row of a field that takes one of some names."""
    return names, ("", names[0].upper(), names[0] + " ", ", ".join(names[:2])), (", ".join(names),)


def refused(row: Row) -> Iterator[Any]:
    """Every value that a field must refuse: those of its row, NaN, infinities, and values of other types."""
    takes, refuses, _ = row
    kinds = {type(value) for value in takes if value is not None}
    yield from refuses
    yield from (math.nan, math.inf, -math.inf, [], {}, (), b"x", 10 ** 400, "1.5e-4", "NaN", "True", object())
    yield from () if bool in kinds else (True, False)
    yield from () if kinds & {int, float} else (0, 1)
    yield from () if float in kinds else (1.0, 0.5)
    yield from () if None in takes else (None,)
