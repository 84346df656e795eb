"""Bop with the gradient normalised by its second moment."""

from __future__ import annotations

from varbnn.optim.bop import check_flips
from varbnn.optim.decisions import Flip
from varbnn.optim.filters import NormalisedAverage
from varbnn.optim.parts import Group, must_be
from varbnn.optim.rule import Params, Rule
from varbnn.posteriors import Point

CORRECTIONS = (None, "released", "adam")


class Bop2ndOrder(Rule):
    """Flip a weight when the average gradient is large beside its own spread (Suarez-Ramirez et al. 2021).

        m ← m + γ (g - m);   v ← v + σ (g² - v);   z = m / (√v + 1e-10);   w ← -w where w z > threshold

    The belief holds the weight itself, ±1 from the first step on.

    Args:
        params: ``model.parameters()``, named parameters, or groups; real parameters among them are trained by AdamW.
        gamma: γ, how fast the average follows the gradient, in (0, 1].
        sigma: σ, how fast the average square follows, in (0, 1]. The published schedules let it grow.
        threshold: of z, which has no unit, ≥ 0.
        bias_correction: None is the paper's biased form. ``"released"`` is what the published code calls unbiased:
            z = (m / γ) / (√(v / σ) + 1e-10), a division by the rates at every step, which equals the biased form with
            threshold · γ / √σ; at lr 0, where a warm-up starts, m is not divided. ``"adam"`` divides m and v by the
            weight they have given to gradients so far.
        ties: see `Bop`.
        lr: multiplies γ, so that torch's schedulers decay it together with `real_lr`.
        real_lr: learning rate of the real parameters.
        real_weight_decay: decoupled weight decay of the real parameters.
        maximize: maximise instead of minimising.

    Raises:
        InputError: a value out of range, no belief among the parameters, or one that is not a Point.

    >>> import torch, varbnn as vb
    >>> model = vb.binarize(torch.nn.Linear(4, 2), posterior=vb.posteriors.Point())
    >>> optimizer = Bop2ndOrder(model.parameters(), bias_correction="adam")
    """

    posterior = Point
    source = "Suarez-Ramirez et al. 2021"
    filter = NormalisedAverage()
    decision = Flip()

    def __init__(
        self,
        params: Params,
        *,
        gamma: float = 1e-7,
        sigma: float = 1e-3,
        threshold: float = 1e-6,
        bias_correction: str | None = None,
        ties: str = "keep",
        lr: float = 1.0,
        real_lr: float = 1e-2,
        real_weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, gamma=gamma, sigma=sigma, threshold=threshold, ties=ties)
        defaults |= dict(bias_correction=bias_correction)
        super().__init__(params, defaults, real_lr=real_lr, real_weight_decay=real_weight_decay, maximize=maximize)

    def check(self, group: Group) -> None:
        super().check(group)
        check_flips(group)
        must_be(group, "sigma", 0 < group["sigma"] <= 1, "in (0, 1]")
        must_be(group, "bias_correction", group["bias_correction"] in CORRECTIONS, f"one of {CORRECTIONS}")
