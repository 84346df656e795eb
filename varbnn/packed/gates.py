"""`varbnn.nn.Gate` in a packed program: as numbers, or as bits for the packed layers after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varbnn.bits import sign
from varbnn.kernels import ops
from varbnn.nn import Gate
from varbnn.packed.steps import PackedLinear, PackedProduct


class GateStep(nn.Module):
    """The two values of a gate as floats."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, input: Tensor) -> Tensor:
        return self.gate.opened(input)

    def member(self, s: int) -> list[nn.Module]:
        return [self.gate]


class Shut(nn.Module):
    """+1 where a gate is shut, -1 where it is open."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, input: Tensor) -> Tensor:
        return sign(self.gate.beyond(input))


class PackShut(nn.Module):
    """`Shut` as packed signs, along the last dimension, or along channels where there is space.

    A set bit stands for a gate that is shut, since the edge belongs to the shut side, as 0 does to the +1 of a sign.
    """

    def __init__(self, gate: Gate, channels_first: bool) -> None:
        super().__init__()
        self.gate, self.channels_first = gate, channels_first

    def forward(self, input: Tensor) -> Tensor:
        distance = self.gate.beyond(input.float())
        values = distance.movedim(1, -1) if self.channels_first else distance
        return ops.pack_signs(values.contiguous())[0]

    def member(self, s: int) -> list[nn.Module]:
        return [Shut(self.gate)]


def takes_shut(step: nn.Module, gate: Gate) -> bool:
    """Whether `read_shut` can let `step` take the bits of `gate`."""
    if isinstance(step, PackedLinear):
        return True
    # zeros around an image are neither open nor shut: as signs they add nothing, as bits they would be counted as 0
    return isinstance(step, PackedProduct) and step.takes_bits and gate.values == "signs"


def read_shut(step: PackedProduct, gate: Gate) -> None:
    """Let `step`, which took the values of `gate`, take those of `Shut` and give the same.

    open - shut are the signs -shut, the bits (1 - shut) / 2. The weight's products with either are whole numbers and
    halves of even ones, so nothing is rounded where `step` has neither scale nor shift of its own.
    """
    factor = -1.0 if gate.values == "signs" else -0.5
    if gate.values == "bits":
        assert isinstance(step, PackedLinear)
        half = 0.5 * weight_sums(step)
        half = half if step.scale is None else half * step.scale
        step.shift = half if step.shift is None else half + step.shift
    step.scale = step.weight.new_full((1, step.width), factor, dtype=torch.float32) if step.scale is None else (
        factor * step.scale
    )  # fmt: skip


def weight_sums(step: PackedLinear) -> Tensor:
    """The sum of the weights of each output, (S, N)."""
    ones = torch.ones(1, 1, step.in_features, dtype=torch.float32, device=step.weight.device)
    return ops.linear(ops.pack_signs(ones)[0], step.weight, step.in_features, step.out_features).squeeze(1)
