"""The networks of the split benchmark, and every method as a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from permuted_methods import Fixed
from torch import nn

import varbnn as vb
from varbnn import continual
from varbnn.cli.lifelong import falling
from varbnn.continual import Coreset, Strategy, Stream, Task
from varbnn.posteriors import Bernoulli, Point, Posterior

Settings = dict[str, Any]
WIDTH = 100
STORED = 40  # examples of each task that replay and the coreset keep: 20 per class
REMIND = 20  # epochs over what is stored, before a prediction
LIVING = Bernoulli(init_scale=0.0)  # what no task has taught stays a fair coin, whatever the strength
PUBLISHED = Bernoulli(estimator="concrete", relaxation=1e-2, numerics="reference", init_scale=0.0)


def network(outputs: int, posterior: Posterior | None, activation: str, head: float = 1.0) -> nn.Module:
    """784-100-100-outputs, layer norm without scale and shift behind each hidden layer.

    Args:
        outputs: of the stream.
        posterior: of the weights, which have no biases beside them then; None for real weights, with biases.
        activation: ``"relu"`` or ``"tails"``.
        head: the outputs of binary weights are multiplied by so much / √100.
    """
    layers: list[nn.Module] = []
    for inputs, width in pairwise((784, WIDTH, WIDTH)):
        layers += [nn.Linear(inputs, width, bias=posterior is None), nn.LayerNorm(width, elementwise_affine=False)]
        layers += [vb.nn.Tails() if activation == "tails" else nn.ReLU()]
    layers += [nn.Linear(WIDTH, outputs, bias=posterior is None)]
    if posterior is None:
        return nn.Sequential(*layers)
    # ±1 weights cannot shrink the outputs; a learned scale would be one more thing to forget
    return vb.binarize(nn.Sequential(*layers, Fixed(head / math.sqrt(WIDTH))), posterior=posterior)


@dataclass(frozen=True)
class Method:
    """How a stream is learned, and what is tried.

    Attributes:
        posterior: of the network; None for real weights.
        strategy: (settings, stream) → strategy.
        tried: settings, of which the best on validation data is taken; by scenario where they differ.
        fixed: settings that all trials share.
        prepare: what is done to the network first.
        tuned: seeds of each trial but task-incremental; more where one seed's best is not another's.
    """

    posterior: Posterior | None
    strategy: Callable[[Settings, Stream], Strategy]
    tried: list[Settings] | dict[str, list[Settings]]
    fixed: Settings = field(default_factory=dict)
    prepare: Callable[[nn.Module, Settings], nn.Module] = lambda model, settings: model
    tuned: int = 1

    def trials(self, scenario: str) -> list[Settings]:
        """The settings to try."""
        tried = self.tried[scenario] if isinstance(self.tried, dict) else self.tried
        return [{**self.fixed, **settings} for settings in tried]

    def network(self, outputs: int, settings: Settings) -> nn.Module:
        posterior = self.posterior
        if isinstance(posterior, Bernoulli) and "start" in settings:
            posterior = replace(posterior, init_scale=settings["start"])
        model = network(outputs, posterior, settings["activation"], settings.get("head", 1.0))
        return self.prepare(model, settings)


def latents(settings: Settings) -> Callable[[nn.Module, Task], torch.optim.Optimizer]:
    return lambda model, task: vb.optim.StraightThrough(model.parameters(), settings["lr"])


def floats(settings: Settings) -> Callable[[nn.Module, Task], torch.optim.Optimizer]:
    return lambda model, task: torch.optim.Adam(model.parameters(), settings["lr"])


def fine_tune(settings: Settings, stream: Stream) -> Strategy:
    return continual.FineTune(latents(settings))


def joint(settings: Settings, stream: Stream) -> Strategy:
    return continual.Joint(latents(settings), stream)


def ewc(settings: Settings, stream: Stream) -> Strategy:
    return continual.EWC(floats(settings), settings["strength"], examples=500)


def online_ewc(settings: Settings, stream: Stream) -> Strategy:
    return continual.OnlineEWC(floats(settings), settings["strength"], examples=500)


def mean_field(settings: Settings, stream: Stream) -> Strategy:
    return continual.MeanField(floats(settings))


def gaussian(model: nn.Module, settings: Settings) -> nn.Module:
    return continual.mean_field(model, settings["init_sd"])


def metaplastic(settings: Settings, stream: Stream) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return vb.optim.Metaplastic(model.parameters(), settings["lr"], metaplasticity=settings["metaplasticity"])

    return continual.FineTune(optimizer)


def replay(settings: Settings, stream: Stream) -> Strategy:
    return continual.Replay(fine_tune(settings, stream), Coreset(STORED, "random"), settings["share"])


def reminded_replay(settings: Settings, stream: Stream) -> Strategy:
    """Replay, whose copy also learns what is stored again before it is asked."""

    def again(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return vb.optim.StraightThrough(model.parameters(), settings["remind_lr"])

    coreset = Coreset(STORED, "random")
    inside = continual.Replay(fine_tune(settings, stream), coreset, settings["share"])
    return continual.Rehearsal(inside, coreset, again, epochs=REMIND, schedule=falling)


def published(settings: Settings, stream: Stream) -> Strategy:
    """BayesBiNN as in its authors' code for continual learning."""

    def optimizer(model: nn.Module, task: Task, prior: Any) -> torch.optim.Optimizer:
        return vb.optim.BayesBiNN(model.parameters(), settings["lr"], dataset_size=len(task), prior=prior)

    return continual.PosteriorAsPrior(optimizer)


class Rounded(continual.PosteriorAsPrior):
    """Carries a posterior of so many bits per weight from task to task, on either grid."""

    grid: continual.stored.Grid = "natural"
    state_dict = continual.PosteriorAsPrior.state_dict  # what is carried is in the model

    def end(self, model: nn.Module, task: Task, number: int) -> None:
        if self.bits is not None:
            continual.store(model, self.bits, self.grid).load_into(model)


