"""The ±1 activation and its surrogate gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varbnn.bits import sign
from varbnn.errors import InputError
from varbnn.posteriors import pull_back

SURROGATES = ("clipped", "polynomial", "identity")


class Sign(nn.Module):
    """sign(x - shift), ±1 with sign(0) = +1, and a surrogate for its gradient.

    Args:
        surrogate: the gradient that stands in for the sign's zero one:
            ``"clipped"`` 1 where |x| ≤ 1, else 0 (Hubara et al. 2016, eq. 4);
            ``"polynomial"`` 2 - 2 |x| where |x| < 1, else 0 (Bi-Real net, Liu et al. 2018, eq. 9);
            ``"identity"`` 1 everywhere.
        channels: learn one shift per channel (dimension 1), as ReActNet's RSign does (Liu et al. 2020, eq. 2);
            combine with ``surrogate="polynomial"``. Absent means no shift.

    Raises:
        InputError: an unknown surrogate, or `channels` < 1.

    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> y = Sign("polynomial")(x)
    >>> y.detach()
    tensor([-1.,  1.,  1.])
    >>> y.sum().backward()
    >>> x.grad
    tensor([0., 2., 1.])
    """

    def __init__(self, surrogate: str = "clipped", channels: int | None = None) -> None:
        super().__init__()
        if surrogate not in SURROGATES:
            raise InputError(f"surrogate must be one of {SURROGATES}, got {surrogate!r}")
        if channels is not None and channels < 1:
            raise InputError(f"channels must be at least 1 or None, got {channels}")
        self.surrogate = surrogate
        self.shift = None if channels is None else nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        if self.shift is not None:
            input = input - self.shift.reshape(-1, *[1] * (input.dim() - 2))
        value = input.detach()
        if self.surrogate == "identity":
            factor = None
        elif self.surrogate == "clipped":
            factor = (value.abs() <= 1).to(value.dtype)
        else:
            factor = (2 - 2 * value.abs()).clamp_min(0)
        return pull_back(sign(value), input, factor)

    def extra_repr(self) -> str:
        return f"{self.surrogate!r}" + ("" if self.shift is None else f", channels={len(self.shift)}")
