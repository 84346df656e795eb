"""The methods of `uncertainty.py`: how each is trained, and the ways its networks are asked together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from uncertainty_trials import TRIALS, Settings

import varbnn as vb
from varbnn.data import Dataset, batches
from varbnn.demo.networks import network
from varbnn.demo.recipes import RECIPES
from varbnn.optim import VISPA, BayesBiNN, Bop, StraightThrough
from varbnn.posteriors import Bernoulli, LowRankGaussian, Point, Posterior

SAMPLES = 16
MEMBERS = 4
"""Networks of a deep ensemble; each is trained for its share of the epochs."""

BATCH, REFRESH = RECIPES["fashion"].batch_size, RECIPES["fashion"].refresh
PUBLISHED = Bernoulli("concrete", relaxation=1e-10, numerics="reference", init="sign", init_scale=10.0)
"""Relaxation, start and arithmetic of the released code."""

Parameters = Iterable[nn.Parameter]


@dataclass(frozen=True)
class Method:
    """A posterior (None: real weights) and its rule.

    Attributes:
        rule: (parameters, number of training inputs, settings) → optimizer.
        draws: it predicts with `SAMPLES` draws; else with one network.
        masked: it predicts with `SAMPLES` random masks of its dropout, which goes on.
        snapshots: look also at what the last epochs say together.
    """

    posterior: Posterior | None
    rule: Callable[[Parameters, int, Settings], torch.optim.Optimizer]
    draws: bool = False
    masked: bool = False
    snapshots: bool = False


def adamw(parameters: Parameters, size: int, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, **{"weight_decay": 0.0, **settings})


METHODS = {
    "posterior": Method(Bernoulli(), lambda p, n, s: BayesBiNN(p, dataset_size=n, **s), draws=True),
    "ste": Method(Point(), lambda p, n, s: StraightThrough(p, **s), snapshots=True),
    "bop": Method(Point(), lambda p, n, s: Bop(p, **s), snapshots=True),
    "vispa": Method(LowRankGaussian(rank=4), lambda p, n, s: VISPA(p, weight_decay=1e-5, **s), draws=True),
    "published": Method(PUBLISHED, lambda p, n, s: BayesBiNN(p, dataset_size=n, **s), draws=True),
    "float": Method(None, adamw),
    "dropout": Method(None, adamw, masked=True),
}
NETWORK = ("dropout", "hidden_dropout")
"""Settings of the network; the others are those of the rule."""


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        train: of the 50,000 training images, how many are used; the validation part stays 10,000.
        widths, epochs: of every network.
        trials: settings by method.
        channels: of 3×3 convolutions in front of the fully connected layers, each with a 2×2 pooling.
        activation: between the layers.
    """

    train: int
    widths: tuple[int, ...]
    epochs: int
    trials: dict[str, list[Settings]]
    channels: tuple[int, ...] = ()
    activation: str = "relu"

    def network(self, data: Dataset, posterior: Posterior | None, **left_out: float) -> nn.Module:
        """That of every method."""
        return network(data, self.widths, posterior, channels=self.channels, activation=self.activation, **left_out)


SCALES = {
    "small": Scale(10_000, (200, 200), 20, TRIALS["small"]),
    "medium": Scale(10_000, (200, 200), 40, TRIALS["medium"]),
    "long": Scale(10_000, (200, 200), 80, TRIALS["long"]),
    "full": Scale(50_000, (400, 400), 20, TRIALS["full"]),
    "conv": Scale(50_000, (128,), 12, TRIALS["conv"], channels=(16, 32)),
    "signs": Scale(10_000, (200, 200), 20, TRIALS["signs"], activation="sign"),
}


