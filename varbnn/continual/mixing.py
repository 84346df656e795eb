"""Examples of several tasks as those of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from varbnn.continual.strategies import Examples
from varbnn.errors import InputError


def together(parts: Sequence[Examples], outputs: int) -> Examples:
    """All of `parts` one after the other; each example keeps the heads it came with.

    Args:
        parts: of tasks of the same number of inputs.
        outputs: of the network.

    Raises:
        InputError: no part, or other numbers of inputs.

    >>> x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    >>> heads = torch.tensor([[True, True, False]])
    >>> together([Examples(x, y, heads), Examples(x[:1], torch.tensor([2]))], outputs=3).heads
    tensor([[ True,  True, False],
            [ True,  True, False],
            [ True,  True,  True]])
    """
    if not parts:
        raise InputError("there is nothing to learn from: no examples were given")
    widths = {part.x.shape[1:] for part in parts}
    if len(widths) > 1:
        raise InputError(f"examples of several tasks need inputs of one shape, got {sorted(map(tuple, widths))}")
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    if all(part.heads is None for part in parts):
        return Examples(x, y)
    return Examples(x, y, torch.cat([_rows(part, outputs) for part in parts]))


def _rows(part: Examples, outputs: int) -> Tensor:
    """N×outputs, one row per example."""
    if part.heads is None:
        return torch.ones(len(part.y), outputs, dtype=torch.bool)
    return part.heads.expand(len(part.y), outputs)
