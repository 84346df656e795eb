"""Latent weights with the straight-through estimator."""

from __future__ import annotations

import math
from typing import Any

from varbnn.optim.decisions import DescendInBox
from varbnn.optim.filters import AdamDirection, HeavyBall
from varbnn.optim.forgetting import WeightDecay
from varbnn.optim.parts import Group, OneOf, must_be
from varbnn.optim.real import are_betas
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Point


class StraightThrough(Rule):
    """Train real latent weights with the gradient taken at their signs (Courbariaux et al. 2015, algorithm 1).

        r ← r - lr · direction(g + weight_decay · r),   then clipped to [-clip, clip]

    The direction is Adam's or that of SGD with momentum, as in torch.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the latents.
        base: ``"adam"`` or ``"sgd"``.
        betas, eps: of Adam.
        momentum, dampening: of SGD, 0 with Adam; the velocity starts at 0. ``OneCycleLR`` moves Adam's `betas`
            whatever the base: give it ``cycle_momentum=False``, and move the momentum by `varbnn.optim.Scheduler`.
        weight_decay: added to the gradient, as in torch's SGD and Adam.
        decoupled_weight_decay: apply it to the latents and not through the filter, as in AdamW.
        clip: box for the latents, or None. The published baseline clips at 1.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, `momentum` or `dampening` for Adam, no belief among the parameters, or one
            that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = StraightThrough(model.parameters(), lr=1e-2)
    """

    posterior = Point
    source = "Courbariaux et al. 2015"
    filter = OneOf("base", {"adam": AdamDirection(), "sgd": HeavyBall()})
    forgetting = WeightDecay()
    decision = DescendInBox()

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        base: str = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        clip: float | None = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, base=base, betas=betas, eps=eps, momentum=momentum, dampening=dampening, clip=clip)
        defaults |= dict(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def _add_split(self, param_group: dict[str, Any], split: dict[str, list[Any]]) -> None:
        if param_group.get("base", self.defaults["base"]) == "adam" != self.defaults["base"]:
            param_group = {"momentum": 0.0, "dampening": 0.0, **param_group}  # the constructor's are those of SGD
        super()._add_split(param_group, split)

    def check(self, group: Group) -> None:
        super().check(group)
        self.filter.chosen(group)
        must_be(group, "betas", are_betas(group["betas"]), "two numbers in [0, 1)")
        must_be(group, "eps", group["eps"] > 0, "positive")
        must_be(group, "momentum", 0 <= group["momentum"] < 1, "in [0, 1)")
        must_be(group, "dampening", 0 <= group["dampening"] < 1, "in [0, 1)")
        if group["base"] == "adam":
            for name in ("momentum", "dampening"):
                must_be(group, name, not group[name], "0 with base='adam', which has betas; base='sgd' takes it")
        must_be(group, "weight_decay", 0 <= group["weight_decay"] < math.inf, "finite and ≥ 0")
        must_be(group, "clip", group["clip"] is None or group["clip"] > 0, "positive or None")
