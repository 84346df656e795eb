"""The fully connected layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from varbnn.nn.layer import BinaryLayer


class BinaryLinear(BinaryLayer, nn.Linear):  # type: ignore[override]  # its weight is drawn
    """`torch.nn.Linear` with ±1 weights drawn from a posterior; the bias stays real.

    Args: those of `torch.nn.Linear`, and ``posterior=``.

    Shape: (..., in_features) → (..., out_features).

    >>> import torch
    >>> layer = BinaryLinear(3, 2).eval()
    >>> layer.weight.detach().abs()
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    >>> sorted(layer.state_dict())
    ['bias', 'natural']
    """

    twin = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        return self.respond(input, F.linear)
