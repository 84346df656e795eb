"""Filters over time: from this step's gradients to the direction, or the evidence, that the decision goes by.

Each works on lists of tensors, elementwise, and keeps nothing itself: hyper-parameters are read from the parameter
group at every step, state is named tensors in the optimizer's state of each parameter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from varbnn.optim.parts import Compiled, Group, States
from varbnn.optim.precision import full


class Filter:
    """Turns gradients into directions.

    Attributes:
        formula: what it computes, for the table of all methods.
    """

    formula = ""

    def names(self, group: Group) -> tuple[str, ...]:
        """What it remembers of every weight: names of tensors like the parameter, zero at first."""
        return ()

    def weights(self, group: Group) -> dict[str, str]:
        """Of each average in `names` that is divided by the weight it has given to gradients: that weight's name."""
        return {}

    def is_identity(self, group: Group, states: States) -> bool:
        """Whether the gradient is the direction and nothing is to be remembered, so the engine may skip the copy."""
        return False

    def begin(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        """Once per step: move on what is one number per parameter, such as a count."""

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        """The directions of the weights at hand, which may be a block of a parameter; `gradients` stay as they are."""
        raise NotImplementedError

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        """The same for the compiled step, where it knows how; `names` are its tensors, two at most."""
        return None


class NoFilter(Filter):
    """The gradient of this step and nothing else."""

    formula = "d = g"

    def is_identity(self, group: Group, states: States) -> bool:
        return True


class Momentum(Filter):
    """An average of past gradients, with the start-up bias divided out (Kingma & Ba 2015, algorithm 1).

    β = group["momentum"]; β = 0 is the gradient itself. As long as β has always been 0 nothing is stored; the average
    begins with the first step with another β. What is divided by is the weight given to gradients so far (`weigh`).
    """

    formula = "m ← β m + (1 - β) g;  d = m / (1 - βᵗ)"

    def names(self, group: Group) -> tuple[str, ...]:
        return ("momentum",)

    def weights(self, group: Group) -> dict[str, str]:
        return {"momentum": "weight"}

    def is_identity(self, group: Group, states: States) -> bool:
        return group["momentum"] == 0 and not any("momentum" in state for state in states)

    def begin(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        weigh(states, weight=1 - group["momentum"])

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        average = [state["momentum"] for state in states]
        torch._foreach_lerp_(average, gradients, 1 - group["momentum"])
        return [m / state["weight"][0] for m, state in zip(average, states, strict=True)]

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        rate, divisor = 1 - group["momentum"], float(state["weight"])
        return Compiled({"filter": "average", "rate": rate, "divisor": divisor})


class HeavyBall(Filter):
    """Momentum as torch's SGD has it (Polyak 1964), with β = group["momentum"], δ = group["dampening"].

    v starts at 0, so that a dampening holds for the first gradient too (torch's SGD takes the first one whole).
    """

    formula = "v ← β v + (1 - δ) g;  d = v"

    def names(self, group: Group) -> tuple[str, ...]:
        return ("momentum",)

    def is_identity(self, group: Group, states: States) -> bool:
        return group["momentum"] == 0 and group["dampening"] == 0 and not any("momentum" in state for state in states)

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        velocity = [state["momentum"] for state in states]
        torch._foreach_mul_(velocity, group["momentum"])
        torch._foreach_add_(velocity, gradients, alpha=1 - group["dampening"])
        return velocity

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        return Compiled({"filter": "heavy-ball", "rate": group["momentum"], "rate2": 1 - group["dampening"]})


class AdamDirection(Filter):
    """Adam's direction (Kingma & Ba 2015, algorithm 1), with β = group["betas"], ε = group["eps"].

    The corrections are the weights given to gradients so far (`weigh`): 1 - βᵗ, and still right when β changes.
    """

    formula = "m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  d = (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε)"

    def names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def weights(self, group: Group) -> dict[str, str]:
        return {"exp_avg": "weight", "exp_avg_sq": "weight_sq"}

    def begin(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        beta1, beta2 = group["betas"]
        weigh(states, weight=1 - beta1, weight_sq=1 - beta2)

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        first, second = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        every = zip(first, second, states, strict=True)
        return [quotient(m, v, state["weight"][0], state["weight_sq"][0], group["eps"]) for m, v, state in every]

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        beta1, beta2 = group["betas"]
        return _compiled_quotient(1 - beta1, 1 - beta2, float(state["weight"]), float(state["weight_sq"]), group["eps"])


class Average(Filter):
    """An exponential average of the gradients, γ = lr · group["gamma"]; it starts at 0 and stays uncorrected."""

    formula = "m ← m + γ (g - m)"

    def names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg",)

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        average = [state["exp_avg"] for state in states]
        torch._foreach_lerp_(average, gradients, group["lr"] * group["gamma"])
        return average

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        return Compiled({"filter": "average", "rate": group["lr"] * group["gamma"]})


class NormalisedAverage(Filter):
    """The average over the root of the average square, γ = lr · group["gamma"], σ = group["sigma"].

    By group["bias_correction"]:

    - None: m / (√v + ε), biased towards 0 at the start;
    - ``"released"``: (m / γ) / (√(v / σ) + ε), which the published code calls unbiased. It divides by the rates
      themselves at every step and not by what they add up to, and agrees with Adam's correction at the first step only.
      Where γ is 0, m is not divided: at the start of a warm-up it is 0, and stays so;
    - ``"adam"``: both averages divided by the weight that they have given to gradients so far (`weigh`), 1 - (1 - γ)ᵗ
      while γ is constant.
    """

    formula = "m ← m + γ (g - m);  v ← v + σ (g² - v);  z = m / (√v + ε)"
    eps = 1e-10

    def names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def weights(self, group: Group) -> dict[str, str]:
        return {"exp_avg": "weight", "exp_avg_sq": "weight_sq"} if group["bias_correction"] == "adam" else {}

    def begin(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        if group["bias_correction"] == "adam":
            weigh(states, weight=group["lr"] * group["gamma"], weight_sq=group["sigma"])

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        gamma, sigma = group["lr"] * group["gamma"], group["sigma"]
        first, second = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(first, gradients, gamma)
        torch._foreach_mul_(second, 1 - sigma)
        torch._foreach_addcmul_(second, gradients, gradients, sigma)
        corrections: list[tuple[Tensor | float, Tensor | float]] = [(1.0, 1.0)] * len(states)
        if group["bias_correction"] == "released":
            corrections = [(gamma or 1.0, sigma)] * len(states)
        elif group["bias_correction"] == "adam":
            # at lr = 0 no gradient has been given any weight, and the average is 0
            given = [state["weight"][0] for state in states]
            given = [torch.where(weight == 0, 1.0, weight) for weight in given]
            corrections = list(zip(given, [state["weight_sq"][0] for state in states], strict=True))
        every = zip(first, second, corrections, strict=True)
        return [quotient(m, v, c1, c2, self.eps) for m, v, (c1, c2) in every]

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        gamma, sigma = group["lr"] * group["gamma"], group["sigma"]
        c1, c2 = (gamma or 1.0, sigma) if group["bias_correction"] == "released" else (1.0, 1.0)
        if group["bias_correction"] == "adam":
            c1, c2 = float(state["weight"]) or 1.0, float(state["weight_sq"])
        return _compiled_quotient(gamma, sigma, c1, c2, self.eps)


class Cascade(Filter):
    """The average of an average: γ = group["gamma"] for the gradients, α = lr · group["alpha"] for their average."""

    formula = "b ← b + γ (g - b);  m ← m + α (b - m)"

    def names(self, group: Group) -> tuple[str, ...]:
        return ("fast", "slow")

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        fast, slow = [state["fast"] for state in states], [state["slow"] for state in states]
        torch._foreach_lerp_(fast, gradients, group["gamma"])
        torch._foreach_lerp_(slow, fast, group["lr"] * group["alpha"])
        return slow

    def compiled(self, state: dict[str, Any], group: Group) -> Compiled | None:
        return Compiled({"filter": "cascade", "rate": group["gamma"], "rate2": group["lr"] * group["alpha"]})


def fill(state: dict[str, Any], parameter: Tensor, filter: Filter, group: Group) -> None:
    """Give `state` all that `filter` remembers of `parameter`: zeros where there is nothing yet."""
    for name in filter.names(group):
        if name not in state:
            state[name] = torch.zeros_like(parameter, dtype=full(parameter.dtype), memory_format=torch.preserve_format)
    for name in filter.weights(group).values():
        if name not in state:
            # one entry, not none: of a float64 scalar that changes, torch 2.13 compiles the first value in
            state[name] = torch.zeros(1, dtype=full(parameter.dtype), device="cpu")


def quotient(m: Tensor, v: Tensor, c1: Tensor | float, c2: Tensor | float, eps: float) -> Tensor:
    """(m / c₁) / (√(v / c₂) + ε), with the corrections moved to where they cost one pass instead of two."""
    root = c2.sqrt() if isinstance(c2, Tensor) else math.sqrt(c2)
    return m / v.sqrt().mul_(c1 / root).add_(eps * c1)


def _compiled_quotient(rate: float, rate2: float, c1: float, c2: float, eps: float) -> Compiled:
    scales = {"scale": c1 / math.sqrt(c2), "eps": eps * c1}
    return Compiled({"filter": "quotient", "rate": rate, "rate2": rate2, **scales})


def weigh(states: States, **rates: float) -> None:
    """Move on the weight that an average of each rate has given to gradients so far: c ← c + rate · (1 - c), from 0.

    It is 1 - (1 - rate)ᵗ while the rate is constant, and what the average must be divided by when it is not. Kept as
    state under the given names; a power of a count would be formed anew for every weight in a compiled step.
    """
    for name, rate in rates.items():
        for state in states:
            state[name].add_(1 - state[name], alpha=rate)
