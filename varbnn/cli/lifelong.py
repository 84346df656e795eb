"""What `varbnn continual` can be asked for: streams, networks, and ways to learn one task after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import varbnn as vb
from varbnn import continual
from varbnn.continual import Strategy, Stream, Task
from varbnn.continual.run import Schedule
from varbnn.data import Dataset
from varbnn.errors import InputError
from varbnn.optim import BayesBiNN, BiMU, Metaplastic, StraightThrough, WindowedBayes
from varbnn.posteriors import Bernoulli, Point, Posterior

Settings = Mapping[str, float]

USUAL_TASKS = 5

HEAD_SCALE = 3.0
"""Of outputs with a variance of 1, which could never be sure; a learned one would be one more thing to forget."""

FEW_OUTPUTS = 3
"""Of a layer; layer norm makes ±1 of two."""


def _permuted(data: Dataset, tasks: int | None, seed: int) -> Stream:
    return continual.permuted(data, tasks or USUAL_TASKS, seed)


def _rotated(data: Dataset, tasks: int | None, seed: int) -> Stream:
    return continual.rotated(data, tasks or USUAL_TASKS)


def _split(scenario: continual.streams.Scenario) -> Callable[[Dataset, int | None, int], Stream]:
    def made(data: Dataset, tasks: int | None, seed: int) -> Stream:
        count = tasks or max(1, data.num_classes // 2)
        if data.num_classes % count:
            raise InputError(
                f"argument --tasks: {count} tasks cannot share the {data.num_classes} classes of {data.name} evenly; "
                f"give one of {', '.join(str(n) for n in range(1, data.num_classes + 1) if data.num_classes % n == 0)}"
            )
        return continual.split(data, data.num_classes // count, scenario)

    return made


STREAMS: dict[str, Callable[[Dataset, int | None, int], Stream]] = {
    "permuted": _permuted,
    "rotated": _rotated,
    "split-task": _split("task"),
    "split-domain": _split("domain"),
    "split-class": _split("class"),
}
"""By name, (data, tasks, seed) → stream; split streams divide the classes among the tasks."""


def network(stream: Stream, widths: Sequence[int], posterior: Posterior | None, norm: str = "layer") -> nn.Module:
    """A binary multilayer perceptron in which every parameter has a belief: a real one knows no prior and is forgotten.

    Without a posterior it is the float twin, with a Gaussian over every weight.

    Args:
        stream: to be learned.
        widths: of the hidden layers.
        posterior: over every weight.
        norm: ``"layer"`` with `varbnn.nn.Tails`, or ``"batch"`` with ReLU; neither has a scale or a shift.

    >>> from varbnn.data import load
    >>> stream = continual.permuted(load("digits"))
    >>> [name for name, p in network(stream, (8,), Point()).named_parameters() if p.requires_grad]
    ['0.latent', '3.latent']
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise([stream.inputs, *widths, stream.outputs]):
        layers += [nn.Linear(inputs, outputs, bias=False)]
        if norm == "batch":
            layers += [nn.BatchNorm1d(outputs, affine=False), nn.ReLU()]
        elif outputs > FEW_OUTPUTS:
            layers += [nn.LayerNorm(outputs, elementwise_affine=False), vb.nn.Tails()]
        else:  # of so few, layer norm leaves next to nothing
            layers += [vb.nn.Scale(outputs, inputs**-0.5).requires_grad_(False), vb.nn.Tails()]
    layers[-1] = vb.nn.Scale(stream.outputs, HEAD_SCALE).requires_grad_(False)
    model = nn.Sequential(*layers)
    return continual.mean_field(model) if posterior is None else vb.binarize(model, posterior)


