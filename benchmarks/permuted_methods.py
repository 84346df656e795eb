"""The networks of the permuted-MNIST benchmark, and every method as an optimizer and a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import continual
from varbnn.continual import Strategy, Task
from varbnn.posteriors import Bernoulli, Point, Posterior

Settings = dict[str, Any]
WIDTH = 100
HEAD_SCALE = 3.0
"""What the normalised outputs are multiplied by; a learned scale would be one more thing to forget."""
LIVING = Bernoulli()
PUBLISHED = Bernoulli(estimator="concrete", relaxation=1e-2, numerics="reference", init_scale=0.0)


class Fixed(nn.Module):
    """A number that everything is multiplied by."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.value


def network(norm: str, posterior: Posterior | None, head_scale: float = HEAD_SCALE) -> nn.Sequential:
    """784-100-100-10 without a real parameter: a norm without scale and shift behind every layer.

    Args:
        norm: ``"batch"``, with ReLU, or ``"layer"``, with `varbnn.nn.Tails`.
        posterior: of the weights; None for real ones, the float twin.
        head_scale: of the outputs.
    """
    sizes, layers = (784, WIDTH, WIDTH, 10), []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=False)]
        if norm == "batch":
            layers += [nn.BatchNorm1d(outputs, affine=False), nn.ReLU()]
        else:
            layers += [nn.LayerNorm(outputs, elementwise_affine=False), vb.nn.Tails()]
    model = nn.Sequential(*layers[:-1], Fixed(head_scale))
    return model if posterior is None else vb.binarize(model, posterior=posterior)  # type: ignore[return-value]


@dataclass(frozen=True)
class Method:
    """How a stream is learned, and what was tried.

    Attributes:
        title: in tables.
        trials: settings, of which the best on validation data is taken; ``norm`` is among them.
        posterior: of the network; None for real weights.
        strategy: settings → strategy.
        epochs: × those of the others.
        batch_size, head_scale: of its training.
        joint: all tasks at once.
        gaussian: every real weight has a Gaussian.
        tried: tasks and epochs of a trial.
    """

    title: str
    trials: list[Settings]
    posterior: Posterior | None
    strategy: Callable[[Settings], Strategy]
    epochs: int = 1
    batch_size: int = 1000
    head_scale: float = HEAD_SCALE
    joint: bool = False
    gaussian: bool = False
    tried: tuple[int, int] = (5, 5)

    def network(self, settings: Settings) -> nn.Sequential:
        model = network(settings["norm"], self.posterior, self.head_scale)
        return continual.mean_field(model) if self.gaussian else model  # type: ignore[return-value]


def bayes(settings: Settings) -> Strategy:
    """Ours: exact draws, straight-through natural gradient, posterior as prior."""

    def optimizer(model: nn.Module, task: Task, prior: Any) -> torch.optim.Optimizer:
        first, *above = model.parameters()
        late = settings["late"] if isinstance(prior, list) else 0.0
        groups = [{"params": [first]}, {"params": above, "late": late}]
        return vb.optim.BayesBiNN(
            groups, settings["lr"], dataset_size=len(task), temperature=settings["temperature"], prior=prior
        )

    return continual.PosteriorAsPrior(optimizer, settings["strength"])


def published(settings: Settings) -> Strategy:
    """BayesBiNN as in its authors' code for this experiment."""

    def optimizer(model: nn.Module, task: Task, prior: Any) -> torch.optim.Optimizer:
        return vb.optim.BayesBiNN(
            model.parameters(), settings["lr"], dataset_size=len(task), temperature=1.0, prior=prior
        )

    return continual.PosteriorAsPrior(optimizer)


def straight_through(settings: Settings) -> Strategy:
    return continual.FineTune(lambda model, task: vb.optim.StraightThrough(model.parameters(), settings["lr"]))


def metaplastic(settings: Settings) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return vb.optim.Metaplastic(model.parameters(), settings["lr"], metaplasticity=settings["metaplasticity"])

    return continual.FineTune(optimizer)


