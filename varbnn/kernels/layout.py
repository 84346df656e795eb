"""In which order the axes of a tensor lie in memory: elementwise work wants them in that order, whatever it is."""

from __future__ import annotations

from torch import Tensor

Order = list[int] | None


def memory_order(tensor: Tensor) -> Order:
    """The axes of `tensor` from the one with the largest steps in memory to the smallest.

    None if they lie in order, or in none, because the tensor is expanded. A tensor that fills its memory without gaps,
    as in ``torch.channels_last``, is contiguous once it is `turned`.

    >>> import torch
    >>> memory_order(torch.zeros(2, 3, 4, 5)), memory_order(torch.zeros(2, 3, 4).transpose(0, 2))
    (None, [2, 1, 0])
    """
    if tensor.is_contiguous():
        return None  # as nearly always: a permutation takes longer than many a small draw
    steps = tensor.stride()
    if 0 in steps:
        return None
    return sorted(range(tensor.dim()), key=lambda axis: -steps[axis])


def turned(tensor: Tensor, order: Order) -> Tensor:
    """The same numbers with the axes in `order`; axes that `tensor` has more than that come first and stay there."""
    if order is None:
        return tensor
    before = tensor.dim() - len(order)
    return tensor.permute(*range(before), *(before + axis for axis in order))


def turned_back(tensor: Tensor, order: Order) -> Tensor:
    """Undoes `turned`."""
    return tensor if order is None else turned(tensor, sorted(range(len(order)), key=lambda axis: order[axis]))
