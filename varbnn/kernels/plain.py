"""Every operation in plain torch: the definition, and what runs where no native backend does."""

from __future__ import annotations

import torch
from torch import Tensor

from varbnn.bits import pack_blocks
from varbnn.kernels import philox, reference
from varbnn.kernels.products import conv, linear, linear_int8, pack_signs, predictive

__all__ = ["conv", "draw", "linear", "linear_int8", "pack_signs", "predictive", "relax", "sample_blocks"]


def sample_blocks(natural: Tensor, seed: Tensor, layer: int, first: int, count: int) -> Tensor:
    """Samples `first` to `first + count` of ±1 weights (N, K), as blocks."""
    philox.require_no_nan(natural, "beliefs")
    samples = [philox.draw_bits(natural, seed, layer, first + s) for s in range(count)]
    return pack_blocks(torch.stack(samples).to(torch.float32).mul_(2).sub_(1)).to(natural.device)


def draw(natural: Tensor, seed: Tensor, layer: int, sample: int) -> Tensor:
    """One sample as ±1 floats (N, K); a NaN belief draws NaN."""
    signs = philox.draw_bits(natural, seed, layer, sample).to(torch.float32).mul_(2).sub_(1)
    return torch.where(natural.isnan(), natural, signs)


def relax(natural: Tensor, seed: Tensor, relaxation: float, euclidean: bool) -> tuple[Tensor, Tensor]:
    """Relaxed weights and the factors of their gradients, both shaped like `natural`."""
    noise = philox.uniform(natural.shape, seed)
    weight, factor = reference.draw_relaxed(natural.double(), relaxation, euclidean, noise)
    return weight.float(), factor.float()
