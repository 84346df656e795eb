"""What shows that inputs are in other units than those of training: bytes for shares of 0 … 1, or the reverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from varbnn.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Units:
    """What training inputs show of their units.

    Attributes:
        low, high: the lowest and the highest value.
        whole: all are whole numbers.
        images: they are images, so that all numbers of an input have one unit.
    """

    low: float
    high: float
    whole: bool
    images: bool

    @classmethod
    def of(cls, inputs: Array, images: bool) -> Units:
        """Those of one input or more."""
        whole = inputs.dtype.kind in "biu" or bool((inputs == np.rint(inputs)).all())
        return cls(float(inputs.min()), float(inputs.max()), whole, images)

    def require_same(self, inputs: Array, where: str) -> None:
        """Raise InputError where either holds shares of 0 … 1 and the other larger numbers, none negative.

        Whole numbers up to 1 pass, as black images of bytes must. In tables the larger numbers must be whole.

        >>> Units(0, 255, True, images=True).require_same(np.array([[0.0, 0.5]]), "x")
        Traceback (most recent call last):
        varbnn.errors.InputError: x has values 0 … 0.5, but the training inputs 0 … 255; give both in the same units
        >>> Units(0, 255, True, images=True).require_same(np.array([[0.0, 1.0]]), "x")
        """
        given = Units.of(inputs, self.images)
        small, large = (given, self) if given.high < self.high else (self, given)
        if small.low < 0 or large.low < 0 or not small.high <= 1 or not large.high > 2:
            return
        shares = not small.whole
        if (shares or small is self) if self.images else (shares and large.whole):
            raise InputError(
                f"{where} has values {given.low:g} … {given.high:g}, but the training inputs {self.low:g} … "
                f"{self.high:g}; give both in the same units"
            )
