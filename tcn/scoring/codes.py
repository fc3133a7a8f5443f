"""Iterative quantisation (ITQ): real-valued retrieval features to binary codes for Hamming ranking.

In: features [N, D]. Out: a `Rotation`; the signs of rotated features are the code bits (paper, section 4: binary
retrieval; the method is Gong and Lazebnik's, CVPR 2011). The deviations of the released code (the update of the rotation, what it
is fitted on, where it starts) are settings.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tcn.config import InputError
from tcn.scoring import moments

RULES = ("textbook", "released")
FITS = ("seen", "as-released")
STARTS = ("drawn", "released")
_RELEASED_SEED = 50
"""Seed of the released start, which is the same in every run."""


@dataclass(frozen=True, eq=False)
class Rotation:
    """A fitted quantiser: bit b of a row x is 1 where column b of (x - mean) @ matrix is at least 0.

    It can be used like its matrix: `features @ rotation` (arrays and tensors), `rotation.T`,
    `rotation[0]`, `rotation.shape`, `np.asarray(rotation)`. None of these centres the features; `encode` does.

    >>> import numpy as np
    >>> turn = itq(np.eye(3))
    >>> np.allclose(turn.T @ turn, np.eye(3)), turn.shape
    (True, (3, 3))
    """

    matrix: np.ndarray  #: float64 [D, bits], orthonormal columns; square and orthogonal where bits = D
    mean: np.ndarray  #: float64 [D], mean of the features it was fitted on

    def encode(self, features: Any, mean: np.ndarray | None = None) -> np.ndarray:
        """Codes, bool [N, bits], of features [N, D], centred by `mean` [D]; None: by the mean of the fit."""
        return self._rotated(features, mean) >= 0

    def error(self, features: Any) -> float:
        """Quantisation error: squared distances of the rotated rows from their codes of -1 and +1, summed."""
        rotated = self._rotated(features, None)
        return float(np.square(_signs(rotated) - rotated).sum())

    def _rotated(self, features: Any, mean: np.ndarray | None) -> np.ndarray:
        rows = checked_rows("features", features, keep_large=True)
        if rows.shape[1] != len(self.mean):
            raise InputError(f"features have {rows.shape[1]} dimensions, but the rotation was fitted on "
                             f"{len(self.mean)}")
        if moments.large(rows):
            return moments.product(rows, self.mean if mean is None else mean, self.matrix)
        rotated: np.ndarray = (rows - (self.mean if mean is None else mean)) @ self.matrix
        return rotated

    @property
    def T(self) -> np.ndarray:
        """The transposed matrix [bits, D]; if it is square, it is the inverse rotation."""
        return self.matrix.T

    @property
    def shape(self) -> tuple[int, int]:
        """(D, bits)."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of the matrix, float64."""
        return self.matrix.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.matrix, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, index: Any) -> Any:
        return self.matrix[index]

    def __matmul__(self, other: Any) -> Any:
        if hasattr(other, "new_tensor"):
            return other.new_tensor(self.matrix) @ other
        return self.matrix @ np.asarray(other)

    def __rmatmul__(self, other: Any) -> Any:
        if hasattr(other, "new_tensor"):
            return other @ other.new_tensor(self.matrix)
        return np.asarray(other) @ self.matrix


def itq(
    features: Any,
    rounds: int = 50,
    rotation: Any = None,
    rule: str = "textbook",
    *,
    bits: int | None = None,
    seed: int = 0,
    start: str = "drawn",
) -> Rotation:
    """Fit the rotation that brings centred features close to the corners of the cube {-1, +1}^bits.

    features: [N, D] numbers (array or tensor); centred here, computed in float64. rotation: orthogonal start
    [bits, bits]; None: `start`. bits: None keeps all D directions as they are; a number projects on that many
    principal axes first. start: "drawn", uniformly with `seed`, the largest component of each axis made positive;
    "released", U of the SVD of normal draws from NumPy's older generator at seed 50 whatever `seed` is, the axes'
    signs as the library leaves them. Returns a `Rotation`, which can be used as the matrix R.
    Raises `InputError` for bad shapes, NaN, or a start that is not orthogonal.

    The iteration ends in one of many local minima, so the start alone changes a result: at 64 bits by a standard
    deviation of 0.004 to 0.006 in mAP@all (measured on features of the released code). Compare codes over several starts.

    Each round takes the codes B = sign(V R) and then, for these codes, a new R. Minimising |B - V R|^2 over
    orthogonal R is maximising tr(R^T V^T B), since the norms of B and V R are fixed. With the singular value
    decomposition B^T V = U S W^T this is tr(R^T W S U^T), largest for R = W U^T: the "textbook" rule, under
    which the error never rises. The released code multiplies what NumPy returns third, which is W^T and not
    W: R = W^T U^T, the "released" rule. That is orthogonal too, but not the minimiser; and since the sign of each
    pair of singular vectors, free in W U^T, does not cancel here, it also depends on the library that finds them.

    >>> import numpy as np
    >>> corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    >>> fitted = itq(corners @ turn, rotation=np.eye(2))
    >>> round(fitted.error(corners @ turn), 9)  # turned corners are turned back
    0.0
    >>> len({tuple(code) for code in fitted.encode(corners @ turn).tolist()})
    4
    """
    if rule not in RULES:
        raise InputError(f"rule={rule!r} is unknown; choose one of {', '.join(RULES)}")
    if start not in STARTS:
        raise InputError(f"start={start!r} is unknown; choose one of {', '.join(STARTS)}")
    if rounds < 0:
        raise InputError(f"rounds must be 0 or more, not {rounds}")
    rows = checked_rows("features", features, keep_large=bits is not None)
    if bits is not None and moments.large(rows):
        mean, scatter = moments.mean_and_scatter(rows)
        axes = _principal_axes(scatter, bits, signed=start == "drawn")
        centred = moments.product(rows, mean, axes)
    else:
        mean = rows.mean(0)
        centred = rows - mean
        axes = np.eye(rows.shape[1]) if bits is None else _principal_axes(centred.T @ centred, bits, signed=start == "drawn")
        centred = centred @ axes
    width = centred.shape[1]
    if rotation is not None:
        current = _checked_start(rotation, width)
    else:
        current = _orthogonal(width, seed) if start == "drawn" else _released_start(width)
    for _ in range(rounds):
        left, _, right = np.linalg.svd(_signs(centred @ current).T @ centred)
        current = (right.T if rule == "textbook" else right) @ left.T
    return Rotation(matrix=axes @ current, mean=mean)