def falling(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Rates fall along a cosine to 0; those of groups with a ``late`` above 0 rise first, until that share of the task.

    When a task begins its inputs are strange and the loss is high. What the layers above would learn from that is
    wrong, and would be lost to the earlier tasks.
    """

    def course(late: float) -> Callable[[int], float]:
        def factor(step: int) -> float:
            done = min(step / steps, 1.0)
            return (1 + math.cos(math.pi * done)) / 2 * (min(1.0, done / late) ** 2 if late else 1.0)

        return factor

    return LambdaLR(optimizer, [course(group.get("late", 0.0)) for group in optimizer.param_groups])


@dataclass(frozen=True)
class Asked:
    """What a method is made from.

    Attributes:
        settings: numbers of the method, by name.
        stream: the one to be learned.
        keep: examples of each task that may be stored.
        batch_size: of a step.
        seed: of what is chosen at random.
    """

    settings: Settings
    stream: Stream
    keep: int
    batch_size: int
    seed: int

    def __getitem__(self, name: str) -> float:
        return self.settings[name]


@dataclass(frozen=True)
class Method:
    """A way to learn one task after the other.

    Attributes:
        title: for people.
        posterior: over every weight; None is a Gaussian over real ones.
        strategy: made for one run.
        settings: names of its numbers, with what they are for streams of few inputs (digits).
        many: what differs for streams of tens of thousands (MNIST).
        schedule: of the rates within every task; None for what goes through the stream at one pace.
    """

    title: str
    posterior: Posterior | None
    strategy: Callable[[Asked], Strategy]
    settings: Settings
    many: Settings = field(default_factory=dict)
    schedule: Schedule | None = falling


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not fixed."""
    return [p for p in model.parameters() if p.requires_grad]


def _prior(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task, prior: Any) -> BayesBiNN:
        first, *above = trained(model)
        late = asked["late"] if isinstance(prior, list) else 0.0  # the first task has no earlier one to spare
        groups: list[dict[str, Any]] = [{"params": [first]}, {"params": above, "late": late}]
        return BayesBiNN(groups, asked["lr"], len(task), asked["temperature"], prior=prior)

    return continual.PosteriorAsPrior(optimizer, asked["strength"])


def _straight_through(asked: Asked) -> Callable[[nn.Module, Task], torch.optim.Optimizer]:
    return lambda model, task: StraightThrough(trained(model), asked["lr"])


def _finetune(asked: Asked) -> Strategy:
    return continual.FineTune(_straight_through(asked))


def _windowed(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> WindowedBayes:
        return WindowedBayes(trained(model), asked["lr"], asked["window"], asked.batch_size)

    return continual.FineTune(optimizer, keep=True)


def _bimu(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> BiMU:
        steps = (asked["lr"], asked["likelihood_multiplier"], asked["kl_multiplier"], asked["lr_max"])
        return BiMU(trained(model), *steps, asked["memory"], asked.batch_size)

    return continual.FineTune(optimizer, keep=True)


def _metaplastic(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> Metaplastic:
        return Metaplastic(trained(model), asked["lr"], asked["metaplasticity"])

    return continual.FineTune(optimizer, keep=True)


def _ewc(asked: Asked) -> Strategy:
    return continual.EWC(_straight_through(asked), asked["strength"])


def _online_ewc(asked: Asked) -> Strategy:
    return continual.OnlineEWC(_straight_through(asked), asked["strength"], gamma=asked["gamma"])


def _replay(asked: Asked) -> Strategy:
    return continual.Replay(_finetune(asked), _coreset(asked), asked["share"])


def _prior_replay(asked: Asked) -> Strategy:
    return continual.Replay(_prior(asked), _coreset(asked), asked["share"])


def _coreset(asked: Asked) -> continual.Coreset:
    return continual.Coreset(asked.keep, "random", seed=asked.seed)


def _joint(asked: Asked) -> Strategy:
    return continual.Joint(_straight_through(asked), asked.stream)


def _mean_field(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam(trained(model), asked["lr"])

    return continual.MeanField(optimizer, asked["prior_sd"], asked["temperature"])


RELAXED = Bernoulli("concrete", relaxation=1.0, gradient="euclidean")

METHODS: dict[str, Method] = {
    "prior": Method(
        "yesterday's posterior is today's prior (BayesBiNN)",
        Bernoulli(),
        _prior,
        dict(lr=2e-2, temperature=0.1, strength=2.0, late=0.0),
        dict(lr=1e-2, temperature=1.0, strength=1.5, late=0.3),
    ),
    "windowed": Method(
        "a posterior with a window, which needs no boundaries (WindowedBayes)",
        Bernoulli(),
        _windowed,
        dict(lr=0.77, window=3e5),
        schedule=None,
    ),
    "bimu": Method(
        "a posterior with a wary step, which needs no boundaries (BiMU)",
        RELAXED,
        _bimu,
        dict(lr=4.9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=0.0023, memory=700.0),
        schedule=None,
    ),
    "metaplastic": Method(
        "one network whose large latents resist (Laborieux et al.)",
        Point(),
        _metaplastic,
        dict(lr=3e-3, metaplasticity=20.0),
        dict(lr=5e-3, metaplasticity=1.35),
        schedule=None,
    ),
    "finetune": Method(
        "one network, nothing done about forgetting (StraightThrough)", Point(), _finetune, dict(lr=1e-3)
    ),
    "replay": Method("one network that learns a few stored examples again", Point(), _replay, dict(lr=3e-3, share=0.5)),
    "prior-replay": Method(
        "yesterday's posterior is today's prior, and a few stored examples are learned again",
        Bernoulli(),
        _prior_replay,
        dict(lr=2e-2, temperature=0.03, strength=1.5, late=0.0, share=0.5),
        dict(lr=1e-2, temperature=1.0, late=0.3),
    ),
    "ewc": Method("one network on springs (EWC)", Point(), _ewc, dict(lr=1e-3, strength=100.0)),
    "online-ewc": Method(
        "one network on springs that are as many for any number of tasks (online EWC)",
        Point(),
        _online_ewc,
        dict(lr=1e-3, strength=300.0, gamma=1.0),
    ),
    "mean-field": Method(
        "the float twin: a Gaussian over real weights, the posterior is the next prior",
        None,
        _mean_field,
        dict(lr=3e-3, prior_sd=1.0, temperature=0.1),
        dict(lr=1e-3, temperature=1.0),
    ),
    "joint": Method("one network, all tasks so far at once: the ceiling", Point(), _joint, dict(lr=3e-3)),
}
"""By their names on the command line."""
