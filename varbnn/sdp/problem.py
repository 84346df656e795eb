"""What is minimised: a quadratic over ±1 vectors, as it is given and as the relaxations see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from varbnn.errors import InputError

Array = NDArray[np.float64]

UNIT = 2.0**-53
"""Largest relative error of one float64 operation."""


@dataclass(frozen=True)
class Problem:
    """minimise wᵀ A w + 2 bᵀ w + c over w in {-1, +1}ⁿ, kept in units in which the largest entry is about 1.

    Attributes:
        homogeneous: the symmetric matrix C of the same problem without a linear part, (n + 1)×(n + 1): with z = (1, w)
            the objective is zᵀ C z, the constant in C[0, 0].
        unit: what one unit of C is worth, a power of two.
        slack: how far the objective of any ±1 vector can be from zᵀ C z, in units of C: C was rounded when it was
            formed. A bound proved for C is one for the problem after it is lowered by this.
        design, target: X and y of a least-squares problem, in units of their own; objectives are then taken from the
            residual, which loses fewer digits. None for a quadratic.
    """

    homogeneous: Array
    unit: float
    slack: float
    design: Array | None = None
    target: Array | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.homogeneous) - 1

    def objective(self, weights: Array) -> Array:
        """The objective of ±1 vectors, shape (..., n) → (...), in the units that the problem was given in."""
        if self.design is not None and self.target is not None:
            residual = weights @ self.design.T - self.target
            return np.asarray((residual * residual).sum(-1) * self.unit)
        quadratic, linear = self.homogeneous[1:, 1:], self.homogeneous[0, 1:]
        values = ((weights @ quadratic) * weights).sum(-1) + 2 * weights @ linear + self.homogeneous[0, 0]
        return np.asarray(values * self.unit)


def quadratic_problem(matrix: ArrayLike, linear: ArrayLike | None = None, constant: float = 0.0) -> Problem:
    """The problem min wᵀ A w + 2 bᵀ w + c.

    Raises:
        InputError: A is not a symmetric matrix of finite numbers with at least one row, or b does not fit it.
    """
    a = finite("the matrix", matrix, 2)
    if a.shape[0] != a.shape[1] or a.shape[0] == 0:
        raise InputError(f"the matrix must be square with at least one row, got shape {a.shape}")
    if not np.array_equal(a, a.T):
        worst = float(np.abs(a - a.T).max())
        raise InputError(
            f"the matrix must be symmetric, it differs from its transpose by up to {worst:g}; (A + Aᵀ) / 2"
        )
    b = np.zeros(len(a)) if linear is None else finite("the linear part", linear, 1)
    if b.shape != (len(a),):
        raise InputError(f"the linear part must have {len(a)} entries, got shape {b.shape}")
    if not math.isfinite(constant):
        raise InputError(f"the constant must be finite, got {constant}")
    unit = unit_of(a, b, np.array([constant]))
    full = np.empty((len(a) + 1, len(a) + 1))
    full[1:, 1:], full[0, 1:], full[1:, 0], full[0, 0] = a / unit, b / unit, b / unit, constant / unit
    return Problem(full, unit, slack=0.0)  # a division by a power of two is exact, but for numbers near to zero


def least_squares_problem(design: ArrayLike, target: ArrayLike, scale: float = 1.0) -> Problem:
    """The problem min ‖y - scale · X w‖² over ±1 weights.

    Raises:
        InputError: X is not a matrix of finite numbers with rows and columns, y does not fit it, or the scale is not
            finite.
    """
    x, y = finite("X", design, 2), finite("y", target, 1)
    if 0 in x.shape:
        raise InputError(f"X must have at least one row and one column, got shape {x.shape}")
    if y.shape != (len(x),):
        raise InputError(f"y must have one entry for each of the {len(x)} rows of X, got shape {y.shape}")
    if not math.isfinite(scale):
        raise InputError(f"scale must be finite, got {scale}")
    # scaled through mantissa and exponent: x · scale itself may overflow although the problem does not
    mantissa, exponent = math.frexp(scale)
    own = unit_of(x)
    values = (x / own) * mantissa
    largest = max(_exponent(values) + _exponent_of(own) + exponent, _exponent(y))
    design = np.ldexp(values, _exponent_of(own) + exponent - largest)
    goal = np.ldexp(y, -largest)
    full = np.concatenate([-goal[:, None], design], axis=1)
    gram = full.T @ full
    gram = (gram + gram.T) / 2
    rows = np.abs(full).sum(1)
    # each entry of the Gram matrix is a sum of m products (Higham 2002, section 3.1); ±1 weights add all errors up
    slack = 2 * _gamma(len(x) + 2) * float((rows * rows).sum())
    if 2 * largest > 1023 or 2 * largest < -1021:
        raise InputError(f"the squares of numbers like 2**{largest} are out of range; rescale X and y")
    return Problem(gram, math.ldexp(1.0, 2 * largest), slack, design, goal)


def finite(what: str, values: Any, dimensions: int) -> Array:
    """`values` as a float64 array.

    Raises:
        InputError: another number of dimensions, or NaN or infinite entries.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be an array of real numbers ({error})") from None
    if array.ndim != dimensions:
        raise InputError(f"{what} must have {dimensions} dimension{'s' * (dimensions > 1)}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} has NaN or infinite entries")
    return array


def unit_of(*arrays: Array) -> float:
    """A power of two of about the largest magnitude in `arrays`; 1 where all is 0."""
    return math.ldexp(1.0, max(_exponent(array) for array in arrays))


def _exponent(array: Array) -> int:
    largest = float(np.abs(array).max(initial=0.0))
    return math.frexp(largest)[1] if largest > 0 else 0


def _exponent_of(power: float) -> int:
    return math.frexp(power)[1] - 1


def _gamma(count: int) -> float:
    """Relative error of `count` operations in a row (Higham 2002, lemma 3.1)."""
    return count * UNIT / (1 - count * UNIT)
