"""How the signs of normal latents hang together: closed forms, and one integral over an angle where there is none."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PARALLEL = 1 - 1e-14
"""Correlation of latents, up to sign, from which they are one: rounding leaves it a little below 1."""

NODES = 64
"""Of the Gauss-Legendre rule; 1e-10 of the truth for correlations of the latents up to 0.99."""


def cauchy_natural(a: Tensor) -> Tensor:
    """λ of the coin with mean (2/π) arctan(a): the sign of |g| a + h for two normal numbers g and h.

    >>> cauchy_natural(torch.tensor([0.0, 1e-8, -1.0, math.inf]))
    tensor([ 0.0000e+00,  6.3662e-09, -5.4931e-01,         inf])
    """
    size = a.abs()
    inner = torch.atanh(2 / math.pi * torch.atan(size.clamp_max(1)))
    other = torch.atan2(torch.ones_like(size), size) / math.pi  # the probability of the less likely sign
    outer = (torch.log1p(-other) - torch.log(other)) / 2
    return torch.copysign(torch.where(size < 1, inner, outer), a)


def correlation_of_signs(m: Tensor, z: Tensor, *, homogeneous: bool, joint: Tensor | None = None) -> Tensor:
    """Correlation matrix of the signs of m + zᵀ r, r ~ N(0, I), or of |g| m + zᵀ r.

    Args:
        m: n means.
        z: (rank, n).
        homogeneous: which of the two.
        joint: n×n, which pairs share their r; all when absent.
    """
    kind, m, z = m.dtype, m.double(), z.double()
    product, deviation = z.T @ z, torch.linalg.vector_norm(z, dim=0)
    size = torch.sqrt(m.square() + deviation.square()) if homogeneous else deviation
    inner = product + torch.outer(m, m) if homogeneous else product
    sure = (deviation == 0).unsqueeze(1) | (deviation == 0)
    latent = torch.where(sure, 0.0, inner / torch.outer(size, size)).clamp(-1, 1)
    if homogeneous:
        mean = 2 / math.pi * torch.atan2(m, deviation)
        rarer = 2 / math.pi * torch.atan2(deviation, m.abs())
        covariance = 2 / math.pi * torch.asin(latent) - torch.outer(mean, mean)
    else:
        a = torch.where(deviation == 0, 0.0, m / deviation)
        rarer, covariance = torch.erfc(a.abs() / math.sqrt(2)), covariance_of_signs(a, latent)
    spread = torch.sqrt(rarer * (2 - rarer))  # 1 - mean² of a sure weight has lost its digits
    correlation = torch.where(sure | (spread.unsqueeze(1) * spread == 0), 0.0, covariance / torch.outer(spread, spread))
    if joint is not None:
        correlation = torch.where(joint, correlation, 0.0)
    correlation = correlation.clamp(-1, 1)
    return correlation.fill_diagonal_(1.0).to(kind)


def covariance_of_signs(a: Tensor, correlation: Tensor) -> Tensor:
    """Covariance of sign(xᵢ) and sign(xⱼ) for normal x with means `a`, deviation 1 and this correlation matrix.

    Its derivative in the correlation ρ is 4 times the normal density at 0 (Plackett 1954). With ρ = sin θ that is

        (2/π) ∫₀^{arcsin ρ} exp(-(aᵢ² + aⱼ² - 2 aᵢ aⱼ sin θ) / (2 cos² θ)) dθ

    and (2/π) arcsin ρ at a = 0. At ρ = ±1, where quadrature sees little, it is a product of probabilities.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    end, squares, product = torch.asin(correlation), a.square(), torch.outer(a, a)
    both = squares.unsqueeze(1) + squares
    total = torch.zeros_like(correlation)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        angle = end * (1 + node) / 2
        exponent = (both - 2 * product * torch.sin(angle)) / (2 * torch.cos(angle).square())
        total += weight * torch.exp(-exponent)
    return torch.where(correlation.abs() > PARALLEL, _of_one_latent(a, correlation), total * end / math.pi)


def _of_one_latent(a: Tensor, correlation: Tensor) -> Tensor:
    """Covariance of the signs of aᵢ + g and aⱼ ± g, with the sign of their correlation."""
    # erfc, as ndtr has no digits left at -8
    minus, plus = (torch.special.erfc(side / math.sqrt(2)).unsqueeze(1) / 2 for side in (a, -a))
    same = torch.minimum(minus, minus.T) * torch.minimum(plus, plus.T)
    opposite = torch.minimum(minus, plus.T) * torch.minimum(plus, minus.T)
    return 4 * torch.where(correlation > 0, same, -opposite)
