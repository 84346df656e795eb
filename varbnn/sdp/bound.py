"""Lower bounds that are proved: from a dual vector alone, whichever solver it came from, rounding errors included.

For any y, zᵀ C z = Σ y + zᵀ (C - Diag y) z ≥ Σ y + N · λ with λ any lower bound of the smallest eigenvalue of
C - Diag y, since ±1 vectors have zᵀ z = N (weak duality of the relaxation of Shor; Poljak, Rendl, Wolkowicz 1995).
λ is proved by a Cholesky factorisation that runs to its end, not by an eigenvalue routine: where that of a symmetric
matrix S does, λ_min(S) ≥ - γ/(1 - γ) · trace S with γ = (N + 1) u / (1 - (N + 1) u) (Higham 2002, theorem 10.7;
Rump 2006); some more for libraries that multiply by reciprocals, and for underflow.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg

from varbnn.sdp.arguments import Array
from varbnn.sdp.cuts import Cuts
from varbnn.sdp.problem import UNDERFLOW, UNIT, Problem, gamma


def proved_eigenvalue(matrix: Array) -> float:
    """A number that is proved to be at most the smallest eigenvalue of a symmetric matrix, and near to it.

    -inf where nothing could be proved, such as for a matrix with huge entries.
    """
    size = len(matrix)
    estimate = float(linalg.eigh(matrix, eigvals_only=True, subset_by_index=(0, 0), check_finite=False)[0])
    spread = float(np.abs(matrix).sum(1).max())
    margin = 4 * size * UNIT * spread
    for _ in range(60):
        proved = _shifted(matrix, estimate - margin)
        if proved is not None:
            return proved
        margin = 2 * margin + math.ulp(spread)
    return -math.inf


def _shifted(matrix: Array, shift: float) -> float | None:
    """A proved lower bound of the smallest eigenvalue, if matrix - shift · I has a Cholesky factorisation."""
    size = len(matrix)
    moved = matrix.copy()
    diagonal = np.diag(matrix) - shift
    np.fill_diagonal(moved, diagonal)
    if not np.all(diagonal > 0):
        return None
    try:
        factor = linalg.cholesky(moved, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    if not np.isfinite(factor).all():
        return None
    error = gamma(size + 8)
    factorised = error / (1 - error) * math.fsum(diagonal) * (1 + 16 * UNIT) + UNDERFLOW
    subtracted = UNIT * float(np.abs(diagonal).max()) * (1 + 4 * UNIT)  # each diagonal entry was rounded once
    return math.nextafter(math.fsum([shift, -factorised, -subtracted]), -math.inf)


def lower_bound(problem: Problem, dual: Array) -> float:
    """A proved lower bound of the objective over all ±1 weights, in the units that the problem was given in.

    Args:
        problem: N - 1 weights.
        dual: any N numbers; the nearer to the dual solution of the relaxation, the better the bound.
    """
    return problem.proved(bound_in_units(problem, dual))


def bound_in_units(problem: Problem, dual: Array, cuts: Cuts | None = None) -> float:
    """A proved lower bound of zᵀ C z over ±1 vectors z, in units of C and before what is known of its integers.

    With inequalities and multipliers μ ≥ 0 the bound is that of C - Σ μ_t A_t, less their price.
    """
    matrix, lost_to_cuts, price = problem.homogeneous, 0.0, 0.0
    if cuts is not None and len(cuts):
        matrix, lost_to_cuts = cuts.subtracted(matrix)
        price = cuts.price * (1 + 4 * UNIT)
    if not np.isfinite(dual).all() or not np.isfinite(matrix).all():
        return -math.inf
    remaining = matrix.copy()
    np.fill_diagonal(remaining, np.diag(matrix) - dual)
    rounded = UNIT * math.fsum(np.abs(np.diag(remaining))) + lost_to_cuts
    smallest = proved_eigenvalue(remaining)
    if smallest == -math.inf:
        return -math.inf
    total, least = math.fsum(dual), len(matrix) * smallest
    # the second is exact up to one rounding, like all sums here: 8 roundings are more than all of them
    lost = rounded + problem.slack + 8 * UNIT * (abs(total) + abs(least) + price + rounded + problem.slack)
    return math.nextafter(math.fsum([total, least, -price, -lost]), -math.inf)


def dual_of(problem: Problem, vectors: Array) -> Array:
    """The dual vector that belongs to a stationary point V of the low-rank relaxation: y_i = v_i · (C V)_i."""
    return np.asarray((vectors * (problem.homogeneous @ vectors)).sum(1))
