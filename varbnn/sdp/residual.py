"""Least squares with many more weights than rows: the residual is kept, XᵀX never formed.

A coordinate of the mixing method costs O(m k) for m rows, and the memory is that of X. What is proved is the bound of
the box -1 ≤ w ≤ 1, from one vector λ: ‖y - X w‖ ≥ λᵀ (y - X w) / ‖λ‖ ≥ (λᵀ y - ‖Xᵀ λ‖₁) / ‖λ‖. With so many weights
the relaxation of Shor proves hardly more: there is nearly always a w in the box with X w = y.
"""

from __future__ import annotations

import math
import time

import numpy as np

from varbnn.sdp.arguments import Array
from varbnn.sdp.low_rank import full_rank
from varbnn.sdp.mixing import SMALLEST, start
from varbnn.sdp.problem import UNIT
from varbnn.sdp.rounding import rounded
from varbnn.sdp.solution import Solution

SWEEPS = 100
SMALLEST_SQUARE = 1e-200
"""Of a vector that proves something: below that underflow counts."""

POLISHED = 5
"""So many of the roundings, the best, are improved by flips."""


def residual_sweep(
    design: Array, target: Array, vectors: Array, sweeps: int, momentum: float = 0.0, tolerance: float = 0.0
) -> Array:
    """The sweeps of `varbnn.sdp.mixing.sweep` for G = XᵀX and b = -Xᵀy, without them.

    Args:
        design, target: X, m×n, and y.
        vectors: unit rows, n×k, changed in place.
        sweeps, momentum, tolerance: as there.

    Returns:
        ‖g_i‖ as each vector met it in the last sweep.
    """
    columns = np.ascontiguousarray(design.T)
    squares = (columns * columns).sum(1)
    lengths = np.zeros(len(vectors))
    before = 0.0
    for number in range(sweeps):
        residual = design @ vectors
        residual[:, 0] -= target
        for i, column in enumerate(columns):
            gradient = column @ residual - squares[i] * vectors[i]
            lengths[i] = length = math.sqrt(gradient @ gradient)
            if length > SMALLEST:
                moved = gradient * (-(1.0 + momentum) / length) - momentum * vectors[i]
                moved /= math.sqrt(moved @ moved)
                residual += np.multiply.outer(column, moved - vectors[i])
                vectors[i] = moved
        total = float(lengths.sum())
        if number > 0 and abs(total - before) <= tolerance * total:
            break
        before = total
    return lengths


def solve_by_residual(
    design: Array, target: Array, unit: float, *, tolerance: float, num_roundings: int, rounding: str, momentum: float,
    seed: int, scale: float,
) -> Solution:  # fmt: skip
    """As `varbnn.sdp.solve.minimise`, with X and y in units whose square is `unit`."""
    began = time.perf_counter()
    rows, size = design.shape
    rank = full_rank(min(size + 1, rows * (rows + 1) // 2 + 1))
    vectors, complete = start(1, size, rank, seed)[0], True
    candidates = np.ones((1, size))
    try:
        residual_sweep(design, target, vectors, SWEEPS, momentum, tolerance)
        whole = np.concatenate([np.eye(1, rank), vectors])
        if rounding == "derandomised":
            drawn = _derandomised(design, target, vectors[:, 0])[None]
        else:
            drawn = rounded(whole, num_roundings, rounding, np.random.default_rng(seed))
        order = np.argsort(((drawn @ design.T - target) ** 2).sum(1))[:POLISHED]
        candidates = drawn[order]
        candidates = np.stack([_flipped(design, target, weights) for weights in candidates])
    except KeyboardInterrupt:
        complete = False
    values = ((candidates @ design.T - target) ** 2).sum(1)
    best = int(values.argmin())
    bound = box_bound(design, target, target - design @ vectors[:, 0])
    objective, bound = max(float(values[best]), bound) * unit, math.nextafter(bound * unit, 0.0)
    return Solution(
        candidates[best], objective, bound, rank, time.perf_counter() - began,
        f"low-rank by residuals, {rounding} rounding; bound of the box", scale, complete,
    )  # fmt: skip


def box_bound(design: Array, target: Array, direction: Array) -> float:
    """What λ = `direction` proves of ‖y - X w‖² for all -1 ≤ w ≤ 1; entries of X and y may be off by 4 roundings."""
    along = math.fsum(direction * target) - math.fsum(np.abs(direction @ design))
    sizes = float(np.abs(direction) @ (np.abs(target) + np.abs(design).sum(1)))
    along -= (2 * sum(design.shape) + 40) * UNIT * sizes
    square = math.fsum(direction * direction)
    return (
        math.nextafter(along * along / square * (1 - 40 * UNIT), 0.0) if along > 0 and square > SMALLEST_SQUARE else 0.0
    )


def _derandomised(design: Array, target: Array, means: Array) -> Array:
    """As `varbnn.sdp.rounding.derandomised`, by the residual."""
    point = np.clip(means, -1, 1)
    residual, squares = design @ point - target, (design * design).sum(0)
    for i in np.argsort(-np.abs(means)):
        own = design[:, i] @ residual - squares[i] * point[i]
        value = -1.0 if own > 0 else 1.0
        residual += design[:, i] * (value - point[i])
        point[i] = value
    return point


def _flipped(design: Array, target: Array, weights: Array) -> Array:
    """After single flips, the best one first, until none lowers ‖y - X w‖²."""
    weights, residual = weights.copy(), target - design @ weights
    squares = (design * design).sum(0)
    for _ in range(len(weights)):
        changes = weights * (residual @ design) + squares
        best = int(changes.argmin())
        if changes[best] >= -1e-14 * squares[best]:
            break
        residual += 2 * weights[best] * design[:, best]
        weights[best] *= -1
    return weights
