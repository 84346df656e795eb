"""Families of instances, and the optimum by trying everything in exact arithmetic or plain loops."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np

from varbnn.sdp.problem import least_squares_problem, quadratic_problem


def data(family, n, rng):
    """X and y of a least-squares family."""
    if family == "planted":
        x = rng.standard_normal((n, n)) / math.sqrt(n)
        return x, x @ rng.choice([-1.0, 1.0], n) + 0.5 * rng.standard_normal(n)
    x = rng.standard_normal((2 * n, n))
    if family == "relu":
        x = np.maximum(x @ rng.standard_normal((n, n)) / math.sqrt(n), 0)
    return x, x @ rng.standard_normal(n)


def graph(n, rng):
    """Weights of a graph of n + 1 vertices, both signs."""
    upper = np.triu(rng.standard_normal((n + 1, n + 1)) * (rng.random((n + 1, n + 1)) < 0.6), 1)
    return upper + upper.T


def problem(family, n, rng):
    if family == "max-cut":
        w = graph(n, rng)
        return quadratic_problem(w[1:, 1:], w[0, 1:])
    return least_squares_problem(*data(family, n, rng))


def every_sign_vector(n):
    return np.array(list(itertools.product((1.0, -1.0), repeat=n)))


def optimum(problem):
    return float(problem.objective(every_sign_vector(problem.size)).min())


def exact_optimum(matrix, linear, constant=0.0):
    """min wᵀ A w + 2 bᵀ w + c in rational numbers: no rounding at all."""
    a = [[Fraction(float(value)) for value in row] for row in matrix]
    b = [Fraction(float(value)) for value in linear]
    n = len(b)
    return Fraction(float(constant)) + min(
        sum(a[i][j] * w[i] * w[j] for i in range(n) for j in range(n)) + 2 * sum(b[i] * w[i] for i in range(n))
        for w in itertools.product((1, -1), repeat=n)
    )


def exact_least_squares(x, y, scale=1.0):
    """min ‖y - scale · X w‖² in rational numbers."""
    rows = [[Fraction(float(scale)) * Fraction(float(value)) for value in row] for row in x]
    goal = [Fraction(float(value)) for value in y]
    return min(
        sum((g - sum(v * s for v, s in zip(row, w, strict=True))) ** 2 for row, g in zip(rows, goal, strict=True))
        for w in itertools.product((1, -1), repeat=len(rows[0]))
    )


def exact_hinge(x, y, margin, scale):
    """min Σ max(0, margin - scale · y_i x_i w) in rational numbers."""
    rows = [[Fraction(float(scale)) * Fraction(float(label * v)) for v in row] for row, label in zip(x, y, strict=True)]
    return min(
        sum(max(Fraction(float(margin)) - sum(v * s for v, s in zip(row, w, strict=True)), 0) for row in rows)
        for w in itertools.product((1, -1), repeat=len(rows[0]))
    )
