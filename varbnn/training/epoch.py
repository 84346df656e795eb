"""One pass over a loader: what a batch must be, what is added up over batches, and the steps of training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.checks import described
from varbnn.errors import InputError
from varbnn.nn import antithetic as in_pairs
from varbnn.nn import gaussian_nll
from varbnn.nn.batchnorm import device_of
from varbnn.nn.flips import differing, packed_modes
from varbnn.optim import Rule
from varbnn.optim.finite import refuse_nonfinite

Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, float]


@dataclass(frozen=True)
class Steps:
    """How a model is trained on a batch; the arguments are those of `varbnn.fit`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    num_samples: int
    antithetic: bool

    def epoch(self, loader: Iterable[Any]) -> Row:
        """Go once over `loader`.

        Raises:
            InputError: nothing in the loader, a batch that is no pair, what is no loss, or NaN on the way.
        """
        start, tally, flips = time.perf_counter(), Tally(self.loss), {}
        device = device_of(self.model)
        self.model.train()
        for batch in loader:
            x, y = pair(batch, "loader")
            value, output, y = self._backward(x.to(device), y.to(device))
            # what one step does to the modes is looked at once per epoch
            before = [] if tally.seen else packed_modes(self.model)
            self.optimizer.step()
            if before:
                now = packed_modes(self.model)
                flips = {"step_flips": float(sum(map(differing, before, now)))}
            tally.add(value, len(x), output, y)
        if tally.seen == 0:
            raise InputError(
                "the loader yielded no batch to train on; is it a generator that was used up, or drop_last too eager?"
            )
        row = tally.row()
        return {"loss": row.pop("loss"), "seconds": time.perf_counter() - start, **flips, **row}

    def _backward(self, x: Tensor, y: Tensor) -> tuple[float, Any, Tensor]:
        """Gradients of the mean over the draws; that mean, the outputs of the last draw, and the targets."""
        self.optimizer.zero_grad()
        mean = 0.0
        with in_pairs(self.model) if self.antithetic else nullcontext():
            for _ in range(self.num_samples):
                output = self.model(x.clone())  # it may write into it: other draws, and the caller's batches, need it
                value = loss_of(self.loss, output, y, "loader")
                mean += finite(value, "loader") / self.num_samples
                (value / self.num_samples).backward()
        if not isinstance(self.optimizer, Rule):  # which looks by itself
            gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            refuse_nonfinite([gradient for gradient in gradients if not gradient.is_sparse])
        return mean, output.detach() if isinstance(output, Tensor) else output, y


class Tally:
    """The mean loss per example, and the accuracy where outputs are of classes, over the batches so far."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.seen = 0
        self._total, self._correct, self._asked = 0.0, 0, 0

    def add(self, value: float, count: int, output: Any, y: Tensor) -> None:
        """A batch of `count` inputs, and its mean loss."""
        self.seen += count
        self._total += value * count
        if self.loss is not gaussian_nll and _are_classes(output, y):
            among = (y >= 0) & (y < output.shape[1])  # others are ignored by the loss, or it refused them
            self._correct += int((output.argmax(1) == y)[among].sum())
            self._asked += int(among.sum())

    def row(self) -> Row:
        """What came of it."""
        found = {"loss": self._total / self.seen}
        return found | ({"accuracy": self._correct / self._asked} if self._asked else {})


def _are_classes(output: Any, y: Tensor) -> bool:
    """Whether the outputs are logits N×C of at least two classes and the targets N numbers of classes."""
    if not isinstance(output, Tensor):
        return False
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    return output.dim() == 2 and output.shape[1] > 1 and y.dim() == 1 and len(y) == len(output) and whole


def loss_of(loss: Loss, output: Any, y: Tensor, name: str) -> Tensor:
    """What `loss` says of a batch of the loader called `name`.

    Raises:
        InputError: several numbers or none, or it refused a target that has no output.
    """
    try:
        value = loss(output, y)
    except IndexError as error:
        if "out of bounds" not in str(error) or not isinstance(output, Tensor) or output.dim() < 2:
            raise
        count = output.shape[1]
        raise InputError(
            f"targets of the {name} must lie in 0 … {count - 1}, as the model has {count} outputs ({error}); number "
            "the classes from 0"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError(f"loss must be one number, the mean per example, as a tensor; got {described(value)}")
    return value


def finite(value: Tensor, name: str) -> float:
    """The loss of a batch of the loader called `name`.

    Raises:
        InputError: it is NaN or infinite.
    """
    number = value.item()
    if not math.isfinite(number):
        raise InputError(
            f"the loss of a batch of the {name} is {number}; are all of its targets ignored (-100)? Else look for NaN "
            "in the targets, or outputs that overflow. The model keeps its last good step"
        )
    return number


def pair(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets in a batch of the loader called `name`.

    Raises:
        InputError: it is no pair of tensors, or has NaN or infinite inputs.
    """
    two = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
    if not two:
        parts = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, tuple | list) else ""
        given = f"{type(batch).__name__}{f' of {parts}' if parts else ''}"
        raise InputError(f"the {name} must yield (inputs, targets), two tensors, got {given}")
    if batch[0].is_floating_point() and not bool(torch.isfinite(batch[0]).all()):
        # before the forward pass, which would leave NaN in the batch-norm statistics
        raise InputError(f"a batch of the {name}'s inputs has NaN or infinite entries; clean the data first")
    return batch[0], batch[1]
