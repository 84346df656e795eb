"""Values that a quadratic in integers can take: with z = (1, w) of ±1, zᵀ C z moves in steps of four.

Flipping one sign changes the sum of all C_ij z_i z_j by a multiple of 4 gcd(C_ij, i < j). A proved bound may thus be
raised to the next value on that lattice, which closes many a gap outright. All of it is exact: floating-point numbers
are integers times a power of two, and the arithmetic here is that of Python's integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

BITS = 52
"""Sums of integers below 2^BITS are exact in float64, in any order."""


@dataclass(frozen=True)
class Lattice:
    """The numbers base + k · step for integers k; a step of 0 says that there is only one."""

    base: Fraction
    step: Fraction

    def at_least(self, value: float) -> float:
        """The largest float64 that is at most the first number of the lattice from `value` on."""
        if not math.isfinite(value):
            return value
        if self.step == 0:
            return _down(self.base)
        steps = math.ceil((Fraction(value) - self.base) / self.step)
        return _down(self.base + steps * self.step)


def lattice_of(matrix: NDArray[np.float64]) -> Lattice | None:
    """Where zᵀ C z lies for ±1 vectors z; None where the entries of C are not integers of moderate size times one unit.

    >>> values = lattice_of(np.array([[1.0, 0.5], [0.5, 3.0]]))  # 4 + z_1 z_2
    >>> values.at_least(3.5), values.at_least(2.0)
    (5.0, 3.0)
    """
    found = integers_of(matrix, float(np.abs(matrix).sum()))
    if found is None:
        return None
    whole, unit = found
    above = whole[np.triu_indices(len(whole), 1)]
    return Lattice(int(whole.sum()) * unit, 4 * int(np.gcd.reduce(above, initial=0)) * unit)


def integers_of(values: NDArray[np.float64], total: float) -> tuple[NDArray[np.int64], Fraction] | None:
    """`values` as integers times a power of two such that `total` is below 2^BITS of it; None where that fails."""
    if not 0 < total < math.inf:
        return (np.zeros(values.shape, np.int64), Fraction(1)) if total == 0 else None
    exponent = math.frexp(total)[1] - BITS
    if not -1000 < exponent < 900:
        return None
    scaled = np.ldexp(values, -exponent)
    whole = np.rint(scaled)
    if not np.array_equal(whole, scaled) or not np.array_equal(np.ldexp(whole, exponent), values):
        return None
    return whole.astype(np.int64), Fraction(2) ** exponent


def _down(value: Fraction) -> float:
    """The nearest float64 that is not larger."""
    try:
        near = float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.nextafter(math.inf, 0)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)
