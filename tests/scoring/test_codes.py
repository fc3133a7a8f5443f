"""ITQ against SciPy's Procrustes solution, its own invariances and small cases."""
from __future__ import annotations

import doctest

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, polar
from scipy.stats import ortho_group

from tcn.config import InputError
from tcn.scoring import codes
from tcn.scoring.codes import binary_codes, itq

WIDTH = 12


def features(seed: int, rows: int = 200, width: int = WIDTH) -> np.ndarray:
    """Correlated rows around a mean far from 0."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, width)) @ generator.normal(size=(width, width)) + 5


def start(seed: int, width: int = WIDTH) -> np.ndarray:
    return ortho_group.rvs(width, random_state=seed)


@pytest.mark.parametrize("seed", range(3))
def test_one_textbook_round_solves_the_procrustes_problem(seed):
    rows, first = features(seed), start(seed)
    centred = rows - rows.mean(0)
    corners = np.where(centred @ first >= 0, 1.0, -1.0)
    solution, _ = orthogonal_procrustes(centred, corners)
    np.testing.assert_allclose(itq(rows, 1, first).matrix, solution, atol=1e-9)


def test_one_released_round_takes_the_transposed_factor():
    rows, first = features(3), start(3)
    centred = rows - rows.mean(0)
    corners = np.where(centred @ first >= 0, 1.0, -1.0)
    # B^T V = U S W^T by hand from two eigenproblems would leave signs open; NumPy's factors are what was
    # released
    u, _, w_transposed = np.linalg.svd(corners.T @ centred)
    released = itq(rows, 1, first, rule="released").matrix
    np.testing.assert_allclose(released, w_transposed @ u.T, atol=1e-12)
    assert np.abs(released - itq(rows, 1, first).matrix).max() > 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 8), st.sampled_from([1e-8, 1.0, 1e8]))
def test_rounds_from_a_given_start_are_those_of_a_plain_loop(seed, width, rounds, scale):
    """Textbook: W U^T is the orthogonal polar factor of V^T B = W S U^T, which SciPy finds without our factors."""
    rows, first = features(seed, rows=40, width=width) * scale, start(seed, width)
    centred = [[row[d] - sum(rows[:, d]) / len(rows) for d in range(width)] for row in rows]
    textbook = released = first
    for _ in range(rounds):
        corners = [[1.0 if sum(x * r for x, r in zip(row, column)) >= 0 else -1.0 for column in textbook.T]
                   for row in centred]
        turned = np.array(centred).T @ np.array(corners)
        product = np.where(np.array(centred) @ released < 0, -1.0, 1.0).T @ np.array(centred)
        # where two bits agree on every row, the directions that no code sees are the library's choice
        assume(max(np.linalg.cond(turned), np.linalg.cond(product)) < 1e6)
        textbook = polar(turned)[0]
        u, _, v_h = np.linalg.svd(product)
        released = np.einsum("ij,kj->ik", v_h, u)
    for rule, matrix in (("textbook", textbook), ("released", released)):
        found = itq(rows, rounds, first, rule)
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-6, err_msg=rule)
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("seed", range(3))
def test_what_the_released_update_costs_at_the_paper_s_size(seed):
    """64 dimensions at unit length, 300 rows: the published example is 15,831 -> 15,817 released, 15,484 textbook."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(25, 64))[generator.integers(0, 25, 300)] + 0.5 * generator.normal(size=(300, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    before, released, textbook = (itq(rows, rounds, rule=rule, seed=seed).error(rows)
                                  for rounds, rule in ((0, "textbook"), (50, "released"), (50, "textbook")))
    assert 15_000 < before < 16_500
    assert abs(before - released) < 0.01 * before
    assert before - textbook > 0.02 * before
    assert before - textbook > 8 * abs(before - released)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_textbook_error_never_rises_and_ends_below_the_released_rule(seed):
    rows, first = features(seed), start(seed)
    errors = [itq(rows, rounds, first).error(rows) for rounds in (0, 1, 2, 3, 5, 10, 50)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in zip(errors, errors[1:]))
    assert errors[-1] < itq(rows, 50, first, rule="released").error(rows)


