"""The relaxation by solvers for semidefinite programs, through cvxpy; what is proved never comes from them.

A solver contributes a dual vector and multipliers, from which `varbnn.sdp.bound` proves a bound of its own: a solver
that stops early, or errs, can only make it worse.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from scipy import linalg, sparse

from varbnn.errors import BackendError, import_extra
from varbnn.sdp.arguments import Array
from varbnn.sdp.bound import bound_in_units
from varbnn.sdp.cuts import Cuts, violated
from varbnn.sdp.low_rank import Relaxed
from varbnn.sdp.newton import unit_rows
from varbnn.sdp.problem import Problem

OPTIONS: dict[str, dict[str, Any]] = {"clarabel": {}, "scs": {"eps_abs": 1e-5, "eps_rel": 1e-5, "max_iters": 50_000}}
"""What each solver is called with."""


def shor(problem: Problem, solver: str, cuts: int = 0, most: int = 250) -> Iterator[Relaxed]:
    """Points of the relaxation of Shor: as it is, then after each of up to `cuts` rounds of inequalities.

    Args:
        solver: ``"clarabel"`` (up to some 60 weights: its time grows with the fifth power of them) or ``"scs"`` (to
            some 200).
        cuts: rounds of triangle and pentagonal inequalities.
        most: of them in a round.

    Raises:
        MissingExtraError: cvxpy is not installed.
        BackendError: the solver returned nothing that a bound could be proved from.
    """
    cvxpy = import_extra("cvxpy", "sdp")
    chosen, best, highest = Cuts.none(), None, -math.inf
    for _ in range(cuts + 1):
        moments, dual, chosen = _solved(cvxpy, problem, solver, chosen)
        bound = bound_in_units(problem, dual, chosen)
        if best is None or bound > highest:
            highest = bound
            value = float((problem.homogeneous * moments).sum()) * problem.unit + problem.constant
            best = Relaxed(_factor(moments), value, problem.proved(bound), bound, chosen)
        yield best
        more = violated(moments, most)
        if len(more) == 0:
            return
        chosen = chosen.active().joined(more)


def _solved(cvxpy: ModuleType, problem: Problem, solver: str, cuts: Cuts) -> tuple[Array, Array, Cuts]:
    """M, the dual vector, and the inequalities with their multipliers."""
    matrix = problem.homogeneous.copy()
    np.fill_diagonal(matrix, 0.0)  # constant on ±1 vectors; only in the way of the solver's scaling
    unit = float(np.abs(matrix).max()) or 1.0
    size = len(matrix)
    variable = cvxpy.Variable((size, size), symmetric=True)
    constraints = [variable >> 0, cvxpy.diag(variable) == 1]
    if len(cuts):
        rows, columns, signs = cuts.pairs()
        number = np.repeat(np.arange(len(cuts)), rows.shape[1])
        at = (number, rows.ravel() + size * columns.ravel())
        sums = sparse.csr_array((signs.ravel(), at), (len(cuts), size**2))
        constraints.append(sums @ cvxpy.vec(variable, order="F") >= cuts.least)
    program = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(cvxpy.multiply(matrix / unit, variable))), constraints)
    status = guarded_solve(cvxpy, program, solver, **OPTIONS[solver])
    if variable.value is None or constraints[1].dual_value is None:
        raise BackendError(f"{solver} found no solution (status {status}); method='low-rank' needs no solver")
    dual = np.diag(problem.homogeneous) - unit * np.asarray(constraints[1].dual_value)
    if len(cuts):
        cuts = cuts.with_multipliers(unit * np.asarray(constraints[2].dual_value))
    return np.asarray(variable.value), dual, cuts


def guarded_solve(cvxpy: ModuleType, program: Any, solver: str, **options: Any) -> str:
    """Solve a cvxpy program in place; its status.

    cvxpy may derive wrong bounds of expressions from infinite ones (0 · ∞), of which a RuntimeWarning is the only
    sign: that is an error here. Its warning that a solution may be inaccurate is not, since nothing relies on that.

    Raises:
        BackendError: the solver failed, or cvxpy warned of invalid arithmetic.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            program.solve(solver=solver.upper(), **options)
    except (cvxpy.error.SolverError, RuntimeWarning) as error:
        raise BackendError(f"{solver} failed: {error}") from error
    return str(program.status)


def _factor(moments: Array) -> Array:
    """Unit rows V with V Vᵀ near to M, of as many columns as M has eigenvalues that matter."""
    values, vectors = linalg.eigh(moments, check_finite=False)
    kept = values > 1e-6 * values[-1]
    return unit_rows(vectors[:, kept] * np.sqrt(values[kept]) + 1e-300)
