"""The convention, stated once: a set bit is +1, sign(0) is +1, input `32 j + i` is bit `i` of word `j`.

Words are ``int32`` (the widest integer every torch backend can shift and compare), filled from the least
significant bit; the unused bits of a row's last word are 0.

A weight matrix of N outputs and K inputs is kept in *blocks* of 16 outputs: word `j` of output `16 b + r` is
``blocks[b, j, r]``, so that one line of 64 bytes holds 32 inputs of 16 outputs. Outputs that fill up the last block are
0 throughout.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from varbnn.errors import InputError

__all__ = ["BLOCK", "WORD", "blocks", "pack", "pack_bits", "pack_blocks", "sign", "unpack", "unpack_blocks", "words"]

WORD = 32
"""Bits in a word."""

BLOCK = 16
"""Outputs in a block."""


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
    return pack_bits(signs > 0)


def pack_bits(set_bits: Tensor) -> Tensor:
    """Pack booleans, shape (..., K), as `pack` packs signs; the result is on the CPU."""
    length = set_bits.shape[-1]
    flags = set_bits.cpu().numpy()
    padded = np.zeros((*flags.shape[:-1], words(length) * WORD), dtype=bool)
    padded[..., :length] = flags
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
    if packed.dim() == 0 or length < 0 or packed.shape[-1] != words(length):
        raise InputError(f"{length} bits take {words(max(length, 0))} words, got shape {tuple(packed.shape)}")
    if packed.device.type != "cpu":
        shifted = packed.unsqueeze(-1) >> torch.arange(WORD, dtype=torch.int32, device=packed.device)
        return (shifted & 1).flatten(-2)[..., :length].to(dtype).mul_(2).sub_(1)
    as_bytes = np.ascontiguousarray(packed.cpu().numpy().astype("<i4", copy=False)).view(np.uint8)
    set_bits = np.unpackbits(as_bytes, axis=-1, count=length, bitorder="little")
    return torch.from_numpy(set_bits).to(dtype).mul_(2).sub_(1)


def blocks(length: int) -> int:
    """Number of blocks that hold `length` outputs."""
    return -(-length // BLOCK)


def pack_blocks(signs: Tensor) -> Tensor:
    """Pack ±1 weights into blocks of 16 outputs.

    Args:
        signs: any floating dtype, shape (..., N, K), every value exactly +1 or -1.

    Returns:
        ``int32``, shape (..., ceil(N / 16), ceil(K / 32), 16), on the CPU.

    Raises:
        InputError: a value is neither +1 nor -1, or `signs` has less than two dimensions.

    >>> pack_blocks(torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])).flatten()[:3]
    tensor([5, 2, 0], dtype=torch.int32)
    """
    if signs.dim() < 2:
        raise InputError(f"pack_blocks takes weights of shape (..., outputs, inputs), got {tuple(signs.shape)}")
    rows = pack(signs)
    outputs, width = rows.shape[-2:]
    padded = rows.new_zeros(*rows.shape[:-2], blocks(outputs) * BLOCK, width)
    padded[..., :outputs, :] = rows
    return padded.unflatten(-2, (-1, BLOCK)).transpose(-1, -2).contiguous()


def unpack_blocks(packed: Tensor, outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The inverse of `pack_blocks`.

    Args:
        packed: ``int32``, shape (..., blocks, words, 16).
        outputs: N, how many outputs the blocks hold.
        inputs: K, how many inputs a row of words holds.
        dtype: of the result.

    Returns:
        ±1, shape (..., N, K).

    Raises:
        InputError: `packed` is not ``int32``, or does not hold exactly N outputs of K bits.

    >>> unpack_blocks(pack_blocks(torch.tensor([[1.0, -1.0]])), 1, 2)
    tensor([[ 1., -1.]])
    """
    if packed.dim() < 3 or packed.shape[-3] != blocks(outputs) or packed.shape[-1] != BLOCK:
        raise InputError(
            f"{outputs} outputs take the shape (..., {blocks(outputs)}, {words(inputs)}, {BLOCK}), "
            f"got {tuple(packed.shape)}"
        )
    rows = packed.transpose(-1, -2).flatten(-3, -2)[..., :outputs, :]
    return unpack(rows, inputs, dtype)
