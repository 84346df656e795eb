"""A program that runs: steps in order, each taking the values of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from varbnn.errors import InputError
from varbnn.packed.call import Real
from varbnn.packed.steps import PackedConv, PackedLinear
from varbnn.packed.trace import Plan


def is_numeric(inputs: Tensor) -> bool:
    """Floating or whole numbers."""
    return not (inputs.is_complex() or inputs.dtype == torch.bool)


def entering(inputs: Tensor) -> Tensor:
    """Inputs as a program takes them: floating ones in ``float32``, and none in ``int32``, whose words are signs."""
    if inputs.is_floating_point():
        return inputs.float()
    return inputs.long() if inputs.dtype == torch.int32 else inputs


class Program(nn.Module):
    """Runs its steps in order.

    Args:
        steps: modules; step i gives value i + 1.
        wires: for each step the numbers of the values it takes; value 0 is the input.
        output: the value that is the answer.
    """

    def __init__(self, steps: Sequence[nn.Module], wires: Sequence[Sequence[int]], output: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.wires = [tuple(wire) for wire in wires]
        self.output = output
        used = {value: index for index, wire in enumerate(self.wires) for value in wire}
        # values that no later step takes are let go at once
        self._last = [[v for v in set(wire) if used[v] == index and v != output] for index, wire in enumerate(wires)]

    @classmethod
    def of(cls, plan: Plan) -> Program:
        return cls(plan.steps, plan.wires, plan.output)

    def forward(self, input: Tensor) -> Tensor:
        return self.run(input, self.output)

    def run(self, input: Tensor, wanted: int) -> Any:
        """The value `wanted` for `input`."""
        values: dict[int, Any] = {0: input}
        for index, step in enumerate(self.steps[:wanted]):
            values[index + 1] = step(*(values[value] for value in self.wires[index]))
            for value in self._last[index]:
                if value != wanted:
                    del values[value]
        return values[wanted]

    def takes(self) -> dict[str, int] | None:
        """The features of the input's last dimension, its channels and dimensions of space, or the number of tokens.

        None where no step says.

        >>> Program([PackedLinear(torch.zeros(1, 1, 1, 16, dtype=torch.int32), 5, 3)], [(0,)], 1).takes()
        {'features': 5}
        """
        for step, wire in zip(self.steps, self.wires, strict=True):
            if 0 in wire and isinstance(step, PackedLinear):
                return {"features": step.in_features}
            if 0 in wire and isinstance(step, PackedConv):
                return {"channels": step.channels[0], "space": len(step.kernel)}
            if 0 in wire and isinstance(step, Real) and isinstance(step.module, nn.Embedding):
                return {"tokens": step.module.num_embeddings}
        return None

    def require_fit(self, inputs: Tensor, given: torch.dtype) -> None:
        """Raise where the first step takes inputs of another kind or shape; `given` is what they came in."""
        takes = self.takes()
        if takes is None:
            return
        if "tokens" in takes:
            if inputs.is_floating_point():
                raise InputError(f"these networks take tokens, whole numbers below {takes['tokens']}, got {given}")
            strange = inputs[(inputs < 0) | (inputs >= takes["tokens"])]
            if len(strange):
                raise InputError(f"these networks take tokens 0 … {takes['tokens'] - 1}, got {int(strange[0])}")
            return
        if not inputs.is_floating_point():
            raise InputError(f"these networks take floating inputs, got {given}; call .float()")
        if "features" in takes:
            fits, wanted = inputs.shape[1:] and inputs.shape[-1] == takes["features"], f"N × {takes['features']}"
        else:
            space = takes["space"]
            fits = inputs.dim() == space + 2 and inputs.shape[1] == takes["channels"]
            wanted = f"N × {takes['channels']}{' × size' * space}"
        if not fits:
            raise InputError(f"these networks take inputs of shape {wanted}, got {' × '.join(map(str, inputs.shape))}")

    def member(self, s: int) -> nn.Module:
        """Network `s` in plain torch modules: a `torch.nn.Sequential` where each step follows the one before."""
        parts = [step.member(s) for step in self.steps]  # type: ignore[operator]
        chain = all(wire == (index,) for index, wire in enumerate(self.wires)) and self.output == len(self.wires)
        if chain:
            return nn.Sequential(*(module for part in parts for module in part)).eval()
        return Program([nn.Sequential(*part) if len(part) != 1 else part[0] for part in parts],
                       self.wires, self.output).eval()  # fmt: skip
