"""The operations of `varbnn.kernels.plain`, computed by the compiled CPU library."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.kernels import native, plain
from varbnn.kernels.checks import result
from varbnn.kernels.compiled_bits import draw, pack_signs, relax, sample_blocks
from varbnn.kernels.compiled_places import conv, predictive

__all__ = ["conv", "draw", "linear", "linear_int8", "pack_signs", "predictive", "relax", "sample_blocks"]

INT8_INPUTS = 2**24
"""Sums of more 8-bit products could overflow 32 bits."""


def linear(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """activation((values · weight) · scale + shift) for each of S networks."""
    if values.dtype == torch.int32:
        return _product("varbnn_cpu_linear_signs", values, weight, in_features, out_features, scale, shift, activation)
    return _product("varbnn_cpu_linear", values, weight, in_features, out_features, scale, shift, activation)


def linear_int8(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """As `linear`, with each row of real `values` rounded to 8 bits by its largest magnitude; integers are exact."""
    if in_features > INT8_INPUTS:
        return plain.linear_int8(values, weight, in_features, out_features, scale, shift, activation)
    return _product("varbnn_cpu_linear_int8", values, weight, in_features, out_features, scale, shift, activation)


def _product(
    function: str,
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    shape, dtype = result("linear", values, weight, in_features, out_features, activation)
    out = values.new_empty(shape, dtype=dtype)
    own_values, rows, _ = values.shape
    status = getattr(native.library(), function)(
        native.pointer(values),
        own_values > 1,
        native.pointer(weight),
        weight.shape[0],
        rows,
        in_features,
        out_features,
        native.pointer(scale),
        scale is not None and scale.shape[0] > 1,
        native.pointer(shift),
        shift is not None and shift.shape[0] > 1,
        native.ACTIVATIONS[activation],
        native.pointer(out),
        native.threads(),
    )
    native.check(status, "activations")
    return out
