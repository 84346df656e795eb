"""What is done where one task ends and the next begins; an optimizer does the learning in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.checks import finite_number, whole_number
from varbnn.continual.stored import store
from varbnn.continual.tasks import Task
from varbnn.errors import CheckpointError, InputError
from varbnn.nn import binary_layers
from varbnn.nn.batchnorm import Data, device_of
from varbnn.nn.draws import evaluating
from varbnn.optim import Rule
from varbnn.posteriors import as_prior
from varbnn.predict import Prediction, predict

Prior = float | Sequence[Tensor]


@dataclass(frozen=True)
class Examples:
    """What one task is learned from.

    Attributes:
        x, y: inputs and labels, one row each.
        heads: which outputs may answer: boolean, 1×outputs for all examples or N×outputs; None where all may.
    """

    x: Tensor
    y: Tensor
    heads: Tensor | None = None

    @classmethod
    def of(cls, task: Task, outputs: int) -> Examples:
        """The training examples of `task` for a network with so many outputs."""
        return cls(task.train_x, task.train_y, heads_of(task, outputs))


def heads_of(task: Task, outputs: int) -> Tensor | None:
    """1×outputs, True where `task` may answer; None where it may everywhere.

    >>> x, y = torch.zeros(2, 3), torch.tensor([2, 3])
    >>> heads_of(Task("2 and 3", x, y, x, y, classes=(2, 3)), outputs=5)
    tensor([[False, False,  True,  True, False]])
    """
    if len(task.classes) == outputs:
        return None
    allowed = torch.zeros(1, outputs, dtype=torch.bool)
    allowed[0, list(task.classes)] = True
    return allowed


@torch.no_grad()
def outputs_of(model: nn.Module, task: Task) -> int:
    """How many outputs the model has for inputs like those of `task`."""
    with evaluating(model):
        return int(model(task.train_x[:1].to(device_of(model), copy=True)).shape[-1])


def require_keys(state: Any, keys: set[str], strategy: Strategy) -> None:
    """Raise CheckpointError unless `state` is a dict that has what `strategy` wrote into its own."""
    if not isinstance(state, dict) or not keys <= state.keys():
        name, given = type(strategy).__name__, sorted(state) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"the state of {name} is a dict of {sorted(keys)}, got {given}; load what state_dict() of such a one gave"
        )


class Strategy:
    """A way to learn one task after the other; this one does nothing about forgetting.

    `learn` calls `begin`, then for every batch `penalty`, then `end`, and asks `predict` about every task seen so far.
    A subclass overrides what it does differently, and puts what it must remember into `state_dict`. Only `end` may
    change that: a run that is resumed inside a task calls `examples` and `begin` again. With a checkpoint, `learn`
    refuses one whose `end` is newer than its `state_dict`; where nothing more is remembered, say so by
    ``state_dict = Strategy.state_dict``, or that of the strategy it is made from.

    Attributes:
        keep: whether one optimizer goes through the whole stream.
    """

    keep = False

    def describe(self) -> dict[str, Any]:
        """Plain values that say which strategy this is; a run goes on only with the same.

        A subclass with numbers of its own adds them: ``{**super().describe(), "strength": self.strength}``.
        """
        return {"name": type(self).__name__}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        """The optimizer for `task`, the one of that `number` (from 0); `model` is as the task before left it."""
        raise NotImplementedError

    def examples(self, task: Task, number: int, outputs: int) -> Examples:
        """What to learn from while `task` lasts."""
        return Examples.of(task, outputs)

    def penalty(self, model: nn.Module) -> Tensor | float | None:
        """To be added to the mean loss of every batch; None or a number, which has no gradient, for nothing."""
        return None

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        """Consolidate, once `task` is learned."""

    def predict(
        self, model: nn.Module, x: Tensor, num_samples: int, refresh_bn: Data | None, generator: torch.Generator
    ) -> Prediction:
        """What the networks say about `x`; one network where nothing is drawn."""
        drawn = any(not layer.posterior.certain for _, layer in binary_layers(model))
        return predict(model, x, num_samples if drawn else 0, refresh_bn=refresh_bn, generator=generator)

    def for_prediction(self, model: nn.Module, task: Task, number: int) -> nn.Module:
        """The model to ask, which may be a copy that was reminded of the past; called after `end`."""
        return model

    def bytes_kept(self) -> int:
        """Size of what it carries from task to task beside the model, in bytes."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state_dict` makes the same strategy again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


