"""Minimise a quadratic over ±1 weights, with a proved bound."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from varbnn.checks import whole_number
from varbnn.errors import InputError
from varbnn.sdp.arguments import Array, finite, least, real, require_draws
from varbnn.sdp.bound import lower_bound
from varbnn.sdp.branch import ENUMERATED, Search, enumerated
from varbnn.sdp.exact import shor
from varbnn.sdp.low_rank import Relaxed, relax
from varbnn.sdp.problem import Problem, least_squares_problem, quadratic_problem, scaled
from varbnn.sdp.residual import solve_by_residual
from varbnn.sdp.rounding import ROUNDINGS, derandomised, polished, rounded
from varbnn.sdp.solution import Solution

SOLVERS = ("clarabel", "scs")
METHODS = ("auto", "low-rank", *SOLVERS, "exact")

FEW_WEIGHTS = 20
"""Up to so many, trying all sign vectors is faster than the relaxation, and misses nothing."""

MANY_WEIGHTS = 4000
"""For more, matrices of weights × weights are avoided where that is cheaper."""


def quadratic(
    matrix: ArrayLike,
    linear: ArrayLike | None = None,
    constant: float = 0.0,
    *,
    method: str = "auto",
    tolerance: float = 1e-6,
    num_roundings: int = 100,
    rounding: str = "homogeneous",
    cuts: int = 0,
    momentum: float = 0.0,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Solution:
    """Minimise wᵀ A w + 2 bᵀ w + c over w in {-1, +1}ⁿ.

    Args:
        matrix: A, symmetric, n×n; need not be positive.
        linear: b, n; zero when absent.
        constant: c.
        method: ``"low-rank"``, ``"clarabel"``, ``"scs"`` or ``"exact"``; ``"auto"``: the last for up to 20 weights,
            otherwise the first.
        tolerance, num_roundings, rounding, cuts, momentum, time_limit, seed: see `binary_least_squares`.

    Raises:
        InputError: A is not symmetric, or an entry is not finite.

    >>> quadratic([[0.0, 1.0], [1.0, 0.0]]).objective  # opposite signs
    -2.0
    """
    return minimise(
        quadratic_problem(matrix, linear, constant), method, tolerance=tolerance, num_roundings=num_roundings,
        rounding=rounding, cuts=cuts, momentum=momentum, time_limit=time_limit, seed=seed,
    )  # fmt: skip


def binary_least_squares(
    design: ArrayLike,
    target: ArrayLike,
    scale: float = 1.0,
    *,
    weight: ArrayLike | None = None,
    method: str = "auto",
    tolerance: float = 1e-6,
    num_roundings: int = 100,
    rounding: str = "homogeneous",
    cuts: int = 0,
    momentum: float = 0.0,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Solution:
    """Minimise ‖y - scale · X w‖² over w in {-1, +1}ⁿ.

    Args:
        design: X, m×n.
        target: y, m.
        scale: the factor of X w.
        weight: h ≥ 0 for each row, m; the objective is then Σ h_i (y_i - scale · x_i w)², such as with the curvature
            of the loss behind the layer.
        method: ``"low-rank"``: low-rank factors of the semidefinite relaxation, in float64; ``"clarabel"`` (to some
            60 weights) and ``"scs"`` (to some 200): general solvers, through cvxpy, varbnn[sdp]; ``"exact"``: all sign
            vectors for up to 24 weights, branch and bound for more; ``"residual"``: low-rank factors without XᵀX,
            with the bound of the box only. ``"auto"``: exact for up to 20 weights, where that is faster; residual for
            more than 4000 that are also more than four times the rows; otherwise low-rank.
        tolerance: of the relaxation, relative; of ``"exact"``, the gap at which a part of the tree is left.
        num_roundings: ±1 vectors drawn from the relaxation's solution, of which the best counts, after single flips;
            ``"exact"`` draws none.
        rounding: ``"homogeneous"``, ``"mean"`` (as VISPA rounds) or ``"derandomised"``, see `varbnn.sdp.rounding`.
        cuts: rounds of triangle and pentagonal inequalities for ``"clarabel"`` and ``"scs"``; fifteen close
            nearly all gaps of 20 weights.
        momentum: of the mixing method, in [0, 1).
        time_limit: of branch and bound, seconds; what is open then weakens the bound. Looked at only between
            relaxations, each of which takes one to three seconds for 30 to 45 weights with inequalities.
        seed: of start and roundings.

    Returns:
        The weights with their certificate. Interrupted (Ctrl-C), the best so far.

    Raises:
        InputError: shapes that do not fit, NaN or infinite entries, an unknown option.
        MissingExtraError: a method that needs cvxpy, without it.

    >>> import numpy as np
    >>> inputs = np.random.default_rng(0).standard_normal((40, 12))
    >>> weights = np.where(np.arange(12) % 3 == 0, -1.0, 1.0)
    >>> solution = binary_least_squares(inputs, inputs @ weights)
    >>> bool((solution.weights == weights).all())
    True
    """
    options: dict[str, Any] = dict(
        tolerance=tolerance, num_roundings=num_roundings, rounding=rounding, cuts=cuts, momentum=momentum,
        time_limit=time_limit, seed=seed,
    )  # fmt: skip
    if method == "auto":
        design = finite("X", design, 2)
        rows, size = design.shape
        method = "residual" if size > MANY_WEIGHTS and size > 4 * rows else "auto"
    if method != "residual":
        return minimise(least_squares_problem(design, target, scale, weight), method, scale=scale, **options)
    _check_options("low-rank", rounding, cuts, momentum, time_limit)
    require_draws(num_roundings, seed, tolerance)
    data = scaled(design, target, scale, weight)
    return solve_by_residual(
        data.design, data.target, math.ldexp(1.0, 2 * data.exponent), tolerance=tolerance,
        num_roundings=num_roundings, rounding=rounding, momentum=momentum, seed=seed, scale=scale,
    )  # fmt: skip


def certify(
    weights: ArrayLike,
    design: ArrayLike,
    target: ArrayLike,
    scale: float = 1.0,
    *,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Solution:
    """How good given ±1 weights are for min ‖y - scale · X w‖²: their objective beside the proved bound.

    Args:
        weights: ±1, n, from any optimizer.
        design, target, scale, tolerance, seed: as in `binary_least_squares`.

    Raises:
        InputError: weights that are not all ±1, or of another shape.

    >>> certify([1.0], [[2.0]], [2.0]).gap
    0.0
    """
    problem = least_squares_problem(design, target, scale)
    given = binary(weights, problem.size)
    began = time.perf_counter()
    best, complete = last_of(relax(problem, tolerance, seed=seed))
    return _solution(
        problem, given, proved_by(problem, best), 0 if best is None else best.rank, began,
        "given weights; bound by low-rank relaxation", scale, complete,
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
    cuts: int = 0,
    momentum: float = 0.0,
    time_limit: float = 60.0,
    seed: int = 0,
    scale: float = 1.0,
) -> Solution:
    """What the public functions share; `scale` is only reported."""
    _check_options(method, rounding, cuts, momentum, time_limit)
    require_draws(num_roundings, seed, tolerance)
    began = time.perf_counter()
    if method == "auto":
        method = "exact" if problem.size <= FEW_WEIGHTS else "low-rank"
    if method == "exact":
        return _exactly(problem, tolerance, began, time_limit, scale)
    points = shor(problem, method, cuts) if method in SOLVERS else relax(problem, tolerance, momentum, seed=seed)
    best, complete = last_of(points)
    vectors = np.eye(problem.size + 1, 1) if best is None else best.vectors
    if rounding == "derandomised":
        candidates = derandomised(problem, vectors)[None]
    else:
        candidates = rounded(vectors, num_roundings, rounding, np.random.default_rng(seed))
    try:
        candidates = polished(problem, candidates)
    except KeyboardInterrupt:
        complete = False
    values = problem.objective(candidates)
    chosen = int(values.argmin())
    described = f"{method}{f' with {cuts} rounds of cuts' if cuts else ''}, {rounding} rounding"
    return _solution(
        problem, candidates[chosen], proved_by(problem, best), 0 if best is None else best.rank, began, described,
        scale, complete,
    )  # fmt: skip


def _check_options(method: str, rounding: str, cuts: int, momentum: float, time_limit: float) -> None:
    if method not in METHODS:
        raise InputError(f"method must be one of {METHODS}, got {method!r}")
    if rounding not in ROUNDINGS:
        raise InputError(f"rounding must be one of {ROUNDINGS}, got {rounding!r}")
    if whole_number("cuts", cuts, 0) and method not in SOLVERS:
        raise InputError(f"cuts are rounds of inequalities for the methods {SOLVERS}, got {cuts}, {method!r}")
    real("momentum", momentum, 0, 1)
    least("time_limit", time_limit, 0)


def _exactly(problem: Problem, tolerance: float, began: float, time_limit: float, scale: float) -> Solution:
    if problem.size <= ENUMERATED:
        weights, _, proved = enumerated(problem)
        return _solution(problem, weights, problem.proved(proved), 0, began, "exact, by enumeration", scale, True)
    search = Search(problem, tolerance, began + time_limit)
    search.run()
    end = "to its end" if search.complete else f"stopped before its end after {search.nodes} relaxations"
    described = f"exact, by branch and bound, {end}"
    return _solution(problem, search.weights, problem.proved(search.bound), 0, began, described, scale, search.complete)


def _solution(
    problem: Problem, weights: Array, bound: float, rank: int, began: float, method: str, scale: float, complete: bool
) -> Solution:
    # the objective itself is rounded; that it is not below a proved bound is known better than that
    objective = max(float(problem.objective(weights)), bound)
    return Solution(weights, objective, bound, rank, time.perf_counter() - began, method, scale, complete)


def last_of(points: Iterator[Relaxed]) -> tuple[Relaxed | None, bool]:
    """The last point of a relaxation, and whether the search came to its end."""
    best: Relaxed | None = None
    try:
        for point in points:
            best = point
    except KeyboardInterrupt:
        return best, False
    return best, True


def proved_by(problem: Problem, best: Relaxed | None) -> float:
    """The bound of a point, or of no relaxation at all."""
    return lower_bound(problem, np.diag(problem.homogeneous)) if best is None else best.bound
