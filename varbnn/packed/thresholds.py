"""Signs of scaled and shifted values, as comparisons with the value at which torch's own rounding turns them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.packed.steps import Affine, PackedProduct
from varbnn.packed.trace import Plan

REACH = 2
"""Floats on each side of -shift / scale among which the sign turns."""


def thresholds(plan: Plan) -> Plan:
    """Let every sign after a batch norm turn where torch's batch norm turns it, to the bit.

    A unit lies on its mean more often than one thinks: sums of ±1 are whole numbers, and a dead unit is its mean. What
    the batch norm is there depends on how it rounds. ``±(x - threshold)`` has the right sign however it is rounded.
    """
    for step in plan.steps:
        if isinstance(step, Affine | PackedProduct) and step.activation == "sign":
            _compare(step)
    return plan


def _compare(step: nn.Module) -> None:
    if step.scale is None or step.shift is None:  # one operation, whose sign no rounding changes
        return
    scale, shift = torch.broadcast_tensors(step.scale, step.shift)
    upwards = scale > 0
    near = (-shift.double() / scale.double()).float()
    outward = torch.where(upwards, torch.inf, -torch.inf).to(near)  # from values of sign -1 to those of +1
    values = [near]
    for _ in range(REACH):
        values = [torch.nextafter(values[0], -outward), *values, torch.nextafter(values[-1], outward)]
    candidates = torch.stack(values)
    positive = _as_torch(candidates, scale, shift) >= 0
    first = positive.int().argmax(0)
    found = (scale != 0) & near.isfinite() & ~positive[0] & positive[-1]
    threshold = candidates.gather(0, first[None])[0]
    direction = torch.where(upwards, 1.0, -1.0).to(scale)
    step.scale = torch.where(found, direction, scale).contiguous()
    step.shift = torch.where(found, -direction * threshold, shift).contiguous()


def _as_torch(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``values · scale + shift``, rounded as torch's batch norm rounds it on this device."""
    flat = scale.reshape(-1)
    mean, variance = torch.zeros_like(flat), torch.ones_like(flat)
    return F.batch_norm(values.flatten(1), mean, variance, flat, shift.reshape(-1), eps=0.0).view_as(values)
