"""Convolutions and the predictive layer by the compiled CPU library, with the signatures of `varbnn.kernels.plain`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from varbnn.kernels.checks import result
from varbnn.kernels.native import ACTIVATIONS, check, library, pointer, threads


def conv(
    values: Tensor,
    weight: Tensor,
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str,
) -> Tensor:
    """As `varbnn.kernels.plain.conv`; one and two dimensions of space are three with sizes of 1 in front."""
    shape, dtype = result(
        "conv", values, weight, in_channels, out_channels, kernel, stride, padding, dilation, groups, activation
    )
    out = values.new_empty(shape, dtype=dtype)
    ones = [1] * (3 - len(kernel))
    sizes = [len(weight), *values.shape[:2], in_channels, out_channels, groups]
    for part in (values.shape[2:-1], shape[2:-1], kernel, stride):
        sizes += [*ones, *part]
    sizes += [*[0] * len(ones), *padding[::2], *ones, *dilation]
    status = library().varbnn_cpu_conv(
        pointer(values),
        values.dtype == torch.int32,
        pointer(weight),
        pointer(scale),
        scale is not None and len(scale) > 1,
        pointer(shift),
        shift is not None and len(shift) > 1,
        pointer(out),
        ACTIVATIONS[activation],
        (ctypes.c_int64 * len(sizes))(*sizes),
        threads(),
    )
    check(status, "activations")
    return out


def predictive(
    values: Tensor,
    weight: Tensor,
    in_features: int,
    out_features: int,
    scale: Tensor | None,
    shift: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `varbnn.kernels.plain.predictive`, for a few rows at a time: their logits are all that is held."""
    rows = values.shape[1]
    mean = values.new_empty((rows, out_features), dtype=torch.float32)
    entropy = values.new_empty((rows,), dtype=torch.float32)
    own = [tensor is not None and len(tensor) > 1 for tensor in (scale, shift)]
    sizes = [len(weight), values.shape[0], rows, in_features, out_features, *own]
    status = library().varbnn_cpu_predictive(
        pointer(values),
        values.dtype == torch.int32,
        pointer(weight),
        pointer(scale),
        pointer(shift),
        pointer(mean),
        pointer(entropy),
        (ctypes.c_int64 * len(sizes))(*sizes),
        threads(),
    )
    check(status, "activations")
    return mean, entropy
