"""A stream under way: one task after the other, each from where it was left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.checks import whole_number
from varbnn.continual.evaluation import Result, require_outputs, seed_of
from varbnn.continual.strategies import Examples, Strategy
from varbnn.continual.tasks import Stream, Task, require_several
from varbnn.errors import InputError
from varbnn.nn import binary_layers
from varbnn.nn.batchnorm import batchnorm_preserved, device_of, forward_with_variance
from varbnn.nn.flips import packed_modes
from varbnn.nn.health import health_since
from varbnn.optim.belonging import advance, require_own
from varbnn.optim.counting import step_counting
from varbnn.text import plural

Schedule = Callable[[torch.optim.Optimizer, int], Any]


@dataclass(frozen=True)
class Plan:
    """How each task is gone through."""

    epochs: int
    batch_size: int
    num_samples: int
    seed: int
    schedule: Schedule | None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("num_samples", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))

    def written(self) -> dict[str, Any]:
        """What a run that goes on must have in common."""
        return {name: value for name, value in vars(self).items() if name != "schedule"}


@dataclass
class Place:
    """How far a task has come, and what it has added up to since it began."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seen: int = 0
    seconds: float = 0.0


class Run:
    """A stream under way. `number` is the task being learned; `optimizer` is there while one is."""

    def __init__(self, model: nn.Module, stream: Stream, strategy: Strategy, plan: Plan) -> None:
        self.model, self.stream, self.strategy, self.plan = model, stream, strategy, plan
        self.result = Result(stream.name, len(stream))
        self.number, self.place = 0, Place()
        self.task: Task | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: Any = None
        self.examples: Examples | None = None
        self.advice = ""  # to those whose batches are too small
        self.modes = packed_modes(model)  # as the task before left them

    def begin_task(self) -> tuple[torch.optim.Optimizer, Examples]:
        """The optimizer and the examples of the present task; made once."""
        if self.optimizer is not None and self.examples is not None:
            return self.optimizer, self.examples
        self.task = task = self.stream[self.number]
        examples = self.strategy.examples(task, self.number, self.stream.outputs)
        check(examples, task, self.stream.outputs)
        optimizer = self.strategy.begin(self.model, task, self.number)
        if not hasattr(optimizer, "param_groups"):
            name, given = type(self.strategy).__name__, type(optimizer).__name__
            raise InputError(f"{name} was given an optimizer= that returns {given}; it must return a torch optimizer")
        require_own(self.model.parameters(), optimizer, stacklevel=4)
        if self.plan.schedule is not None:
            self.scheduler = self.plan.schedule(optimizer, self.plan.epochs * steps(examples, self.plan.batch_size))
        self.optimizer, self.examples = optimizer, examples
        self.advice = (
            f"task {task.name!r} is learned from {plural(len(examples.y), 'example')} with "
            f"batch_size={self.plan.batch_size}; make both two or more, or take layer norm, which needs one"
        )
        return optimizer, examples

    def learn_task(self, after_step: Callable[[], None], after_epoch: Callable[[int, float], None]) -> Task:
        """Go through the present task from where it is, and consolidate; `after_epoch` gets its number and the loss."""
        optimizer, examples = self.begin_task()
        device, place = device_of(self.model), self.place
        self.model.train()
        while place.epoch < self.plan.epochs:
            generator = torch.Generator().manual_seed(seed_of(self.plan.seed, self.number, place.epoch))
            order = torch.randperm(len(examples.x), generator=generator)
            parts = order.tensor_split(steps(examples, self.plan.batch_size))
            for part in parts[place.batch :]:
                start = time.perf_counter()
                place.loss += self.step(optimizer, examples, part, device) * len(part)
                place.seen, place.batch = place.seen + len(part), place.batch + 1
                place.seconds += time.perf_counter() - start
                after_step()
            place.epoch, place.batch = place.epoch + 1, 0
            after_epoch(place.epoch, place.loss / place.seen)
        assert self.task is not None
        self.strategy.end(self.model, self.task, self.number)
        return self.task

    def step(self, optimizer: torch.optim.Optimizer, examples: Examples, part: Tensor, device: torch.device) -> float:
        """One step on the examples `part`; the mean loss of its draws, without the penalty."""
        x, y = examples.x[part].to(device), examples.y[part].to(device)
        heads = examples.heads
        if heads is not None:
            heads = (heads if len(heads) == 1 else heads[part]).to(device)
        optimizer.zero_grad()
        with batchnorm_preserved(self.model, only_on_error=True):
            loss = self.gradients(x, y, heads)
        step_counting(optimizer, len(part))
        if self.scheduler is not None:
            advance(self.scheduler, loss)
        return loss

    def gradients(self, x: Tensor, y: Tensor, heads: Tensor | None) -> float:
        """Those of the mean loss of the draws and of the penalty; the former."""
        total = 0.0
        for _ in range(self.plan.num_samples):
            # a copy, as it may write into it, and the next draw needs it
            logits = forward_with_variance(self.model, x.clone(), self.advice)
            require_outputs(logits.shape, len(x), self.stream)
            if heads is not None:
                logits = logits.masked_fill(~heads, -math.inf)
            loss = F.cross_entropy(logits, y)
            (loss / self.plan.num_samples).backward()
            total += loss.item() / self.plan.num_samples
        penalty = self.strategy.penalty(self.model)
        held = 0.0
        if isinstance(penalty, Tensor):
            held = penalty.item()
            if penalty.requires_grad:  # not where all it holds is frozen
                penalty.backward()
        if not math.isfinite(total + held):
            raise InputError(
                f"the loss of task {self.number} became {total + held} in epoch {self.place.epoch + 1}: take a smaller "
                "learning rate; the model is as the step before left it"
            )
        return total

    def end_task(self) -> None:
        """Note what the task came to, and turn to the next."""
        assert self.task is not None
        self.result.tasks.append(self.task.name)
        row = {"loss": self.place.loss / max(self.place.seen, 1), "seconds": self.place.seconds}
        row["bytes_kept"] = float(self.strategy.bytes_kept())
        if any(True for _ in binary_layers(self.model)):
            state, self.modes = health_since(self.model, self.modes)
            row |= {"entropy_bits": state.entropy_bits, "saturated": state.saturated, "kl": state.kl}
            row["fullest_bits"] = min(state.layer_entropy_bits.values())
            row["flips"] = float(state.flips or 0)
        self.result.history.append(row)
        self.number, self.place = self.number + 1, Place()
        self.task = self.optimizer = self.scheduler = self.examples = None


def steps(examples: Examples, batch_size: int) -> int:
    """Batches per epoch, all of nearly the same size, so that none is left with a single example, unless asked for."""
    most = len(examples.x) // min(batch_size, 2)
    return max(1, min(round(len(examples.x) / batch_size), most))


def check(examples: Examples, task: Task, outputs: int) -> None:
    """Raise InputError unless `examples` can be learned by a network with so many outputs."""
    if len(examples.x) == 0:
        raise InputError(f"task {task.name!r} has no example to learn from; leave it out of the stream")
    if not bool(torch.isfinite(examples.x).all()):
        raise InputError(f"task {task.name!r} has NaN or infinite inputs; clean the data first")
    low, high = int(examples.y.min()), int(examples.y.max())
    if low < 0 or high >= outputs:
        raise InputError(
            f"task {task.name!r} has labels from {low} to {high}, but the network's {outputs} outputs are for 0 to "
            f"{outputs - 1}; take a head with more outputs, or number the labels anew"
        )
    require_several(task)
    if examples.heads is not None:
        heads = examples.heads.expand(len(examples.y), -1)
        if not bool(heads.gather(1, examples.y[:, None]).all()):
            raise InputError(f"task {task.name!r} has labels outside its own classes {task.classes}")
