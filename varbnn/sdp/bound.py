"""Lower bounds that are proved: from a dual vector alone, whichever solver it came from, rounding errors included.

For any y, zᵀ C z = Σ y + zᵀ (C - Diag y) z ≥ Σ y + N · min(0, λ) with λ any lower bound of the smallest eigenvalue of
C - Diag y, since ±1 vectors have zᵀ z = N (weak duality of the relaxation of Shor; Poljak, Rendl, Wolkowicz 1995).
λ is proved by a Cholesky factorisation that runs to its end, not by an eigenvalue routine: where that of a symmetric
matrix S does, λ_min(S) ≥ - γ/(1 - γ) · trace S with γ = (N + 1) u / (1 - (N + 1) u) (Higham 2002, theorem 10.7;
Rump 2006).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import linalg

from varbnn.sdp.problem import UNIT, Array, Problem


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
        linalg.cholesky(moved, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    gamma = (size + 1) * UNIT / (1 - (size + 1) * UNIT)
    factorised = gamma / (1 - gamma) * math.fsum(diagonal) * (1 + 4 * UNIT)
    subtracted = UNIT * float(np.abs(diagonal).max()) * (1 + 4 * UNIT)  # each diagonal entry was rounded once
    return math.nextafter(shift - factorised - subtracted, -math.inf)


def lower_bound(problem: Problem, dual: Array) -> float:
    """A proved lower bound of the objective over all ±1 weights, in the units that the problem was given in.

    Args:
        problem: N - 1 weights.
        dual: any N numbers; the nearer to the dual solution of the relaxation, the better the bound.
    """
    matrix = problem.homogeneous
    size = len(matrix)
    remaining = matrix.copy()
    np.fill_diagonal(remaining, np.diag(matrix) - dual)
    rounded = float((np.abs(np.diag(remaining)) * UNIT).sum()) * (1 + 4 * UNIT)
    smallest = proved_eigenvalue(remaining)
    if smallest == -math.inf:
        return -math.inf
    value = math.fsum(dual) + size * min(0.0, smallest)
    lost = rounded + problem.slack + 8 * UNIT * (abs(math.fsum(dual)) + size * abs(smallest))
    bound = math.nextafter(value - lost, -math.inf) * problem.unit
    # a sum of squares is never negative
    return max(bound, 0.0) if problem.design is not None else bound


def dual_of(problem: Problem, vectors: Array) -> Array:
    """The dual vector that belongs to a stationary point V of the low-rank relaxation: y_i = v_i · (C V)_i."""
    return np.asarray((vectors * (problem.homogeneous @ vectors)).sum(1))
