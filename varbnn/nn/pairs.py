"""What a layer remembers between the two forward passes of an antithetic pair."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from varbnn.errors import InputError

Change = Callable[[Tensor], Tensor]
Drawn = tuple[str, torch.Size, Tensor]
"""What was drawn, the shape of what it was drawn for, and the noise."""


class Pair:
    """The noise that a layer drew in the first pass of a pair, for the second pass to mirror, draw by draw.

    A pass begins with its first draw, so that one without draws, in eval mode for example, counts for nothing.
    """

    def __init__(self) -> None:
        self.begun = False
        self.kept: list[Drawn] = []  # in the present pass, if it is a first one
        self.due: list[Drawn] | None = None  # still to be mirrored in the present pass; None: a first

    def end(self) -> None:
        """The next draw belongs to another pass."""
        self.begun = False

    def noise(self, kind: str, like: Tensor, fresh: Change, mirror: Change) -> Tensor:
        """``fresh(like)`` in the first pass of a pair, `mirror` of that in the second.

        Raises:
            InputError: the second pass draws noise of another shape or kind than the first.
        """
        if not self.begun:
            second = self.due is None and len(self.kept) > 0
            self.begun, self.kept, self.due = True, [], self.kept if second else None
        if self.due is None:
            noise = fresh(like)
            self.kept.append((kind, like.shape, noise))
            return noise
        if not self.due:
            return fresh(like)
        drawn, shape, noise = self.due.pop(0)
        if drawn != kind or shape != like.shape:
            raise InputError(
                f"the second pass of an antithetic pair drew noise of shape {tuple(like.shape)} where the first drew "
                f"{tuple(shape)}; give both passes of a pair batches of one shape, or open a pair for each batch"
            )
        return mirror(noise)


def refuse_recomputation() -> None:
    """Raise InputError inside a backward pass, where activation checkpointing repeats a pass that is over."""
    if not torch.compiler.is_compiling() and in_backward():
        raise InputError(
            "a binary layer that drew in antithetic pairs was recomputed by activation checkpointing, which cannot "
            "tell the two passes of a pair apart; leave the layer out of the checkpointed part, or draw independently"
        )


def in_backward() -> bool:
    """Whether autograd is at work on this thread."""
    return torch._C._current_graph_task_id() != -1
