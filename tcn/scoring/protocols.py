"""The protocols: all rules by which published code computes "mAP" and "Prec".

In: nothing. Out: `PROTOCOLS`, and for each protocol its metrics as `Measure`s: AP or Prec of one query, by one rule, at one
cut-off. A new protocol is one entry of `PROTOCOLS`. `tcn.scoring.measures` (any device) and `tcn.scoring.cpu` compute the
measures from ranks; `tcn.scoring.scores` averages them. Source: the paper, section 4, and the released code named at each entry.

Below, K is the cut-off, R the number of photos in the gallery that are relevant to a query, N the number of all photos.
"""
from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np


class Divisor(enum.Enum):
    """The divisor: in AP of the sum of the precisions at the hits, in Prec of the number of hits."""

    K = "K"
    MIN_K_R = "min(K, R)"
    HITS = "hits"
    """The number of relevant photos among the first K."""

    def of(self, k: Any, relevant: Any, minimum: Callable[[Any, Any], Any] = min) -> Any:
        """The divisor for K and R, which are numbers, or arrays or tensors with their own `minimum`. `HITS` depends on the
        ranking and is not computed here."""
        return k if self is Divisor.K else minimum(k, relevant)


class Precision(enum.Enum):
    """What "Prec@K" means."""

    HITS_PER_K = "hits / K"
    HITS_PER_MIN_K_R = "hits / min(K, R)"
    NEXT_ITEM = "item K + 1"
    """The relevance of the one photo after the cut-off."""

    @property
    def divisor(self) -> Divisor:
        """The divisor of the number of hits; `NEXT_ITEM` has none."""
        return Divisor.MIN_K_R if self is Precision.HITS_PER_MIN_K_R else Divisor.K


class Average(enum.Enum):
    """How the values of the queries become one number."""

    MICRO = "micro"
    """Mean over queries."""
    MACRO = "macro"
    """Mean over classes of the mean over a class's queries."""

    def of(self, values: np.ndarray, query_class: np.ndarray, classes: int) -> float:
        """values: float64 [Q]. query_class: int64 [Q], numbers below `classes`. Classes without a query do not count."""
        if self is Average.MICRO:
            return float(values.mean())
        number = np.bincount(query_class, minlength=classes)
        total = np.bincount(query_class, weights=values, minlength=classes)
        return float((total[number > 0] / number[number > 0]).mean())


class ApTies(enum.Enum):
    """How a protocol's own code treats equal distances in AP. In Prec, all protocols follow `ORDER`."""

    ORDER = "order"
    """In the order of NumPy's default sort, which is not stable."""
    SHARED = "shared"
    """The top K is cut in that order; then all photos at one distance share the precision at the last of them."""


@dataclass(frozen=True)
class AP:
    """Average precision of one query among the first `k` photos, or in the whole ranking (None)."""

    k: int | None
    interpolated: bool
    """False: mean of the precisions at the hits. True: of the largest precision at a hit's rank or later, as in PASCAL VOC."""
    divisor: Divisor
    """The divisor for AP@K. AP over the whole ranking is always divided by R."""
    shared: bool = False
    """Whether a hit's precision is read at the last photo of equal distance, as scikit-learn reads it."""

    @property
    def per_hits(self) -> bool:
        """Whether the divisor depends on the ranking."""
        return self.divisor is Divisor.HITS and self.k is not None

    @property
    def closed_form(self) -> bool:
        """Whether the mean over random tie orders is known exactly."""
        return not self.interpolated and self.divisor is not Divisor.HITS

    @property
    def extreme_by_hits_first(self) -> bool:
        """Whether no tie order gives more than the one with relevant photos first, and none less than the one with them last."""
        return not self.per_hits

    def over(self, relevant: int) -> int:
        """The divisor for R = `relevant`, where it does not depend on the ranking (`per_hits`)."""
        return relevant if self.k is None else int(self.divisor.of(self.k, relevant))

    def ceiling(self, relevant: np.ndarray, photos: int) -> np.ndarray:
        """The largest value that any ranking of N = `photos` can reach, float64 [Q]. relevant: int64 [Q], R of each query."""
        return _share_of(relevant, self.k) if self.k is not None and self.divisor is Divisor.K else _any(relevant)


