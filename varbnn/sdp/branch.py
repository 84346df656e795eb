"""The optimum itself: all sign vectors at once for few weights, branch and bound over relaxations for more."""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from varbnn.sdp.exact import shor
from varbnn.sdp.low_rank import relax
from varbnn.sdp.problem import UNIT, Array, Problem
from varbnn.sdp.rounding import polished, rounded

ENUMERATED = 24
"""Up to this many weights all sign vectors are tried."""

LEAF = 19
"""Within branch and bound, where so many are left they are tried at once: cheaper than a relaxation."""

CUT_SIZES = (25, 45)
"""Between these the root gets triangle inequalities, where cvxpy is there to solve it."""


@dataclass
class Search:
    """Branch and bound, depth first, on one problem; numbers are in units of its C.

    Attributes:
        tolerance: a part of the tree is left once it is proved to hold nothing better by more than this, relative to
            the best value.
        deadline: by `time.perf_counter`; what is open then only weakens the bound.
        weights, value: the best ±1 vector so far.
        bound: proved for all parts left so far.
        complete: whether every part was looked at.
        nodes: relaxations solved.
    """

    problem: Problem
    tolerance: float
    deadline: float
    weights: Array = field(init=False)
    value: float = field(init=False, default=math.inf)
    bound: float = field(init=False, default=math.inf)
    complete: bool = field(init=False, default=True)
    nodes: int = field(init=False, default=0)

    def run(self) -> None:
        """Search the whole tree. On Ctrl-C and at the deadline, what is still open counts by its parents' bounds."""
        size = self.problem.size
        stack: list[tuple[Problem, NDArray[np.int64], Array, float]] = [
            (self.problem, np.arange(size), np.zeros(size), -math.inf)
        ]
        current = -math.inf  # proved for what is being looked at, on the stack or not
        try:
            stack[0] = (*stack[0][:3], self._root())
            while stack and time.perf_counter() < self.deadline:
                part, free, fixed, current = stack[-1]
                children, proved = self._look(part, free, fixed, current)
                del stack[-1]
                if not children:
                    self.bound = min(self.bound, proved)
                for index, sign in children:
                    moved = fixed.copy()
                    moved[free[index]] = sign
                    stack.append((fixed_to(part, index, sign), np.delete(free, index), moved, proved))
        except KeyboardInterrupt:
            self.bound = min(self.bound, current)
            self.complete = False
        self.complete = self.complete and not stack
        self.bound = min([self.bound, *(above for _, _, _, above in stack)])

    def _root(self) -> float:
        """A first bound of everything, by triangle inequalities where they are at hand."""
        self._offer(polished(self.problem, np.ones((1, self.problem.size))))
        bound = -math.inf
        if CUT_SIZES[0] <= self.problem.size <= CUT_SIZES[1] and importlib.util.find_spec("cvxpy") is not None:
            for point in shor(self.problem, "clarabel", cuts=8):
                self._offer(self._roundings(self.problem, point.vectors))
                bound = max(bound, point.raw)
                if self._closed(self.problem, bound) or time.perf_counter() > self.deadline:
                    break
        return bound

    def _look(
        self, part: Problem, free: NDArray[np.int64], signs: Array, above: float
    ) -> tuple[list[tuple[int, float]], float]:
        """How to branch on a part, (weight, sign) with the better last, or nothing; and the bound proved for it."""
        if part.size <= LEAF:
            weights, _, proved = enumerated(part)
            self._offer(self._whole(signs, free, weights[None]))
            return [], max(above, proved)
        if self._closed(part, above):
            return [], above
        self.nodes += 1
        for point in relax(part, 1e-3):
            found = self._roundings(part, point.vectors, 10)
            self._offer(self._whole(signs, free, found))
            above = max(above, point.raw)
            if self._closed(part, above):
                return [], above
        means = point.vectors[1:] @ point.vectors[0]
        sizes = np.linalg.norm(part.homogeneous[1:], axis=1)
        index = int((sizes * (1.0 - means * means)).argmax())
        likely = 1.0 if means[index] >= 0 else -1.0
        return [(index, -likely), (index, likely)], above

    def _closed(self, part: Problem, bound: float) -> bool:
        if part.lattice is not None:
            bound = part.lattice.at_least(bound)
        return bound >= self.value - self.tolerance * abs(self.value)

    @staticmethod
    def _roundings(part: Problem, vectors: Array, count: int = 50) -> Array:
        return polished(part, rounded(vectors, count, "homogeneous", np.random.default_rng(0)))

    @staticmethod
    def _whole(signs: Array, free: NDArray[np.int64], found: Array) -> Array:
        weights = np.repeat(signs[None], len(found), axis=0)
        weights[:, free] = found
        return weights

    def _offer(self, candidates: Array) -> None:
        points = np.concatenate([np.ones((len(candidates), 1)), candidates], axis=1)
        values = ((points @ self.problem.homogeneous) * points).sum(1)
        best = int(values.argmin())
        if values[best] < self.value:
            self.weights, self.value = candidates[best], float(values[best])


def fixed_to(problem: Problem, index: int, sign: float) -> Problem:
    """The problem of the other weights once one of them is `sign`: that row joins the homogeneous coordinate's."""
    matrix = problem.homogeneous
    at, kept = index + 1, np.delete(np.arange(len(matrix)), index + 1)
    smaller = matrix[np.ix_(kept, kept)].copy()
    joined = matrix[0, kept] + sign * matrix[at, kept]
    joined[0] = matrix[0, 0] + 2 * sign * matrix[0, at] + matrix[at, at]
    smaller[0], smaller[:, 0] = joined, joined
    if problem.lattice is not None:
        return Problem(smaller, problem.unit, 0.0)  # sums of integers: exact
    lost = 8 * UNIT * float(np.abs(matrix[0]).sum() + np.abs(matrix[at]).sum())
    return Problem(smaller, problem.unit, problem.slack + lost)


def enumerated(problem: Problem) -> tuple[Array, float, float]:
    """Weights with the least zᵀ C z of all, that value, and a proved lower bound of it, in units of C.

    The first half of the weights takes all its signs in rows, the second in columns: one product of matrices for each
    block of rows gives all objectives.
    """
    matrix = problem.homogeneous
    low = problem.size // 2
    first = np.concatenate([np.ones((2 ** (problem.size - low), 1)), all_signs(problem.size - low)], axis=1)
    second = all_signs(low)
    split = first.shape[1]
    own = ((first @ matrix[:split, :split]) * first).sum(1)
    others = ((second @ matrix[split:, split:]) * second).sum(1)
    across = 2 * matrix[:split, split:] @ second.T
    least, best = math.inf, (0, 0)
    rows = max(1, 2**20 // len(second))
    for begin in range(0, len(first), rows):
        values = first[begin : begin + rows] @ across + own[begin : begin + rows, None] + others
        at = int(values.argmin())
        if values.flat[at] < least:
            least, best = float(values.flat[at]), (begin + at // len(second), at % len(second))
    weights = np.concatenate([first[best[0], 1:], second[best[1]]])
    # each value is a sum of products with ±1, in some order: at most N² operations on a path, far fewer in truth
    error = 2 * (2 * len(matrix) + 8) * UNIT * float(np.abs(matrix).sum())
    if problem.lattice is not None:
        error = 0.0
    return weights, least, math.nextafter(least - error - problem.slack * (1 + 8 * UNIT), -math.inf)


def all_signs(count: int) -> Array:
    """Every ±1 vector of `count` entries, (2^count, count)."""
    bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    return np.where(bits == 1, 1.0, -1.0)
