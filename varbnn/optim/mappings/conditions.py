"""What must hold for one rule to be another, and how latents, averages and weights turn into each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import finite_number, require
from varbnn.optim.parts import Group

State = dict[str, Tensor]

SIGNS_ONLY = "gradients depend on the weights and not on the size of a latent: Point() without clip"
NO_ZERO = "no latent is exactly 0 after a step: a latent of 0 is +1, a tie keeps the weight it finds"
CONSTANT = "the learning rate stays constant"
SCHEDULE = "a schedule may change lr: what multiplies it in the one multiplies it in the other"
FREE = "weight_decay is free and the scale of the latents; lr · weight_decay is what matters"
LARQ = "every weight sees a gradient other than 0: ties='larq' turns the others to +1 at the first step"


@dataclass(frozen=True)
class Source:
    """One group of the source: its hyper-parameters, its beliefs and what is remembered of each."""

    group: Group
    beliefs: list[Tensor]
    states: list[State]


@dataclass(frozen=True)
class Latent:
    """Latent SGD in the terms of an average m of gradients: m = -scale · r, fed with velocity / unit at `rate`."""

    rate: float
    scale: float
    unit: float


def as_average(group: Group) -> Latent:
    """The average that latent SGD with decay is.

    Raises:
        InputError: it is none: Adam, a box, no decay, or a decay past 0 in one step.
    """
    lr, decay, fed = group["lr"], group["weight_decay"], 1 - group["dampening"]
    require(
        group["base"] == "sgd",
        f"base={group['base']!r} divides by a second moment, which no average of gradients does; take base='sgd'",
    )
    require(group["clip"] is None, f"clip={group['clip']} cuts latents off, which no average does; take clip=None")
    require(
        decay > 0,
        "weight_decay=0 never forgets: a latent is then the sum of all gradients and no average of them; take a "
        "positive weight_decay, which remembers about 1 / (lr · weight_decay) steps",
    )
    if group["decoupled_weight_decay"]:
        unit = fed / (1 - group["momentum"])
        result, product = Latent(lr * decay, decay / unit, unit), "lr · weight_decay"
    else:
        result, product = Latent(lr * fed * decay, decay, fed), "lr · (1 - dampening) · weight_decay"
    require(0 < result.rate <= 1, f"{product} must be in (0, 1], the rate of an average, got {result.rate:g}")
    return result


def without_momentum(group: Group, why: str) -> None:
    """Refuse momentum, saying why."""
    require(group["momentum"] == 0, f"momentum={group['momentum']} cannot be translated: {why}")


def without_threshold(group: Group) -> None:
    """Refuse hysteresis."""
    require(
        group["threshold"] == 0,
        f"threshold={group['threshold']} holds a weight until the evidence against it is strong enough, and no other "
        "rule does; only threshold=0 can be translated",
    )


def unit_of_latents(weight_decay: float) -> float:
    """The free number of a latent rule: only lr · weight_decay matters, weight_decay alone is the scale of latents."""
    return finite_number("weight_decay", weight_decay, above=0)


def moving(group: Group, name: str) -> float:
    """lr times the rate of that name; refused where that is 0, as at the end of a schedule."""
    rate = float(group["lr"] * group[name])
    require(rate > 0, f"lr · {name} is {rate:g}: an average that stands still has no counterpart; translate earlier")
    return rate


def agreeing(source: Source, name: str) -> None:
    """Refuse weights that are against their own average, because a latent has only one sign."""
    for belief, state in zip(source.beliefs, source.states, strict=True):
        against = int((sign(belief) * remembered(state, name, belief) > 0).sum())
        require(
            against == 0,
            f"{against} weights disagree with their average {name!r}, as no step was done since it was set or lr was "
            "changed, and a latent has only one sign; translate after the next step",
        )


def remembered(state: State, name: str, belief: Tensor) -> Tensor:
    """A state, which is 0 before the first step."""
    return state.get(name, torch.zeros_like(belief))


def latent_of(weight: Tensor, average: Tensor, decay: float) -> Tensor:
    """-average / decay; where that is 0, as before the first step, too small to matter but with the weight's sign.

    >>> latent_of(torch.tensor([1.0, -1.0]), torch.tensor([-0.5, 0.0]), decay=0.1)
    tensor([ 5.0000e+00, -1.2326e-32])
    """
    smallest = torch.finfo(weight.dtype).tiny * 2.0**20
    return torch.where(average == 0, sign(weight) * smallest, -average / decay)
