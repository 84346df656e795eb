"""Newton's method on products of unit spheres, for low-rank factors of a relaxation.

minimise <C, V Vᵀ> over V with unit rows (Burer, Monteiro 2003; Boumal, Voroninski, Bandeira 2016), by trust regions
whose steps come from preconditioned conjugate gradients (Absil, Baker, Gallivan 2007). Where coordinate steps need
thousands of sweeps because inputs are correlated, this needs some hundreds of products C U.
"""

from __future__ import annotations

import numpy as np

from varbnn.sdp.arguments import Array

INNER = 200
"""Conjugate-gradient steps for one Newton step, at most."""


def unit_rows(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def newton(matrix: Array, vectors: Array, steps: int = 12, tolerance: float = 1e-11) -> Array:
    """Improve `vectors` by up to `steps` Newton steps; stops once the gradient is `tolerance` of the matrix's size.

    Args:
        matrix: C, symmetric, N×N.
        vectors: unit rows, N×k.
    """
    size = float(np.abs(matrix).sum(1).max()) or 1.0
    product = matrix @ vectors
    value, radius, largest = float((vectors * product).sum()), np.sqrt(len(vectors)) / 4, np.sqrt(len(vectors))
    for _ in range(steps):
        dual = (vectors * product).sum(1)
        gradient = 2 * (product - dual[:, None] * vectors)
        if np.linalg.norm(gradient) <= tolerance * size:
            break
        step, expected, at_border = _steihaug(matrix, vectors, dual, gradient, radius, size)
        moved = unit_rows(vectors + step)
        moved_product = matrix @ moved
        moved_value = float((moved * moved_product).sum())
        if expected >= -1e-15 * abs(value):
            break  # what is left to gain is rounding
        agreement = (moved_value - value) / expected
        if agreement < 0.25:
            radius /= 4
        elif agreement > 0.75 and at_border:
            radius = min(2 * radius, largest)
        if agreement > 0.05:
            vectors, product, value = moved, moved_product, moved_value
    return vectors


def _steihaug(
    matrix: Array, vectors: Array, dual: Array, gradient: Array, radius: float, size: float
) -> tuple[Array, float, bool]:
    """A step within `radius`, the change of the objective that the quadratic model expects, and whether it is cut."""

    def tangent(u: Array) -> Array:
        return u - (vectors * u).sum(1)[:, None] * vectors

    diagonal = np.diag(matrix) - dual
    preconditioner = 1 / np.maximum(diagonal, 1e-3 * np.abs(diagonal).max() or 1.0)[:, None]
    step, curved = np.zeros_like(vectors), np.zeros_like(vectors)
    residual = gradient.copy()
    preconditioned = tangent(preconditioner * residual)
    direction = -preconditioned
    product = float((residual * preconditioned).sum())
    first = float(np.linalg.norm(residual))
    enough = first * min(0.1, first / (size * np.sqrt(len(vectors))))
    at_border = False
    for _ in range(INNER):
        bent = tangent(2 * (matrix @ direction - dual[:, None] * direction))
        curvature = float((direction * bent).sum())
        length = product / curvature if curvature > 0 else np.inf
        if curvature <= 0 or np.linalg.norm(step + length * direction) >= radius:
            length = _to_border(step, direction, radius)
            at_border = True
        step = step + length * direction
        curved = curved + length * bent
        residual = residual + length * bent
        if at_border or np.linalg.norm(residual) <= enough:
            break
        preconditioned = tangent(preconditioner * residual)
        before, product = product, float((residual * preconditioned).sum())
        if product <= 0:
            break
        direction = tangent(-preconditioned + product / before * direction)
    return step, float((gradient * step).sum() + (step * curved).sum() / 2), at_border


def _to_border(step: Array, direction: Array, radius: float) -> float:
    """How far along `direction` the border of the trust region is."""
    a, b = float((direction * direction).sum()), float((step * direction).sum())
    c = float((step * step).sum()) - radius**2
    return float((-b + np.sqrt(max(b * b - a * c, 0.0))) / a) if a > 0 else 0.0
