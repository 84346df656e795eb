"""Max pooling in front of a sign, done on bits behind it: a sign keeps the order of numbers, or turns it round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.bits import WORD, pack_bits, unpack
from varbnn.errors import InputError
from varbnn.packed.call import Real
from varbnn.packed.steps import Affine, by_network

POOLS: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
"""Dimensions of space."""
OPTIONS = ("kernel_size", "stride", "padding", "dilation")


class PoolSigns(nn.Module):
    """Max pooling of packed signs (rows, *space, words): +1 where one of the window is.

    Args:
        kernel, stride, padding, dilation: per dimension of space.
        turned: ``int32`` (S or 1, words), the channels whose smallest sign is taken instead; None for none.
    """

    turned: Tensor | None

    def __init__(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        turned: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.dilation = map(list, (kernel, stride, padding, dilation))
        self.register_buffer("turned", turned)

    @classmethod
    def of(cls, pool: nn.Module, scale: Tensor | None) -> PoolSigns:
        """What follows a sign of x · `scale` and does what `pool` does in front of it."""
        dims = POOLS[type(pool)]
        kernel, stride, padding, dilation = (_each(getattr(pool, name), dims) for name in OPTIONS)
        negative = None if scale is None else scale < 0
        turned = None if negative is None or not bool(negative.any()) else pack_bits(negative).to(negative.device)
        return cls(kernel, stride, padding, dilation, turned)

    @property
    def per_network(self) -> bool:
        """Whether the networks turn channels of their own."""
        return self.turned is not None and len(self.turned) > 1

    def forward(self, input: Tensor) -> Tensor:
        values = self._turn(input)
        for dim, options in enumerate(zip(self.kernel, self.stride, self.padding, self.dilation, strict=True), 1):
            values = _largest(values, dim, *options)
        return self._turn(values)

    def _turn(self, values: Tensor) -> Tensor:
        if self.turned is None:
            return values
        if self.turned.shape[1] != values.shape[-1]:
            raise InputError(f"{self.turned.shape[1]} words of channels are turned, but {values.shape[-1]} are given")
        networks = by_network(values, len(self.turned))
        return (networks ^ self.turned.reshape(len(self.turned), *[1] * (values.dim() - 1), -1)).flatten(0, 1)

    def member(self, s: int) -> list[nn.Module]:
        kind = next(kind for kind, dims in POOLS.items() if dims == len(self.kernel))
        pool = kind(*map(tuple, (self.kernel, self.stride, self.padding, self.dilation)))
        if self.turned is None:
            return [pool]
        own = self.turned[s : s + 1] if len(self.turned) > 1 else self.turned
        signs = -unpack(own, WORD * own.shape[1])
        return [Affine(signs, None), pool, Affine(signs, None)]

    def extra_repr(self) -> str:
        return "×".join(map(str, self.kernel)) + ("" if self.turned is None else ", some channels by the smallest")


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value] * dims  # type: ignore[list-item]


def _largest(values: Tensor, dim: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """+1 where one of the window along `dim` is; around the image nothing is."""
    room = values.shape[dim] + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise InputError(
            f"a pooling of {kernel} pixels, {dilation} apart, with {padding} around takes more than {values.shape[dim]}"
        )
    if padding:
        values = F.pad(values, [0, 0] * (values.dim() - 1 - dim) + [padding, padding])
    last = room // stride * stride
    index: list[slice] = [slice(None)] * values.dim()
    taps = []
    for tap in range(kernel):
        index[dim] = slice(tap * dilation, tap * dilation + last + 1, stride)
        taps.append(values[tuple(index)])
    return reduce(torch.bitwise_or, taps)


def poolable(step: nn.Module | None, dims: int) -> bool:
    """Whether `step` is a max pooling over `dims` dimensions of space that `PoolSigns` can stand for."""
    if not isinstance(step, Real) or POOLS.get(type(step.module)) != dims:
        return False  # with one dimension more it would pool channels too
    pool = step.module
    hooked = pool._forward_hooks or pool._forward_pre_hooks or "forward" in pool.__dict__
    options = [_each(getattr(pool, name), dims) for name in OPTIONS]
    plain = all(len(each) == dims and all(type(number) is int for number in each) for each in options)
    return plain and not (hooked or pool.ceil_mode or pool.return_indices)
