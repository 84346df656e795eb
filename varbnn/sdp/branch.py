"""The optimum itself: all sign vectors at once for few weights, branch and bound over relaxations for more."""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from varbnn.sdp.arguments import Array
from varbnn.sdp.bound import bound_in_units
from varbnn.sdp.cuts import Cuts
from varbnn.sdp.exact import shor
from varbnn.sdp.low_rank import relax
from varbnn.sdp.problem import UNIT, Problem
from varbnn.sdp.rounding import polished, rounded

ENUMERATED = 24
"""Up to this many weights all sign vectors are tried."""

LEAF = 22
"""Within branch and bound, where so many are left they are tried at once: cheaper than a relaxation."""

CUT_ROUNDS, CUTS = 10, 400
"""Of clique inequalities at the root: rounds at most, and how many in each."""

CUT_SIZES = (25, 45)
"""Between these the root gets clique inequalities, where cvxpy is there to solve it."""


@dataclass(frozen=True)
class Part:
    """What is left to search once some weights are fixed.

    Attributes:
        problem: in the weights that are left.
        lifted: the same with the inequalities of the root subtracted: its bounds hold for `problem` and are
            better; its objectives mean nothing.
        free: which weights are left.
        fixed: all weights, ±1 where they are fixed.
        bound: proved, in units of C.
    """

    problem: Problem
    lifted: Problem
    free: NDArray[np.int64]
    fixed: Array
    bound: float

    def child(self, index: int, sign: float, bound: float) -> Part:
        moved = self.fixed.copy()
        moved[self.free[index]] = sign
        smaller = fixed_to(self.problem, index, sign)
        lifted = smaller if self.lifted is self.problem else fixed_to(self.lifted, index, sign)
        return Part(smaller, lifted, np.delete(self.free, index), moved, bound)

    def whole(self, found: Array) -> Array:
        """All weights, from those that are left."""
        weights = np.repeat(self.fixed[None], len(found), axis=0)
        weights[:, self.free] = found
        return weights


@dataclass
class Search:
    """Branch and bound, depth first, on one problem; numbers are in units of its C.

    Attributes:
        tolerance: a part of the tree is left once it is proved to hold nothing better by more than this, relative to
            the best value.
        deadline: by `time.perf_counter`; what is open then only weakens the bound.
        weights, value: the best ±1 vector so far.
        bound: proved for all parts left so far.
        complete: whether no part is open that may hold something better by more than the tolerance.
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
        first = bound_in_units(self.problem, np.diag(self.problem.homogeneous))
        stack = [Part(self.problem, self.problem, np.arange(size), np.zeros(size), first)]
        current = first  # proved for what is being looked at, on the stack or not
        self._offer(polished(self.problem, np.ones((1, size))))
        try:
            stack[0] = self._with_cuts(stack[0])
            while stack and time.perf_counter() < self.deadline:
                current = stack[-1].bound
                children, proved = self._look(stack[-1])
                del stack[-1]
                stack += children
                if not children:
                    self.bound = min(self.bound, proved)
        except KeyboardInterrupt:
            self.bound = min(self.bound, current)
            self.complete = False
        self.complete = self.complete and all(self._closed(part, part.bound) for part in stack)
        self.bound = min([self.bound, *(part.bound for part in stack)])

    def _with_cuts(self, root: Part) -> Part:
        """The root with clique inequalities, where they are at hand."""
        if not CUT_SIZES[0] <= self.problem.size <= CUT_SIZES[1] or importlib.util.find_spec("cvxpy") is None:
            return root
        for point in shor(self.problem, "clarabel", CUT_ROUNDS, CUTS):
            self._offer(self._roundings(self.problem, point.vectors))
            gained = point.raw - root.bound
            if gained > 0:
                root = replace(root, bound=point.raw, lifted=lifted(self.problem, point.cuts))
            stalled = gained < 0.05 * (self.value - root.bound)
            if stalled or self._closed(root, root.bound) or time.perf_counter() > self.deadline:
                break
        return root

    def _look(self, part: Part) -> tuple[list[Part], float]:
        """The parts that a part falls into, the better last, or none; and the bound proved for it."""
        if part.problem.size <= LEAF:
            weights, _, proved = enumerated(part.problem)
            self._offer(part.whole(weights[None]))
            return [], max(part.bound, proved)
        proved = part.bound
        if self._closed(part, proved):
            return [], proved
        self.nodes += 1
        for point in relax(part.lifted, 1e-3):
            self._offer(part.whole(self._roundings(part.problem, point.vectors, 10)))
            proved = max(proved, point.raw)
            if self._closed(part, proved):
                return [], proved
        means = point.vectors[1:] @ point.vectors[0]
        sizes = np.linalg.norm(part.problem.homogeneous[1:], axis=1)
        index = int((sizes * (1.0 - means * means)).argmax())
        likely = 1.0 if means[index] >= 0 else -1.0
        return [part.child(index, -likely, proved), part.child(index, likely, proved)], proved

    def _closed(self, part: Part, bound: float) -> bool:
        if part.problem.lattice is not None:
            bound = part.problem.lattice.at_least(bound)
        return bound >= self.value - self.tolerance * abs(self.value)

    @staticmethod
    def _roundings(part: Problem, vectors: Array, count: int = 50) -> Array:
        return polished(part, rounded(vectors, count, "homogeneous", np.random.default_rng(0)))

    def _offer(self, candidates: Array) -> None:
        points = np.concatenate([np.ones((len(candidates), 1)), candidates], axis=1)
        values = ((points @ self.problem.homogeneous) * points).sum(1)
        best = int(values.argmin())
        if values[best] < self.value:
            self.weights, self.value = candidates[best], float(values[best])


def lifted(problem: Problem, cuts: Cuts) -> Problem:
    """The problem whose bounds are those of `problem` with multipliers for inequalities."""
    matrix, error = cuts.subtracted(problem.homogeneous)
    price = cuts.price * (1 + 4 * UNIT)
    return Problem(matrix, problem.unit, (problem.slack + error + price) * (1 + 4 * UNIT))


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
