"""Which few examples stand for many: drawn at random, or such that none is far from all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from varbnn.checks import optional_generator, whole_number
from varbnn.errors import InputError

Choice = Literal["random", "k-center"]
Chooser = Callable[[Tensor, int, torch.Generator], Tensor]
CHUNK = 2**18  # numbers compared at a time, 1 MB of float32: they stay in the cache, and little is needed besides


def random(x: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices of `size` of the rows of `x`, int64, each as probable as any other.

    Raises:
        InputError: a size outside 1 … N, or a generator that is none.

    >>> random(torch.zeros(10, 2), 3, torch.Generator().manual_seed(0)).tolist()
    [4, 1, 7]
    """
    size = _size(size, len(x), generator)
    return torch.randperm(len(x), generator=generator)[:size]


def k_center(x: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices of `size` rows of `x`, int64, such that no row is far from all of them (Euclidean).

    The first is drawn; each next one is the row farthest from those chosen so far, the first of equals. The largest
    distance left is at most twice what the best choice would leave. A smaller choice is the beginning of a larger one.
    Takes size · N · D operations and little memory; repeats come last.

    Args:
        x: N×D, finite.
        size: 1 … N.
        generator: of the first; torch's global one when absent.

    Raises:
        InputError: a size outside 1 … N, inputs that are not N×D or not finite, a generator that is none.

    Source: Gonzalez 1985.

    >>> line = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0]])
    >>> k_center(line, 3, torch.Generator().manual_seed(1)).tolist()
    [0, 4, 2]
    """
    size = _size(size, len(x), generator)
    if x.ndim != 2:
        raise InputError(f"inputs must be N×D, got {'×'.join(map(str, x.shape))}; flatten each of them")
    rows = x.split(max(1, CHUNK // max(1, x.shape[1])))
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    for _ in range(size - 1):
        centre = x[chosen[-1]].to(nearest.dtype)
        distances = torch.cat([(part - centre).square_().sum(1) for part in rows]).cpu()
        if not bool(distances.isfinite().all()):
            raise InputError(
                "inputs have NaN or infinite entries, or distances overflow; clean or scale the data first"
            )
        nearest = torch.minimum(nearest, distances)
        nearest[chosen[-1]] = -1.0  # even where all that is left are repeats, nothing is chosen twice
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


CHOICES: dict[Choice, Chooser] = {"random": random, "k-center": k_center}
"""Every way to choose by its name."""


def _size(size: object, count: int, generator: object) -> int:
    """The size as a Python int, once the generator can be drawn from."""
    optional_generator(generator)
    return whole_number("size", size, most=count, note=", the examples there are")
