"""The version of the rules: a rule that changes without a new version is noticed by the numbers of one fixed example.

The example is written out, with no random number in it: unequal classes, one class without photos, photos at equal distance, a
photo that is listed twice, and sketches whose very photo is known.
"""
from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from tcn.scoring.instances import instance_accuracy
from tcn.scoring.protocols import PROTOCOL_VERSION, PROTOCOLS
from tcn.scoring.scores import DUPLICATES, score

RULES = {
    1: {"released": "5a666c4dc4ffc96e", "cvpr19": "11c85394eae3176a", "zse": "7f679cbbddb65b1e",
        "sem-pcyc": "af29700528565f50", "cvae": "cfe749f2c3f24870", "standard": "e1b893949d042f17",
        "instances": "cbec1fff919ce667"},
}
"""Version -> protocol -> the first digits of the digest of its numbers on the example. A new protocol is a new entry of the
current version. Where a number of the example changed on purpose, raise PROTOCOL_VERSION and write the new digests under it."""
PHOTOS = "aaaaaaabbbcceeeeedd"
QUERIES = "aaaabbcccceg"  # no photo is of class g
GROUPS = [*range(len(PHOTOS) - 1), 3]  # the last photo is the fourth one again, filed under another class
KS = (2, 5, 8)


def example(tied: bool) -> tuple[np.ndarray, np.ndarray]:
    """Features of queries and photos: whole numbers by a formula, or codes of 5 bits, of which many are equal."""
    def table(rows: int, step: int) -> np.ndarray:
        numbers = np.array([[(step * (row + 1) * (column + 2) + row * row) % 101 - 50 for column in range(5)]
                            for row in range(rows)])
        return (numbers > 0).astype(np.uint8) if tied else numbers.astype(np.float64)
    return table(len(QUERIES), 37), table(len(PHOTOS), 53)


def numbers(protocol: str) -> list[object]:
    """Every number that a protocol gives of the example and that hangs on no random draw, to 8 decimals."""
    found: list[object] = []
    for tied in (False, True):
        for duplicates in DUPLICATES:
            for missing in ("zero", "as-released"):
                for ties in ("best", "worst", "gallery-order", "scikit-learn", *["expected"] * (not tied)):
                    scores = score(*example(tied), list(QUERIES), list(PHOTOS), (protocol,),
                                   "hamming" if tied else "euclidean", KS, missing_classes=missing, ties=ties,
                                   gallery_group=GROUPS, duplicates=duplicates)
                    measures = PROTOCOLS[protocol].all_measures(KS, ties)
                    found += [[tied, duplicates, missing, ties, name, f"{scores.value(protocol, name):.8f}",
                               f"{scores.ceiling(protocol, name):.8f}",
                               f"{scores.chance(protocol, name):.8f}" if measure.closed_form else ""]
                              for name, measure in measures.items()]
    return found


def instances() -> list[object]:
    """The same at instance level."""
    drawn = [f"{name}{at}" for at, name in enumerate(PHOTOS)]
    return [[tied, duplicates, row["protocol"], row["metric"], f"{row['value']:.8f}", f"{row['chance']:.8f}"]
            for tied in (False, True) for duplicates in DUPLICATES
            for row in instance_accuracy(*example(tied), list(QUERIES), list(PHOTOS), [
                next((name for name in drawn[at:] if name[0] == label), "") for at, label in enumerate(QUERIES)], drawn,
                "hamming" if tied else "euclidean", gallery_group=GROUPS, duplicates=duplicates).rows()]


def digest(found: list[object]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "instances"])
def test_the_numbers_of_the_example_are_those_of_this_version(protocol):
    found = digest(instances() if protocol == "instances" else numbers(protocol))
    assert found == RULES[PROTOCOL_VERSION].get(protocol), (
        f"{protocol} gives other numbers than version {PROTOCOL_VERSION} of the rules: raise PROTOCOL_VERSION, and write "
        f"the digests under the new version here ('{found}')")


def test_the_example_tells_the_rules_apart():
    """Two rules that agreed on it would let one of them become the other."""
    assert len({digest(numbers(protocol)) for protocol in PROTOCOLS}) == len(PROTOCOLS)
    real, tied = (score(*example(tied), list(QUERIES), list(PHOTOS), ("standard",), metric, KS,
                        missing_classes="zero", ties="best").value("standard", "mAP@all")
                  for tied, metric in ((False, "euclidean"), (True, "hamming")))
    worst = score(*example(True), list(QUERIES), list(PHOTOS), ("standard",), "hamming", KS, missing_classes="zero", ties="worst")
    assert real != tied != worst.value("standard", "mAP@all")
