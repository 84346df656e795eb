"""The relaxation by low-rank factors: mixing first, then Newton steps at the rank that the solution has.

M = V Vᵀ with unit rows V of k entries; k ≥ √(2 N) leaves no bad local optimum for almost all C (Boumal, Voroninski,
Bandeira 2016), but only the bound proved at the end says how good it is. A solution has a far lower rank than that,
and at its own rank Newton's method converges quadratically: so superfluous columns are cut off, and where the bound
says that something is missing a direction of negative curvature comes back as a new column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from varbnn.sdp.arguments import Array
from varbnn.sdp.bound import bound_in_units, dual_of
from varbnn.sdp.cuts import Cuts
from varbnn.sdp.mixing import start, sweep
from varbnn.sdp.newton import newton, unit_rows
from varbnn.sdp.problem import Problem

SWEEPS = 60
"""Of the mixing method, before Newton's."""

ROUNDS = 20
"""Of cutting the rank, Newton steps and bound, at most."""


@dataclass(frozen=True)
class Relaxed:
    """A point of the relaxation and what it proves.

    Attributes:
        vectors: unit rows V, one for the homogeneous coordinate and one for each weight; M = V Vᵀ.
        value: <C, M> + constant, in the units given; near to the relaxation's optimum, but proves nothing.
        bound: proved lower bound of the objective over ±1 weights, in the units given.
        raw: the same of zᵀ C z, before what is known of integers.
        cuts: the inequalities, with multipliers, that the bound makes use of.
    """

    vectors: Array
    value: float
    bound: float
    raw: float
    cuts: Cuts = Cuts.none()  # noqa: RUF009 - never changed

    @property
    def rank(self) -> int:
        return self.vectors.shape[1]


def full_rank(size: int) -> int:
    """The least k with k (k + 1) / 2 > `size`, in eights for the processor: where no local optimum is spurious."""
    return 8 * math.ceil((math.sqrt(2 * size) + 1) / 8)


def relax(
    problem: Problem, tolerance: float = 1e-6, momentum: float = 0.0, rank: int | None = None, seed: int = 0
) -> Iterator[Relaxed]:
    """Points of the relaxation, each proved; the last is within `tolerance` of its optimum if that is reached.

    Args:
        tolerance: of value - bound, relative to the larger of |value| and about the largest entry of C.
        momentum: of the mixing method.
        rank: to start with; absent, enough for no spurious optimum.
        seed: of the random start.
    """
    matrix = problem.homogeneous
    count = problem.size
    k = full_rank(count + 1) if rank is None else 8 * math.ceil(rank / 8)
    inner = start(1, count, k, seed)
    gram = np.ascontiguousarray(matrix[1:, 1:])
    sweep(gram, np.ascontiguousarray(matrix[:1, 1:]), inner, SWEEPS, momentum, tolerance=1e-12)
    vectors = np.concatenate([np.eye(1, k), inner[0]])
    best, highest = None, -math.inf
    for _ in range(ROUNDS):
        vectors = newton(matrix, _cut(vectors))
        dual = dual_of(problem, vectors)
        value, bound = math.fsum(dual), bound_in_units(problem, dual)
        if bound > highest:
            highest = bound
            best = Relaxed(vectors, value * problem.unit + problem.constant, problem.proved(bound), bound)
        if best is None:  # nothing is proved: the vectors are of use all the same
            best = Relaxed(vectors, value * problem.unit + problem.constant, -math.inf, -math.inf)
        yield best
        if value - problem.slack - bound <= tolerance * max(abs(value), 1.0):
            return
        vectors = _widened(matrix, dual, vectors)


def _cut(vectors: Array) -> Array:
    """Without the columns that hardly matter, after turning the axes to the principal ones."""
    _, sizes, axes = linalg.svd(vectors, full_matrices=False, check_finite=False)
    kept = max(1, int((sizes > 1e-3 * sizes[0]).sum()))
    return unit_rows(vectors @ axes[:kept].T)


def _widened(matrix: Array, dual: Array, vectors: Array) -> Array:
    """With up to three more columns, along the directions in which the dual matrix is negative."""
    last = min(2, len(matrix) - 1)
    _, directions = linalg.eigh(matrix - np.diag(dual), subset_by_index=(0, last), check_finite=False)
    return unit_rows(np.concatenate([vectors, 0.1 * directions], axis=1))
