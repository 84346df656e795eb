"""What weights of ±1 cannot say: how much each feature counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from varbnn.checks import whole_number


class Scale(nn.Module):
    """y = x · scale + shift, one learned real number of each kind per feature (the last axis).

    In front of a binary layer it weighs the features, which weights of ±1 cannot; behind one it does what batch norm's
    scale and shift do, without statistics that belong to a batch or to a draw.

    Args:
        features: size of the last axis.
        initial: of all scales; ``inputs ** -0.5`` behind a binary layer keeps the variance.
        shift: learn one, from 0.

    Raises:
        InputError: `features` below 1.

    >>> Scale(3, initial=0.5)(torch.ones(2, 3)).detach()
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]])
    """

    def __init__(self, features: int, initial: float = 1.0, shift: bool = False) -> None:
        super().__init__()
        features = whole_number("features", features)
        self.initial = float(initial)
        self.scale = nn.Parameter(torch.empty(features))
        self.shift = nn.Parameter(torch.empty(features)) if shift else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start afresh, as at construction."""
        nn.init.constant_(self.scale, self.initial)
        if self.shift is not None:
            nn.init.zeros_(self.shift)

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = inputs * self.scale
        return scaled if self.shift is None else scaled + self.shift

    def extra_repr(self) -> str:
        return f"{len(self.scale)}, shift={self.shift is not None}"
