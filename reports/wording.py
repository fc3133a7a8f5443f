"""Pieces of sentences that tables, captions and verdicts share: lists, counts, signed numbers."""
from __future__ import annotations

from collections.abc import Iterable


def listed(items: Iterable[object]) -> str:
    """Items as people write a list.

    >>> listed([0]), listed([0, 1, 2])
    ('0', '0, 1 and 2')
    """
    words = list(map(str, items))
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "seed"), counted(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def signed(value: float, decimals: int = 3) -> str:
    """A difference with its sign.

    >>> signed(-0.125, 2), signed(0.5)
    ('−0.12', '+0.500')
    """
    return f"{value:+.{decimals}f}".replace("-", "−")