def binary_codes(
    seen_features: Any,
    query: Any,
    gallery: Any,
    rounds: int = 50,
    rule: str = "textbook",
    fit: str = "seen",
    *,
    bits: int | None = None,
    seed: int = 0,
    start: str = "drawn",
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries and gallery, bool [Nq, bits] and [Ng, bits], for `tcn.scoring.scores` with metric "hamming".

    fit="seen" (ours): the rotation is fitted on seen_features [N, D], features of training images, and its
    mean centres queries and gallery alike. fit="as-released": fitted on the query sketches, which uses test
    data; queries and gallery are each centred on their own mean. seen_features may then be None. bits, seed and
    start: as `itq` has them.
    Rows go in as given: normalise them first where the real-valued ranking does. Raises `InputError` naming the
    array that is not [rows, D] of finite numbers.
    """
    if fit not in FITS:
        raise InputError(f"fit={fit!r} is unknown; choose one of {', '.join(FITS)}")
    if fit == "seen" and seen_features is None:
        raise InputError("seen_features is missing: fit='seen' needs the features of training images")
    query, gallery = (checked_rows(name, rows, keep_large=True) for name, rows in (("query", query), ("gallery", gallery)))
    source = "seen_features" if fit == "seen" else "query"
    training = checked_rows(source, seen_features, keep_large=True) if fit == "seen" else query
    for name, rows in (("query", query), ("gallery", gallery)):
        if rows.shape[1] != training.shape[1]:
            raise InputError(f"{name} has {rows.shape[1]} dimensions and {source} {training.shape[1]}; they must agree")
    fitted = itq(training, rounds, rule=rule, bits=bits, seed=seed, start=start)
    own = None if fit == "seen" else moments.mean(gallery) if moments.large(gallery) else gallery.mean(0)
    return fitted.encode(query), fitted.encode(gallery, mean=own)


def _signs(values: np.ndarray) -> np.ndarray:
    """The signs as -1 and +1. 0 counts as +1, so that every code is a corner of the cube."""
    return np.where(values >= 0, 1.0, -1.0)


def _principal_axes(scatter: np.ndarray, bits: int, signed: bool = True) -> np.ndarray:
    """The `bits` directions of largest variance, [D, bits], each with its largest component positive if `signed`. scatter [D, D]:
    that of the centred rows."""
    if not 1 <= bits <= len(scatter):
        raise InputError(f"bits must be from 1 to {len(scatter)}, the features' dimensions, not {bits}")
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :bits]
    if not signed:
        return axes
    # an eigenvector's sign depends on the library; fixing it keeps codes the same everywhere
    largest = axes[np.abs(axes).argmax(0), np.arange(bits)]
    return axes * np.where(largest < 0, -1.0, 1.0)


def _orthogonal(width: int, seed: int) -> np.ndarray:
    """Uniformly distributed orthogonal matrix: QR of normal draws, the diagonal of R made positive."""
    basis, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return basis * np.where(np.diag(triangle) < 0, -1.0, 1.0)


def _released_start(width: int) -> np.ndarray:
    """Left singular vectors [width, width] of normal draws, by the released code's generator and seed."""
    return np.linalg.svd(np.random.RandomState(_RELEASED_SEED).normal(size=(width, width)))[0]


def _checked_start(rotation: Any, width: int) -> np.ndarray:
    start = checked_rows("rotation", rotation)
    if start.shape != (width, width):
        raise InputError(f"rotation must be [{width}, {width}], not of shape {start.shape}")
    if not np.allclose(start.T @ start, np.eye(width), atol=1e-4):
        raise InputError("rotation is not orthogonal: its transpose times itself is not the identity")
    return start


def checked_rows(name: str, values: Any, keep_large: bool = False) -> np.ndarray:
    """`values` as float64 [rows, dimensions] on the CPU. InputError, naming `name`, unless they are finite real numbers of that
    shape.

    keep_large: floats of another type are not converted if their copy would be large (`moments.large`).
    """
    try:
        array = values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} is an array of {array.dtype}; give real numbers")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} must be [rows, dimensions] and not empty; its shape is {array.shape}")
    if not (keep_large and array.dtype.kind == "f" and moments.large(array)):
        array = array.astype(np.float64)
    finite = np.concatenate([np.isfinite(block).all(1) for block in moments.blocks(array)])
    if not finite.all():
        raise InputError(f"{name} holds NaN or infinity, first in row {int(np.argmin(finite))}")
    return array
