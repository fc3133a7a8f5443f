"""Random streams: the seed is the first eight bytes of a digest, and every part of its name counts."""
from __future__ import annotations

import hashlib
import itertools
import struct

import numpy as np
import torch

from tcn.seeding import numpy_stream, stream_seed, torch_stream


def by_struct(text: str) -> int:
    """The first eight bytes of the digest as a little-endian number, without its lowest bit."""
    return struct.unpack("<Q", hashlib.sha256(text.encode()).digest()[:8])[0] // 2


def test_a_seed_is_the_digest_of_seed_role_and_indices():
    assert stream_seed(7, "alpha", 12, 3) == by_struct("7:alpha:12:3")
    assert stream_seed(0, "words") == by_struct("0:words")


def test_every_part_of_a_stream_s_name_counts():
    # with no mark between its parts (1, 12) and (11, 2) would be one stream
    names = [(seed, role, *indices) for seed in (0, 1, 11) for role in ("alpha", "dropout")
             for indices in ((), (1,), (11,), (1, 12), (11, 2), (12, 1))]
    seeds = [stream_seed(*name) for name in names]
    assert len(set(seeds)) == len(names) and all(0 <= seed < 2**63 for seed in seeds)
    for draw in (lambda *name: numpy_stream(*name).random(2).tolist(),
                 lambda *name: torch.rand(2, generator=torch_stream(*name)).tolist()):
        drawn = [draw(*name) for name in names]
        assert drawn == [draw(*name) for name in names]
        assert all(a != b for a, b in itertools.combinations(drawn, 2))


def test_generators_start_at_their_stream_s_seed():
    assert numpy_stream(3, "pairs", 2).random() == np.random.default_rng(by_struct("3:pairs:2")).random()
    expected = torch.rand(3, generator=torch.Generator().manual_seed(by_struct("3:alpha:2:5")))
    assert torch.equal(torch.rand(3, generator=torch_stream(3, "alpha", 2, 5)), expected)
