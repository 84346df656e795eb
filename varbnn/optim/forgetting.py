"""Forgetting: the pull of a belief towards its prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from varbnn.optim.parts import Compiled, Group, States
from varbnn.posteriors.gaussian import log_odds, natural_window


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

    def at_pace_(self, beliefs: list[Tensor], paces: list[Tensor] | None, states: States, group: Group) -> None:
        """As `at_step_`, under a decision whose weights go at `paces` (None: all at 1); here they forget as ever."""
        self.at_step_(beliefs, states, group)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        """The same for the compiled step, where it knows how; `coupled` as `add_to_`, else as `at_step_`."""
        return Compiled({"pull": "none"}) if type(self) is Forgetting else None


class PriorPull(Forgetting):
    """λ - λ₀, the gradient of the divergence from the prior (Meng et al. 2020, eq. 8).

    λ₀ is state["prior"] where a parameter has one and the number group["prior"] elsewhere; at 0 this is weight decay
    of strength 1.
    """

    formula = "g + (λ - λ₀)"

    def strength(self, group: Group) -> float:
        """What the pull is multiplied by."""
        return 1.0

    def share(self, group: Group) -> float:
        """What share of the way to the prior one step past the filter goes."""
        return float(group["lr"] * self.strength(group))

    def coupled(self, group: Group) -> bool:
        return True

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        strength = self.strength(group)
        torch._foreach_add_(gradients, beliefs, alpha=strength)
        for gradient, prior in zip(gradients, priors(states, group), strict=True):
            if isinstance(prior, Tensor) or prior != 0:
                gradient.sub_(prior, alpha=strength)

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        share = self.share(group)
        torch._foreach_mul_(beliefs, 1 - share)
        for belief, prior in zip(beliefs, priors(states, group), strict=True):
            if isinstance(prior, Tensor):
                belief.add_(prior, alpha=share)
            elif prior != 0:
                belief.add_(share * prior)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        strength = self.strength(group) if coupled else self.share(group)
        settings = {"pull": "coupled" if coupled else "at-step", "strength": strength, "prior": group["prior"]}
        return Compiled(settings, prior=True)


class LatentPull(PriorPull):
    """s₀ (m - m₀), the same for the normal law of a latent: s₀ = group["prior_precision"]."""

    formula = "g + s₀ (m - m₀)"

    def strength(self, group: Group) -> float:
        return float(group["prior_precision"])


class PairPull(Forgetting):
    """For pairs (m, S): s₀ (m - m₀) for the location, s₀ - S for the precision.

    m₀ and s₀ are state["prior"] of the two where they have one, group["prior"] and group["prior_precision"] elsewhere.
    """

    formula = "g + s₀ (m - m₀);  δ = s₀ + h - S"

    def coupled(self, group: Group) -> bool:
        return True

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        means, strengths = priors(states[0::2], group), priors(states[1::2], group, "prior_precision")
        torch._foreach_sub_(gradients[1::2], beliefs[1::2])
        for index, (mean, strength) in enumerate(zip(means, strengths, strict=True)):
            gradients[2 * index].add_((beliefs[2 * index] - mean).mul_(strength))
            gradients[2 * index + 1].add_(strength)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        settings = {"pull": "coupled", "strength": group["prior_precision"], "prior": group["prior"]}
        return Compiled(settings, pair=True, prior=True)


class CoinPull(Forgetting):
    """f(u) (λ(u) - λ₀), the pull to the prior's coin in the coordinate u; its natural gradient, as f says.

    λ₀ is the coin of the latent N(m₀, 1 / s₀), where m₀ is state["prior"] or group["prior"].
    """

    formula = "g + f(u) (λ(u) - λ₀), f = (1 - μ²) / (2 φ(u))"

    def coupled(self, group: Group) -> bool:
        return True

    def add_to_(self, gradients: list[Tensor], beliefs: list[Tensor], states: States, group: Group) -> None:
        torch._foreach_add_(gradients, self._pulls(beliefs, states, group))

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        torch._foreach_add_(beliefs, self._pulls(beliefs, states, group), alpha=-group["lr"])

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        # through the filter or past it: without a filter both are the same step
        strength = math.sqrt(group["prior_precision"])
        return Compiled({"pull": "coin", "strength": strength, "prior": group["prior"]}, prior=True)

    def _pulls(self, beliefs: list[Tensor], states: States, group: Group) -> list[Tensor]:
        pulls = []
        for u, prior in zip(beliefs, priors(states, group), strict=True):
            apart = log_odds(u)
            if isinstance(prior, Tensor) or prior != 0:
                standardised = prior * math.sqrt(group["prior_precision"])
                apart -= log_odds(torch.as_tensor(standardised, dtype=u.dtype, device=u.device))
            pulls.append(natural_window(u).mul_(apart).div_(2))  # λ is half the log-odds
        return pulls


def priors(states: States, group: Group, key: str = "prior") -> list[Tensor | float]:
    """What each parameter is pulled to: state["prior"] where it has one, the number group[key] elsewhere."""
    return [state["prior"] if "prior" in state else group[key] for state in states]


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

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        decay = group["weight_decay"]
        if decay == 0:
            return Compiled({"pull": "none"})
        if coupled:
            return Compiled({"pull": "coupled", "strength": decay})
        return Compiled({"pull": "at-step", "strength": group["lr"] * decay})


class CoupledDecay(WeightDecay):
    """weight_decay · r as a part of the gradient, as in torch's SGD and Adam."""

    formula = "g + weight_decay · r"

    def coupled(self, group: Group) -> bool:
        return bool(group["weight_decay"] != 0)


class PairDecay(CoupledDecay):
    """For pairs (m, Z): weight_decay times r, which is either."""

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        super().at_step_(beliefs[0::2], states[0::2], group)
        super().at_step_(beliefs[1::2], states[1::2], {**group, "lr": group["lr"] * group["factor_lr_scale"]})
