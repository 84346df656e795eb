"""VISPA: signs of low-rank normal vectors, by stochastic gradients with momentum."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from varbnn.optim.decisions import DescendPair, DescendPairToUnit
from varbnn.optim.filters import HeavyBall
from varbnn.optim.forgetting import PairDecay
from varbnn.optim.parts import Group, OneOf, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.optim.whole import require_in_row, require_whole, shared_option
from varbnn.posteriors import LowRankGaussian

NAMES = ("location", "factors")


class VISPA(Rule):
    """Train location and factors of `LowRankGaussian` by SGD with momentum (Orecchia et al. 2024, algorithm 1).

        d = momentum of (p.grad + weight_decay · p), for the location m and for each factor of Z
        m ← m - lr · d;  Z ← Z - factor_lr_scale · lr · d
        constraint="unit":  m, z ← (m, z) / √(m² + ‖z‖² / scale), weight by weight

    With rank 0 it is ``StraightThrough(base="sgd", clip=None)``, to the bit. A learning rate that warms up and falls
    along a cosine is ``varbnn.optim.Scheduler(optimizer, lr=Cosine(...))`` or any scheduler of torch.

    A group holds posteriors of one constraint and scale, which the rule writes into the group, and location and factors
    of a layer in a row, as ``model.parameters()`` gives them.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW
            (in the released code by the same SGD).
        lr: of the location.
        momentum, dampening: as in torch's SGD, which the released code uses; dampening = momentum is the average of
            the paper. The velocity starts at 0.
        weight_decay: added to the gradient of location and factors. Without a constraint it alone bounds them.
        factor_lr_scale: lr of the factors over that of the location.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, one that is not a LowRankGaussian, constraints
            or scales that differ in one group, or a location without its factors.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.LowRankGaussian(rank=3))
    >>> optimizer = VISPA(model.parameters(), lr=0.1)
    >>> [(group["kind"], len(group["params"])) for group in optimizer.param_groups]
    [('belief', 2), ('real', 1)]
    """

    posterior = LowRankGaussian
    source = "Orecchia et al. 2024"
    of_posteriors = ("constraint", "scale")
    filter = HeavyBall()
    forgetting = PairDecay()
    decision = OneOf("constraint", {"none": DescendPair(), "unit": DescendPairToUnit()})

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        factor_lr_scale: float = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        defaults |= dict(factor_lr_scale=factor_lr_scale, constraint="none", scale=1.0)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def together(self, group: Group) -> int:
        return len(NAMES)

    def check(self, group: Group) -> None:
        super().check(group)
        must_be(group, "momentum", 0 <= group["momentum"] < 1, "in [0, 1)")
        must_be(group, "dampening", 0 <= group["dampening"] < 1, "in [0, 1)")
        must_be(group, "weight_decay", 0 <= group["weight_decay"] < math.inf, "finite and ≥ 0")
        must_be(group, "factor_lr_scale", 0 <= group["factor_lr_scale"] < math.inf, "finite and ≥ 0")

    def _add_split(self, param_group: dict[str, Any], split: dict[str, list[Any]]) -> None:
        beliefs = [item[1] if isinstance(item, tuple) else item for item in split["belief"]]
        require_in_row(beliefs, NAMES)
        given = {
            "constraint": shared_option(beliefs, self.posterior, "constraint", "none"),
            "scale": shared_option(beliefs, self.posterior, "scale", 1.0),
        }
        super()._add_split({**param_group, **given}, split)

    def _refuse(self, work: list[tuple[Group, list[Tensor]]]) -> None:
        super()._refuse(work)
        for group, _ in work:
            if group["kind"] == "belief":
                require_whole(group["params"], NAMES, "without factors it is LowRankGaussian(rank=0)")
