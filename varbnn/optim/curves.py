"""Curves: the value of a hyper-parameter as a function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from varbnn.checks import finite_number, whole_number
from varbnn.errors import InputError


class Curve(ABC):
    """A hyper-parameter over time: the number of the step → its value. Step 0 is the first."""

    @property
    def landmarks(self) -> tuple[int, ...]:
        """Steps whose values a rule can check before training starts; where the curve ends, they bound all others."""
        return (0,)

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at `step`, counted from 0."""


@dataclass(frozen=True)
class Constant(Curve):
    """Always `value`.

    Raises:
        InputError: `value` is no finite number.

    >>> Constant(0.1)(1000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite_number("value", self.value))

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class _Ramp(Curve):
    """From `start` at step 0 to `end` at step `steps` and ever after, never outside the two."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", finite_number("start", self.start))
        object.__setattr__(self, "end", finite_number("end", self.end))
        steps = whole_number("steps", self.steps, note=" (how many steps the way from start to end takes)")
        object.__setattr__(self, "steps", steps)

    @property
    def landmarks(self) -> tuple[int, ...]:
        return (0, self.steps)

    def __call__(self, step: int) -> float:
        # the ends as they were given: formed, they would be off in the last bit
        return self.start if step <= 0 else self.end if step >= self.steps else self._between(step / self.steps)

    @abstractmethod
    def _between(self, part: float) -> float:
        """The value when `part` of the way is gone."""


@dataclass(frozen=True)
class Linear(_Ramp):
    """Straight from `start` to `end`.

        start + (end - start) · t / steps,   and end from t = steps on

    Args:
        start: value at step 0.
        end: value at step `steps` and after it; it may be the larger one.
        steps: at least 1.

    Raises:
        InputError: start or end is no finite number, or steps no whole number ≥ 1.

    >>> curve = Linear(1e-5, 1e-8, steps=4)
    >>> [f"{curve(t):.1e}" for t in range(6)]
    ['1.0e-05', '7.5e-06', '5.0e-06', '2.5e-06', '1.0e-08', '1.0e-08']
    """

    def _between(self, part: float) -> float:
        return self.start + (self.end - self.start) * part


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Half a cosine from `start` to `end`: flat at both ends (Loshchilov & Hutter 2017, without restarts).

        start + (end - start) · (1 - cos(π t / steps)) / 2,   and end from t = steps on

    Args:
        start, end, steps: as for `Linear`. torch's CosineAnnealingLR would rise again after `steps`; this stays.

    Raises:
        InputError: start or end is no finite number, or steps no whole number ≥ 1.

    >>> curve = Cosine(1.0, 0.0, steps=4)
    >>> [round(curve(t), 4) for t in range(6)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    def _between(self, part: float) -> float:
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class Exponential(_Ramp):
    """By the same factor at every step, from `start` to `end`: a straight line on a logarithmic scale.

        start · (end / start) ^ (t / steps),   and end from t = steps on

    Args:
        start, end, steps: as for `Linear`, start and end both positive.

    Raises:
        InputError: start or end is not positive and finite, or steps no whole number ≥ 1.

    >>> curve = Exponential(1e-2, 1e-6, steps=4)
    >>> [f"{curve(t):.0e}" for t in range(6)]
    ['1e-02', '1e-03', '1e-04', '1e-05', '1e-06', '1e-06']
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("start", self.start), ("end", self.end)):
            if value <= 0:
                raise InputError(f"{name} must be positive, got {value!r}; to reach 0 use Linear or Cosine")

    def _between(self, part: float) -> float:
        return float(self.start * (self.end / self.start) ** part)


@dataclass(frozen=True)
class Staircase(Curve):
    """Times `factor` after every `every` steps, without end.

        start · factor ^ ⌊t / every⌋

    Args:
        start: value of the first `every` steps.
        factor: positive; below 1 goes down.
        every: length of a stair in steps, at least 1.

    Raises:
        InputError: start is no finite number, factor is not positive and finite, or every no whole number ≥ 1.

    >>> curve = Staircase(1e-4, 0.1, every=2)
    >>> [f"{curve(t):.0e}" for t in range(6)]
    ['1e-04', '1e-04', '1e-05', '1e-05', '1e-06', '1e-06']
    """

    start: float
    factor: float
    every: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", finite_number("start", self.start))
        factor = finite_number("factor", self.factor, above=0, note=" (below 1 goes down, above 1 up)")
        object.__setattr__(self, "factor", factor)
        every = whole_number("every", self.every, note=" (how many steps a stair is long)")
        object.__setattr__(self, "every", every)

    @property
    def landmarks(self) -> tuple[int, ...]:
        return (0, self.every)

    def __call__(self, step: int) -> float:
        try:
            return float(self.start * self.factor ** (step // self.every))
        except OverflowError:
            raise InputError(f"{self} is beyond all numbers at step {step}; take a factor nearer to 1") from None
