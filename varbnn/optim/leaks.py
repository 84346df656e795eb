"""Forgetting at a rate of its own, whatever the learning rate: a leak back to the prior at every step."""

from __future__ import annotations

from torch import Tensor

from varbnn.kernels.reference import sech2
from varbnn.optim.forgetting import PriorPull, priors
from varbnn.optim.parts import Compiled, Group, States


class Leak(PriorPull):
    """(B / W) (λ - λ₀) at every step of B = group["batch_size"] examples: W = group["window"] examples are remembered.

    The belief comes to rest where the gradients of a window balance it, so certainty cannot pile up.
    """

    formula = "λ ← λ - (B / W) (λ - λ₀)"

    def share(self, group: Group) -> float:
        return float(group["batch_size"] / group["window"])

    def coupled(self, group: Group) -> bool:
        return False


class VarianceLeak(Leak):
    """The leak times the variance 1 - μ²: sure weights forget slowly, and saturated ones never."""

    formula = "λ ← λ - (B / W) (1 - μ²) (λ - λ₀)"

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        share = self.share(group)
        for belief, prior in zip(beliefs, priors(states, group), strict=True):
            belief.addcmul_(sech2(belief), belief - prior, value=-share)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        return Compiled({"pull": "variance", "strength": self.share(group), "prior": group["prior"]}, prior=True)


class Settling(Leak):
    """Belief and prior approach each other, (B / S) (λ - λ₀) of each, S = group["settling"]; the prior alone leaks."""

    formula = "p = (B / S) (λ - λ₀);  λ ← λ - p;  λ₀ ← (1 - B / W) (λ₀ + p)"

    def at_step_(self, beliefs: list[Tensor], states: States, group: Group) -> None:
        rate, kept = group["batch_size"] / group["settling"], 1 - self.share(group)
        for belief, state in zip(beliefs, states, strict=True):
            moved = (belief - state["prior"]).mul_(rate)
            belief.sub_(moved)
            state["prior"].add_(moved).mul_(kept)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        rate, kept = group["batch_size"] / group["settling"], 1 - self.share(group)
        return Compiled({"pull": "settling", "strength": rate, "kept": kept}, prior=True)


class PacedLeak(Leak):
    """The variance's leak to 0, slowed by the pace of the step: K s λ / N for each example, with K, N of `BiMU`."""

    formula = "λ ← λ - P B K (1 - μ²) λ / N"

    def share(self, group: Group) -> float:
        return float(group["batch_size"] * group["kl_multiplier"] / group["memory"])

    def at_pace_(self, beliefs: list[Tensor], paces: list[Tensor] | None, states: States, group: Group) -> None:
        assert paces is not None, "only for a decision that has a pace"
        share = self.share(group)
        for belief, pace in zip(beliefs, paces, strict=True):
            belief.addcmul_(sech2(belief).mul_(pace), belief, value=-share)

    def compiled(self, group: Group, coupled: bool) -> Compiled | None:
        return Compiled({"pull": "paced", "strength": self.share(group)})
