"""Elastic weight consolidation: springs that hold what earlier tasks depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.checks import finite_number, whole_number
from varbnn.continual.strategies import Strategy, heads_of, outputs_of, require_keys
from varbnn.continual.tasks import Task
from varbnn.errors import CheckpointError, InputError
from varbnn.nn.batchnorm import device_of
from varbnn.nn.draws import evaluating

Labels = Literal["sampled", "empirical"]
Tensors = dict[str, Tensor]


def fisher_diagonal(
    model: nn.Module, x: Tensor, y: Tensor | None = None, heads: Tensor | None = None
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of every parameter, a mean over examples.

        F_i = mean over examples of (∂ log p(y | x) / ∂θ_i)²

    In eval mode, so batch norm uses its running statistics; one backward pass for each example, because the square of
    a mean gradient is something else. Of a `varbnn.posteriors.Point` it is the information of the latents, by the
    straight-through gradient.

    Args:
        model: gives N×outputs logits.
        x: inputs, N×….
        y: labels; when absent, each is drawn from the model's own prediction (torch's global generator), which is the
            Fisher information proper. With the labels of the data it is the empirical one.
        heads: outputs that may answer, 1×outputs; absent is all.

    Returns:
        By the name of the parameter.

    Raises:
        InputError: no example, a model of which every parameter is frozen.

    Source: Kirkpatrick et al. 2017; that labels belong to the model, and what the empirical form costs, Martens 2014.

    >>> model = nn.Linear(2, 2)
    >>> sorted(fisher_diagonal(model, torch.randn(5, 2)))
    ['bias', 'weight']
    """
    if not len(x):
        raise InputError("the Fisher information needs at least one example, got none")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError(
            f"{type(model).__name__} has no parameter that learns, so none has Fisher information; call "
            "requires_grad_(True) on those that shall"
        )
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    device = device_of(model)
    with evaluating(model), torch.enable_grad():
        for index in range(len(x)):
            logits = model(x[index : index + 1].to(device, copy=True))  # it may write into them
            if heads is not None:
                logits = logits.masked_fill(~heads.to(device), -math.inf)
            if y is None:
                label = torch.multinomial(logits.detach().softmax(-1), 1)[0]
            else:
                label = y[index : index + 1].to(device)
            loss = F.cross_entropy(logits, label)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square() / len(x)
    return total


