"""Wide features taken in blocks of rows: components, codes and singular values of the whole, in a part of the memory."""
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tcn.config import InputError
from tcn.scoring import moments
from tcn.scoring.codes import binary_codes, itq
from tcn.scoring.features import Components, singular_values, unit


def rows(seed: int, number: int = 301, width: int = 24) -> np.ndarray:
    """Correlated float32 rows around a mean far from 0, whose directions have unequal spreads."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(number, width)) @ rng.normal(size=(width, width))
            * np.linspace(0.1, 3, width) + 7).astype(np.float32)


@pytest.fixture
def blocks(monkeypatch):
    """Call it, and what follows is taken in blocks of 16 rows (301 rows: the last block has 13)."""
    def begin() -> None:
        monkeypatch.setattr(moments, "LARGE", 40)
        monkeypatch.setattr(moments, "BLOCK_ROWS", 16)

    return begin


def test_rows_are_taken_in_blocks_above_the_bound_and_not_at_it(monkeypatch):
    monkeypatch.setattr(moments, "LARGE", 6)
    assert [moments.large(np.zeros(shape)) for shape in ((2, 3), (7, 1))] == [False, True]


def test_mean_and_scatter_are_those_of_all_rows(blocks):
    own = rows(0)
    blocks()
    mean, scatter = moments.mean_and_scatter(own)
    np.testing.assert_allclose(mean, own.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(scatter, np.cov(own.astype(np.float64).T) * (len(own) - 1), rtol=1e-10)
    other = np.random.default_rng(1).normal(size=(24, 3))
    np.testing.assert_allclose(moments.product(own, mean, other), (own.astype(np.float64) - mean) @ other, rtol=1e-10, atol=1e-10)


def test_components_in_blocks_are_the_components(blocks):
    own, other = rows(2), rows(3, 50)
    whole = Components.fit(own, 20)
    assert (whole.components[:, 0] < 0).any(), "signs go by another entry than the first"
    before = whole(other)
    blocks()
    found = Components.fit(own, 20)
    np.testing.assert_allclose(found.components, whole.components, atol=1e-10)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(found(other), before, rtol=1e-5, atol=1e-5)
    assert found(other).dtype == np.float32
    with pytest.raises(InputError, match="'network.dim' is 25, and 301 features of length 24"):
        Components.fit(own, 25)


@pytest.mark.parametrize("fit", ("seen", "as-released"))
@pytest.mark.parametrize("begin", ("drawn", "released"))
def test_codes_in_blocks_are_the_codes(blocks, fit, begin):
    seen, query, gallery = rows(4), rows(5, 60), rows(6, 110) + 1
    whole = binary_codes(seen, query, gallery, bits=6, fit=fit, start=begin)
    blocks()
    found = binary_codes(seen, query, gallery, bits=6, fit=fit, start=begin)
    flips = [np.mean(a != b) for a, b in zip(found, whole)]
    if begin == "drawn":  # else the sign of an axis is the library's, as the released code leaves it
        assert max(flips) == 0
    assert all(code.dtype == bool and code.shape == (len(own), 6) for code, own in zip(found, (query, gallery)))
    for name, broken in (("seen_features", (np.where(seen > 8, np.nan, seen), query, gallery)),
                         ("gallery", (seen, query, np.where(np.arange(110)[:, None] == 77, np.inf, gallery)))):
        if fit == "seen" or name == "gallery":
            with pytest.raises(InputError, match=f"{name} holds NaN or infinity, first in row"):
                binary_codes(*broken, bits=6, fit=fit)


def test_the_rotation_in_blocks_is_the_rotation(blocks):
    own = rows(7)
    whole = itq(own, bits=4, seed=3)
    error = whole.error(own)
    blocks()
    found = itq(own, bits=4, seed=3)
    np.testing.assert_allclose(found.matrix, whole.matrix, atol=1e-9)
    assert found.error(own) == pytest.approx(error, rel=1e-9)
    with pytest.raises(InputError, match="bits must be from 1 to 24"):
        itq(own, bits=25)


@pytest.mark.parametrize("number", (301, 12))
def test_small_singular_values_are_those_of_the_svd(blocks, number):
    """Unit rows that nearly lie in a plane: the squares of the small values fall below what float64 holds beside the largest."""
    rng = np.random.default_rng(8)
    own = rng.normal(size=(number, 2)) @ rng.normal(size=(2, 24)) + 1e-7 * np.logspace(0, -2, 24) * rng.normal(size=(number, 24))
    expected = np.linalg.svd(unit(own), compute_uv=False)
    assert expected[2] < 1e-6 * expected[0] and expected[-1] > 1e-12 * expected[0]
    from_scatter = np.sqrt(np.abs(np.linalg.eigvalsh(unit(own).T @ unit(own))[::-1]))[:len(expected)]
    assert np.abs(from_scatter / expected - 1).max() > 0.1, "the way that is not taken"
    blocks()
    found = singular_values(own)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(singular_values(own, top=3), expected[:3], rtol=1e-6)


def test_wide_features_need_no_copy_of_themselves_in_float64(monkeypatch):
    own = rows(9, 20_000, 64)
    monkeypatch.setattr(moments, "LARGE", 100_000)
    monkeypatch.setattr(moments, "BLOCK_ROWS", 500)
    for use in (lambda: itq(own, bits=4, rounds=2), lambda: Components.fit(own, 4)(own), lambda: singular_values(own)):
        tracemalloc.start()
        use()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < own.size * 4, "less than the float32 features themselves, not twice as much"