class FineTune(Strategy):
    """Go on with the next task as if it were the last one: what every other strategy has to beat.

    With a rule that forgets by itself, such as `varbnn.optim.WindowedBayes` or `BiMU`, this is the way to learn a
    stream whose boundaries nobody knows: ``keep=True`` leaves the optimizer alone where a task ends.

    Args:
        optimizer: (model, task) → optimizer.
        keep: one optimizer for the whole stream, instead of a new one for every task. `bytes_kept` counts its state.
    """

    def __init__(self, optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer], keep: bool = False) -> None:
        self.optimizer, self.keep = optimizer, keep
        self._kept: torch.optim.Optimizer | None = None
        self._saved: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "keep": self.keep}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        if not self.keep:
            return self.optimizer(model, task)
        if number == 0 or self._kept is None:
            self._kept = self.optimizer(model, task)
            if self._saved is not None and number > 0:
                try:
                    self._kept.load_state_dict(self._saved)
                except Exception as error:  # whatever a state of something else makes it stumble over
                    raise CheckpointError(f"the state belongs to another model or optimizer: {error}") from error
            self._saved = None  # another run with this strategy starts from nothing
        return self._kept

    def bytes_kept(self) -> int:
        held = () if self._kept is None else self._kept.state.values()
        return sum(value.nbytes for state in held for value in state.values() if isinstance(value, Tensor))

    def state_dict(self) -> dict[str, Any]:
        return {} if self._kept is None else {"optimizer": self._kept.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_keys(state, set(), self)
        self._kept, self._saved = None, state.get("optimizer")  # one of an interrupted run may be of another model


class PosteriorAsPrior(Strategy):
    """What was believed after one task is the prior of the next (Nguyen et al. 2018; Meng et al. 2020, section 4.3).

    Args:
        optimizer: (model, task, prior) → optimizer, such as ``BayesBiNN(model.parameters(), lr,
            dataset_size=len(task), prior=prior)``. The prior is 0, fair coins, for the first task and
            `varbnn.as_prior(model)` for the others: a tensor for every belief, so give the optimizer frozen ones too.
        strength: the posterior is raised to this power before it becomes a prior (`Posterior.raised`), which multiplies
            the λ of a coin: above 1 remembers more, below 1 forgets; 1 is Bayes.
        bits: what is carried from one task to the next is rounded to so many per weight (see `varbnn.continual.store`):
            where a task ends, the model's beliefs become those rounded ones, and so the prior. 1 … 16; when absent, the
            32 of float32.

    Raises:
        InputError: a strength that is not positive, bits out of range; where a task begins, a rule without the prior.
    """

    def __init__(
        self,
        optimizer: Callable[[nn.Module, Task, Prior], torch.optim.Optimizer],
        strength: float = 1.0,
        bits: int | None = None,
    ) -> None:
        self.strength = finite_number("strength", strength, above=0, note=" (FineTune has no prior at all)")
        self.bits = None if bits is None else whole_number("bits", bits, most=16, note=", or None for float32")
        self.optimizer = optimizer
        self._size = 0

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "strength": self.strength, "bits": self.bits}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        rounded = None if self.bits is None else store(model, self.bits)
        prior = as_prior(model, self.strength)  # what cannot be rounded or raised is heard of before it learns
        if number == 0:
            self._size = 0
            return self.optimizer(model, task, 0.0)
        own = sum(tensor.nbytes for tensor in prior)
        self._size = own if rounded is None else rounded.nbytes
        optimizer = self.optimizer(model, task, prior)
        if isinstance(optimizer, Rule) and not any("prior" in state for state in optimizer.state.values()):
            raise InputError(
                f"the {type(optimizer).__name__} of PosteriorAsPrior has no prior, so nothing would be remembered; "
                "hand on what is given: lambda model, task, prior: BayesBiNN(model.parameters(), …, prior=prior)"
            )
        return optimizer

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        if self.bits is not None:
            store(model, self.bits).load_into(model)

    state_dict = Strategy.state_dict  # what it hands on is in the model

    def bytes_kept(self) -> int:
        return self._size
