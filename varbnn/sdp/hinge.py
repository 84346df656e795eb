"""Binary classifiers of least hinge or logistic loss.

Lifting adds nothing here: for a loss that is convex in X w the semidefinite relaxation is no better than the box
-1 ≤ w ≤ 1, since M = w wᵀ + Diag(1 - w²) is always allowed. So the hinge loss goes to a mixed-integer solver, and what
is proved is the bound of the box, from dual numbers λ in [0, 1] of the rows:

    Σ loss(z_i) ≥ Σ (λ_i (margin - z_i) + h(λ_i)) ≥ margin Σ λ + Σ h(λ) - ‖Fᵀ λ‖₁,   z = F w, F_i = scale · y_i x_i,

with h = 0 for the hinge loss and the entropy of λ for the logistic one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from varbnn.errors import BackendError, InputError, import_extra
from varbnn.sdp.arguments import Array, finite, least, positive, real
from varbnn.sdp.branch import all_signs
from varbnn.sdp.exact import guarded_solve
from varbnn.sdp.problem import UNDERFLOW, UNIT, exponent_of
from varbnn.sdp.rounding import signs
from varbnn.sdp.solution import Solution

LOSSES = ("hinge", "logistic")

SUBNORMAL = 1e-300
"""Numbers below may have lost digits."""

ENUMERATED = 16
"""Up to this many weights the bound comes from trying all of them."""


@dataclass(frozen=True, eq=False, repr=False)
class HingeSolution(Solution):
    """A solution with what the solver claims beside what is proved.

    Attributes:
        solver_bound: the lower bound that the mixed-integer solver reports; computed by it with tolerances of about
            1e-6, and not proved again here. -inf where none was run.
    """

    solver_bound: float = -math.inf

    @property
    def solver_gap(self) -> float:
        """As `gap`, with the solver's bound: 0 where it says that the weights are optimal."""
        difference = max(self.objective - self.solver_bound, 0.0)
        return difference / self.objective if self.objective else (0.0 if difference == 0 else math.inf)


def binary_hinge(
    design: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float = 1.0,
    scale: float = 1.0,
    loss: str = "hinge",
    gap_limit: float = 0.0,
    time_limit: float = 60.0,
) -> HingeSolution:
    """Minimise Σ_i loss(margin - y_i · scale · x_i w) over w in {-1, +1}ⁿ, with loss(t) = max(0, t) or log(1 + eᵗ).

    Args:
        design: X, m×n.
        labels: y, m numbers ±1.
        margin: how far on the right side of 0 costs nothing.
        scale: the factor of X w; 1/√n keeps margins of about one size.
        loss: ``"hinge"``, to optimality by HiGHS through cvxpy, varbnn[sdp]; ``"logistic"``, by the box and single
            flips: its bound is weak, and nothing better is known that is cheap.
        gap_limit: the solver stops at this relative gap.
        time_limit: of the solver, seconds.

    Returns:
        The weights with the proved bound: the optimum itself up to 16 weights, that of the box for more. Beside it
        stands what the solver claims. ``complete`` is False where the solver was stopped by the time.

    Raises:
        InputError: shapes that do not fit, labels other than ±1, NaN or infinite entries, an unknown loss.
        MissingExtraError: cvxpy is not installed.

    >>> found = binary_hinge([[1.0, 2.0], [2.0, -1.0], [-1.0, -1.0]], [1, 1, -1])
    >>> found.weights, found.objective, found.gap
    (array([1., 1.]), 0.0, 0.0)
    """
    signed, scale = _signed(design, labels), real("scale", scale)
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {LOSSES}, got {loss!r}")
    margin, gap_limit = real("margin", margin), least("gap_limit", gap_limit, 0)
    time_limit = positive("time_limit", time_limit)
    began = time.perf_counter()
    smooth = loss == "logistic"
    exponent = 0 if smooth else _unit(signed, scale, margin)
    rows, margin = _rows(signed, scale, exponent), math.ldexp(margin, -exponent)
    means, multipliers = _box_logistic(rows, margin) if smooth else _box_hinge(rows, margin)
    found = [_flipped(rows, margin, signs(means), smooth)]
    claimed, complete = -math.inf, True
    if not smooth:
        weights, claimed, complete = _integer(rows, margin, gap_limit, time_limit)
        found += [] if weights is None else [weights]
    bound = _dual_bound(rows, margin, multipliers, smooth)
    if rows.shape[1] <= ENUMERATED:
        best, proved = _all(rows, margin, smooth)
        found, bound = [*found, best], max(bound, proved)
    losses = [_loss(rows, margin, weights[None], smooth)[0] for weights in found]
    at = int(np.argmin(losses))
    value = max(float(losses[at]), bound)
    try:
        value, bound, claimed = (
            math.ldexp(number, exponent) for number in (value, max(bound, 0.0), min(claimed, value))
        )
    except OverflowError:
        raise InputError(f"losses of numbers like 2**{exponent} are out of range; rescale X and margin") from None
    bound = math.nextafter(bound, 0.0) if bound < SUBNORMAL else bound  # which may have been rounded up
    return HingeSolution(
        found[at], value, bound, 0, time.perf_counter() - began,
        f"{loss}, {'box and flips' if smooth else 'mixed-integer program (HiGHS)'}", scale, complete, claimed,
    )  # fmt: skip


