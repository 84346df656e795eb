"""Steps on a stream as BayesBiNN, and metaplastic latents as plain ones; and back.

In the words λ is a natural parameter, B the examples of a step, W the window and r a latent.
"""

from __future__ import annotations

import math

from torch import Tensor

from varbnn.checks import finite_number, require
from varbnn.optim.bayesbinn import BayesBiNN
from varbnn.optim.mappings.conditions import Source, State
from varbnn.optim.mappings.table import Mapping, between
from varbnn.optim.metaplastic import Metaplastic
from varbnn.optim.straight_through import StraightThrough
from varbnn.optim.windowed_bayes import WindowedBayes

START = {"λ": "λ", "prior": "as it is"}
BATCHES = "every step sees the B examples that batch_size says"
LATENT = {"r": "r", "states": "as they are"}


def _as_it_is(belief: Tensor, state: State) -> tuple[Tensor, State]:
    return belief, state


def _with_prior(belief: Tensor, state: State) -> tuple[Tensor, State]:
    return belief, {name: tensor for name, tensor in state.items() if name == "prior"}


@between(WindowedBayes, BayesBiNN)
def windowed_to_bayesbinn(source: Source) -> Mapping:
    group = source.group
    require(
        group["decay"] == "plain",
        f"decay={group['decay']!r} forgets by the variance of a weight, which no prior does; only decay='plain' can be "
        "translated",
    )
    require(group["lr"] > 0, "lr=0 only forgets: the temperature of its posterior would be infinite; translate earlier")
    require(group["window"] < math.inf, "window=inf never forgets: its posterior has no prior; take a finite window")
    lr, size, temperature = group["batch_size"] / group["window"], group["window"], 1 / group["lr"]
    settings = dict(lr=lr, dataset_size=size, temperature=temperature, momentum=0.0, prior=group["prior"])
    note = "a schedule of lr in the one is one of 1 / temperature in the other"
    return Mapping(settings, _with_prior, START, (), (note,))


@between(BayesBiNN, WindowedBayes)
def bayesbinn_to_windowed(source: Source, *, batch_size: int) -> Mapping:
    """`batch_size` is what WindowedBayes counts its window in."""
    group = source.group
    beta = group["momentum"]
    require(beta == 0, f"momentum={beta} cannot be translated: WindowedBayes has none; take momentum=0")
    size = finite_number("batch_size", batch_size, above=0)
    require(group["lr"] > 0, "lr=0 stands still, as WindowedBayes does with no finite window; translate earlier")
    window = size / group["lr"]
    settings = dict(window=window, batch_size=batch_size, decay="plain", prior=group["prior"])
    settings |= dict(lr=group["dataset_size"] / (group["temperature"] * window))
    note = "a schedule of lr in the one is one of lr and of 1 / window, both, in the other"
    return Mapping(settings, _with_prior, START, (BATCHES,), (note,))


KEPT = ("lr", "betas", "eps", "weight_decay")


@between(Metaplastic, StraightThrough)
def metaplastic_to_latent(source: Source) -> Mapping:
    m = source.group["metaplasticity"]
    require(
        m == 0, f"metaplasticity={m} slows some weights and not others, which no other rule does; only 0 is the same"
    )
    settings = {key: source.group[key] for key in KEPT} | dict(base="adam", clip=None)
    return Mapping(settings, _as_it_is, LATENT)


@between(StraightThrough, Metaplastic)
def latent_to_metaplastic(source: Source) -> Mapping:
    group = source.group
    require(group["base"] == "adam", f"base={group['base']!r}: Metaplastic steps in Adam's direction; take base='adam'")
    require(
        group["clip"] is None, f"clip={group['clip']} holds latents in a box, which Metaplastic has not; take clip=None"
    )
    require(
        group["weight_decay"] == 0 or not group["decoupled_weight_decay"],
        "decoupled_weight_decay=True forgets past the filter, Metaplastic through it; take False or no decay",
    )
    settings = {key: group[key] for key in KEPT} | dict(metaplasticity=0.0)
    return Mapping(settings, _as_it_is, LATENT)
