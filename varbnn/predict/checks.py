"""What counts as probabilities, as labels, as real targets: refused here once, before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor
from varbnn.errors import InputError


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; everything else as it is, without a copy."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def tolerance_of(dtype: torch.dtype) -> float:
    """By how much a row may miss the sum of 1.

    1e-3 lets probabilities through that were rounded to four digits or came from float16; bfloat16 has three digits.
    Both stop logits, log-probabilities and unnormalised scores.
    """
    return 1e-2 if dtype == torch.bfloat16 else 1e-3


def are_probabilities(rows: Tensor) -> bool:
    """Whether all rows, along the last dimension, are distributions: logits never are by chance."""
    return bool((rows >= 0).all()) and bool(((rows.sum(-1) - 1).abs() < 1e-3).all())


def check_probability_rows(rows: Tensor, name: str, tolerance: float = 1e-3) -> None:
    """Refuse rows (N×C) that are not distributions over at least two classes, within `tolerance` on the sum.

    Raises:
        InputError: a value is not finite or negative, or a row does not sum to 1.
    """
    if not rows.isfinite().all():
        raise InputError(
            f"{name} holds NaN or inf; every probability must be finite. Look for a diverged network or a 0/0."
        )
    if (rows < 0).any():
        lowest = rows.min().item()
        raise InputError(f"{name} must be ≥ 0, got {lowest:.4g}. If these are logits, apply .softmax(-1) first.")
    error = (rows.sum(-1, dtype=torch.float64) - 1).abs()
    if (error > tolerance).any():
        worst = int(error.argmax())
        total = rows[worst].sum(dtype=torch.float64).item()
        raise InputError(
            f"{name} must sum to 1 over the classes (last axis, within {tolerance:g}), but row {worst} sums to "
            f"{total:.4g}. If these are logits, apply .softmax(-1) first."
        )


def as_probability_rows(values: Values | float, name: str = "probs") -> Tensor:
    """`values` as checked N×C probabilities of at least float32; N may be 0.

    Raises:
        InputError: not two-dimensional, not floating, fewer than two classes, or not distributions.

    >>> as_probability_rows([[2.0, -1.0]])
    Traceback (most recent call last):
    varbnn.errors.InputError: probs must be ≥ 0, got -1. If these are logits, apply .softmax(-1) first.
    """
    rows = as_tensor(values, name)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise InputError(
            f"{name} must be N×C (inputs × classes, C ≥ 2), got shape {tuple(rows.shape)}. Average samples first "
            "(Prediction.mean); write one probability p as the two columns 1 - p, p."
        )
    if not rows.is_floating_point():
        raise InputError(f"{name} must be floating point, got {rows.dtype}; call .float() on one-hot rows")
    given, rows = rows.dtype, at_least_float32(rows)
    check_probability_rows(rows, name, tolerance_of(given))
    if given != rows.dtype:
        rows /= rows.sum(1, keepdim=True)
    return rows


def as_labels(values: Values | float, num_inputs: int, num_classes: int, name: str = "targets") -> Tensor:
    """`values` as checked int64 class labels of shape N.

    Raises:
        InputError: floating or boolean, one-hot, of another length, or outside 0 … C-1.

    >>> as_labels([0, 2], num_inputs=2, num_classes=2)
    Traceback (most recent call last):
    varbnn.errors.InputError: targets must lie in 0 … 1 (2 classes), got 2. Number the classes from 0.
    """
    labels = as_tensor(values, name)
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        raise InputError(
            f"{name} must be N class labels, got shape {tuple(labels.shape)}. "
            f"If they are one-hot, pass {name}.argmax(1)."
        )
    if labels.ndim != 1 or len(labels) != num_inputs:
        raise InputError(f"{name} must have one label per input, shape ({num_inputs},), got {tuple(labels.shape)}")
    if num_inputs == 0:
        return labels.long()
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"{name} must be integer class labels, got {labels.dtype}; pass {name}.long() if the values are labels"
        )
    labels = labels.long()
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise InputError(
            f"{name} must lie in 0 … {num_classes - 1} ({num_classes} classes), got {int(outside[0])}. "
            "Number the classes from 0."
        )
    return labels


def as_real_targets(values: Values | float, shape: torch.Size, name: str = "targets") -> Tensor:
    """`values` as checked float64 targets of `shape`; N of them are taken for N×1, nothing else is broadcast.

    Raises:
        InputError: another shape, not numbers, NaN or inf.
    """
    targets = as_tensor(values, name)
    if (*targets.shape, 1) == tuple(shape):
        targets = targets.unsqueeze(-1)
    if targets.shape != shape:
        raise InputError(
            f"{name} must have the shape of one network's output, {tuple(shape)}, got {tuple(targets.shape)}; "
            "reshape them"
        )
    if targets.dtype == torch.bool or not targets.isfinite().all():
        raise InputError(
            f"{name} must be finite numbers, got {'bool' if targets.dtype == torch.bool else 'NaN or inf'}"
        )
    return targets.double()
