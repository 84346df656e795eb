"""What the functions take as numbers: all of it as float64, nothing of it rounded on the way."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from varbnn.checks import whole_number
from varbnn.errors import InputError

Array = NDArray[np.float64]

EXACT = 2.0**53
"""Up to here float64 holds every whole number."""


def finite(what: str, values: Any, *dimensions: int) -> Array:
    """`values` as a float64 array.

    Args:
        what: for messages.
        values: an array, a tensor, a nested list.
        *dimensions: how many it may have.

    Raises:
        InputError: another number of dimensions, NaN, infinite or complex entries, or numbers that float64 cannot hold:
            a bound that is proved for rounded ones is none for those given.
    """
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            values = values.double() if values.is_floating_point() else values
        given = np.asarray(values)
        if given.dtype.kind in "cSU":
            raise TypeError(f"got {given.dtype}")
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{what} must be an array of real numbers ({error})") from None
    if array.ndim not in dimensions:
        allowed = " or ".join(map(str, dimensions))
        raise InputError(f"{what} must have {allowed} dimension{'s' * (dimensions != (1,))}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} has NaN or infinite entries")
    if _rounded(given, array):
        raise InputError(
            f"{what} has numbers that float64 cannot hold, such as whole ones beyond 2**53; round them first"
        )
    return array


def _rounded(given: NDArray[Any], array: Array) -> bool:
    if given.dtype.kind in "iu":
        large = np.abs(array) >= EXACT
        return given[large].tolist() != [int(number) for number in array[large].tolist()]
    if given.dtype.kind == "O":
        return bool(given.ravel().tolist() != array.ravel().tolist())
    return given.dtype.itemsize > 8 and bool((given != array).any())


def real(what: str, value: Any, least: float = -math.inf, below: float = math.inf) -> float:
    """`value` as a finite number, ≥ `least` and < `below`.

    Raises:
        InputError: it is none, or one that float64 cannot hold.
    """
    number, given = _float(what, value)
    if not (math.isfinite(number) and least <= number < below):
        bounds = ["finite"] + [f"≥ {least:g}"] * (least > -math.inf) + [f"< {below:g}"] * (below < math.inf)
        raise InputError(f"{what} must be {', '.join(bounds)}, got {value!r}")
    if number != given:
        raise InputError(f"{what} must be a number that float64 can hold, got {value!r}; round it first")
    return number


def _float(what: str, value: Any) -> tuple[float, Any]:
    """`value` in float64, and as it was given."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        given = value.item() if isinstance(value, np.generic | np.ndarray | torch.Tensor) else value
        return float(given), given
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"{what} must be a real number, got {value!r}") from None


def positive(what: str, value: Any, most: float = math.inf) -> float:
    """`value` as a positive number, ≤ `most`.

    Raises:
        InputError: it is none.
    """
    number, _ = _float(what, value)
    if not 0 < number <= most:
        raise InputError(f"{what} must be a positive number, got {value!r}")
    return number


def least(what: str, value: Any, bound: float) -> float:
    """`value` as a number ≥ `bound`, which may be infinite.

    Raises:
        InputError: it is none.
    """
    number, _ = _float(what, value)
    if not number >= bound:
        raise InputError(f"{what} must be ≥ {bound:g}, got {value!r}")
    return number


def require_draws(num_roundings: Any, seed: Any, tolerance: Any) -> tuple[int, int, float]:
    """The options of a relaxation that is rounded, in plain values.

    Raises:
        InputError: one out of range.
    """
    positive("tolerance", tolerance, sys.float_info.max)
    return whole_number("num_roundings", num_roundings), whole_number("seed", seed, 0), float(tolerance)
