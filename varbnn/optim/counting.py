"""Rules that count examples hear how many there are."""

from __future__ import annotations

from torch.optim import Optimizer


def step_counting(optimizer: Optimizer, count: int) -> None:
    """A step on the mean loss of `count` examples: what groups of `WindowedBayes`, … call ``batch_size`` in it."""
    counting = [group for group in optimizer.param_groups if "batch_size" in group]
    sizes = [group["batch_size"] for group in counting]
    try:
        for group in counting:
            group["batch_size"] = count
        optimizer.step()
    finally:
        for group, size in zip(counting, sizes, strict=True):
            group["batch_size"] = size
