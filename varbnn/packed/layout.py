"""Between a layer's weight as torch shapes it and the blocks that its packed layer takes."""

from __future__ import annotations

from torch import Tensor

from varbnn.bits import BLOCK, blocks, pack_blocks, unpack_blocks
from varbnn.kernels.products import channels_first
from varbnn.nn.layer import BinaryLayer


def blocks_of(layer: BinaryLayer, signs: Tensor) -> Tensor:
    """One network's ±1 weight, shaped as in `layer`, as blocks: inputs of a convolution in the order (tap, channel)."""
    if signs.dim() == 2:
        return pack_blocks(signs)
    groups: int = layer.groups  # type: ignore[assignment]
    rows = signs.movedim(1, -1).reshape(groups, signs.shape[0] // groups, -1)
    return pack_blocks(rows).flatten(0, 1)


def weight_of(layer: BinaryLayer, packed: Tensor) -> Tensor:
    """The inverse of `blocks_of`, in the precision and on the device of the layer's belief."""
    like = layer.belief[0]
    if like.dim() == 2:
        signs = unpack_blocks(packed, *like.shape)
    else:
        signs = conv_weight(packed, tuple(like.shape), layer.groups)  # type: ignore[arg-type]
    return signs.to(like)


def conv_weight(packed: Tensor, shape: tuple[int, ...], groups: int) -> Tensor:
    """±1 weight of shape (O, C / groups, *kernel) from its blocks."""
    outputs, fan_in, *kernel = shape
    count = fan_in
    for size in kernel:
        count *= size
    rows = unpack_blocks(packed.unflatten(0, (groups, -1)), outputs // groups, count)
    return channels_first(rows.reshape(outputs, *kernel, fan_in)).contiguous()


def regrouped(packed: Tensor, groups: int, outputs: int) -> Tensor:
    """Blocks of all outputs together, (S, blocks, words, 16), as blocks that start anew with each group."""
    width = outputs // groups
    if groups == 1 or width % BLOCK == 0:
        return packed
    samples, _, words, _ = packed.shape
    rows = packed.transpose(2, 3).reshape(samples, -1, words)[:, :outputs].unflatten(1, (groups, width))
    padded = rows.new_zeros(samples, groups, blocks(width) * BLOCK, words)
    padded[:, :, :width] = rows
    return padded.reshape(samples, -1, BLOCK, words).transpose(2, 3).contiguous()
