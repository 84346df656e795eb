"""Paces: how far each weight goes along its direction, by what it believes and where the step would take it."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.optim.parts import Group
from varbnn.posteriors.signed_bernoulli import sech2


class Pace:
    """A positive multiplier for every weight.

    Attributes:
        formula: what it is, for the table of all methods.
    """

    formula = ""

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        """Multipliers of `directions`, which stay as they are, at `beliefs` before any forgetting."""
        raise NotImplementedError


class Wary(Pace):
    """One over K (1 - μ²) + 2 g μ + 2 |g| + 1 / lr_max: steps that would take λ back to 0 are resisted.

    K = group["kl_multiplier"], lr_max = group["lr_max"]. Where |g| is large, a step towards 0 goes at e^(-2 |λ|) times
    the pace of a step away from it.
    """

    formula = "P = 1/(c + 2 d μ + 2 |d|);  c = K (1 - μ²) + 1/lr_max"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        paces = []
        for natural, gradient in zip(beliefs, directions, strict=True):
            # g μ + |g| = |g| (1 ± |μ|), and 1 - |μ| = 2 e / (1 + e) with e = exp(-2 |λ|) does not cancel
            tail = torch.exp(-2 * natural.abs())
            resistance = torch.where(natural * gradient < 0, tail, 1.0).mul_(4).mul_(gradient.abs()).div_(1 + tail)
            resistance.add_(4 * group["kl_multiplier"] * tail / (1 + tail).square()).add_(1 / group["lr_max"])
            paces.append(resistance.reciprocal_())
        return paces


class Consolidating(Pace):
    """sech²(m |r|) for a step that shrinks |r|, else 1; m = group["metaplasticity"] (Laborieux et al. 2021)."""

    formula = "P = sech²(m r) where d r > 0 else 1"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        sure = (sech2(group["metaplasticity"] * latent) for latent in beliefs)
        return [
            torch.where(latent * direction > 0, factor, 1.0)
            for latent, direction, factor in zip(beliefs, directions, sure, strict=True)
        ]
