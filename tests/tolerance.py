"""How far a Monte-Carlo mean may be from what it should be: measured in its own standard errors."""

from __future__ import annotations

import numpy as np


def assert_within_standard_errors(mean, expected, stderr, z: float = 5.0) -> None:
    """Fail where |mean − expected| > z · stderr, naming the worst entry.

    Arguments are numbers, arrays or tensors and are broadcast. With z = 5 a single correct Gaussian entry fails by
    chance about once in 2 million runs; take a larger z for many thousands of entries. A standard error of exactly
    zero asks for equality, NaN anywhere fails.

    >>> assert_within_standard_errors([0.1, 0.2], 0.0, stderr=0.05)
    >>> assert_within_standard_errors([0.1, 0.2], 0.0, stderr=0.01)
    Traceback (most recent call last):
    AssertionError: 0.2 is 20 standard errors from 0 at index (1,), allowed 5 (2 of 2 entries outside)
    """
    mean, expected, stderr = np.broadcast_arrays(*(_float64(x) for x in (mean, expected, stderr)))
    outside = ~(np.abs(mean - expected) <= z * stderr)  # negated, so that NaN counts as outside
    if not outside.any():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(outside, np.abs(mean - expected) / stderr, -1.0)
    worst = np.unravel_index(np.nanargmax(np.where(np.isnan(errors), np.inf, errors)), errors.shape)
    raise AssertionError(
        f"{mean[worst]:.6g} is {errors[worst]:.3g} standard errors from {expected[worst]:.6g} at index "
        f"{tuple(int(i) for i in worst)}, allowed {z:g} ({outside.sum()} of {outside.size} entries outside)"
    )


def standard_error(samples, axis: int = 0) -> np.ndarray:
    """Standard error of the mean of independent samples along `axis`."""
    samples = _float64(samples)
    return samples.std(axis=axis, ddof=1) / np.sqrt(samples.shape[axis])


def _float64(values) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
