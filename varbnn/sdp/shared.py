"""What the neurons of a layer share, and what one of them adds: ‖y - α X w‖² as a matrix for every scale at once.

With z = (1, α w) the objective is zᵀ C z, C = [[yᵀy, -bᵀ], [-b, G]], G = XᵀX, b = Xᵀy: only the first row and column
are the neuron's own. If S = C - Diag d ≥ λ I, then for every α and every ±1 vector w

    ‖y - α X w‖² ≥ d_0 + λ + α² (Σ_{i≥1} d_i + n λ),

so the same d proves a bound for a given scale, and, where the last bracket is not negative, d_0 + λ for all scales.
(Without the constant this is the Charnes–Cooper form of max (bᵀw)² / wᵀGw: ν = yᵀy - d_0.)
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from varbnn.errors import InputError
from varbnn.sdp.arguments import Array, finite
from varbnn.sdp.interior import Inside, far_out, follow, less
from varbnn.sdp.problem import UNDERFLOW, UNIT, exponent_of, gamma

RANGE = 480
"""Powers of two beyond which a square could leave the range of numbers."""


class Design:
    """X of all neurons without its columns of zeros, in a unit in which G's diagonal is about 1.

    Args:
        values: X, m×n.

    Raises:
        InputError: X is not a matrix of finite numbers with rows and columns.
    """

    def __init__(self, values: ArrayLike) -> None:
        self._lock = threading.Lock()
        given = finite("X", values, 2)
        if 0 in given.shape:
            raise InputError(f"X must have at least one row and one column, got shape {given.shape}")
        self.columns = given.shape[1]
        self.alive = np.flatnonzero(np.abs(given).max(0) > 0)
        kept = given[:, self.alive]
        largest = exponent_of(kept)
        scaled = np.ldexp(kept, -largest)
        typical = math.sqrt(float((scaled * scaled).sum()) / max(len(self.alive), 1)) if len(self.alive) else 1.0
        self.exponent = largest + math.frexp(typical)[1]
        if abs(self.exponent) > RANGE:
            raise InputError(f"the squares of numbers like 2**{self.exponent} are out of range; rescale X")
        self.values = np.ldexp(kept, -self.exponent)
        gram = self.values.T @ self.values
        self.gram = np.ascontiguousarray((gram + gram.T) / 2)
        self.rows = np.abs(self.values).sum(1)

    @property
    def size(self) -> int:
        """Columns that are not all zero."""
        return len(self.alive)

    @property
    def path(self) -> list[Inside]:
        """Points along the central path of G alone, for t = 1: neurons start from there."""
        with self._lock:  # threads ask for it together
            return self._path

    @cached_property
    def _path(self) -> list[Inside]:
        gram = torch.from_numpy(self.gram)
        points = [far_out(gram, 1.0)]
        for point in follow(gram, points[0]):
            if point.gap < 1e-3 * self.size or len(points) == 12:
                break
            points.append(point)
        return points


@dataclass(frozen=True)
class Neuron:
    """One target: its matrix C, in units in which its scale is about 1.

    Attributes:
        design: what it shares.
        matrix: C, N×N.
        target: y in units of its own.
        exponent: of that unit, a power of two.
    """

    design: Design
    matrix: Tensor
    target: Array
    exponent: int

    @classmethod
    def of(cls, design: Design, target: Array, scale: float) -> Neuron:
        """`scale` is α, or about what it will be; positive.

        Raises:
            InputError: fourth powers of y are out of range.
        """
        exponent = _power(scale) + design.exponent
        if abs(exponent) > RANGE or 2 * (exponent_of(target) - exponent) > RANGE:
            raise InputError(
                f"y of size 2**{exponent_of(target)} and scale · X of size 2**{exponent} are out of range; rescale them"
            )
        y = np.ldexp(target, -exponent)
        matrix = np.empty((design.size + 1, design.size + 1))
        matrix[1:, 1:], matrix[0, 0] = design.gram, y @ y
        matrix[0, 1:] = matrix[1:, 0] = -(design.values.T @ y)
        return cls(design, torch.from_numpy(matrix), y, exponent)

    def inner(self, scale: float) -> float:
        """A scale in the units given as one in units of C."""
        return math.ldexp(scale, self.design.exponent - self.exponent)

    def outer(self, inner: float) -> float:
        return math.ldexp(inner, self.exponent - self.design.exponent)

    def start(self, square: float) -> Inside:
        """From the path of G: as far along it as this neuron's own part allows."""
        gap = 0.3 * float(self.matrix[0, 0]) / square
        point = next((p for p in self.design.path if p.gap < gap), self.design.path[-1])
        first = -self.matrix[0, 1:]
        explained = float(first @ torch.cholesky_solve(first[:, None], point.lower)[:, 0])
        room = max(square * point.gap / max(self.design.size, 1), 0.1 * explained)
        dual = torch.cat([self.matrix[:1, 0] - explained - room, point.dual])
        lower, failed = torch.linalg.cholesky_ex(less(self.matrix, dual))
        if failed:
            return far_out(self.matrix, square)
        primal = torch.zeros_like(self.matrix)
        primal[0, 0] = 1.0
        primal[1:, 1:] = square * point.primal
        gap = float(primal.view(-1) @ self.matrix.view(-1) - primal.diagonal() @ dual)
        return Inside(primal, dual, square, lower, gap)

    def lower_bound(self, dual: Tensor, square: float, free: bool) -> float:
        """Proved, in the units given: of a scale whose square is `square`, or of all scales."""
        size, lost = self.design.size, self._rounding()
        trace = float((self.matrix.diagonal() - dual).abs().sum())
        reserve = 8 * (size + 16) * UNIT * trace
        for _ in range(12):
            moved = dual
            if free:  # what Σ d lacks is taken from the eigenvalues, of which the central path leaves some
                lacking = -float(dual[1:].sum()) + lost[1] + size * reserve
                moved = torch.cat([dual[:1], dual[1:] + lacking / size])
            smallest = proved_eigenvalue(less(self.matrix, moved), reserve / 2)
            if smallest is not None:
                constant = math.fsum([float(moved[0]), smallest, -lost[0]])
                slope = math.fsum([*moved[1:].tolist(), size * smallest, -lost[1]])
                if free and slope < 16 * UNIT * (abs(size * smallest) + lost[1]):
                    reserve *= 4
                    continue
                added = 0.0 if free else square * slope
                value = constant + added - 16 * UNIT * (abs(constant) + abs(added) + lost[0] + abs(smallest))
                return max(math.ldexp(value, 2 * self.exponent), 0.0)
            reserve *= 16
        return 0.0  # a sum of squares

    def _rounding(self) -> tuple[float, float]:
        """e and f with |zᵀ C z - objective| ≤ e + α² f: each entry of C is a sum of m products, rounded."""
        twice = 2 * gamma(len(self.target) + 8)
        size = np.abs(self.target)
        mixed = twice * float(self.design.rows @ size)  # 2 α |b| ≤ |b| + α² |b|
        own = twice * float(size @ size)
        return own + mixed + UNDERFLOW, mixed + twice * float(self.design.rows @ self.design.rows) + UNDERFLOW


def proved_eigenvalue(matrix: Tensor, shift: float) -> float | None:
    """A proved lower bound of the smallest eigenvalue, a little below -shift; None where it is not proved.

    As `varbnn.sdp.bound.proved_eigenvalue`, by a Cholesky factorisation of matrix + shift · I.
    """
    moved = matrix.clone()
    moved.diagonal().add_(shift)
    diagonal = moved.diagonal().clone()
    if not bool((diagonal > 0).all()):
        return None
    found, failed = torch.linalg.cholesky_ex(moved)
    if failed or not bool(torch.isfinite(found).all()):
        return None
    error = gamma(len(matrix) + 8)
    factorised = error / (1 - error) * math.fsum(diagonal.tolist()) * (1 + 16 * UNIT) + UNDERFLOW
    rounded = 2 * UNIT * float((diagonal.abs() + shift).max()) * (1 + 4 * UNIT)  # C - Diag d and + shift
    return math.nextafter(math.fsum([-shift, -factorised, -rounded]), -math.inf)


def _power(value: float) -> int:
    return math.frexp(value)[1]
