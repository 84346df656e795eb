"""Latent weights with the straight-through estimator."""

from __future__ import annotations

from varbnn.optim.parts import AdamDirection, Clip, Filter, Group, HeavyBall, WeightDecay
from varbnn.optim.rule import Params, Rule, are_betas, must_be
from varbnn.posteriors import Point

BASES: dict[str, Filter] = {"adam": AdamDirection(), "sgd": HeavyBall()}


class StraightThrough(Rule):
    """Train real latent weights with the gradient taken at their signs (Courbariaux et al. 2015, algorithm 1).

        r ← r - lr · direction(g + weight_decay · r),   then clipped to [-clip, clip]

    The direction is Adam's or that of SGD with momentum, as in torch.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        lr: of the latents.
        base: ``"adam"`` or ``"sgd"``.
        betas, eps: of Adam.
        momentum: of SGD.
        weight_decay: added to the gradient.
        clip: box for the latents, or None. The published baseline clips at 1.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = StraightThrough(model.parameters(), lr=1e-2)
    """

    posterior = Point
    filter = BASES["adam"]
    forgetting = WeightDecay()
    decision = Clip()

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        base: str = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip: float | None = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, base=base, betas=betas, eps=eps, momentum=momentum, weight_decay=weight_decay, clip=clip)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def filter_for(self, group: Group) -> Filter:
        return BASES[group["base"]]

    def check(self, group: Group) -> None:
        super().check(group)
        must_be(group, "base", group["base"] in BASES, f"one of {tuple(BASES)}")
        must_be(group, "betas", are_betas(group["betas"]), "two numbers in [0, 1)")
        must_be(group, "eps", group["eps"] > 0, "positive")
        must_be(group, "momentum", 0 <= group["momentum"] < 1, "in [0, 1)")
        must_be(group, "weight_decay", group["weight_decay"] >= 0, "≥ 0")
        must_be(group, "clip", group["clip"] is None or group["clip"] > 0, "positive or None")