class Schedule:
    """A cosine to 0 that keeps what the network is after each of the last epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int, model: nn.Module, keep: int) -> None:
        self.cosine = CosineAnnealingLR(optimizer, epochs)
        self.model, self.first, self.epoch = model, epochs - keep, 0
        self.states: list[dict[str, Tensor]] = []

    def step(self) -> None:
        self.cosine.step()
        self.epoch += 1
        if self.epoch > self.first:
            self.states.append({key: value.clone() for key, value in self.model.state_dict().items()})


@dataclass(frozen=True)
class Trained:
    """A network after training, what it was after its last epochs, and what the training took."""

    model: nn.Module
    states: list[dict[str, Tensor]]
    ms_per_step: float
    train_loss: float


def train(name: str, data: Dataset, scale: Scale, settings: Settings, seed: int, keep: int = 0) -> Trained:
    """Train `name` once, along a cosine to 0."""
    method, epochs = METHODS[name], scale.epochs
    torch.manual_seed(seed)
    left_out = {key: settings.get(key, 0.0) for key in NETWORK}
    model = scale.network(data, method.posterior, **left_out)
    own = {key: value for key, value in settings.items() if key not in NETWORK}
    optimizer = method.rule(model.parameters(), len(data.train_x), own)
    loader = batches(data.train_x, data.train_y, BATCH, torch.Generator().manual_seed(seed))
    schedule = Schedule(optimizer, epochs, model, keep)
    start = time.process_time()
    history = vb.fit(model, optimizer, loader, epochs=epochs, scheduler=schedule, progress=False)
    spent = time.process_time() - start
    return Trained(model, schedule.states, 1e3 * spent / (epochs * len(loader)), history[-1]["loss"])


def ask(name: str, model: nn.Module, x: Tensor, data: Dataset, seed: int, samples: int | None = None) -> vb.Prediction:
    """What the method's networks say about `x`, each with batch-norm statistics of its own."""
    if METHODS[name].masked:
        return masked(model, x, seed)
    samples = (SAMPLES if METHODS[name].draws else 0) if samples is None else samples
    generator = torch.Generator().manual_seed(seed)
    return vb.predict(model, x, samples, refresh_bn=data.train_x[:REFRESH], generator=generator)


@torch.no_grad()
def masked(model: nn.Module, x: Tensor, seed: int) -> vb.Prediction:
    """MC dropout: as many random masks as a posterior has draws."""
    torch.manual_seed(seed)
    model.eval()
    for layer in model.modules():
        layer.train(isinstance(layer, nn.Dropout))
    rows = [torch.cat([model(part).softmax(1) for part in x.split(1000)]) for _ in range(SAMPLES)]
    return vb.Prediction(torch.stack(rows))


def together(name: str, networks: Iterable[dict[str, Tensor]], model: nn.Module, x: Tensor, data: Dataset) -> Tensor:
    """Probabilities of several states of `model`, S×N×C."""
    every = []
    for state in networks:
        model.load_state_dict(state)
        every.append(ask(name, model, x, data, 0, 0).probs[0])
    return torch.stack(every)


@torch.no_grad()
def laplace(model: nn.Module, x: Tensor, data: Dataset, seed: int) -> Callable[[float], vb.Prediction]:
    """Last-layer Laplace with a Kronecker-factored Gauss-Newton matrix, as a function of the prior's precision.

    Head and its batch norm, which in evaluation is an affine map, make one linear layer with a bias.
    """
    model.eval()
    body, head, norm = model[:-2], model[-2], model[-1]

    def features(inputs: Tensor) -> Tensor:
        rows = torch.cat([body(part) for part in inputs.split(1000)])
        return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)

    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    centre = torch.cat([scale[:, None] * head.weight, (norm.bias - scale * norm.running_mean)[:, None]], 1)
    seen, asked = features(data.train_x), features(x)
    probs = (seen @ centre.T).softmax(1)
    outer = torch.diag(probs.mean(0)) - probs.T @ probs / len(probs)
    across, vectors = torch.linalg.eigh(outer.double())
    along, directions = torch.linalg.eigh((seen.T @ seen).double())
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SAMPLES, *centre.shape, generator=generator, dtype=torch.float64)

    def sampled(precision: float) -> vb.Prediction:
        spread = (across.clamp_min(0)[:, None] * along.clamp_min(0) + precision).rsqrt()
        weights = centre + (vectors @ (noise * spread) @ directions.T).float()
        return vb.Prediction(torch.stack([(asked @ weight.T).softmax(1) for weight in weights]))

    return sampled


def entropy_bits(model: nn.Module) -> float | None:
    """Per weight; None where weights are real."""
    if next(vb.nn.binary_layers(model), None) is None:
        return None
    return vb.health(model, warn=False).entropy_bits


def bits_per_prediction(data: Dataset, scale: Scale, networks: float, bits: int, heads: bool) -> float:
    """Weights that are read for one prediction, in bits; networks that differ in their `heads` share the rest."""
    layers = scale.network(data, None).modules()
    *body, head = (layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d))
    return bits * ((sum(body) if heads else networks * sum(body)) + networks * head)


Result = dict[str, Any]
