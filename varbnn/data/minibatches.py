"""Mini-batches of tensors that are in memory, without a data loader's cost per example."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from varbnn.checks import optional_generator, whole_number
from varbnn.errors import InputError


class Batches:
    """Yields (x, y) batch by batch, as often as it is iterated over; `len` is the number of batches. See `batches`."""

    def __init__(
        self, x: Tensor, y: Tensor, batch_size: int, generator: torch.Generator | None = None, shuffle: bool = True
    ) -> None:
        batch_size = whole_number("batch_size", batch_size)
        optional_generator(generator)
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise InputError(
                f"x and y must be tensors, got {type(x).__name__} and {type(y).__name__}; of arrays "
                "torch.as_tensor(x, dtype=torch.float32) and torch.as_tensor(y) make some"
            )
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise InputError(f"x and y need one row per example, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
        if len(x) == 0:
            raise InputError("there is no example to make batches of")
        self.x, self.y = x, y
        self.batch_size, self.generator, self.shuffle = batch_size, generator, shuffle
        starts = range(0, len(x), batch_size)
        merge = len(starts) > 1 and batch_size > 1 and len(x) % batch_size == 1
        self._starts = starts[: len(starts) - merge]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.x, self.y
        if self.shuffle:
            device = self.generator.device if self.generator is not None else torch.device("cpu")
            order = torch.randperm(len(x), generator=self.generator, device=device)
            x, y = x[order.to(x.device)], y[order.to(y.device)]
        for start, end in zip(self._starts, [*self._starts[1:], len(x)], strict=True):
            yield x[start:end], y[start:end]


def batches(
    x: Tensor, y: Tensor, batch_size: int, generator: torch.Generator | None = None, shuffle: bool = True
) -> Batches:
    """Mini-batches of `x` and `y` that can be gone through again and again, in a new order every time.

    Every example comes once per pass. A last batch of one is joined to the one before it, because batch norm needs two.

    Args:
        x, y: tensors with one row per example.
        batch_size: examples per batch; the last may have fewer, or one more.
        generator: source of the order; torch's global one when absent.
        shuffle: False keeps the order of the rows.

    Raises:
        InputError: no tensors, no example, x and y of different length, a batch size below 1, a generator that is none.

    >>> loader = batches(torch.arange(7.0), torch.arange(7), batch_size=3, shuffle=False)
    >>> len(loader), [len(y) for _, y in loader]
    (2, [3, 4])
    """
    return Batches(x, y, batch_size, generator, shuffle)


def some_rows(x: Tensor, count: int) -> Tensor:
    """At most `count` rows of `x`, at random but the same in every call; all of them, in order, if there are no more.

    Raises:
        InputError: a count below 1.

    >>> some_rows(torch.arange(6), 3).shape
    torch.Size([3])
    >>> some_rows(torch.arange(2), 3)
    tensor([0, 1])
    """
    if len(x) <= whole_number("count", count):
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count].to(x.device)]