def _signed(design: ArrayLike, labels: ArrayLike) -> Array:
    """The rows of X times their labels."""
    x, y = finite("X", design, 2), finite("the labels", labels, 1)
    if 0 in x.shape:
        raise InputError(f"X must have at least one row and one column, got shape {x.shape}")
    if y.shape != (len(x),):
        raise InputError(f"there must be one label for each of the {len(x)} rows of X, got shape {y.shape}")
    if not np.all(np.abs(y) == 1):
        raise InputError("labels must be +1 or -1; classes 0 and 1 become 2 * labels - 1")
    return y[:, None] * x


def _unit(signed: Array, scale: float, margin: float) -> int:
    """The power of two in whose units the largest number is about 1, as the tolerances of solvers want it."""
    sizes = [math.frexp(margin)[1]] if margin else []
    if scale and signed.any():
        sizes.append(exponent_of(signed) + math.frexp(scale)[1])
    return max(sizes, default=0)


def _rows(signed: Array, scale: float, exponent: int) -> Array:
    """F, the rows times `scale`, in units of 2^exponent; scale · X itself may be out of the range of normal numbers."""
    if not scale:
        return np.zeros_like(signed)
    mantissa, own = math.frexp(scale)
    with np.errstate(over="ignore"):  # said better below
        return finite("scale · X", 2 * mantissa * np.ldexp(signed, own - 1 - exponent), 2)


def _loss(rows: Array, margin: float, weights: Array, smooth: bool) -> Array:
    """The loss of ±1 vectors, (count, n) → (count,)."""
    short = margin - weights @ rows.T
    return np.asarray((np.logaddexp(0.0, short) if smooth else np.maximum(short, 0.0)).sum(-1))


def _box_logistic(rows: Array, margin: float) -> tuple[Array, Array]:
    def value(weights: Array) -> tuple[float, Array]:
        short = margin - rows @ weights
        return float(np.logaddexp(0.0, short).sum()), -(special.expit(short) @ rows)

    size = rows.shape[1]
    found = optimize.minimize(value, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(-1, 1)] * size)
    return found.x, special.expit(margin - rows @ found.x)


def _box_hinge(rows: Array, margin: float) -> tuple[Array, Array]:
    """Weights in the box and the multipliers of the rows, as a linear program."""
    count, size = rows.shape
    matrix = np.concatenate([-rows, -np.eye(count)], axis=1)
    cost = np.concatenate([np.zeros(size), np.ones(count)])
    bounds = [(-1, 1)] * size + [(0, None)] * count
    found = optimize.linprog(cost, matrix, np.full(count, -margin), bounds=bounds, method="highs")
    if found.status != 0:
        return np.zeros(size), np.zeros(count)  # a bound of 0 is always true
    return found.x[:size], -np.asarray(found.ineqlin.marginals)


def _dual_bound(rows: Array, margin: float, multipliers: Array, smooth: bool) -> float:
    """The bound of the box that λ proves, less what rounding can have added to it."""
    dual = np.clip(multipliers, 0.0, 1.0)
    terms = np.concatenate(
        [margin * dual, special.entr(dual) + special.entr(1 - dual) if smooth else [], -np.abs(dual @ rows)]
    )
    sizes = np.abs(margin * dual).sum() + (dual @ np.abs(rows)).sum() + (len(dual) if smooth else 0)
    # sums of m products and of n terms; the entropies are right to some digits less than all
    error = (2 * sum(rows.shape) + 40) * UNIT * float(sizes) + rows.size * UNDERFLOW
    return math.nextafter(math.fsum(terms) - error, -math.inf)


def _integer(rows: Array, margin: float, gap_limit: float, time_limit: float) -> tuple[Array | None, float, bool]:
    """Weights, the solver's own bound, and whether it finished.

    Every variable has finite bounds of its own and there is one matrix: see `guarded_solve` for what that avoids.
    """
    cvxpy = import_extra("cvxpy", "sdp")
    count, size = rows.shape
    most = np.maximum(margin + np.abs(rows).sum(1), 0.0)
    bits = cvxpy.Variable(size, boolean=True)
    short = cvxpy.Variable(count, bounds=[np.zeros(count), most])
    constraints = [(2 * rows) @ bits + short >= margin + rows.sum(1)]
    program = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(short)), constraints)
    try:
        status = guarded_solve(cvxpy, program, "highs", mip_rel_gap=gap_limit, time_limit=time_limit)
    except BackendError:
        return None, -math.inf, False  # the result says that it is not complete; box and flips remain
    if bits.value is None:
        return None, -math.inf, False
    claimed = float(program.solver_stats.extra_stats.mip_dual_bound)
    return signs(np.asarray(bits.value) - 0.5), claimed, status == "optimal"


def _flipped(rows: Array, margin: float, weights: Array, smooth: bool) -> Array:
    """After single flips, the best one first, until none lowers the loss."""
    value = float(_loss(rows, margin, weights[None], smooth)[0])
    flips = 1 - 2 * np.eye(len(weights))
    while True:
        others = weights * flips
        losses = _loss(rows, margin, others, smooth)
        best = int(losses.argmin())
        if losses[best] >= value:
            return weights
        weights, value = others[best], float(losses[best])


def _all(rows: Array, margin: float, smooth: bool) -> tuple[Array, float]:
    """The best of all weights, and its loss less what rounding can have added."""
    everyone = all_signs(rows.shape[1])
    block = max(1, 2**22 // len(rows))
    losses = np.concatenate(
        [_loss(rows, margin, everyone[i : i + block], smooth) for i in range(0, len(everyone), block)]
    )
    error = (2 * sum(rows.shape) + 40) * UNIT * float(np.abs(rows).sum() + len(rows) * (abs(margin) + 1))
    error += rows.size * UNDERFLOW
    best = int(losses.argmin())
    return everyone[best], math.nextafter(float(losses[best]) - error, -math.inf)
