"""Latent SGD as a filter, as Bop, as BayesBiNN, and in other units; and each of them as latent SGD.

In the words r is a latent, v the velocity of SGD, λ a natural parameter and w = ±1 the weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import finite_number, require
from varbnn.errors import InputError
from varbnn.optim.bayesbinn import BayesBiNN
from varbnn.optim.bop import TIES, Bop
from varbnn.optim.gradient_filter import GradientFilter
from varbnn.optim.mappings.conditions import (
    CONSTANT,
    FREE,
    LARQ,
    NO_ZERO,
    SCHEDULE,
    SIGNS_ONLY,
    Latent,
    Source,
    State,
    agreeing,
    as_average,
    latent_of,
    moving,
    remembered,
    unit_of_latents,
    without_momentum,
    without_threshold,
)
from varbnn.optim.mappings.table import Mapping, between
from varbnn.optim.straight_through import StraightThrough

SAME_GRADIENTS = (
    "both see the same gradients: a drawn weight differs from sign(λ) with probability 1 / (1 + exp(2 |λ|)), and the "
    "concrete estimator in saturation multiplies gradients by 1 / relaxation"
)


@between(StraightThrough, GradientFilter)
def latent_to_filter(source: Source, *, alpha: str = "smaller") -> Mapping:
    """`alpha`: which of two interchangeable rates the second average gets, with coupled decay."""
    average, momentum = as_average(source.group), source.group["momentum"]
    if source.group["decoupled_weight_decay"]:
        return _decoupled_to_filter(average, momentum)
    require(alpha in ("smaller", "larger"), f"alpha must be 'smaller' or 'larger', got {alpha!r}")
    small, large = _rates(average.rate, momentum)
    slow, fast = (small, large) if alpha == "smaller" else (large, small)
    kick = fast * (1 - slow) / average.unit

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        first = -average.scale * belief
        return sign(belief), {"slow": first, "fast": first + kick * remembered(state, "momentum", belief)}

    start = {"weight": "sign(r)", "slow": f"-{average.scale:.6g} · r", "fast": f"slow + {kick:.6g} · v"}
    note = (
        f"alpha · gamma = {average.rate:.6g}, the decay per step; (1 - alpha) · (1 - gamma) = {momentum:.6g}, the "
        "momentum; the two rates may be exchanged"
    )
    settings = dict(alpha=slow, gamma=fast, lr=1.0)
    if fast == 1:  # no momentum
        return Mapping(settings, carry, start, (SIGNS_ONLY, NO_ZERO), (note, SCHEDULE))
    return Mapping(settings, carry, start, (CONSTANT, SIGNS_ONLY, NO_ZERO), (note,))


def _rates(rate: float, momentum: float) -> tuple[float, float]:
    """The roots of x² - (1 - momentum + rate) x + rate, both in (0, 1], the smaller first."""
    most = (1 - math.sqrt(rate)) ** 2
    require(
        math.sqrt(momentum) <= 1 - math.sqrt(rate),
        f"momentum={momentum} swings when lr · (1 - dampening) · weight_decay = {rate:.6g}, and averages of averages "
        f"never swing: √momentum ≤ 1 - √{rate:.6g} must hold. With this product momentum ≤ {most:.6g} would do, with "
        f"this momentum a product ≤ {(1 - math.sqrt(momentum)) ** 2:.6g}",
    )
    total = 1 - momentum + rate
    large = min((total + math.sqrt(max(total * total - 4 * rate, 0.0))) / 2, 1.0)
    return rate / large, large


def _decoupled_to_filter(average: Latent, momentum: float) -> Mapping:
    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        velocity = remembered(state, "momentum", belief)
        return sign(belief), {"slow": -average.scale * belief, "fast": velocity / average.unit}

    start = {"weight": "sign(r)", "slow": f"-{average.scale:.6g} · r", "fast": f"v / {average.unit:.6g}"}
    settings = dict(alpha=average.rate, gamma=1 - momentum, lr=1.0)
    return Mapping(settings, carry, start, (SIGNS_ONLY, NO_ZERO), (SCHEDULE,))


@between(GradientFilter, StraightThrough)
def filter_to_latent(source: Source, *, weight_decay: float = 1e-4, decoupled_weight_decay: bool = False) -> Mapping:
    """`weight_decay` is free, as only lr · weight_decay matters; decoupled is exact under schedules, too."""
    decay, alpha, gamma = unit_of_latents(weight_decay), moving(source.group, "alpha"), source.group["gamma"]
    # where the second average is none, the latent of the coupled form is the first one; decoupled it is the velocity
    average = "fast" if alpha == 1 and gamma != 1 and not decoupled_weight_decay else "slow"
    agreeing(source, "slow")
    agreeing(source, average)
    if decoupled_weight_decay:
        momentum = dampening = 1 - gamma
        lr, velocity = alpha / decay, "fast"
    else:
        momentum, dampening = (1 - alpha) * (1 - gamma), 0.0
        lr, velocity = alpha * gamma / decay, f"(fast - slow) / {gamma * (1 - alpha):.6g}"

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        slow, fast = (remembered(state, name, belief) for name in ("slow", "fast"))
        latent = latent_of(belief, remembered(state, average, belief), decay)
        if momentum == 0:
            return latent, {}
        return latent, {"momentum": fast if decoupled_weight_decay else (fast - slow) / (gamma * (1 - alpha))}

    start = {"r": f"-{average} / {decay:.6g}, or next to 0 on the side of w"} | ({"v": velocity} if momentum else {})
    exact = (SIGNS_ONLY, NO_ZERO) if decoupled_weight_decay or gamma == 1 else (CONSTANT, SIGNS_ONLY, NO_ZERO)
    schedule = "decoupled_weight_decay=True would follow a schedule of lr, too" if CONSTANT in exact else SCHEDULE
    settings = dict(lr=lr, base="sgd", momentum=momentum, dampening=dampening, weight_decay=decay, clip=None)
    settings["decoupled_weight_decay"] = decoupled_weight_decay
    return Mapping(settings, carry, start, exact, (FREE, schedule))


@between(StraightThrough, Bop)
def latent_to_bop(source: Source, *, ties: str = "larq") -> Mapping:
    """`ties`: "larq" makes a tie +1, as a latent of 0 does."""
    average = as_average(source.group)
    without_momentum(source.group, "Bop averages once; take momentum=0 or translate to GradientFilter")
    require(ties in TIES, f"ties must be one of {TIES}, got {ties!r}")

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return sign(belief), {"exp_avg": -average.scale * belief}

    start = {"weight": "sign(r)", "exp_avg": f"-{average.scale:.6g} · r"}
    exact = (SIGNS_ONLY,) if ties == "larq" else (SIGNS_ONLY, NO_ZERO)
    settings = dict(gamma=average.rate, threshold=0.0, ties=ties, lr=1.0)
    return Mapping(settings, carry, start, exact, (SCHEDULE,))


@between(Bop, StraightThrough)
def bop_to_latent(source: Source, *, weight_decay: float = 1e-4) -> Mapping:
    """`weight_decay` is free, as only lr · weight_decay matters."""
    without_threshold(source.group)
    decay, gamma = unit_of_latents(weight_decay), moving(source.group, "gamma")
    agreeing(source, "exp_avg")

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return latent_of(belief, remembered(state, "exp_avg", belief), decay), {}

    settings = dict(lr=gamma / decay, base="sgd", weight_decay=decay, clip=None)
    start = {"r": f"-exp_avg / {decay:.6g}, or next to 0 on the side of w"}
    exact = (SIGNS_ONLY, LARQ if source.group["ties"] == "larq" else NO_ZERO)
    return Mapping(settings, carry, start, exact, (FREE, SCHEDULE))


@between(BayesBiNN, StraightThrough)
def bayesbinn_to_latent(source: Source, *, weight_decay: float = 1e-4) -> Mapping:
    """`weight_decay` is free, as only lr · weight_decay matters."""
    group, decay = source.group, unit_of_latents(weight_decay)
    prior = any(bool(state["prior"].any()) for state in source.states if "prior" in state)
    require(
        group["prior"] == 0 and not prior, "weight decay pulls to 0 and nowhere else; only prior=0 can be translated"
    )
    beta = group["momentum"]
    given = [state.get("weight", torch.zeros(())) for state in source.states]
    worn_off = bool(source.beliefs) and all(bool(c + (1 - beta) * (1 - c) == c) for c in given)
    if beta != 0 and not worn_off:
        steps = math.ceil(-54 * math.log(2) / math.log(beta))
        raise InputError(
            f"momentum={beta} comes with a bias correction, lr_t = lr / (1 - {beta}ᵗ), which no constant lr has; "
            f"translate an optimizer that has done {steps} steps, when it has worn off, or take momentum=0"
        )
    ratio = group["temperature"] / group["dataset_size"]

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        kept = {"momentum": ratio * state["momentum"]} if beta and "momentum" in state else {}
        return ratio / decay * belief, kept

    settings = dict(lr=group["lr"] / decay, base="sgd", momentum=beta, dampening=beta, weight_decay=decay, clip=None)
    start = {"r": f"{ratio / decay:.6g} · λ"} | ({"v": f"{ratio:.6g} · momentum"} if beta else {})
    return Mapping(settings, carry, start, (SAME_GRADIENTS,), (FREE, SCHEDULE))


@between(StraightThrough, BayesBiNN)
def latent_to_bayesbinn(source: Source, *, dataset_size: float, temperature: float = 1.0) -> Mapping:
    """`dataset_size` / `temperature` is the scale of λ."""
    average = as_average(source.group)
    without_momentum(source.group, "BayesBiNN corrects the bias of its start, lr_t = lr / (1 - momentumᵗ); take 0")
    dataset_size = finite_number("dataset_size", dataset_size, above=0)
    temperature = finite_number("temperature", temperature, above=0)
    ratio = average.scale * dataset_size / temperature

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return ratio * belief, {}

    settings = dict(lr=average.rate, dataset_size=dataset_size, temperature=temperature)
    return Mapping(settings, carry, {"λ": f"{ratio:.6g} · r"}, (SAME_GRADIENTS,), (SCHEDULE,))


@between(StraightThrough, StraightThrough)
def latent_to_latent(source: Source, *, scale: float) -> Mapping:
    """Latents have no scale, and neither has Adam on them nor a box that is scaled with them."""
    scale = finite_number("scale", scale, above=0)
    group = source.group
    keys = ("base", "betas", "eps", "momentum", "dampening", "decoupled_weight_decay")
    settings = {key: group[key] for key in keys}
    settings |= dict(lr=scale * group["lr"], weight_decay=group["weight_decay"] / scale)
    settings |= dict(clip=None if group["clip"] is None else scale * group["clip"])

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return scale * belief, state

    note = "up to rounding; a power of 2 changes no bit"
    return Mapping(settings, carry, {"r": f"{scale:.6g} · r", "states": "as they are"}, (SIGNS_ONLY,), (note, SCHEDULE))