def test_error_is_the_squared_distance_to_the_codes():
    rows = features(1, rows=6, width=3)
    fitted = itq(rows, 4, seed=2)
    total = 0.0
    for row, code in zip(rows, fitted.encode(rows)):
        for b in range(3):
            projected = sum((row[i] - rows[:, i].mean()) * fitted.matrix[i, b] for i in range(3))
            assert code[b] == (projected >= 0)
            total += ((1.0 if code[b] else -1.0) - projected) ** 2
    assert fitted.error(rows) == pytest.approx(total)


@pytest.mark.parametrize("rule", codes.RULES)
def test_rotations_are_orthogonal_and_codes_repeatable(rule):
    rows = features(4)
    fitted = itq(rows, rule=rule)
    np.testing.assert_allclose(fitted.matrix.T @ fitted.matrix, np.eye(WIDTH), atol=1e-12)
    again = itq(torch.tensor(rows), rule=rule)
    np.testing.assert_array_equal(fitted.matrix, again.matrix)
    code = fitted.encode(rows)
    assert code.dtype == bool and code.shape == rows.shape
    np.testing.assert_array_equal(code, again.encode(torch.tensor(rows)))
    assert (itq(rows, rule=rule, seed=1).encode(rows) != code).any()
    np.testing.assert_array_equal(np.asarray(fitted), fitted.matrix)


def test_no_rounds_leave_the_start():
    rows, first = features(5), start(5)
    np.testing.assert_array_equal(itq(rows, 0, first).matrix, first)


@pytest.mark.parametrize("width", [1, 3])
def test_the_start_is_drawn_evenly_from_all_rotations(width):
    """Entries of an evenly drawn orthogonal matrix are as often positive as negative, with mean square 1 / width."""
    features = np.random.default_rng(0).normal(size=(5, width))
    starts = np.stack([np.asarray(itq(features, rounds=0, seed=seed)) for seed in range(600)])
    assert (np.abs(starts.mean(0)) < 4 / np.sqrt(600 * width)).all() and (np.abs((starts > 0).mean(0) - 0.5) < 0.09).all()
    assert np.abs((starts**2).mean(0) - 1 / width).max() < 0.06


def test_a_rotation_stands_for_its_matrix():
    rows = features(7)
    fitted = itq(rows, bits=5)
    assert fitted.shape == (WIDTH, 5) == np.shape(fitted) and fitted.dtype == np.float64 and len(fitted) == WIDTH
    np.testing.assert_array_equal(fitted.T, fitted.matrix.T)
    np.testing.assert_array_equal(fitted[2:4, 0], fitted.matrix[2:4, 0])
    np.testing.assert_array_equal(rows @ fitted, rows @ fitted.matrix)
    np.testing.assert_array_equal(rows.tolist() @ fitted, rows @ fitted.matrix)
    np.testing.assert_allclose(fitted @ np.ones(5), fitted.matrix.sum(1), atol=1e-14)
    np.testing.assert_array_equal((rows - fitted.mean) @ fitted >= 0, fitted.encode(rows))
    turned = torch.tensor(rows, dtype=torch.float32, requires_grad=True) @ fitted
    assert turned.dtype == torch.float32 and turned.requires_grad
    np.testing.assert_allclose(turned.detach().numpy(), rows @ fitted.matrix, atol=1e-4)
    np.testing.assert_allclose((fitted @ torch.ones(5)).numpy(), fitted.matrix.sum(1), atol=1e-5)
    assert torch.equal(torch.as_tensor(np.asarray(fitted)), torch.from_numpy(fitted.matrix))
    assert fitted != itq(rows, bits=5)  # another object, and no array of truth values


@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f8", np.int32])
def test_features_of_other_types_are_computed_in_float64(kind):
    rows = np.rint(features(8) * 4).astype(kind)
    first = start(8)
    np.testing.assert_array_equal(itq(rows, 5, first).matrix, itq(rows.astype(np.float64), 5, first).matrix)
    tensor = torch.tensor(rows.astype(np.float64))
    np.testing.assert_array_equal(itq(tensor.requires_grad_(), 5, torch.tensor(first)).matrix, itq(rows, 5, first).matrix)
    np.testing.assert_array_equal(itq(tensor.detach().T.contiguous().T, 5, first).matrix, itq(rows, 5, first).matrix)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_codes_follow_a_turn_and_a_shift_of_the_features(seed):
    rows, first, turn = features(seed), start(seed), start(seed + 1)
    shift = np.random.default_rng(seed).normal(size=WIDTH)
    before = itq(rows, 3, first)
    after = itq(rows @ turn + shift, 3, turn.T @ first)
    np.testing.assert_allclose(after.matrix, turn.T @ before.matrix, atol=1e-6)
    assert (after.encode(rows @ turn + shift) == before.encode(rows)).mean() > 0.999


