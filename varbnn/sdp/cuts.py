"""Clique inequalities: what any three or five signs satisfy and a relaxation need not.

Of an odd number k of ±1 numbers the sum is at least 1 in size, so Σ_{i<j} z_i z_j ≥ -(k - 1) / 2, and the same after
any sign changes. For k = 3 these are the triangle inequalities, for k = 5 the pentagonal ones. Added to the
relaxation as cutting planes they close most small gaps (Barahona, Mahjoub 1986; Helmberg, Rendl 1998).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from varbnn.sdp.arguments import Array
from varbnn.sdp.problem import UNDERFLOW, UNIT

PENTAGONS = 45
"""The largest N for which all sets of five are looked at."""

WIDTH = 5
PAIRS = tuple(itertools.combinations(range(WIDTH), 2))


@dataclass(frozen=True)
class Cuts:
    """Inequalities Σ_{i<j in a set} s_i s_j M_ij ≥ -(k - 1) / 2, each with a multiplier μ ≥ 0.

    Attributes:
        members: the set of each, in ascending order, (t, 5); 0 is the homogeneous coordinate.
        signs: s of each member, ±1, (t, 5); 0 for the last two places of a triangle, whose members do not count.
        multipliers: μ of each, (t,); any numbers ≥ 0 make a valid bound.
    """

    members: NDArray[np.int64]
    signs: Array
    multipliers: Array

    @staticmethod
    def none() -> Cuts:
        return Cuts(np.zeros((0, WIDTH), np.int64), np.zeros((0, WIDTH)), np.zeros(0))

    def __len__(self) -> int:
        return len(self.members)

    @property
    def least(self) -> Array:
        """-(k - 1) / 2 of each."""
        return -(np.abs(self.signs).sum(1) - 1) / 2

    @property
    def price(self) -> float:
        """Σ μ (k - 1) / 2: what the multipliers cost a bound."""
        return math.fsum(-self.least * self.multipliers)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Rows, columns and signs (0 for pairs that do not count) of the entries of M that each adds up, (t, 10)."""
        first, second = (list(side) for side in zip(*PAIRS, strict=True))
        return self.members[:, first], self.members[:, second], self.signs[:, first] * self.signs[:, second]

    def with_multipliers(self, multipliers: Array) -> Cuts:
        return Cuts(self.members, self.signs, np.maximum(multipliers, 0.0))

    def active(self, least: float = 1e-7) -> Cuts:
        """Those that matter."""
        kept = self.multipliers > least * self.multipliers.max(initial=0.0)
        return Cuts(self.members[kept], self.signs[kept], self.multipliers[kept])

    def joined(self, other: Cuts) -> Cuts:
        return Cuts(
            np.concatenate([self.members, other.members]),
            np.concatenate([self.signs, other.signs]),
            np.concatenate([self.multipliers, other.multipliers]),
        )

    def subtracted(self, matrix: Array) -> tuple[Array, float]:
        """C - Σ μ_t A_t with A_t the symmetric matrix of an inequality, and what its rounding can change of zᵀ · z.

        For ±1 vectors zᵀ A_t z ≥ -(k - 1) / 2, so zᵀ C z ≥ zᵀ (C - Σ μ_t A_t) z - `price`.
        """
        rows, columns, signs = self.pairs()
        added, sizes, times = np.zeros_like(matrix), np.zeros_like(matrix), np.zeros(matrix.shape)
        np.add.at(added, (rows, columns), signs * (self.multipliers / 2)[:, None])
        np.add.at(sizes, (rows, columns), np.abs(signs) * (self.multipliers / 2)[:, None])
        np.add.at(times, (rows, columns), np.abs(signs))
        touched = float((np.abs(matrix) + sizes)[times > 0].sum())
        error = 4 * (float(times.max(initial=0.0)) + 2) * UNIT * touched + matrix.size * UNDERFLOW
        return matrix - added - added.T, error


def violated(moments: Array, most: int = 250, least: float = 1e-3) -> Cuts:
    """Inequalities that M violates by `least` or more, the worst first: triangles, or where they are few pentagons too.

    At most `most` of them.
    """
    found = _violated(moments, most, least, 3)
    if len(found) < most // 3 and WIDTH <= len(moments) <= PENTAGONS:
        found = found.joined(_violated(moments, most - len(found), least, WIDTH))
    return found


def _violated(moments: Array, most: int, least: float, width: int) -> Cuts:
    """Of sets of `width` members, those with the smallest one in common at a time."""
    pairs = list(itertools.combinations(range(width), 2))
    kinds = np.array([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=width - 1)])
    of_pairs = np.stack([kinds[:, a] * kinds[:, b] for a, b in pairs])
    members, signs, amounts = [np.zeros((0, width), np.int64)], [np.zeros((0, width))], [np.zeros(0)]
    for i in range(len(moments) - width + 1):
        others = _subsets(len(moments) - i - 1, width - 1) + i + 1
        sets = np.concatenate([np.full((len(others), 1), i), others], axis=1)
        values = np.stack([moments[sets[:, a], sets[:, b]] for a, b in pairs], axis=1) @ of_pairs + (width - 1) / 2
        at, kind = np.nonzero(values < -least)
        members.append(sets[at])
        signs.append(kinds[kind])
        amounts.append(values[at, kind])
    worst = np.argsort(np.concatenate(amounts), kind="stable")[:most]
    filling = ((0, 0), (0, WIDTH - width))
    return Cuts(
        np.pad(np.concatenate(members)[worst], filling),
        np.pad(np.concatenate(signs)[worst], filling),
        np.zeros(len(worst)),
    )


def _subsets(count: int, size: int) -> NDArray[np.int64]:
    """All sets of `size` of the numbers below `count`, each in ascending order."""
    if size == 2:
        return np.stack(np.triu_indices(count, 1), axis=1)
    flat = itertools.chain.from_iterable(itertools.combinations(range(count), size))
    return np.fromiter(flat, np.int64).reshape(-1, size)
