"""Which weights changed their most probable sign: one bit each to remember."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varbnn import bits
from varbnn.checks import finite_belief
from varbnn.nn.draws import beliefs_of, gathered


@torch.no_grad()
def packed_modes(model: nn.Module) -> list[Tensor]:
    """The most probable sign of every binary weight as bits, one tensor per belief, on the CPU.

    Raises:
        InputError: a belief has NaN or infinite entries.
    """
    modes = []
    for name, layer in beliefs_of(model):
        belief = [gathered(tensor) for tensor in layer.belief]
        finite_belief(name or type(layer).__name__, belief)
        modes.append(bits.pack(layer.posterior.mode(*belief).reshape(1, -1)).cpu())
    return modes


def differing(one: Tensor, other: Tensor) -> int:
    """Bits that are not the same.

    >>> differing(torch.tensor([[0b101]], dtype=torch.int32), torch.tensor([[0b110]], dtype=torch.int32))
    2
    """
    changed = (one ^ other).contiguous().view(torch.uint8)
    return int(sum(((changed >> bit) & 1).sum(dtype=torch.int64) for bit in range(8)))