def test_fewer_bits_keep_the_principal_directions():
    generator = np.random.default_rng(6)
    rows = generator.normal(size=(300, 6)) * [0.1, 5, 0.1, 4, 0.1, 3]
    fitted = itq(rows, bits=3)
    assert fitted.matrix.shape == (6, 3)
    np.testing.assert_allclose(fitted.matrix.T @ fitted.matrix, np.eye(3), atol=1e-12)
    assert np.abs(fitted.matrix[[1, 3, 5]]).max() > 0.5 and np.abs(fitted.matrix[[0, 2, 4]]).max() < 0.05
    assert fitted.encode(rows).shape == (300, 3)


def test_what_the_codes_are_fitted_on():
    seen, query, gallery = features(1), features(2, rows=30), features(3, rows=40)
    ours = binary_codes(seen, query, gallery)
    fitted = itq(seen)
    np.testing.assert_array_equal(ours[0], (query - seen.mean(0)) @ fitted.matrix >= 0)
    np.testing.assert_array_equal(ours[1], (gallery - seen.mean(0)) @ fitted.matrix >= 0)
    released = binary_codes(None, query, gallery, rule="released", fit="as-released")
    fitted = itq(query, rule="released")
    np.testing.assert_array_equal(released[0], (query - query.mean(0)) @ fitted.matrix >= 0)
    np.testing.assert_array_equal(released[1], (gallery - gallery.mean(0)) @ fitted.matrix >= 0)
    # a shift of the whole gallery is invisible to the released way only
    moved = binary_codes(None, query, gallery + 100, rule="released", fit="as-released")
    np.testing.assert_array_equal(moved[1], released[1])
    assert (binary_codes(seen, query, gallery + 100)[1] != ours[1]).any()


def slow_released_codes(features: np.ndarray, query: np.ndarray, bits: int) -> np.ndarray:
    """Signs of the query's rows from the released start, textbook rounds: each step by another routine than ours."""
    generator = np.random.RandomState(50)
    draws = np.array([[generator.randn() for _ in range(bits)] for _ in range(bits)])
    turn = scipy.linalg.svd(draws, lapack_driver="gesvd")[0]
    mean = features.mean(0)
    values, vectors = np.linalg.eigh(np.einsum("nd,ne->de", features - mean, features - mean))
    axes = vectors[:, np.argsort(-values)[:bits]]
    rows = (features - mean) @ axes
    for _ in range(50):
        turn = polar(rows.T @ np.where(rows @ turn >= 0, 1.0, -1.0))[0]
    return (query - mean) @ axes @ turn >= 0


@pytest.mark.parametrize("bits", [12, 5])
def test_the_released_start_is_the_same_matrix_whatever_the_run_s_seed(bits):
    seen, query, gallery = features(1), features(2, rows=30), features(3, rows=40)
    for seed in (0, 7):
        found = binary_codes(seen, query, gallery, bits=bits, seed=seed, start="released")
        np.testing.assert_array_equal(found[0], slow_released_codes(seen, query, bits))
        np.testing.assert_array_equal(found[1], slow_released_codes(seen, gallery, bits))
    assert (found[0] != binary_codes(seen, query, gallery, bits=bits, seed=7)[0]).any()
    first, second = (itq(seen, 0, bits=bits, seed=seed, start="drawn").matrix for seed in (0, 7))
    assert np.abs(first - second).max() > 0.1


