"""What a count, a seed or a strength has to be: one rule and one wording for all of them."""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real

import numpy as np
import torch

from varbnn.errors import InputError


def whole_number(name: str, value: object, least: int = 1, most: int | None = None, *, note: str = "") -> int:
    """`value` as a Python int from `least` to `most`; numpy's and torch's integers are taken, bools and 3.0 are not.

    Args:
        name: of the argument, for the message.
        least, most: the bounds, both allowed.
        note: what else the message says of the bounds.

    Raises:
        InputError: anything else.

    >>> whole_number("epochs", 3)
    3
    >>> whole_number("num_samples", True, least=0, note=" (0 is the mode)")
    Traceback (most recent call last):
    varbnn.errors.InputError: num_samples must be a whole number ≥ 0 (0 is the mode), got True
    """
    number = _plain(value)
    if not isinstance(number, int) or number < least or (most is not None and number > most):
        bounds = f"≥ {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number {bounds}{note}, got {value!r}")
    return number


def finite_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    note: str = "",
) -> float:
    """`value` as a finite Python float; numpy's and torch's numbers are taken, bools are not.

    Args:
        name, note: as for `whole_number`.
        above: what it must be larger than.
        least, most: the bounds, both allowed.

    Raises:
        InputError: anything else.

    >>> finite_number("budget", 1, above=0, most=1)
    1.0
    >>> finite_number("budget", 2.5, above=0, most=1)
    Traceback (most recent call last):
    varbnn.errors.InputError: budget must be a finite number > 0 and ≤ 1, got 2.5
    """
    number = _plain(value)
    finite = number is not None and abs(number) <= sys.float_info.max
    if number is None or not finite or not number > above or not least <= number <= most:
        signs = (">", above), ("≥", least), ("≤", most)
        bounds = " and ".join(f"{sign} {bound:.16g}" for sign, bound in signs if math.isfinite(bound))
        raise InputError(f"{name} must be {f'a finite number {bounds}'.rstrip()}{note}, got {value!r}")
    return float(number)


def optional_generator(generator: object) -> None:
    """Raise InputError unless `generator` is one of torch's, or None.

    >>> optional_generator(0)
    Traceback (most recent call last):
    varbnn.errors.InputError: generator must be a torch.Generator or None, got 0; a seed makes one: torch.Generator()...
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator must be a torch.Generator or None, got {generator!r}; a seed makes one: "
            "torch.Generator().manual_seed(0)"
        )


def _plain(value: object) -> int | float | None:
    """A number out of numpy's or torch's hands; None for what is no number, or a bool."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None
