"""Latent weights that resist changing sign, the more the larger they are."""

from __future__ import annotations

import math
from typing import Any

from varbnn.optim.decisions import DescendAtPace
from varbnn.optim.filters import AdamDirection
from varbnn.optim.forgetting import CoupledDecay
from varbnn.optim.paces import Consolidating
from varbnn.optim.parts import Group, must_be
from varbnn.optim.real import are_betas
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Point


class Metaplastic(Rule):
    """Adam on latent weights, slowed where it shrinks a large latent (Laborieux et al. 2021).

        d = Adam's direction of g + weight_decay · r
        r ← r - lr · P · d          P = sech²(metaplasticity · r) where d r > 0, else 1

    A latent that many steps have pushed to one side is hard to bring back, so a binary network forgets less of its
    earlier tasks. With ``metaplasticity=0`` it is ``StraightThrough(clip=None)``.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the latents.
        metaplasticity: m ≥ 0. It is in units of 1 / latent, so it belongs to the scale at which the latents start.
        betas, eps: of Adam.
        weight_decay: added to the gradient, as in torch's Adam.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = Metaplastic(model.parameters(), lr=5e-3, metaplasticity=1.35)
    """

    posterior = Point
    source = "Laborieux et al. 2021"
    filter = AdamDirection()
    forgetting = CoupledDecay()
    decision = DescendAtPace(Consolidating(), "r")

    def __init__(
        self,
        params: Params,
        lr: float = 5e-3,
        *,
        metaplasticity: float = 1.35,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = dict(lr=lr, metaplasticity=metaplasticity, betas=betas, eps=eps)
        defaults |= dict(weight_decay=weight_decay)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def check(self, group: Group) -> None:
        super().check(group)
        must_be(group, "metaplasticity", 0 <= group["metaplasticity"] < math.inf, "finite and ≥ 0")
        must_be(group, "betas", are_betas(group["betas"]), "two numbers in [0, 1)")
        must_be(group, "eps", group["eps"] > 0, "positive")
        must_be(group, "weight_decay", 0 <= group["weight_decay"] < math.inf, "finite and ≥ 0")