def test_the_released_start_alone_is_orthogonal_and_takes_no_sign_from_us():
    start_ = itq(features(4), 0, start="released").matrix
    np.testing.assert_allclose(start_.T @ start_, np.eye(WIDTH), atol=1e-12)
    # U of the SVD makes U^T draws a matrix with orthogonal rows: S V^T
    rows = start_.T @ np.random.RandomState(50).normal(size=(WIDTH, WIDTH))
    np.testing.assert_allclose(rows @ rows.T, np.diag(np.linalg.norm(rows, axis=1) ** 2), atol=1e-9)
    axes = itq(features(4), 0, bits=5, start="released").matrix @ itq(features(4)[:, :5], 0, start="released").matrix.T
    centred = features(4) - features(4).mean(0)
    np.testing.assert_array_equal(axes.round(9), np.linalg.eigh(centred.T @ centred)[1][:, :-6:-1].round(9))


def test_the_start_alone_moves_the_codes_and_a_given_start_overrides_it():
    rows = features(5)
    ends = {itq(rows, 50, seed=seed).encode(rows).tobytes() for seed in range(4)}
    assert len(ends) == 4
    given = itq(rows, 3, np.eye(WIDTH), start="released")
    np.testing.assert_array_equal(given.matrix, itq(rows, 3, np.eye(WIDTH)).matrix)


def spoilt(rows: np.ndarray) -> np.ndarray:
    rows[3, 1] = np.nan
    return rows


@pytest.mark.parametrize("call,message", [
    (lambda: itq(features(0), rule="paper"), "rule='paper'"),
    (lambda: itq(features(0), -1), "rounds"),
    (lambda: itq(features(0), start="seed 50"), "start='seed 50' is unknown; choose one of drawn, released"),
    (lambda: itq(features(0)[0]), "features must be"),
    (lambda: itq(features(0).astype(object)), "features is an array of object"),
    (lambda: itq(np.where(np.arange(12) == 3, np.nan, features(0))), "features holds NaN .* first in row 0"),
    (lambda: itq(features(0), rotation=np.eye(3)), r"rotation must be \[12, 12\]"),
    (lambda: itq(features(0), rotation=2 * np.eye(12)), "not orthogonal"),
    (lambda: itq(features(0), bits=13), "bits must be"),
    (lambda: itq(features(0)).encode(np.ones((2, 3))), "3 dimensions"),
    (lambda: itq([[1.0, 2.0], [3.0]]), "features cannot be read"),
    (lambda: binary_codes(features(0), spoilt(features(1)), features(2)), "query holds NaN .* first in row 3"),
    (lambda: binary_codes(features(0), features(1), spoilt(features(2))), "gallery holds NaN .* first in row 3"),
    (lambda: binary_codes(spoilt(features(0)), features(1), features(2)), "seen_features holds NaN"),
    (lambda: binary_codes(None, spoilt(features(1)), features(2), fit="as-released"), "query holds NaN"),
    (lambda: binary_codes(None, features(1), features(2)[0], fit="as-released"), "gallery must be"),
    (lambda: binary_codes(features(0), features(1)[:, :3], features(2)), "query has 3 dimensions and seen_features 12"),
    (lambda: binary_codes(None, features(1), features(2)[:, :3], fit="as-released"), "gallery has 3 .* query 12"),
    (lambda: binary_codes(None, features(0), features(1)), "seen_features is missing"),
    (lambda: binary_codes(None, features(0), features(1), fit="test"), "fit='test'"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_worked_examples_in_the_docstrings():
    failed, tried = doctest.testmod(codes)
    assert tried > 3 and failed == 0


def test_the_largest_component_of_each_axis_is_positive_whatever_the_library_s_signs(monkeypatch):
    rows = np.random.default_rng(4).normal(size=(50, 9)) * np.arange(1, 10)
    scatter = rows.T @ rows
    expected = codes._principal_axes(scatter, 6)
    assert (expected[np.abs(expected).argmax(0), np.arange(6)] > 0).all() and (expected[0] < 0).any()
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    np.testing.assert_array_equal(codes._principal_axes(scatter, 6), expected)
    np.testing.assert_array_equal(codes._principal_axes(scatter, 6, signed=False), -eigh(scatter)[1][:, ::-1][:, :6])


def test_few_rows_of_float32_are_rotated_in_float64():
    rows = np.random.default_rng(5).normal(size=(40, 7)).astype(np.float32)
    found, expected = itq(rows, 5, bits=4), itq(rows.astype(np.float64), 5, bits=4)
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert found.error(rows) == expected.error(rows.astype(np.float64))
