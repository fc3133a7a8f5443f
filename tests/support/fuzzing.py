"""How many inputs the fuzz tests try, and the count of what they tried.

`@fuzz("list files")` above `@given` sets the number of examples, times $TCN_FUZZ (default 1: seconds for all of them; 100 and
more for a search), and counts each example under its kind. `summary()` says them in a line, `COUNTS` holds them.
"""
from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALE = float(os.environ.get("TCN_FUZZ", "1"))
COUNTS: Counter[str] = Counter()
"""Kind of input -> how many were tried in this process."""


def fuzz(kind: str, examples: int = 100) -> Callable[[Any], Any]:
    """Decorator for a test under `given`: `examples` x TCN_FUZZ inputs of a kind, no deadline, each counted."""
    def apply(test: Any) -> Any:
        inner = test.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> Any:
            COUNTS[kind] += 1
            return inner(*args, **kwargs)

        test.hypothesis.inner_test = counted
        return settings(max_examples=max(1, round(examples * SCALE)), deadline=None,
                        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example,
                                               HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture))(test)
    return apply


def summary() -> str:
    """`inputs fuzzed: list files 1,200; word vectors 300`, empty where none were."""
    return "inputs fuzzed: " + "; ".join(f"{kind} {count:,}" for kind, count in sorted(COUNTS.items())) if COUNTS else ""


@st.composite
def damage(draw: Callable[..., Any], whole: bytes) -> bytes:
    """A whole file with bytes flipped, cut, doubled or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(("flip", "cut", "double", "insert", "drop", "nul")))
        if how == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del content[at:]
        elif how == "double":
            content[at:at] = content[max(0, at - 20):at]
        elif how == "insert":
            content[at:at] = draw(st.sampled_from((b"\n", b"\r\n", b" ", b",", b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"nan",
                                                   b"-1", b"9" * 400, b"1e999", "\u2028".encode(), b'"', b"\x1a")))
        elif how == "drop":
            del content[at:at + draw(st.integers(1, 9))]
        else:
            content[at:at + 3] = b"\0\0\0"
    return bytes(content)


JSON = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-10**20, 10**20), st.floats(), st.text(max_size=6)),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
                    max_leaves=6)
