"""Decisions: what a belief makes of the direction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from varbnn.bits import sign
from varbnn.optim.paces import Pace
from varbnn.optim.parts import Compiled, Group
from varbnn.posteriors.low_rank import to_unit_


class Decision:
    """Moves the beliefs.

    Attributes:
        formula: how, for the table of all methods.
        linear: whether a step on a sum is the sum of the steps, so that the pull to the prior may be taken by itself.
        pace: what multiplies the direction of each weight beforehand; None where all go at 1.
    """

    formula = ""
    linear = True
    pace: Pace | None = None

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        """Change `beliefs` in place by `scale` times `directions`; `scale` is 1 unless the filter was skipped."""
        raise NotImplementedError

    def compiled(self, group: Group) -> Compiled | None:
        """The same for the compiled step, where it knows how."""
        return None


class Descend(Decision):
    """A step of group["lr"] against the direction."""

    formula = "λ ← λ - lr · d"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        torch._foreach_add_(beliefs, directions, alpha=-group["lr"] * scale)

    def compiled(self, group: Group) -> Compiled | None:
        return Compiled({"decision": "descend", "lr": group["lr"]})


class DescendAtPace(Descend):
    """The step, with every weight at its own pace."""

    linear = False

    def __init__(self, pace: Pace, letter: str = "λ") -> None:
        self.pace = pace
        self.formula = f"{pace.formula};  {letter} ← {letter} - lr · P d"

    def compiled(self, group: Group) -> Compiled | None:
        assert self.pace is not None
        own = self.pace.compiled(group)
        return None if own is None else Compiled({**own.settings, "lr": group["lr"]})


class DescendInBox(Descend):
    """A step, then back into [-clip, clip], so that a latent can still change its mind; group["clip"] None does not."""

    formula = "r ← clip(r - lr · d)"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        super().__call__(beliefs, directions, group, scale)
        clip = group["clip"]
        if clip is not None:
            torch._foreach_clamp_min_(beliefs, -clip)
            torch._foreach_clamp_max_(beliefs, clip)

    def compiled(self, group: Group) -> Compiled | None:
        if group["clip"] is None:
            return super().compiled(group)
        return Compiled({"decision": "box", "lr": group["lr"], "low": -group["clip"], "high": group["clip"]})


class DescendPair(Descend):
    """For pairs (m, Z), location and factors: a step of both, that of Z times c = group["factor_lr_scale"]."""

    formula = "m ← m - lr · d;  Z ← Z - c · lr · d"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        for part, share in ((slice(0, None, 2), 1.0), (slice(1, None, 2), group["factor_lr_scale"])):
            torch._foreach_add_(beliefs[part], directions[part], alpha=-group["lr"] * scale * share)

    def compiled(self, group: Group) -> Compiled | None:
        return super().compiled(group) if group["factor_lr_scale"] == 1 else None


class DescendPairToUnit(DescendPair):
    """The step, then both divided by u = √(m² + ‖z‖² / S), weight by weight; S = group["scale"]."""

    formula = "m ← m - lr · d;  Z ← Z - c · lr · d;  u = √(m² + ‖z‖² / S);  m ← m / u;  Z ← Z / u"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        super().__call__(beliefs, directions, group, scale)
        self._to_unit(beliefs, group["scale"])

    def compiled(self, group: Group) -> Compiled | None:
        step = super().compiled(group)
        return step and replace(step, afterwards=partial(self._to_unit, scale=group["scale"]))

    def _to_unit(self, beliefs: list[Tensor], scale: float) -> None:
        for location, factors in zip(beliefs[0::2], beliefs[1::2], strict=True):
            to_unit_(location, factors, scale)


class DescendByPrecision(Decision):
    """For pairs (m, S): S moves first and stays positive, then m by a step over the new S.

    The directions are that of the loss for m, and the change δ that S is to make. Lin, Schmidt, Khan 2020: the plain
    S + lr · δ can turn negative; with the second-order term it never falls below half of S.
    """

    formula = "S ← S (1 + x + x²/2), x = lr · δ / S;  m ← m - lr · d / S"
    linear = False

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        lr = group["lr"]
        precisions = beliefs[1::2]
        relative = torch._foreach_mul(directions[1::2], lr * scale)
        torch._foreach_div_(relative, precisions)
        growth = torch._foreach_div(relative, 2)
        torch._foreach_add_(growth, 1)
        torch._foreach_mul_(growth, relative)
        torch._foreach_add_(growth, 1)
        torch._foreach_mul_(precisions, growth)
        # addcdiv would do both, but takes a rate that is a tensor for one factor per parameter
        steps = torch._foreach_div(directions[0::2], precisions)
        torch._foreach_add_(beliefs[0::2], steps, alpha=-lr * scale)

    def compiled(self, group: Group) -> Compiled | None:
        return Compiled({"decision": "descend", "lr": group["lr"]}, pair=True)


class Flip(Decision):
    """No step at all: the weight itself is kept, and flips where the evidence against it passes the threshold.

    τ = group["threshold"]. group["ties"] says what happens at w m = τ exactly: ``"keep"`` leaves the weight (the
    paper), ``"larq"`` sets it to +1 (the released code; at τ = 0 that includes weights that never had a gradient).
    """

    formula = "w ← -w where w m > τ"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        for weight, evidence in zip(beliefs, directions, strict=True):
            decide_(weight, evidence, group["threshold"], group["ties"])

    def compiled(self, group: Group) -> Compiled | None:
        kind = "flip" if group["ties"] == "keep" else "flip-larq"
        return Compiled({"decision": kind, "threshold": group["threshold"]})


class FlipAtZero(Decision):
    """Flips where the evidence is against the weight at all; at 0 the weight stays."""

    formula = "w ← -w where w m > 0"

    def __call__(self, beliefs: list[Tensor], directions: list[Tensor], group: Group, scale: float) -> None:
        for weight, evidence in zip(beliefs, directions, strict=True):
            decide_(weight, evidence, 0.0, "keep")

    def compiled(self, group: Group) -> Compiled | None:
        return Compiled({"decision": "flip", "threshold": 0.0})


def decide_(weight: Tensor, evidence: Tensor, threshold: float, ties: str) -> None:
    """Turn `weight`, ±1 or a real number that stands for its sign, into ±1 after looking at `evidence`.

    >>> weight = torch.tensor([1.0, 1.0, -1.0, -0.3])
    >>> decide_(weight, torch.tensor([0.5, 2.0, -1.0, 5.0]), threshold=1.0, ties="keep")
    >>> weight
    tensor([ 1., -1., -1., -1.])
    """
    weight.copy_(sign(weight))
    if ties == "larq":
        weight.copy_(sign(weight.mul_(threshold).sub_(evidence)))
    else:
        # τ - w m loses no sign to rounding, and is +0 at a tie
        margin = torch.addcmul(evidence.new_full((), threshold), weight, evidence, value=-1)
        weight.mul_(torch.copysign(margin.new_ones(()), margin))
