"""Forgetting: the pull of a belief towards its prior."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.optim.parts import Group, States


class Forgetting:
    """The pull towards the prior, through the filter (coupled) or past it. This one pulls nowhere.

    Attributes:
        formula: the pull, for the table of all methods.
    """

    formula = ""

    def coupled(self, group: Group) -> bool:
        """Whether the filter is to see the pull as a part of the gradient."""
        return False

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        """Add the pull to `gradients`; for a coupled pull."""

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        """Move `beliefs` by lr times the pull: what a coupled pull does too where the filter is the identity."""


class PriorPull(Forgetting):
    """λ - λ₀, the gradient of the divergence from the prior (Meng et al. 2020, eq. 8).

    λ₀ is state["prior"] where a parameter has one and the number group["prior"] elsewhere; at 0 this is weight decay
    of strength 1.
    """

    formula = "g + (λ - λ₀)"

    def coupled(self, group: Group) -> bool:
        return True

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
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


class WeightDecay(Forgetting):
    """weight_decay · r; coupled as in torch's SGD and Adam, or decoupled as in AdamW; 0 forgets nothing."""

    formula = "g + weight_decay · r, or past the filter"

    def coupled(self, group: Group) -> bool:
        return group["weight_decay"] != 0 and not group["decoupled_weight_decay"]

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        torch._foreach_add_(gradients, beliefs, alpha=group["weight_decay"])

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        if group["weight_decay"] != 0:
            torch._foreach_mul_(beliefs, 1 - group["lr"] * group["weight_decay"])
