"""Triangle inequalities: what any three signs satisfy and a relaxation need not.

Of three ±1 numbers two are equal, so z_i z_j + z_i z_k + z_j z_k ≥ -1, and the same after any sign changes. Added to
the relaxation as cutting planes they close most small gaps (Barahona, Mahjoub 1986; Helmberg, Rendl 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from varbnn.sdp.problem import UNDERFLOW, UNIT, Array

SIGNS = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
"""Of the pairs (i, j), (i, k), (j, k): their product is 1."""

PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Cuts:
    """Triangle inequalities s_1 M_ij + s_2 M_ik + s_3 M_jk ≥ -1, each with a multiplier μ ≥ 0.

    Attributes:
        triples: i < j < k of each, (t, 3); 0 is the homogeneous coordinate.
        signs: s of each, (t, 3), each a row of `SIGNS`.
        multipliers: μ of each, (t,); any numbers ≥ 0 make a valid bound.
    """

    triples: NDArray[np.int64]
    signs: Array
    multipliers: Array

    @staticmethod
    def none() -> Cuts:
        return Cuts(np.zeros((0, 3), np.int64), np.zeros((0, 3)), np.zeros(0))

    def __len__(self) -> int:
        return len(self.triples)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Rows, columns and signs of the entries of M that each inequality adds up, (t, 3) each."""
        rows = np.stack([self.triples[:, a] for a, _ in PAIRS], axis=1)
        columns = np.stack([self.triples[:, b] for _, b in PAIRS], axis=1)
        return rows, columns, self.signs

    def with_multipliers(self, multipliers: Array) -> Cuts:
        return Cuts(self.triples, self.signs, np.maximum(multipliers, 0.0))

    def active(self, least: float = 1e-7) -> Cuts:
        """Those that matter."""
        kept = self.multipliers > least * self.multipliers.max(initial=0.0)
        return Cuts(self.triples[kept], self.signs[kept], self.multipliers[kept])

    def joined(self, other: Cuts) -> Cuts:
        return Cuts(
            np.concatenate([self.triples, other.triples]),
            np.concatenate([self.signs, other.signs]),
            np.concatenate([self.multipliers, other.multipliers]),
        )

    def subtracted(self, matrix: Array) -> tuple[Array, float]:
        """C - Σ μ_t A_t with A_t the symmetric matrix of an inequality, and what its rounding can change of zᵀ · z.

        For ±1 vectors zᵀ A_t z ≥ -1, so zᵀ C z ≥ zᵀ (C - Σ μ_t A_t) z - Σ μ_t.
        """
        rows, columns, signs = self.pairs()
        added, times = np.zeros_like(matrix), np.zeros(matrix.shape)
        np.add.at(added, (rows, columns), signs * (self.multipliers / 2)[:, None])
        np.add.at(times, (rows, columns), 1)
        touched = float(np.abs(matrix[times > 0]).sum())
        operations = float(times.max(initial=0.0)) + 2
        error = 2 * operations * UNIT * (2 * touched + 3 * math.fsum(self.multipliers))
        return matrix - added - added.T, error + matrix.size * UNDERFLOW


def violated(moments: Array, most: int = 150, least: float = 1e-3) -> Cuts:
    """The triangle inequalities that M violates by `least` or more, at most `most` of them, the worst first."""
    triples, signs, amounts = [], [], []
    for i in range(len(moments) - 2):
        j, k = np.triu_indices(len(moments) - i - 1, 1)
        j, k = j + i + 1, k + i + 1
        values = np.stack([moments[i, j], moments[i, k], moments[j, k]], axis=1) @ SIGNS.T
        at, kind = np.nonzero(values < -1 - least)
        triples.append(np.stack([np.full(len(at), i), j[at], k[at]], axis=1))
        signs.append(SIGNS[kind])
        amounts.append(values[at, kind])
    if not triples:
        return Cuts.none()
    worst = np.argsort(np.concatenate(amounts), kind="stable")[:most]
    return Cuts(np.concatenate(triples)[worst], np.concatenate(signs)[worst], np.zeros(len(worst)))
