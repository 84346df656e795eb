"""Do the numbers in a packed program keep the promises that the kernels rely on?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from varbnn.bits import BLOCK, WORD, blocks
from varbnn.packed.call import Real
from varbnn.packed.file.container import raw
from varbnn.packed.file.values import require, shown
from varbnn.packed.program import Program
from varbnn.packed.steps import Affine, PackedConv, PackedLinear


def verify_contents(program: Program, tensors: Mapping[str, Tensor]) -> None:
    """Unused bits and outputs of weights are 0, scales and shifts are finite, booleans are 0 or 1.

    Raises:
        CheckpointError: they are not; the message names the step or the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool:
            require(not bool((raw(tensor) > 1).any()), f"tensor {shown(name)}: a boolean is neither 0 nor 1")
    for number, step in enumerate(program.steps, 1):
        if isinstance(step, PackedLinear):
            _verify_blocks(step.weight, step.in_features, step.out_features, 1, number)
        elif isinstance(step, PackedConv):
            fan_in = math.prod(step.kernel) * (step.channels[0] // step.groups)
            _verify_blocks(step.weight, fan_in, step.channels[1], step.groups, number)
        if isinstance(step, PackedLinear | PackedConv | Affine | Real):
            _verify_finite(step, number)


def _verify_blocks(weight: Tensor, inputs: int, outputs: int, groups: int, number: int) -> None:
    used = inputs % WORD
    if used:
        spare = weight[:, :, -1] & -(1 << used)
        require(not bool(spare.any()), f"step {number}: the unused bits of its weight are not 0")
    width = outputs // groups
    if width % BLOCK:
        last = weight.unflatten(1, (groups, blocks(width)))[:, :, -1, :, width % BLOCK :]
        require(not bool(last.any()), f"step {number}: the unused outputs of its weight are not 0")


def _verify_finite(step: nn.Module, number: int) -> None:
    for name, tensor in step.state_dict().items():
        if tensor.is_floating_point():
            require(bool(tensor.isfinite().all()), f"step {number}: {name} holds NaN or inf")
