"""The largest cut of a graph: the same quadratic in another dress."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from varbnn.errors import InputError
from varbnn.sdp.arguments import Array, finite
from varbnn.sdp.problem import UNIT
from varbnn.sdp.solution import Solution
from varbnn.sdp.solve import quadratic


@dataclass(frozen=True, eq=False)
class Cut:
    """Two sides of a graph and a proved bound on what any cut can weigh.

    Attributes:
        side: ±1 for each vertex; that of the first is +1.
        value: the weight of the edges between the sides.
        upper_bound: proved: no cut weighs more.
        solution: of the quadratic below; None for a single vertex.
    """

    side: Array
    value: float
    upper_bound: float
    solution: Solution | None


def max_cut(
    weights: ArrayLike,
    *,
    method: str = "auto",
    tolerance: float = 1e-6,
    num_roundings: int = 100,
    rounding: str = "homogeneous",
    cuts: int = 0,
    momentum: float = 0.0,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Cut:
    """The sides s in {-1, +1}ⁿ that maximise Σ_{i<j} W_ij (1 - s_i s_j) / 2.

    Args:
        weights: W, symmetric, n×n, of any sign, with a diagonal of zeros.
        method, tolerance, num_roundings, rounding, cuts, momentum, time_limit, seed: see `quadratic`.

    Raises:
        InputError: W is not symmetric, an entry is not finite, or a vertex has an edge to itself.

    >>> max_cut([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).upper_bound  # of a triangle's edges two can be cut
    2.0
    """
    matrix = finite("the weights", weights, 2)
    if matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise InputError(f"the weights must be a square matrix, got shape {matrix.shape}")
    if np.any(np.diag(matrix) != 0):
        raise InputError("the diagonal of the weights must be zero: an edge to itself is never cut")
    if not np.array_equal(matrix, matrix.T):
        raise InputError("the weights must be symmetric; (W + Wᵀ) / 2 cuts the same")
    if len(matrix) == 1:
        return Cut(np.ones(1), 0.0, 0.0, None)
    found = quadratic(
        matrix[1:, 1:], matrix[0, 1:], method=method, tolerance=tolerance, num_roundings=num_roundings,
        rounding=rounding, cuts=cuts, momentum=momentum, time_limit=time_limit, seed=seed,
    )  # fmt: skip
    side = np.concatenate([[1.0], found.weights])
    value = math.fsum(matrix[side[:, None] != side]) / 2
    total, largest = math.fsum(matrix.ravel()), float(np.abs(matrix).sum())
    bound = (total - found.lower_bound) / 4
    if not (np.array_equal(matrix, np.rint(matrix)) and largest < 2.0**50 and found.lower_bound.is_integer()):
        bound = math.nextafter(bound + 4 * UNIT * (abs(total) + abs(found.lower_bound)), math.inf)
    return Cut(side, value, max(bound, value), found)
