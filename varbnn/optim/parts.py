"""What a rule is made of: a filter over time, forgetting towards the prior, a decision.

Each part carries its own behaviour and works on lists of tensors. It keeps nothing itself: hyper-parameters are read
from the parameter group at every step, state is named tensors in the optimizer's state of each parameter.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

Group = dict[str, Any]
States = list[dict[str, Any]]


class Filter(Protocol):
    """Turns this step's gradients into the direction to move against."""

    def is_identity(self, group: Group, states: States) -> bool:
        """Whether the gradient is the direction and nothing is to be remembered, so the engine may skip the copy."""
        ...

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        """The directions; `gradients` may be overwritten."""
        ...


class Forgetting(Protocol):
    """The pull towards the prior, before the filter sees the gradient or at the step."""

    def before_filter_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        """Add the pull to `gradients`."""
        ...

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        """Move `beliefs` by lr times the pull: the same thing where the filter is the identity."""
        ...


class Decision(Protocol):
    """Has the last word on the beliefs after the step."""

    def __call__(self, beliefs: list[Tensor], states: States, group: Group) -> None: ...


def buffers(name: str, like: list[Tensor], states: States) -> list[Tensor]:
    """The named state of every parameter, zero at first."""
    for tensor, state in zip(like, states, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
    return [state[name] for state in states]


def debias(beta: float, states: States) -> list[Tensor]:
    """1 - βᵗ for every parameter, in float64 and without leaving the graph of a compiled step."""
    return [1 - beta ** state["step"].double() for state in states]


class Momentum:
    """An average of past gradients, with the start-up bias divided out (Kingma & Ba 2015, algorithm 1).

    m ← β m + (1 - β) g;   direction = m / (1 - βᵗ)          β = group["momentum"]; β = 0 is the gradient itself

    As long as β has always been 0 nothing is stored; t counts from the first step with another β.
    """

    def is_identity(self, group: Group, states: States) -> bool:
        return group["momentum"] == 0 and not any("momentum" in state for state in states)

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        beta = group["momentum"]
        average = buffers("momentum", gradients, states)
        torch._foreach_lerp_(average, gradients, 1 - beta)
        return [m / correction for m, correction in zip(average, debias(beta, states), strict=True)]


class HeavyBall:
    """Momentum as torch's SGD has it (Polyak 1964): v ← β v + g, direction = v, with β = group["momentum"]."""

    def is_identity(self, group: Group, states: States) -> bool:
        return group["momentum"] == 0 and not any("momentum" in state for state in states)

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        velocity = buffers("momentum", gradients, states)
        torch._foreach_mul_(velocity, group["momentum"])
        torch._foreach_add_(velocity, gradients)
        return velocity


class AdamDirection:
    """Adam's direction (Kingma & Ba 2015, algorithm 1), with β = group["betas"], ε = group["eps"].

    m ← β₁ m + (1 - β₁) g;   v ← β₂ v + (1 - β₂) g²;   direction = (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε)
    """

    def is_identity(self, group: Group, states: States) -> bool:
        return False

    def __call__(self, gradients: list[Tensor], states: States, group: Group) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        first, second = buffers("exp_avg", gradients, states), buffers("exp_avg_sq", gradients, states)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        corrections = zip(first, second, debias(beta1, states), debias(beta2, states), strict=True)
        return [(m / c1).div_((v / c2).sqrt_().add_(group["eps"])) for m, v, c1, c2 in corrections]


class PriorPull:
    """λ - λ₀, the gradient of the divergence from the prior (Meng et al. 2020, eq. 8).

    λ₀ is state["prior"] where a parameter has one and the number group["prior"] elsewhere; at 0 this is weight decay
    of strength 1.
    """

    def before_filter_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        torch._foreach_add_(gradients, beliefs)
        for gradient, prior in zip(gradients, self._priors(states, group), strict=True):
            gradient.sub_(prior)

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        torch._foreach_mul_(beliefs, 1 - group["lr"])
        for belief, prior in zip(beliefs, self._priors(states, group), strict=True):
            if isinstance(prior, Tensor):
                belief.add_(prior, alpha=group["lr"])
            elif prior != 0:
                belief.add_(group["lr"] * prior)

    def _priors(self, states: States, group: Group) -> list[Tensor | float]:
        return [state["prior"] if "prior" in state else group["prior"] for state in states]


class WeightDecay:
    """weight_decay · belief, added to the gradient as torch's SGD and Adam do; 0 forgets nothing."""

    def before_filter_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        if group["weight_decay"] != 0:
            torch._foreach_add_(gradients, beliefs, alpha=group["weight_decay"])

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        if group["weight_decay"] != 0:
            torch._foreach_mul_(beliefs, 1 - group["lr"] * group["weight_decay"])


class Keep:
    """The belief is what the step made of it."""

    def __call__(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        return


class Clip:
    """Keep the latent in [-clip, clip], so that it can still change its mind; group["clip"] None does not."""

    def __call__(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        clip = group["clip"]
        if clip is not None:
            torch._foreach_clamp_min_(beliefs, -clip)
            torch._foreach_clamp_max_(beliefs, clip)
