"""What the published BayesBiNN code computes, where that differs from its paper (Meng, Bachmann, Khan 2020).

Three habits matter (`docs/notes/0003-published-numerics.md`):

- the mean is stored *before* each update, so every later use of it lags one update behind;
- both halves of the factor (1 - w² + e) / (T · (1 - μ² + e)) carry the guard e = 1e-10. With the published T = 1e-10
  and λ = ±10 both squares round to 1 and the factor is the constant 1 / T: the method becomes straight-through
  training;
- a mean of 0 decides for -1.

The lag lives in two buffers, so that any optimizer may train the belief: `previous_natural` is λ as last seen in
training and `lagged_mean` the mean that belongs to it. An update is noticed when λ differs from `previous_natural`;
one that changes no entry of a layer's λ goes unnoticed, and then the lag is counted from the last update that did
something.
"""

from __future__ import annotations

import torch
from torch import Tensor

GUARD = 1e-10
"""The published e."""

BUFFERS = ("previous_natural", "lagged_mean")


def initial(natural: Tensor) -> tuple[Tensor, Tensor]:
    """The buffers before the first update: nothing lags yet."""
    return natural.detach().clone(), torch.tanh(natural.detach())


def _lagged(natural: Tensor, previous_natural: Tensor, lagged_mean: Tensor) -> Tensor:
    """The stored mean as it stands now, without storing it."""
    updated = (natural != previous_natural).any()
    return torch.where(updated, torch.tanh(previous_natural), lagged_mean)


def relaxed(
    natural: Tensor, previous_natural: Tensor, lagged_mean: Tensor, *, noise: Tensor, relaxation: float
) -> tuple[Tensor, Tensor]:
    """The relaxed weight and its factor, in the published order of operations. Moves the buffers on."""
    lagged_mean.copy_(_lagged(natural, previous_natural, lagged_mean))
    previous_natural.copy_(natural)
    delta = torch.log(noise / (1 - noise)) / 2
    weight = torch.tanh((natural + delta) / relaxation)
    factor = (1 - weight * weight + GUARD) / relaxation / (1 - lagged_mean * lagged_mean + GUARD)
    return weight.to(natural.dtype), factor.to(natural.dtype)  # noise is float32 at least


def mode(natural: Tensor, previous_natural: Tensor, lagged_mean: Tensor) -> Tensor:
    """±1 by the sign of the lagged mean; 0 decides for -1."""
    lagged = _lagged(natural, previous_natural, lagged_mean)
    decided = torch.where(lagged > 0, 1.0, -1.0).to(natural.dtype)
    return torch.where(lagged.isnan(), lagged, decided)
