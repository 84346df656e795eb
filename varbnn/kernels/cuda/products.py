"""Products with packed ±1 weights on CUDA devices."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.bits import words
from varbnn.kernels import plain
from varbnn.kernels.cuda import plan
from varbnn.kernels.cuda.arguments import Product, Quantise, address, product
from varbnn.kernels.cuda.launch import gpu

MOST_INT8 = 2**23
"""Inputs whose sum, twice ±127 each, surely fits 32 bits; plain torch computes longer rows."""


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
    weight = aligned(weight)
    arguments = product(weight, in_features, out_features, 1, scale, shift, activation)
    arguments.values = address(values)
    arguments.rows, arguments.values_row = values.shape[1:]
    arguments.values_sample = sample_stride(values)
    out = result(weight, (values.shape[1],), out_features, activation)
    arguments.out = address(out)
    device = gpu(values.device)
    if values.dtype == torch.int32:
        launch = plan.bits(device.chip, size_of(arguments), is_wide(values), masked=False)
    else:
        launch, arguments.across = plan.real(device.chip, size_of(arguments))
    device.run(launch, arguments)
    return out


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
    if in_features > MOST_INT8:
        return plain.linear_int8(values, weight, in_features, out_features, scale, shift, activation)
    weight = aligned(weight)
    arguments = product(weight, in_features, out_features, 1, scale, shift, activation)
    networks, rows = values.shape[:2]
    width = words(in_features)
    quantised = torch.empty((networks, rows, 32 * width), dtype=torch.int8, device=values.device)
    units = values.new_empty((networks, rows))
    sums = values.new_empty((networks, rows), dtype=torch.int32)
    device = gpu(values.device)
    device.run(
        plan.each("quantise", networks * rows, 8),
        Quantise(
            values=address(values),
            bytes=address(quantised),
            units=address(units),
            sums=address(sums),
            rows=networks * rows,
            length=in_features,
            words=width,
        ),
    )
    arguments.values, arguments.beside, arguments.row_sums = address(quantised), address(units), address(sums)
    arguments.rows, arguments.values_row = quantised.shape[1:]
    arguments.values_sample = sample_stride(quantised)
    out = result(weight, (rows,), out_features, activation)
    arguments.out = address(out)
    device.run(plan.int8(size_of(arguments)), arguments)
    return out


def size_of(arguments: Product) -> plan.Size:
    return plan.Size(arguments.samples, arguments.rows, arguments.outputs, arguments.words, arguments.groups)


def result(weight: Tensor, rows: tuple[int, ...], outputs: int, activation: str) -> Tensor:
    """Room for (S, *rows, outputs), or for words of signs."""
    packed = activation == "sign"
    width, dtype = (words(outputs), torch.int32) if packed else (outputs, torch.float32)
    return weight.new_empty((weight.shape[0], *rows, width), dtype=dtype)


def sample_stride(values: Tensor) -> int:
    """Elements between the activations of two networks; 0 where they share them."""
    return values.stride(0) if len(values) > 1 else 0


def is_wide(words: Tensor) -> bool:
    """Rows can be read 16 bytes at a time."""
    return words.shape[-1] % 4 == 0 and words.data_ptr() % 16 == 0


def aligned(tensor: Tensor) -> Tensor:
    """The same numbers from an address that 16 bytes divide, which views into other tensors may lack."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
