"""Bop: no latent weights, only flips."""

from __future__ import annotations

import math

from varbnn.optim.decisions import Flip
from varbnn.optim.filters import Average
from varbnn.optim.parts import Group, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Point

TIES = ("keep", "larq")


class Bop(Rule):
    """Flip a weight when the average gradient says so strongly enough (Helwegen et al. 2019, algorithm 1).

        m ← m + γ (g - m);   w ← -w where w m > threshold

    The belief holds the weight itself, ±1 from the first step on.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        gamma: γ, how fast the average follows the gradient, in (0, 1].
        threshold: of the average, ≥ 0, in units of the gradient of the mean loss.
        ties: what happens at w m = threshold exactly. ``"keep"``: nothing, as in the paper. ``"larq"``: w becomes +1,
            as in the released code; at threshold 0 this turns weights that never had a gradient to +1.
        lr: multiplies γ, so that torch's schedulers decay it together with `real_lr`.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = Bop(model.parameters(), gamma=1e-3, threshold=1e-6)
    """

    posterior = Point
    source = "Helwegen et al. 2019"
    filter = Average()
    decision = Flip()

    def __init__(
        self,
        params: Params,
        *,
        gamma: float = 1e-4,
        threshold: float = 1e-8,
        ties: str = "keep",
        lr: float = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, gamma=gamma, threshold=threshold, ties=ties)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def check(self, group: Group) -> None:
        super().check(group)
        check_flips(group)


def check_flips(group: Group) -> None:
    """Raise InputError when a hyper-parameter of the average or of the flips is out of range."""
    must_be(group, "gamma", 0 < group["gamma"] <= 1, "in (0, 1]")
    must_be(group, "lr", group["lr"] * group["gamma"] <= 1, "so small that lr · gamma ≤ 1")
    must_be(group, "threshold", 0 <= group["threshold"] < math.inf, "finite and ≥ 0")
    must_be(group, "ties", group["ties"] in TIES, f"one of {TIES}")
