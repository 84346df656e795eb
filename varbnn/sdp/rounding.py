"""From a point of the relaxation to ±1 weights."""

from __future__ import annotations

import numpy as np

from varbnn.errors import InputError
from varbnn.sdp.arguments import Array
from varbnn.sdp.problem import Problem

ROUNDINGS = ("homogeneous", "mean", "derandomised")


def signs(values: Array) -> Array:
    """±1, with sign(0) = +1."""
    return np.where(values >= 0, 1.0, -1.0)


def rounded(vectors: Array, count: int, rounding: str, generator: np.random.Generator) -> Array:
    """`count` ±1 vectors drawn from unit rows V, shape (count, n); the first row of V is the homogeneous coordinate.

    - ``"homogeneous"``: sign(g · v_i) · sign(g · v_0) with g standard normal (Goemans, Williamson 1995);
    - ``"mean"``: sign(m_i + z_i · r) with m_i = v_0 · v_i, the rest z_i and r standard normal, as VISPA rounds: the
      same with g · v_0 held at 1.
    """
    if rounding not in ROUNDINGS:
        raise InputError(f"rounding must be one of {ROUNDINGS}, got {rounding!r}")
    first, rest = vectors[0], vectors[1:]
    noise = generator.standard_normal((count, vectors.shape[1]))
    if rounding == "mean":
        along = noise @ first
        noise = noise + (1.0 - along)[:, None] * first
    projected = noise @ rest.T
    return signs(projected) * signs(noise @ first)[:, None]


def derandomised(problem: Problem, vectors: Array) -> Array:
    """One ±1 vector, weight by weight to the side that lowers the expected objective, starting from the means.

    The means m_i = v_0 · v_i are moved to ±1 one after another, the surest first; for independent weights with these
    means each move is the method of conditional expectations, so the end is no worse than their expectation.
    """
    matrix, means = problem.homogeneous, vectors[1:] @ vectors[0]
    point = np.concatenate([[1.0], np.clip(means, -1, 1)])
    field = matrix @ point
    for i in 1 + np.argsort(-np.abs(means)):
        own = field[i] - matrix[i, i] * point[i]
        value = -1.0 if own > 0 else 1.0
        field += matrix[:, i] * (value - point[i])
        point[i] = value
    return point[1:]


def polished(problem: Problem, weights: Array) -> Array:
    """Each vector after single flips, the best one first, until none lowers the objective.

    Args:
        weights: ±1, shape (count, n).
    """
    matrix = problem.homogeneous
    points = np.concatenate([np.ones((len(weights), 1)), weights], axis=1)
    fields = points @ matrix
    diagonal = np.diag(matrix)
    smallest = 1e-14 * float(np.abs(matrix).sum(1).max(initial=0.0))
    everyone = np.arange(len(points))
    for _ in range(20 * problem.size + 100):
        # flipping z_i changes zᵀ C z by -4 z_i (C z)_i + 4 C_ii
        gains = 4 * (points * fields - diagonal)[:, 1:]
        best = 1 + gains.argmax(1)
        active = gains.max(1) > smallest
        if not active.any():
            break
        rows, columns = everyone[active], best[active]
        change = -2 * points[rows, columns]
        fields[rows] += change[:, None] * matrix[columns]
        points[rows, columns] *= -1
    return points[:, 1:]
