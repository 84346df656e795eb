"""Paces: how far each weight goes along its direction, by what it believes and where the step would take it."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.kernels.reference import sech2
from varbnn.optim.parts import Compiled, Group


class Pace:
    """A positive multiplier for every weight.

    Attributes:
        formula: what it is, for the table of all methods.
    """

    formula = ""

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        """Multipliers of `directions`, which stay as they are, at `beliefs` before any forgetting."""
        raise NotImplementedError

    def compiled(self, group: Group) -> Compiled | None:
        """The step at this pace for the compiled step, where it knows how."""
        return None


class Wary(Pace):
    """One over K (1 - μ²) + 2 g μ + 2 |g| + 1 / lr_max: steps that would take λ back to 0 are resisted.

    K = group["kl_multiplier"], lr_max = group["lr_max"]. Where |g| is large, a step towards 0 goes at e^(-2 |λ|) times
    the pace of a step away from it.
    """

    formula = "P = 1/(c + 2 d μ + 2 |d|);  c = K (1 - μ²) + 1/lr_max"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        paces = []
        for natural, gradient in zip(beliefs, directions, strict=True):
            # 2 g μ + 2 |g| = 4 |g| sigmoid(±2 λ), + where g and λ agree in sign, which cancels nowhere
            inverse = torch.sign(gradient).mul_(natural).mul_(2).sigmoid_().mul_(gradient.abs()).mul_(4)
            inverse.add_(sech2(natural), alpha=group["kl_multiplier"]).add_(1 / group["lr_max"])
            paces.append(inverse.reciprocal_())
        return paces

    def compiled(self, group: Group) -> Compiled | None:
        return Compiled({"decision": "wary", "caution": group["kl_multiplier"], "least": 1 / group["lr_max"]})


class Consolidating(Pace):
    """sech²(m |r|) for a step that shrinks |r|, else 1; m = group["metaplasticity"] (Laborieux et al. 2021)."""

    formula = "P = sech²(m r) where d r > 0 else 1"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group) -> list[Tensor]:
        resisted = (torch.sign(d).mul_(r).clamp_(min=0) for r, d in zip(beliefs, directions, strict=True))
        return [sech2(size.mul_(group["metaplasticity"])) for size in resisted]

    def compiled(self, group: Group) -> Compiled | None:
        return Compiled({"decision": "consolidating", "caution": group["metaplasticity"]})
