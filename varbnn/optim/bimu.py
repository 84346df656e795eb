"""BiMU: binary weights that resist being unlearned, without task boundaries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from varbnn.optim.decisions import DescendAtPace
from varbnn.optim.filters import NoFilter
from varbnn.optim.given import moves
from varbnn.optim.leaks import PacedLeak
from varbnn.optim.paces import Wary
from varbnn.optim.parts import Group, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Bernoulli


@dataclass(frozen=True)
class Effect:
    """What the constants of `BiMU` come to while gradients are small, for each example.

    Attributes:
        step: how much λ moves for a gradient of 1 in λ: lr · likelihood_multiplier · lr_max.
        window: over how many examples an unsure weight (λ near 0) forgets: memory / (kl_multiplier · lr_max). A sure
            one takes 1 / (1 - μ²) times as long.
        damping: what the variance can add to the 1 / lr_max below the step: kl_multiplier · lr_max. Far below 1 steps
            are those of the gradient in λ, far above 1 those of the natural one.
    """

    step: float
    window: float
    damping: float


class BiMU(Rule):
    """Steps in λ that resist going back to 0, and a leak to 0 at the same pace (Cottart et al. 2026).

        g ← likelihood_multiplier · B · p.grad          the gradient in λ, summed over the B = batch_size examples
        P = 1 / (kl_multiplier · s + 2 g μ + 2 |g| + 1 / lr_max)          s = 1 - μ²
        λ ← λ - P · (lr · g + B · kl_multiplier · s · λ / memory)

    Nothing moves, and nothing is forgotten, when every gradient is 0, as in a step in which no label was asked for;
    real parameters then still follow AdamW.

    Take it on ``Bernoulli(estimator="concrete", relaxation=1.0, gradient="euclidean")``. What the five constants come
    to is told by `effect`, and by ``print(optimizer)``: with (4.9, 161.3, 3.76, 0.0023, 700), the published ones for
    permuted MNIST, it is a step of 1.82 in λ and a window of 81 thousand examples.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the published code; scales the step and not the leak.
        likelihood_multiplier: of the gradient.
        kl_multiplier: of the variance, in the pace and in the leak.
        lr_max: bound of the pace P, not of the step.
        memory: N of the published code, whose steps are of one example. Its runs with batches of B count steps: their N
            times B is the `memory` here. inf never forgets.
        batch_size: B, the examples whose mean the loss is.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise the objective instead of minimising the loss.

    Raises:
        InputError: a value out of range, no belief among the parameters, one that is not Bernoulli, or one that gives
            the natural gradient.

    >>> import torch, varbnn as vb
    >>> posterior = vb.posteriors.Bernoulli("concrete", relaxation=1.0, gradient="euclidean")
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior)
    >>> optimizer = BiMU(
    ...     model.parameters(), 4.9, likelihood_multiplier=161.3, kl_multiplier=3.76, lr_max=0.0023, memory=700
    ... )
    >>> round(optimizer.effect().window)
    80944
    """

    posterior = Bernoulli
    gradient = "euclidean"
    source = "Cottart et al. 2026"
    filter = NoFilter()
    forgetting = PacedLeak()
    decision = DescendAtPace(Wary())

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        likelihood_multiplier: float,
        kl_multiplier: float,
        lr_max: float,
        memory: float,
        batch_size: int = 1,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = dict(lr=lr, likelihood_multiplier=likelihood_multiplier, kl_multiplier=kl_multiplier)
        defaults |= dict(lr_max=lr_max, memory=memory, batch_size=batch_size)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def gain(self, group: Group) -> float:
        return float(group["likelihood_multiplier"] * group["batch_size"])

    def check(self, group: Group) -> None:
        super().check(group)
        for key in ("likelihood_multiplier", "lr_max", "batch_size"):
            must_be(group, key, 0 < group[key] < math.inf, "positive and finite")
        must_be(group, "kl_multiplier", 0 <= group["kl_multiplier"] < math.inf, "finite and ≥ 0")
        damping = group["kl_multiplier"] * group["lr_max"]
        least = group["batch_size"] * damping / (1 + damping)
        enough = group["memory"] > 0 and group["memory"] >= least
        must_be(group, "memory", enough, f"positive and at least {least:.3g}, at which one step forgets all")

    def effect(self, group: int = 0) -> Effect:
        """What the constants of a group of beliefs come to, for each example and while gradients are small.

        Args:
            group: which, counting the groups of beliefs only.

        Returns:
            ``step``, how much λ moves for a gradient of 1 in λ; ``window``, over how many examples an unsure weight
            forgets; ``damping``, far below 1 where steps are those of the gradient in λ, far above where natural.
        """
        own = self._belief_groups()[group]
        damping = own["kl_multiplier"] * own["lr_max"]
        return Effect(
            step=own["lr"] * own["likelihood_multiplier"] * own["lr_max"],
            window=own["memory"] / damping if damping else math.inf,
            damping=damping,
        )

    def __repr__(self) -> str:
        found = [self.effect(index) for index in range(len(self._belief_groups()))]
        lines = [
            f"in effect: a step of {e.step:.3g} in λ per example, a window of {e.window:,.0f} examples, "
            f"damping {e.damping:.2g}"
            for e in dict.fromkeys(found)
        ]
        return "\n".join([super().__repr__(), *lines])

    def _step_beliefs(self, group: Group, params: list[Tensor]) -> None:
        gradients = [p.grad for own in self._belief_groups() for p in own["params"] if moves(p)]
        if torch.compiler.is_compiling():
            before = [p.clone() for p in params]
            super()._step_beliefs(group, params)
            moved = torch.stack([g.any() for g in gradients]).any()
            for p, start in zip(params, before, strict=True):
                p.copy_(torch.where(moved, p, start))
        elif any(bool(g.count_nonzero()) for g in gradients):
            super()._step_beliefs(group, params)