def float_adam(settings: Settings) -> Strategy:
    return continual.FineTune(lambda model, task: torch.optim.Adam(model.parameters(), settings["lr"]))


def online_ewc(settings: Settings) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), settings["lr"])

    return continual.OnlineEWC(optimizer, settings["strength"])


def mean_field(settings: Settings) -> Strategy:
    def optimizer(model: nn.Module, task: Task) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), settings["lr"])

    return continual.MeanField(optimizer, settings["prior_sd"])


def grid(**choices: tuple[Any, ...]) -> list[Settings]:
    """Every combination, the last name turning fastest."""
    found: list[Settings] = [{}]
    for name, values in choices.items():
        found = [{**settings, name: value} for settings in found for value in values]
    return found


BOTH = ("batch", "layer")
OURS = [
    {"lr": lr, "late": 0.3, "temperature": temperature, "strength": 1.5}
    for lr, temperature in ((2e-2, 1.0), (2e-2, 0.5))
]
RATES = (1e-3, 1e-4)
METHODS = {
    "posterior, batch norm": Method(
        "**posterior as prior**, batch norm",
        [*({"norm": "batch", **row} for row in OURS), {"norm": "batch", **OURS[0], "lr": 1e-2, "batch": 256}],
        LIVING,
        bayes,
    ),
    "posterior, layer norm": Method(
        "**posterior as prior**, layer norm, tails", [{"norm": "layer", **row} for row in OURS], LIVING, bayes
    ),
    "posterior, 10 tasks": Method(
        "**posterior as prior**, layer norm, tails",
        [
            {"norm": "layer", "lr": 1e-2, "late": 0.3, "temperature": 1.0, "strength": strength, "batch": 256}
            for strength in (1.3, 1.15)
        ],
        LIVING,
        bayes,
        tried=(10, 5),
    ),
    "posterior, 100 tasks": Method(
        "**posterior as prior**, layer norm, tails",
        [
            {"norm": "layer", "lr": 2e-2, "late": 0.3, "temperature": 1.0, "strength": strength, "batch": 256}
            for strength in (1.0, 0.9)
        ],
        LIVING,
        bayes,
        tried=(20, 1),
    ),
    "published": Method(
        "BayesBiNN, published settings",
        [{"norm": "batch", "lr": 1e-3}],
        PUBLISHED,
        published,
        batch_size=100,
        head_scale=1.0,
    ),
    "published, 100 epochs": Method(
        "BayesBiNN, published settings, 100 epochs",
        [{"norm": "batch", "lr": 1e-3}],
        PUBLISHED,
        published,
        epochs=5,
        batch_size=100,
        head_scale=1.0,
    ),
    "fine-tuning": Method("fine-tuning, straight-through", grid(norm=BOTH, lr=RATES), Point(), straight_through),
    "online ewc": Method(
        "online EWC, float",
        [
            *grid(norm=BOTH, lr=(1e-3,), strength=(10.0, 100.0)),
            *grid(norm=("layer",), lr=(1e-3,), strength=(3.0, 1.0)),
        ],
        None,
        online_ewc,
    ),
    "metaplastic": Method(
        "metaplastic latents",
        grid(norm=BOTH, lr=(1e-3,), metaplasticity=(1.35, 10.0)),
        Point(),
        metaplastic,
    ),
    "mean field": Method(
        "VCL, float mean field",
        grid(norm=BOTH, lr=(1e-3,), prior_sd=(0.1, 1.0)),
        None,
        mean_field,
        gaussian=True,
    ),
    "joint, posterior": Method(
        "all tasks at once, posterior",
        grid(norm=("layer",), lr=(2e-2,), late=(0.0,), temperature=(0.3,), strength=(1.0,)),
        LIVING,
        bayes,
        joint=True,
    ),
    "joint, float": Method("all tasks at once, float", grid(norm=("layer",), lr=(1e-3,)), None, float_adam, joint=True),
}
