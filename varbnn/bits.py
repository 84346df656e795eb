"""The convention, stated once: a set bit is +1, sign(0) is +1, input `32 j + i` is bit `i` of word `j`.

Words are ``int32`` (the widest integer every torch backend can shift and compare), filled from the least
significant bit; the unused bits of a row's last word are 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from varbnn.errors import InputError

WORD = 32
"""Bits in a word."""


def sign(values: Tensor) -> Tensor:
    """±1 by sign, with sign(0) = sign(-0) = +1; NaN stays NaN, so that bad numbers are not hidden.

    >>> sign(torch.tensor([-2.0, -0.0, 0.0, 3.0]))
    tensor([-1.,  1.,  1.,  1.])
    """
    # without comparisons, which take up to twice as long on a CPU: + 0 makes -0 to +0, and 0 * NaN is NaN
    bounded = values.clamp(-1, 1).add_(0.0)
    return torch.copysign(bounded.new_ones(()), bounded).add_(bounded, alpha=0)


def words(length: int) -> int:
    """Number of words that hold `length` bits."""
    return -(-length // WORD)


def pack(signs: Tensor) -> Tensor:
    """Pack ±1 values along the last dimension, 32 to a word.

    Args:
        signs: any floating dtype, shape (..., K), every value exactly +1 or -1.

    Returns:
        ``int32``, shape (..., ceil(K / 32)), on the CPU.

    Raises:
        InputError: a value is neither +1 nor -1, or `signs` has no dimension.

    >>> pack(torch.tensor([1.0, -1.0, 1.0]))
    tensor([5], dtype=torch.int32)
    """
    if signs.dim() == 0:
        raise InputError("pack needs at least one dimension, got a scalar; use signs.reshape(1)")
    if not bool((signs.abs() == 1).all()):
        raise InputError("pack takes values that are exactly +1 or -1; apply varbnn.bits.sign first")
    length = signs.shape[-1]
    set_bits = (signs > 0).cpu().numpy()
    padded = np.zeros((*signs.shape[:-1], words(length) * WORD), dtype=bool)
    padded[..., :length] = set_bits
    return torch.from_numpy(np.packbits(padded, axis=-1, bitorder="little").view("<i4").astype(np.int32, copy=False))


def unpack(packed: Tensor, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The inverse of `pack`.

    Args:
        packed: ``int32``, shape (..., words).
        length: K, how many values a row holds; at most 32 · words.
        dtype: of the result.

    Returns:
        ±1, shape (..., K).

    Raises:
        InputError: `packed` is not ``int32``, or its last dimension does not hold exactly K bits.

    >>> unpack(torch.tensor([5], dtype=torch.int32), 3)
    tensor([ 1., -1.,  1.])
    """
    if packed.dtype != torch.int32:
        raise InputError(f"packed words are int32, got {packed.dtype}")
    if packed.shape[-1] != words(length):
        raise InputError(f"{length} bits take {words(length)} words, got {packed.shape[-1]}")
    as_bytes = np.ascontiguousarray(packed.cpu().numpy().astype("<i4", copy=False)).view(np.uint8)
    set_bits = np.unpackbits(as_bytes, axis=-1, count=length, bitorder="little")
    return torch.from_numpy(set_bits).to(dtype).mul_(2).sub_(1)
