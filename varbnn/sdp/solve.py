"""Minimise a quadratic over ±1 weights, with a proved bound."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from varbnn.errors import InputError
from varbnn.sdp.bound import lower_bound
from varbnn.sdp.low_rank import Relaxed, relax
from varbnn.sdp.problem import Array, Problem, finite, least_squares_problem, quadratic_problem
from varbnn.sdp.rounding import derandomised, polished, rounded
from varbnn.sdp.solution import Solution

METHODS = ("low-rank",)


def quadratic(
    matrix: ArrayLike,
    linear: ArrayLike | None = None,
    constant: float = 0.0,
    *,
    method: str = "low-rank",
    **options: Any,
) -> Solution:
    """Minimise wᵀ A w + 2 bᵀ w + c over w in {-1, +1}ⁿ.

    Args:
        matrix: A, symmetric, n×n; need not be positive.
        linear: b, n; zero when absent.
        constant: c.
        method, **options: see `binary_least_squares`.

    Raises:
        InputError: A is not symmetric, or an entry is not finite.

    >>> quadratic([[0.0, 1.0], [1.0, 0.0]]).objective  # opposite signs
    -2.0
    """
    return minimise(quadratic_problem(matrix, linear, constant), method, **options)


def binary_least_squares(
    design: ArrayLike,
    target: ArrayLike,
    scale: float = 1.0,
    *,
    method: str = "low-rank",
    tolerance: float = 1e-6,
    num_roundings: int = 100,
    rounding: str = "homogeneous",
    seed: int = 0,
) -> Solution:
    """Minimise ‖y - scale · X w‖² over w in {-1, +1}ⁿ.

    Args:
        design: X, m×n.
        target: y, m.
        scale: the factor of X w.
        method: ``"low-rank"``: low-rank factors of the semidefinite relaxation, in float64.
        tolerance: of the relaxation, relative.
        num_roundings: ±1 vectors drawn from the relaxation's solution, of which the best counts, after single flips.
        rounding: ``"homogeneous"``, ``"mean"`` (as VISPA rounds) or ``"derandomised"``, see `varbnn.sdp.rounding`.
        seed: of start and roundings.

    Returns:
        The weights with their certificate. Interrupted (Ctrl-C), the best so far.

    Raises:
        InputError: shapes that do not fit, NaN or infinite entries, an unknown option.

    >>> import numpy as np
    >>> inputs = np.random.default_rng(0).standard_normal((40, 12))
    >>> weights = np.where(np.arange(12) % 3 == 0, -1.0, 1.0)
    >>> solution = binary_least_squares(inputs, inputs @ weights)
    >>> bool((solution.weights == weights).all())
    True
    """
    options: dict[str, Any] = dict(tolerance=tolerance, num_roundings=num_roundings, rounding=rounding, seed=seed)
    return minimise(least_squares_problem(design, target, scale), method, scale=scale, **options)


def certify(weights: ArrayLike, design: ArrayLike, target: ArrayLike, scale: float = 1.0, **options: Any) -> Solution:
    """How good given ±1 weights are for min ‖y - scale · X w‖²: their objective beside the proved bound.

    Args:
        weights: ±1, n, from any optimizer.
        design, target, scale: as in `binary_least_squares`.
        **options: ``tolerance``, ``seed``.

    Raises:
        InputError: weights that are not all ±1, or of another shape.

    >>> certify([1.0], [[2.0]], [2.0]).gap
    0.0
    """
    problem = least_squares_problem(design, target, scale)
    given = binary(weights, problem.size)
    began = time.perf_counter()
    best, complete = _relaxed(problem, options.get("tolerance", 1e-6), options.get("seed", 0))
    return Solution(
        given, float(problem.objective(given)), _bound(problem, best), 0 if best is None else best.rank,
        time.perf_counter() - began, "given weights; bound by low-rank relaxation", scale, complete,
    )  # fmt: skip


def binary(weights: ArrayLike, size: int) -> Array:
    """`weights` as float64, checked to be `size` numbers that are all +1 or -1."""
    given = finite("weights", weights, 1)
    if given.shape != (size,):
        raise InputError(f"there are {size} weights, got shape {given.shape}")
    if not np.all(np.abs(given) == 1):
        raise InputError("weights must all be +1 or -1; take their sign first (varbnn.bits.sign)")
    return given


def minimise(
    problem: Problem,
    method: str = "low-rank",
    *,
    tolerance: float = 1e-6,
    num_roundings: int = 100,
    rounding: str = "homogeneous",
    seed: int = 0,
    scale: float = 1.0,
) -> Solution:
    """What the public functions share; `scale` is only reported."""
    if method not in METHODS:
        raise InputError(f"method must be one of {METHODS}, got {method!r}")
    if num_roundings < 1:
        raise InputError(f"num_roundings must be at least 1, got {num_roundings}")
    began = time.perf_counter()
    best, complete = _relaxed(problem, tolerance, seed)
    generator = np.random.default_rng(seed)
    vectors = np.eye(problem.size + 1, 1) if best is None else best.vectors
    if rounding == "derandomised":
        candidates = derandomised(problem, vectors)[None]
    else:
        candidates = rounded(vectors, num_roundings, rounding, generator)
    candidates = polished(problem, candidates)
    values = problem.objective(candidates)
    chosen = int(values.argmin())
    return Solution(
        candidates[chosen], float(values[chosen]), _bound(problem, best), 0 if best is None else best.rank,
        time.perf_counter() - began, f"{method}, {rounding} rounding", scale, complete,
    )  # fmt: skip


def _relaxed(problem: Problem, tolerance: float, seed: int) -> tuple[Relaxed | None, bool]:
    """The last point of the relaxation, and whether the search came to its end."""
    best: Relaxed | None = None
    try:
        for point in relax(problem, tolerance, seed=seed):
            best = point
    except KeyboardInterrupt:
        return best, False
    return best, True


def _bound(problem: Problem, best: Relaxed | None) -> float:
    return lower_bound(problem, np.diag(problem.homogeneous)) if best is None else best.bound
