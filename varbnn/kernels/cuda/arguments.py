"""What the kernels are given: one struct by value, mirrored from the sources in `src`, field by field."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int, c_int64, c_uint32, c_void_p
from typing import Any, ClassVar

from torch import Tensor

ACTIVATIONS = {"none": 0, "relu": 1, "sign": 2}

Three = c_int * 3


class Sampling(ctypes.Structure):
    """Of `sample_blocks` and `draw` in sample.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("natural", c_void_p),
        ("seed", c_void_p),
        ("out", c_void_p),
        ("outputs", c_int),
        ("inputs", c_int),
        ("samples", c_int),
        ("chunk", c_int),
        ("layer", c_uint32),
        ("first", c_uint32),
    ]


class Signs(ctypes.Structure):
    """Of `pack_signs` in signs.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("values", c_void_p),
        ("words", c_void_p),
        ("counts", c_void_p),
        ("rows", c_int64),
        ("length", c_int),
    ]


_PLACES = [(name, Three) for name in ("size", "out", "kernel", "stride", "before", "dilation")]


class Unfold(ctypes.Structure):
    """Of `unfold_bits` in signs.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("values", c_void_p),
        ("patches", c_void_p),
        ("inside", c_void_p),
        ("images", c_int64),
        *_PLACES,
        ("groups", c_int),
        ("group_channels", c_int),
        ("channel_words", c_int),
        ("words", c_int),
    ]


class Product(ctypes.Structure):
    """Of the kernels in bits.cu, int8.cu and real.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("values", c_void_p),
        ("beside", c_void_p),
        ("row_sums", c_void_p),
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("out", c_void_p),
        ("rows", c_int64),
        ("values_sample", c_int64),
        ("values_row", c_int64),
        ("values_group", c_int64),
        ("scale_sample", c_int64),
        ("shift_sample", c_int64),
        ("samples", c_int),
        ("groups", c_int),
        ("inputs", c_int),
        ("words", c_int),
        ("outputs", c_int),
        ("blocks", c_int),
        ("activation", c_int),
        ("across", c_int),
    ]


class Convolution(ctypes.Structure):
    """Of the convolutions in real.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("product", Product),
        *_PLACES,
        ("channels", c_int),
        ("group_channels", c_int),
    ]


class Quantise(ctypes.Structure):
    """Of `quantise` in int8.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("values", c_void_p),
        ("bytes", c_void_p),
        ("units", c_void_p),
        ("sums", c_void_p),
        ("rows", c_int64),
        ("length", c_int),
        ("words", c_int),
    ]


class Predictive(ctypes.Structure):
    """Of the kernels in predictive.cu but `average`."""

    _fields_: ClassVar[list[Any]] = [
        ("product", Product),
        ("logits", c_void_p),
        ("means", c_void_p),
        ("entropy", c_void_p),
        ("packed", c_int),
    ]


class Average(ctypes.Structure):
    """Of `average` in predictive.cu."""

    _fields_: ClassVar[list[Any]] = [
        ("parts", c_void_p),
        ("out", c_void_p),
        ("size", c_int64),
        ("count", c_int),
        ("samples", c_int),
    ]


def address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor's first element; None, which is null, for None."""
    return None if tensor is None else tensor.data_ptr()


def three(values: Sequence[int], fill: int) -> Any:
    """One to three dimensions of space as three, with `fill` in front."""
    return Three(*[fill] * (3 - len(values)), *values)


def product(
    weight: Tensor, inputs: int, outputs: int, groups: int, scale: Tensor | None, shift: Tensor | None, activation: str
) -> Product:
    """The part of `Product` that the weights give; `inputs` of one output, `outputs` of all groups."""
    samples, blocks, words, _ = weight.shape

    def stride(tensor: Tensor | None) -> int:
        return outputs if tensor is not None and len(tensor) > 1 else 0

    return Product(
        weight=address(weight),
        scale=address(scale),
        shift=address(shift),
        scale_sample=stride(scale),
        shift_sample=stride(shift),
        samples=samples,
        groups=groups,
        inputs=inputs,
        words=words,
        outputs=outputs // groups,
        blocks=blocks // groups,
        activation=ACTIVATIONS[activation],
    )
