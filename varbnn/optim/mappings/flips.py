"""Rules that keep the weight itself and flip it, as each other."""

from __future__ import annotations

import math

from torch import Tensor

from varbnn.bits import sign
from varbnn.checks import require
from varbnn.optim.bop import Bop
from varbnn.optim.bop2ndorder import CORRECTIONS, Bop2ndOrder
from varbnn.optim.gradient_filter import GradientFilter
from varbnn.optim.mappings.conditions import (
    CONSTANT,
    LARQ,
    SCHEDULE,
    Source,
    State,
    moving,
    remembered,
    without_threshold,
)
from varbnn.optim.mappings.table import Mapping, between


@between(GradientFilter, Bop)
def filter_to_bop(source: Source) -> Mapping:
    """One of the two averages must be no average at all: the other one is carried over."""
    group = source.group
    average = "slow" if group["gamma"] == 1 else "fast"
    require(
        group["gamma"] == 1 or group["lr"] * group["alpha"] == 1,
        f"gamma={group['gamma']} and alpha={group['alpha']} average twice, Bop once; one of the two must be 1",
    )

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return sign(belief), {"exp_avg": remembered(state, average, belief)}

    rate, lr = (group["alpha"], group["lr"]) if group["gamma"] == 1 else (group["gamma"], 1.0)
    settings = dict(gamma=rate, threshold=0.0, ties="keep", lr=lr)
    exact, notes = ((), (SCHEDULE,)) if group["gamma"] == 1 else ((CONSTANT,), ())
    return Mapping(settings, carry, {"weight": "w", "exp_avg": average}, exact, notes)


@between(Bop, GradientFilter)
def bop_to_filter(source: Source) -> Mapping:
    """A filter whose first average is none."""
    without_threshold(source.group)

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return sign(belief), {"slow": remembered(state, "exp_avg", belief)}

    settings = dict(alpha=source.group["gamma"], gamma=1.0, lr=source.group["lr"])
    exact = (LARQ,) if source.group["ties"] == "larq" else ()
    return Mapping(settings, carry, {"weight": "w", "slow": "exp_avg"}, exact, (SCHEDULE,))


@between(Bop2ndOrder, Bop)
def second_order_to_bop(source: Source) -> Mapping:
    """Without a threshold the division by something positive changes nothing."""
    without_threshold(source.group)

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return sign(belief), {"exp_avg": remembered(state, "exp_avg", belief)}

    settings = {key: source.group[key] for key in ("gamma", "ties", "lr")} | dict(threshold=0.0)
    note = "sigma and bias_correction have no effect without a threshold"
    return Mapping(settings, carry, {"weight": "w", "exp_avg": "exp_avg"}, (), (note, SCHEDULE))


@between(Bop, Bop2ndOrder)
def bop_to_second_order(source: Source, *, sigma: float = 1e-3) -> Mapping:
    """`sigma` is free, as it has no effect without a threshold."""
    mapping = second_order_to_bop(source)
    return Mapping({**mapping.settings, "sigma": sigma}, mapping.carry, mapping.start, mapping.exact, mapping.notes)


@between(Bop2ndOrder, Bop2ndOrder)
def correction_to_correction(source: Source, *, bias_correction: str | None) -> Mapping:
    """Biased and released differ by a constant factor, which the threshold can take."""
    require(bias_correction in CORRECTIONS, f"bias_correction must be one of {CORRECTIONS}, got {bias_correction!r}")
    group, before = source.group, source.group["bias_correction"]
    factor = 1.0
    exact: tuple[str, ...] = ()
    if before != bias_correction and group["threshold"] != 0:
        require(
            "adam" not in (before, bias_correction),
            f"bias_correction={before!r} to {bias_correction!r}: what 'adam' divides by changes at every step, and a "
            "threshold is one number; only None and 'released' are the same, and with threshold=0 all three",
        )
        ratio = moving(group, "gamma") / math.sqrt(group["sigma"])
        factor = ratio if before == "released" else 1 / ratio
        exact = (
            "lr, gamma and sigma stay constant",
            "√exp_avg_sq stays well above 1e-10, the guard of the division",
        )

    def carry(belief: Tensor, state: State) -> tuple[Tensor, State]:
        return sign(belief), {k: v for k, v in state.items() if before == bias_correction or k.startswith("exp_avg")}

    settings = {key: group[key] for key in ("gamma", "sigma", "ties", "lr")}
    settings |= dict(threshold=factor * group["threshold"], bias_correction=bias_correction)
    note = "under a schedule let the threshold follow gamma / √sigma"
    start = {"weight": "w", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
    return Mapping(settings, carry, start, exact, (note,) if exact else ())
