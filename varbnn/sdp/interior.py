"""Relaxation and dual by an interior point: for up to a few thousand weights whose inputs are correlated.

With z = (1, α w), t = α² and C = [[yᵀy, -bᵀ], [-b, G]] the relaxation is min <C, M> over M ≥ 0 with diagonal
(1, t, …, t), its dual max d_0 + t Σ_{i≥1} d_i over S = C - Diag d ≥ 0. For a free scale t is one unknown more, and the
dual asks for Σ_{i≥1} d_i = 0. A step towards M S = μ I (Helmberg, Rendl, Vanderbei, Wolkowicz 1996, with Mehrotra's
corrector) costs a few factorisations and products of C's size; ten to twenty are enough, however badly conditioned C
is, where the mixing method needs more and more sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

STEPS = 60
"""Newton steps, at most."""

CENTRING = 0.2
"""How much smaller the next μ is."""

ROUGH, LARGE = 1e-3, 200
"""Relative gap and size above which the corrector is formed in float32: it leaves out far more than that loses."""

SHORTER = 0.87
"""A step that leaves the positive definite matrices is tried again at this part of its length."""


@dataclass(frozen=True)
class Inside:
    """A point with both matrices positive definite.

    Attributes:
        primal: M, its diagonal is (1, t, …, t).
        dual: d.
        square: t, the square of the scale: as given, or what a free one has come to.
        lower: Cholesky factor of S = C - Diag d.
        gap: <M, S>: d is at most this far from optimal, up to rounding.
    """

    primal: Tensor
    dual: Tensor
    square: float
    lower: Tensor
    gap: float

    def value(self, free: bool) -> float:
        """Of the dual."""
        return float(self.dual[0]) + (0.0 if free else self.square * float(self.dual[1:].sum()))


def far_out(matrix: Tensor, square: float) -> Inside:
    """A start from which the central path can be followed: there M is nearly a diagonal matrix.

    Args:
        matrix: C, symmetric and positive semidefinite up to rounding, N×N, float64.
        square: t, or about what it will be.
    """
    diagonal = torch.full((len(matrix),), square, dtype=matrix.dtype)
    diagonal[0] = 1.0
    lengths = diagonal.sqrt()
    dual = -float((lengths[:, None] * matrix * lengths).norm()) / diagonal
    lower = factor(less(matrix, dual))
    assert lower is not None, "the matrix is not finite"
    return Inside(torch.diag(diagonal), dual, square, lower, float(diagonal @ (matrix.diagonal() - dual)))


def follow(matrix: Tensor, point: Inside, free: bool = False) -> Iterator[Inside]:
    """Points of smaller and smaller gap; ends where rounding allows no further step.

    Args:
        matrix: C.
        point: to start from.
        free: whether to find the t with the least value.
    """
    rest = torch.ones(len(matrix), dtype=matrix.dtype)
    rest[0] = 0.0
    kind = (1.0 - rest, rest, free)
    part = 0.3  # the primal step is the shorter one, and from the second on about as long as the last
    for number in range(STEPS):
        inverse = torch.cholesky_inverse(point.lower).mT  # contiguous
        system = factor(inverse * point.primal)
        if system is None:
            return
        second = _left_out(point, inverse, system, kind)
        mu = CENTRING * point.gap / len(matrix)
        step, turn = _direction(point, inverse, system, mu, second, kind)
        part, inside = _longest(partial(_added, point.primal, turn), max(0.6, 1.2 * part) if number else part)
        dual_part, lower = _longest(partial(_lessened, matrix, point.dual, step), 1.0)
        if lower is not None and dual_part < 1:
            dual_part *= 0.95
            lower = factor(_lessened(matrix, point.dual, step, dual_part))
        if inside is None or lower is None:
            return
        # away from the border; between two positive definite matrices all are
        primal = point.primal.add(turn, alpha=part if part == 1 else 0.97 * part)
        dual = point.dual + dual_part * step
        square = float(primal.diagonal()[1:].mean()) if free else point.square
        gap = float(primal.view(-1) @ matrix.view(-1) - primal.diagonal() @ dual)
        point = Inside(primal, dual, square, lower, gap)
        yield point


def _left_out(point: Inside, inverse: Tensor, system: Tensor, kind: tuple[Tensor, Tensor, bool]) -> Tensor:
    """What a first-order step leaves out of M S."""
    affine = _dual_step(point, inverse, system, 0.0, None, kind)
    scaled, primal = inverse * affine, point.primal
    if len(primal) > LARGE and point.gap > ROUGH * abs(point.value(kind[2])):
        scaled32, primal32 = scaled.float(), primal.float()
        second = torch.mm(scaled32, _symmetric(torch.mm(scaled32, primal32)).sub_(primal32))
        if bool(torch.isfinite(second).all()):
            return second.double()
    return torch.mm(scaled, _symmetric(torch.mm(scaled, primal)).sub_(primal))


def _direction(
    point: Inside, inverse: Tensor, system: Tensor, mu: float, second: Tensor, kind: tuple[Tensor, Tensor, bool]
) -> tuple[Tensor, Tensor]:
    """Newton's step of d and of M towards M S = μ I; `second` is what the first-order step left out."""
    step = _dual_step(point, inverse, system, mu, second.diagonal(), kind)
    moved = torch.mm(inverse * step, point.primal).add_(second)
    return step, _symmetric(moved).add_(inverse, alpha=mu).sub_(point.primal)


def _dual_step(
    point: Inside, inverse: Tensor, system: Tensor, mu: float, second: Tensor | None, kind: tuple[Tensor, Tensor, bool]
) -> Tensor:
    first, rest, free = kind
    right = first + point.square * rest - mu * inverse.diagonal()
    step = _solve(system, right if second is None else right - second)
    if free:
        along = _solve(system, rest)
        step = step - float(rest @ (point.dual + step)) / float(rest @ along) * along
    return step


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT).mul_(0.5)


def _longest(at: Callable[[float], Tensor], part: float) -> tuple[float, Tensor | None]:
    """How far a step from a positive definite matrix leads to another, and its Cholesky factor; at most `part`."""
    part = min(part, 1.0)
    for _ in range(40):
        found = factor(at(part))
        if found is not None:
            return part, found
        part *= SHORTER
    return 0.0, None


def _added(matrix: Tensor, turn: Tensor, part: float) -> Tensor:
    return matrix.add(turn, alpha=part)


def _lessened(matrix: Tensor, dual: Tensor, step: Tensor, part: float) -> Tensor:
    return less(matrix, dual + part * step)


def less(matrix: Tensor, diagonal: Tensor) -> Tensor:
    """matrix - Diag(diagonal)."""
    moved = matrix.clone()
    moved.diagonal().sub_(diagonal)
    return moved


def factor(matrix: Tensor) -> Tensor | None:
    """The Cholesky factor; None where the matrix is not positive definite, or nearly so."""
    found, failed = torch.linalg.cholesky_ex(matrix)
    return None if failed or not bool(torch.isfinite(found.diagonal()).all()) else found


def _solve(lower: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[:, None], lower)[:, 0]
