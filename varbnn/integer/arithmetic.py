"""Products, shifts and errors of integers: all the arithmetic that training without floating point needs."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.errors import InputError

PRODUCTS = {"float32": 2**24, "int32": 2**30}
"""What computes products, and the least sum that it is not trusted with: float32 has 24 bits for an integer; of 32, one
is left for thresholds and rounding."""

LARGEST_ERROR = 7
"""Errors of hidden neurons fit into 4 bits."""

PUSH = 4
"""Error of the right class and, with the other sign, of its closest competitor."""


def matmul(a: Tensor, b: Tensor, products: str) -> Tensor:
    """a @ b of integers, int32; exact while sums of magnitudes are below the limit of `products` (`require_exact`)."""
    if products == "int32":
        return a.to(torch.int32) @ b.to(torch.int32)
    with torch.autocast(a.device.type, enabled=False):  # which would round the sums
        return (a.float() @ b.float()).to(torch.int32)


def require_exact(terms: int, magnitude: int, products: str, what: str) -> None:
    """Raise InputError where a sum of so many terms up to ±`magnitude` may not be exact."""
    largest, limit = terms * magnitude, PRODUCTS[products]
    if largest >= limit:
        wider = ", or take products='int32', which is exact below 2³⁰" if products == "float32" else ""
        raise InputError(
            f"{what} have sums up to {largest:,}; products='{products}' is exact below {limit:,} only: make them "
            f"smaller{wider}"
        )


def signs(values: Tensor) -> Tensor:
    """±1 by sign, int8, with sign(0) = +1."""
    return (values >= 0).to(torch.int8).mul_(2).sub_(1)


def integers(low: int, high: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform on low … high - 1, int32, shaped like `like` and where it is."""
    device = like.device if generator is None else generator.device
    drawn = torch.randint(low, high, like.shape, generator=generator, dtype=torch.int32, device=device)
    return drawn.to(like.device)


def shifted(values: Tensor, shift: int, generator: torch.Generator | None = None) -> Tensor:
    """values / 2^shift, rounded up or down at random such that the mean is exact; int32.

    >>> shifted(torch.tensor([8, -8], dtype=torch.int32), 2)
    tensor([ 2, -2], dtype=torch.int32)
    """
    if shift == 0:
        return values
    return (values + integers(0, 2**shift, values, generator)) >> shift


def log2_root(number: int) -> int:
    """log₂ √number, rounded, halves up: the exponent of a power of two about the size of the root.

    >>> [log2_root(n) for n in (1, 2, 3, 10, 256, 784)]
    [0, 1, 1, 2, 4, 5]
    """
    return number.bit_length() // 2


def margin_errors(scores: Tensor, labels: Tensor, margin: int) -> Tensor:
    """Where each score should go to keep the right class `margin` ahead, int32 N×C.

    Where the best wrong score is above the right one less `margin`, the right class is pushed up by 4 and that
    competitor down by 4; elsewhere nothing is.

    Source: the multi-class hinge loss of Crammer and Singer 2001; this is minus its subgradient, times 4.

    >>> margin_errors(torch.tensor([[9, 1, 2], [3, 1, 2]], dtype=torch.int32), torch.tensor([0, 0]), 4)
    tensor([[ 0,  0,  0],
            [ 4,  0, -4]], dtype=torch.int32)
    """
    right = labels[:, None]
    best, competitor = scores.scatter(1, right, torch.iinfo(torch.int32).min).max(1, keepdim=True)
    push = PUSH * (best > scores.gather(1, right) - margin).to(torch.int32)
    return torch.zeros_like(scores).scatter_(1, right, push).scatter_(1, competitor, -push)
