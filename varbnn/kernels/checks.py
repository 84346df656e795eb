"""Do the arguments of an operation fit together? Asked before anything is computed or allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from varbnn.bits import BLOCK, blocks, words
from varbnn.checks import require
from varbnn.errors import InputError

ACTIVATIONS = ("none", "relu", "sign")
LARGEST = 2**31 - 1
"""Largest dimension; the backends count bytes in 64 bits and elements of one dimension in 32."""

RELAXATIONS = (1e-30, 10.0)
"""Below float32 cannot hold what the compiled draw multiplies by, above it loses digits of small weights."""


def sampling(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> None:
    require(
        natural.dtype == torch.float32 and natural.dim() == 2,
        f"beliefs must be float32 of shape (outputs, inputs), got {natural.dtype} of shape {tuple(natural.shape)}",
    )
    _seed(seed, natural)
    _countable("beliefs", *natural.shape)
    require(0 <= layer < 2**31, f"layer must be at least 0 and below 2**31, got {layer}")
    require(
        first >= 0 and count >= 0 and first + count <= 2**32,
        f"samples must lie between 0 and 2**32, got first={first}, count={count}",
    )


def relaxing(natural: Tensor, seed: Tensor, relaxation: float) -> None:
    require(natural.dtype == torch.float32, f"beliefs must be float32, got {natural.dtype}")
    _seed(seed, natural)
    least, most = RELAXATIONS
    require(least <= relaxation <= most, f"relaxation must be between {least:g} and {most:g}, got {relaxation}")


def _seed(seed: Tensor, natural: Tensor) -> None:
    require(
        seed.dtype == torch.int64 and seed.numel() == 1 and seed.device == natural.device,
        f"seed must be one int64 on {natural.device}, got {seed.dtype} of shape {tuple(seed.shape)} on {seed.device}",
    )


def _countable(what: str, *sizes: int) -> None:
    # rounded up to whole words and tiles of up to 128 they must fit into 32 bits
    if max(sizes) > LARGEST - 127:
        raise InputError(f"{what} of shape {sizes} are too large for one operation")


def signs(values: Tensor) -> None:
    require(
        values.dtype == torch.float32 and values.dim() > 0,
        f"activations must be float32 with at least one dimension, got {values.dtype} of shape {tuple(values.shape)}",
    )
    _countable("rows of activations", values.shape[-1])


def result(
    name: str, values: Tensor, weight: Tensor, inputs: int, outputs: int, *options: Any
) -> tuple[tuple[Any, ...], torch.dtype]:
    """Shape and dtype of what a product gives; sizes may be symbolic."""
    activation = options[-1]
    width = words(outputs) if activation == "sign" else outputs
    space: tuple[Any, ...] = values.shape[2:-1]
    if name == "conv":
        kernel, stride, padding, dilation = options[:4]
        space = tuple(
            (size + padding[2 * d] + padding[2 * d + 1] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
            for d, size in enumerate(space)
        )
    dtype = torch.int32 if activation == "sign" else torch.float32
    return (weight.shape[0], values.shape[1], *space, width), dtype


def product(name: str, values: Tensor, weight: Tensor, inputs: int, outputs: int, *options: Any) -> bool:
    """Whether there is anything to compute: samples, rows and outputs.

    Raises:
        InputError: the arguments do not fit together.
    """
    kernel: Sequence[int] = ()
    groups = 1
    if name == "conv":
        kernel, groups = options[0], options[4]
        _conv(values, inputs, outputs, *options[:5])
    # messages are formed where they are needed only: a small product takes less time than they do
    if not (0 < inputs <= LARGEST and 0 <= outputs <= LARGEST):
        raise InputError(f"cannot multiply {inputs} inputs, {outputs} outputs")
    fan_in = inputs // groups * math.prod(kernel)
    if fan_in > LARGEST - 127:
        raise InputError(f"{fan_in} inputs of one output are too many for one operation")
    shape = (groups * blocks(outputs // groups), words(fan_in), BLOCK)
    own = weight.shape
    if not (weight.dtype == torch.int32 and len(own) == 4 and own[1:] == shape):
        raise InputError(
            f"{outputs} outputs of {fan_in} inputs take int32 blocks of shape (S, {', '.join(map(str, shape))}), "
            f"got {weight.dtype} of shape {tuple(own)}; see varbnn.bits.pack_blocks"
        )
    samples = own[0]
    _values(name, values, samples, inputs, len(kernel))
    tensors = {"weight": weight}
    if name == "predictive":
        scale, shift = options
        if samples == 0 or outputs == 0:
            raise InputError(f"a prediction needs at least one network and one class, got {samples} and {outputs}")
    else:
        scale, shift, activation = options[-3:]
        if activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")
    for what, tensor in (("scale", scale), ("shift", shift)):
        if tensor is None:
            continue
        tensors[what] = tensor
        if not (tensor.dtype == torch.float32 and _fits(tensor, samples, outputs)):
            raise InputError(
                f"{what} must be float32 of shape (1 or {samples}, {outputs}), got {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
    device = values.device
    for tensor in tensors.values():
        if tensor.device != device:
            devices = sorted({str(device), *(str(t.device) for t in tensors.values())})
            raise InputError(f"all tensors must be on one device, got {', '.join(devices)}")
    return 0 not in (samples, outputs, *values.shape[1:-1])


def _fits(tensor: Tensor, samples: int, width: int) -> bool:
    return tensor.dim() == 2 and tensor.shape[0] in (1, samples) and tensor.shape[1] == width


def _values(name: str, values: Tensor, samples: int, inputs: int, dims: int) -> None:
    shape = values.shape
    if values.dtype == torch.float32:
        width = inputs
    elif values.dtype == torch.int32 and name != "linear_int8":
        width = words(inputs)
    else:
        width = -1
    if len(shape) == 3 + dims and shape[0] in (1, samples) and shape[-1] == width:
        return
    space = ", *space" if dims else ""
    packed = "" if name == "linear_int8" else f" or int32 packed signs (1 or {samples}, M{space}, {words(inputs)})"
    raise InputError(
        f"activations must be float32 (1 or {samples}, M{space}, {inputs}){packed}, got {values.dtype} of shape "
        f"{tuple(values.shape)}"
    )


def _conv(
    values: Tensor,
    channels: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> None:
    dims = len(kernel)
    require(1 <= dims <= 3, f"convolutions run over 1, 2 or 3 dimensions, got kernel {list(kernel)}")
    require(
        len(stride) == len(dilation) == dims and len(padding) == 2 * dims,
        f"a kernel of {dims} dimensions takes {dims} strides and dilations and {2 * dims} margins, got "
        f"{list(stride)}, {list(dilation)}, {list(padding)}",
    )
    require(
        all(0 < n <= LARGEST for n in (*kernel, *stride, *dilation)) and all(0 <= n <= LARGEST for n in padding),
        f"kernel, stride and dilation must be positive, padding at least 0, got {list(kernel)}, {list(stride)}, "
        f"{list(dilation)}, {list(padding)}",
    )
    require(
        groups > 0 and channels % groups == 0 and outputs % groups == 0,
        f"{groups} groups must divide {channels} input and {outputs} output channels",
    )
    require(
        values.dtype != torch.int32 or groups == 1 or (channels // groups) % 32 == 0,
        f"packed signs in groups need a multiple of 32 channels per group, got {channels // groups}; unpack them",
    )
    space = values.shape[2:-1] if values.dim() == dims + 3 else ()  # another number of dimensions is told by `_values`
    for d, size in enumerate(space):
        reach = dilation[d] * (kernel[d] - 1) + 1
        room = size + padding[2 * d] + padding[2 * d + 1]
        require(room <= LARGEST, f"dimension {d} is too large for one operation, {room} places with its padding")
        require(reach <= room, f"the kernel reaches over {reach} places of dimension {d}, the padded input has {room}")
