"""What is minimised: a quadratic over ±1 vectors, as it is given and as the relaxations see it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from varbnn.errors import InputError
from varbnn.sdp.arguments import Array, finite, real
from varbnn.sdp.lattice import Lattice, integers_of, lattice_of

UNIT = 2.0**-53
"""Largest relative error of one float64 operation."""

UNDERFLOW = 2.0**-1000
"""Far more than what one operation loses by underflow, however subnormal numbers are treated."""

SMALLEST_NORMAL, LARGEST = 2.0**-1022, sys.float_info.max

LOWEST = -510
"""Squares of numbers below 2^LOWEST are out of the range of normal numbers."""


@dataclass(frozen=True)
class Problem:
    """minimise wᵀ A w + 2 bᵀ w + c over w in {-1, +1}ⁿ, kept in units in which the largest entry is about 1.

    Attributes:
        homogeneous: the symmetric matrix C of the same problem without a linear part, (n + 1)×(n + 1): with z = (1, w)
            the objective is zᵀ C z + constant.
        unit: what one unit of C is worth, a power of two.
        slack: how far the objective of any ±1 vector can be from zᵀ C z, in units of C: C was rounded when it was
            formed. A bound proved for C is one for the problem after it is lowered by this.
        design, target: X and y of a least-squares problem, in units of their own; objectives are then taken from the
            residual, which loses fewer digits. None for a quadratic.
        constant: c of a quadratic, in the units that it was given in; within C a large one would drown the rest.
    """

    homogeneous: Array
    unit: float
    slack: float
    design: Array | None = None
    target: Array | None = None
    constant: float = 0.0

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
        return np.asarray(values * self.unit + self.constant)

    @cached_property
    def lattice(self) -> Lattice | None:
        """Where zᵀ C z lies for ±1 vectors, if C holds integers and was formed without rounding."""
        return lattice_of(self.homogeneous) if self.slack == 0 else None

    def proved(self, value: float) -> float:
        """A proved lower bound of zᵀ C z over ±1 vectors, `value`, as one of the objective, in the units given."""
        if self.lattice is not None:
            value = self.lattice.at_least(value)
        if math.isnan(value):
            return -math.inf
        bound = value * self.unit
        if abs(bound) < SMALLEST_NORMAL:
            bound = math.nextafter(bound, -math.inf) if value else 0.0
        if self.constant:
            bound = math.nextafter(bound + self.constant, -math.inf)
        if self.design is not None:
            bound = max(bound, 0.0)  # a sum of squares is never negative
        return min(bound, LARGEST)


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
    constant = real("the constant", constant)
    exponent = max((exponent_of(part) for part in (a, b) if part.any()), default=0)
    if exponent + 2 * math.log2(len(a) + 1) > 1023:
        raise InputError(f"the sum of {len(a)}² numbers like 2**{exponent} is out of range; rescale the matrix")
    full = np.zeros((len(a) + 1, len(a) + 1))
    full[1:, 1:], full[0, 1:] = np.ldexp(a, -exponent), np.ldexp(b, -exponent)
    full[1:, 0] = full[0, 1:]
    # scaling by a power of two is exact, but for numbers that vanish beside the largest
    vanished = not np.array_equal(np.ldexp(full[1:, 1:], exponent), a) or not np.array_equal(
        np.ldexp(full[0, 1:], exponent), b
    )
    return Problem(full, math.ldexp(1.0, exponent), full.size * UNDERFLOW if vanished else 0.0, constant=constant)


@dataclass(frozen=True)
class Scaled:
    """X and y of ‖y - X w‖² in units in which the largest entry is near to 1, row weights and scale multiplied in.

    Attributes:
        design, target: X, m×n, and y.
        exponent: the unit is 2^exponent.
        exact: whether nothing was rounded; otherwise each entry was, at most three times.
    """

    design: Array
    target: Array
    exponent: int
    exact: bool


def scaled(design: ArrayLike, target: ArrayLike, scale: float = 1.0, weight: ArrayLike | None = None) -> Scaled:
    """Check and scale the data of min Σ_i h_i (y_i - scale · x_i w)².

    Raises:
        InputError: see `least_squares_problem`.
    """
    x, y = finite("X", design, 2), finite("y", target, 1)
    if 0 in x.shape:
        raise InputError(f"X must have at least one row and one column, got shape {x.shape}")
    if y.shape != (len(x),):
        raise InputError(f"y must have one entry for each of the {len(x)} rows of X, got shape {y.shape}")
    scale = real("scale", scale)
    # through mantissas and exponents: x · scale itself may overflow although the problem does not
    mantissa, exponent = math.frexp(scale)
    own, others, of_root, root = exponent_of(x), exponent_of(y), 0, np.ones(1)
    values, goal = np.ldexp(x, -own), np.ldexp(y, -others)
    exact = np.array_equal(np.ldexp(values, own), x) and np.array_equal(np.ldexp(goal, others), y)
    exact = exact and abs(mantissa) in (0.0, 0.5)  # a product with a power of two
    values = values * mantissa
    if weight is not None:
        root = np.sqrt(_row_weights(weight, len(x)))
        of_root = exponent_of(root)
        root = np.ldexp(root, -of_root)
        values, goal, exact = values * root[:, None], goal * root, False
    parts = [(values, own + exponent + of_root), (goal, others + of_root)]
    largest = max((exponent_of(part) + e for part, e in parts if part.any()), default=0)
    if largest < LOWEST or 2 * largest + 2 * math.log2(x.shape[1] + 1) + math.log2(len(x)) > 1023:
        raise InputError(f"the squares of numbers like 2**{largest} are out of range; rescale X and y")
    moved = [np.ldexp(part, e - largest) for part, e in parts]
    exact = exact and all(np.array_equal(np.ldexp(m, largest - e), p) for m, (p, e) in zip(moved, parts, strict=True))
    return Scaled(moved[0], moved[1], largest, exact)


def _row_weights(weight: ArrayLike, count: int) -> Array:
    given = finite("the row weights", weight, 1)
    if given.shape != (count,) or np.any(given < 0):
        raise InputError(f"there must be one row weight ≥ 0 for each of the {count} rows of X, got {given.shape}")
    return given


def least_squares_problem(
    design: ArrayLike, target: ArrayLike, scale: float = 1.0, weight: ArrayLike | None = None
) -> Problem:
    """The problem min Σ_i h_i (y_i - scale · x_i w)² over ±1 weights; the row weights h are 1 when absent.

    Raises:
        InputError: X is not a matrix of finite numbers with rows and columns, y or h do not fit it, a row weight is
            negative, or the scale is not finite.
    """
    data = scaled(design, target, scale, weight)
    full = np.concatenate([-data.target[:, None], data.design], axis=1)
    gram = full.T @ full
    gram = (gram + gram.T) / 2
    unit = math.ldexp(1.0, 2 * data.exponent)
    return Problem(gram, unit, _slack(full, data.exact), data.design, data.target)


def _slack(full: Array, exact: bool) -> float:
    """How far fᵀ f may be from zᵀ (FᵀF) z for ±1 vectors z, f = F z, after FᵀF was rounded.

    Each entry is a sum of m products (Higham 2002, section 3.1), the entries of F themselves were rounded; ±1
    vectors add all errors up. Twice that is far more than what underflows beside entries near to 1.
    """
    rows = np.abs(full).sum(1)
    total = float((rows * rows).sum())
    if exact and (found := integers_of(full, float(rows.max(initial=0.0)))) is not None:
        common = int(np.gcd.reduce(found[0], axis=None, initial=0))
        whole = np.abs(found[0]).sum(1) / max(common & -common, 1)  # in units of the largest power of two
        if float((whole * whole).sum()) < 2.0**51:
            return 0.0  # every product and sum is an integer that float64 holds
    return 2 * gamma(len(full) + full.shape[1] + 4) * total


def exponent_of(array: Array) -> int:
    """The least e with all magnitudes below 2^e; 0 where all is 0."""
    largest = float(np.abs(array).max(initial=0.0))
    return math.frexp(largest)[1] if largest > 0 else 0


def gamma(count: int) -> float:
    """Largest relative error of `count` operations in a row (Higham 2002, lemma 3.1)."""
    return count * UNIT / (1 - count * UNIT)
