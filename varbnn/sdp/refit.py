"""Layers that stay real behind binary ones, fitted once more: they make up for much of what those are off by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.01
"""Of the mean square of an input: how strongly weights are held where they were. Chosen on digits held out."""


def refitted(layer: nn.Module, real: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Weight, and bias where there is one, whose outputs on `seen` come nearest to those of `layer` on `real`.

    Least squares with a ridge around the weights that the layer has, so that inputs without variation keep theirs.

    Args:
        layer: linear or convolution; unchanged.
        real, seen: inputs in the float and in the binary network, groups × M × K, float64.

    >>> layer, x = nn.Linear(3, 2), torch.randn(50, 3, dtype=torch.float64)
    >>> found = refitted(layer, x[None], 2 * x[None])  # twice the inputs: about half the weights
    >>> torch.allclose(found["weight"], layer.weight.double() / 2, atol=0.05)
    True
    """
    weight = layer.get_parameter("weight").detach().double().cpu()
    old = weight.reshape(len(real), len(weight) // len(real), -1)
    bias = layer._parameters.get("bias")
    wanted = real @ old.mT
    outer, middle = (m.mean(1, keepdim=True) if bias is not None else 0 * m[:, :1] for m in (wanted, seen))
    inputs, targets = seen - middle, wanted - outer
    gram = inputs.mT @ inputs
    held = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)
    held = torch.where(held > 0, held, 1.0)[:, None, None]  # no input varies: the weights stay
    left = targets - inputs @ old.mT
    moved = torch.linalg.solve(gram + held * torch.eye(gram.shape[-1], dtype=gram.dtype), inputs.mT @ left).mT
    new = old + moved
    found = {"weight": new.reshape(weight.shape)}
    if bias is not None:
        shift = (outer - middle @ new.mT).reshape(-1)
        found["bias"] = bias.detach().double().cpu() + shift
    return found
