"""All tasks so far at once: what no method that keeps less can be expected to beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from varbnn.continual.mixing import together
from varbnn.continual.strategies import Examples, Strategy
from varbnn.continual.tasks import Stream, Task
from varbnn.errors import InputError


class Joint(Strategy):
    """Learn every task together with all that came before it, from their complete data: the ceiling.

    It goes on from the network that the tasks before have left; ``restart=True`` starts afresh for every task, as a new
    network would (layers with `reset_parameters` are reset; torch's global generator says how). The tasks are taken
    from the stream again, so nothing is saved beside the model; `bytes_kept` counts their data all the same.

    Args:
        optimizer: (model, task) → optimizer; the task is all of them together, so that ``len(task)`` is the number of
            examples.
        stream: the one that is learned.
        restart: from a fresh start for every task.

    Raises:
        InputError: another stream is learned than the one given.

    >>> import varbnn as vb
    >>> from varbnn import continual, data
    >>> stream = continual.split(data.load("digits"), scenario="class")[:2]
    >>> model = vb.binarize(nn.Linear(64, 10), posterior=vb.posteriors.Point())
    >>> joint = Joint(lambda model, task: vb.optim.StraightThrough(model.parameters()), stream)
    >>> result = continual.learn(model, stream, joint, progress=False)
    >>> [int(row["bytes_kept"]) for row in result.history]  # the data of the task before
    [0, 76032]
    """

    def __init__(
        self, optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer], stream: Stream, restart: bool = False
    ) -> None:
        self.optimizer, self.stream, self.restart = optimizer, stream, restart
        self._size = 0

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "restart": self.restart}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        if self.restart and number > 0:
            start_afresh(model)
        return self.optimizer(model, self._so_far(task, number))

    def examples(self, task: Task, number: int, outputs: int) -> Examples:
        parts = [Examples.of(earlier, outputs) for earlier in self._earlier(task, number)]
        self._size = sum(part.x.nbytes + part.y.nbytes for part in parts)
        return together([*parts, Examples.of(task, outputs)], outputs)

    def bytes_kept(self) -> int:
        return self._size

    def _earlier(self, task: Task, number: int) -> list[Task]:
        own = self.stream[number].name if number < len(self.stream) else None
        if own != task.name:
            raise InputError(
                f"task {number} is {task.name!r}, but {self.stream.name}, which Joint was given, has {own!r} there; "
                "give Joint the stream that is learned"
            )
        return [self.stream[index] for index in range(number)]

    def _so_far(self, task: Task, number: int) -> Task:
        parts = [*self._earlier(task, number), task]
        columns = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("train_x", "train_y", "test_x", "test_y")
        }
        classes = tuple(sorted({output for part in parts for output in part.classes}))
        return Task(f"all up to {task.name}", classes=classes, **columns)


def start_afresh(model: nn.Module) -> None:
    """Reset every layer that knows how to start."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