class _Springs(Strategy):
    """Quadratic penalties around what the parameters were."""

    def __init__(
        self,
        optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer],
        strength: float,
        examples: int,
        labels: Labels,
    ) -> None:
        strength, examples = finite_number("strength", strength, least=0), whole_number("examples", examples)
        if labels not in ("sampled", "empirical"):
            raise InputError(f"labels must be 'sampled' or 'empirical', got {labels!r}")
        self.optimizer, self.strength, self.count, self.labels = optimizer, strength, examples, labels
        self._springs: list[tuple[Tensors, Tensors]] = []  # (importance, place) by the name of the parameter

    def describe(self) -> dict[str, Any]:
        own = {"strength": self.strength, "examples": self.count, "labels": self.labels}
        return {**super().describe(), **own}

    def begin(self, model: nn.Module, task: Task, number: int) -> torch.optim.Optimizer:
        if number == 0:
            self._springs = []  # those of another run
        own = {name: p.shape for name, p in model.named_parameters()}
        held = {name: place.shape for _, places in self._springs for name, place in places.items()}
        if not held.items() <= own.items():
            name = next(name for name, shape in held.items() if own.get(name) != shape)
            raise CheckpointError(
                f"the springs of {type(self).__name__} hold {name} of shape {tuple(held[name])}, which this model has "
                "not; load the state of a run with such a model"
            )
        return self.optimizer(model, task)

    def penalty(self, model: nn.Module) -> Tensor | None:
        if not self._springs or self.strength == 0:
            return None
        parameters = dict(model.named_parameters())
        total: Tensor | int = sum(
            (importance.to(p.device) * (p - place.to(p.device)).square()).sum()
            for importances, places in self._springs
            for name, importance in importances.items()
            for p, place in [(parameters[name], places[name])]
        )
        return torch.as_tensor(self.strength / 2 * total)

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        self._springs = self._joined(*self._measured(model, task))

    def _joined(self, importance: Tensors, places: Tensors) -> list[tuple[Tensors, Tensors]]:
        """The springs, with those of the task just learned."""
        raise NotImplementedError

    def _measured(self, model: nn.Module, task: Task) -> tuple[Tensors, Tensors]:
        """Importance and place of every parameter, now that `task` is learned."""
        chosen = torch.randperm(len(task))[: self.count]
        x, y = task.train_x[chosen], task.train_y[chosen]
        labels = y if self.labels == "empirical" else None
        importance = fisher_diagonal(model, x, labels, heads_of(task, outputs_of(model, task)))
        places = {name: p.detach().clone() for name, p in model.named_parameters() if name in importance}
        return importance, places

    def bytes_kept(self) -> int:
        return sum(tensor.nbytes for pair in self._springs for tensors in pair for tensor in tensors.values())

    def state_dict(self) -> dict[str, Any]:
        return {"springs": [list(pair) for pair in self._springs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require_keys(state, {"springs"}, self)
        self._springs = [(importance, place) for importance, place in state["springs"]]


class EWC(_Springs):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): a spring per parameter and task, as stiff as it mattered.

        mean loss + strength / 2 · Σ over earlier tasks k, parameters i of  F_ki (θ_i - θ_ki)²

    Memory grows by two numbers per parameter and task. For real networks and for `varbnn.posteriors.Point`, whose
    springs hold the latents.

    Args:
        optimizer: (model, task) → optimizer.
        strength: λ of the paper; F is a mean over examples and the loss too, so for tasks of equal size 1 is what
            Laplace's approximation asks for.
        examples: of each task, at most, from which F is estimated: one backward pass each.
        labels: ``"sampled"`` from the network's own prediction, or ``"empirical"``, those of the data.

    Raises:
        InputError: an argument out of range.

    >>> from varbnn import continual, data
    >>> stream = continual.split(data.load("digits"))[:2]
    >>> ewc = EWC(lambda model, task: torch.optim.Adam(model.parameters()), strength=100.0, examples=20)
    >>> result = continual.learn(nn.Linear(64, 10), stream, ewc, progress=False)
    >>> ewc.bytes_kept() == 2 * 2 * 650 * 4  # tasks, numbers, parameters, bytes
    True
    """

    def __init__(
        self,
        optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer],
        strength: float = 100.0,
        examples: int = 1000,
        labels: Labels = "sampled",
    ) -> None:
        super().__init__(optimizer, strength, examples, labels)

    def _joined(self, importance: Tensors, places: Tensors) -> list[tuple[Tensors, Tensors]]:
        return [*self._springs, (importance, places)]


class OnlineEWC(_Springs):
    """EWC with one spring per parameter for all tasks (Schwarz et al. 2018, section 3.2).

        F̃ ← gamma · F̃ + F of the task just learned;    mean loss + strength / 2 · Σ_i F̃_i (θ_i - θ_i after that task)²

    Memory does not grow with the tasks.

    Args:
        optimizer, strength, examples, labels: as of `EWC`.
        gamma: what earlier importance still counts after another task, in [0, 1]; below 1 it forgets gracefully.

    Raises:
        InputError: an argument out of range.

    >>> from varbnn import continual, data
    >>> stream = continual.split(data.load("digits"))[:2]
    >>> ewc = OnlineEWC(lambda model, task: torch.optim.Adam(model.parameters()), examples=20)
    >>> result = continual.learn(nn.Linear(64, 10), stream, ewc, progress=False)
    >>> ewc.bytes_kept() == 2 * 650 * 4
    True
    """

    def __init__(
        self,
        optimizer: Callable[[nn.Module, Task], torch.optim.Optimizer],
        strength: float = 100.0,
        examples: int = 1000,
        labels: Labels = "sampled",
        gamma: float = 1.0,
    ) -> None:
        super().__init__(optimizer, strength, examples, labels)
        self.gamma = finite_number("gamma", gamma, least=0, most=1)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "gamma": self.gamma}

    def _joined(self, importance: Tensors, places: Tensors) -> list[tuple[Tensors, Tensors]]:
        for before, earlier in self._springs:
            held = {name: self.gamma * old.to(places.get(name, old).device) for name, old in before.items()}
            importance = {**held, **{name: held.get(name, 0) + new for name, new in importance.items()}}
            places = {**earlier, **places}  # what was frozen is held where it was
        return [(importance, places)]
