"""What shows that inputs are in other units than those of training: bytes for shares of 0 … 1, or the reverse."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from varbnn.errors import InputError, VarbnnWarning

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
        """Raise InputError where one side holds shares of 0 … 1 and the other whole numbers from 0 to above 2.

        Whole numbers up to 1 are no shares: black images of bytes pass. Tables, whose columns may be anything, are
        warned of.

        >>> Units(0, 255, True, images=True).require_same(np.array([[0.0, 0.5]]), "x")
        Traceback (most recent call last):
        varbnn.errors.InputError: x: values 0 … 0.5, but the training inputs have 0 … 255; give both in the same units
        >>> Units(0, 255, True, images=True).require_same(np.array([[0.0, 1.0]]), "x")
        """
        given = Units.of(inputs, self.images)
        small, large = (given, self) if given.high < self.high else (self, given)
        if small.low < 0 or large.low < 0 or small.high > 1 or large.high <= 2 or small.whole or not large.whole:
            return
        told = (
            f"{where}: values {given.low:g} … {given.high:g}, but the training inputs have {self.low:g} … "
            f"{self.high:g}; give both in the same units"
        )
        if self.images:
            raise InputError(told)
        warnings.warn(told, VarbnnWarning, stacklevel=4)
