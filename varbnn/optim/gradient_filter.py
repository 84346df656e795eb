"""Weights as the sign of a filtered gradient."""

from __future__ import annotations

from varbnn.optim.decisions import FlipAtZero
from varbnn.optim.filters import Cascade
from varbnn.optim.parts import Group, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Point


class GradientFilter(Rule):
    """Set every weight against the average of the average gradient (Quist, Li, van Gemert 2023).

        b ← b + γ (g - b);   m ← m + α (b - m);   w ← -w where w m > 0

    What latent-weight SGD with momentum and weight decay does, without latent weights and with two hyper-parameters
    that cannot be traded for each other. Both averages start at 0, so the first step sets w = -sign(g) and forgets the
    initial weights; `set_state` starts them elsewhere, and `varbnn.optim.translate` says where to repeat a latent run.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        alpha: α of the second average, in (0, 1]; it plays the part of learning rate times weight decay.
        gamma: γ of the first average, in (0, 1]; 1 - momentum.
        lr: multiplies α and nothing else, so that torch's schedulers decay it together with `real_lr`.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = GradientFilter(model.parameters(), alpha=1e-3, gamma=0.1)
    """

    posterior = Point
    source = "Quist, Li, van Gemert 2023"
    filter = Cascade()
    decision = FlipAtZero()

    def __init__(
        self,
        params: Params,
        *,
        alpha: float = 1e-3,
        gamma: float = 0.1,
        lr: float = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, alpha=alpha, gamma=gamma)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def check(self, group: Group) -> None:
        super().check(group)
        must_be(group, "alpha", 0 < group["alpha"] <= 1, "in (0, 1]")
        must_be(group, "lr", group["lr"] * group["alpha"] <= 1, "so small that lr · alpha ≤ 1")
        must_be(group, "gamma", 0 < group["gamma"] <= 1, "in (0, 1]")