def bayes(settings: Settings, stream: Stream) -> continual.PosteriorAsPrior:
    """Ours: exact draws, straight-through natural gradient, posterior as prior."""

    def optimizer(model: nn.Module, task: Task, prior: Any) -> torch.optim.Optimizer:
        first, middle, head = model.parameters()
        late = settings.get("late", 0.0) if isinstance(prior, list) else 0.0
        if stream.settings["scenario"] == "task":  # a new head must be there before the layers below listen to it
            groups = [{"params": [first, middle], "late": late}, {"params": [head]}]
        else:
            groups = [{"params": [first]}, {"params": [middle, head], "late": late}]
        temperature = settings["temperature"] * settings.get("colder", 1.0)
        return vb.optim.BayesBiNN(groups, settings["lr"], dataset_size=len(task), temperature=temperature, prior=prior)

    strategy = Rounded(optimizer, settings["strength"], settings.get("bits"))
    strategy.grid = settings.get("stored", "natural")
    return strategy


def bayes_with_coreset(settings: Settings, stream: Stream) -> Strategy:
    """Ours, and stored examples: learned along with each task, and by a copy again before it is asked."""

    def again(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        size, temperature = settings["weight"] * len(task), settings["temperature"]
        prior = vb.as_prior(model)
        return vb.optim.BayesBiNN(
            model.parameters(), settings["remind_lr"], dataset_size=size, temperature=temperature, prior=prior
        )

    coreset = Coreset(STORED, settings.get("choose", "random"))
    strategy: Strategy = bayes(settings, stream)
    if settings.get("share"):
        strategy = continual.Replay(strategy, coreset, settings["share"])
    if settings.get("weight"):
        strategy = continual.Rehearsal(strategy, coreset, again, epochs=REMIND, schedule=falling)
    return strategy


def trials(**values: tuple[Any, ...]) -> list[Settings]:
    """The first value of every name together, then the second, and so on."""
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


RELU: Settings = {"activation": "relu"}
OURS: Settings = {**RELU, "lr": 2e-2}
MOVING = trials(temperature=(1.0, 1.0, 0.5), strength=(3.0, 2.5, 3.0), head=(0.5,) * 3, late=(0.3,) * 3)
STEADY = trials(temperature=(0.1, 0.2, 0.3), strength=(3.0,) * 3, head=(1.0,) * 3, late=(0.5,) * 3)
HELD = trials(
    activation=("tails", "tails", "relu"),
    temperature=(1.0, 1.0, 0.1),
    strength=(6.0, 10.0, 3.0),
    head=(3.0, 3.0, 1.0),
    late=(0.3,) * 3,
)
STIFF = trials(strength=(1e4, 1e5, 1e6))
METHODS = {
    "joint": Method(Point(), joint, trials(lr=(1e-3, 1e-3, 1e-2), head=(1.0, 3.0, 1.0)), RELU),
    "fine-tuning": Method(Point(), fine_tune, trials(lr=(1e-3, 1e-4, 1e-3), head=(1.0, 1.0, 0.3)), RELU),
    "metaplastic": Method(Point(), metaplastic, trials(metaplasticity=(10.0, 50.0, 200.0)), {**RELU, "lr": 1e-3}),
    "published": Method(PUBLISHED, published, trials(lr=(1e-3, 1e-2, 3e-2)), RELU),
    "ewc": Method(None, ewc, STIFF, {**RELU, "lr": 1e-3}, tuned=3),
    "online ewc": Method(None, online_ewc, STIFF, {**RELU, "lr": 1e-3}, tuned=3),
    "vcl": Method(None, mean_field, trials(lr=(1e-3, 5e-3, 1e-3), init_sd=(0.05, 0.05, 0.02)), RELU, gaussian),
    "posterior": Method(LIVING, bayes, {"task": STEADY, "domain": MOVING, "class": HELD}, OURS),
    "replay": Method(Point(), replay, trials(share=(0.5, 0.5, 0.7), head=(1.0, 3.0, 1.0)), {**RELU, "lr": 1e-3}),
    "replay, reminded": Method(
        Point(),
        reminded_replay,
        trials(remind_lr=(1e-3, 3e-4, 1e-3), head=(1.0, 1.0, 3.0)),
        {**RELU, "lr": 1e-3, "share": 0.5},
    ),
    "posterior, coreset": Method(
        LIVING,
        bayes_with_coreset,
        trials(activation=("relu", "tails", "tails"), temperature=(0.1, 0.1, 0.03), weight=(5.0, 5.0, 10.0)),
        {"lr": 2e-2, "late": 0.3, "strength": 1.5, "head": 1.0, "share": 0.5, "remind_lr": 5e-2},
    ),
}
ROUNDED: dict[str, Settings] = {
    "posterior, 8 bits": {"bits": 8},
    "posterior, 8 bits of the mean": {"bits": 8, "stored": "mean"},
    "posterior, 4 bits": {"bits": 4},
    "posterior, 4 bits of the mean": {"bits": 4, "stored": "mean"},
}
"""Ours with less memory."""
ABLATED: dict[str, Settings] = {
    "as chosen": {},
    "strength 1": {"strength": 1.0},
    "strength 1.5": {"strength": 1.5},
    "outputs × 3/10": {"head": 3.0},
    "nothing waits": {"late": 0.0},
    "a random start, λ from 0.1 · N(0, 1)": {"start": 0.1},
    "tails for ReLU": {"activation": "tails"},
    "temperature × 1/10": {"colder": 0.1},
}
"""Ours with one thing changed, or as it was chosen."""
