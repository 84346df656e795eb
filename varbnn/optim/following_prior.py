"""Natural-gradient steps and a prior that follows the belief: yesterday's posterior as prior, without a yesterday."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from varbnn.optim.bayesbinn import check_prior
from varbnn.optim.decisions import Descend
from varbnn.optim.filters import NoFilter
from varbnn.optim.leaks import Settling
from varbnn.optim.parts import Group, must_be
from varbnn.optim.precision import full
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Bernoulli


class FollowingPrior(Rule):
    """Natural-gradient steps on a stream; what is believed for long becomes the prior, which alone forgets.

        d = (B / settling) · (λ - λ₀)                          B = batch_size
        λ ← λ - lr · B · p.grad - d
        λ₀ ← (1 - B / window) · (λ₀ + d)

    `continual.PosteriorAsPrior` makes the belief the next prior where a task ends; here a little of it becomes the
    prior at every step, and nobody has to know where tasks end. What λ gives up λ₀ takes over. With
    settling ≪ window an example counts in full at first, falls towards half as much (0.57 after settling examples), and
    is then forgotten over 2 · window examples: `WindowedBayes` with ``decay="plain"``, half the step and twice the
    window, and as much again for what is new.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of one example: how much λ moves for a natural gradient of 1.
        window: over how many examples the prior forgets, at least the size of a batch; inf forgets nothing.
        settling: over how many examples belief and prior approach each other, at least the size of a batch; inf
            keeps them apart.
        batch_size: B, the examples whose mean the loss is.
        prior: λ₀ at the start; a number for all weights, or one tensor per belief parameter (`varbnn.as_prior`). It
            moves, and is kept in the state.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise the objective instead of minimising the loss.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not Bernoulli.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2))
    >>> optimizer = FollowingPrior(model.parameters(), lr=1.5, window=500_000, settling=100_000, batch_size=50)
    """

    posterior = Bernoulli
    source = "this library, 2026"
    filter = NoFilter()
    forgetting = Settling()
    decision = Descend()

    def __init__(
        self,
        params: Params,
        lr: float,
        *,
        window: float,
        settling: float,
        batch_size: int,
        prior: float | Sequence[Tensor] = 0.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, window=window, settling=settling, batch_size=batch_size)
        super().__init__(
            params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, prior=prior, maximize=maximize
        )

    def gain(self, group: Group) -> float:
        return float(group["batch_size"])

    def check(self, group: Group) -> None:
        super().check(group)
        size = group["batch_size"]
        must_be(group, "batch_size", 0 < size < math.inf, "positive: the examples of one step")
        held = group["window"] >= size
        must_be(group, "window", held, f"at least batch_size ({size}), in examples; inf never forgets")
        slow = group["settling"] >= size
        must_be(group, "settling", slow, f"at least batch_size ({size}), in examples; inf keeps the prior apart")
        check_prior(group)

    def prior_in_state(self, group: Group) -> bool:
        return True  # from the first step on; a number is only where it starts

    def _step_beliefs(self, group: Group, params: list[Tensor]) -> None:
        for p in params:
            if "prior" not in self.state[p]:
                self.state[p]["prior"] = torch.full_like(p, group["prior"], dtype=full(p.dtype))
        super()._step_beliefs(group, params)