@dataclass(frozen=True)
class Prec:
    """Precision of one query at the cut-off `k`, or at its own R ("R")."""

    k: int | Literal["R"]
    rule: Precision

    shared = False
    closed_form = True

    @property
    def extreme_by_hits_first(self) -> bool:
        """As of `AP`."""
        return self.rule is not Precision.NEXT_ITEM

    def cut_off(self, relevant: int) -> int:
        """K for R = `relevant`."""
        return relevant if self.k == "R" else self.k

    def over(self, relevant: int) -> int:
        """What the number of hits is divided by, for R = `relevant`."""
        return int(self.rule.divisor.of(self.cut_off(relevant), relevant))

    def ceiling(self, relevant: np.ndarray, photos: int) -> np.ndarray:
        """As of `AP`."""
        if self.k == "R":
            return _any(relevant)
        if self.rule is Precision.NEXT_ITEM:
            return _any(relevant) * (photos > self.k)
        return _share_of(relevant, self.k) if self.rule is Precision.HITS_PER_K else _any(relevant)


def _any(relevant: np.ndarray) -> np.ndarray:
    """1 where a query has a relevant photo, else 0: float64 [Q]."""
    return (relevant > 0).astype(np.float64)


def _share_of(relevant: np.ndarray, k: int) -> np.ndarray:
    """The largest share of the first `k` photos that can be relevant: float64 [Q]."""
    share: np.ndarray = np.minimum(relevant, k) / k
    return share


Measure = AP | Prec
R_PRECISION = Prec("R", Precision.HITS_PER_K)
"""Share of relevant photos among the first R."""


@dataclass(frozen=True)
class Protocol:
    """One way in which published code computes "mAP" and "Prec" from a ranking."""

    name: str
    interpolated: bool
    """Whether AP takes the largest precision at a hit's rank or later (`AP.interpolated`)."""
    divisor: Divisor
    """The divisor of AP among the first K photos."""
    average: Average
    precision: Precision
    at_all: bool
    """Whether the protocol defines mAP over the whole ranking."""
    ap_ties: ApTies
    source: str
    """Which published code computes it in this way."""
    small_classes: bool = False
    """Whether Prec@5 and Prec@R are added, for galleries whose classes are smaller than the usual cut-offs."""

    def measures(self, ks: Sequence[int], ties: str) -> dict[str, Measure]:
        """The metrics that the protocol defines at the cut-offs `ks`, by name. ties: as in `tcn.scoring.scores.score`."""
        shared = ties == "scikit-learn" or (ties == "as-released" and self.ap_ties is ApTies.SHARED)
        found: dict[str, Measure] = {}
        if self.at_all:
            found["mAP@all"] = AP(None, self.interpolated, Divisor.MIN_K_R, shared)
        for k in ks:
            found[f"mAP@{k}"] = AP(k, self.interpolated, self.divisor, shared)
            found[f"Prec@{k}"] = Prec(k, self.precision)
        return found

    def all_measures(self, ks: Sequence[int], ties: str) -> dict[str, Measure]:
        """The same, with the metrics for small classes."""
        more: dict[str, Measure] = {"Prec@5": Prec(5, Precision.HITS_PER_K), "Prec@R": R_PRECISION} if self.small_classes else {}
        return {**self.measures(ks, ties), **more}


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in (
    Protocol("released", True, Divisor.MIN_K_R, Average.MACRO, Precision.HITS_PER_K, True, ApTies.ORDER,
             "TCN's released code by default (`iccv19`), also SAKE and DSN; the paper's tables use it.", small_classes=True),
    Protocol("cvpr19", False, Divisor.HITS, Average.MICRO, Precision.NEXT_ITEM, False, ApTies.SHARED,
             "TCN's released code by its other flag, Doodle2Search: scikit-learn's AP of the top K."),
    Protocol("zse", True, Divisor.MIN_K_R, Average.MICRO, Precision.HITS_PER_MIN_K_R, True, ApTies.ORDER,
             "ZSE-SBIR and the code that descends from it."),
    Protocol("sem-pcyc", False, Divisor.HITS, Average.MICRO, Precision.HITS_PER_K, True, ApTies.SHARED,
             "SEM-PCYC: scikit-learn's AP, for mAP@K on the top K alone."),
    Protocol("cvae", False, Divisor.K, Average.MICRO, Precision.HITS_PER_K, True, ApTies.ORDER,
             "CVAE (ECCV 2018) and Jiangtong Li's ZS-SBIR."),
    Protocol("standard", False, Divisor.MIN_K_R, Average.MICRO, Precision.HITS_PER_K, True, ApTies.ORDER,
             "The textbook definition: un-interpolated, one vote a query; no code of its own, so ties as `released`.",
             small_classes=True),
)})
ALL: tuple[str, ...] = tuple(PROTOCOLS)
PROTOCOL_VERSION = 1
"""The version beside every number that is printed or logged; numbers of two versions never share a table. Raise it with any
change after which the same features and labels can give another number under an existing name: a rule, its ties, an average,
chance or a ceiling. A new protocol, or a faster way to the same number, does not change it. Results without a version are of
version 1."""
