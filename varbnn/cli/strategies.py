"""The methods of `varbnn continual`: ways to learn one task after the other, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from varbnn import continual
from varbnn.cli.lifelong import falling
from varbnn.continual import Strategy, Stream, Task
from varbnn.continual.run import Schedule
from varbnn.errors import InputError
from varbnn.optim import BayesBiNN, BiMU, FollowingPrior, Metaplastic, StraightThrough, WindowedBayes
from varbnn.posteriors import Bernoulli, Point, Posterior

Settings = Mapping[str, float]


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
    if not 0 <= asked["late"] < 1:
        raise InputError(f"argument --set: late must be a share of the task in [0, 1), got {asked['late']:g}")

    def optimizer(model: nn.Module, task: Task, prior: Any) -> BayesBiNN:
        first, *above = trained(model)
        late = asked["late"] if isinstance(prior, list) else 0.0  # the first task has no earlier one to spare
        groups: list[dict[str, Any]] = [{"params": [first]}, {"params": above, "late": late}]
        return BayesBiNN(groups, asked["lr"], dataset_size=len(task), temperature=asked["temperature"], prior=prior)

    return continual.PosteriorAsPrior(optimizer, asked["strength"])


def _straight_through(asked: Asked) -> Callable[[nn.Module, Task], torch.optim.Optimizer]:
    return lambda model, task: StraightThrough(trained(model), asked["lr"])


def _finetune(asked: Asked) -> Strategy:
    return continual.FineTune(_straight_through(asked))


def _windowed(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> WindowedBayes:
        return WindowedBayes(trained(model), asked["lr"], window=asked["window"], batch_size=asked.batch_size)

    return continual.FineTune(optimizer, keep=True)


def _following(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> FollowingPrior:
        return FollowingPrior(
            trained(model), asked["lr"], window=asked["window"], settling=asked["settling"], batch_size=asked.batch_size
        )

    return continual.FineTune(optimizer, keep=True)


def _bimu(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> BiMU:
        steps: dict[str, Any] = {
            name: asked[name] for name in ("likelihood_multiplier", "kl_multiplier", "lr_max", "memory")
        }
        return BiMU(trained(model), asked["lr"], **steps, batch_size=asked.batch_size)

    return continual.FineTune(optimizer, keep=True)


def _metaplastic(asked: Asked) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> Metaplastic:
        return Metaplastic(trained(model), asked["lr"], metaplasticity=asked["metaplasticity"])

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
    "following": Method(
        "a posterior whose prior follows it, which needs no boundaries (FollowingPrior)",
        Bernoulli(),
        _following,
        dict(lr=1.5, window=3e5, settling=1e4),
        dict(window=5e5, settling=1e5),
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
